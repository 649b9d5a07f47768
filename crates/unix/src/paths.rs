//! Every path, environment variable and user name of BorgCube, in one place.

use crate::{Error, Result};
use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The state directory of the embedded default; unset on an installed server.
pub const ENV_STATE: &str = "BORGCUBE_STATE";
/// The server's borg program.
pub const ENV_BORG: &str = "BORGCUBE_BORG";
/// The log level: off, error, warn, info, debug, trace.
pub const ENV_LOG: &str = "BORGCUBE_LOG";
/// The pid that handed descriptors to this process; our equivalent of `LISTEN_PID` (see [`crate::activation`]).
pub const ENV_LISTEN_PARENT: &str = "BORGCUBE_LISTEN_PARENT";
/// systemd: how many descriptors were handed over, from 3 on.
pub const ENV_LISTEN_FDS: &str = "LISTEN_FDS";
/// systemd: which process they are for.
pub const ENV_LISTEN_PID: &str = "LISTEN_PID";
/// systemd: their names, separated by colons.
pub const ENV_LISTEN_FDNAMES: &str = "LISTEN_FDNAMES";
/// systemd: the directory with this service's secrets.
pub const ENV_CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
/// A private SSH key as a credential: of `borgcubed`, with which workers log in to clients; of an owner, to a repository on another host.
pub const CREDENTIAL_SSH_KEY: &str = "ssh-key";
/// systemd: where READY and friends are sent.
pub const ENV_NOTIFY: &str = "NOTIFY_SOCKET";
/// systemd: how many descriptors it keeps for this service (see [`crate::fdstore`]).
pub const ENV_FDSTORE: &str = "FDSTORE";
/// systemd: device and inode of the journal's stream, if stderr is one.
pub const ENV_JOURNAL: &str = "JOURNAL_STREAM";
/// Borg 1.x: the identity under which borg takes its locks.
pub const ENV_BORG_HOST_ID: &str = "BORG_HOST_ID";

/// Seconds after which an owner without work gives the repository back; for tests and the impatient.
pub const ENV_IDLE_SECONDS: &str = "BORGCUBE_IDLE_SECONDS";
/// Seconds that a cancelled job has before its processes are killed.
pub const ENV_CANCEL_SECONDS: &str = "BORGCUBE_CANCEL_SECONDS";
/// Seconds that running jobs have when the queue daemon stops.
pub const ENV_STOP_SECONDS: &str = "BORGCUBE_STOP_SECONDS";

/// What a child of ours may keep of our environment; everything else is named explicitly where it is started.
pub const ENV_KEPT: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    ENV_STATE,
    ENV_BORG,
    ENV_LOG,
    ENV_JOURNAL,
    ENV_IDLE_SECONDS,
    ENV_CANCEL_SECONDS,
    ENV_STOP_SECONDS,
];

/// Runs scheduler, queue daemon and workers.
pub const USER_DAEMON: &str = "borgcube";
/// The login user of the clients.
pub const USER_SSH: &str = "borgcube-ssh";
/// Runs the owners.
pub const USER_REPOSITORY: &str = "borgcube-repo";
/// Runs the status daemon.
pub const USER_STATUS: &str = "borgcube-status";
/// Runs sshd's AuthorizedKeysCommand.
pub const USER_KEYS: &str = "borgcube-keys";
/// Members may use the CLI.
pub const GROUP_OPERATORS: &str = "borgcube";
/// Members may open the database.
pub const GROUP_DATABASE: &str = "borgcube-db";
/// Sessions, each of which has a user of its own, are known by this group.
pub const GROUP_SESSIONS: &str = "borgcube-session";

