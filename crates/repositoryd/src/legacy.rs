//! What an owner that is restarted leaves of one job, as bytes in a file in memory: the job's secrets never reach a disk.
//!
//! ```text
//! "BCHEIR1\n" | sections, each length (u64 LE) and bytes: facts (JSON) | view | sent | relied | items | references | unread | said
//! ```
//!
//! References have 40 bytes each, what was sent 41, ids 32. Both sides usually are the same build; after an upgrade, whoever does not understand it says so.

use crate::failures::{internal, of_state};
use crate::sent::Sent;
use borg::Id;
use model::progress::SessionCounters;
use model::{Archive, ClientName, Failure, Label, Timestamp};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::sync::Arc;
use wire::session::{Opened, Proposal, Reference, Violation};

const MAGIC: &[u8; 8] = b"BCHEIR1\n";

/// More than anything that is written here, in one section.
const LONGEST: u64 = 1 << 36;

const SENT: usize = 41;

/// What is said once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// [`wire::session::VERSION`]: the session at the other end speaks it.
    pub version: u32,
    /// See [`crate::jobs::Job`].
    pub client: ClientName,
    /// See [`crate::jobs::Job`].
    pub label: Label,
    /// See [`crate::jobs::Job`].
    pub cmdline: Vec<String>,
    /// See [`crate::jobs::Job`].
    pub start: Timestamp,
    /// See [`crate::jobs::Job`].
    pub opened: Opened,
    /// Of the view.
    pub members: Vec<String>,
    /// Of the view.
    pub generation: [u8; 32],
    /// Of the view: archive and digest.
    pub base: Option<(String, String)>,
    /// Of the view.
    pub mark: [u8; 16],
    /// Of the view.
    pub kept: Option<[u8; 16]>,
    /// Whether a client came, and whether its session is over.
    pub began: bool,
    /// See above.
    pub ended: bool,
    /// See [`crate::jobs::Progress`].
    pub archive: Option<Archive>,
    /// See [`crate::jobs::Progress`].
    pub checkpoint: Option<Archive>,
    /// See [`crate::jobs::Progress`].
    pub failure: Option<Failure>,
    /// See [`crate::jobs::Progress`].
    pub counters: SessionCounters,
    /// Of the worker's connection.
    pub token_hash: String,
    /// What a restore reads.
    #[serde(default)]
    pub source: Option<SourceFacts>,
}

/// See [`crate::restore::Source`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceFacts {
    /// The archive.
    pub archive: [u8; 32],
    /// The id by which the client knows its metadata.
    pub metadata_id: [u8; 32],
    /// The metadata's payload.
    pub metadata: Vec<u8>,
    /// What was read, a bit for each entry of the view.
    pub read: Vec<u64>,
    /// Bytes that were read.
    pub bytes: u64,
}

/// Where a session was interrupted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversation {
    /// What is taken and not given back.
    pub credit: usize,
    /// Bytes newly stored.
    pub deduplicated: u64,
    /// The same before compression.
    pub fresh: u64,
    /// Of the collection.
    pub violation: Option<Violation>,
    /// Accepted, and not committed; then the collection is its.
    pub proposal: Option<Proposal>,
    /// Of the collection.
    pub items: Vec<Id>,
    /// Of the collection.
    pub references: Vec<Reference>,
    /// Read from the socket, and not dealt with.
    pub unread: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    facts: Facts,
    talk: Option<Talk>,
}

#[derive(Serialize, Deserialize)]
struct Talk {
    credit: usize,
    deduplicated: u64,
    fresh: u64,
    violation: Option<Violation>,
    proposal: Option<Proposal>,
}

/// One job.
#[derive(Debug, Clone, PartialEq)]
pub struct Legacy {
    /// What is said once.
    pub facts: Facts,
    /// The client's view.
    pub view: Arc<Vec<Reference>>,
    /// What its session sent.
    pub sent: Vec<(Id, Sent)>,
    /// What it relies on besides.
    pub relied: Vec<Id>,
    /// Its session, if that runs.
    pub conversation: Option<Conversation>,
    /// What its worker said last, if nobody has answered.
    pub said: Vec<u8>,
}

