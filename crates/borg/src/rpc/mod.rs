//! Borg's RPC, without doing any I/O: bytes in, typed messages out, and back.
//!
//! [`ServerDecoder`] and [`reply`] are the side that serves a client; [`call`] and [`ReplyDecoder`] the side that talks
//! to `borg serve`. Strings go out as raw16 and raw32 only, since older clients die of anything newer (Borg 1.x).

pub mod call;
pub mod reply;
mod request;
mod response;
mod server;

pub use request::{ClientData, Method, Request, RequestError, RequestErrorKind};
pub use response::{RemoteException, Reply, ReplyDecoder};
pub use server::ServerDecoder;

/// A byte stream that is no RPC stream; nothing after it can be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the RPC stream is malformed: {0}")]
pub struct StreamError(#[from] pub crate::msgpack::Error);

/// Largest message a stock peer sends: an object of 20 MiB and what is around it.
pub const MAX_MESSAGE: usize = 21 << 20;

/// The version to answer `negotiate` with: it satisfies every gate of all 1.x clients.
pub const SERVER_VERSION: [i64; 4] = [1, 2, 8, -1];