/// Where an installed server keeps its state.
pub const SYSTEM_STATE: &str = "/var/lib/borgcube";
/// Where an installed server keeps its sockets.
pub const SYSTEM_RUN: &str = "/run/borgcube";
/// Where an installed server keeps configuration that is not in the database.
pub const SYSTEM_CONFIGURATION: &str = "/etc/borgcube";
/// Where sshd keeps its host keys.
pub const SSH_CONFIGURATION: &str = "/etc/ssh";
/// Where an installed server keeps the programs that nobody calls by hand.
pub const SYSTEM_LIBEXEC: &str = "/usr/libexec/borgcube";

/// The private key with which workers log in to clients, as a file of `borgcubed` while that runs: for who tries a connection in its place.
pub const SYSTEM_SSH_KEY: &str = "/run/credentials/borgcubed.service/ssh-key";

/// Where everything lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    state: PathBuf,
    run: PathBuf,
    /// Directories belong to several users, and tmpfiles.d/borgcube.conf makes them.
    installed: bool,
}

impl Layout {
    /// The embedded default below one directory, sockets in `state/run`.
    pub fn new(state: &Path) -> Layout {
        Layout { state: state.to_owned(), run: state.join("run"), installed: false }
    }

    /// An installed server.
    pub fn system() -> Layout {
        Layout { state: SYSTEM_STATE.into(), run: SYSTEM_RUN.into(), installed: true }
    }

    /// Whether this is an installed server, with a user for each kind of process, and not the embedded default.
    pub fn is_installed(&self) -> bool {
        self.installed
    }

    /// [`Layout::new`] of `BORGCUBE_STATE`, or [`Layout::system`] if that is not set.
    ///
    /// Fails if it is set to something that is not an absolute path: processes have different working directories.
    pub fn from_env() -> Result<Layout> {
        Layout::from_value(env::var_os(ENV_STATE))
    }

    fn from_value(value: Option<OsString>) -> Result<Layout> {
        let Some(value) = value else {
            return Ok(Layout::system());
        };
        let path = PathBuf::from(value);
        if !path.is_absolute() {
            return Err(Error::Environment { name: ENV_STATE, why: format!("\"{}\" is not an absolute path", path.display()) });
        }
        Ok(Layout::new(&path))
    }

    /// The state directory itself.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The directory of the sockets.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// Directory of the LMDB environment.
    pub fn db(&self) -> PathBuf {
        self.state.join("db")
    }

    /// Held locked by the queue daemon: there is one for each state directory. On an installed server, directories that belong to root
    /// lie around it.
    pub fn daemon_lock(&self) -> PathBuf {
        let directory = if self.installed { self.run.join("queue") } else { self.run.clone() };
        directory.join("borgcubed.lock")
    }

    /// Spool of the timers: what `borgcube-scheduler` writes and `borgcube-timers` reads.
    pub fn timers(&self) -> PathBuf {
        self.state.join("timers")
    }

    /// Directory of the secrets of one repository: `passphrase`, `key`. Becomes the owner's `CREDENTIALS_DIRECTORY` in the embedded
    /// default; on an installed server systemd makes that.
    pub fn credentials(&self, repo: &str) -> PathBuf {
        self.state.join("credentials").join(component(repo))
    }

    /// Directory of the view lists of one repository.
    pub fn views(&self, repo: &str) -> PathBuf {
        self.state.join("views").join(component(repo))
    }

    /// The view list of one archive; `archive_id` in hexadecimal.
    pub fn view(&self, repo: &str, archive_id: &str) -> PathBuf {
        self.views(repo).join(component(&format!("{archive_id}.view")))
    }

    /// Directory of our own index of one repository on this machine.
    pub fn index(&self, repo: &str) -> PathBuf {
        self.state.join("index").join(component(repo))
    }

    /// Directory of the Borg binaries for clients. What is in it runs on clients: on an installed server only root may change it.
    pub fn binaries(&self) -> PathBuf {
        self.state.join("binaries")
    }

    /// What is in [`Layout::binaries`]: a JSON file.
    pub fn binaries_index(&self) -> PathBuf {
        self.binaries().join("index.json")
    }