impl Legacy {
    /// Writes it.
    pub fn write(&self) -> Result<File, Failure> {
        let file = unix::fdpass::memfd("job").map_err(|e| of_state(&e))?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        self.write_to(&mut out).map_err(|e| internal(format!("what is known of a job cannot be written down: {e}")))?;
        out.into_inner().map_err(|e| internal(format!("what is known of a job cannot be written down: {e}")))
    }

    fn write_to(&self, out: &mut impl Write) -> std::io::Result<()> {
        let nothing = Conversation::default();
        let talk = self.conversation.as_ref().map(|c| Talk {
            credit: c.credit,
            deduplicated: c.deduplicated,
            fresh: c.fresh,
            violation: c.violation.clone(),
            proposal: c.proposal.clone(),
        });
        let c = self.conversation.as_ref().unwrap_or(&nothing);
        out.write_all(MAGIC)?;
        let head = serde_json::to_vec(&Head { facts: self.facts.clone(), talk })?;
        section(out, head.len(), [head.as_slice()])?;
        references(out, &self.view)?;
        let sent = self.sent.iter().map(|(id, sent)| {
            let mut bytes = [0; SENT];
            bytes[..32].copy_from_slice(&id.0);
            bytes[32..36].copy_from_slice(&sent.size.to_le_bytes());
            bytes[36..40].copy_from_slice(&sent.csize.to_le_bytes());
            bytes[40] = u8::from(sent.new);
            bytes
        });
        section(out, self.sent.len() * SENT, sent)?;
        ids(out, &self.relied)?;
        ids(out, &c.items)?;
        references(out, &c.references)?;
        section(out, c.unread.len(), [c.unread.as_slice()])?;
        section(out, self.said.len(), [self.said.as_slice()])?;
        out.flush()
    }

    /// Reads it.
    pub fn read(mut file: File) -> Result<Legacy, String> {
        file.rewind().map_err(|e| e.to_string())?;
        Legacy::read_from(&mut BufReader::with_capacity(1 << 20, file))
    }

    fn read_from(input: &mut impl Read) -> Result<Legacy, String> {
        let mut magic = [0; 8];
        input.read_exact(&mut magic).map_err(|e| e.to_string())?;
        if magic != *MAGIC {
            return Err("another version of BorgCube has written it".into());
        }
        let Head { facts, talk } = serde_json::from_slice(&bytes(input)?).map_err(|e| e.to_string())?;
        if facts.version != wire::session::VERSION {
            return Err("its session is of another version of BorgCube".into());
        }
        let view = Arc::new(read_references(&bytes(input)?)?);
        let sent = bytes(input)?;
        let u32_at = |b: &[u8], at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        let (sent, rest) = sent.as_chunks::<SENT>();
        if !rest.is_empty() {
            return Err("a section is cut off".into());
        }
        let sent = sent.iter().map(|b| {
            let mut id = [0; 32];
            id.copy_from_slice(&b[..32]);
            (Id(id), Sent { size: u32_at(b, 32), csize: u32_at(b, 36), new: b[40] != 0 })
        });
        let sent = sent.collect();
        let relied = read_ids(&bytes(input)?)?;
        let items = read_ids(&bytes(input)?)?;
        let references = read_references(&bytes(input)?)?;
        let unread = bytes(input)?;
        let said = bytes(input)?;
        let conversation = talk.map(|talk| Conversation {
            credit: talk.credit,
            deduplicated: talk.deduplicated,
            fresh: talk.fresh,
            violation: talk.violation,
            proposal: talk.proposal,
            items,
            references,
            unread,
        });
        Ok(Legacy { facts, view, sent, relied, conversation, said })
    }
}

fn section<B: AsRef<[u8]>>(out: &mut impl Write, length: usize, parts: impl IntoIterator<Item = B>) -> std::io::Result<()> {
    out.write_all(&(length as u64).to_le_bytes())?;
    parts.into_iter().try_for_each(|part| out.write_all(part.as_ref()))
}

