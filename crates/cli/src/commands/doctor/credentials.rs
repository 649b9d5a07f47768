//! Passphrases and keys: can the owner of a repository have them?

use super::finding::Finding;
use model::EncryptionMode;
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
pub fn installed(name: &str, mode: EncryptionMode, drop_in: Option<&[Loaded]>, outcome: &[Option<String>]) -> Vec<Finding> {
    let Some(loaded) = drop_in else {
        return vec![
            Finding::problem(CHECK, format!("repository {name} has no drop-in: systemd gives its owner neither its directory nor its secrets"))
                .mend(format!("As root: borgcube repository add writes it; see borgcube repository add --help and systemctl cat borgcube-repositoryd@{name}")),
        ];
    };
    let mut findings: Vec<Finding> = loaded
        .iter()
        .zip(outcome)
        .filter_map(|(credential, why)| {
            let why = why.as_ref()?;
            let sentence = format!("repository {name}: credential {} at {} cannot be loaded: {why}", credential.name, credential.path);
            Some(Finding::problem(CHECK, sentence).mend("An encrypted credential belongs to the host that made it: encrypt the passphrase or key again here, from the copy you keep elsewhere, with: systemd-creds encrypt --name=NAME FILE PATH"))
        })
        .collect();
    for needed in needs(mode) {
        if !loaded.iter().any(|credential| credential.name == needed) {
            findings.push(
                Finding::problem(CHECK, format!("repository {name} ({mode}) has no credential {needed}"))
                    .mend(format!("systemctl cat borgcube-repositoryd@{name} shows what it has")),
            );
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
                    .mend(format!("Put it back from the copy you keep elsewhere: borgcube repository edit {name} --help")),
            ),
            Err(error) => findings.push(
                Finding::problem(CHECK, format!("repository {name}: {error}"))
                    .mend(format!("chmod 0600 {}", crate::context::shell_word(&path))),
            ),
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
        let found = installed("main", mode, Some(&loaded), &[Some("wrong host key".into())]);
        assert!(found[0].message.contains("wrong host key") && found[1].message.contains("no credential key"), "{found:?}");
        assert_eq!(installed("main", EncryptionMode::Repokey, Some(&loaded), &[None])[0].verdict, Verdict::Ok);
        assert_eq!(installed("main", EncryptionMode::Repokey, None, &[])[0].verdict, Verdict::Problem);
        assert_eq!(installed("main", EncryptionMode::None, Some(&[]), &[])[0].verdict, Verdict::Ok);
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
