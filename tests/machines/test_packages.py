#!/usr/bin/env python3
"""The packages on hosts that have nothing of BorgCube: installed and used as docs/install.md says, word for word, upgraded, removed, purged.

What dpkg, systemctl, the journal and stock borg say counts. As root: scripts/machines test_packages
"""
import json
import os
import pathlib
import re
import shlex
import sys
import tempfile
import unittest

import rig as rigs
import server as borgcube

PACKAGES = pathlib.Path(os.environ.get("BORGCUBE_PACKAGES", "dist"))
PAGE = borgcube.TOP / "docs/install.md"
BORGS = {"bookworm": "1.2.4", "trixie": "1.4.0"}
GLIBC = {"bookworm": "2.36", "trixie": "2.41"}
# What is not a package's: state of the kernel and of systemd, logs, dpkg's own books, caches, homes.
ALL_FILES = ("find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /var/tmp -o -path /var/log -o -path /var/cache "
             "-o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/lib/systemd/catalog -o -path /root -o -path /home -o -path /srv/data \\) "
             "-prune -o -print | sort")
# A path, a token, a body.
WEB = """
import sys, urllib.error, urllib.request as http
path, token, body = sys.argv[1:]
headers = ({"Authorization": "Bearer " + token} if token else {}) | ({"Content-Type": "application/json"} if body else {})
try:
    print(http.urlopen(http.Request("http://127.0.0.1:8420" + path, body.encode() or None, headers), timeout=30).read().decode(), end="")
except urllib.error.HTTPError as e:
    print(e.code, e.read().decode())
"""
# Slower than apt, also on a busy machine.
SLOW = "2mbit"
LOGIN = "setpriv --reuid borgcube --regid borgcube --clear-groups --inh-caps=-all env HOME=/var/lib/borgcube ssh -o BatchMode=yes -o IdentitiesOnly=yes " \
        "-o UserKnownHostsFile=/var/lib/borgcube/.ssh/known_hosts -i /run/credentials/borgcubed.service/ssh-key"


def package(name):
    found = sorted(PACKAGES.glob(f"{name}_*.deb"))
    if len(found) != 1:
        raise rigs.Failed(f"{PACKAGES} has {len(found)} packages {name}; scripts/packages builds them")
    return found[0]


def field(deb, name):
    return rigs.run(["dpkg-deb", "--field", deb, name]).out.strip()


def fits(suite):
    """A package runs where glibc is at least as new as on the machine that built it."""
    needs = re.search(r"libc6 \(>= ([0-9.]+)\)", field(package("borgcube-server"), "Depends"))
    return rigs.run(["dpkg", "--compare-versions", needs.group(1), "le", GLIBC[suite]], check=False).code == 0


def newer(name, directory):
    """The same package once more, with a higher version."""
    deb = package(name)
    version = field(deb, "Version") + "+newer"
    tree = pathlib.Path(directory) / name
    rigs.run(["dpkg-deb", "--raw-extract", deb, tree])
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*$", f"Version: {version}", control.read_text()))
    out = pathlib.Path(directory) / f"{name}_{version}_{field(deb, 'Architecture')}.deb"
    rigs.run(["dpkg-deb", "--build", "-Zgzip", "-z1", tree, out], timeout=120)
    return out


def commands(section):
    """What the page says to type in a section, a line each."""
    body = PAGE.read_text().split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    text = "".join(re.findall(r"(?ms)^```\n(.*?)^```", body)).replace("\\\n", " ")
    lines = [re.sub(r"\s{2,}#.*$", "", line).strip() for line in text.splitlines()]
    return [re.sub(r"\s+", " ", line) for line in lines if line]


def inline(section, beginning):
    """A command within a sentence of the page."""
    body = PAGE.read_text().split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    return next(text for text in re.findall(r"`([^`\n]+)`", body) if text.startswith(beginning))


def state_of(host):
    """What the server knows, but for what time changes."""
    know = {}
    for what in "repository", "client", "config", "schedule", "archive":
        records = json.loads(host.sh(f"borgcube {what} list --json").out)
        know[what] = sorted(json.dumps({key: value for key, value in record.items() if "next" not in key}, sort_keys=True) for record in records)
    return know


