//! Archive metadata: the object a manifest entry points at.

use std::collections::BTreeMap;

use crate::key::Key;
use crate::manifest::MAX_NAME;
use crate::msgpack::{self, Limits, Reader, Value, Writer, shown};
use crate::tam::{self, Context, Status, Tam, TamError};
use crate::{Id, time};

/// Most words of a command line. What a kernel lets through is less.
const MAX_WORDS: usize = 1 << 18;

/// Archive metadata that is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// Not the msgpack that archive metadata is.
    #[error("the archive's metadata is malformed: {0}")]
    Malformed(#[from] msgpack::Error),
    /// A version other than 1.
    #[error("the archive has version {0}, which is not supported")]
    Version(u64),
    /// A required field is missing.
    #[error("the archive's metadata has no {0}")]
    Missing(&'static str),
    /// A field is there twice.
    #[error("the archive's metadata has {0:?} twice")]
    Duplicate(String),
    /// A field that Borg 1.x does not write.
    #[error("the archive's metadata has the unknown field {0:?}")]
    Unknown(String),
    /// A field whose content makes no sense.
    #[error("the archive's {0} is not valid")]
    Field(&'static str),
    /// Authentication failed.
    #[error("archive: {0}")]
    Tam(#[from] TamError),
}

/// How the content was cut. The numbers are not interpreted here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkerParams {
    /// `buzhash` or `fixed`; `None` as Borg 1.1 writes it, which means buzhash.
    pub algorithm: Option<Vec<u8>>,
    /// The numbers behind it.
    pub numbers: Vec<u64>,
}

/// Archive metadata. Byte strings are Borg's: UTF-8, or whatever bytes the system had.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Archive {
    /// Name, as in the manifest.
    pub name: Vec<u8>,
    /// The user's comment.
    pub comment: Option<Vec<u8>>,
    /// Host it was made on.
    pub hostname: Option<Vec<u8>>,
    /// User who made it.
    pub username: Option<Vec<u8>>,
    /// Start, see [`crate::time`].
    pub time: String,
    /// End.
    pub time_end: Option<String>,
    /// Command that made it.
    pub cmdline: Vec<Vec<u8>>,
    /// Command that recreated it.
    pub recreate_cmdline: Option<Vec<Vec<u8>>>,
    /// Chunks of the item stream, in order.
    pub items: Vec<Id>,
    /// How its content was cut.
    pub chunker_params: Option<ChunkerParams>,
    /// Working directory (1.4).
    pub cwd: Option<Vec<u8>>,
    /// Totals (1.2 and later), without checkpoint part files.
    pub size: Option<u64>,
    /// Total of stored sizes.
    pub csize: Option<u64>,
    /// Number of files.
    pub nfiles: Option<u64>,
    /// The same of checkpoint part files.
    pub size_parts: Option<u64>,
    /// The same of checkpoint part files.
    pub csize_parts: Option<u64>,
    /// The same of checkpoint part files.
    pub nfiles_parts: Option<u64>,
    /// Fields unknown to this crate, packed; always empty after [`Archive::parse_strict`].
    pub other: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Archive {
    /// Parses metadata as any Borg 1.x may have written it; unknown fields are kept. Does not look at the TAM.
    pub fn parse(packed: &[u8]) -> Result<Archive, ArchiveError> {
        Archive::read(packed, false)
    }

    /// Parses metadata that a client has just made: only fields that Borg 1.x writes, only in the form it writes them.
    /// Does not look at the TAM.
    pub fn parse_strict(packed: &[u8]) -> Result<Archive, ArchiveError> {
        let archive = Archive::read(packed, true)?;
        if archive.name.is_empty() || archive.name.len() > MAX_NAME {
            return Err(ArchiveError::Field("name"));
        }
        if !is_full_time(&archive.time) {
            return Err(ArchiveError::Field("time"));
        }
        if archive.time_end.as_deref().is_some_and(|text| !is_full_time(text)) {
            return Err(ArchiveError::Field("time_end"));
        }
        Ok(archive)
    }

    /// Checks the TAM of packed metadata. A wrong one is an error, a missing one is not: see [`Status::require`].
    pub fn verify_tam(packed: &[u8], key: &Key) -> Result<Status, ArchiveError> {
        let mut reader = Reader::with_limits(packed, Limits::LOOSE);
        let mut tam = None;
        for _ in 0..reader.read_map_len()? {
            if reader.read_raw()? != b"tam" {
                reader.skip_value()?;
            } else if tam.replace(Tam::read(&mut reader)?).is_some() {
                return Err(ArchiveError::Duplicate("tam".to_owned()));
            }
        }
        reader.finish()?;
        Ok(tam::verify(key, Context::Archive, packed, tam.as_ref())?)
    }

    fn read(packed: &[u8], strict: bool) -> Result<Archive, ArchiveError> {
        let limits = Limits { old_spec_only: strict, ..Limits::LOOSE };
        let mut reader = Reader::with_limits(packed, limits);
        let mut archive = Archive::default();
        let (mut version, mut seen) = (None, Vec::<&[u8]>::new());
        let fields = reader.read_map_len()?;
        if fields > 1000 {
            return Err(msgpack::Error::TooLarge("map").into());
        }
        for _ in 0..fields {
            let field = reader.read_raw()?;
            if seen.contains(&field) {
                return Err(ArchiveError::Duplicate(shown(field)));
            }
            seen.push(field);
            match field {
                b"version" => version = Some(reader.read_uint()?),
                b"name" => archive.name = reader.read_raw()?.to_vec(),
                b"comment" => archive.comment = Some(reader.read_raw()?.to_vec()),
                b"hostname" => archive.hostname = Some(reader.read_raw()?.to_vec()),
                b"username" => archive.username = Some(reader.read_raw()?.to_vec()),
                b"time" => archive.time = text(&mut reader, "time")?,
                b"time_end" => archive.time_end = Some(text(&mut reader, "time_end")?),
                b"cmdline" => archive.cmdline = words(&mut reader)?,
                b"recreate_cmdline" => archive.recreate_cmdline = Some(words(&mut reader)?),
                b"items" => archive.items = ids(&mut reader)?,
                b"chunker_params" => archive.chunker_params = Some(ChunkerParams::read(&mut reader)?),
                b"cwd" => archive.cwd = Some(reader.read_raw()?.to_vec()),
                b"size" => archive.size = Some(reader.read_uint()?),
                b"csize" => archive.csize = Some(reader.read_uint()?),
                b"nfiles" => archive.nfiles = Some(reader.read_uint()?),
                b"size_parts" => archive.size_parts = Some(reader.read_uint()?),
                b"csize_parts" => archive.csize_parts = Some(reader.read_uint()?),
                b"nfiles_parts" => archive.nfiles_parts = Some(reader.read_uint()?),
                b"tam" => {
                    Tam::read(&mut reader)?;
                }
                unknown if strict => return Err(ArchiveError::Unknown(shown(unknown))),
                unknown => {
                    let value = msgpack::normalise(reader.skip_value()?, Limits::default())?;
                    archive.other.insert(unknown.to_vec(), value);
                }
            }
        }
        reader.finish()?;
        match version {
            Some(1) => {}
            Some(other) => return Err(ArchiveError::Version(other)),
            None => return Err(ArchiveError::Missing("version")),
        }
        for required in ["name", "items", "cmdline", "time"] {
            if !seen.contains(&required.as_bytes()) {
                return Err(ArchiveError::Missing(required));
            }
        }
        Ok(archive)
    }

    /// Packs the metadata with a TAM by `key`; `salt` must be fresh random bytes. Fields are sorted, as Borg writes them.
    /// The id of the result is `key.id_hash` of it, so it is another one for every salt.
    #[must_use]
    pub fn pack(&self, key: &Key, salt: [u8; 64]) -> Vec<u8> {
        let fields = self.fields();
        let mut writer = Writer::new();
        writer.map(fields.len() + 1);
        let mut proof = None;
        for (name, value) in fields {
            if proof.is_none() && name > b"tam".as_slice() {
                proof = Some(write_tam(&mut writer, &salt));
            }
            writer.raw(name);
            writer.bytes_of_raw(&value);
        }
        let proof = proof.unwrap_or_else(|| write_tam(&mut writer, &salt));
        let mut packed = writer.into_bytes();
        tam::sign_at(key, Context::Archive, &mut packed, proof, &salt);
        packed
    }

    /// Every field that is present, packed, in order; without `tam`.
    fn fields(&self) -> BTreeMap<&[u8], Vec<u8>> {
        let mut fields: BTreeMap<&[u8], Vec<u8>> = self.other.iter().map(|(name, value)| (name.as_slice(), value.clone())).collect();
        fields.remove(b"tam".as_slice());
        let mut put = |name: &'static str, value: Value<'_>| {
            fields.insert(name.as_bytes(), Writer::packed(|writer| value.write(writer)));
        };
        let list = |words: &[Vec<u8>]| {
            Writer::packed(|writer| {
                writer.array(words.len());
                words.iter().for_each(|word| writer.raw(word));
            })
        };
        put("version", Value::Int(1));
        put("name", Value::Raw(&self.name));
        put("time", Value::Raw(self.time.as_bytes()));
        for (name, value) in [("comment", &self.comment), ("hostname", &self.hostname), ("username", &self.username), ("cwd", &self.cwd)] {
            if let Some(bytes) = value {
                put(name, Value::Raw(bytes));
            }
        }
        if let Some(end) = &self.time_end {
            put("time_end", Value::Raw(end.as_bytes()));
        }
        for (name, value) in [
            ("size", self.size),
            ("csize", self.csize),
            ("nfiles", self.nfiles),
            ("size_parts", self.size_parts),
            ("csize_parts", self.csize_parts),
            ("nfiles_parts", self.nfiles_parts),
        ] {
            if let Some(number) = value {
                put(name, Value::UInt(number));
            }
        }
        fields.insert(b"cmdline", list(&self.cmdline));
        if let Some(words) = &self.recreate_cmdline {
            fields.insert(b"recreate_cmdline", list(words));
        }
        if let Some(params) = &self.chunker_params {
            fields.insert(b"chunker_params", Writer::packed(|writer| params.write(writer)));
        }
        let items = Writer::packed(|writer| {
            writer.array(self.items.len());
            self.items.iter().for_each(|id| writer.raw(&id.0));
        });
        fields.insert(b"items", items);
        fields
    }
}

impl ChunkerParams {
    fn read(reader: &mut Reader<'_>) -> Result<ChunkerParams, ArchiveError> {
        let mut left = reader.read_array_len()?;
        if left > 16 {
            return Err(ArchiveError::Field("chunker_params"));
        }
        let mut params = ChunkerParams { algorithm: None, numbers: Vec::new() };
        if left > 0
            && let Ok(algorithm) = reader.clone().read_raw()
        {
            reader.skip_value()?;
            params.algorithm = Some(algorithm.to_vec());
            left -= 1;
        }
        for _ in 0..left {
            params.numbers.push(reader.read_uint()?);
        }
        Ok(params)
    }

    fn write(&self, writer: &mut Writer) {
        writer.array(self.numbers.len() + usize::from(self.algorithm.is_some()));
        if let Some(algorithm) = &self.algorithm {
            writer.raw(algorithm);
        }
        self.numbers.iter().for_each(|number| writer.uint(*number));
    }
}

fn write_tam(writer: &mut Writer, salt: &[u8; 64]) -> usize {
    writer.raw(b"tam");
    tam::write_blank(writer, salt)
}

/// The form every Borg writes: six digits of fraction (comparisons are lexicographic), and a year that Python knows.
fn is_full_time(text: &str) -> bool {
    text.len() == 26 && !text.starts_with("0000") && time::parse(text).is_ok()
}

fn text(reader: &mut Reader<'_>, field: &'static str) -> Result<String, ArchiveError> {
    let bytes = reader.read_raw()?;
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| ArchiveError::Field(field))
}

fn words(reader: &mut Reader<'_>) -> Result<Vec<Vec<u8>>, ArchiveError> {
    let count = reader.read_array_len()?;
    if count > MAX_WORDS {
        return Err(msgpack::Error::TooLarge("array").into());
    }
    (0..count).map(|_| Ok(reader.read_raw()?.to_vec())).collect()
}

fn ids(reader: &mut Reader<'_>) -> Result<Vec<Id>, ArchiveError> {
    let count = reader.read_array_len()?;
    (0..count).map(|_| Ok(reader.read_id()?)).collect()
}
