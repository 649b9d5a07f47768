//! What a client may ask for: the methods of Borg 1.x servers, all of them, with typed arguments.

use crate::Id;
use crate::msgpack::{self, Limits, Reader, shown};

/// One call. It borrows from the decoder's buffer.
#[derive(Debug, Clone, PartialEq)]
pub struct Request<'a> {
    /// Repeated in the reply. Every call gets exactly one.
    pub msgid: u64,
    /// What is asked for.
    pub method: Method<'a>,
}

/// The calls of Borg 1.x. The argument `wait`, which some calls carry, means nothing to a server and is dropped.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the fields are Borg's argument names")]
pub enum Method<'a> {
    /// First call of every session; the only one in positional form.
    Negotiate {
        client: ClientData,
    },
    /// Names the repository.
    Open {
        path: &'a [u8],
        create: bool,
        lock_wait: Option<f64>,
        lock: bool,
        exclusive: Option<bool>,
        append_only: bool,
        make_parent_dirs: bool,
    },
    LoadKey,
    SaveKey {
        keydata: &'a [u8],
    },
    GetFreeNonce,
    CommitNonceReservation {
        next_unreserved: u64,
        start_nonce: Option<u64>,
    },
    Get {
        id: Id,
    },
    Put {
        id: Id,
        data: &'a [u8],
    },
    Delete {
        id: Id,
    },
    Commit {
        save_space: bool,
        compact: bool,
        threshold: f64,
        cleanup_commits: bool,
    },
    Rollback,
    /// `__len__`
    Len,
    List {
        limit: Option<u64>,
        marker: Option<Id>,
    },
    Scan {
        limit: Option<u64>,
        marker: Option<Id>,
    },
    Check {
        repair: bool,
        save_space: bool,
        max_duration: f64,
    },
    BreakLock,
    Destroy,
    InjectException {
        kind: &'a [u8],
    },
    /// No method of any Borg 1.x server. Its arguments were not looked at.
    Unknown(&'a [u8]),
}

/// How a client introduces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientData {
    /// Its version, for example `[1, 4, 5, -1]`.
    Version(Vec<i64>),
    /// A number in place of a version: Borg 1.0 and older.
    Legacy(i64),
}

/// A well-formed message that is no valid call. The stream can go on after it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("RPC call{}: {kind}", method.as_deref().map(|name| format!(" {name:?}")).unwrap_or_default())]
pub struct RequestError {
    /// The call's number, as far as it could be found: for the reply.
    pub msgid: Option<u64>,
    /// The method's name, as far as it could be found.
    pub method: Option<String>,
    /// What is wrong.
    pub kind: RequestErrorKind,
}

/// What is wrong with a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestErrorKind {
    /// Neither the map form nor the positional form.
    #[error("the message is neither a map nor a list of four")]
    Shape,
    /// The positional form for anything but `negotiate`: what Borg 1.0 and older send.
    #[error("the positional form is only for negotiate")]
    Positional,
    /// A part of the message other than `i`, `m`, `a`.
    #[error("unknown part {0:?} of the message")]
    UnknownPart(String),
    /// A part or an argument that must be there.
    #[error("{0:?} is missing")]
    Missing(&'static str),
    /// A part or an argument that is there twice.
    #[error("{0:?} is there twice")]
    Duplicate(String),
    /// An argument that no Borg 1.x sends with this call.
    #[error("unknown argument {0:?}")]
    UnknownArgument(String),
    /// An argument of the wrong type, or out of range.
    #[error("argument {name:?}: {error}")]
    Argument {
        /// The argument.
        name: String,
        /// What is wrong with it.
        error: msgpack::Error,
    },
    /// An object id that is not 32 bytes long.
    #[error("argument {name:?}: an id is 32 bytes long, this is {length}")]
    Id {
        /// The argument.
        name: String,
        /// Its length.
        length: usize,
    },
    /// A part of the message of the wrong type.
    #[error("{name:?}: {error}")]
    Part {
        /// The part.
        name: &'static str,
        /// What is wrong with it.
        error: msgpack::Error,
    },
}

type Kind = RequestErrorKind;

/// Parses one complete message.
pub(super) fn parse<'a>(message: &'a [u8], limits: Limits) -> Result<Request<'a>, RequestError> {
    let mut found = Found::default();
    let method = match message.first() {
        Some(0x80..=0x8f | 0xde | 0xdf) => found.map_form(Reader::with_limits(message, limits)),
        Some(0x90..=0x9f | 0xdc | 0xdd) => found.positional_form(Reader::with_limits(message, limits)),
        _ => Err(Kind::Shape),
    };
    match (method, found.msgid) {
        (Ok(method), Some(msgid)) => Ok(Request { msgid, method }),
        (Ok(_), None) => Err(found.error(Kind::Missing("i"))),
        (Err(kind), _) => Err(found.error(kind)),
    }
}

