#!/usr/bin/env python3
"""A test rig of booted systemd containers on one private network.

    with Rig({"server": {}, "client1": {}, "client2": {"suite": "trixie"}}) as rig:
        rig["server"].sh("systemctl is-system-running")

Everything a rig has - mounts, bridge, network namespaces, processes - lives in namespaces held by
one process, the keeper, which ends when its stdin closes. So a rig is gone when the test runner
is, even after SIGKILL; the janitor around the keeper then removes the cgroups and the files.

From a shell:  rig.py up server client1 client2:trixie  |  rig.py gc
"""
import contextlib
import fcntl
import json
import os
import pathlib
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid

HERE = pathlib.Path(__file__).resolve().parent
RIG_DIR = pathlib.Path(os.environ.get("MACHINES_DIR", "/var/tmp/borgcube-machines"))
CLEAN_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
             "HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb", "DEBIAN_FRONTEND": "noninteractive"}

# Holds the run directory's lock, lets the keeper live, and cleans up once it is gone.
JANITOR = r"""
trap '' INT TERM HUP
sh -c 'echo $$ > "$CGROUP/cgroup.procs"
    exec unshare --mount --net --pid --cgroup --fork --kill-child --mount-proc sh -euc "$KEEPER"'
for try in 1 2 3 4 5 6 7 8 9 10; do
    find $CGROUPS -depth -type d -exec rmdir {} + 2>/dev/null
    ls -d $CGROUPS > /dev/null 2>&1 || break
    sleep 0.1
done
if [ -n "$KEEP" ]; then
    rm "$RUN/lock"          # gc leaves a directory without a lock alone
else
    rm -rf "$RUN"
fi
"""

# PID 1 of the rig's own namespaces. A pure cgroup v2 tree is what makes systemd 252 and 257 boot alike.
KEEPER = r"""
mount --make-rshared /      # each nspawn holds a copy of these mounts: let unmounting reach it
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
umount -l /sys/fs/cgroup
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
ip link add br0 type bridge
ip link set br0 up
echo up
exec cat > /dev/null
"""


class Failed(Exception):
    """A command in the rig ended with a code that was not expected."""


class Result:
    def __init__(self, argv, done):
        self.argv, self.code, self.out, self.err = argv, done.returncode, done.stdout, done.stderr

    def __repr__(self):
        return f"{shlex.join(map(str, self.argv))}: exit {self.code}\n{self.out}{self.err}"


def run(argv, check=True, stdin="", timeout=60, env=None):
    text = not isinstance(stdin, bytes)
    done = subprocess.run([str(a) for a in argv], input=stdin, capture_output=True, text=text,
                          errors="replace" if text else None, timeout=timeout, env=env)
    result = Result(argv, done)
    if check and done.returncode:
        raise Failed(result)
    return result


def only_child(pid):
    return int(pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def own_cgroup():
    """This process's directory in the cgroup v2 tree. Rigs live below it, so they stay within its limits."""
    mounts = [line.split() for line in pathlib.Path("/proc/mounts").read_text().splitlines()]
    mount = next(where for _, where, kind, *_ in mounts if kind == "cgroup2")
    for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":")
        if not controllers:
            return pathlib.Path(mount + path)


class Rig:
    def __init__(self, hosts, keep=False):
        """hosts: a dict from name to Host options; keep: the disk images and console logs stay."""
        self.id = uuid.uuid4().hex[:8]
        self.dir = RIG_DIR / "run" / self.id
        self.cgroup = own_cgroup() / f"rig-{self.id}"
        self.keep = keep
        self.janitor = None
        self.hosts = {name: Host(self, name, number, **options)
                      for number, (name, options) in enumerate(hosts.items(), 1)}

    def __getitem__(self, name):
        return self.hosts[name]

    def __enter__(self):
        gc()
        try:
            self._open()
            for host in self.hosts.values():
                host.prepare()
            for host in self.hosts.values():
                host.start(wait=False)
            for host in self.hosts.values():
                host.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def _open(self):
        with run_lock():
            self.dir.mkdir(parents=True)
            lock = open(self.dir / "lock", "w")
            fcntl.flock(lock, fcntl.LOCK_EX)
        self.cgroup.mkdir()
        variables = dict(os.environ, KEEPER=KEEPER, RUN=str(self.dir), KEEP="1" if self.keep else "",
                         CGROUP=str(self.cgroup), CGROUPS=str(self.cgroup))
        self.janitor = subprocess.Popen(
            ["sh", "-c", JANITOR], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=variables, start_new_session=True, pass_fds=[lock.fileno()])
        lock.close()                     # the janitor's copy holds it from here on
        if self.janitor.stdout.readline() != "up\n":
            raise Failed("the keeper did not start")
        self.keeper = only_child(only_child(self.janitor.pid))

    def ns(self, *argv, **options):
        """Run a command in the rig's own namespaces: its mounts, its bridge."""
        return run(["nsenter", "-t", self.keeper, "-m", "-n", "-p", "-C", "--", *argv], **options)

    def close(self):
        if self.janitor:
            self.janitor.stdin.close()
            self.janitor.wait()
            self.janitor.stdout.close()
        for host in self.hosts.values():
            host.close()


