//! The manifest: the one object with a fixed id, which names all archives.

use std::collections::BTreeMap;

use crate::key::Key;
use crate::msgpack::{self, Limits, Reader, Value, Writer};
use crate::tam::{self, Context, Status, Tam, TamError};
use crate::{Id, time};

/// Most archives in one manifest (Borg 1.x).
pub const MAX_ARCHIVES: usize = 400_000;

/// Longest archive name in bytes (Borg 1.x).
pub const MAX_NAME: usize = 255;

/// Keys of item maps that Borg 1.4 knows, sorted, as it lists them in a manifest.
pub const ITEM_KEYS: [&str; 23] = [
    "acl_access",
    "acl_default",
    "acl_extended",
    "acl_nfs4",
    "atime",
    "birthtime",
    "bsdflags",
    "chunks",
    "chunks_healthy",
    "ctime",
    "gid",
    "group",
    "hardlink_master",
    "mode",
    "mtime",
    "part",
    "path",
    "rdev",
    "size",
    "source",
    "uid",
    "user",
    "xattrs",
];

/// A manifest that is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not the msgpack that a manifest is.
    #[error("the manifest is malformed: {0}")]
    Malformed(#[from] msgpack::Error),
    /// Marked by a newer Borg, or a version other than 1 and 2.
    #[error("the manifest was written by a newer Borg, its format is not supported")]
    Unsupported,
    /// A required field is missing.
    #[error("the manifest has no {0}")]
    Missing(&'static str),
    /// A field appears twice.
    #[error("the manifest has {0} twice")]
    Duplicate(&'static str),
    /// A field whose content makes no sense.
    #[error("the manifest's {0} is not valid")]
    Field(&'static str),
    /// More archives, or longer names, than Borg allows.
    #[error("the manifest exceeds Borg's limits: {0}")]
    TooLarge(&'static str),
    /// Authentication failed.
    #[error("manifest: {0}")]
    Tam(#[from] TamError),
}

/// What the manifest says about one archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveEntry {
    /// Id of the archive's metadata object.
    pub id: Id,
    /// Start of the archive, as in its metadata; see [`crate::time`].
    pub time: String,
}

/// A manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Archives by name.
    pub archives: BTreeMap<Vec<u8>, ArchiveEntry>,
    /// Settings by name; values are packed msgpack. Known: `tam_required` (bool), `feature_flags` (map).
    pub config: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Keys that items may have.
    pub item_keys: Vec<Vec<u8>>,
    /// When it was written; must never go back from the view of one client. `None` only in very old ones.
    pub timestamp: Option<String>,
    /// 1 (or 2).
    pub version: u64,
}

impl Manifest {
    /// A manifest without archives. With a key that requires TAM, [`Manifest::pack`] adds the matching config entry.
    #[must_use]
    pub fn empty(timestamp: &str) -> Manifest {
        Manifest {
            archives: BTreeMap::new(),
            config: BTreeMap::new(),
            item_keys: ITEM_KEYS.iter().map(|key| key.as_bytes().to_vec()).collect(),
            timestamp: Some(timestamp.to_owned()),
            version: 1,
        }
    }

    /// Parses a manifest's plaintext. Its TAM must be right if there is one, and there must be one if the key requires it.
    pub fn parse(packed: &[u8], key: &Key) -> Result<Manifest, ManifestError> {
        let (manifest, status) = Manifest::parse_with_status(packed, key)?;
        status.require(key.tam_required())?;
        Ok(manifest)
    }

    /// Like [`Manifest::parse`], leaving it to the caller whether a missing TAM is acceptable. A wrong one never is.
    pub fn parse_with_status(packed: &[u8], key: &Key) -> Result<(Manifest, Status), ManifestError> {
        // Borg 1.x: this prefix is reserved for future formats.
        if packed.starts_with(&[0xc1; 4]) {
            return Err(ManifestError::Unsupported);
        }
        let mut reader = Reader::with_limits(packed, Limits::LOOSE);
        let (mut archives, mut config, mut item_keys) = (None, None, None);
        let (mut tam, mut timestamp, mut version) = (None, None, None);
        for _ in 0..reader.read_map_len()? {
            match reader.read_raw()? {
                b"archives" => once(&mut archives, "archives", read_archives(&mut reader)?)?,
                b"config" => once(&mut config, "config", read_config(&mut reader)?)?,
                b"item_keys" => once(&mut item_keys, "item_keys", read_item_keys(&mut reader)?)?,
                b"tam" => once(&mut tam, "tam", Tam::read(&mut reader)?)?,
                b"timestamp" => once(&mut timestamp, "timestamp", read_timestamp(&mut reader)?)?,
                b"version" => once(&mut version, "version", reader.read_uint()?)?,
                _ => {
                    reader.skip_value()?;
                }
            }
        }
        reader.finish()?;
        let version = version.ok_or(ManifestError::Missing("version"))?;
        if !(1..=2).contains(&version) {
            return Err(ManifestError::Unsupported);
        }
        let status = tam::verify(key, Context::Manifest, packed, tam.as_ref())?;
        let manifest = Manifest {
            archives: archives.ok_or(ManifestError::Missing("archives"))?,
            config: config.unwrap_or_default(),
            item_keys: item_keys.unwrap_or_default(),
            timestamp,
            version,
        };
        Ok((manifest, status))
    }

    /// Packs the manifest with a TAM by `key`; `salt` must be fresh random bytes. Keys are sorted, as Borg writes them.
    ///
    /// `config.tam_required` is set to true if the key requires TAM; otherwise it is left as it is.
    #[must_use]
    pub fn pack(&self, key: &Key, salt: [u8; 64]) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.map(if self.timestamp.is_some() { 6 } else { 5 });
        writer.raw(b"archives");
        writer.map(self.archives.len());
        for (name, entry) in &self.archives {
            writer.raw(name);
            writer.map(2);
            writer.raw(b"id");
            writer.raw(&entry.id.0);
            writer.raw(b"time");
            writer.raw(entry.time.as_bytes());
        }
        writer.raw(b"config");
        self.write_config(&mut writer, key.tam_required());
        writer.raw(b"item_keys");
        writer.array(self.item_keys.len());
        self.item_keys.iter().for_each(|name| writer.raw(name));
        writer.raw(b"tam");
        let proof = tam::write_blank(&mut writer, &salt);
        if let Some(timestamp) = &self.timestamp {
            writer.raw(b"timestamp");
            writer.raw(timestamp.as_bytes());
        }
        writer.raw(b"version");
        writer.uint(self.version);
        let mut packed = writer.into_bytes();
        tam::sign_at(key, Context::Manifest, &mut packed, proof, &salt);
        packed
    }

    fn write_config(&self, writer: &mut Writer, tam_required: bool) {
        const TRUE: &[u8] = &[0xc3];
        let mut config: BTreeMap<&[u8], &[u8]> = self.config.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect();
        if tam_required {
            config.insert(b"tam_required", TRUE);
        }
        writer.map(config.len());
        for (name, value) in config {
            writer.raw(name);
            writer.bytes_of_raw(value);
        }
    }

    /// Whether the manifest says that manifests must carry a TAM.
    #[must_use]
    pub fn tam_required(&self) -> bool {
        self.config.get(b"tam_required".as_slice()).is_some_and(|value| value == &[0xc3])
    }

    /// Features without which `operation` (read, check, write, delete) must not touch the repository.
    /// Borg 1.x has no such features, so a name here means: refuse.
    #[must_use]
    pub fn mandatory_features(&self, operation: &str) -> Vec<String> {
        let flags = self.config.get(b"feature_flags".as_slice()).and_then(|packed| Value::parse(packed).ok());
        let mandatory = flags.as_ref().and_then(|flags| flags.get(operation.as_bytes())?.get(b"mandatory")?.as_array());
        let names = mandatory.unwrap_or_default().iter().filter_map(Value::as_raw);
        names.map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }

    /// The timestamp in microseconds since 1970, if there is one and it is valid.
    #[must_use]
    pub fn timestamp_micros(&self) -> Option<i64> {
        self.timestamp.as_deref().and_then(|text| time::parse(text).ok())
    }
}

/// What a client's cache config calls the manifest: the id of its plaintext (which changes with every salt).
#[must_use]
pub fn manifest_id(packed: &[u8], key: &Key) -> Id {
    key.id_hash(packed)
}

fn once<T>(place: &mut Option<T>, name: &'static str, value: T) -> Result<(), ManifestError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(ManifestError::Duplicate(name)),
    }
}

fn read_text(reader: &mut Reader<'_>, field: &'static str) -> Result<String, ManifestError> {
    let bytes = reader.read_raw()?;
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| ManifestError::Field(field))
}