/// What is known of a message so far; on errors it goes into the error.
#[derive(Default)]
struct Found<'a> {
    msgid: Option<u64>,
    method: Option<&'a [u8]>,
}

impl<'a> Found<'a> {
    fn error(&self, kind: Kind) -> RequestError {
        RequestError { msgid: self.msgid, method: self.method.map(shown), kind }
    }

    fn map_form(&mut self, mut reader: Reader<'a>) -> Result<Method<'a>, Kind> {
        let part = |name| move |error| Kind::Part { name, error };
        let mut arguments = None;
        for _ in 0..reader.read_map_len().map_err(part("message"))? {
            let seen = match reader.read_raw().map_err(part("message"))? {
                b"i" => self.msgid.replace(reader.read_uint().map_err(part("i"))?).map(|_| "i"),
                b"m" => self.method.replace(reader.read_raw().map_err(part("m"))?).map(|_| "m"),
                b"a" => {
                    let start = reader.clone();
                    reader.skip_value().map_err(part("a"))?;
                    arguments.replace(start).map(|_| "a")
                }
                other => return Err(Kind::UnknownPart(shown(other))),
            };
            if let Some(name) = seen {
                return Err(Kind::Duplicate(name.to_owned()));
            }
        }
        let method = self.method.ok_or(Kind::Missing("m"))?;
        Arguments::read(arguments.ok_or(Kind::Missing("a"))?)?.method(method)
    }

    /// `[1, msgid, method, [arguments]]`; the first field was always 1 and never meant anything.
    fn positional_form(&mut self, mut reader: Reader<'a>) -> Result<Method<'a>, Kind> {
        let part = |name| move |error| Kind::Part { name, error };
        if reader.read_array_len().map_err(part("message"))? != 4 {
            return Err(Kind::Shape);
        }
        reader.skip_value().map_err(part("message"))?;
        self.msgid = Some(reader.read_uint().map_err(part("i"))?);
        let method = reader.read_raw().map_err(part("m"))?;
        self.method = Some(method);
        if method != b"negotiate" {
            return Err(Kind::Positional);
        }
        if reader.read_array_len().map_err(part("a"))? != 1 {
            return Err(Kind::Missing("client_data"));
        }
        Ok(Method::Negotiate { client: client_data(&mut reader)? })
    }
}

/// `{"client_version": [1, 4, 5, -1]}` or a number. Other keys are for future clients.
fn client_data(reader: &mut Reader<'_>) -> Result<ClientData, Kind> {
    let argument = |error| Kind::Argument { name: "client_data".to_owned(), error };
    if let Ok(number) = reader.clone().read_int() {
        return Ok(ClientData::Legacy(number));
    }
    let mut version = None;
    for _ in 0..reader.read_map_len().map_err(argument)? {
        if reader.read_raw().map_err(argument)? != b"client_version" {
            reader.skip_value().map_err(argument)?;
            continue;
        }
        let length = reader.read_array_len().map_err(argument)?;
        if !(1..=8).contains(&length) {
            return Err(argument(msgpack::Error::Range));
        }
        let numbers: Result<Vec<i64>, _> = (0..length).map(|_| reader.read_int()).collect();
        if version.replace(numbers.map_err(argument)?).is_some() {
            return Err(Kind::Duplicate("client_version".to_owned()));
        }
    }
    version.map(ClientData::Version).ok_or(Kind::Missing("client_version"))
}

/// The arguments of a call: names, each with a reader at its value. Taken out one by one; what is left is unknown.
struct Arguments<'a> {
    left: Vec<(&'a [u8], Reader<'a>)>,
}

/// More than any method has.
const MOST_ARGUMENTS: usize = 16;

impl<'a> Arguments<'a> {
    fn read(mut reader: Reader<'a>) -> Result<Arguments<'a>, Kind> {
        let part = |error| Kind::Part { name: "a", error };
        let count = reader.read_map_len().map_err(part)?;
        if count > MOST_ARGUMENTS {
            return Err(part(msgpack::Error::TooLarge("map")));
        }
        let mut left: Vec<(&[u8], Reader<'a>)> = Vec::with_capacity(count);
        for _ in 0..count {
            let name = reader.read_raw().map_err(part)?;
            if left.iter().any(|(other, _)| *other == name) {
                return Err(Kind::Duplicate(shown(name)));
            }
            left.push((name, reader.clone()));
            reader.skip_value().map_err(part)?;
        }
        Ok(Arguments { left })
    }

    fn optional<T>(&mut self, name: &'static str, read: impl FnOnce(&mut Reader<'a>) -> msgpack::Result<T>) -> Result<Option<T>, Kind> {
        let Some(index) = self.left.iter().position(|(other, _)| *other == name.as_bytes()) else { return Ok(None) };
        let (_, mut reader) = self.left.swap_remove(index);
        read(&mut reader).map(Some).map_err(|error| Kind::Argument { name: name.to_owned(), error })
    }

    fn required<T>(&mut self, name: &'static str, read: impl FnOnce(&mut Reader<'a>) -> msgpack::Result<T>) -> Result<T, Kind> {
        self.optional(name, read)?.ok_or(Kind::Missing(name))
    }

