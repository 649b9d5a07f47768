//! Every rule whose breach is a violation, in one place. The name is stable: it stands in the job's failure cause, in the
//! line the client sees and in tests.

use crate::stop::{Stop, shown};
use wire::session::Violation;

/// A rule of the session. (The owner has rules of its own, about references.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the table below says what each rule says")]
pub enum Rule {
    Message,
    Method,
    MethodOrder,
    OpenArguments,
    TokenNotOwn,
    GetNotOwn,
    DeleteNotOwn,
    RestoreRead,
    RestoreWrite,
    ObjectType,
    ObjectSize,
    ObjectCompression,
    ChunkId,
    ArchivesHeld,
    CommitNothing,
    Manifest,
    ManifestFeatures,
    ManifestEntries,
    ArchiveName,
    ArchiveNotPut,
    ArchiveFormat,
    ArchiveChunker,
    ReferenceNotOwn,
    ItemStream,
    ItemChunkSize,
    ItemPath,
    ItemType,
    ItemSize,
    ItemHardLink,
    ItemPart,
    ItemHealthy,
    ItemLimits,
}

use Rule::*;

/// Rule, name, the attacks it answers as the threat model numbers them, and what it says.
#[rustfmt::skip]
const TABLE: &[(Rule, &str, &str, &str)] = &[
    (Message,           "message",            "A18 A23",         "Every message is a call of Borg 1.x with the arguments that it has."),
    (Method,            "method",             "A16 A19",         "A client calls no methods but those that its task needs."),
    (MethodOrder,       "method-order",       "A14 A20",         "Methods come in the order in which Borg calls them."),
    (OpenArguments,     "open-arguments",     "A15",             "A client opens an existing repository, and locks it."),
    (TokenNotOwn,       "token-not-own",      "A04",             "Whoever comes with the SSH key of a job shows the token of that job."),
    (GetNotOwn,         "get-not-own",        "A37 A38",         "A backup reads the manifest and its own archive metadata, nothing else."),
    (DeleteNotOwn,      "delete-not-own",     "A36",             "A backup deletes its own checkpoints, nothing else."),
    (RestoreRead,       "restore-read",       "A37 A86",         "A restore reads its one archive, nothing else."),
    (RestoreWrite,      "restore-write",      "A86",             "A restore writes nothing."),
    (ObjectType,        "object-type",        "A45",             "An object carries the key type of the client key."),
    (ObjectSize,        "object-size",        "A23 A24",         "An object is no larger than Borg allows."),
    (ObjectCompression, "object-compression", "A24 A25",         "An object decompresses, to at most 20 MiB."),
    (ChunkId,           "chunk-id",           "A33 A48",         "An object's id is the hash of its plaintext."),
    (ArchivesHeld,      "archives-held",      "A26 A48",         "A backup has few archive metadata objects at a time."),
    (CommitNothing,     "commit-nothing",     "A20",             "A commit follows a manifest that adds an archive."),
    (Manifest,          "manifest",           "A53 A55",         "A manifest is well-formed and signed with the client key."),
    (ManifestFeatures,  "manifest-features",  "A55",             "A manifest demands no features."),
    (ManifestEntries,   "manifest-entries",   "A54",             "A manifest adds exactly one archive."),
    (ArchiveName,       "archive-name",       "A49 A50",         "The archive has the job's name or that of its checkpoint."),
    (ArchiveNotPut,     "archive-not-put",    "A53 A56",         "The manifest names an archive that was put in this session and is signed with the client key."),
    (ArchiveFormat,     "archive-format",     "A56 A59",         "Archive metadata is of version 1 and has the fields that Borg 1.x writes, no others."),
    (ArchiveChunker,    "archive-chunker",    "A59",             "The chunker's parameters are ones that Borg accepts."),
    (ReferenceNotOwn,   "reference-not-own",  "A39 A40 A56",     "An archive refers to chunks of this session or of this client's view."),
    (ItemStream,        "item-stream",        "A23 A56 A58 A59", "The item stream consists of whole items with the fields that Borg 1.x writes, no others."),
    (ItemChunkSize,     "item-chunk-size",    "A56",             "A chunk of the item stream is no larger than Borg cuts it."),
    (ItemPath,          "item-path",          "A57",             "A path is relative, without empty, '.' or '..' components and NUL, and of sane length."),
    (ItemType,          "item-type",          "A58 A59",         "An item is of a type that Borg stores and has the fields of that type."),
    (ItemSize,          "item-size",          "A41 A58",         "A file's size is the sum of its chunks."),
    (ItemHardLink,      "item-hard-link",     "A57",             "A hard link names an earlier item of this archive with content to share."),
    (ItemPart,          "item-part",          "A59",             "A part of a file is named after the file and its number."),
    (ItemHealthy,       "item-healthy",       "A59",             "Only a repair writes healthy chunks."),
    (ItemLimits,        "item-limits",        "A58",             "An item's numbers, names and attributes stay within what systems have; an item stream hardly repeats itself."),
];

impl Rule {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Rule> {
        TABLE.iter().map(|(rule, ..)| *rule)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The attacks it answers, separated by spaces.
    pub fn attacks(self) -> &'static str {
        self.row().2
    }

    /// What it says.
    pub fn says(self) -> &'static str {
        self.row().3
    }

    /// It was broken; `detail` may quote the client, it is escaped here.
    pub fn broken(self, detail: impl AsRef<str>) -> Stop {
        // The rule's sentence first: who reads this at night does not know the rules by heart.
        let detail = format!("{} (this client: {})", self.says().trim_end_matches('.'), shown(detail.as_ref()));
        Stop::Violation(Violation { rule: self.name().to_owned(), detail })
    }

    /// The same as the result of a check that finds nothing else: what follows it can go on if a test has switched the rule off.
    pub fn breach(self, detail: impl AsRef<str>) -> Result<(), Stop> {
        if unix::rule_switch::is_off(self.name()) { Ok(()) } else { Err(self.broken(detail)) }
    }

    fn row(self) -> &'static (Rule, &'static str, &'static str, &'static str) {
        // The table is in the order of the enum, which a test asserts.
        &TABLE[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_its_row_and_a_name_of_its_own() {
        for (at, (rule, ..)) in TABLE.iter().enumerate() {
            assert_eq!(*rule as usize, at);
        }
        assert_eq!(Rule::ItemLimits as usize + 1, TABLE.len());
        let mut names: Vec<_> = Rule::all().map(Rule::name).collect();
        assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')));
        assert!(Rule::all().all(|rule| rule.attacks().split(' ').all(|a| a.starts_with('A')) && rule.says().ends_with('.')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TABLE.len());
    }
}