fn ids(out: &mut impl Write, ids: &[Id]) -> std::io::Result<()> {
    section(out, ids.len() * 32, ids.iter().map(|id| id.0))
}

fn references(out: &mut impl Write, references: &[Reference]) -> std::io::Result<()> {
    let encoded = references.iter().map(|reference| {
        let mut bytes = Vec::with_capacity(Reference::SIZE);
        reference.encode(&mut bytes);
        bytes
    });
    section(out, references.len() * Reference::SIZE, encoded)
}

fn bytes(input: &mut impl Read) -> Result<Vec<u8>, String> {
    let mut length = [0; 8];
    input.read_exact(&mut length).map_err(|e| e.to_string())?;
    let length = u64::from_le_bytes(length);
    let mut bytes = vec![];
    let got = input.take(length.min(LONGEST)).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if got as u64 == length { Ok(bytes) } else { Err("it is cut off".into()) }
}

fn read_ids(bytes: &[u8]) -> Result<Vec<Id>, String> {
    let ids = wire::session::decode_ids(bytes).map_err(|e| e.to_string())?;
    Ok(ids.into_iter().map(Id).collect())
}

fn read_references(bytes: &[u8]) -> Result<Vec<Reference>, String> {
    Ok(Reference::decode_all(bytes).map_err(|e| e.to_string())?.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn legacy() -> Legacy {
        let opened = Opened {
            job: 7,
            archive_name: "a".into(),
            repository_id: "00".repeat(32),
            key_type: 7,
            key_blob: "blob".into(),
            passphrase: "secret".into(),
            manifest: vec![1, 2, 3],
            obfuscate: false,
            restore: None,
            limits: wire::session::Limits::default(),
        };
        let facts = Facts {
            version: wire::session::VERSION,
            client: "web1".parse().unwrap(),
            label: "etc".parse().unwrap(),
            cmdline: vec!["borg".into(), "create".into()],
            start: Timestamp(5),
            opened,
            members: vec!["ab".into()],
            generation: [3; 32],
            base: Some(("ab".into(), "cd".into())),
            mark: [4; 16],
            kept: None,
            began: true,
            ended: false,
            archive: None,
            checkpoint: None,
            failure: None,
            counters: SessionCounters::default(),
            token_hash: "ef".into(),
            source: Some(SourceFacts { archive: [6; 32], metadata_id: [7; 32], metadata: vec![0, 255], read: vec![u64::MAX], bytes: 8 }),
        };
        let reference = Reference { id: [1; 32], size: 2, csize: 3 };
        let conversation = Conversation {
            credit: 99,
            deduplicated: 1 << 40,
            fresh: 1 << 41,
            violation: Some(Violation { rule: "r".into(), detail: "d".into() }),
            proposal: None,
            items: vec![Id([5; 32])],
            references: vec![reference, reference],
            unread: b"half a fr".to_vec(),
        };
        Legacy {
            facts,
            view: Arc::new(vec![reference]),
            sent: vec![(Id([8; 32]), Sent { size: 1, csize: 2, new: true }), (Id([9; 32]), Sent { size: 3, csize: 4, new: false })],
            relied: vec![Id([10; 32])],
            conversation: Some(conversation),
            said: b"finish".to_vec(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let all = legacy();
        assert_eq!(Legacy::read(all.write().unwrap()).unwrap(), all);
        let quiet = Legacy { conversation: None, said: vec![], ..all };
        assert_eq!(Legacy::read(quiet.write().unwrap()).unwrap(), quiet);
    }

    #[test]
    fn what_is_cut_off_or_of_others_is_refused() {
        let all = legacy();
        let mut whole = vec![];
        all.write_to(&mut whole).unwrap();
        for cut in 0..whole.len() {
            assert!(Legacy::read_from(&mut &whole[..cut]).is_err(), "{cut}");
        }
        whole[6] = b'2';
        assert!(Legacy::read_from(&mut &whole[..]).unwrap_err().contains("another version"));
    }
}
