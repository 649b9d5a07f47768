#!/usr/bin/env python3
"""An installed server, booted. What systemd, the journal and stock borg say counts, never our own status alone.

As root: scripts/machines [TEST...]
"""
import json
import re
import time
import unittest

import rig as rigs
import server as borgcube

# The kind of message: "A schedule has run", in the journal's catalogue.
SCHEDULE_RUN = "62f87d51dc55b7eb04fa4b5b90772332"

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


# Connections that say nothing, held until the end.
KNOCK = r'''
import signal, socket, sys
held = []
for _ in range(int(sys.argv[1])):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect("/run/borgcube/session.sock")
    held.append(connection)
signal.pause()
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

    def last_job(self, config):
        client, label = config.split("/")
        jobs = json.loads(self.cli("job", "list", "--client", client, "--label", label, "--limit", "1", "--json").out)
        return jobs[0]["number"]

    def cause(self, job):
        return json.loads(self.cli("job", "show", str(job), "--json").out)["failure"]["cause"]["word"]

    def kept(self, unit):
        """How many descriptors systemd keeps for a unit."""
        return int(self.server.sh(f"systemctl show -P NFileDescriptorStore {unit}").out)

    def begin_slow_backup(self):
        """A backup that has sent some of its chunks; its job's number."""
        self.one.sh("for n in 1 2 3 4 5 6 7 8; do head -c 1M /dev/urandom > /srv/data/$n; done")
        self.one.rate("24mbit")
        said = self.cli("run", "client1/data").out
        job = re.search(r"[Jj]ob (\d+)", said).group(1)
        self.server.wait_for(f"borgcube job show {job} | grep -q client_in_progress && systemctl --no-legend list-units 'borgcube-session@*' | grep -q running", timeout=60)
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
        for unit, bar in (("borgcube-session@.service", 0.5), ("borgcube-schedule@.service", 0.5),
                          ("borgcube-scheduler-sync.service", 0.5), ("borgcube-statusd.service", 0.5), ("borgcubed.service", 1.5),
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

    def test_21_the_journal_tells_of_a_job(self):
        server = self.server
        said = self.cli("run", "server/etc", "--wait", "--json", timeout=120).out
        job = json.loads(said)["number"]
        self.cli("config", "add", "nothing", "--client", "server", "--repository", "main", "/no/such/path")
        self.cli("run", "server/nothing", "--wait", "--quiet", check=False, timeout=120)
        failed = self.last_job("server/nothing")
        lines = server.journal(f"BORGCUBE_JOB={job}")
        self.assertLessEqual({"borgcubed", "borgcube-worker", "borgcube-repositoryd"}, {line["SYSLOG_IDENTIFIER"] for line in lines})
        for line in lines:
            self.assertEqual((line.get("BORGCUBE_CLIENT", "server"), line.get("BORGCUBE_REPOSITORY", "main")), ("server", "main"), line)
        ended = [line for line in server.journal(f"BORGCUBE_JOB={failed}") if "BORGCUBE_CAUSE" in line]
        self.assertEqual({line["BORGCUBE_CAUSE"] for line in ended}, {"path-missing"})
        # The catalogue explains them.
        told = server.sh(f"journalctl --sync; journalctl -x --no-pager BORGCUBE_JOB={job}").out
        for text in f"Subject: Job {job} has started", f"Subject: Job {job} is done", "The job of client server has ended well", "Defined-By: BorgCube":
            self.assertIn(text, told)
        told = server.sh(f"journalctl -x --no-pager BORGCUBE_JOB={failed} BORGCUBE_CAUSE=path-missing").out
        self.assertIn(f"Subject: Job {failed} has failed: path-missing", told)
        self.assertIn(f"borgcube job show {failed} says what can be done about the cause path-missing", told)
        self.cli("config", "remove", "server/nothing")

    def test_22_operators_follow_a_job(self):
        """A member of group borgcube: one who may read the journal, and one who may not."""
        server = self.server
        for name, groups in ("olga", "borgcube"), ("otto", "borgcube,systemd-journal"):
            server.sh(f"useradd -m {name}; usermod -aG {groups} {name}")
        job = self.begin_slow_backup()
        for name in "olga", "otto":
            server.write(f"/home/{name}/follow", f"cd /; borgcube job log {job} -f > ~/said 2> ~/complained; echo $? > ~/code.new; mv ~/code.new ~/code\n")
            server.sh(f"systemd-run --quiet --uid={name} --setenv=HOME=/home/{name} sh /home/{name}/follow")
            server.wait_for(f"grep -q . /home/{name}/said")
        self.end_slow_backup(job)
        for name in "olga", "otto":
            server.wait_for(f"test -e /home/{name}/code")
            self.assertEqual(server.sh(f"cat /home/{name}/code /home/{name}/complained").out, "0\n", name)
            said = server.sh(f"cat /home/{name}/said").out
            self.assertTrue("the client runs borg 1.2.4" in said and "committed" in said, said)
            as_operator = f"cd /; setpriv --reuid {name} --regid {name} --init-groups borgcube"
            self.assertTrue(server.sh(f"{as_operator} job log {job}").out)
            self.assertNotEqual(server.sh(f"{as_operator} repository edit main --url /srv/x", check=False).code, 0)

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
        self.one.rate("4mbit")
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

    def test_55_nothing_that_others_can_read_has_a_secret(self):
        """While a backup runs. Whoever is not the user of a secret finds it nowhere; and nobody else can write where BorgCube reads."""
        server = self.server
        job = self.begin_slow_backup()
        self.one.rate("4mbit")
        secrets = server.sh("""
            for id in passphrase; do systemd-creds --name=$id decrypt /etc/credstore.encrypted/borgcube.repository.main.$id -; echo; done
            grep -v -e BORG_KEY -e '^$' /etc/credstore/borgcube.repository.plain.key | head -1
            cat /etc/credstore/borgcube.repository.plain.passphrase; echo
            sed -n 2p /var/lib/borgcube/.ssh/id_ed25519
            sed -n 2p /etc/ssh/ssh_host_ed25519_key
        """).out
        self.assertEqual(len(secrets.split()), 5, "the secrets that are looked for")
        places = "/var/lib/borgcube /run/borgcube /run/credentials /etc"
        for user in "nobody", "borgcube-ssh", "borgcube-keys", "borgcube-status":
            search = f"setpriv --reuid {user} --regid $(id -g {user}) --init-groups grep -rlFf /dev/stdin {places}"
            self.assertEqual(server.sh(f"cd /; {search} 2> /dev/null", check=False, stdin=secrets).out, "", user)
        # The search finds what is there.
        self.assertTrue(server.sh(f"grep -rlFf /dev/stdin {places} 2> /dev/null", check=False, stdin=secrets).out)
        # What belongs to BorgCube and can be read by everybody, by name: nothing of it is worth hiding.
        own = "/var/lib/borgcube /run/borgcube /etc/systemd/system/borgcube* /etc/credstore* /etc/borgcube"
        readable = server.sh(f"find {own} -type f -perm /o+r -printf '%p %m\\n' 2> /dev/null", check=False).out.splitlines()
        allowed = [r"/var/lib/borgcube/host-id 644", r"/var/lib/borgcube/\.ssh/\S+\.pub 644", r"/var/lib/borgcube/timers/\S+ 6[04]4", r"/var/lib/borgcube/borgs/.*",
                   r"/etc/systemd/system/borgcube\S*\.service\.d/\S+\.conf 644"]
        self.assertEqual([line for line in readable if not any(re.fullmatch(pattern, line) for pattern in allowed)], [])
        # The way to it: a directory is open to be gone through, never to be changed.
        self.assertEqual(server.sh(f"find {own} ! -type l -perm /o+w ! -type s 2> /dev/null", check=False).out, "")
        self.assertEqual(server.sh("find /run/borgcube -type s -perm /o+w ! -path '/run/borgcube/repositories/*'").out, "")
        for directory, mode in ("/etc/credstore", "700"), ("/etc/credstore.encrypted", "700"), ("/var/lib/borgcube/.ssh", "700"):
            self.assertEqual(server.sh(f"stat -c %a {directory}").out.strip(), mode, directory)
        self.end_slow_backup(job)

    def test_56_what_an_owner_is_at(self):
        """The queue daemon reads it in a file of the owner's; others do not."""
        server = self.server
        server.sh("systemd-run --quiet --unit=lent borgcube repository release main -- sh -c 'touch /run/lent; until test -e /run/enough; do sleep 0.1; done'")
        server.wait_for("test -e /run/lent")
        self.assertEqual(server.sh("stat -c '%a %U %G' /run/borgcube/sessions/main.turn").out, "640 borgcube-repo borgcube-db\n")
        self.assertIn("repository main is lent to another borg", self.cli("status").out)
        server.sh("touch /run/enough")
        server.wait_for("! test -e /run/borgcube/sessions/main.turn")

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

    def test_57_a_repository_is_adopted_moved_and_given_another_passphrase(self):
        server = self.server
        as_owner = "setpriv --reuid borgcube-repo --regid borgcube-repo --clear-groups env HOME=/tmp BORG_BASE_DIR=/tmp/old BORG_RELOCATED_REPO_ACCESS_IS_OK=yes"
        server.sh(f"install -d -o borgcube-repo /srv/borg/old; cd /; export BORG_PASSPHRASE=first;"
                  f"{as_owner} borg init -e repokey /srv/borg/old && {as_owner} borg create /srv/borg/old::before /etc/hostname")
        server.write("/root/wrong", "wrong", mode="600")
        server.write("/root/first", "first", mode="600")
        server.write("/root/second", "second", mode="600")
        add = ("repository", "add", "old", "/srv/borg/old", "--adopt", "--passphrase-file")
        self.assertIn("passphrase-wrong", self.cli(*add, "/root/wrong", check=False).err)
        self.assertEqual(server.sh("ls -d /etc/systemd/system/borgcube-repositoryd@old* /etc/credstore*/borgcube.repository.old.*", check=False).out, "")
        self.assertIn("1 archive", self.cli(*add, "/root/first").out)
        self.cli("config", "add", "old", "--client", "server", "--repository", "old", "/etc/ssh")
        self.run_config("server/old")

        drop_in = "/etc/systemd/system/borgcube-repositoryd@old.service.d/50-repository.conf"
        self.assertEqual(server.sh(f"stat -c '%a %U' {drop_in}").out, "644 root\n")
        server.wait_for("! test -e /srv/borg/old/lock.exclusive")
        server.sh("mkdir /srv/moved; mv /srv/borg/old /srv/moved/old")
        self.cli("repository", "edit", "old", "--url", "/srv/moved/old")
        self.assertIn('ReadWritePaths="-/srv/moved/old"', server.sh(f"cat {drop_in}").out)
        self.run_config("server/old")

        server.wait_for("! test -e /srv/moved/old/lock.exclusive")
        server.sh(f"cd /; export BORG_PASSPHRASE=first BORG_NEW_PASSPHRASE=second; {as_owner} borg key change-passphrase /srv/moved/old")
        self.assertNotEqual(self.cli("repository", "edit", "old", "--passphrase-file", "/root/wrong", check=False).code, 0)
        self.cli("repository", "edit", "old", "--passphrase-file", "/root/second")
        server.sh("systemctl stop borgcube-repositoryd@old.service")
        self.run_config("server/old")
        names = borgcube.stock_borg(server, "old", "list --short {path}", path="/srv/moved/old").out.split()
        self.assertEqual((len(names), names[0]), (4, "before"), names)
        borgcube.stock_borg(server, "old", "check {path}", path="/srv/moved/old")
        server.sh("rm /root/wrong /root/first /root/second")

    def test_58_a_repository_on_another_host(self):
        """Reached by borg serve over SSH. The key to it is a credential of its owner, and the command tells how to let it in."""
        server, storage = self.server, self.two
        storage.authorize(server)
        add = ("repository", "add", "far", "ssh://root@client2/srv/far", "-e", "repokey-blake2", "--generate-passphrase")
        refused = self.cli(*add, check=False, timeout=120)
        self.assertNotEqual(refused.code, 0)
        server.sh(re.search(r"let the key in: (.*)", refused.err).group(1))
        self.cli(*add, timeout=120)
        drop_in = server.sh("cat /etc/systemd/system/borgcube-repositoryd@far.service.d/50-repository.conf").out
        for line in "PrivateNetwork=no", "LoadCredentialEncrypted=ssh-key:", "LoadCredentialEncrypted=passphrase:":
            self.assertIn(line, drop_in)
        self.assertNotIn("ReadWritePaths", drop_in)
        exposure = server.sh("systemd-analyze security --no-pager borgcube-repositoryd@far.service").out
        self.assertLessEqual(float(re.search(r"exposure level for \S+ ([0-9.]+)", exposure).group(1)), 1.5, exposure)
        self.assertEqual(server.sh("find /var/lib/borgcube/owners -name 'id_*'").out, "")
        self.cli("config", "add", "far", "--client", "server", "--repository", "far", "/etc/ssh")
        self.run_config("server/far")
        server.wait_for("! ssh client2 test -e /srv/far/lock.exclusive")
        secret = server.sh("systemd-creds --name=passphrase decrypt /etc/credstore.encrypted/borgcube.repository.far.passphrase -").out
        names = storage.sh(f"export BORG_PASSPHRASE={secret}; borg list --short /srv/far && borg check /srv/far").out.split()
        self.assertTrue(len(names) == 1 and names[0].startswith("server-far-"), names)

    def test_59_a_hundred_at_once(self):
        """So many connections at the session socket, which say nothing, do not disturb a backup."""
        server = self.server
        server.write("/root/knock.py", KNOCK)
        job = self.begin_slow_backup()
        self.one.rate("2mbit")
        server.sh("systemd-run --quiet --unit=knock python3 /root/knock.py 120")
        server.wait_for("test $(systemctl show -P NConnections borgcube-session.socket) -gt 100", timeout=30)
        self.assertRegex(self.cli("job", "show", job).out, "client_in_progress")
        self.end_slow_backup(job)
        self.assertEqual(server.sh("systemctl is-active borgcube-session.socket").out, "active\n")
        server.sh("systemctl stop knock")
        server.wait_for("test $(systemctl show -P NConnections borgcube-session.socket) -eq 0", timeout=30)
        self.assertEqual(server.sh("systemctl --failed --no-legend").out, "")

    def test_60_restart_of_each_daemon_during_a_backup(self):
        """All of them during one: whichever of these ends a backup, this does not end in done."""
        server = self.server
        for unit in "borgcubed", "borgcube-repositoryd@main":
            server.sh(f"systemctl start {unit}")
            self.assertNotEqual(server.sh(f"systemctl show -P StatusText {unit}").out, "\n", unit)
        job = self.begin_slow_backup()
        self.one.rate("2mbit")
        # systemd keeps a socket and a process of each job for the daemon.
        self.assertEqual(self.kept("borgcubed"), 2)
        for action in ("systemctl restart borgcubed.service", "systemctl restart borgcube-repositoryd@main.service",
                       "systemctl restart borgcube-session.socket", "systemctl restart borgcubed.socket", "systemctl reload borgcubed.service",
                       "kill -KILL $(systemctl show -P MainPID borgcubed); until systemctl is-active --quiet borgcubed; do sleep 0.1; done"):
            server.sh(action)
            self.assertIn("client_in_progress", self.cli("job", "show", job).out, action)
            self.assertEqual(self.kept("borgcubed"), 2, action)
        self.end_slow_backup(job)
        server.wait_for("test $(systemctl show -P NFileDescriptorStore borgcubed) -eq 0")
        borgcube.stock_borg(self.server, "main", "check {path}")

    def test_61_a_daemon_that_hangs_is_restarted_by_the_watchdog(self):
        """During a backup: one of the queue daemon does not disturb it; an owner's ends it, or not, with a cause that says so."""
        server = self.server
        for unit in "borgcubed", "borgcube-repositoryd@main":
            job = self.begin_slow_backup()
            server.sh(f"mkdir -p /run/systemd/system/{unit}.service.d; printf '[Service]\nWatchdogSec=2\n' > /run/systemd/system/{unit}.service.d/watchdog.conf;"
                      f"systemctl daemon-reload; systemctl restart {unit}; kill -STOP $(systemctl show -P MainPID {unit})")
            server.wait_for(f"test $(systemctl show -P NRestarts {unit}) -ge 1 && systemctl is-active {unit}", timeout=20)
            self.assertIn("Watchdog timeout", server.sh(f"journalctl -u {unit} -o cat").out)
            self.end_slow_backup(job, "done" if unit == "borgcubed" else "(done|failed)")
            if unit != "borgcubed" and "failed" in self.cli("job", "show", job).out:
                self.assertIn(self.cause(job), ("owner-lost", "session-lost"))
            server.sh(f"rm -r /run/systemd/system/{unit}.service.d/watchdog.conf; systemctl daemon-reload; systemctl restart {unit}")
        self.run_config("client1/data")
        borgcube.stock_borg(server, "main", "check {path}")

    def test_62_what_is_stopped_ends_its_jobs_with_the_cause(self):
        server = self.server
        job = self.begin_slow_backup()
        server.sh("systemctl stop borgcube-repositoryd@main.service")
        self.end_slow_backup(job, "failed")
        self.assertEqual(self.cause(job), "owner-lost")
        self.run_config("client1/data")

        job = self.begin_slow_backup()
        server.sh("systemctl stop borgcubed.socket borgcubed.service")
        # Its jobs know by themselves: their clients are asked to end, and may write a checkpoint.
        self.one.rate(None)
        server.wait_for("! pgrep -x borgcube-worker", timeout=80)
        server.sh("systemctl start borgcubed.socket")
        self.end_slow_backup(job, "failed")
        self.assertEqual(self.cause(job), "borgcubed-restart")
        self.assertEqual(server.sh("ls /run/borgcube/keys").out, "", "its key is gone")
        self.run_config("client1/data")
        borgcube.stock_borg(server, "main", "check {path}")

    # Two clients, one with borg 1.2.4 and one with 1.4.0, every night.

    def timer(self):
        """What list-timers says: (next, last) of the nightly timer, in microseconds; 0: never."""
        timers = json.loads(self.server.sh("systemctl list-timers --all --output=json 'borgcube-schedule@*'").out)
        return next((timer["next"] or 0, timer["last"] or 0) for timer in timers if timer["unit"] == "borgcube-schedule@nightly.timer")

    def due(self, days):
        """02:30 UTC of a day from today on, in seconds."""
        return int(self.server.sh(f"TZ=UTC date -d '{days} days 02:30' +%s").out)

    def night(self):
        """The archives of both clients' nightly config."""
        return sorted(name for name in self.archives() if re.match(r"client[12]-etc-", name))

    def wait_for_both(self, before):
        """Both have run once more, and are alone in the timer's journal."""
        for client in "client1", "client2":
            self.server.wait_for(f"borgcube job list --client {client} --label etc --limit 1 --json | grep -Eq '\"done\"'", timeout=30)
        self.server.wait_for("! borgcube job list --job-state job_created --limit 1 | grep -q etc", timeout=30)
        after = self.night()
        new = [name for name in after if name not in before]
        self.assertEqual(sorted(name.split("-")[0] for name in new), ["client1", "client2"], (before, after))
        self.assertEqual(self.server.sh("systemctl --failed --no-legend").out, "")

    def runs(self):
        """How often the journal has it that the schedule ran."""
        return len(self.server.journal("BORGCUBE_SCHEDULE=nightly", f"MESSAGE_ID={SCHEDULE_RUN}"))

    def power(self, off, seconds, stamps=True):
        """The machine is off from now until then."""
        server = self.server
        off()
        offset = int((seconds - time.time()) * 1e9)
        self.rig.ns("dd", f"of={server.root}/etc/rig-clock", "conv=notrunc", "status=none", stdin=offset.to_bytes(8, "little", signed=True))
        if not stamps:
            self.rig.ns("sh", "-c", f"rm -f {server.root}/var/lib/systemd/timers/stamp-borgcube*")
        server.start()

    def test_70_two_clients_at_a_scheduled_time(self):
        server = self.server
        before = self.night()
        self.cli("schedule", "add", "nightly", "--at", "daily 02:30 UTC", "--run", "client1/etc", "--run", "client2/etc")
        server.wait_for("systemctl list-timers --all --no-legend | grep -q borgcube-schedule@nightly.timer")
        # Early in the night it is today's: the day's clock must not jump over that.
        due = self.timer()[0] // 1_000_000
        self.assertIn(due, (self.due(0), self.due(1)))
        server.set_clock(due - 2.5)
        server.wait_for("journalctl -u borgcube-schedule@nightly.service -o cat | grep -q Finished", timeout=15)
        self.wait_for_both(before)
        # The timer has fired at that time, and is due a day later.
        at = self.timer()
        self.assertEqual(at[0] // 1_000_000, due + 86400)
        self.assertTrue(due <= at[1] // 1_000_000 <= due + 5, at)
        self.assertEqual(self.runs(), 1)
        jobs = json.loads(self.cli("job", "list", "--json").out)
        newest = {client: next(job for job in jobs if job["client"] == client and job["label"] == "etc") for client in ("client1", "client2")}
        for client, version in ("client1", "1.2.4"), ("client2", "1.4.0"):
            self.assertIn(f"borg {version}", json.dumps(newest[client]))
        borgcube.stock_borg(server, "main", "check {path}")

    def test_71_the_daemon_was_down(self):
        server = self.server
        before, runs = self.night(), self.runs()
        server.sh("systemctl stop borgcubed.socket borgcubed.service borgcube-schedule@nightly.timer borgcube-scheduler-sync.timer borgcube-timers.path")
        server.set_clock(self.due(1) + 600)
        self.assertEqual(self.night(), before)
        server.sh("systemctl start borgcube.target borgcube-scheduler-sync.service")
        self.wait_for_both(before)
        self.assertEqual(self.runs(), runs + 1)

    def test_72_the_machine_was_off_for_three_nights(self):
        server = self.server
        before, runs = self.night(), self.runs()
        self.power(server.stop, self.due(3) + 3600)
        self.wait_for_both(before)
        self.assertEqual(self.runs(), runs + 1, "three nights are caught up once")
        history = self.cli("schedule", "history", "nightly").out
        self.assertEqual(len(re.findall(r"\bmissed\b", history)), 2, history)
        self.assertEqual(self.timer()[0] // 1_000_000, self.due(1))

    def test_73_without_power_and_without_stamp_files(self):
        """What systemd remembers of its timers is gone, and that of the last minute with it: the database decides."""
        server = self.server
        before, runs = self.night(), self.runs()
        self.power(server.power_cut, self.due(1) + 3600, stamps=False)
        self.wait_for_both(before)
        self.assertGreaterEqual(self.runs(), runs)
        # Nothing was missed this time, so nothing runs.
        before = self.night()
        self.power(server.stop, float(server.sh("date +%s").out), stamps=False)
        server.wait_for("systemctl list-timers --all --no-legend | grep -q borgcube-schedule@nightly.timer")
        server.wait_for("journalctl -b -u borgcube-scheduler-sync.service -o cat | grep -q Finished")
        server.wait_for("! systemctl is-active --quiet borgcube-schedule@nightly.service")
        self.assertEqual(json.loads(self.cli("job", "list", "--job-state", "job_created", "--json").out), [])
        self.assertEqual(self.night(), before)
        self.assertEqual(self.timer()[0] // 1_000_000, self.due(1))

    def test_80_power_cut_during_a_backup(self):
        server = self.server
        before = self.archives()
        server.sh("sync")
        job = self.begin_slow_backup()
        server.power_cut()
        self.one.rate(None)
        server.start()
        self.assertEqual(self.cause(job), "borgcubed-restart")
        self.run_config("client1/data")
        after = self.archives()
        self.assertTrue(set(before) <= set(after), (before, after))
        borgcube.stock_borg(server, "main", "check {path}")
        self.assertEqual(server.sh("systemctl --failed --no-legend").out, "")

    def test_90_a_forgotten_repository_leaves_no_unit(self):
        borgcube.add_repository(self.server, "passing")
        self.assertIn("@passing.socket", self.server.sh("systemctl list-units 'borgcube*'").out)
        self.cli("repository", "remove", "passing", "--yes")
        self.assertNotIn("@passing", self.server.sh("systemctl list-units --all 'borgcube*'").out)
        self.assertEqual(self.server.sh("ls -d /etc/systemd/system/borgcube-repositoryd@passing*", check=False).out, "")
        self.assertIn("passing.passphrase", self.server.sh("ls /etc/credstore*").out, "secrets may be the only copies")


class Bookworm(Server, unittest.TestCase):
    suite = "bookworm"


class Trixie(Server, unittest.TestCase):
    suite = "trixie"


if __name__ == "__main__":
    unittest.main(verbosity=2)
