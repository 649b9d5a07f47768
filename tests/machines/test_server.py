#!/usr/bin/env python3
"""An installed server, booted. What systemd, the journal and stock borg say counts, never our own status alone.

As root: scripts/machines [TEST...]
"""
import re
import time
import unittest

import rig as rigs
import server as borgcube

# Reads the repository's keys as stock borg does.
KEYS = r'''
import json, os, sys
from borg.logger import setup_logging
from borg.repository import Repository
try:
    from borg.helpers import Manifest
except ImportError:
    from borg.manifest import Manifest
setup_logging()
with Repository(sys.argv[1], lock=False) as repository:
    _, key = Manifest.load(repository, (Manifest.Operation.READ,))
keys = {"passphrase": os.environ["BORG_PASSPHRASE"].encode(), "enc_key": key.enc_key, "enc_hmac_key": key.enc_hmac_key}
print(json.dumps({name: value.hex() for name, value in keys.items()}))
'''

# Looks for them in the memory of processes.
SEARCH = r'''
import json, re, sys
needles = {name: bytes.fromhex(value) for name, value in json.load(sys.stdin).items()}
for pid in sys.argv[1:]:
    found = set()
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            begin, end, rights = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+)", line).groups()
            if "r" not in rights or "[v" in line:
                continue
            try:
                memory.seek(int(begin, 16))
                content = memory.read(int(end, 16) - int(begin, 16))
            except OSError:
                continue
            found |= {name for name, needle in needles.items() if needle in content}
    print(pid, *sorted(found))
'''


