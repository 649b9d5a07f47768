//! Server-wide settings.

use crate::queue::Limits;
use serde::{Deserialize, Serialize};

/// What holds for the whole server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Distinguishes this server's cache directory on its clients from other servers'; random, made once.
    pub server_id: String,
    /// How many jobs may run at once.
    pub limits: Limits,
}
