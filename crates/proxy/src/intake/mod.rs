//! What is looked at before anything is accepted: objects, manifests, archive metadata, items.
//!
//! Nothing here talks to anybody. Everything takes bytes of a hostile client and says what they are, or which rule they break.

pub mod archive;
pub mod item;
pub mod manifest;
pub mod object;
pub mod paths;
pub mod stream;
