//! `create` and `inspect`, judged by the real borgs.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use model::{Cause, EncryptionMode};
use std::path::Path;
use std::process::{Command, Stdio};
use testkit::{Borg, BorgWorld};
use wire::tool::{Answer, Facts};

const PASSPHRASE: &str = "a passphrase of some length";

fn tool(credentials: &Path, arguments: &[&str]) -> Answer {
    let output = Command::new(env!("CARGO_BIN_EXE_borgcube-repositoryd"))
        .args(arguments)
        .env_remove("BORGCUBE_BORG")
        .env("BORGCUBE_LOCK_WAIT", "1")
        .env("CREDENTIALS_DIRECTORY", credentials)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn facts(answer: Answer) -> Facts {
    match answer {
        Answer::Repository(facts) => facts,
        Answer::Failed(failure) => panic!("{}", failure.line()),
    }
}

fn cause(answer: Answer) -> Cause {
    match answer {
        Answer::Repository(facts) => panic!("{facts:?}"),
        Answer::Failed(failure) => failure.cause,
    }
}

fn private(path: &Path, content: &[u8]) {
    unix::files::write_private(path, content).unwrap();
}

#[test]
fn every_mode_passes_the_judges() {
    for server in Borg::judges().into_iter().chain(Borg::v1_1_18()) {
        let program = server.program.to_str().unwrap();
        for mode in EncryptionMode::ALL {
            let dir = tempfile::tempdir().unwrap();
            let repo = dir.path().join("repo");
            let url = repo.to_str().unwrap();
            let credentials = dir.path().join("credentials");
            std::fs::create_dir(&credentials).unwrap();
            private(&credentials.join("passphrase"), format!("{PASSPHRASE}\n").as_bytes());
            let made = facts(tool(&credentials, &["create", "--url", url, "--encryption", mode.as_str(), "--borg", program]));
            assert_eq!((made.encryption, made.archives, made.objects), (mode, 0, 1));
            assert_eq!(facts(tool(&credentials, &["inspect", "--url", url, "--borg", program])), made);
            assert_eq!(credentials.join("key").exists(), mode.is_keyfile());

            let mut world = BorgWorld::with_passphrase(PASSPHRASE);
            if mode.is_keyfile() {
                world.set("BORG_KEY_FILE", credentials.join("key"));
            }
            for judge in Borg::judges().into_iter().chain(Borg::v1_1_18()) {
                judge.check_verify_data(&world, &repo).unwrap();
            }
            // Stock borg can use it, and we still can afterwards.
            server.create(&world, &repo, "stock", &[], &[Path::new("/etc/hostname")]).unwrap();
            let now = facts(tool(&credentials, &["inspect", "--url", url, "--borg", program]));
            assert_eq!(now.archives, 1);
            assert!(now.objects >= 3);
        }
    }
}

#[test]
fn what_cannot_be_created_or_used() {
    let dir = tempfile::tempdir().unwrap();
    let repo = dir.path().join("repo");
    let url = repo.to_str().unwrap();
    let empty = dir.path().join("empty");
    let good = dir.path().join("good");
    let wrong = dir.path().join("wrong");
    for directory in [&empty, &good, &wrong] {
        std::fs::create_dir(directory).unwrap();
    }
    private(&good.join("passphrase"), PASSPHRASE.as_bytes());
    private(&wrong.join("passphrase"), b"weak");
    let create = |credentials: &Path, url: &str, mode: &str| cause(tool(credentials, &["create", "--url", url, "--encryption", mode]));
    let inspect = |credentials: &Path, url: &str| cause(tool(credentials, &["inspect", "--url", url]));

    assert_eq!(create(&empty, url, "repokey"), Cause::PassphraseWrong);
    assert_eq!(create(&wrong, url, "repokey"), Cause::PassphraseWrong);
    assert_eq!(inspect(&good, url), Cause::RepositoryDoesNotExist);
    assert_eq!(create(&good, "repo", "repokey"), Cause::RepositoryUnreachable);
    assert_eq!(create(&good, dir.path().join("a/b").to_str().unwrap(), "repokey"), Cause::RepositoryDoesNotExist);
    assert!(!repo.exists());

    facts(tool(&good, &["create", "--url", url, "--encryption", "keyfile"]));
    assert_eq!(create(&good, url, "repokey"), Cause::RepositoryInvalid);
    assert_eq!(create(&good, dir.path().join("second").to_str().unwrap(), "keyfile"), Cause::KeyMissing);
    assert_eq!(inspect(&wrong, url), Cause::KeyMissing);
    std::fs::copy(good.join("key"), wrong.join("key")).unwrap();
    assert_eq!(inspect(&wrong, url), Cause::PassphraseWrong);
    // A keyfile of another repository.
    let other = dir.path().join("other");
    std::fs::rename(good.join("key"), good.join("key-of-first")).unwrap();
    facts(tool(&good, &["create", "--url", other.to_str().unwrap(), "--encryption", "keyfile"]));
    assert_eq!(inspect(&good, url), Cause::KeyMissing);
    // Somebody puts a manifest of their own into an unencrypted one: nothing to notice. Into a keyed one: noticed.
    std::fs::rename(good.join("key-of-first"), good.join("key")).unwrap();
    forge_manifest(&repo);
    assert_eq!(inspect(&good, url), Cause::RepositoryIntegrity);
}

/// Changes one byte of the manifest, as somebody who can write to the repository's files and has no key.
fn forge_manifest(repo: &Path) {
    let mut repository =
        repository::Repository::open(&repository::OpenOptions { exclusive: true, ..repository::OpenOptions::at(repo.to_str().unwrap()) })
            .unwrap();
    let mut manifest = repository.get(&borg::Id::MANIFEST).unwrap();
    let last = manifest.len() - 1;
    manifest[last] ^= 1;
    repository.put(&borg::Id::MANIFEST, &manifest, 0).unwrap();
    repository.commit().unwrap();
}
