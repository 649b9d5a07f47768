//! What `borgcube-repositoryd create` and `inspect` print: the facts of a repository that go into its record.

use model::{EncryptionMode, Failure};
use serde::{Deserialize, Serialize};

/// A repository as it was found or made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It can be used.
    Repository(Facts),
    /// It can't.
    Failed(Failure),
}

/// What is known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// 64 hex digits.
    pub repository_id: String,
    /// Its encryption.
    pub encryption: EncryptionMode,
    /// Archives that it already holds.
    pub archives: u64,
    /// Objects that it already holds.
    pub objects: u64,
}
