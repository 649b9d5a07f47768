//! Looking at the machine. Nothing is judged here; what cannot be looked at is told with its reason.

use super::accounts::{self, Accounts};
use super::credentials::{self, Loaded};
use super::finding::Finding;
use super::machine::{self, Clock, Volume};
use super::places::{self, Expected, Found, Kind};
use super::{services, sshd};
use crate::context::Context;
use crate::control::Control;
use crate::tools::Tool;
use model::{Client, Repository, Timestamp};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use unix::paths::USER_SSH;
use wire::control::{Call, LogEntries, Status};

/// What a running server tells.
#[derive(Debug, Default)]
pub struct Records {
    /// All of them.
    pub repositories: Vec<Repository>,
    /// All of them.
    pub clients: Vec<Client>,
    /// How many jobs may run at once.
    pub parallel: u32,
    /// The time of the newest entry of the transaction log.
    pub newest: Option<Timestamp>,
}

/// Asks the server for what the checks need; the finding says whether it answered.
pub fn records(context: &Context) -> (Records, Finding) {
    let asked = context.control().and_then(|mut control| Ok((ask(&mut control)?, control.call::<Status>(Call::GetStatus {})?)));
    match asked {
        Ok((records, status)) => (records, Finding::ok("server", format!("borgcubed {} answers", status.version))),
        Err(error) => {
            let finding = Finding::problem("server", error.message().to_owned());
            (Records::default(), error.hints().iter().fold(finding, |finding, hint| finding.mend(hint.clone())))
        }
    }
}

fn ask(control: &mut Control) -> crate::error::Result<Records> {
    let settings = crate::commands::settings::get(control)?;
    let log: LogEntries = control.call(Call::GetLog { limit: 1 })?;
    Ok(Records {
        repositories: crate::commands::repository::all(control)?,
        clients: crate::commands::client::all(control)?,
        parallel: settings.limits.total,
        newest: log.entries.first().map(|entry| entry.time),
    })
}

/// The machine's accounts.
pub fn accounts() -> Accounts {
    // Without them every owner is a number, which the comparison tells.
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    Accounts::parse(&read("/etc/passwd"), &read("/etc/group"))
}

