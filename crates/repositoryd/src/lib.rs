//! The owner of a repository: the one process that holds its key and writes it.
//!
//! *Is*: creating and inspecting repositories; preparing sessions; taking their verified chunks, encrypting and storing them; judging the
//! references of an archive; committing it under the server's own name, time and signature, with an intent first and a record after.
//! *Is not*: a parser of anything that a client wrote. Chunks come verified, archives come as parsed facts, and the bytes in between are
//! only moved.
//! *May be used by*: nobody; it is a program. Fuzz targets read its files.
//!
//! Threads: one accepts, one per connection (session or worker) checks and encrypts, one writes. The writing one alone has the
//! repository, its manifest and its commits; everybody else sends it requests, and what was sent first is stored first.

mod behalf;
mod cli;
mod collection;
mod commit;
mod credentials;
mod doubts;
mod failures;
mod garbage;
mod gate;
mod intake;
mod intents;
mod jobs;
mod journal;
mod judging;
mod known;
mod leaving;
mod ledger;
mod legacy;
mod lending;
mod limits;
mod maintenance;
mod nonces;
mod open;
mod opening;
mod orphans;
mod owner;
mod parting;
mod pauses;
mod prepare;
mod pulse;
mod reconcile;
mod restore;
mod sent;
mod serve;
mod session;
mod space;
mod spoiled;
mod spool;
mod succession;
mod tidy;
mod tool;
mod unlock;
mod upkeep;
mod view;
pub mod viewlist;
mod visitors;
mod worker;
mod writer;

pub use cli::main;