class Server:
    suite = None

    @classmethod
    def setUpClass(cls):
        cls.rig = rigs.Rig({"server": {"suite": cls.suite, "clock": True},
                            "client1": {"suite": "bookworm"}, "client2": {"suite": "trixie"}})
        cls.enterClassContext(cls.rig)
        cls.server, cls.one, cls.two = (cls.rig[name] for name in ("server", "client1", "client2"))
        borgcube.install(cls.server)
        borgcube.add_repository(cls.server)
        for host in cls.rig.hosts.values():
            borgcube.let_in(host, cls.server)
            cls.cli("client", "add", host.name, "--remote", f"root@{host.name}", "--server", "borgcube-ssh@server")
            cls.cli("config", "add", "etc", "--client", host.name, "--repository", "main", "/etc")
        # Slow enough to be interrupted.
        cls.one.sh("mkdir -p /srv/data; for n in $(seq 24); do head -c 500k /dev/urandom > /srv/data/$n; done")
        cls.cli("config", "add", "data", "--client", "client1", "--repository", "main", "/srv/data")

    @classmethod
    def cli(cls, *words, **options):
        return borgcube.borgcube(cls.server, *words, **options)

    def run_config(self, config):
        return self.cli("run", config, "--wait", "--quiet", timeout=120)

    def archives(self, repository="main"):
        return borgcube.stock_borg(self.server, repository, "list --short {path}").out.split()

    def begin_slow_backup(self):
        """A backup that has sent some of its chunks; its job's number."""
        self.one.sh("for n in 1 2 3 4 5 6 7 8; do head -c 1M /dev/urandom > /srv/data/$n; done")
        self.one.rate("24mbit")
        said = self.cli("run", "client1/data").out
        job = re.search(r"[Jj]ob (\d+)", said).group(1)
        self.server.wait_for(f"borgcube job show {job} | grep -q client_in_progress && systemctl --no-legend list-units 'borgcube-session@*' | grep -q running")
        time.sleep(0.5)
        return job

    def end_slow_backup(self, job, state="done"):
        self.one.rate(None)
        self.server.wait_for(f"borgcube job show {job} --json | grep -Eq '\"(done|failed|cancelled)\"'", timeout=90)
        shown = self.cli("job", "show", job).out
        self.assertRegex(shown, rf"\b{state}\b", shown + self.cli("job", "log", job, check=False).out)

    def test_10_units_are_clean_and_closed(self):
        verify = self.server.sh("systemd-analyze verify --man=no /usr/lib/systemd/system/borgcube*")
        self.assertEqual(verify.out + verify.err, "")
        for unit, bar in (("borgcube-session@.service", 0.5), ("borgcube-schedule@.service", 0.5), ("borgcubed.service", 1.5),
                          ("borgcube-repositoryd@main.service", 1.5)):
            said = self.server.sh(f"systemd-analyze security --no-pager {unit}").out if "@." not in unit else self.server.sh(
                f"systemd-analyze security --offline=true --no-pager /usr/lib/systemd/system/{unit}").out
            figure = float(re.search(r"exposure level for \S+ ([0-9.]+)", said).group(1))
            self.assertLessEqual(figure, bar, unit)
        self.assertEqual(self.server.sh("sshd -t").err, "")

    def test_20_backups_of_three_hosts(self):
        for host, version in (("server", None), ("client1", "1.2.4"), ("client2", "1.4.0")):
            self.run_config(f"{host}/etc")
            if version:
                self.assertIn(f"borg {version}", self.cli("job", "list", "--json").out)
        names = self.archives()
        for host in "server", "client1", "client2":
            self.assertTrue(any(name.startswith(f"{host}-etc-") for name in names), names)
        borgcube.stock_borg(self.server, "main", "check --verify-data {path}")
        # Nothing was deployed on the clients but the server's key.
        self.assertEqual(self.one.sh("ls /root/.ssh | grep -v -e authorized_keys -e id_ed25519", check=False).out, "")
        self.assertEqual(self.server.sh("ls /run/borgcube/keys").out, "", "job keys are gone")

    def test_30_strangers_are_refused(self):
        server = self.server
        server.sh("useradd -m stranger 2> /dev/null; true")
        for socket in "control.sock", "session.sock":
            refused = server.sh(f"setpriv --reuid stranger --regid stranger --init-groups nc -U -N /run/borgcube/{socket} < /dev/null", check=False)
            self.assertIn("Permission denied", refused.err)
        knock = "setpriv --reuid stranger --regid stranger --init-groups timeout 5 nc -U -d /run/borgcube/repositories/main.sock"
        self.assertEqual(server.sh(knock, check=False).code, 0, "closed without a word")
        server.wait_for("journalctl -u 'borgcube-repositoryd@main' -o cat | grep -q 'which may not'")
        self.assertNotEqual(server.sh("borgcube status", check=False).code, 127)
        as_stranger = server.sh("setpriv --reuid stranger --regid stranger --init-groups borgcube repository list", check=False)
        self.assertNotEqual(as_stranger.code, 0)
        server.sh("usermod -aG borgcube stranger")
        as_operator = server.sh("setpriv --reuid stranger --regid stranger --init-groups borgcube repository list")
        self.assertIn("main", as_operator.out)
        # Only root can add a repository; an operator is told what to type.
        refused = server.sh("cd /; setpriv --reuid stranger --regid stranger --init-groups borgcube repository add x /srv/borg/x -e none", check=False)
        self.assertIn("sudo borgcube repository add x /srv/borg/x -e none", refused.err)
        # No address of the server gives a client a shell.
        self.assertNotEqual(self.one.ssh("borgcube-ssh@server", "id").code, 0)

    def test_40_the_sandbox_leaves_the_database_its_locks(self):
        self.run_config("server/etc")
        for unit, user in (("borgcubed", "borgcube"), ("borgcube-repositoryd@main", "borgcube-repo")):
            pid = self.server.sh(f"systemctl show -P MainPID {unit}").out.strip()
            self.assertNotEqual(pid, "0", unit)
            self.assertEqual(self.server.sh(f"ps -o user:32= -p {pid}").out.strip(), user)
            maps = self.server.sh(f"grep lock.mdb /proc/{pid}/maps").out
            self.assertIn("rw-s", maps, f"{unit} reads without locks")
        self.assertEqual(self.server.sh("stat -c '%a %U %G' /var/lib/borgcube/db/lock.mdb").out, "660 borgcube borgcube-db\n")

    def test_50_keys_are_in_the_owner_alone(self):
        server = self.server
        server.write("/root/keys.py", KEYS)
        server.write("/root/search.py", SEARCH)
        keys = server.sh("""
            for i in $(seq 100); do test -e /srv/borg/main/lock.exclusive || break; sleep 0.2; done
            export BORG_PASSPHRASE=$(systemd-creds --name=passphrase decrypt /etc/credstore.encrypted/borgcube.repository.main.passphrase -)
            export BORG_BASE_DIR=/tmp/search BORG_RELOCATED_REPO_ACCESS_IS_OK=yes
            python3 /root/keys.py /srv/borg/main
        """).out
        job = self.begin_slow_backup()
        pids = {}
        for program in "borgcubed", "borgcube-worker", "borgcube-session", "borgcube-proxy", "borgcube-repositoryd":
            pids[program] = server.sh(f"pgrep -f '^/usr/libexec/borgcube/{program}( |$)|^{program}( |$)' | head -1").out.strip()
            self.assertTrue(pids[program], program)
        users = {program: server.sh(f"ps -o user:32= -p {pid}").out.strip() for program, pid in pids.items()}
        self.assertEqual([users[p] for p in ("borgcubed", "borgcube-worker", "borgcube-proxy", "borgcube-repositoryd")],
                         ["borgcube", "borgcube", "borgcube-ssh", "borgcube-repo"])
        self.assertTrue(users["borgcube-session"].startswith("bcs-"), users)
        found = server.sh(f"python3 /root/search.py {' '.join(pids.values())}", stdin=keys).out
        found = {line.split()[0]: line.split()[1:] for line in found.splitlines()}
        self.assertIn("enc_key", found[pids["borgcube-repositoryd"]], "the search finds a key where there is one")
        for program in "borgcubed", "borgcube-worker", "borgcube-session", "borgcube-proxy":
            self.assertEqual(found[pids[program]], [], program)
        self.end_slow_backup(job)

    def test_51_secrets_are_encrypted_on_disk(self):
        secret = self.server.sh("systemd-creds --name=passphrase decrypt /etc/credstore.encrypted/borgcube.repository.main.passphrase -").out.strip()
        self.assertGreater(len(secret), 20)
        self.server.write("/run/needle", secret, mode="600")
        found = self.server.sh("grep -rlFf /run/needle /etc /var/lib/borgcube /var/log /srv /root /tmp /var/tmp 2> /dev/null", check=False).out
        self.assertEqual(found, "")
        self.assertEqual(self.server.sh("ls -A /run/borgcube | grep add-", check=False).out, "")

    def test_52_a_host_that_cannot_encrypt_keeps_them_for_root(self):
        server = self.server
        owner = server.sh("systemctl show -P MainPID borgcube-repositoryd@main").out
        server.sh("mv /usr/bin/systemd-creds /usr/bin/systemd-creds.off")
        try:
            borgcube.add_repository(server, "plain", encryption="keyfile")
        finally:
            server.sh("mv /usr/bin/systemd-creds.off /usr/bin/systemd-creds")
        self.assertEqual(server.sh("stat -c '%a %U' /etc/credstore/borgcube.repository.plain.*").out, "600 root\n" * 2)
        self.cli("config", "add", "plain", "--client", "server", "--repository", "plain", "/etc/ssh")
        self.run_config("server/plain")
        self.assertEqual(server.sh("systemctl show -P MainPID borgcube-repositoryd@main").out, owner, "another owner was left alone")
        self.cli("repository", "add", "plain", "/srv/borg/plain2", "-e", "none", check=False)
        self.assertNotEqual(self.cli("repository", "add", "again", "/srv/borg/plain", "--encryption", "none", check=False).code, 0)

    def test_53_sockets_start_what_is_stopped(self):
        server = self.server
        server.sh("systemctl stop borgcubed.service borgcube-repositoryd@main.service")
        self.run_config("server/etc")
        for unit in "borgcubed", "borgcube-repositoryd@main":
            self.assertEqual(server.sh(f"systemctl is-active {unit}").out, "active\n")

    def test_54_the_servers_ssh_key_is_a_credential(self):
        server = self.server
        server.sh("mv /var/lib/borgcube/.ssh/id_ed25519 /root/old-key")
        self.addCleanup(server.sh, "mv /root/old-key /var/lib/borgcube/.ssh/id_ed25519; rm -rf /etc/systemd/system/borgcubed.service.d;"
                        "systemctl daemon-reload; systemctl restart borgcubed")
        self.assertNotEqual(self.cli("run", "server/etc", "--wait", "--quiet", check=False).code, 0)
        said = self.cli("setup", "--yes", "--repository", "main", "--url", "/srv/borg/main", "--remote", "root@server", "--client", "again",
                        "--server", "borgcube-ssh@server", "--accept-host-key", "/etc/ssh", check=False, timeout=120)
        self.assertEqual(server.sh("stat -c %a /etc/credstore.encrypted/borgcube.server.ssh-key", check=False).out, "600\n", said)
        key = server.sh("setpriv --reuid borgcube --regid borgcube --clear-groups ssh-keygen -y -f /run/credentials/borgcubed.service/ssh-key").out
        server.sh("cat >> /root/.ssh/authorized_keys", stdin=key)
        self.run_config("server/etc")

    def test_60_restart_of_each_daemon_during_a_backup(self):
        for unit in "borgcubed.service", "borgcube-repositoryd@main.service", "borgcube-session.socket", "borgcubed.socket":
            with self.subTest(unit=unit):
                job = self.begin_slow_backup()
                self.server.sh(f"systemctl restart {unit}")
                self.end_slow_backup(job)
        borgcube.stock_borg(self.server, "main", "check {path}")

    def test_61_watchdog(self):
        server = self.server
        for unit in "borgcubed", "borgcube-repositoryd@main":
            server.sh(f"mkdir -p /run/systemd/system/{unit}.service.d; printf '[Service]\nWatchdogSec=2\n' > /run/systemd/system/{unit}.service.d/watchdog.conf;"
                      f"systemctl daemon-reload; systemctl restart {unit}; kill -STOP $(systemctl show -P MainPID {unit})")
            server.wait_for(f"test $(systemctl show -P NRestarts {unit}) -ge 1 && systemctl is-active {unit}", timeout=20)
            self.assertIn("Watchdog timeout", server.sh(f"journalctl -u {unit} -o cat").out)
            server.sh(f"rm -r /run/systemd/system/{unit}.service.d/watchdog.conf; systemctl daemon-reload; systemctl restart {unit}")
        self.run_config("server/etc")

    def test_70_schedules_are_timers(self):
        server = self.server
        self.cli("schedule", "add", "nightly", "--at", "daily 02:30 UTC", "--run", "client2/etc")
        server.wait_for("systemctl list-timers --all --no-legend | grep -q borgcube-schedule@nightly.timer")
        self.assertIn("02:30:00 UTC", server.sh("TZ=UTC systemctl list-timers --all --no-legend borgcube-schedule@nightly.timer").out)
        before = len(self.archives())
        server.set_clock(float(server.sh("date -u -d 'tomorrow 02:29:57' +%s").out))
        server.wait_for("journalctl -u borgcube-schedule@nightly.service -o cat | grep -q Finished", timeout=15)
        server.wait_for("borgcube job list | grep client2/etc | head -1 | grep -q done", timeout=30)
        self.assertEqual(len(self.archives()), before + 1)

    def test_71_a_run_missed_while_the_machine_was_off(self):
        server = self.server
        before = len(self.archives())
        tomorrow = float(server.sh("date -u -d 'tomorrow 12:00' +%s").out)
        server.stop()
        offset = int((tomorrow - time.time()) * 1e9)
        self.rig.ns("dd", f"of={server.root}/etc/rig-clock", "conv=notrunc", "status=none", stdin=offset.to_bytes(8, "little", signed=True))
        self.rig.ns("sh", "-c", f"rm -f {server.root}/var/lib/systemd/timers/stamp-borgcube-schedule*")
        server.start()
        server.wait_for("systemctl list-timers --all --no-legend | grep -q borgcube-schedule@nightly.timer")
        server.wait_for("borgcube job list | grep client2/etc | head -1 | grep -q done", timeout=30)
        self.assertEqual(len(self.archives()), before + 1, "caught up once")
        self.assertEqual(server.sh("systemctl --failed --no-legend").out, "")

    def test_80_power_cut_during_a_backup(self):
        server = self.server
        before = self.archives()
        server.sh("sync")
        self.begin_slow_backup()
        server.power_cut()
        self.one.rate(None)
        server.start()
        self.run_config("client1/data")
        after = self.archives()
        self.assertTrue(set(before) <= set(after), (before, after))
        borgcube.stock_borg(server, "main", "check {path}")
        self.assertEqual(server.sh("systemctl --failed --no-legend").out, "")

    def test_90_a_forgotten_repository_leaves_no_unit(self):
        borgcube.add_repository(self.server, "passing")
        self.assertIn("@passing.socket", self.server.sh("systemctl list-units 'borgcube*'").out)
        self.cli("repository", "remove", "passing")
        self.assertNotIn("@passing", self.server.sh("systemctl list-units --all 'borgcube*'").out)
        self.assertEqual(self.server.sh("ls -d /etc/systemd/system/borgcube-repositoryd@passing*", check=False).out, "")
        self.assertIn("passing.passphrase", self.server.sh("ls /etc/credstore*").out, "secrets may be the only copies")


class Bookworm(Server, unittest.TestCase):
    suite = "bookworm"


class Trixie(Server, unittest.TestCase):
    suite = "trixie"


if __name__ == "__main__":
    unittest.main(verbosity=2)