/// How a path is.
pub fn look(expected: Expected) -> (Expected, Found) {
    let found = match fs::symlink_metadata(&expected.path) {
        Ok(meta) => {
            let kind = [(meta.is_dir(), Kind::Directory), (meta.is_file(), Kind::File), (meta.file_type().is_socket(), Kind::Socket)];
            let kind = kind.into_iter().find(|(is, _)| *is).map(|(_, kind)| kind);
            Found::There { kind, mode: meta.mode() & 0o7777, uid: meta.uid(), gid: meta.gid() }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Found::Missing,
        Err(error) => Found::Hidden(error.to_string()),
    };
    (expected, found)
}

/// Directories and sockets, compared with what they should be.
pub fn places(context: &Context, accounts: &Accounts, repositories: &[String]) -> Vec<Finding> {
    let (paths, sockets, tmpfiles) = match &context.state {
        Some(state) => {
            let user = fs::metadata(state).map(|meta| accounts.user_name(meta.uid())).unwrap_or_default();
            let (paths, sockets) = places::embedded(&context.layout, &user, repositories);
            (paths, sockets, None)
        }
        None => {
            let sockets = places::installed_sockets(&context.layout, repositories);
            (places::installed(), sockets, Some("systemd-tmpfiles --create /usr/lib/tmpfiles.d/borgcube.conf"))
        }
    };
    let paths: Vec<_> = paths.into_iter().map(look).collect();
    let sockets: Vec<_> = sockets.into_iter().map(look).collect();
    let mut findings = places::check("directories", &paths, accounts, tmpfiles);
    findings.extend(places::check("sockets", &sockets, accounts, tmpfiles));
    if tmpfiles.is_some() {
        findings.extend(deaf(&sockets));
    }
    findings
}

/// Sockets of an installed server that nobody listens at; systemd itself listens at all of them.
fn deaf(sockets: &[(Expected, Found)]) -> Vec<Finding> {
    let Ok(text) = fs::read_to_string("/proc/net/unix") else {
        return vec![Finding::skipped("sockets", "who listens is not known: /proc/net/unix cannot be read")];
    };
    let heard = places::listening(&text);
    let there = sockets.iter().filter(|(_, found)| matches!(found, Found::There { .. })).map(|(expected, _)| &expected.path);
    let unit = |path: &Path| match path.file_stem().and_then(|stem| stem.to_str()) {
        Some("control") => "borgcubed.socket".to_owned(),
        Some("session") => "borgcube-session.socket".to_owned(),
        other => format!("borgcube-repositoryd@{}.socket", other.unwrap_or("NAME")),
    };
    there.filter(|path| !heard.contains(path)).map(|path| places::nobody_listens("sockets", path, &unit(path))).collect()
}

/// The units, if systemd runs this machine.
pub fn units(repositories: &[String]) -> Vec<Finding> {
    if !Path::new("/run/systemd/system").exists() {
        return vec![Finding::skipped("units", "systemd does not run on this machine")];
    }
    let expected = services::expected(repositories);
    let show =
        Tool::new("systemctl").arg("show").arg(format!("--property={}", services::PROPERTIES)).args(expected.iter().map(|(name, _)| name));
    let failed = Tool::new("systemctl").args(["list-units", "--failed", "--plain", "--no-legend", "borgcube*"]);
    match (show.run(), failed.run()) {
        (Ok(show), Ok(failed)) if show.success => {
            let failed: Vec<_> = failed.out.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
            services::check(&expected, &services::parse(&show.out), &failed)
        }
        (Ok(said), _) => vec![Finding::skipped("units", format!("systemctl: {}", said.reason()))],
        (Err(error), _) => vec![Finding::skipped("units", error.message().to_owned())],
    }
}

/// What sshd would do; only root may ask.
pub fn sshd(parallel: u32, config: Option<&Path>) -> Vec<Finding> {
    let mut tool = Tool::new("sshd").args(["-T", "-C", &format!("user={USER_SSH},host=client.invalid,addr=192.0.2.1")]);
    if let Some(config) = config {
        tool = tool.arg("-f").arg(config);
    }
    let said = match tool.run() {
        Ok(said) if said.success => said,
        Ok(said) if said.err.contains("Permission denied") || said.err.contains("no hostkeys available") && !is_root() => {
            return vec![Finding::skipped("sshd", "only root may ask sshd for its settings: run borgcube doctor as root")];
        }
        Ok(said) => {
            let finding = Finding::problem("sshd", format!("sshd cannot start with its settings: {}", said.reason()));
            return vec![finding.mend("sshd -t tells which line; correct it, then: systemctl restart ssh")];
        }
        Err(error) => {
            let finding = Finding::problem("sshd", format!("there is no sshd: {}", error.message()));
            return vec![finding.mend("apt install openssh-server")];
        }
    };
    let shadow = fs::read_to_string("/etc/shadow").ok();
    let entry = shadow.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix(USER_SSH)?.strip_prefix(':')));
    let around = sshd::Surroundings { parallel, locked: entry.map(|rest| rest.starts_with('!')) };
    let mut findings = sshd::check(&sshd::Settings::parse(&said.out), around);
    let chain = Path::new(sshd::COMMAND).ancestors().map(|path| {
        let fact = fs::metadata(path).ok().map(|meta| (meta.uid(), meta.mode()));
        (path.display().to_string(), fact)
    });
    findings.extend(sshd::program(&chain.collect::<Vec<_>>()));
    findings
}

/// Whether this process is root: it owns what only root can.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// The clock.
pub fn clock(newest: Option<Timestamp>) -> Vec<Finding> {
    let synchronised = match Tool::new("timedatectl").args(["show", "--property=NTPSynchronized"]).run() {
        Ok(said) if said.success => machine::synchronised(&said.out),
        Ok(said) => Err(said.reason()),
        Err(error) => Err(error.message().to_owned()),
    };
    let ahead = newest.map_or(0, |newest| newest.seconds_since(Timestamp::now()) as i64);
    machine::clock(&Clock { synchronised, ahead })
}

/// The file systems of the state and of every repository on this machine.
pub fn space(context: &Context, repositories: &[Repository]) -> Vec<Finding> {
    let mut wanted = vec![("the state".to_owned(), context.layout.state().to_owned())];
    let here = repositories.iter().filter(|repository| !repository.is_remote());
    wanted.extend(here.map(|repository| (format!("repository {}", repository.name), PathBuf::from(&repository.url))));
    let (mut volumes, mut findings) = (vec![], vec![]);
    for (what, path) in wanted {
        match (unix::machine::space(&path), unix::machine::inodes(&path)) {
            (Ok(space), Ok(inodes)) => volumes.push(Volume { what, path, bytes: (space.total, space.available), inodes }),
            (Err(error), _) | (_, Err(error)) if error.kind() == ErrorKind::NotFound => {
                let finding = Finding::problem("space", format!("{what}: {} is missing", path.display()));
                findings.push(finding.mend("Is its file system mounted?"));
            }
            (Err(error), _) | (_, Err(error)) => {
                findings.push(Finding::skipped("space", format!("{what}: {} cannot be looked at: {error}", path.display())));
            }
        }
    }
    findings.extend(machine::space(&volumes));
    findings
}