fn read_archives(reader: &mut Reader<'_>) -> Result<BTreeMap<Vec<u8>, ArchiveEntry>, ManifestError> {
    let count = reader.read_map_len()?;
    if count > MAX_ARCHIVES {
        return Err(ManifestError::TooLarge("too many archives"));
    }
    let mut archives = BTreeMap::new();
    for _ in 0..count {
        let name = reader.read_raw()?;
        let (mut id, mut time) = (None, None);
        for _ in 0..reader.read_map_len()? {
            match reader.read_raw()? {
                b"id" => once(&mut id, "an archive's id", reader.read_id()?)?,
                b"time" => once(&mut time, "an archive's time", read_text(reader, "archive time")?)?,
                _ => {
                    reader.skip_value()?;
                }
            }
        }
        let entry = ArchiveEntry {
            id: id.ok_or(ManifestError::Missing("id for an archive"))?,
            time: time.ok_or(ManifestError::Missing("time for an archive"))?,
        };
        if archives.insert(name.to_vec(), entry).is_some() {
            return Err(ManifestError::Duplicate("an archive"));
        }
    }
    Ok(archives)
}

fn read_config(reader: &mut Reader<'_>) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, ManifestError> {
    let mut config = BTreeMap::new();
    for _ in 0..reader.read_map_len()? {
        let name = reader.read_raw()?;
        let value = msgpack::normalise(reader.skip_value()?, Limits::default())?;
        if config.insert(name.to_vec(), value).is_some() {
            return Err(ManifestError::Duplicate("a setting"));
        }
    }
    Ok(config)
}

fn read_item_keys(reader: &mut Reader<'_>) -> Result<Vec<Vec<u8>>, ManifestError> {
    let count = reader.read_array_len()?;
    if count > 1000 {
        return Err(ManifestError::TooLarge("too many item keys"));
    }
    (0..count).map(|_| Ok(reader.read_raw()?.to_vec())).collect()
}

fn read_timestamp(reader: &mut Reader<'_>) -> Result<String, ManifestError> {
    read_text(reader, "timestamp")
}