class Host:
    def __init__(self, rig, name, number, suite="bookworm", disk="4G", clock=False, bind=(), nspawn=()):
        """clock: set_clock works; bind: machine paths to show inside; nspawn: more of its options."""
        self.rig, self.name, self.suite, self.disk_size = rig, name, suite, disk
        self.ip = f"10.99.0.{number}"
        self.machine_id = uuid.uuid4().hex
        self.dir = rig.dir / name
        self.root, self.disk = self.dir / "root", self.dir / "disk"
        self.clock = clock
        self.options = [f"--bind={path}" for path in bind] + list(nspawn)
        self.nspawn = None

    # -- life cycle ---------------------------------------------------------------------------

    def prepare(self):
        """Disk image, network namespace, keys and names, all before the first boot."""
        ns = self.rig.ns
        self.base = run([HERE / "mkbase", self.suite], timeout=600).out.strip()
        self.dir.mkdir()
        self.root.mkdir()
        self.disk.mkdir()
        run(["mkfs.ext4", "-q", "-F", "-m0", self.dir / "disk.img", self.disk_size])
        self.mount()
        script = f"""
            ip netns add {self.name}
            ip link add name {self.name} type veth peer name eth0 netns {self.name}
            ip link set dev {self.name} master br0 up
            ip -n {self.name} link set lo up
            ip -n {self.name} link set eth0 up
            ip -n {self.name} address add {self.ip}/24 dev eth0
        """
        ns("sh", "-euc", script)
        keys = self.dir / "keys"
        keys.mkdir()
        for kind in ("host", "user"):
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"{kind}@{self.name}", "-f", keys / kind])
        names = "".join(f"{host.ip} {host.name}\n" for host in self.rig.hosts.values())
        (self.dir / "hosts").write_text("127.0.0.1 localhost\n" + names)
        ns("sh", "-euc", f"""
            cd {self.root}
            install -m600 {keys}/host etc/ssh/ssh_host_ed25519_key
            install -m644 {keys}/host.pub etc/ssh/ssh_host_ed25519_key.pub
            install -d -m700 root/.ssh
            install -m600 {keys}/user root/.ssh/id_ed25519
            install -m644 {keys}/user.pub root/.ssh/id_ed25519.pub
            cp {self.dir}/hosts etc/hosts
            echo {self.name} > etc/hostname
        """)
        if self.clock:
            ns("sh", "-euc", f"""
                head -c8 /dev/zero > {self.root}/etc/rig-clock
                echo /usr/lib/rig-clock.so > {self.root}/etc/ld.so.preload
            """)
        self.host_key = (keys / "host.pub").read_text()
        self.user_key = (keys / "user.pub").read_text()

    def mount(self):
        self.rig.ns("sh", "-euc", f"""
            mount -o loop {self.dir}/disk.img {self.disk}
            mkdir -p {self.disk}/upper {self.disk}/work
            mount -t overlay overlay {self.root} \
                -o lowerdir={self.base},upperdir={self.disk}/upper,workdir={self.disk}/work
        """)

    def start(self, wait=True):
        self.started = time.monotonic()
        path = self.dir / "notify"
        path.unlink(missing_ok=True)
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(path))
        self.ready = threading.Event()
        threading.Thread(target=self._hear, args=(self.notify, self.ready), daemon=True).start()
        self.console = open(self.dir / "console.log", "ab")
        argv = ["systemd-nspawn", "--quiet", "--settings=no", "--register=no", "--keep-unit", "--boot",
                f"--directory={self.root}", f"--machine={self.name}", f"--uuid={self.machine_id}",
                f"--network-namespace-path=/run/netns/{self.name}", "--notify-ready=yes",
                "--console=pipe", "--link-journal=no", "--resolv-conf=off", "--timezone=off",
                # as on a real host: else IPAddressDeny=, DevicePolicy=, PrivateNetwork= do nothing, silently
                "--capability=CAP_NET_ADMIN", "--system-call-filter=bpf add_key keyctl request_key",
                *self.options]
        script = f"""
            mkdir -p /sys/fs/cgroup/{self.name}
            echo 0 > /sys/fs/cgroup/{self.name}/cgroup.procs
            exec {shlex.join(argv)}
        """
        self.nspawn = subprocess.Popen(
            ["nsenter", "-t", str(self.rig.keeper), "-m", "-n", "-p", "-C", "--", "sh", "-euc", script],
            stdin=subprocess.DEVNULL, stdout=self.console, stderr=self.console, start_new_session=True,
            env=dict(CLEAN_ENV, NOTIFY_SOCKET=str(path)))
        if wait:
            self.wait_ready()

    @staticmethod
    def _hear(notify, ready):
        """Read what the container's systemd says for as long as it lives. The queue takes ten messages, then nspawn
        waits for a reader and PID 1 for nspawn: that host neither stops nor answers. systemd 257 says two at each daemon-reload, 252 none."""
        with notify:
            while message := notify.recv(4096):
                if b"READY=1" in message.split(b"\n"):
                    ready.set()

    def wait_ready(self, timeout=60):
        """Wait until the container's systemd says READY=1, then for the end of its start-up jobs."""
        if not self.ready.wait(timeout):
            raise Failed(f"{self.name} did not boot:\n{(self.dir / 'console.log').read_text()[-3000:]}")
        state = self.sh("systemctl is-system-running --wait", check=False).out.strip()
        self.boot_seconds = time.monotonic() - self.started
        if state != "running":
            raise Failed(f"{self.name} is {state}: " + self.sh("systemctl --failed --no-pager").out)
        known = "".join(f"{host.name},{host.ip} {host.host_key}" for host in self.rig.hosts.values())
        self.write("/etc/ssh/ssh_known_hosts", known)

    @property
    def cgroup(self):
        return self.rig.cgroup / self.name

    @property
    def leader(self):
        """The container's PID 1, as a pid of this side."""
        return int((self.cgroup / "payload/init.scope/cgroup.procs").read_text().split()[0])

    def kill(self):
        """Every process of the container dies at once, nothing gets to say goodbye."""
        (self.cgroup / "cgroup.kill").write_text("1")
        self._gone()

    def stop(self, timeout=60):
        """An orderly shutdown."""
        os.kill(self.leader, signal.SIGRTMIN + 4)
        self._gone(timeout)

    def _gone(self, timeout=10):
        self.nspawn.wait(timeout)
        while "populated 1" in (self.cgroup / "cgroup.events").read_text():
            time.sleep(0.01)
        self.close()
        remove_cgroup(self.cgroup)

    def close(self):
        if self.nspawn:
            self.nspawn.wait()
            with contextlib.suppress(OSError):      # closed already
                self.notify.shutdown(socket.SHUT_RD)
            self.console.close()

    def power_cut(self):
        """Lose all that was not synced, then the processes; the file system is as a disk would have it."""
        self.rig.ns(sys.executable, HERE / "fsdown.py", self.disk)
        self.kill()
        self.rig.ns("sh", "-euc", f"umount {self.root}; umount {self.disk}")
        self.mount()

    # -- commands and files -------------------------------------------------------------------

    def exec(self, *argv, **options):
        """Run argv in the container's namespaces. Not a unit: its cgroup is outside, it has no seccomp
        filter, and it would hold the machine's capabilities but for those dropped here."""
        return run(["nsenter", "-t", self.leader, "-a", "--", "setpriv",
                    "--bounding-set=-sys_time,-sys_module,-sys_rawio,-syslog,-sys_boot", *argv],
                   env=CLEAN_ENV, **options)

    def sh(self, script, **options):
        return self.exec("sh", "-c", script, **options)

    def unit(self, script, *properties, **options):
        """Run a script as a transient service, waited for: a real cgroup, the unit's sandbox."""
        options.setdefault("check", False)
        return self.exec("systemd-run", "--quiet", "--pipe", "--wait", "--collect",
                         *(f"--property={p}" for p in properties), "sh", "-c", script, **options)

    def write(self, path, text, mode="644"):
        data = text if isinstance(text, bytes) else text.encode()
        self.sh(f"mkdir -p $(dirname {path}); cat > {path}; chmod {mode} {path}", stdin=data)

    def put(self, source, target):
        """Copy a file or a directory into the directory target."""
        source = pathlib.Path(source)
        tar = run(["tar", "-C", source.parent, "-c", source.name], stdin=b"").out
        self.sh(f"mkdir -p {target}; tar -C {target} --no-same-owner -x", stdin=tar)

    def get(self, source, target):
        """Copy a file or a directory of the container into the directory target."""
        source = pathlib.PurePosixPath(source)
        tar = self.exec("tar", "-C", source.parent, "-c", source.name, stdin=b"").out
        run(["tar", "-C", target, "-x"], stdin=tar)

    def install(self, deb):
        self.put(deb, "/root/debs")
        return self.sh(f"apt-get install -y -q /root/debs/{pathlib.Path(deb).name}", timeout=300)

    def authorize(self, other, options="", user="root"):
        """Let root of another host log in here, under the given authorized_keys options."""
        line = f"{options} {other.user_key}".strip()
        self.sh(f"""
            home=$(getent passwd {user} | cut -d: -f6)
            install -d -m700 -o {user} -g "$(id -gn {user})" $home/.ssh
            cat >> $home/.ssh/authorized_keys
            chown {user}: $home/.ssh/authorized_keys
        """, stdin=line + "\n")

    def ssh(self, target, *command, **options):
        options.setdefault("check", False)
        return self.exec("ssh", "-o", "BatchMode=yes", target, *command, **options)

    def wait_for(self, script, timeout=10, every=0.05):
        deadline = time.monotonic() + timeout
        while (result := self.sh(script, check=False)).code:
            if time.monotonic() > deadline:
                raise Failed(f"{self.name}: not within {timeout} s: {result}")
            time.sleep(every)
        return result

    def journal(self, *match):
        """The journal's entries as dicts, read from outside: also when the container is down."""
        if self.nspawn.poll() is None:
            self.sh("journalctl --sync", check=False)
        out = self.rig.ns("journalctl", "-q", "-o", "json", "--all", "-D",
                          f"{self.root}/var/log/journal", *match).out
        return [json.loads(line) for line in out.splitlines()]

    def set_clock(self, to=None):
        """Set the host's wall clock to an epoch time; None: back to the machine's."""
        offset = int((to - time.time()) * 1e9) if to else 0
        self.sh("dd of=/etc/rig-clock conv=notrunc,fsync status=none", stdin=struct.pack("<q", offset))

    # -- faults -------------------------------------------------------------------------------

    def link(self, up):
        """Pull or plug the network cable, on the bridge's side."""
        self.rig.ns("ip", "link", "set", "dev", self.name, "up" if up else "down")

    def rate(self, bits="10mbit"):
        """Slow the host's network down in both directions; rate(None) lifts it."""
        for namespace, device in (None, self.name), (self.name, "eth0"):
            at = ["-n", namespace] if namespace else []
            self.rig.ns("tc", *at, "qdisc", "del", "dev", device, "root", check=False)
            if bits:
                self.rig.ns("tc", *at, "qdisc", "add", "dev", device, "root", "tbf",
                            "rate", bits, "burst", "16kb", "latency", "200ms")

    def fill_disk(self, leave="1M"):
        """Take the host's whole disk but for this much; fill_disk(None) gives it back."""
        ballast = self.disk / "ballast"
        self.rig.ns("rm", "-f", ballast)
        if leave:
            free = int(self.rig.ns("findmnt", "-nbo", "AVAIL", "-T", self.disk).out)
            unit = int(self.rig.ns("numfmt", "--from=iec", leave).out)
            self.rig.ns("fallocate", "-l", free - unit, ballast)

    def unit_cgroup(self, unit):
        return self.cgroup / "payload" / self.sh(f"systemctl show -P ControlGroup {unit}").out.strip().lstrip("/")

    def kill_unit(self, unit):
        """SIGKILL every process of a unit, through its cgroup."""
        (self.unit_cgroup(unit) / "cgroup.kill").write_text("1")


@contextlib.contextmanager
def run_lock():
    """Held while the list of run directories changes, so that gc sees none not locked yet."""
    RIG_DIR.mkdir(parents=True, exist_ok=True)
    with open(RIG_DIR / "run.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def gc():
    """Remove what rigs left whose janitor was killed too: nobody holds their lock."""
    with run_lock():
        for directory in (RIG_DIR / "run").glob("*"):
            with contextlib.suppress(OSError), open(directory / "lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_cgroup(own_cgroup() / f"rig-{directory.name}")
                shutil.rmtree(directory)


def remove_cgroup(path):
    run(["find", path, "-depth", "-type", "d", "-exec", "rmdir", "{}", "+"], check=False)


def main():
    if sys.argv[1:2] == ["gc"]:
        gc()
    elif sys.argv[1:2] == ["up"]:
        hosts = {}
        for word in sys.argv[2:]:
            name, _, suite = word.partition(":")
            hosts[name] = {"suite": suite or "bookworm"}
        with Rig(hosts) as rig:
            for host in rig.hosts.values():
                print(f"{host.name} {host.ip} up in {host.boot_seconds:.1f} s: nsenter -t {host.leader} -a")
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
