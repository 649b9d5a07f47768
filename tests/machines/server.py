"""BorgCube on the rig's hosts: what the tests have in common."""
import functools
import os
import pathlib
import shutil
import subprocess
import tempfile

import rig as rigs

TOP = pathlib.Path(__file__).resolve().parents[2]
# Where cargo put the programs.
PROGRAMS = pathlib.Path(os.environ.get("BORGCUBE_PROGRAMS", TOP / "target/debug"))


@functools.cache
def tree():
    """What is installed, as a tar. Debug symbols would fill the hosts' disks."""
    with tempfile.TemporaryDirectory(dir=rigs.RIG_DIR) as directory:
        root = pathlib.Path(directory) / "tree"
        subprocess.run([TOP / "scripts/install-tree", root, PROGRAMS], check=True)
        for program in root.glob("usr/*/**/borgcube*"):
            if program.is_file() and shutil.which("strip"):
                subprocess.run(["strip", "--strip-debug", program], check=False, stderr=subprocess.DEVNULL)
        return rigs.run(["tar", "-C", root, "--owner=0", "--group=0", "--no-overwrite-dir", "-c", "."], stdin=b"").out


def install(host):
    """BorgCube as its package installs it, without a package: files, users, directories, units, sshd, the journal's catalogue."""
    host.sh("tar -C / --no-overwrite-dir --no-same-owner -x", stdin=tree())
    # Owners give repositories back at once, so that stock borg can judge them.
    host.write("/etc/systemd/system/borgcube-repositoryd@.service.d/test.conf", "[Service]\nEnvironment=BORGCUBE_IDLE_SECONDS=1\n")
    host.sh("systemd-sysusers && systemd-tmpfiles --create borgcube.conf && systemctl daemon-reload "
            "&& systemctl enable --now borgcube.target && systemctl reload ssh && journalctl --update-catalog")


def borgcube(host, *words, **options):
    """The command as root of the host."""
    return host.exec("borgcube", *words, **options)


def add_repository(host, name="main", path=None, encryption="repokey-blake2"):
    path = path or f"/srv/borg/{name}"
    host.sh(f"mkdir -p {pathlib.PurePosixPath(path).parent}")
    return borgcube(host, "repository", "add", name, path, "--encryption", encryption, "--generate-passphrase")


def let_in(host, server):
    """The server's workers may log in to the host as root, and know its host key."""
    key = server.sh("""
        test -e /var/lib/borgcube/.ssh/id_ed25519 ||
            setpriv --reuid borgcube --regid borgcube --clear-groups ssh-keygen -q -t ed25519 -N '' -f /var/lib/borgcube/.ssh/id_ed25519
        cat /var/lib/borgcube/.ssh/id_ed25519.pub
    """).out
    host.sh("install -d -m700 /root/.ssh; cat >> /root/.ssh/authorized_keys", stdin=key)


def stock_borg(host, name, command, path=None):
    """Stock borg on a repository of the server, as its owner, with the passphrase that systemd keeps."""
    path = path or f"/srv/borg/{name}"
    return host.sh(f"""
        for i in $(seq 100); do test -e {path}/lock.exclusive || break; sleep 0.2; done
        secret=$(ls /etc/credstore.encrypted/borgcube.repository.{name}.passphrase)
        BORG_PASSPHRASE=$(systemd-creds --name=passphrase decrypt $secret -)
        export BORG_PASSPHRASE
        setpriv --reuid borgcube-repo --regid borgcube-repo --clear-groups env HOME=/tmp BORG_BASE_DIR=/tmp/stock \
            BORG_RELOCATED_REPO_ACCESS_IS_OK=yes BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes borg {command.format(path=path)}
    """, timeout=300)
