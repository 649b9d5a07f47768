//! Clients behind SSH: host keys, keys, and with `--client` a real connection both ways.

use super::finding::{Finding, Verdict};
use super::hostkeys::{self, Pinning, Target};
use super::machine;
use crate::context::Context;
use crate::road::{self, Back, Caller};
use crate::tools::Said;
use model::client::{BinaryUse, SshConnection};
use model::{Client, Connection, Timestamp};
use std::fs;
use unix::paths::Layout;

/// Where Borg's packages, pip and Borg's own binaries are put.
const BORGS: [&str; 4] = ["/usr/bin/borg", "/usr/local/bin/borg", "/usr/local/bin/borg-linux64", "/opt/borg/bin/borg"];

/// The host key of every client behind SSH, and the key this server has for it. Nothing is connected.
pub fn look(clients: &[Client], context: &Context) -> Vec<Finding> {
    let remote: Vec<_> = clients.iter().filter_map(|client| Some((client.name.as_str(), over_ssh(client)?))).collect();
    if remote.is_empty() {
        return vec![Finding::skipped("host-keys", "there is no client behind SSH")];
    }
    let caller = match road::caller(context) {
        Ok(caller) => caller,
        Err(error) => return vec![Finding::skipped("host-keys", error.message().to_owned())],
    };
    let mut findings = vec![];
    for (name, ssh) in remote {
        findings.push(match target(ssh, caller) {
            Some(target) => hostkeys::check(name, &target, &pinning(&target, caller)),
            None => {
                let program = ssh.rsh.as_deref().unwrap_or("ssh");
                Finding::skipped("host-keys", format!("client {name}: {program} does not tell its settings (ssh -G)"))
            }
        });
        findings.extend(identity(name, ssh));
    }
    findings
}

/// The clients behind SSH.
pub fn over_ssh(client: &Client) -> Option<&SshConnection> {
    match &client.connection {
        Connection::Ssh(ssh) => Some(ssh),
        Connection::Local { .. } => None,
    }
}

/// What ssh would do; None where it does not tell.
fn target(ssh: &SshConnection, caller: Caller) -> Option<Target> {
    let said = road::settings(ssh, caller).tool().run().ok().filter(|said| said.success)?;
    hostkeys::target(&said.out)
}

fn pinning(target: &Target, caller: Caller) -> Pinning {
    let has = |file: &&String| {
        let words = ["-F".to_owned(), target.lookup.clone(), "-f".to_owned(), (*file).clone()];
        road::as_caller("ssh-keygen", caller).args(words).tool().run().is_ok_and(|said| said.success)
    };
    Pinning { prefix: road::prefix(caller), known_in: target.files.iter().filter(has).cloned().collect() }
}

/// The private key to the client: there, and nobody else's business.
fn identity(name: &str, ssh: &SshConnection) -> Option<Finding> {
    use std::os::unix::fs::MetadataExt;
    let file = ssh.ssh_identity_file.as_deref()?;
    match fs::metadata(file) {
        // systemd's own directory of credentials: rights are given by an ACL, which looks like the group's.
        Ok(_) if file == unix::paths::SYSTEM_SSH_KEY => None,
        Ok(meta) if meta.mode() & 0o077 != 0 => Some(
            Finding::problem("ssh-keys", format!("client {name}: others may read {file}, so ssh does not use it"))
                .run(format!("chmod 0600 {file}")),
        ),
        Ok(_) => None,
        Err(error) if file == unix::paths::SYSTEM_SSH_KEY => {
            let finding = Finding::problem("ssh-keys", format!("client {name}: the server's key {file} is not there: {error}"));
            Some(finding.run("systemctl restart borgcubed").mend("If it was never made: borgcube setup makes it"))
        }
        Err(error) => Some(Finding::problem("ssh-keys", format!("client {name}: the key {file} cannot be used: {error}")).mend(format!(
            "borgcube client edit {name} --ssh-identity-file FILE, or make it again: ssh-keygen -t ed25519 -N '' -f {file}"
        ))),
    }
}

/// Connects to a client as a worker would, asks for its borg, and from there back to this server.
pub fn visit(client: &Client, context: &Context) -> Vec<Finding> {
    let name = client.name.as_str();
    let caller = match road::caller(context) {
        Ok(caller) => caller,
        Err(error) => return vec![Finding::skipped("connection", error.message().to_owned())],
    };
    let ssh = match &client.connection {
        Connection::Ssh(ssh) => ssh,
        Connection::Local { remote_borg, .. } => return vec![or_ours(local(name, remote_borg.as_deref(), caller), client, context)],
    };
    let before = now();
    let said = match road::run_there(ssh, caller, &road::borg_script(ssh)) {
        Ok(said) => said,
        Err(error) => return vec![Finding::problem("connection", format!("client {name}: {}", error.message()))],
    };
    let borg_missing = !said.success && (said.err.contains("not found") || said.ending.contains("127"));
    if !said.success && !borg_missing {
        return vec![unreachable(name, ssh, caller, &said)];
    }
    let mut findings = vec![Finding::ok("connection", format!("client {name} is reached as {}", ssh.remote))];
    findings.extend(road::clock_in(&said).and_then(|theirs| machine::clocks_apart(name, theirs, before, now())));
    let text = if said.success { said.out.clone() } else { said.reason() };
    let install = format!("On {name}: apt install borgbackup; for one in another place: borgcube client edit {name} --remote-borg PROGRAM");
    let mut borg = or_ours(machine::borg(&format!("client {name}"), &text, &install), client, context);
    if borg.verdict == Verdict::Problem
        && let Some(other) = other_borg(ssh, caller)
    {
        borg = borg.mend("Another one there fits:").run(format!("borgcube client edit {name} --remote-borg {other}"));
    }
    findings.push(borg);
    findings.push(back(name, ssh, caller, &context.layout));
    findings
}

