//! What is fuzzed: for each target a plain function that takes any bytes, hands them to a parser of BorgCube (or to the session,
//! as a sequence of calls) and panics when something that must hold does not.
//!
//! *Is*: the targets and what must hold. Not "does not crash" alone: what we read we write again with the same meaning, what is
//! stored means the same to decoders that are not ours, the pieces in which a stream arrives change nothing, output stays within
//! its bound, and a session never proposes what the rules forbid.
//! *Is not*: a fuzzer. libFuzzer is in the project around this crate (`make fuzz`); the short run over seeds and their mutations is
//! this crate's own test.
//! *May be used by*: the fuzzer and tests.

pub mod bytes;
pub mod codecs;
pub mod control;
pub mod files;
pub mod items;
pub mod keys;
pub mod metadata;
pub mod msgpack;
pub mod mutate;
pub mod rpc;
pub mod session;
pub mod text;
pub mod wire;

/// One target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, also that of its directory of seeds.
    pub name: &'static str,
    /// Panics when something does not hold.
    pub run: fn(&[u8]),
    /// Longest input that is worth trying.
    pub longest: usize,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "archive", run: metadata::archive, longest: 4096 },
    Target { name: "borg-log", run: text::borg_log, longest: 4096 },
    Target { name: "chunks-index", run: files::chunks_index, longest: 64 * 1024 },
    Target { name: "compress", run: codecs::compress, longest: 64 * 1024 },
    Target { name: "config", run: text::config, longest: 4096 },
    Target { name: "configuration-file", run: text::configuration_file, longest: 4096 },
    Target { name: "control", run: control::calls, longest: 8192 },
    Target { name: "envelope", run: keys::envelope, longest: 4096 },
    Target { name: "frame", run: wire::frame, longest: 8192 },
    Target { name: "items", run: items::items, longest: 16 * 1024 },
    Target { name: "keyblob", run: keys::keyblob, longest: 4096 },
    Target { name: "lz4", run: codecs::lz4, longest: 8192 },
    Target { name: "lzma", run: codecs::lzma, longest: 8192 },
    Target { name: "manifest", run: metadata::manifest, longest: 4096 },
    Target { name: "msgpack", run: msgpack::values, longest: 4096 },
    Target { name: "object", run: codecs::object, longest: 8192 },
    Target { name: "obfuscate", run: codecs::obfuscate, longest: 8192 },
    Target { name: "owner-message", run: wire::owner_message, longest: 8192 },
    Target { name: "repository-config", run: files::repository_config, longest: 4096 },
    Target { name: "roster", run: files::roster, longest: 4096 },
    Target { name: "rpc-call", run: rpc::calls, longest: 8192 },
    Target { name: "rpc-reply", run: rpc::replies, longest: 8192 },
    Target { name: "segment", run: files::segment, longest: 8192 },
    Target { name: "session", run: session::run, longest: 4096 },
    Target { name: "token", run: text::token, longest: 256 },
    Target { name: "view-list", run: files::view_list, longest: 4096 },
    Target { name: "zlib", run: codecs::zlib, longest: 8192 },
    Target { name: "zstd", run: codecs::zstd, longest: 8192 },
];

/// The target of this name.
#[must_use]
pub fn find(name: &str) -> Option<Target> {
    TARGETS.iter().find(|target| target.name == name).copied()
}

/// Their names.
#[must_use]
pub fn names() -> Vec<&'static str> {
    TARGETS.iter().map(|target| target.name).collect()
}
