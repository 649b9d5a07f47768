//! Passphrases and keys: can the owner of a repository have them?

use super::finding::Finding;
use crate::context::shell_word;
use model::EncryptionMode;
use std::path::Path;
use unix::paths::Layout;

const CHECK: &str = "credentials";

/// A credential in the drop-in of a repository's owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its name: `passphrase` or `key`.
    pub name: String,
    /// Where it comes from.
    pub path: String,
    /// It is encrypted.
    pub encrypted: bool,
}

/// The credentials that a drop-in names. An empty value takes back what stood above it.
#[must_use]
pub fn drop_in(text: &str) -> Vec<Loaded> {
    let mut found: Vec<Loaded> = vec![];
    for line in text.lines().map(str::trim) {
        let (encrypted, value) = match line.split_once('=') {
            Some(("LoadCredentialEncrypted", value)) => (true, value),
            Some(("LoadCredential", value)) => (false, value),
            _ => continue,
        };
        match value.split_once(':') {
            _ if value.is_empty() => found.retain(|loaded| loaded.encrypted != encrypted),
            Some((name, path)) => found.push(Loaded { name: name.into(), path: path.into(), encrypted }),
            // systemd looks for it in its credential stores.
            None => {
                let store = if encrypted { "/etc/credstore.encrypted" } else { "/etc/credstore" };
                found.push(Loaded { name: value.into(), path: format!("{store}/{value}"), encrypted });
            }
        }
    }
    found
}

/// Whether what a mode needs is there. `outcome` tells for each credential why it cannot be loaded, if it cannot.
#[must_use]
pub fn installed(name: &str, url: &str, mode: EncryptionMode, drop_in: Option<&[Loaded]>, outcome: &[Option<String>]) -> Vec<Finding> {
    let Some(loaded) = drop_in else {
        let sentence = format!("repository {name} has no drop-in: systemd gives its owner neither its directory nor its secrets");
        let again = format!("borgcube repository edit {name} --url {}", shell_word(Path::new(url)));
        return vec![Finding::problem(CHECK, sentence).run(again)];
    };
    let give = |id: &str| match id {
        "key" => format!("borgcube repository edit {name} --key-file FILE"),
        _ => format!("borgcube repository edit {name} --passphrase-file FILE"),
    };
    let mut findings: Vec<Finding> = loaded
        .iter()
        .zip(outcome)
        .filter_map(|(credential, why)| {
            let why = why.as_ref()?;
            let sentence = format!("repository {name}: credential {} at {} cannot be loaded: {why}", credential.name, credential.path);
            let finding = Finding::problem(CHECK, sentence);
            let finding = match credential.encrypted {
                true => finding.mend("An encrypted credential belongs to the host that made it. From the copy that you keep elsewhere:"),
                false => finding.mend("From the copy that you keep elsewhere:"),
            };
            Some(match credential.name.as_str() {
                unix::paths::CREDENTIAL_SSH_KEY => finding.mend("Or with a new one, which its host has to let in:").run(format!(
                    "rm {} && borgcube repository edit {name} --url {}",
                    credential.path,
                    shell_word(Path::new(url))
                )),
                name => finding.run(give(name)),
            })
        })
        .collect();
    for needed in needs(mode) {
        if !loaded.iter().any(|credential| credential.name == needed) {
            let finding = Finding::problem(CHECK, format!("repository {name} ({mode}) has no credential {needed}"));
            findings.push(finding.mend("From the copy that you keep elsewhere:").run(give(needed)));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            CHECK,
            format!("repository {name}: {} can be loaded", crate::output::count(loaded.len() as u64, "credential")),
        ));
    }
    findings
}

/// A secret's file, which is root's alone.
#[must_use]
pub fn private(path: &str, uid: u32, mode: u32) -> Option<Finding> {
    if uid == 0 && mode & 0o077 == 0 {
        return None;
    }
    let sentence = format!("{path} has a secret in it and is not for root alone (owner {uid}, mode {:04o})", mode & 0o7777);
    let word = shell_word(Path::new(path));
    Some(Finding::problem(CHECK, sentence).run(format!("chown root:root {word} && chmod 0600 {word}")))
}

