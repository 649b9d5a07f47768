//! Directories, files and sockets: are they there, whose are they, who may do what.

use super::accounts::Accounts;
use super::finding::{Finding, or_ok};
use crate::context::shell_word;
use std::path::{Path, PathBuf};
use unix::paths::{Layout, USER_DAEMON, USER_SSH};

/// What a path should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A file.
    File,
    /// A socket.
    Socket,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Directory => "directory",
            Kind::File => "file",
            Kind::Socket => "socket",
        }
    }
}

/// How a path should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Where.
    pub path: PathBuf,
    /// What.
    pub kind: Kind,
    /// Its permissions. Those that it has beyond them are a problem, missing ones as well.
    pub mode: u32,
    /// Its owner; None: whoever.
    pub user: Option<String>,
    /// Its group; None: whichever.
    pub group: Option<String>,
}

/// How a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It is not there.
    Missing,
    /// It cannot be looked at, and why.
    Hidden(String),
    /// It is there.
    There {
        /// What it is; None: something else altogether.
        kind: Option<Kind>,
        /// Its permissions.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

/// The package's tmpfiles.d: the one place that says how things should be.
const TMPFILES: &str = include_str!("../../../../../systemd/tmpfiles.d/borgcube.conf");

/// The directories and files of an installed server, as its tmpfiles.d makes them.
#[must_use]
pub fn installed() -> Vec<Expected> {
    TMPFILES.lines().filter_map(tmpfile).collect()
}

fn tmpfile(line: &str) -> Option<Expected> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let [kind, path, mode, user, group, ..] = fields[..] else { return None };
    let kind = match kind {
        "d" => Kind::Directory,
        "f" => Kind::File,
        _ => return None,
    };
    let mode = u32::from_str_radix(mode, 8).ok()?;
    Some(Expected { path: path.into(), kind, mode, user: Some(user.into()), group: Some(group.into()) })
}

/// The sockets of an installed server.
#[must_use]
pub fn installed_sockets(layout: &Layout, repositories: &[String]) -> Vec<Expected> {
    let socket =
        |path: PathBuf, mode, group: Option<&str>| Expected { path, kind: Kind::Socket, mode, user: None, group: group.map(str::to_owned) };
    let mut sockets =
        vec![socket(layout.control_socket(), 0o660, Some(USER_DAEMON)), socket(layout.session_socket(), 0o660, Some(USER_SSH))];
    sockets.extend(repositories.iter().map(|name| socket(layout.repository_socket(name), 0o666, None)));
    sockets
}

/// Everything of the embedded default: one user, and nobody else.
#[must_use]
pub fn embedded(layout: &Layout, user: &str, repositories: &[String]) -> (Vec<Expected>, Vec<Expected>) {
    let place = |path: PathBuf, kind, mode| Expected { path, kind, mode, user: Some(user.into()), group: None };
    let state = layout.state();
    let directories = ["db", "credentials", "views", "index", "log/jobs", "run", "run/repositories", "run/sessions"];
    let places = directories.map(|name| place(state.join(name), Kind::Directory, 0o700)).into_iter().collect();
    let mut sockets = vec![place(layout.control_socket(), Kind::Socket, 0o600), place(layout.session_socket(), Kind::Socket, 0o600)];
    sockets.extend(repositories.iter().map(|name| place(layout.repository_socket(name), Kind::Socket, 0o600)));
    (places, sockets)
}

/// Compares; `tmpfiles` is the command that makes directories that are missing.
#[must_use]
pub fn check(name: &'static str, pairs: &[(Expected, Found)], accounts: &Accounts, tmpfiles: Option<&str>) -> Vec<Finding> {
    let findings = pairs.iter().flat_map(|(expected, found)| judge(name, expected, found, accounts, tmpfiles)).collect();
    or_ok(name, findings, format!("{} with the right owners and permissions", crate::output::count(pairs.len() as u64, "path")))
}

fn judge(name: &'static str, expected: &Expected, found: &Found, accounts: &Accounts, tmpfiles: Option<&str>) -> Vec<Finding> {
    let Expected { path, kind, mode: wanted, user, group } = expected;
    let shown = path.display();
    let (mode, uid, gid) = match found {
        Found::Missing => return vec![missing(name, expected, tmpfiles)],
        Found::Hidden(why) => return vec![Finding::skipped(name, format!("{shown} cannot be looked at: {why}"))],
        Found::There { kind: is, .. } if *is != Some(*kind) => {
            let sentence = format!("{shown} is no {}", kind.word());
            return vec![Finding::problem(name, sentence).mend(format!("Look at it (ls -ld {0}) and move it away", shell_word(path)))];
        }
        Found::There { mode, uid, gid, .. } => (mode & 0o7777, *uid, *gid),
    };
    let mut findings = vec![];
    let (owner, owners) = (accounts.user_name(uid), accounts.group_name(gid));
    if user.as_ref().is_some_and(|user| *user != owner) || group.as_ref().is_some_and(|group| *group != owners) {
        let should = format!("{}:{}", user.as_deref().unwrap_or_default(), group.as_deref().unwrap_or_default());
        let should = should.trim_end_matches(':');
        let sentence = format!("{shown} belongs to {owner}:{owners} and should belong to {should}");
        findings.push(Finding::problem(name, sentence).run(format!("chown {should} {}", shell_word(path))));
    }
    if mode != *wanted {
        let why = if mode & !wanted & 0o7 != 0 {
            ": others have rights that they should not have"
        } else if wanted & !mode != 0 {
            ": BorgCube's own processes may be locked out"
        } else {
            ""
        };
        let sentence = format!("{shown} has mode {mode:04o} and should have {wanted:04o}{why}");
        findings.push(Finding::problem(name, sentence).run(format!("chmod {wanted:04o} {}", shell_word(path))));
    }
    findings
}