    /// The log of job `n`, one JSON object a line.
    pub fn job_log(&self, n: u64) -> PathBuf {
        self.state.join("log/jobs").join(format!("{n}.jsonl"))
    }

    /// Below it, restore tests extract files, each in a directory named by its job.
    pub fn restore_tests(&self) -> PathBuf {
        self.state.join("restore-tests")
    }

    /// The file with the `BORG_HOST_ID` of this server.
    pub fn host_id_file(&self) -> PathBuf {
        self.state.join("host-id")
    }

    /// The queue daemon's socket (Varlink).
    pub fn control_socket(&self) -> PathBuf {
        self.run.join("control.sock")
    }

    /// Where the status pages are, for web servers of this machine.
    pub fn status_socket(&self) -> PathBuf {
        self.run.join("status.sock")
    }

    /// The address of the status pages of the embedded default, one line.
    pub fn status_url(&self) -> PathBuf {
        self.run.join("status.url")
    }

    /// Where sessions begin.
    pub fn session_socket(&self) -> PathBuf {
        self.run.join("session.sock")
    }

    /// Beside the session socket: what bounds how many connections one key has at a time, see [`crate::slots`].
    pub fn connections(session_socket: &Path) -> PathBuf {
        session_socket.with_file_name("connections")
    }

    /// The owner of one repository.
    pub fn repository_socket(&self, name: &str) -> PathBuf {
        self.run.join("repositories").join(component(&format!("{name}.sock")))
    }

    /// The symbolic link by which a session finds its owner; named by the SHA-256 of the token in hexadecimal, so
    /// that the directory's listing gives no token away.
    pub fn session_link(&self, token_sha256_hex: &str) -> PathBuf {
        self.run.join("sessions").join(component(token_sha256_hex))
    }

    /// What [`Layout::session_link`] points to, relative, so that a state directory may be moved.
    pub fn session_link_target(&self, repo: &str) -> PathBuf {
        Path::new("../repositories").join(component(&format!("{repo}.sock")))
    }

    /// Locked while a repository's owner is at something that others wait for, such as a release; says what. Beside the session links,
    /// because that is the directory that owners write in.
    pub fn repository_turn(&self, name: &str) -> PathBuf {
        self.run.join("sessions").join(component(&format!("{name}.turn")))
    }

    /// Directory of the keys of running jobs: files of one line of authorized_keys, named by the key's fingerprint.
    pub fn job_keys(&self) -> PathBuf {
        self.run.join("keys")
    }

    /// Directory of the permanent keys of clients, in the same form.
    pub fn permanent_keys(&self) -> PathBuf {
        self.state.join("keys")
    }

    /// Where to look for the public host keys that clients of this server shall expect (`*.pub`), the first directory that has any: one
    /// that a person has filled, for a server behind another name or port, then sshd's own.
    pub fn host_key_directories(&self) -> [PathBuf; 2] {
        let own = if self.installed { PathBuf::from(SYSTEM_CONFIGURATION) } else { self.state.clone() };
        [own.join("host-keys"), SSH_CONFIGURATION.into()]
    }

    /// Makes all directories, mode 0700. Those below the state directory that exist and are open to others are closed
    /// to them; the state directory itself belongs to the user and keeps its mode.
    ///
    /// On an installed server they belong to several users, which no daemon could give them to: it only looks whether they are there.
    pub fn create_directories(&self) -> Result<()> {
        if self.installed {
            return [self.db(), self.state.join("log/jobs"), self.run.join("sessions")].iter().try_for_each(|path| is_there(path));
        }
        make_private(&self.state)?;
        for directory in [
            self.state.join("db"),
            self.state.join("credentials"),
            self.state.join("views"),
            self.state.join("index"),
            self.state.join("binaries"),
            self.state.join("log"),
            self.state.join("log/jobs"),
            self.permanent_keys(),
            self.restore_tests(),
            self.run.clone(),
            self.run.join("repositories"),
            self.run.join("sessions"),
            self.job_keys(),
        ] {
            make_private(&directory)?;
            close_to_others(&directory)?;
        }
        Ok(())
    }