    /// nil and absence are the same.
    fn nullable<T>(&mut self, name: &'static str, read: impl FnOnce(&mut Reader<'a>) -> msgpack::Result<T>) -> Result<Option<T>, Kind> {
        let value = self.optional(name, |reader| if reader.read_nil_if_next()? { Ok(None) } else { read(reader).map(Some) })?;
        Ok(value.flatten())
    }

    fn flag(&mut self, name: &'static str, default: bool) -> Result<bool, Kind> {
        Ok(self.nullable(name, Reader::read_bool)?.unwrap_or(default))
    }

    fn as_id(name: &'static str, bytes: &[u8]) -> Result<Id, Kind> {
        Id::try_from(bytes).map_err(|_| Kind::Id { name: name.to_owned(), length: bytes.len() })
    }

    fn id(&mut self, name: &'static str) -> Result<Id, Kind> {
        Self::as_id(name, self.required(name, Reader::read_raw)?)
    }

    fn marker(&mut self) -> Result<Option<Id>, Kind> {
        self.nullable("marker", Reader::read_raw)?.map(|bytes| Self::as_id("marker", bytes)).transpose()
    }

    fn method(mut self, name: &'a [u8]) -> Result<Method<'a>, Kind> {
        let method = match name {
            b"negotiate" => Method::Negotiate { client: self.client_data()? },
            b"open" => Method::Open {
                path: self.required("path", Reader::read_raw)?,
                create: self.flag("create", false)?,
                lock_wait: self.nullable("lock_wait", Reader::read_float)?,
                lock: self.flag("lock", true)?,
                exclusive: self.nullable("exclusive", Reader::read_bool)?,
                append_only: self.flag("append_only", false)?,
                make_parent_dirs: self.flag("make_parent_dirs", false)?,
            },
            b"load_key" => Method::LoadKey,
            b"save_key" => Method::SaveKey { keydata: self.required("keydata", Reader::read_raw)? },
            b"get_free_nonce" => Method::GetFreeNonce,
            b"commit_nonce_reservation" => Method::CommitNonceReservation {
                next_unreserved: self.required("next_unreserved", Reader::read_uint)?,
                start_nonce: self.nullable("start_nonce", Reader::read_uint)?,
            },
            b"get" => Method::Get { id: self.id("id")? },
            b"put" => Method::Put { id: self.id("id")?, data: self.required("data", Reader::read_raw)? },
            b"delete" => Method::Delete { id: self.id("id")? },
            b"commit" => Method::Commit {
                save_space: self.flag("save_space", false)?,
                compact: self.flag("compact", true)?,
                threshold: self.nullable("threshold", Reader::read_float)?.unwrap_or(0.1),
                cleanup_commits: self.flag("cleanup_commits", false)?,
            },
            b"rollback" => Method::Rollback,
            b"__len__" => Method::Len,
            b"list" => Method::List { limit: self.nullable("limit", Reader::read_uint)?, marker: self.marker()? },
            b"scan" => Method::Scan { limit: self.nullable("limit", Reader::read_uint)?, marker: self.marker()? },
            b"check" => Method::Check {
                repair: self.flag("repair", false)?,
                save_space: self.flag("save_space", false)?,
                max_duration: self.nullable("max_duration", Reader::read_float)?.unwrap_or(0.0),
            },
            b"break_lock" => Method::BreakLock,
            b"destroy" => Method::Destroy,
            b"inject_exception" => Method::InjectException { kind: self.required("kind", Reader::read_raw)? },
            unknown => return Ok(Method::Unknown(unknown)),
        };
        match self.left.iter().find(|(name, _)| *name != b"wait") {
            Some((name, _)) => Err(Kind::UnknownArgument(shown(name))),
            None => Ok(method),
        }
    }

    fn client_data(&mut self) -> Result<ClientData, Kind> {
        let missing = Kind::Missing("client_data");
        let index = self.left.iter().position(|(name, _)| *name == b"client_data").ok_or(missing)?;
        let (_, mut reader) = self.left.swap_remove(index);
        client_data(&mut reader)
    }
}
