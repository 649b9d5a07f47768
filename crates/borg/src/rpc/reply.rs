//! Replies to a client.

use crate::Id;
use crate::msgpack::Writer;

/// What goes wrong on the serving side, as the client will see it.
///
/// Borg 1.x: classes it knows (`ObjectNotFound`, `IntegrityError`, `InvalidRPCMethod`, ...) use `args`; for any other class
/// the lines of `short` are the whole message, in every version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exception {
    /// Class name.
    pub class: String,
    /// Arguments of the class.
    pub args: Vec<Vec<u8>>,
    /// The message, line by line.
    pub short: Vec<String>,
}

impl Exception {
    /// An exception whose message is its own text: the best way to refuse something.
    #[must_use]
    pub fn refusal(class: &str, message: &str) -> Exception {
        Exception { class: class.to_owned(), args: Vec::new(), short: vec![message.to_owned()] }
    }

    /// The object does not exist. As the answer to a `get` of the manifest: no manifest.
    #[must_use]
    pub fn object_not_found(id: &Id, repository: &str) -> Exception {
        Exception {
            class: "ObjectNotFound".to_owned(),
            args: vec![id.to_hex().into_bytes(), repository.as_bytes().to_vec()],
            short: vec![format!("Object with key {id} not found in repository {repository}.")],
        }
    }

    /// A method that is not served.
    #[must_use]
    pub fn invalid_method(name: &str) -> Exception {
        Exception {
            class: "InvalidRPCMethod".to_owned(),
            args: vec![name.as_bytes().to_vec()],
            short: vec![format!("RPC method {name} is not valid")],
        }
    }
}

fn start(msgid: u64) -> Writer {
    let mut writer = Writer::append_to(Vec::with_capacity(32));
    writer.map(2);
    writer.raw(b"i");
    writer.uint(msgid);
    writer.raw(b"r");
    writer
}

/// The answer to `negotiate`: positional, with our version (see [`super::SERVER_VERSION`]).
#[must_use]
pub fn negotiated(msgid: u64, version: &[i64]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.array(4);
    writer.uint(1);
    writer.uint(msgid);
    writer.nil();
    writer.map(1);
    writer.raw(b"server_version");
    writer.array(version.len());
    version.iter().for_each(|number| writer.int(*number));
    writer.into_bytes()
}

/// nil: the answer to `put`, `delete`, `commit`, ...
#[must_use]
pub fn nil(msgid: u64) -> Vec<u8> {
    let mut writer = start(msgid);
    writer.nil();
    writer.into_bytes()
}

/// Bytes: the answer to `get`, `open`, `load_key`.
#[must_use]
pub fn raw(msgid: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = raw_head(msgid, bytes.len());
    out.extend_from_slice(bytes);
    out
}

/// The start of [`raw`]; exactly `length` bytes must be sent right after it. Saves copying an object.
#[must_use]
pub fn raw_head(msgid: u64, length: usize) -> Vec<u8> {
    let mut writer = start(msgid);
    writer.raw_head(length);
    writer.into_bytes()
}

/// A number: the answer to `__len__` and `get_free_nonce`.
#[must_use]
pub fn int(msgid: u64, value: u64) -> Vec<u8> {
    let mut writer = start(msgid);
    writer.uint(value);
    writer.into_bytes()
}

/// true or false: the answer to `check`.
#[must_use]
pub fn bool(msgid: u64, value: bool) -> Vec<u8> {
    let mut writer = start(msgid);
    writer.bool(value);
    writer.into_bytes()
}

/// Ids: the answer to `list` and `scan`.
#[must_use]
pub fn ids(msgid: u64, ids: &[Id]) -> Vec<u8> {
    let mut writer = start(msgid);
    writer.array(ids.len());
    ids.iter().for_each(|id| writer.raw(&id.0));
    writer.into_bytes()
}

/// An exception, in the form all clients from 1.1 on understand; without a traceback.
#[must_use]
pub fn exception(msgid: u64, exception: &Exception) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.map(7);
    writer.raw(b"i");
    writer.uint(msgid);
    writer.raw(b"exception_class");
    writer.raw(exception.class.as_bytes());
    writer.raw(b"exception_args");
    writer.array(exception.args.len());
    exception.args.iter().for_each(|argument| writer.raw(argument));
    for name in ["exception_full", "exception_short"] {
        writer.raw(name.as_bytes());
        writer.array(exception.short.len());
        exception.short.iter().for_each(|line| writer.raw(line.as_bytes()));
    }
    writer.raw(b"exception_trace");
    writer.bool(false);
    writer.raw(b"sysinfo");
    writer.raw(b"");
    writer.into_bytes()
}