    /// Makes the directories of one repository, mode 0700. On an installed server only its owner may.
    pub fn create_repository_directories(&self, repo: &str) -> Result<()> {
        let credentials = (!self.installed).then(|| self.credentials(repo));
        for directory in credentials.into_iter().chain([self.views(repo), self.index(repo)]) {
            make_private(&directory)?;
            close_to_others(&directory)?;
        }
        Ok(())
    }
}

fn is_there(path: &Path) -> Result<()> {
    let failed = |e| Error::io(format!("cannot find {} (made by: systemd-tmpfiles --create borgcube.conf)", path.display()), e);
    fs::metadata(path).map(drop).map_err(failed)
}

fn make_private(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| Error::io(format!("cannot create the directory {}", path.display()), e))
}

fn close_to_others(path: &Path) -> Result<()> {
    let failed = |e| Error::io(format!("cannot make {} private", path.display()), e);
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed)?;
    }
    Ok(())
}

/// One name as one path component. Valid names come out unchanged. What could climb out of a directory (`/`, NUL, a
/// leading dot) is percent-encoded, and so is `%`, so that two names never meet in one file.
fn component(name: &str) -> PathBuf {
    let mut out = Vec::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'/' | 0 | b'%' => out.extend(format!("%{byte:02X}").bytes()),
            b'.' if at == 0 => out.extend(b"%2E"),
            _ => out.push(byte),
        }
    }
    if out.is_empty() {
        // An empty component would name the directory itself.
        out.push(b'%');
    }
    PathBuf::from(OsString::from_vec(out))
}

/// One of our programs: next to the running one, else in [`SYSTEM_LIBEXEC`], else left to `PATH`.
pub fn sibling_program(name: &str) -> PathBuf {
    let beside = env::current_exe().ok().and_then(|exe| exe.parent().map(|directory| directory.join(name)));
    let candidates = beside.into_iter().chain([Path::new(SYSTEM_LIBEXEC).join(name)]);
    first_program(candidates).unwrap_or_else(|| name.into())
}

fn first_program(candidates: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    candidates.into_iter().find(|path| fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0))
}

