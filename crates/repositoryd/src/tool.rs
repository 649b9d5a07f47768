//! `create` and `inspect`: one look at a repository, one JSON answer.

use crate::credentials::{self, Credentials};
use crate::failures::{of_repository, of_state};
use crate::nonces;
use crate::unlock::{key_type, unlock};
use borg::compress::{Compression, compress};
use borg::manifest::Manifest;
use borg::{Id, Key, keyblob};
use model::{Cause, EncryptionMode, Failure, Timestamp};
use repository::{OpenOptions, Repository};
use std::path::PathBuf;
use wire::tool::{Answer, Facts};

/// Borg 1.x: PBKDF2 rounds of a new key.
const ITERATIONS: u32 = 100_000;

/// Seconds to wait for somebody else's lock: as much as a person at a terminal can bear.
const LOCK_WAIT: u64 = 10;

/// Set to `served`: use the borg program also for a repository on this machine; for comparisons and tests.
const ENV_ENGINE: &str = "BORGCUBE_ENGINE";

/// Where a repository is.
#[derive(clap::Args)]
pub struct Place {
    /// An absolute path, or ssh://user@host/path.
    #[arg(long)]
    url: String,
    /// The borg program that serves it, here or on the far side.
    #[arg(long)]
    borg: Option<String>,
    /// The ssh command, as Borg's BORG_RSH.
    #[arg(long)]
    rsh: Option<String>,
}

impl Place {
    fn options(&self) -> OpenOptions {
        options(&self.url, self.borg.as_deref(), self.rsh.as_deref())
    }
}

/// How this server opens any repository; shared, without creating, any id.
pub fn options(url: &str, borg: Option<&str>, rsh: Option<&str>) -> OpenOptions {
    let far = url.starts_with("ssh://");
    let default = || if far { "borg".to_owned() } else { unix::paths::borg_program().to_string_lossy().into_owned() };
    let wait = std::env::var("BORGCUBE_LOCK_WAIT").ok().and_then(|text| text.parse().ok());
    OpenOptions {
        borg: borg.map_or_else(default, str::to_owned),
        rsh: rsh.map(str::to_owned).or_else(|| own_key(url)),
        lock_wait: wait.unwrap_or(LOCK_WAIT),
        host_id: std::env::var(unix::paths::ENV_BORG_HOST_ID).ok(),
        served: std::env::var(ENV_ENGINE).is_ok_and(|engine| engine == "served"),
        ..OpenOptions::at(url)
    }
}

/// The ssh command with the owner's own key to another host, if that is among its secrets.
fn own_key(url: &str) -> Option<String> {
    let directory = std::env::var_os(unix::paths::ENV_CREDENTIALS).filter(|_| url.starts_with("ssh://"))?;
    let file = PathBuf::from(directory).join(unix::paths::CREDENTIAL_SSH_KEY);
    file.exists().then(|| format!("{} -oIdentitiesOnly=yes -i '{}'", repository::SSH, file.display()))
}

/// Writes the answer to standard output.
pub fn print(answer: &Result<Facts, Failure>) -> anyhow::Result<()> {
    let answer = match answer {
        Ok(facts) => Answer::Repository(facts.clone()),
        Err(failure) => Answer::Failed(failure.clone()),
    };
    println!("{}", serde_json::to_string(&answer)?);
    Ok(())
}

/// Looks at an existing repository: can it be reached, does the key open, is the manifest genuine?
pub fn inspect(place: &Place) -> Result<Facts, Failure> {
    model::repository::check_url(&place.url).map_err(|e| Failure::new(Cause::RepositoryUnreachable, e))?;
    let credentials = Credentials::read()?;
    let mut repository = Repository::open(&place.options()).map_err(|e| of_repository(&e))?;
    let unlocked = unlock(&mut repository, &credentials)?;
    let objects = repository.object_count().map_err(|e| of_repository(&e))?;
    let id = repository.id();
    repository.close();
    Ok(Facts { repository_id: id.to_hex(), encryption: unlocked.encryption, archives: unlocked.manifest.archives.len() as u64, objects })
}

