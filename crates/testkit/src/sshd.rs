//! A real sshd on a loopback port, with keys of its own, for one test.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::unistd::{User, geteuid};
use tempfile::TempDir;

use crate::process::{end_tree, is_alive};
use crate::retry_until;

const PROGRAM: &str = "/usr/sbin/sshd";

/// A running sshd that lets the current user in with the keys it was given, and nobody else.
///
/// It has no PAM, no passwords and no forwarding of its own making; everything it writes is in a temporary
/// directory. It ends, with everything started through it, when the value is dropped.
#[derive(Debug)]
pub struct Sshd {
    directory: TempDir,
    user: String,
    port: u16,
    child: Child,
    keys: u32,
}

impl Sshd {
    /// Starts it on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// When Debian's openssh-server is not installed (`scripts/setup test` does that) or does not start.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// The same with further lines of sshd_config.
    ///
    /// # Panics
    /// As [`start`](Self::start) does.
    pub fn start_with(lines: &str) -> Self {
        assert!(Path::new(PROGRAM).exists(), "{PROGRAM} is not installed: run scripts/setup test");
        let directory = tempfile::Builder::new().prefix("sshd-").tempdir().expect("a temporary directory can be made");
        let user = User::from_uid(geteuid()).ok().flatten().expect("the current user has a name").name;
        if geteuid().is_root() {
            // Root's sshd wants this directory, which otherwise only its service makes. Nothing is put there.
            fs::create_dir_all("/run/sshd").expect("root can make /run/sshd");
        }
        make_key(&directory.path().join("host_key"));
        fs::write(directory.path().join("authorized_keys"), "").expect("a file can be written");
        fs::write(directory.path().join("more"), lines).expect("a file can be written");
        let (port, child) = start_somewhere(directory.path());
        let sshd = Self { directory, user, port, child, keys: 0 };
        sshd.trust_host_key();
        sshd
    }

    /// Makes a key pair that may log in under these options of authorized_keys (`command="...",restrict`, or
    /// nothing), and gives the path of the private key.
    pub fn authorize(&mut self, options: &str) -> PathBuf {
        self.keys += 1;
        let key = self.path().join(format!("key-{}", self.keys));
        let public = make_key(&key);
        let separator = if options.is_empty() { "" } else { " " };
        self.add_authorized_line(&format!("{options}{separator}{public}"));
        key
    }

    /// Adds one line to authorized_keys as it is.
    pub fn add_authorized_line(&self, line: &str) {
        let mut file = OpenOptions::new().append(true).open(self.path().join("authorized_keys")).expect("authorized_keys can be opened");
        writeln!(file, "{}", line.trim_end()).expect("authorized_keys can be written");
    }

    /// Nobody may log in any more.
    pub fn revoke_all(&self) {
        fs::write(self.path().join("authorized_keys"), "").expect("it can be written");
    }

    /// What ssh needs to come here with this key, and to leave the user's own settings alone.
    pub fn ssh_options(&self, key: &Path) -> Vec<String> {
        let known = format!("UserKnownHostsFile={}", self.known_hosts().display());
        let mut words = vec!["-F".to_owned(), "/dev/null".to_owned()];
        words.extend(["-p".to_owned(), self.port.to_string()]);
        words.extend(["-i".to_owned(), key.display().to_string()]);
        for option in [
            known.as_str(),
            "GlobalKnownHostsFile=/dev/null",
            "StrictHostKeyChecking=yes",
            "IdentitiesOnly=yes",
            "BatchMode=yes",
            "LogLevel=ERROR",
        ] {
            words.extend(["-o".to_owned(), option.to_owned()]);
        }
        words
    }

    /// The same as one string, with `ssh` before it: a value for `BORG_RSH`.
    pub fn rsh(&self, key: &Path) -> String {
        format!("ssh {}", self.ssh_options(key).join(" "))
    }

    /// An ssh command that logs in here; add what it shall run.
    pub fn ssh(&self, key: &Path) -> Command {
        let mut command = Command::new("ssh");
        command.args(self.ssh_options(key)).arg(self.destination());
        command.stdin(Stdio::null());
        command
    }

    /// `user@127.0.0.1`.
    pub fn destination(&self) -> String {
        format!("{}@127.0.0.1", self.user)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The file with the host key that clients expect.
    pub fn known_hosts(&self) -> PathBuf {
        self.path().join("known_hosts")
    }

    /// The file with the public half of its host key.
    pub fn host_key(&self) -> PathBuf {
        self.path().join("host_key.pub")
    }

    /// The process that listens.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process number")
    }

    /// What sshd wrote so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Gives the server another host key, on the same port. Clients that know the old one refuse it, until
    /// [`trust_host_key`](Self::trust_host_key).
    pub fn rotate_host_key(&mut self) {
        self.stop();
        let key = self.path().join("host_key");
        fs::remove_file(&key).expect("the host key can be removed");
        make_key(&key);
        self.come_back();
    }

    /// Ends it; connections are refused until [`come_back`](Self::come_back).
    pub fn stop(&mut self) {
        end_tree(&mut self.child, Duration::from_millis(500));
    }

    /// Starts it again after [`stop`](Self::stop), on the same port.
    pub fn come_back(&mut self) {
        self.child = retry_until(Duration::from_secs(10), || start(self.directory.path(), self.port))
            .unwrap_or_else(|| panic!("sshd did not come back:\n{}", self.log()));
    }