fn needs(mode: EncryptionMode) -> Vec<&'static str> {
    let mut needed = vec![];
    if mode.has_key() {
        needed.push("passphrase");
    }
    if mode.is_keyfile() {
        needed.push("key");
    }
    needed
}

/// The same for the embedded default, whose secrets are plain files.
#[must_use]
pub fn embedded(layout: &Layout, name: &str, mode: EncryptionMode) -> Vec<Finding> {
    let directory = layout.credentials(name);
    let mut findings = vec![];
    for needed in needs(mode) {
        let path = directory.join(needed);
        match unix::credentials::credential_in(&directory, needed) {
            Ok(Some(secret)) if !secret.is_empty() => {}
            Ok(_) => findings.push(
                Finding::problem(CHECK, format!("repository {name} ({mode}): {} is missing", path.display()))
                    .mend("Put it back from the copy that you keep elsewhere; see borgcube repository edit --help"),
            ),
            Err(error) => findings
                .push(Finding::problem(CHECK, format!("repository {name}: {error}")).run(format!("chmod 0600 {}", shell_word(&path)))),
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, format!("repository {name}: its secrets can be read")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn drop_ins_as_systemd_reads_them() {
        let text =
            "[Service]\nReadWritePaths=/srv/x\nLoadCredentialEncrypted=passphrase:/etc/credstore.encrypted/a\nLoadCredential=key\nnonsense";
        let found = drop_in(text);
        assert_eq!(found[0], Loaded { name: "passphrase".into(), path: "/etc/credstore.encrypted/a".into(), encrypted: true });
        assert_eq!(found[1], Loaded { name: "key".into(), path: "/etc/credstore/key".into(), encrypted: false });
        assert!(drop_in(&format!("{text}\nLoadCredentialEncrypted=\nLoadCredential=")).is_empty());
        assert!(drop_in("").is_empty());
    }

    #[test]
    fn what_is_missing_or_not_readable_is_named() {
        let loaded = drop_in("LoadCredentialEncrypted=passphrase:/x");
        let mode = EncryptionMode::KeyfileBlake2;
        let found = installed("main", "/x", mode, Some(&loaded), &[Some("wrong host key".into())]);
        assert!(found[0].message.contains("wrong host key") && found[1].message.contains("no credential key"), "{found:?}");
        assert_eq!(installed("main", "/x", EncryptionMode::Repokey, Some(&loaded), &[None])[0].verdict, Verdict::Ok);
        assert_eq!(found[1].run, ["borgcube repository edit main --key-file FILE"]);
        let lost = installed("main", "/srv/my repo", EncryptionMode::Repokey, None, &[]);
        assert_eq!((lost[0].verdict, lost[0].run[0].as_str()), (Verdict::Problem, "borgcube repository edit main --url '/srv/my repo'"));
        assert_eq!(private("/x", 0, 0o100600), None);
        assert!(private("/x", 0, 0o100640).is_some() && private("/x", 7, 0o100600).is_some());
        assert_eq!(installed("main", "/x", EncryptionMode::None, Some(&[]), &[])[0].verdict, Verdict::Ok);
    }

    #[test]
    fn embedded_secrets_are_private_files() {
        let state = tempfile::tempdir().unwrap();
        let layout = Layout::new(state.path());
        let mode = EncryptionMode::Keyfile;
        fs::create_dir_all(layout.credentials("main")).unwrap();
        assert_eq!(embedded(&layout, "main", mode).len(), 2);
        for name in ["passphrase", "key"] {
            let path = layout.credentials("main").join(name);
            fs::write(&path, "x").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        }
        let found = embedded(&layout, "main", mode);
        assert!(found.iter().all(|f| f.verdict == Verdict::Problem && f.mend[0].starts_with("chmod 0600")), "{found:?}");
        for name in ["passphrase", "key"] {
            fs::set_permissions(layout.credentials("main").join(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
        assert_eq!(embedded(&layout, "main", mode)[0].verdict, Verdict::Ok);
    }
}