/// Makes a repository as `borg init` does: key, nonce reservation, empty manifest.
pub fn create(place: &Place, encryption: EncryptionMode) -> Result<Facts, Failure> {
    model::repository::check_url(&place.url).map_err(|e| Failure::new(Cause::RepositoryUnreachable, e))?;
    let credentials = Credentials::read()?;
    if encryption.has_key() {
        let passphrase = credentials.passphrase.as_ref();
        let passphrase =
            passphrase.ok_or_else(|| Failure::new(Cause::PassphraseWrong, "a new repository with a key needs a passphrase"))?;
        credentials::check_strength(passphrase).map_err(|e| Failure::new(Cause::PassphraseWrong, e))?;
    }
    if encryption.is_keyfile() && credentials.key.is_some() {
        return Err(Failure::new(Cause::KeyMissing, "there is a keyfile for this name already; it will not be overwritten"));
    }
    let options = OpenOptions { create: true, exclusive: true, ..place.options() };
    let mut repository = Repository::open(&options).map_err(|e| of_repository(&e))?;
    match complete(&mut repository, encryption, &credentials) {
        Ok(()) => {
            let repository_id = repository.id().to_hex();
            repository.close();
            Ok(Facts { repository_id, encryption, archives: 0, objects: 1 })
        }
        Err(failure) => {
            // It was made by us a moment ago, and half of a repository is of no use.
            if let Err(e) = repository.destroy() {
                log::warn!("the incomplete repository stays behind: {e}");
            }
            Err(failure)
        }
    }
}

fn complete(repository: &mut Repository, encryption: EncryptionMode, credentials: &Credentials) -> Result<(), Failure> {
    let failed = |e: repository::Error| of_repository(&e);
    let mut random = Random::default();
    let key = Key::generate(key_type(encryption), &mut |buffer| random.fill(buffer));
    let (mut salt, mut tam_salt) = ([0; 32], [0; 64]);
    random.fill(&mut salt);
    random.fill(&mut tam_salt);
    random.check()?;
    if let Some(passphrase) = credentials.passphrase.as_ref().filter(|_| encryption.has_key()) {
        let blob = keyblob::lock(&key, repository.id(), passphrase, ITERATIONS, salt);
        if encryption.is_keyfile() {
            let text = keyblob::keyfile_text(repository.id(), &blob);
            unix::files::write_private(&credentials_directory()?.join(credentials::KEY), text.as_bytes()).map_err(|e| of_state(&e))?;
        } else {
            repository.save_key(blob.as_bytes()).map_err(failed)?;
        }
    }
    let packed = Manifest::empty(&borg::time::format(Timestamp::now().0)).pack(&key, tam_salt);
    let payload = compress(Compression::Lz4, &packed);
    let blocks = key.nonce_blocks(payload.len());
    let nonce = if blocks > 0 { nonces::reserve_first(repository, blocks)? } else { 0 };
    repository.put(&Id::MANIFEST, &key.seal(&payload, nonce), packed.len() as u32).map_err(failed)?;
    repository.commit().map_err(failed)
}

fn credentials_directory() -> Result<PathBuf, Failure> {
    match std::env::var_os(unix::paths::ENV_CREDENTIALS) {
        Some(directory) if !directory.is_empty() => Ok(directory.into()),
        _ => Err(Failure::new(Cause::KeyMissing, "there is no directory to keep the keyfile in")),
    }
}

/// Random bytes for functions that cannot fail; whether they did is asked afterwards, before anything is used.
#[derive(Default)]
pub struct Random {
    failure: Option<Failure>,
}

impl Random {
    /// Fills `buffer`.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        if let Err(e) = unix::random::fill(buffer) {
            self.failure = Some(of_state(&e));
        }
    }

    /// Whether all bytes were random.
    pub fn check(&self) -> Result<(), Failure> {
        self.failure.clone().map_or(Ok(()), Err)
    }
}
