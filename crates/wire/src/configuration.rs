//! What the control socket tells about the configuration as a whole.

use model::ConfigName;
use model::declarative::{Change, Configuration};
use serde::{Deserialize, Serialize};

/// Everything that people set up, from one snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Configured {
    /// The newest transaction in it.
    pub transaction: u64,
    /// The records.
    pub configuration: Configuration,
    /// Configs, existing ones and others, that have archives.
    pub archived: Vec<ConfigName>,
}

/// Changes, all of them or none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Changes {
    /// The transaction that the plan was made from. Refused when the configuration was changed since.
    pub base: u64,
    /// What is to be done.
    pub changes: Vec<Change>,
    /// What for, for the transaction log.
    #[serde(default)]
    pub note: String,
}

/// They were made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The transaction that did it; 0 if there was nothing to do.
    pub transaction: u64,
    /// What a person should know about it.
    #[serde(default)]
    pub warnings: Vec<String>,
}
