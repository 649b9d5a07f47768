//! Server-wide settings.

use crate::queue::Limits;
use crate::web_user::WebSettings;
use serde::{Deserialize, Serialize};

/// What holds for the whole server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Distinguishes this server's cache directory on its clients from other servers'; random, made once.
    pub server_id: String,
    /// How many jobs may run at once.
    pub limits: Limits,
    /// What one backup may do to the server; as long as nothing was changed it is not stored.
    #[serde(default, skip_serializing_if = "SessionLimits::is_default")]
    pub sessions: SessionLimits,
    /// Whose claims the status pages are believed; as long as nothing was changed it is not stored.
    #[serde(default, skip_serializing_if = "WebSettings::is_default")]
    pub web: WebSettings,
}

/// What one client may do to the server, in one backup and with what it keeps. All of it is generous for honest clients; what goes
/// beyond ends the backup with the cause `quota-exceeded` or `too-slow`, which is no accusation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionLimits {
    /// Objects that may be put.
    pub objects: u64,
    /// Of these, objects of less than 64 bytes of plaintext. Small files make small chunks, but not in any number; each costs the
    /// repository's index as much memory as a large one.
    pub small_objects: u64,
    /// Bytes that may be put.
    pub bytes: u64,
    /// Checkpoints that may be committed.
    pub checkpoints: u64,
    /// Archives and checkpoints that may be proposed in a minute, beside the first [`SessionLimits::BURST`].
    pub proposals_per_minute: u64,
    /// Seconds until the client's borg has begun, and from its end to the client's.
    pub start_seconds: u64,
    /// Seconds without a message from the client.
    pub idle_seconds: u64,
    /// Seconds in all.
    pub total_seconds: u64,
    /// Seconds that a message may take to arrive, however long it is...
    pub grace_seconds: u64,
    /// ...and behind that the bytes of it that must come in a second.
    pub bytes_per_second: u64,
    /// Archives that one client may have in one repository.
    pub client_archives: u64,
    /// Bytes that one client's archives may refer to in one repository, compressed, counted as if it were the only client: what others
    /// have stored changes nothing.
    pub client_bytes: u64,
    /// Bytes of a backup's log that what its client writes may fill; what comes behind is dropped, with a line that says so.
    pub log_bytes: u64,
}

impl Default for SessionLimits {
    fn default() -> Self {
        SessionLimits {
            objects: 50_000_000,
            small_objects: 1_000_000,
            bytes: 1 << 46,
            checkpoints: 100_000,
            proposals_per_minute: 60,
            start_seconds: 3600,
            idle_seconds: 4 * 3600,
            total_seconds: 7 * 24 * 3600,
            grace_seconds: 300,
            bytes_per_second: 1024,
            client_archives: 20_000,
            client_bytes: 1 << 50,
            log_bytes: 64 << 20,
        }
    }
}

impl SessionLimits {
    /// Proposals that need not wait for a minute to pass.
    pub const BURST: u64 = 32;

    fn is_default(&self) -> bool {
        *self == SessionLimits::default()
    }

    /// The first limit that makes no sense, if any: a backup needs at least one of everything, and enough time.
    pub fn wrong(&self) -> Option<&'static str> {
        let least = [
            ("objects", self.objects, 1),
            ("bytes", self.bytes, 1 << 20),
            ("start-seconds", self.start_seconds, 1),
            ("idle-seconds", self.idle_seconds, 1),
            ("total-seconds", self.total_seconds, 1),
            ("grace-seconds", self.grace_seconds, 1),
            ("bytes-per-second", self.bytes_per_second, 1),
            ("client-archives", self.client_archives, 1),
            ("client-bytes", self.client_bytes, 1),
        ];
        least.into_iter().find(|(_, value, least)| value < least).map(|(name, ..)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_stored_before_there_were_session_limits_have_the_defaults() {
        let old = r#"{"server_id":"a","limits":{"per_client":1,"per_repository":4,"total":16}}"#;
        let settings: Settings = serde_json::from_str(old).unwrap();
        assert_eq!(settings.sessions, SessionLimits::default());
        assert_eq!(serde_json::to_string(&settings).unwrap(), old);
        let newer = r#"{"objects":5}"#;
        let limits: SessionLimits = serde_json::from_str(newer).unwrap();
        assert_eq!(limits, SessionLimits { objects: 5, ..SessionLimits::default() });
        assert_eq!(limits.wrong(), None);
        assert_eq!(SessionLimits { idle_seconds: 0, ..limits }.wrong(), Some("idle-seconds"));
    }
}
