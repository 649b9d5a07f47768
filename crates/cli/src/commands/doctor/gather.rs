//! Looking at the machine. Nothing is judged here; what cannot be looked at is told with its reason.

use super::accounts::{self, Accounts};
use super::credentials::{self, Loaded};
use super::finding::{Finding, Verdict};
use super::machine::{self, Clock, Volume};
use super::places::{self, Expected, Found, Kind};
use super::{repositories, services, sshd};
use crate::commands::attention;
use crate::context::Context;
use crate::control::Control;
use crate::tools::Tool;
use model::{Client, Repository, Timestamp};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use unix::paths::{USER_REPOSITORY, USER_SSH};
use wire::control::{Call, LogEntries, Status};

/// What a running server tells.
#[derive(Debug, Default)]
pub struct Records {
    /// All of them.
    pub repositories: Vec<Repository>,
    /// All of them.
    pub clients: Vec<Client>,
    /// How many clients may come back at once.
    pub parallel: u32,
    /// The time of the newest entry of the transaction log.
    pub newest: Option<Timestamp>,
    /// What cannot wait.
    pub attention: attention::Facts,
}

/// Asks the server for what the checks need; the finding says whether it answered. When it does not, others tell why, and come before it.
pub fn records(context: &Context) -> (Records, Finding) {
    let asked = context.control().and_then(|mut control| Ok((ask(&mut control)?, control.call::<Status>(Call::GetStatus {})?)));
    match asked {
        Ok((records, status)) => (records, Finding::ok("server", format!("borgcubed {} answers", status.version))),
        Err(error) => {
            let finding = Finding::problem("server", error.message().to_owned());
            if context.state.is_none() && error.kind() == crate::error::Kind::Unreachable {
                let finding =
                    finding.mend("What is wrong above may be why; then:").run("systemctl restart borgcubed.socket borgcubed.service");
                return (Records::default(), finding);
            }
            (Records::default(), error.hints().iter().fold(finding, |finding, hint| finding.mend(hint.clone())))
        }
    }
}

fn ask(control: &mut Control) -> crate::error::Result<Records> {
    let settings = crate::commands::settings::get(control)?;
    let log: LogEntries = control.call(Call::GetLog { limit: 1 })?;
    let clients = crate::commands::client::all(control)?;
    let remote = clients.iter().filter(|client| super::clients::over_ssh(client).is_some()).count();
    Ok(Records {
        parallel: settings.limits.total.min(settings.limits.per_client.saturating_mul(u32::try_from(remote).unwrap_or(u32::MAX))),
        newest: log.entries.first().map(|entry| entry.time),
        repositories: crate::commands::repository::all(control)?,
        attention: attention::facts(control)?,
        clients,
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
    let installed = config.is_none();
    let mut tool = Tool::new("sshd").args(["-T", "-C", &format!("user={USER_SSH},host=client.invalid,addr=192.0.2.1")]);
    if let Some(config) = config {
        tool = tool.arg("-f").arg(config);
    }
    let said = match tool.run() {
        Ok(said) if said.success => said,
        Ok(said) if said.err.contains("Permission denied") || said.err.contains("no hostkeys available") && !is_root() => {
            return vec![Finding::skipped("sshd", "only root may ask sshd for its settings: run borgcube doctor as root")];
        }
        // Its directory in /run is there only while it runs.
        Ok(said) if said.err.contains("privilege separation directory") => {
            return vec![sshd::not_running("sshd does not run: no client can come back".to_owned())];
        }
        Ok(said) => {
            let finding = Finding::problem("sshd", format!("sshd cannot start with its settings: {}", said.reason()));
            return vec![finding.mend("sshd -t tells which line; correct it, then:").run("systemctl restart ssh")];
        }
        Err(error) => {
            let finding = Finding::problem("sshd", format!("there is no sshd: {}", error.message()));
            return vec![finding.run("apt-get install -y openssh-server")];
        }
    };
    let shadow = fs::read_to_string("/etc/shadow").ok();
    let entry = shadow.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix(USER_SSH)?.strip_prefix(':')));
    let settings = sshd::Settings::parse(&said.out);
    let around = sshd::Surroundings {
        parallel,
        locked: entry.map(|rest| rest.starts_with('!')),
        snippet: fs::read_to_string(sshd::CONFIG)
            .ok()
            .filter(|_| installed)
            .map(|text| (Path::new(sshd::SNIPPET).exists(), sshd::includes(&text))),
        listens: listens(&sshd::ports(&settings)).filter(|_| installed),
    };
    let mut findings = sshd::check(&settings, around);
    let chain = Path::new(sshd::COMMAND).ancestors().map(|path| {
        let fact = fs::metadata(path).ok().map(|meta| (meta.uid(), meta.mode()));
        (path.display().to_string(), fact)
    });
    match sshd::program(&chain.collect::<Vec<_>>()) {
        Some(finding) => findings.push(finding),
        None if installed && is_root() => findings.extend(answers()),
        None => {}
    }
    // That all is well is said first, and was said of the settings alone.
    if findings.iter().any(|finding| finding.verdict == Verdict::Problem) {
        findings.retain(|finding| finding.verdict != Verdict::Ok);
    }
    findings
}

