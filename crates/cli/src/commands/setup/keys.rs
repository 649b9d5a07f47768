//! Keys: the one to the clients, and the host keys of the clients.

use super::answers::{Ssh, Trust, question_at_terminal};
use crate::commands::doctor::hostkeys::{self, Target};
use crate::error::{Error, Kind, Result};
use crate::road::{self, Caller};
use model::client::SshConnection;
use std::path::Path;

/// Makes the key pair to the clients if it is not there; the result says whether it was made.
pub fn identity(file: &Path, caller: Caller) -> Result<bool> {
    let path = file.display().to_string();
    let comment = format!("borgcube@{}", unix::machine::hostname()?);
    if file == Path::new(unix::paths::SYSTEM_SSH_KEY) {
        return crate::installed::ensure_ssh_key(&comment);
    }
    // As the caller: root's own view of the file would not tell whether the workers can read it.
    let there = road::as_caller("test", caller).args(["-r", &path]).tool().run()?;
    if there.success {
        return Ok(false);
    }
    if file.exists() {
        return Err(Error::conflict(format!("{path} exists and cannot be read by who connects to clients")).hint(format!("ls -l {path}")));
    }
    if let Some(directory) = file.parent() {
        let made = road::as_caller("mkdir", caller).args(["-p", "-m", "0700", &directory.display().to_string()]).tool().run()?;
        if !made.success {
            return Err(Error::failed(format!("the directory of the SSH key cannot be made: {}", made.reason())));
        }
    }
    let said = road::as_caller("ssh-keygen", caller).args(["-q", "-t", "ed25519", "-N", "", "-C", &comment, "-f", &path]).tool().run()?;
    if !said.success {
        return Err(Error::failed(format!("the SSH key cannot be made: {}", said.reason())));
    }
    Ok(true)
}

/// How the host key came to be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pinned {
    /// It was known already, or the ssh program keeps them in its own way.
    Before,
    /// With this fingerprint, now.
    Now(String),
}

/// Sees to it that the client's host key is known to who connects to it.
pub fn pin(ssh: &Ssh, connection: &SshConnection, caller: Caller, asks: bool) -> Result<Pinned> {
    let said = road::settings(connection, caller).tool().run()?;
    let Some(target) = said.success.then(|| hostkeys::target(&said.out)).flatten() else {
        return Err(Error::usage(format!("ssh does not understand {}: {}", ssh.remote, said.reason())));
    };
    if is_known(&target, caller)? {
        return Ok(Pinned::Before);
    }
    let (host, port) = &target.address;
    let scanned =
        road::as_caller("ssh-keyscan", caller).args(["-T", "15", "-t", "ed25519,ecdsa,rsa", "-p", &port.to_string(), host]).tool().run()?;
    let lines: Vec<&str> = scanned.out.lines().filter(|line| !line.starts_with('#') && line.split_whitespace().count() >= 3).collect();
    if lines.is_empty() {
        return Err(Error::failed(format!("{host} port {port} shows no host key: {}", scanned.reason()))
            .hint("Is the host up, and does its sshd listen there?"));
    }
    let prints = fingerprints(&lines, caller)?;
    let chosen = trusted(&ssh.trust, &ssh.remote, &prints, asks)?;
    let pinned: String = lines
        .iter()
        .zip(&prints)
        .filter(|(_, print)| chosen.contains(print))
        .map(|(line, _)| {
            let key: Vec<_> = line.split_whitespace().skip(1).take(2).collect();
            format!("{} {}\n", target.lookup, key.join(" "))
        })
        .collect();
    let file = target
        .files
        .first()
        .ok_or_else(|| Error::failed("ssh has no file for known host keys").hint("See UserKnownHostsFile in ssh_config(5)."))?;
    let script = "umask 077; mkdir -p \"$(dirname \"$1\")\" && cat >>\"$1\"";
    let written = road::as_caller("sh", caller).args(["-c", script, "sh", file]).tool().input(pinned.as_bytes()).run()?;
    if !written.success {
        return Err(Error::failed(format!("the host key cannot be written to {file}: {}", written.reason())));
    }
    Ok(Pinned::Now(chosen.join(", ")))
}

fn is_known(target: &Target, caller: Caller) -> Result<bool> {
    for file in &target.files {
        let words = ["-F".to_owned(), target.lookup.clone(), "-f".to_owned(), file.clone()];
        if road::as_caller("ssh-keygen", caller).args(words).tool().run()?.success {
            return Ok(true);
        }
    }
    Ok(false)
}

/// One for each line of `ssh-keyscan`.
fn fingerprints(lines: &[&str], caller: Caller) -> Result<Vec<String>> {
    let mut prints = vec![];
    for line in lines {
        let said = road::as_caller("ssh-keygen", caller).args(["-l", "-f", "-"]).tool().input(format!("{line}\n").as_bytes()).run()?;
        let print = said.out.split_whitespace().nth(1).filter(|word| word.starts_with("SHA256:"));
        prints.push(
            print
                .ok_or_else(|| Error::failed(format!("ssh-keyscan shows a key that ssh-keygen does not understand: {}", said.reason())))?
                .to_owned(),
        );
    }
    Ok(prints)
}

/// Which of the fingerprints are trusted.
fn trusted(trust: &Trust, remote: &str, prints: &[String], asks: bool) -> Result<Vec<String>> {
    match trust {
        Trust::AsItIs => Ok(prints.to_vec()),
        Trust::Fingerprint(wanted) => {
            let chosen: Vec<_> = prints.iter().filter(|print| *print == wanted).cloned().collect();
            if chosen.is_empty() {
                return Err(Error::new(Kind::Conflict, format!("{remote} has no host key {wanted}, but {}", prints.join(", ")))
                    .hint("Either the fingerprint is wrong, or somebody stands between this server and the client."));
            }
            Ok(chosen)
        }
        Trust::Ask if asks => {
            let question = format!(
                "The host key of {remote} is not known yet. Its fingerprints:\n  {}\nCompare with: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub on that host. Trust them (yes/no)",
                prints.join("\n  ")
            );
            match question_at_terminal(&question, "no")?.as_str() {
                "yes" | "y" => Ok(prints.to_vec()),
                _ => Err(Error::new(Kind::Interrupted, format!("the host key of {remote} was not trusted"))),
            }
        }
        Trust::Ask => Err(Error::usage(format!("the host key of {remote} is not known"))
            .hint(format!("Its fingerprints now: {}", prints.join(", ")))
            .hint("Compare them with: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub on that host; then add --host-key FINGERPRINT, or --accept-host-key.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_keys_are_trusted_only_as_said() {
        let prints = ["SHA256:a".to_owned(), "SHA256:b".to_owned()];
        let of = |trust: Trust| trusted(&trust, "root@web1", &prints, false);
        assert_eq!(of(Trust::Fingerprint("SHA256:b".into())).unwrap(), ["SHA256:b"]);
        assert_eq!(of(Trust::AsItIs).unwrap().len(), 2);
        let error = of(Trust::Fingerprint("SHA256:c".into())).unwrap_err();
        assert!(error.message().contains("SHA256:a") && error.kind() == Kind::Conflict);
        let error = of(Trust::Ask).unwrap_err();
        assert!(error.hints()[0].contains("SHA256:a") && error.hints()[1].contains("--host-key"), "{error:?}");
    }
}
