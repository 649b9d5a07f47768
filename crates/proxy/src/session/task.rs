//! What an open session is for: a backup or a restore. What both begin with is here.

use crate::intake::object::Verifier;
use crate::session::backup::Backup;
use crate::session::machine::Action;
use crate::session::restore::Restore;
use crate::stop::Stop;
use crate::table::{Call, State};
use borg::compress::{Compression, compress};
use borg::keyblob::LockedKey;
use borg::manifest::Manifest;
use borg::rpc::Method;
use borg::{Key, KeyType, RepositoryId};
use model::Cause;
use model::progress::SessionCounters;
use std::time::Duration;
use wire::session::{Limits, Opened};

/// An open session.
pub(super) enum Task {
    /// The client writes one archive.
    Backup(Box<Backup>),
    /// It reads one.
    Restore(Box<Restore>),
}

/// What the owner shows to the client, opened with the client's key.
pub(super) struct Shown {
    pub repository: RepositoryId,
    pub verifier: Verifier,
    pub manifest: Manifest,
    /// The manifest as the client gets it.
    pub envelope: Vec<u8>,
}

impl Shown {
    fn open(opened: &Opened) -> Result<Shown, Stop> {
        let internal = |what: &str| Stop::failed(Cause::Internal, format!("the repository's owner gave {what} that cannot be used"));
        let repository = RepositoryId::from_hex(&opened.repository_id).map_err(|_| internal("a repository id"))?;
        let kind = KeyType::from_byte(opened.key_type).ok_or_else(|| internal("a key type"))?;
        let key = match kind {
            KeyType::None => Key::none(),
            kind => {
                let locked = LockedKey::parse(&opened.key_blob).map_err(|_| internal("a key"))?;
                locked.unlock(opened.passphrase.as_bytes(), kind).map_err(|_| internal("a key"))?.key
            }
        };
        let verifier = Verifier::new(key).ok_or_else(|| internal("an encrypting key"))?.obfuscating(opened.obfuscate);
        let manifest = Manifest::parse(&opened.manifest, verifier.key()).map_err(|_| internal("a manifest"))?;
        let envelope = verifier.key().seal(&compress(Compression::None, &opened.manifest), 0);
        Ok(Shown { repository, verifier, manifest, envelope })
    }
}

impl Task {
    /// Opens what the owner gave; the id is the repository's.
    pub fn new(opened: Opened, salt: [u8; 16]) -> Result<(Task, [u8; 32]), Stop> {
        let shown = Shown::open(&opened)?;
        let repository = shown.repository.0;
        let task = match opened.restore {
            None => Task::Backup(Box::new(Backup::new(opened, salt, shown))),
            Some(reading) => Task::Restore(Box::new(Restore::new(opened, reading, shown))),
        };
        Ok((task, repository))
    }

    /// The word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Task::Backup(_) => "backup",
            Task::Restore(_) => "restore",
        }
    }

    pub fn state(&self) -> State {
        match self {
            Task::Backup(backup) => backup.state(),
            Task::Restore(restore) => restore.state(),
        }
    }

    pub fn wants_client(&self) -> bool {
        match self {
            Task::Backup(backup) => backup.wants_client(),
            Task::Restore(restore) => restore.wants_client(),
        }
    }

    pub fn minds_hangup(&self) -> bool {
        match self {
            Task::Backup(backup) => backup.minds_hangup(),
            Task::Restore(_) => true,
        }
    }

    pub fn limits(&self) -> &Limits {
        match self {
            Task::Backup(backup) => backup.limits(),
            Task::Restore(restore) => restore.limits(),
        }
    }

    pub fn job(&self) -> u64 {
        match self {
            Task::Backup(backup) => backup.job(),
            Task::Restore(restore) => restore.job(),
        }
    }

    pub fn counters(&self) -> SessionCounters {
        match self {
            Task::Backup(backup) => backup.counters(),
            Task::Restore(restore) => restore.counters(),
        }
    }

    /// The calls whose answers wait for the owner.
    pub fn take_pending(&mut self) -> Vec<u64> {
        match self {
            Task::Backup(backup) => backup.take_pending().into_iter().collect(),
            Task::Restore(restore) => restore.take_pending(),
        }
    }

    /// Carries out a call that the table permits.
    pub fn request<'a>(
        &mut self,
        now: Duration,
        msgid: u64,
        call: Call,
        method: Method<'a>,
        actions: &mut Vec<Action<'a>>,
    ) -> Result<(), Stop> {
        match self {
            Task::Backup(backup) => backup.request(now, msgid, call, method, actions),
            Task::Restore(restore) => restore.request(msgid, call, &method, actions),
        }
    }

    /// A frame that answers a read.
    pub fn owner(&mut self, kind: u8, payload: &[u8], actions: &mut Vec<Action<'_>>) -> Result<(), Stop> {
        match self {
            Task::Backup(backup) => backup.owner(kind, payload, actions),
            Task::Restore(restore) => restore.owner(kind, payload, actions),
        }
    }
}
