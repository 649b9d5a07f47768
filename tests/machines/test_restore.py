#!/usr/bin/env python3
"""An installed server gives back what it has saved: to clients over SSH, on the server, to operators; and lets policies prune.

As root: scripts/machines test_restore
"""
import json
import unittest

import rig as rigs
import server as borgcube


class Restores:
    suite = None

    @classmethod
    def setUpClass(cls):
        cls.rig = rigs.Rig({"server": {"suite": cls.suite}, "client1": {"suite": "bookworm"}, "client2": {"suite": "trixie"}})
        cls.enterClassContext(cls.rig)
        cls.server, cls.one, cls.two = (cls.rig[name] for name in ("server", "client1", "client2"))
        borgcube.install(cls.server)
        borgcube.add_repository(cls.server)
        for host in cls.one, cls.two:
            borgcube.let_in(host, cls.server)
            cls.cli("client", "add", host.name, "--remote", f"root@{host.name}", "--server", "borgcube-ssh@server")
            cls.cli("config", "add", "data", "--client", host.name, "--repository", "main", "/srv/data")
            host.sh("""
                mkdir -p /srv/data/deep; cd /srv/data
                head -c 3M /dev/urandom > random; echo private > deep/private; chmod 600 deep/private; chown 1234:5678 deep/private
                ln -s deep/private link; ln random hard; printf 'with a line\nbreak' > "$(printf 'a\nb')"; truncate -s 5M sparse
            """)
        cls.server.sh("useradd -m olga; usermod -aG borgcube olga")

    @classmethod
    def cli(cls, *words, **options):
        return borgcube.borgcube(cls.server, *words, **options)

    def as_operator(self, script, **options):
        """Somebody of the group borgcube, who is nobody otherwise."""
        return self.server.sh(f"cd /home/olga; export HOME=/home/olga; setpriv --reuid olga --regid olga --init-groups sh -euc '{script}'", **options)

    def archives(self):
        return [archive["name"] for archive in json.loads(self.cli("archive", "list", "--json").out)]

    def newest(self, client):
        return next(name for name in self.archives() if name.startswith(f"{client}-data-"))

    def back_up(self, client):
        self.cli("run", f"{client}/data", "--wait", "--quiet", timeout=120)
        return self.newest(client)

    def test_10_backups(self):
        for client in "client1", "client2":
            self.back_up(client)

    def test_20_to_the_client_it_came_from_and_to_another(self):
        for source, target, host in (("client1", "client1", self.one), ("client2", "client2", self.two), ("client1", "client2", self.two)):
            other = ["--to-client", target] if source != target else []
            said = self.cli("restore", self.newest(source), "--wait", "--yes", "--json", *other, timeout=120).out
            job = json.loads(said)
            self.assertEqual(job["state"], "done", said)
            directory = job["yield"]["target"]
            self.assertTrue(directory.startswith("/root/borgcube-restore-"), directory)
            self.assertEqual(host.sh(f"stat -c %a {directory}").out, "700\n")
            if source == target:
                host.sh(f"diff -r --no-dereference /srv/data {directory}/srv/data")
            else:
                wanted = self.one.sh("sha256sum < /srv/data/random").out
                self.assertEqual(host.sh(f"sha256sum < {directory}/srv/data/random").out, wanted)
            self.assertEqual(host.sh(f"stat -c '%a %u %g' {directory}/srv/data/deep/private").out, "600 1234 5678\n")
            host.sh(f"rm -r {directory}")
        self.assertEqual(self.server.sh("ls /run/borgcube/keys").out, "", "job keys are gone")
        self.assertEqual(self.server.sh("systemctl --failed --no-legend").out, "")

    def test_21_what_was_lost_comes_back_in_its_place(self):
        self.one.sh("cd /srv/data; rm -r deep; echo changed > random")
        refused = self.cli("restore", self.newest("client1"), "srv/data", "--in-place", "--wait", check=False)
        self.assertNotEqual(refused.code, 0, "nobody said yes")
        self.assertEqual(self.one.sh("cat /srv/data/random").out, "changed\n")
        self.cli("restore", self.newest("client1"), "srv/data", "--in-place", "--yes", "--wait", timeout=120)
        self.assertEqual(self.one.sh("cat /srv/data/deep/private; stat -c %s /srv/data/random").out, f"private\n{3 << 20}\n")
        self.assertIn("restore", self.cli("log").out)

    def test_25_a_restart_of_each_daemon_during_a_restore(self):
        archive = self.newest("client1")
        for unit in "borgcubed", "borgcube-repositoryd@main":
            self.one.rate("8mbit")
            job = str(json.loads(self.cli("restore", archive, "--yes", "--json").out)["job"])
            self.server.wait_for(f"borgcube job show {job} | grep -q client_in_progress && systemctl --no-legend list-units 'borgcube-session@*' | grep -q running", timeout=60)
            self.server.sh(f"systemctl restart {unit}", timeout=60)
            self.one.rate(None)
            said = self.cli("job", "wait", job, "--json", check=False, timeout=120).out
            ended = json.loads(said)
            self.assertEqual(ended["state"], "done", said + self.cli("job", "log", job).out)
            directory = ended["yield"]["target"]
            self.one.sh(f"test $(stat -c %s {directory}/srv/data/random) = {3 << 20}; rm -r {directory}")

    def test_30_on_the_server_for_root_and_for_operators(self):
        archive = self.newest("client1")
        wanted = self.one.sh("sha256sum < /srv/data/random").out
        self.cli("archive", "extract", archive, "--to", "/tmp/restored")
        self.assertEqual(self.server.sh("sha256sum < /tmp/restored/srv/data/random").out, wanted)
        self.assertEqual(self.server.sh("stat -c '%a %u %g' /tmp/restored/srv/data/deep/private").out, "600 1234 5678\n")
        self.server.sh("rm -r /tmp/restored")

        self.assertIn("srv/data/deep/private", self.as_operator(f"borgcube archive files {archive}").out)
        self.assertEqual(self.as_operator(f"borgcube archive cat {archive} srv/data/random | sha256sum").out, wanted)
        self.assertEqual(self.as_operator(f"mkdir tar; borgcube archive export-tar {archive} - | tar -xC tar; sha256sum < tar/srv/data/random").out, wanted)
        self.as_operator(f"borgcube archive extract {archive} --to restored")
        self.assertEqual(self.server.sh("sha256sum < /home/olga/restored/srv/data/random").out, wanted)
        self.assertEqual(self.server.sh("stat -c '%a %U' /home/olga/restored/srv/data/deep/private").out, "600 olga\n")
        self.assertEqual(self.as_operator(f"borgcube archive diff {archive} {archive}").out, "")

    def test_31_strangers_read_nothing(self):
        archive = self.newest("client1")
        self.server.sh("useradd -m stranger")
        refused = self.server.sh(f"cd /; setpriv --reuid stranger --regid stranger --init-groups borgcube archive cat {archive} srv/data/deep/private", check=False)
        self.assertNotEqual(refused.code, 0)
        self.assertNotIn("private\n", refused.out)

    def test_40_policies_prune_and_what_was_pruned_can_come_back(self):
        for _ in range(3):
            self.one.sh("head -c 2M /dev/urandom > /srv/data/new")
            self.back_up("client1")
        before = self.archives()
        self.as_operator("borgcube policy add one --keep-last 1 --minimum 1 --config client1/data --grace 1H --most-per-day 1000")
        self.assertIn(before[0], self.cli("policy", "preview", "one").out)
        self.cli("schedule", "add", "tidy", "--at", "daily 03:00 UTC", "--prune", "all")
        for job in json.loads(self.cli("schedule", "run", "tidy", "--json").out)["jobs"]:
            self.cli("job", "wait", str(job), timeout=120)
        self.assertEqual(self.archives(), before, "there is a grace period")
        going = [archive for archive in json.loads(self.cli("archive", "list", "--json").out) if archive["pending_deletion"]]
        self.assertEqual(len(going), 3, going)
        kept = going[0]["name"]
        self.as_operator(f"borgcube archive undelete {kept}")
        for archive in going[1:]:
            self.cli("archive", "delete", archive["name"], "--now", "--yes", timeout=60)
        self.cli("repository", "compact", "main", "--job", "--wait", timeout=60)
        left = self.archives()
        self.assertEqual(len(left), len(before) - 2)
        self.assertIn(kept, left)
        self.assertEqual(sorted(borgcube.stock_borg(self.server, "main", "list --short {path}").out.split()), sorted(left))
        borgcube.stock_borg(self.server, "main", "check --verify-data {path}")
        self.cli("repository", "check", "main", "--verify-data", "--job", "--wait", timeout=60)
        self.assertEqual(self.server.sh("systemctl --failed --no-legend").out, "")


class Bookworm(Restores, unittest.TestCase):
    suite = "bookworm"


class Trixie(Restores, unittest.TestCase):
    suite = "trixie"


if __name__ == "__main__":
    unittest.main(verbosity=2)
