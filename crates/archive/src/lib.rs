//! Reading an archive: its list of files, their content, and what is made of them.
//!
//! What a client wrote is parsed here, in the process of whoever wants to read it, without keys: a repository's owner passes on the objects of one
//! archive, opened and still compressed ([`wire::reading`]).
//!
//! *Is*: items and content in order, with bounded memory and as much work beside it as there are processors; selection by Borg's patterns; tar;
//! extraction that cannot be led out of its target; comparison of two archives.
//! *Is not*: a user of keys, repositories or the database; a printer of anything.
//! *May be used by*: programs that people start, and the confined processes of workers.
//!
//! | module | |
//! |---|---|
//! | [`source`], [`channel`] | the connection to the owner: objects in the order they were asked for, verified |
//! | [`items`] | the list of files, over holes in it |
//! | [`pattern`], [`selection`] | which of them |
//! | [`feed`], [`links`] | items one after the other, each with its content or what it is a hard link to |
//! | [`tar`], [`export`] | as a tar archive |
//! | [`extract`], [`attributes`], [`acl`] | as files |
//! | [`tree`], [`mount`] | as a file system |
//! | [`trial`] | a sample as files, and their hashes |
//! | [`diff`] | what two archives have not in common |
//! | [`damaged`] | files with chunks that are damaged |
//! | [`uses`] | what an archive refers to, whole or not at all |

pub mod acl;
pub mod attributes;
pub mod channel;
pub mod damaged;
pub mod diff;
pub mod error;
pub mod export;
pub mod extract;
pub mod feed;
pub mod items;
pub mod kind;
pub mod links;
pub mod mount;
pub mod pattern;
pub mod selection;
pub mod source;
pub mod tar;
pub mod tree;
pub mod trial;
pub mod uses;

pub use error::{Error, Result};
pub use kind::Kind;
pub use selection::Selection;
pub use source::Source;

/// Something that went wrong with one file, and did not end the work: the file's path as it is in the archive (None: the archive as such), and
/// what is wrong.
pub type Complain<'a> = dyn FnMut(Option<&[u8]>, &str) + 'a;