    /// Writes the host key as it is now where clients look for it.
    pub fn trust_host_key(&self) {
        let public = fs::read_to_string(self.path().join("host_key.pub")).expect("a public key");
        let line = format!("[127.0.0.1]:{} {public}", self.port);
        fs::write(self.known_hosts(), line).expect("known_hosts can be written");
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log of sshd:\n{}", self.log());
        }
        self.stop();
    }
}

/// Makes an ed25519 key pair and gives the public half.
fn make_key(path: &Path) -> String {
    let output = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .expect("ssh-keygen starts");
    assert!(output.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&output.stderr));
    let public = fs::read_to_string(path.with_extension("pub")).expect("a public key was made");
    public.trim_end().to_owned()
}

/// Between finding a free port and taking it, somebody else may have been faster.
fn start_somewhere(directory: &Path) -> (u16, Child) {
    for _ in 0..20 {
        let port = {
            let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            probe.local_addr().expect("it has an address").port()
        };
        if let Some(child) = start(directory, port) {
            return (port, child);
        }
    }
    let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
    panic!("sshd does not start:\n{log}");
}

fn start(directory: &Path, port: u16) -> Option<Child> {
    let at = directory.display();
    // sshd refuses accounts that are locked in /etc/shadow, as root is on many machines, but asks only PAM if
    // it has PAM. Only root's sshd can read that file, and only root's can use PAM.
    let pam = if root_is_locked() { "yes" } else { "no" };
    let more = fs::read_to_string(directory.join("more")).expect("further lines");
    let config = format!(
        "Port {port}
ListenAddress 127.0.0.1
HostKey {at}/host_key
AuthorizedKeysFile {at}/authorized_keys
PidFile none
UsePAM {pam}
StrictModes no
PermitRootLogin prohibit-password
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
AuthenticationMethods publickey
UseDNS no
PrintMotd no
PrintLastLog no
MaxStartups 100
LogLevel VERBOSE
{more}"
    );
    let file = directory.join("config");
    fs::write(&file, config).expect("a file can be written");
    let mut child = Command::new(PROGRAM)
        .arg("-D")
        .arg("-f")
        .arg(&file)
        .arg("-E")
        .arg(directory.join("log"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("sshd starts");
    let listens = retry_until(Duration::from_secs(10), || {
        if !matches!(child.try_wait(), Ok(None)) {
            return Some(false);
        }
        let answers = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        // Another program on that port would answer, too, while our sshd is about to give up.
        let ours = i32::try_from(child.id()).is_ok_and(is_alive);
        (answers && ours && listening(directory, port)).then_some(true)
    });
    if listens == Some(true) {
        return Some(child);
    }
    let _it_may_be_gone = child.kill();
    let _reaped = child.wait();
    None
}

/// Has this very sshd said that it listens?
fn listening(directory: &Path, port: u16) -> bool {
    let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
    log.contains(&format!("Server listening on 127.0.0.1 port {port}."))
}

fn root_is_locked() -> bool {
    let Ok(shadow) = fs::read_to_string("/etc/shadow") else {
        return false;
    };
    geteuid().is_root() && shadow.lines().any(|line| line.strip_prefix("root:").is_some_and(|p| p.starts_with('!')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process;

    fn says(mut command: Command) -> (bool, String) {
        let output = command.output().expect("ssh starts");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    #[test]
    fn runs_the_forced_command_and_refuses_a_changed_host_key() {
        let mut sshd = Sshd::start();
        let free = sshd.authorize("");
        let forced = sshd.authorize("command=\"echo forced: $SSH_ORIGINAL_COMMAND\",restrict");

        let mut command = sshd.ssh(&free);
        command.arg("echo free");
        assert_eq!(says(command), (true, "free\n".into()));
        let mut command = sshd.ssh(&forced);
        command.arg("borg serve");
        assert_eq!(says(command), (true, "forced: borg serve\n".into()));

        sshd.rotate_host_key();
        let mut command = sshd.ssh(&free);
        command.arg("echo free");
        let (fine, text) = says(command);
        assert!(!fine && text.contains("HOST IDENTIFICATION HAS CHANGED"), "{text}");
        sshd.trust_host_key();
        let mut command = sshd.ssh(&free);
        command.arg("echo free");
        assert_eq!(says(command), (true, "free\n".into()));

        sshd.revoke_all();
        let (fine, text) = says(sshd.ssh(&free));
        assert!(!fine && text.contains("Permission denied"), "{text}");
    }

    #[test]
    fn nothing_is_left_when_it_is_dropped() {
        let mut sshd = Sshd::start();
        let key = sshd.authorize("");
        let mut client = sshd.ssh(&key).arg("sleep 63.5; true").spawn().expect("ssh starts");
        let sleeps = || -> Vec<i32> { process::all().into_iter().filter(|pid| process::arguments(*pid) == ["sleep", "63.5"]).collect() };
        retry_until(Duration::from_secs(10), || (!sleeps().is_empty()).then_some(())).expect("the command runs");
        let directory = sshd.path().to_owned();
        let port = sshd.port();
        drop(sshd);
        assert_eq!(sleeps(), Vec::<i32>::new());
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
        assert!(!directory.exists());
        assert!(!client.wait().expect("ssh ends").success());
    }
}