fn missing(name: &'static str, expected: &Expected, tmpfiles: Option<&str>) -> Finding {
    let finding = Finding::problem(name, format!("{} {} is missing", expected.kind.word(), expected.path.display()));
    match (expected.kind, tmpfiles) {
        (Kind::Directory | Kind::File, Some(command)) => finding.run(command),
        (Kind::Socket, Some(_)) => finding.run(match expected.path.file_stem().and_then(|stem| stem.to_str()) {
            Some("control") => "systemctl restart borgcubed.socket".to_owned(),
            Some("session") => "systemctl restart borgcube-session.socket".to_owned(),
            other => format!("systemctl enable --now borgcube-repositoryd@{}.socket", other.unwrap_or("NAME")),
        }),
        (_, None) => finding.mend("Start borgcube up again: it makes what is missing"),
    }
}

/// The paths of listening Unix sockets in the text of `/proc/net/unix`.
#[must_use]
pub fn listening(proc_net_unix: &str) -> Vec<PathBuf> {
    // Flags: 0x10000 is __SO_ACCEPTCON.
    let path = |line: &str| {
        let mut fields = line.split_whitespace();
        let flags = u32::from_str_radix(fields.nth(3)?, 16).ok()?;
        let path = fields.nth(3)?;
        (flags & 0x1_0000 != 0).then(|| PathBuf::from(path))
    };
    proc_net_unix.lines().filter_map(path).collect()
}

/// A socket's file outlives its process.
#[must_use]
pub fn nobody_listens(name: &'static str, path: &Path, unit: &str) -> Finding {
    Finding::problem(name, format!("nobody listens at {}", path.display()))
        .run(format!("systemctl restart {unit}"))
        .mend(format!("systemctl status {unit} tells more"))
}

#[cfg(test)]
mod tests {
    use super::super::accounts::tests::{GROUP, PASSWD};
    use super::super::finding::Verdict;
    use super::*;

    fn there(kind: Kind, mode: u32, uid: u32, gid: u32) -> Found {
        Found::There { kind: Some(kind), mode, uid, gid }
    }

    fn accounts() -> Accounts {
        Accounts::parse(PASSWD, GROUP)
    }

    fn find(found: Found) -> Vec<Finding> {
        let expected = installed().remove(1);
        assert_eq!(expected.path, Path::new("/var/lib/borgcube/db"));
        check("directories", &[(expected, found)], &accounts(), Some("TMPFILES"))
    }

    #[test]
    fn the_package_says_how_things_should_be() {
        let lines = TMPFILES.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()).count();
        assert_eq!(installed().len(), lines, "a line of tmpfiles.d is not understood");
        assert!(installed().iter().any(|e| e.kind == Kind::File && e.path.ends_with("db/lock.mdb") && e.mode == 0o660));
        assert_eq!(tmpfile("d /x"), None);
        assert_eq!(tmpfile("d /x rwx root root -"), None);
    }

    #[test]
    fn as_it_should_be() {
        assert_eq!(find(there(Kind::Directory, 0o2770, 990, 994))[0].verdict, Verdict::Ok);
    }

    #[test]
    fn what_is_wrong_is_mended_by_a_command() {
        let found = find(there(Kind::Directory, 0o755, 0, 0));
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].mend, ["chown borgcube:borgcube-db /var/lib/borgcube/db"]);
        assert_eq!(found[1].mend, ["chmod 2770 /var/lib/borgcube/db"]);
        assert!(found[1].message.contains("others have rights"), "{}", found[1].message);
        assert!(find(there(Kind::Directory, 0o0700, 990, 994))[0].message.contains("locked out"));
        assert_eq!(find(Found::Missing)[0].mend, ["TMPFILES"]);
        assert!(find(there(Kind::File, 0o2770, 990, 994))[0].message.contains("is no directory"));
        assert_eq!(find(Found::Hidden("permission denied".into()))[0].verdict, Verdict::Skipped);
        assert!(find(there(Kind::Directory, 0o2770, 4242, 994))[0].message.contains("belongs to 4242:borgcube-db"));
    }

    #[test]
    fn every_socket_has_its_unit() {
        let sockets = installed_sockets(&Layout::system(), &["main".into()]);
        let mend: Vec<_> =
            sockets.iter().map(|s| judge("sockets", s, &Found::Missing, &accounts(), Some("x"))[0].mend[0].clone()).collect();
        assert_eq!(mend[0], "systemctl restart borgcubed.socket");
        assert_eq!(mend[1], "systemctl restart borgcube-session.socket");
        assert_eq!(mend[2], "systemctl enable --now borgcube-repositoryd@main.socket");
    }

    #[test]
    fn embedded_is_one_user_and_nobody_else() {
        let (places, sockets) = embedded(&Layout::new(Path::new("/s")), "borgcube-repo", &["main".into()]);
        assert_eq!(sockets[2].path, Path::new("/s/run/repositories/main.sock"));
        let db = places[0].clone();
        let found = check("directories", &[(db, there(Kind::Directory, 0o750, 990, 990))], &accounts(), None);
        assert_eq!(found[0].mend, ["chown borgcube-repo /s/db"]);
        assert_eq!(found[1].mend, ["chmod 0700 /s/db"]);
    }

    #[test]
    fn who_listens_according_to_the_kernel() {
        let text = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 20613 /run/borgcube/control.sock\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 20613 /run/borgcube/session.sock\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 20613\nnonsense\n\n";
        assert_eq!(listening(text), [PathBuf::from("/run/borgcube/control.sock")]);
        assert!(listening("").is_empty());
    }
}