/// Whether something listens at one of these ports; None where the kernel does not tell.
fn listens(ports: &[u16]) -> Option<bool> {
    let text = fs::read_to_string("/proc/net/tcp").ok()? + &fs::read_to_string("/proc/net/tcp6").unwrap_or_default();
    let heard = sshd::listening(&text);
    Some(ports.iter().any(|port| heard.contains(port)))
}

/// sshd's question, asked as sshd asks it, about a key that nobody has: the answer is nothing.
fn answers() -> Option<Finding> {
    const NOBODY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let wrong = |why: String| Finding::problem("sshd", format!("{} does not run as {}: {why}", sshd::COMMAND, accounts::USER_KEYS));
    match Tool::new(sshd::COMMAND).args([USER_SSH, "ssh-ed25519", NOBODY]).as_user(accounts::USER_KEYS).run() {
        Ok(said) if said.success => None,
        Ok(said) => Some(wrong(said.reason())),
        Err(error) => Some(wrong(error.message().to_owned())),
    }
}

/// Whether this process is root: it owns what only root can.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// The clock.
pub fn clock(newest: Option<Timestamp>) -> Vec<Finding> {
    let synchronised =
        match Tool::new("timedatectl").args(["show", "--property=NTPSynchronized", "--property=NTP", "--property=CanNTP"]).run() {
            Ok(said) if said.success => machine::synchronised(&said.out),
            Ok(said) => Err(said.reason()),
            Err(error) => Err(error.message().to_owned()),
        };
    let ahead = newest.map_or(0, |newest| newest.seconds_since(Timestamp::now()) as i64);
    let container = Tool::new("systemd-detect-virt").args(["--container", "--quiet"]).run().is_ok_and(|said| said.success);
    machine::clock(&Clock { synchronised, now: Timestamp::now().to_local(), ahead, container })
}

/// The file systems of the state and of every repository on this machine.
pub fn space(context: &Context, repositories: &[Repository]) -> Vec<Finding> {
    let mut wanted = vec![("the state".to_owned(), context.layout.state().to_owned())];
    let here = repositories.iter().filter(|repository| !repository.is_remote());
    wanted.extend(here.map(|repository| (format!("repository {}", repository.name), PathBuf::from(&repository.url))));
    let (mut volumes, mut findings) = (Vec::<(u64, Volume)>::new(), vec![]);
    for (what, path) in wanted {
        match volume(&what, &path) {
            Ok((device, volume)) => match volumes.iter_mut().find(|(known, _)| *known == device) {
                Some((_, known)) => known.what.push_str(&format!(", {what}")),
                None => volumes.push((device, volume)),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let finding = Finding::problem("space", format!("{what}: {} is missing", path.display()));
                findings.push(finding.mend("Is its file system mounted?").run("mount -a"));
            }
            Err(error) => {
                findings.push(Finding::skipped("space", format!("{what}: {} cannot be looked at: {error}", path.display())));
            }
        }
    }
    let volumes: Vec<Volume> = volumes.into_iter().map(|(_, volume)| volume).collect();
    findings.extend(machine::space(&volumes));
    findings
}

/// A file system by the number of its device.
fn volume(what: &str, path: &Path) -> std::io::Result<(u64, Volume)> {
    let (space, inodes) = (unix::machine::space(path)?, unix::machine::inodes(path)?);
    let device = fs::metadata(path)?.dev();
    let is_same = |path: &Path| fs::metadata(path).is_ok_and(|meta| meta.dev() == device);
    let root = path.ancestors().take_while(|above| is_same(above)).last().unwrap_or(path).to_owned();
    let bytes = (space.total, space.available);
    let packages = is_same(Path::new("/var/cache/apt/archives"));
    Ok((device, Volume { what: what.to_owned(), path: path.to_owned(), root, packages, bytes, inodes }))
}

/// Whether the files of the repositories on this machine are those of the user who writes them.
pub fn owners(context: &Context, accounts: &Accounts, repositories: &[Repository]) -> Vec<Finding> {
    let here: Vec<_> = repositories.iter().filter(|repository| !repository.is_remote()).collect();
    let (user, uid) = match &context.state {
        Some(state) => {
            let Ok(meta) = fs::metadata(state) else { return vec![] };
            (accounts.user_name(meta.uid()), meta.uid())
        }
        None => match accounts.user(USER_REPOSITORY) {
            Some(user) => (USER_REPOSITORY.to_owned(), user.uid),
            None => return vec![],
        },
    };
    here.into_iter().flat_map(|repository| repositories::check(repository.name.as_str(), Path::new(&repository.url), &user, uid)).collect()
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
    let written = files.iter().any(|path| path.ends_with("50-repository.conf")) || text.contains("LoadCredential");
    let loaded = written.then(|| credentials::drop_in(&text));
    let outcome: Vec<_> = loaded.iter().flatten().map(unusable).collect();
    let open =
        |loaded: &Loaded| fs::metadata(&loaded.path).ok().and_then(|meta| credentials::private(&loaded.path, meta.uid(), meta.mode()));
    let mut findings: Vec<_> = loaded.iter().flatten().filter_map(open).collect();
    findings.extend(credentials::installed(name, &repository.url, repository.encryption, loaded.as_deref(), &outcome));
    findings
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
