//! The file `config` of a client's cache.

use crate::{Id, KeyType, RepositoryId};

/// What the config says. What is `None` is left out, and the client accepts that.
#[derive(Debug, Clone, Copy)]
pub struct CacheConfig<'a> {
    /// The repository.
    pub repository: RepositoryId,
    /// Id of the manifest's plaintext, see [`crate::manifest::manifest_id`]: if the manifest the client gets has this id, it
    /// uses its cache as it is.
    pub manifest: Id,
    /// Timestamp of that manifest; the client refuses older ones from then on.
    pub timestamp: Option<&'a str>,
    /// Type of the key; the client refuses others from then on.
    pub key_type: Option<KeyType>,
    /// URL in canonical form; the client asks a person if it changes.
    pub previous_location: Option<&'a str>,
}

/// The config's text, without `[integrity]`: clients check only what is there (Borg 1.x). Control characters, which have no
/// business in the texts, are dropped, so that no line can be smuggled in.
#[must_use]
pub fn cache_config(config: &CacheConfig<'_>) -> String {
    let mut text = format!("[cache]\nversion = 1\nrepository = {}\nmanifest = {}\n", config.repository, config.manifest);
    let mut line = |name: &str, value: &str| {
        text.push_str(name);
        text.push_str(" = ");
        text.extend(value.chars().filter(|letter| !letter.is_control()));
        text.push('\n');
    };
    if let Some(timestamp) = config.timestamp {
        line("timestamp", timestamp);
    }
    if let Some(kind) = config.key_type {
        line("key_type", &kind.byte().to_string());
    }
    if let Some(location) = config.previous_location {
        line("previous_location", location);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_as_borg_reads_it() {
        let mut config = CacheConfig {
            repository: RepositoryId([0xab; 32]),
            manifest: Id([0xcd; 32]),
            timestamp: Some("2026-01-02T03:04:05.000006"),
            key_type: Some(KeyType::Authenticated),
            previous_location: Some("ssh://a@b/./x\nversion = 2"),
        };
        let start = format!("[cache]\nversion = 1\nrepository = {}\nmanifest = {}\n", "ab".repeat(32), "cd".repeat(32));
        let full = "timestamp = 2026-01-02T03:04:05.000006\nkey_type = 7\nprevious_location = ssh://a@b/./xversion = 2\n";
        assert_eq!(cache_config(&config), format!("{start}{full}"));
        (config.timestamp, config.key_type, config.previous_location) = (None, None, None);
        assert_eq!(cache_config(&config), start);
    }
}