/// The server's borg: `BORGCUBE_BORG`, or `borg` from `PATH`.
pub fn borg_program() -> PathBuf {
    match env::var_os(ENV_BORG) {
        Some(value) if !value.as_bytes().is_empty() => value.into(),
        _ => "borg".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_default_lies_below_one_directory() {
        let layout = Layout::new(Path::new("/s"));
        for (path, expected) in [
            (layout.db(), "/s/db"),
            (layout.credentials("main"), "/s/credentials/main"),
            (layout.views("main"), "/s/views/main"),
            (layout.view("main", "abcd"), "/s/views/main/abcd.view"),
            (layout.index("main"), "/s/index/main"),
            (layout.binaries_index(), "/s/binaries/index.json"),
            (layout.job_log(7), "/s/log/jobs/7.jsonl"),
            (layout.host_id_file(), "/s/host-id"),
            (layout.control_socket(), "/s/run/control.sock"),
            (layout.session_socket(), "/s/run/session.sock"),
            (layout.repository_socket("main"), "/s/run/repositories/main.sock"),
            (layout.session_link("00ff"), "/s/run/sessions/00ff"),
            (layout.session_link_target("main"), "../repositories/main.sock"),
            (layout.daemon_lock(), "/s/run/borgcubed.lock"),
        ] {
            assert_eq!(path, Path::new(expected));
        }
        assert!(!layout.is_installed());
    }

    #[test]
    fn an_installed_server_does_not_make_its_directories() {
        let state = tempfile::tempdir().unwrap();
        let layout = Layout { installed: true, ..Layout::new(state.path()) };
        assert_eq!(layout.daemon_lock(), state.path().join("run/queue/borgcubed.lock"));
        let missing = layout.create_directories().unwrap_err();
        assert!(missing.to_string().contains("systemd-tmpfiles --create"), "{missing}");
        for directory in ["db", "log/jobs", "run/sessions"] {
            let directory = state.path().join(directory);
            fs::create_dir_all(&directory).unwrap();
            fs::set_permissions(&directory, Permissions::from_mode(0o2770)).unwrap();
        }
        layout.create_directories().unwrap();
        assert_eq!(fs::metadata(layout.db()).unwrap().permissions().mode() & 0o7777, 0o2770);
        layout.create_repository_directories("main").unwrap();
        assert!(layout.views("main").is_dir() && layout.index("main").is_dir() && !layout.credentials("main").exists());
    }

    #[test]
    fn the_environment_decides_between_embedded_and_installed() {
        assert_eq!(Layout::from_value(Some("/s".into())).unwrap(), Layout::new(Path::new("/s")));
        assert_eq!(Layout::from_value(None).unwrap().control_socket(), Path::new("/run/borgcube/control.sock"));
        assert_eq!(Layout::from_value(None).unwrap().db(), Path::new("/var/lib/borgcube/db"));
        let relative = Layout::from_value(Some("state".into())).unwrap_err();
        assert!(relative.to_string().contains("not an absolute path"), "{relative}");
        assert!(Layout::from_value(Some("".into())).is_err());
    }

    #[test]
    fn no_name_leaves_its_directory_and_no_two_names_meet() {
        let layout = Layout::new(Path::new("/s"));
        let hostile = ["..", ".", "", "../../etc", "a/b", "a%2Fb", "a\0b", ".hidden", "a", "a.b"];
        let paths: Vec<PathBuf> = hostile.iter().map(|name| layout.views(name)).collect();
        for (at, path) in paths.iter().enumerate() {
            assert_eq!(path.parent(), Some(Path::new("/s/views")), "{:?}", hostile[at]);
            assert!(!paths[..at].contains(path), "{path:?}");
        }
        assert_eq!(layout.views("a.b"), Path::new("/s/views/a.b"));
    }

    #[test]
    fn directories_are_private_and_open_ones_are_closed() {
        let temporary = tempfile::tempdir().unwrap();
        let layout = Layout::new(&temporary.path().join("deep/state"));
        layout.create_directories().unwrap();
        fs::set_permissions(layout.db(), Permissions::from_mode(0o755)).unwrap();
        layout.create_directories().unwrap();
        layout.create_repository_directories("main").unwrap();
        let sockets = layout.repository_socket("x");
        let links = layout.session_link("x");
        let logs = layout.job_log(1);
        for directory in [
            layout.state(),
            layout.run(),
            &layout.db(),
            &layout.credentials("main"),
            &layout.views("main"),
            &layout.index("main"),
            sockets.parent().unwrap(),
            links.parent().unwrap(),
            logs.parent().unwrap(),
        ] {
            assert_eq!(fs::metadata(directory).unwrap().permissions().mode() & 0o7777, 0o700, "{directory:?}");
        }
    }

    #[test]
    fn a_program_is_a_file_that_can_be_executed() {
        let temporary = tempfile::tempdir().unwrap();
        let (text, program) = (temporary.path().join("text"), temporary.path().join("program"));
        fs::write(&text, "").unwrap();
        fs::set_permissions(&text, Permissions::from_mode(0o644)).unwrap();
        fs::write(&program, "").unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        let candidates = [temporary.path().to_owned(), temporary.path().join("missing"), text, program.clone()];
        assert_eq!(first_program(candidates), Some(program));
        assert_eq!(sibling_program("no-such-program"), Path::new("no-such-program"));
        let own = env::current_exe().unwrap();
        assert_eq!(sibling_program(own.file_name().unwrap().to_str().unwrap()), own);
    }
}