class Packages:
    suite = None

    @classmethod
    def setUpClass(cls):
        if not fits(cls.suite):
            print(f"\n!!!!! NOT RUN: packages on {cls.suite}: they were built on a newer system, whose glibc {cls.suite} has not\n", file=sys.stderr)
            raise unittest.SkipTest("the packages are for a newer glibc")
        cls.rig = rigs.Rig({name: {"suite": cls.suite} for name in ("backup", "web1", "fresh")})
        cls.enterClassContext(cls.rig)
        cls.server, cls.client, cls.fresh = (cls.rig[name] for name in ("backup", "web1", "fresh"))
        # Names as on the page, and nobody knows anybody.
        names = "127.0.0.1 localhost\n" + "".join(f"{host.ip} {host.name}.example.net {host.name}\n" for host in cls.rig.hosts.values())
        for host in cls.rig.hosts.values():
            host.write("/etc/hosts", names)
            host.sh("rm -f /etc/ssh/ssh_known_hosts; rm -rf /root/.ssh")
        for host, kinds in (cls.server, ("server", "doc")), (cls.client, ("client",)), (cls.fresh, ("server", "client", "doc")):
            for kind in kinds:
                host.put(package(f"borgcube-{kind}"), "/root")
        cls.client.sh("mkdir -p /srv/data; for n in $(seq 24); do head -c 500k /dev/urandom > /srv/data/$n; done; install -m 600 /srv/data/1 /srv/secret")
        # Owners give repositories back at once, so that stock borg can judge them.
        cls.server.write("/usr/local/lib/systemd/system/borgcube-repositoryd@.service.d/test.conf", "[Service]\nEnvironment=BORGCUBE_IDLE_SECONDS=1\n")
        cls.files_before = cls.server.sh(ALL_FILES).out.splitlines()
        cls.key = None

    # -- what several tests do ----------------------------------------------------------------

    def typed(self, host, command, answers="", **options):
        """A command as a person types it in root's home; no terminal, so a question that nobody foresaw ends it."""
        options.setdefault("timeout", 300)
        return host.exec("env", "-u", "DEBIAN_FRONTEND", "bash", "-c", f"cd /root; {command}", stdin=answers, **options)

    def at_a_terminal(self, host, command, answers=""):
        return self.typed(host, f"script -qec {shlex.quote(command)} /dev/null", answers)

    def apt(self, host, command, answers=""):
        """apt did it, asked nothing that was not to be answered, and nobody complained."""
        said = self.typed(host, command, answers)
        text = said.out + said.err.replace("WARNING: apt does not have a stable CLI interface. Use with caution in scripts.", "")
        for complaint in "warning", "W:", "E:", "Failed", "failed", "error", "What would you like to do", "Configuration file":
            self.assertNotIn(complaint, text, said)
        if not answers:
            self.assertNotIn("[Y/n]", text, said)
        self.assertEqual(host.sh("dpkg --audit").out, "", said)
        self.nothing_failed(host)
        return said

    def nothing_failed(self, host):
        self.assertEqual(host.sh("systemctl --failed --no-legend").out, "")
        self.assertEqual(host.sh("systemctl is-system-running", check=False).out, "running\n")

    def status_of(self, host, name):
        return host.sh(f"dpkg-query --show --showformat '${{Status}} ${{Version}}' {name}", check=False).out

    def list_units(self, host):
        return host.sh("systemctl list-units --all --no-legend 'borgcube*'; systemctl list-unit-files --no-legend 'borgcube*'", check=False).out

    def stock(self, command, **options):
        return borgcube.stock_borg(self.server, "main", command, path="/srv/borgcube/main", **options)

    def archives(self):
        return self.stock("list --short {path}").out.split()

    def run_config(self, config):
        before = set(self.archives())
        said = self.typed(self.server, f"borgcube run {config} --wait --quiet", timeout=120)
        new = [name for name in self.archives() if name not in before]
        self.assertEqual(len(new), 1, said)
        return new[0]

    def begin_slow_backup(self):
        """A backup of the second host that has sent some of its chunks; its job's number."""
        self.client.sh("for n in $(seq 8); do head -c 1M /dev/urandom > /srv/data/$n; done")
        self.client.rate(SLOW)
        said = self.typed(self.server, "borgcube run web1/files").out
        job = re.search(r"[Jj]ob (\d+)", said).group(1)
        self.server.wait_for("systemctl --no-legend list-units 'borgcube-session@*' | grep -q running", timeout=60)
        self.assertEqual(self.state_of_job(job), "client_in_progress")
        return job

    def state_of_job(self, job):
        return json.loads(self.server.sh(f"borgcube job show {job} --json").out)["state"]

    def processes(self, user):
        return self.server.sh(f"ps -o pid:1=,comm= -u {user}", check=False).out.splitlines()

    def pid_of(self, unit):
        return self.server.sh(f"systemctl show --property MainPID --value {unit}").out.strip()

    # -- the page, from the top ---------------------------------------------------------------

    def test_10_installed_without_a_question(self):
        server = self.server
        install, enter = commands("1. Install")
        self.assertEqual(install, "apt install ./borgcube-server_*.deb")
        before = server.sh("date +%s").out.strip()
        self.apt(server, install)
        self.assertTrue(self.status_of(server, "borgcube-server").startswith("install ok installed"))
        self.assertEqual(server.sh("dpkg --verify borgcube-server").out, "", "owners, modes and contents are the package's")
        self.assertEqual(server.sh("systemctl is-enabled borgcube.target").out, "enabled\n")
        units = "borgcube.target borgcubed.socket borgcubed.service borgcube-session.socket borgcube-timers.path borgcube-scheduler-sync.timer"
        self.assertEqual(set(server.sh(f"systemctl is-active {units}").out.split()), {"active"})
        self.assertEqual(server.sh("journalctl --priority err --output cat --unit 'borgcube*'").out, "")
        # sshd knows its new settings: it has read them again since, and no connection was lost for it.
        self.assertIn("Reload", server.sh(f"journalctl --unit ssh.service --output cat --since @{before}").out)
        settings = server.sh("sshd -T -C user=borgcube-ssh,host=web1,addr=10.99.0.2").out
        self.assertIn("authorizedkeyscommand /usr/libexec/borgcube/borgcube-authorized-keys %u %t %k", settings)
        for limit, value in (("borgcubed", "LimitNOFILE=65536"), ("borgcube-repositoryd@x", "TimeoutStopUSec=3min")):
            self.assertEqual(server.sh(f"systemctl show --property {value.split('=')[0]} {limit}").out.strip(), value)
        # People who may use it without being root.
        self.assertEqual(enter, "adduser ada borgcube")
        server.sh("useradd --create-home ada")
        self.typed(server, enter)
        as_ada = "setpriv --reuid ada --regid ada --init-groups"
        self.assertEqual(json.loads(server.sh(f"{as_ada} borgcube client list --json").out), [])
        server.sh("useradd --create-home bob")
        self.assertIn("Permission denied", server.sh("setpriv --reuid bob --regid bob --init-groups borgcube client list", check=False).err)

    def test_11_manual_and_completion(self):
        server = self.server
        programs = server.sh("ls /usr/libexec/borgcube").out.split()
        for page in ["borgcube", "borgcube-setup", "borgcube-repository-add", "borgcube-files", *programs]:
            self.assertTrue(server.sh(f"man --where {page}").out.startswith("/usr/share/man/"), page)
        completion = server.sh("bash -c '. /usr/share/bash-completion/bash_completion; _completion_loader borgcube; complete -p borgcube'").out
        self.assertIn("borgcube", completion)

    def test_20_the_first_backup_is_of_the_server_itself(self):
        server = self.server
        self.assertEqual(commands("2. The first backup")[0], "borgcube setup")
        # Enter to everything but the question about the host key: main in /srv/borgcube/main, this machine, /etc.
        said = self.at_a_terminal(server, "borgcube setup", "\n" * 6 + "yes\n")
        self.assertIn("Set up.", said.out)
        self.assertEqual(server.sh("grep -c 'from=\"127.0.0.1,::1\"' /root/.ssh/authorized_keys").out, "1\n")
        names = self.archives()
        self.assertEqual(len(names), 1, said)
        self.stock("check --verify-data {path}")
        paths = self.stock("list --short {path}::" + names[0]).out.splitlines()
        self.assertIn("etc/hosts", paths)
        self.assertEqual(self.stock("extract --stdout {path}::" + names[0] + " etc/hosts").out, server.sh("cat /etc/hosts").out)
        self.assertIn("borgcube-ssh", server.sh("journalctl --unit ssh.service --output cat | grep 'Accepted publickey'").out)
        # The advice to keep copies, followed: what is printed shows the passphrase that opens the repository, and the key.
        shown = re.findall(r"(?m)^\s+(?:sudo )?(systemd-creds .*\S)", said.out)
        self.assertTrue(shown, said)
        for command in shown:
            self.assertGreater(len(self.typed(server, command).out), 20, command)

    def test_21_a_second_host(self):
        command = commands("2. The first backup")[1]
        self.assertTrue(command.startswith("borgcube setup --yes"), command)
        fingerprint = self.typed(self.client, inline("2. The first backup", "ssh-keygen")).out.split()[1]
        refused = self.typed(self.server, command.replace("SHA256:...", fingerprint), check=False)
        self.assertNotEqual(refused.code, 0)
        type(self).key = re.search(r"This key must be let in there: (ssh-ed25519 .*)", refused.err).group(1)
        self.client.sh("umask 077; mkdir -p /root/.ssh; cat >> /root/.ssh/authorized_keys", stdin=self.key + "\n")
        again = re.search(r"Then go on with: (borgcube setup .*)", refused.err).group(1)
        self.typed(self.server, again)
        archive = next(name for name in self.archives() if name.startswith("web1-files-"))
        self.assertEqual(self.stock("extract --stdout {path}::" + archive + " srv/data | sha256sum").out,
                         self.client.sh("cd /srv/data; cat $(find . -type f -printf '%i %P\\n' | sort -n | cut -d' ' -f2) | sha256sum").out)
        self.stock("check --verify-data {path}")
        # That host has stock borg and nothing of ours.
        self.assertIn(BORGS[self.suite], self.client.sh("borg --version").out)
        self.assertIn(f"borg {BORGS[self.suite]}", self.typed(self.server, "borgcube job list --json").out)
        self.assertEqual(self.client.sh("dpkg-query --show 'borgcube*'", check=False).out, "")
        self.assertEqual(self.client.sh("find / -xdev -newer /srv/secret -name '*borgcube*' -not -path '/proc/*' -not -path '/root/.cache/*' -not -path '/tmp/*'").out, "")

    def test_22_when(self):
        for command in commands("3. When"):
            said = self.typed(self.server, command)
            self.assertNotEqual(said.out + said.err, "", command)
        self.server.wait_for("systemctl list-timers --all --no-legend 'borgcube*' | grep -q borgcube-schedule@nightly.timer")

    def test_23_is_all_well(self):
        for command in commands("4. Is all well?"):
            said = self.typed(self.server, command.replace("BORGCUBE_JOB=42", "BORGCUBE_JOB=1"))
            self.assertNotIn("PROBLEM", said.out, said)
            self.assertGreater(len(said.out.splitlines()), 1, said)
        entries = self.server.journal("BORGCUBE_JOB=1", "BORGCUBE_CLIENT=backup")
        self.assertTrue(any("MESSAGE_ID" in entry for entry in entries), entries)
        self.assertIn("Documentation:", self.typed(self.server, "journalctl BORGCUBE_JOB=1 --catalog").out)

    def test_24_lent_to_a_borg_of_root(self):
        """What root's borg writes must not keep the owner from going on."""
        server = self.server
        self.run_config("backup/files")
        before = self.archives()
        lent = "borgcube repository release main --with-passphrase -- sh -c 'borg delete --glob-archives \"backup-*\" --last 1 && borg compact && borg check'"
        self.typed(server, f"env BORG_RELOCATED_REPO_ACCESS_IS_OK=yes {lent}")
        self.assertEqual(len(self.archives()), len(before) - 1)
        self.assertEqual(server.sh("find /srv/borgcube/main ! -user borgcube-repo").out, "")
        self.assertEqual(server.sh("ls -d /run/borgcube/add-*", check=False).out, "", "no copy of the passphrase is left")
        self.run_config("backup/files")
        self.typed(server, "borgcube repository compact main")
        self.stock("check --verify-data {path}")

    # -- the status pages ----------------------------------------------------------------------

    def web(self, path, token=None, body=None, check=True):
        """What the status daemon answers to somebody on that host who is no user of BorgCube."""
        said = self.server.exec("setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "python3", "-c", WEB, path, token or "", body or "", check=check)
        return said.out

    def test_25_the_status_pages(self):
        server = self.server
        self.run_config("backup/files")
        page = self.web("/")
        for text in "backup", "main", "<!doctype html>":
            self.assertIn(text, page.lower())
        self.assertNotIn("Sign out", page)
        self.assertEqual(json.loads(self.web("/healthz"))["healthy"], True)
        self.assertIn("borgcube_last_success_timestamp_seconds{", self.web("/metrics"))
        archive = json.loads(server.sh("borgcube archive list --client backup --limit 1 --json").out)[0]
        self.assertIn(archive["name"], self.web(f"/archives/main/{archive['id']}"))
        # It is a user of its own, which can neither write the database nor read a key or a repository.
        self.assertEqual(server.sh("ps -o user:32= -C borgcube-statusd | sort -u").out.strip(), "borgcube-status")
        pid = server.sh("systemctl show --property MainPID --value borgcube-statusd.service").out.strip()
        as_it = f"nsenter --target {pid} --mount setpriv --reuid borgcube-status --regid borgcube-status --init-groups"
        self.assertEqual(server.sh(f"{as_it} head -c 1 /var/lib/borgcube/db/data.mdb | wc -c").out.strip(), "1")
        for path in "/srv/borgcube/main/config", "/etc/credstore.encrypted/borgcube.repository.main.passphrase":
            self.assertNotEqual(server.sh(f"{as_it} cat {path}", check=False).code, 0, path)
        refused = server.sh(f"{as_it} sh -c ': >> /var/lib/borgcube/db/data.mdb'", check=False)
        self.assertIn("Read-only file system", refused.err)
        self.assertNotEqual(server.sh(f"{as_it} borgcube archive cat {archive['name']} etc/hostname", check=False).code, 0)

    def test_26_done_on_the_status_pages(self):
        server = self.server
        token = json.loads(self.typed(server, "borgcube user add otto --role operator --json").out)["token"]
        job = lambda: json.loads(server.sh("borgcube job list --limit 1 --json").out)[0]["number"]
        before = job()
        self.web("/api/v1/do/run-config", token, '{"config": "backup/files"}')
        self.assertGreater(job(), before)
        server.wait_for(f"borgcube job show {job()} --json | grep -q '\"done\"'", timeout=60)
        self.assertIn("web:otto", self.typed(server, "borgcube log").out)
        archive = json.loads(server.sh("borgcube archive list --client backup --limit 1 --json").out)[0]
        here = f"/archives/main/{archive['id']}"
        self.assertIn("403", self.web(f"{here}/file/etc/hostname", token, check=False))
        self.typed(server, "borgcube settings edit --web-downloads on")
        self.assertEqual(self.web(f"{here}/file/etc/hostname", token), server.sh("cat /etc/hostname").out)
        self.assertIn("hostname", self.web(f"/api/v1{here}/files/etc", token))
        self.assertIn("401", self.web("/api/v1/do/run-config", "x" * 43, '{"config": "backup/files"}', check=False))
        self.typed(server, "borgcube settings edit --web-downloads off")
        self.typed(server, "borgcube user remove otto")
        self.assertIn("401", self.web("/api/v1/do/run-config", token, '{"config": "backup/files"}', check=False))
        self.nothing_failed(server)

    # -- the other packages -------------------------------------------------------------------

    def test_30_a_login_that_may_read_everything_and_change_nothing(self):
        server, client = self.server, self.client
        install, let_in = commands("2. The first backup")[2:]
        self.assertEqual(install, "apt install ./borgcube-client_*.deb")
        self.apt(client, install)
        self.assertEqual(client.sh("dpkg --verify borgcube-client").out, "")
        client.sh("visudo --check --quiet")
        self.typed(client, let_in.replace("SERVER-ADDRESS", server.ip).replace("ssh-ed25519 AAAA... borgcube@backup", self.key))
        self.typed(server, "borgcube setup --yes --client web1-restricted --server borgcube-ssh@backup.example.net "
                           + inline("2. The first backup", "--remote borgcube-client@") + " /etc /srv")
        archive = next(name for name in self.archives() if name.startswith("web1-restricted-files-"))
        # What only root can read is in it.
        for path in "etc/shadow", "srv/secret":
            self.assertEqual(self.stock("extract --stdout {path}::" + f"{archive} {path} | sha256sum").out, client.sh(f"sha256sum < /{path}").out)
        self.stock("check --verify-data {path}")
        journal = client.sh("journalctl --output cat").out
        self.assertIn("Accepted publickey for borgcube-client", journal)
        self.assertIn("COMMAND=/usr/libexec/borgcube-client/run", journal)

    def test_31_what_that_login_cannot_do(self):
        server, client = self.server, self.client

        def there(command, options=""):
            return server.sh(f"{LOGIN} {options} borgcube-client@web1.example.net {shlex.quote(command) if command else ''}", check=False)

        said = there("id -un; grep -E '^(Cap(Prm|Eff|Bnd)|NoNewPrivs)' /proc/self/status; wc -c < /etc/shadow")
        self.assertEqual(said.code, 0, said)
        self.assertEqual(said.out.split()[0], "borgcube-client")
        self.assertEqual(re.findall(r"Cap\w+:\s+(\w+)", said.out), ["0000000000000004"] * 3, "to read every file, and no other privilege")
        self.assertIn("NoNewPrivs:\t1", said.out)
        for command in ("touch /etc/evil", "echo x >> /var/lib/borgcube-client/.ssh/authorized_keys", "mv /var/lib/borgcube-client/.ssh /tmp/x", "chown root /tmp",
                        "sudo -n id", "kill -9 1", "su -c id root < /dev/null"):
            self.assertNotEqual(there(command).code, 0, command)
        shell = there("")
        self.assertIn("there is no shell", shell.err)
        self.assertEqual(shell.code, 2)
        self.assertIn("PTY allocation request failed", there("true", "-tt").err)
        self.assertNotEqual(there("true", "-o ExitOnForwardFailure=yes -R 12345:localhost:22").code, 0)
        # A process of that user outside the forced command gets no further.
        refused = client.sh("setpriv --reuid borgcube-client --regid borgcube-client --init-groups sudo -n id", check=False)
        self.assertNotEqual(refused.code, 0)
        # The key is for the server's address alone.
        stolen = server.sh("cat /run/credentials/borgcubed.service/ssh-key").out
        client.write("/root/stolen", stolen, "600")
        self.addCleanup(client.sh, "rm /root/stolen")
        elsewhere = "ssh -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -i /root/stolen borgcube-client@web1.example.net id"
        self.assertIn("Permission denied", client.sh(elsewhere, check=False).err)
        # Shut out, and let in again.
        self.assertIn(self.key.split()[1], self.typed(client, "borgcube-client-setup --list").out)
        self.typed(client, "borgcube-client-setup --remove borgcube@backup")
        self.assertIn("Permission denied", there("true").err)
        self.typed(client, "borgcube-client-setup --key-file -", answers=self.key + "\n")
        self.assertEqual(there("true").code, 0)

    def test_32_documentation(self):
        server = self.server
        self.apt(server, "apt install ./borgcube-doc_*.deb")
        self.assertEqual(server.sh("dpkg --verify borgcube-doc").out, "")
        files = server.sh("dpkg --listfiles borgcube-doc | grep -c '\\.md'").out
        self.assertGreater(int(files), 8)
        self.assertEqual(server.sh("zcat -f /usr/share/doc/borgcube-doc/install.md*").out, PAGE.read_text())

    # -- upgrade ------------------------------------------------------------------------------

    def test_40_an_upgrade_during_a_backup(self):
        server = self.server
        with tempfile.TemporaryDirectory(dir=rigs.RIG_DIR) as directory:
            for name in "borgcube-server", "borgcube-doc":
                server.put(newer(name, directory), "/root/newer")
            self.client.put(newer("borgcube-client", directory), "/root/newer")
        owner = "borgcube-repositoryd@main.service"
        job = self.begin_slow_backup()
        workers = [line for line in self.processes("borgcube") if "borgcube-worker" in line]
        sessions = server.sh("systemctl list-units --plain --no-legend 'borgcube-session@*' | cut -d' ' -f1").out
        before = {unit: self.pid_of(unit) for unit in ("borgcubed.service", owner)}
        self.assertTrue(workers and sessions and all(pid != "0" for pid in before.values()), (workers, sessions, before))
        command = inline("Upgrade, remove, purge", "apt install").replace("./", "./newer/").replace("NEWER", "*")
        self.apt(server, command)
        self.assertTrue(self.status_of(server, "borgcube-server").endswith("+newer"))
        # It goes on, in the same worker and the same session, under daemons of the new package.
        self.assertEqual(self.state_of_job(job), "client_in_progress")
        self.assertEqual([line for line in self.processes("borgcube") if "borgcube-worker" in line], workers)
        self.assertEqual(server.sh("systemctl list-units --plain --no-legend 'borgcube-session@*' | cut -d' ' -f1").out, sessions)
        for unit, pid in before.items():
            now = self.pid_of(unit)
            self.assertNotIn(now, (pid, "0"), unit)
            self.assertNotIn("deleted", server.sh(f"readlink /proc/{now}/exe").out, unit)
        self.client.rate(None)
        server.wait_for(f"borgcube job show {job} --json | grep -Eq '\"(done|failed|cancelled)\"'", timeout=90)
        self.assertEqual(self.state_of_job(job), "done", server.sh(f"borgcube job log {job}", check=False))
        archive = [name for name in self.archives() if name.startswith("web1-files-")][-1]
        self.stock("check --verify-data {path}")
        self.assertEqual(self.stock("extract --stdout {path}::" + archive + " srv/data/3 | sha256sum").out, self.client.sh("sha256sum < /srv/data/3").out)
        self.nothing_failed(server)
        self.apt(server, "apt install ./newer/borgcube-doc_*.deb")
        self.apt(self.client, "apt install ./newer/borgcube-client_*.deb")
        self.run_config("web1-restricted/files")

    def test_41_what_was_disabled_stays_so(self):
        server = self.server
        server.sh("systemctl disable --now --quiet borgcube.target")
        self.apt(server, "apt install --reinstall ./newer/borgcube-server_*.deb")
        self.assertEqual(server.sh("systemctl is-enabled borgcube.target", check=False).out, "disabled\n")
        self.assertEqual(server.sh("systemctl is-active borgcube.target borgcubed.service borgcubed.socket", check=False).out, "inactive\n" * 3)
        server.sh("systemctl enable --now --quiet borgcube.target")
        self.run_config("backup/files")
        server.wait_for("systemctl list-timers --all --no-legend 'borgcube*' | grep -q borgcube-schedule@nightly.timer")

    # -- remove, install again, purge ---------------------------------------------------------

    def test_50_removed_during_a_backup(self):
        server = self.server
        type(self).known = state_of(server)
        before = self.archives()
        self.begin_slow_backup()
        said = self.apt(server, inline("Upgrade, remove, purge", "apt remove"), "y\n")
        self.client.rate(None)
        self.assertTrue(self.status_of(server, "borgcube-server").startswith("deinstall ok config-files"), said)
        for user in "borgcube", "borgcube-repo", "borgcube-keys":
            self.assertEqual(self.processes(user), [])
        self.assertEqual(server.sh("systemctl list-units --state=active,activating,deactivating,failed --no-legend 'borgcube*'").out, "")
        self.assertEqual(server.sh("ls -d /usr/libexec/borgcube /usr/bin/borgcube /run/systemd/system/borgcube-schedule*", check=False).out, "")
        for kept in "/var/lib/borgcube/db/data.mdb", "/etc/credstore.encrypted/borgcube.repository.main.passphrase", "/etc/ssh/sshd_config.d/borgcube.conf":
            server.sh(f"test -s {kept}")
        # Nobody comes in by what is left, and the repository is as a borg that was interrupted leaves it.
        server.sh("sshd -t")
        self.assertNotEqual(self.client.ssh("-o", "StrictHostKeyChecking=no", "borgcube-ssh@backup.example.net", "id").code, 0)
        self.stock("check --verify-data {path}")
        self.assertTrue(set(before) <= set(self.archives()))
        server.stop()
        server.start()
        server.sh("rm -f /etc/ssh/ssh_known_hosts")
        self.nothing_failed(server)

    def test_51_installed_again(self):
        server = self.server
        self.apt(server, "apt install ./newer/borgcube-server_*.deb")
        self.assertEqual(server.sh("systemctl is-enabled borgcube.target").out, "enabled\n")
        now = state_of(server)
        for what in self.known:
            self.assertTrue(set(self.known[what]) <= set(now[what]), what)
        for config in "backup/files", "web1/files", "web1-restricted/files":
            self.run_config(config)
        self.stock("check --verify-data {path}")
        server.wait_for("systemctl list-timers --all --no-legend 'borgcube*' | grep -q borgcube-schedule@nightly.timer")
        self.assertNotIn("PROBLEM", self.typed(server, "borgcube doctor --client web1").out)

    def test_60_purged(self):
        server = self.server
        before = self.archives()
        secrets = server.sh("ls /etc/credstore.encrypted/borgcube.repository.*").out.split()
        said = self.apt(server, inline("Upgrade, remove, purge", "apt purge"), "y\n")
        for secret in secrets:
            self.assertIn(secret, said.out + said.err, "it says what it leaves")
        self.apt(server, "apt purge borgcube-doc", "y\n")
        self.assertEqual(self.status_of(server, "borgcube-server"), "")
        self.assertEqual(self.list_units(server), "")
        left = sorted(set(server.sh(ALL_FILES).out.splitlines()) - set(self.files_before))
        expected = set(secrets) | {"/etc/credstore.encrypted", "/srv/borgcube"}
        others = [path for path in left if path not in expected and not path.startswith("/srv/borgcube/main")
                  # systemd's own: the host's key, which the secrets need; where it remembers when timers ran. A user's mail and the old books of users.
                  and path not in ("/var/lib/systemd/credential.secret", "/var/lib/systemd/timers") and not path.startswith("/var/mail") and not re.match(r"/etc/(group|gshadow|passwd|shadow|subuid|subgid)-$", path)]
        self.assertEqual(others, [])
        self.assertNotIn("borgcube-ssh", server.sh("cat /etc/ssh/sshd_config.d/* 2> /dev/null", check=False).out)
        # The users stay, because the repositories are theirs; and stock borg reads them without us.
        self.assertEqual(server.sh("stat -c %U /srv/borgcube/main").out, "borgcube-repo\n")
        self.assertEqual(self.archives(), before)
        self.stock("check --verify-data {path}")

    def test_61_a_repository_of_before_is_taken_over(self):
        server = self.server
        before = self.archives()
        self.apt(server, "apt install ./borgcube-server_*.deb")
        self.assertEqual(state_of(server)["client"], [])
        self.typed(server, inline("Upgrade, remove, purge", "borgcube repository add"))
        self.typed(server, "borgcube setup --yes --label again")
        after = self.archives()
        self.assertEqual(set(before), {name for name in after if "-again-" not in name})
        self.assertEqual(len(after), len(before) + 1)
        self.stock("check --verify-data {path}")

    def test_70_the_login_goes_with_its_package(self):
        client = self.client
        self.apt(client, "apt remove borgcube-client", "y\n")
        said = self.server.sh(f"{LOGIN} borgcube-client@web1.example.net id", check=False)
        self.assertNotEqual(said.code, 0, said)
        self.assertNotIn("uid=", said.out)
        client.sh("test -s /var/lib/borgcube-client/.ssh/authorized_keys && visudo --check --quiet")
        self.apt(client, "apt install ./borgcube-client_*.deb")
        self.assertIn(self.key.split()[1], self.typed(client, "borgcube-client-setup --list").out)
        self.apt(client, "apt purge borgcube-client", "y\n")
        self.assertEqual(client.sh("ls -d /var/lib/borgcube-client /etc/sudoers.d/borgcube-client /usr/libexec/borgcube-client", check=False).out, "")

    # -- a fresh host -------------------------------------------------------------------------

    def test_80_the_test_that_debian_would_run(self):
        """debian/tests/installed, on a host that has the package and nothing else done to it; without autopkgtest around it."""
        fresh = self.fresh
        self.apt(fresh, "apt install ./borgcube-server_*.deb ./borgcube-doc_*.deb")
        fresh.put(borgcube.TOP / "debian/tests/installed", "/root")
        said = self.typed(fresh, "mkdir -p artifacts && AUTOPKGTEST_TMP=$(mktemp -d) AUTOPKGTEST_ARTIFACTS=$PWD/artifacts /root/installed")
        self.assertNotIn("PROBLEM", said.out + said.err)
        self.nothing_failed(fresh)

    def test_81_purged_at_once(self):
        """Without a remove between, with an owner and a schedule."""
        fresh = self.fresh
        self.typed(fresh, "borgcube schedule add nightly --at 'daily 02:30' --run-matching '.*/.*'")
        fresh.wait_for("systemctl list-timers --all --no-legend 'borgcube*' | grep -q borgcube-schedule@nightly.timer")
        self.apt(fresh, "apt purge borgcube-server borgcube-doc", "y\n")
        self.assertEqual(self.list_units(fresh), "")
        self.assertEqual(fresh.sh("ls -d /var/lib/borgcube /run/borgcube", check=False).out, "")
        fresh.stop()
        fresh.start()
        self.nothing_failed(fresh)


class Bookworm(Packages, unittest.TestCase):
    suite = "bookworm"


class Trixie(Packages, unittest.TestCase):
    suite = "trixie"


if __name__ == "__main__":
    unittest.main(verbosity=2)
