#!/usr/bin/env python3
"""An installed server from its first command on, and what `borgcube doctor` says when it is broken. What the two tell to type is typed here
as it stands: hints of `borgcube setup`, and the lines of the doctor that are commands, from the first to the last.

As root: scripts/machines test_doctor[.Bookworm[.TEST]]
"""
import json
import re
import time
import unittest

import rig as rigs
import server as borgcube

# What a person keeps elsewhere and fills in where the doctor says FILE.
COPIES = "/root/copies"


class Doctor:
    suite = None

    @classmethod
    def setUpClass(cls):
        cls.rig = rigs.Rig({"server": {"suite": cls.suite, "clock": True}, "client1": {"suite": "bookworm"}})
        cls.enterClassContext(cls.rig)
        cls.server, cls.one = cls.rig["server"], cls.rig["client1"]
        borgcube.install(cls.server)
        # Root of the server can log in to the client, as people can from somewhere; BorgCube knows neither key nor host key.
        cls.one.authorize(cls.server)
        cls.server.sh("mv /etc/ssh/ssh_known_hosts /root/.ssh/known_hosts")
        cls.one.sh("mkdir -p /srv/data; head -c 300k /dev/urandom > /srv/data/file")

    @classmethod
    def cli(cls, *words, **options):
        return borgcube.borgcube(cls.server, *words, **options)

    def archives(self):
        return borgcube.stock_borg(self.server, "main", "list --short {path}", path="/srv/borgcube/main").out.split()

    def doctor(self, *words):
        """All warnings and problems."""
        said = self.cli("doctor", "--json", *words, check=False)
        report = json.loads(said.out)
        self.assertEqual(said.code, 1 if report["problems"] else 0, said)
        return [finding for finding in report["findings"] if finding["verdict"] in ("warning", "problem")]

    def assert_well(self, *words):
        self.assertEqual(self.doctor(*words), [])

    def mend(self, *expected, words=(), filled=()):
        """Looks for each expected (check, sentence), types every command that the doctor gives, and then all is well."""
        found = self.doctor(*words)
        for check, sentence in expected:
            self.assertTrue(any(f["check"] == check and sentence in f["message"] for f in found), (check, sentence, found))
        for finding in found:
            self.assertTrue(finding["run"], f"no command mends it: {finding}")
        for command in [command for finding in found for command in finding["run"]]:
            for word, value in dict(filled).items():
                command = command.replace(word, value)
            self.server.sh(f"mkdir -p {COPIES}; cd {COPIES}; {command}")
        self.assertEqual(self.doctor(*words), [], f"after what was said of {found}")

    def backup(self, config="client1/files", check=True):
        return self.cli("run", config, "--wait", "--quiet", timeout=120, check=check)

    def idle(self):
        self.server.wait_for("! test -e /srv/borgcube/main/lock.exclusive")

    # -- from nothing to the first backup --------------------------------------------------------------

    def test_10_an_empty_server_is_well(self):
        self.assert_well()

    def test_11_this_machine_itself_with_one_command(self):
        said = self.cli("setup", "--yes", "/etc/ssh", timeout=120).out
        for step in "repository main", "SSH key", "reaches borgcube-ssh@localhost", "archive server-files-":
            self.assertIn(step, said)
        self.assertEqual(len(self.archives()), 1)
        borgcube.stock_borg(self.server, "main", "check --verify-data {path}", path="/srv/borgcube/main")
        # What it says comes next is typed as well.
        for line in said.partition("Next:\n")[2].splitlines():
            if line.strip().startswith("borgcube "):
                self.server.sh(re.split(r"\s{2,}", line.strip())[0], timeout=120)
        self.assertEqual(len(self.archives()), 2)
        self.assert_well("--client", "server")

    def test_12_another_host_by_its_hints(self):
        fingerprint = self.one.sh("ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub").out.split()[1]
        first = self.cli("setup", "--yes", "--remote", "root@client1", "--server", "borgcube-ssh@server", "--host-key", fingerprint,
                         "/srv/data", check=False, timeout=120)
        self.assertNotEqual(first.code, 0)
        self.server.sh(re.search(r"can log in there: (.*)", first.err).group(1))
        self.server.sh(re.search(r"Try by hand: (.*)", first.err).group(1))
        again = re.search(r"Then go on with: (borgcube .*)", first.err).group(1)
        said = self.server.sh(again, timeout=120).out
        self.assertRegex(said, "root@client1 is reached; it has borg 1.2.4")
        self.assertIn("client1 reaches borgcube-ssh@server", said)
        self.assertTrue(any(name.startswith("client1-files-") for name in self.archives()))
        # Nothing is left to do, and nothing is done twice.
        before = self.archives()
        self.server.sh(again, timeout=120)
        self.assertEqual(self.archives(), before)
        self.assert_well("--client", "client1", "--client", "server")
        self.server.sh(f"mkdir -p {COPIES}; systemd-creds --name=passphrase decrypt "
                       f"/etc/credstore.encrypted/borgcube.repository.main.passphrase {COPIES}/FILE")

    # -- broken, and mended by what the doctor says ----------------------------------------------------

    def test_20_permissions(self):
        self.server.sh("chmod 0600 /run/borgcube/session.sock; chmod 0644 /var/lib/borgcube/db/data.mdb; chown root /var/lib/borgcube/db/lock.mdb;"
                       "chmod 0755 /var/lib/borgcube/log; rmdir /run/borgcube/queue 2> /dev/null || true;"
                       "rm -rf /run/borgcube/keys; chmod 0644 /etc/credstore.encrypted/borgcube.repository.main.passphrase")
        self.assertNotEqual(self.backup(check=False).code, 0)
        self.mend(("sockets", "session.sock has mode 0600"), ("directories", "data.mdb has mode 0644"), ("directories", "lock.mdb belongs to root"),
                  ("directories", "others have rights"), ("directories", "/run/borgcube/keys is missing"), ("credentials", "not for root alone"))
        self.backup()

    def test_21_a_borg_that_ran_as_root(self):
        self.idle()
        self.server.sh("cd /srv/borgcube/main/data/0; chown root $(ls | tail -1)")
        self.mend(("repositories", "belongs to root"))
        self.backup()

    def test_30_the_snippet_is_gone(self):
        server = self.server
        server.sh("rm /etc/ssh/sshd_config.d/borgcube.conf; systemctl reload ssh")
        self.assertNotEqual(self.backup(check=False).code, 0)
        self.mend(("sshd", "are not in effect"))
        self.backup()
        server.sh("sed -i '/^Include/d' /etc/ssh/sshd_config; systemctl reload ssh")
        self.mend(("sshd", "are not in effect"))
        self.backup()

    def test_31_sshd_refuses_the_command(self):
        self.server.sh("chmod o+w /usr/libexec/borgcube")
        self.assertNotEqual(self.backup(check=False).code, 0)
        self.mend(("sshd", "can be changed by others"))
        self.backup()

    def test_32_sshd_does_not_run(self):
        self.server.sh("systemctl stop ssh")
        self.mend(("sshd", "sshd does not run"))
        self.backup()

    def test_33_few_may_log_in_at_once(self):
        self.server.sh("echo 'MaxStartups 1:30:10' > /etc/ssh/sshd_config.d/50-few.conf; systemctl reload ssh")
        self.mend(("sshd", "MaxStartups 1:30:10"))
        notes = json.loads(self.cli("doctor", "--json").out)["findings"]
        penalties = [f for f in notes if "PerSourcePenalties" in f["message"]]
        self.assertEqual(len(penalties), 1 if self.suite == "trixie" else 0, notes)
        for command in [command for finding in penalties for command in finding["run"]]:
            self.server.sh(command.replace("NETWORK/BITS", "10.99.0.0/24"))
        self.assertNotIn("PerSourcePenalties", self.cli("doctor", "--json").out)

    def test_40_the_clock_went_back(self):
        server = self.server
        now = server.sh("date +%s").out
        server.set_clock(float(now) - 3600)
        self.mend(("clock", "the clock went back"), filled={"YYYY-MM-DD HH:MM:SS": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(time.time() + 1))})

    def test_41_two_clocks(self):
        self.addCleanup(self.server.set_clock)
        self.server.set_clock(time.time() + 7200)
        found = self.doctor("--client", "client1")
        self.assertRegex(" ".join(f["message"] for f in found), "the clock of client client1 is 7[12].. seconds behind this server's")

    def test_50_a_full_disk(self):
        server = self.server
        server.sh("""
            free=$(df --output=avail -B1 /var/cache/apt/archives | tail -1)
            fallocate -l $((free - 300000000)) /var/cache/apt/archives/large_1_all.deb
        """)
        self.mend(("space", "are free for the state, repository main"))

    def test_60_another_host_key(self):
        self.one.sh("cd /etc/ssh; rm ssh_host_*; ssh-keygen -q -t ed25519 -N '' -f ssh_host_ed25519_key; systemctl restart ssh")
        self.assertNotEqual(self.backup(check=False).code, 0)
        self.mend(("host-keys", "has another host key"), words=("--client", "client1"))
        self.backup()
        # In the file of the whole machine, too.
        self.server.sh("mv /var/lib/borgcube/.ssh/known_hosts /etc/ssh/ssh_known_hosts; chmod 644 /etc/ssh/ssh_known_hosts")
        self.one.sh("cd /etc/ssh; rm ssh_host_*; ssh-keygen -q -t ed25519 -N '' -f ssh_host_ed25519_key; systemctl restart ssh")
        self.mend(("host-keys", "has another host key"), words=("--client", "client1"))
        self.backup()
        self.backup("server/files")

    def test_61_a_borg_that_is_too_old(self):
        self.one.write("/usr/local/bin/borg", "#!/bin/sh\necho borg 1.0.13\n", mode="755")
        self.assertNotEqual(self.backup(check=False).code, 0)
        self.mend(("borg", "too old"), words=("--client", "client1"))
        self.backup()

    def test_62_the_key_is_let_in_no_longer(self):
        self.one.sh("sed -i /borgcube/d /root/.ssh/authorized_keys")
        self.server.sh("ssh-keyscan client1 > /root/.ssh/known_hosts")
        self.mend(("connection", "cannot be reached"), words=("--client", "client1"))
        self.backup()

    def test_70_an_owner_that_cannot_start(self):
        server = self.server
        self.idle()
        server.sh("""
            mkdir -p /run/systemd/system/borgcube-repositoryd@main.service.d
            printf '[Unit]\nStartLimitBurst=2\n[Service]\nRestartSec=100ms\n' > /run/systemd/system/borgcube-repositoryd@main.service.d/limit.conf
            systemctl daemon-reload
            systemctl stop borgcube-repositoryd@main.service
            cp /etc/credstore.encrypted/borgcube.server.ssh-key /etc/credstore.encrypted/borgcube.repository.main.passphrase
        """)
        self.assertNotEqual(self.backup(check=False).code, 0)
        server.wait_for("systemctl is-failed borgcube-repositoryd@main.socket")
        self.mend(("credentials", "cannot be loaded"), ("units", "borgcube-repositoryd@main.socket has failed"))
        self.backup()

    def test_71_a_drop_in_is_lost(self):
        self.idle()
        self.server.sh("rm /etc/systemd/system/borgcube-repositoryd@main.service.d/50-repository.conf; systemctl daemon-reload;"
                       "systemctl stop borgcube-repositoryd@main.service")
        self.mend(("credentials", "has no drop-in"))
        self.backup()

    def test_72_what_systemd_was_told_to_stop(self):
        self.server.sh("systemctl stop borgcubed.socket borgcubed.service borgcube-session.socket; systemctl mask --runtime borgcube-timers.path")
        self.mend(("server", "borgcubed is not running"), ("units", "borgcube-session.socket is inactive"), ("units", "borgcube-timers.path is masked"))
        self.backup()

    def test_80_others_than_root(self):
        self.server.sh("useradd -m ada; usermod -aG borgcube ada")
        said = self.server.sh("cd /; setpriv --reuid ada --regid ada --init-groups borgcube doctor --json", check=False)
        report = json.loads(said.out)
        self.assertEqual((said.code, report["problems"]), (0, 0), report)
        self.assertTrue(any("as root" in f["message"] for f in report["findings"] if f["verdict"] == "skipped"), report)


class Bookworm(Doctor, unittest.TestCase):
    suite = "bookworm"


class Trixie(Doctor, unittest.TestCase):
    suite = "trixie"


if __name__ == "__main__":
    unittest.main(verbosity=2)