/// The server's own borg.
pub fn borg() -> Finding {
    let borg = unix::paths::borg_program();
    let mend = "apt install borgbackup, or name another one with BORGCUBE_BORG";
    match Tool::new(&borg).arg("--version").run() {
        Ok(said) if said.success => machine::borg("this server", &said.out, mend),
        Ok(said) => machine::borg("this server", &said.reason(), mend),
        Err(error) => machine::borg("this server", error.message(), mend),
    }
}

/// Secrets of the repositories.
pub fn credentials(context: &Context, repositories: &[Repository]) -> Vec<Finding> {
    repositories
        .iter()
        .flat_map(|repository| {
            let name = repository.name.as_str();
            match &context.state {
                Some(_) => credentials::embedded(&context.layout, name, repository.encryption),
                None => installed_credentials(repository),
            }
        })
        .collect()
}

fn installed_credentials(repository: &Repository) -> Vec<Finding> {
    let name = repository.name.as_str();
    if !is_root() {
        return vec![Finding::skipped(
            "credentials",
            format!("repository {name}: only root may look at its secrets: run borgcube doctor as root"),
        )];
    }
    let directory = PathBuf::from(format!("/etc/systemd/system/borgcube-repositoryd@{name}.service.d"));
    let mut files: Vec<_> = fs::read_dir(&directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    files.sort();
    let text: String = files.iter().filter_map(|path| fs::read_to_string(path).ok()).collect::<Vec<_>>().join("\n");
    let loaded = (!files.is_empty()).then(|| credentials::drop_in(&text));
    let outcome: Vec<_> = loaded.iter().flatten().map(unusable).collect();
    credentials::installed(name, repository.encryption, loaded.as_deref(), &outcome)
}

/// Why a credential cannot be loaded. What is in it goes nowhere.
fn unusable(loaded: &Loaded) -> Option<String> {
    if !loaded.encrypted {
        return fs::File::open(&loaded.path).err().map(|error| error.to_string());
    }
    let script = "exec systemd-creds decrypt --name=\"$1\" \"$2\" - >/dev/null";
    match Tool::new("sh").args(["-c", script, "sh", &loaded.name, &loaded.path]).run() {
        Ok(said) if said.success => None,
        Ok(said) => Some(said.reason()),
        Err(error) => Some(error.message().to_owned()),
    }
}

/// Users and groups.
pub fn people(accounts: &Accounts) -> Vec<Finding> {
    accounts::check(accounts)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn paths_are_looked_at_without_following_links() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        let expected = Expected { path: path.clone(), kind: Kind::Directory, mode: 0o700, user: None, group: None };
        assert_eq!(look(expected.clone()).1, Found::Missing);
        std::os::unix::fs::symlink("/", &path).unwrap();
        assert!(matches!(look(expected).1, Found::There { kind: None, .. }));
    }

    /// The real sshd of this machine, with settings as the package installs them and as a person may break them.
    #[test]
    fn a_real_sshd_is_asked() {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("key");
        let made = Tool::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).run().unwrap();
        assert!(made.success, "{made:?}");
        let config = directory.path().join("config");
        let snippet = include_str!("../../../../../systemd/sshd_config.d/borgcube.conf");
        let ask = |before: &str, snippet: &str| {
            fs::write(&config, format!("HostKey {}\nMaxStartups 100:30:500\n{before}\n{snippet}", key.display())).unwrap();
            sshd(16, Some(&config))
                .into_iter()
                .filter(|f| !f.message.contains("libexec/borgcube/borgcube-authorized-keys is missing"))
                .collect::<Vec<_>>()
        };
        let good = ask("", snippet);
        assert!(good.iter().all(|f| f.verdict <= Verdict::Note), "{good:?}");
        let without = ask("", "");
        assert!(without.iter().any(|f| f.message.contains("not in effect")), "{without:?}");
        let other = ask("AllowUsers root", snippet);
        assert!(other.iter().any(|f| f.message.contains("AllowUsers")), "{other:?}");
        let broken = ask("Nonsense yes", snippet);
        assert!(broken.iter().any(|f| f.message.contains("cannot start")), "{broken:?}");
    }
}