/// A client whose backups use a borg of this server needs none that will do.
fn or_ours(borg: Finding, client: &Client, context: &Context) -> Finding {
    let unused = borg.verdict != Verdict::Problem || client.binary_use() == BinaryUse::Never;
    if unused || super::super::binary::names(&context.layout).is_empty() {
        return borg;
    }
    let name = &client.name;
    Finding::skipped(
        "borg",
        format!("client {name} has no borg that will do; its backups take one of this server (borgcube binary list), if one fits"),
    )
}

/// Why a client is not reached, and what to do.
fn unreachable(name: &str, ssh: &SshConnection, caller: Caller, said: &Said) -> Finding {
    let finding = Finding::problem("connection", format!("client {name} cannot be reached: {}", said.reason()));
    if let Some(target) = target(ssh, caller).filter(|_| road::refused_host_key(said)) {
        let pinning = pinning(&target, caller);
        return match pinning.known_in.is_empty() {
            true => hostkeys::check(name, &target, &pinning),
            false => hostkeys::changed(name, &target, &pinning),
        };
    }
    let public = ssh.ssh_identity_file.as_deref().and_then(|file| road::public_key(file, caller).ok());
    let finding = match public.filter(|_| road::refused_key(said)) {
        Some(public) => finding.mend("From wherever you can log in there, let the key in:").run(road::let_in(ssh, &public)),
        None => finding,
    };
    road::mend_there(said, ssh, caller).into_iter().fold(finding, Finding::mend)
}

/// A borg in one of the usual places of the client that fits, where the one that it is to use does not.
fn other_borg(ssh: &SshConnection, caller: Caller) -> Option<&'static str> {
    let said = road::run_there(ssh, caller, &road::borgs_script(&BORGS)).ok()?;
    let fits = |place: &str| {
        let line = said.out.lines().find_map(|line| line.strip_prefix(place)?.strip_prefix(": "));
        line.is_some_and(|line| machine::borg("", line, "").verdict == Verdict::Ok)
    };
    BORGS.into_iter().find(|place| fits(place))
}

fn now() -> i64 {
    Timestamp::now().0.div_euclid(1_000_000)
}

/// The record names the program, and whoever may change records is not root: as the caller, as a worker would run it.
fn local(name: &str, borg: Option<&str>, caller: Caller) -> Finding {
    let borg = borg.unwrap_or("borg");
    let mend = format!("apt install borgbackup, or borgcube client edit {name} --remote-borg PROGRAM");
    match road::as_caller(borg, caller).args(["--version"]).tool().run() {
        Ok(said) if said.success => machine::borg(&format!("client {name}"), &said.out, &mend),
        Ok(said) => machine::borg(&format!("client {name}"), &said.reason(), &mend),
        Err(error) => machine::borg(&format!("client {name}"), error.message(), &mend),
    }
}

/// From the client to this server.
pub fn back(name: &str, ssh: &SshConnection, caller: Caller, layout: &Layout) -> Finding {
    if ssh.road == model::client::Road::Carrier {
        return Finding::skipped("way-back", format!("client {name} needs no way back: the worker carries its stream"));
    }
    let said = match road::run_there(ssh, caller, &road::back_script(ssh, &host_keys(layout))) {
        Ok(said) => said,
        Err(error) => return Finding::problem("way-back", format!("client {name}: {}", error.message())),
    };
    match road::judge_back(&said, &ssh.server) {
        Back::Open { accepted: true } => Finding::ok("way-back", format!("client {name} reaches {} with its key", ssh.server)),
        Back::Open { accepted: false } if ssh.client_rsh.is_none() => {
            Finding::ok("way-back", format!("client {name} reaches {}; its key comes with each job", ssh.server))
        }
        Back::Open { accepted: false } => {
            Finding::problem("way-back", format!("client {name} reaches {}, but its key is not accepted", ssh.server))
                .mend("Its public key belongs into this server, with the forced command borgcube-proxy; see docs/install.md")
        }
        Back::Shut { why, mend } => Finding::problem("way-back", format!("client {name}: {why}")).mend(mend),
    }
}

/// The host keys of this server, as a job brings them to its client.
pub fn host_keys(layout: &Layout) -> Vec<String> {
    layout.host_key_directories().iter().map(|directory| host_keys_in(directory)).find(|keys| !keys.is_empty()).unwrap_or_default()
}

fn host_keys_in(directory: &std::path::Path) -> Vec<String> {
    let files = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "pub"));
    let words = |text: String| text.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    let mut keys: Vec<String> = files.filter_map(|file| fs::read_to_string(file).ok()).map(words).filter(|key| key.contains(' ')).collect();
    keys.sort();
    keys
}
