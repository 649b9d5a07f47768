//! What people set up: repositories, clients, backup configs, settings.

use model::{BackupConfig, Client, ClientName, ConfigName, Repository, RepositoryName, Settings};

use super::kind;
use crate::error::{Error, Result};
use crate::handle::TableRef;
use crate::key::{Key, KeyBytes, KeyParts};
use crate::record::{Evolution, Record};
use crate::table::{Index, Table};

/// Reads a validated name out of a key.
pub(super) fn name<T: std::str::FromStr>(parts: &mut KeyParts<'_>) -> Result<T> {
    let text = parts.text()?;
    text.parse().map_err(|_| Error::BadKey(text.to_owned(), "it is no valid name"))
}

impl Key for RepositoryName {
    fn encode(&self) -> Result<Vec<u8>> {
        Ok(KeyBytes::new().text(self.as_str())?.finish())
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut parts = KeyParts::of(bytes);
        let name = name(&mut parts)?;
        parts.end().map(|()| name)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Key for ClientName {
    fn encode(&self) -> Result<Vec<u8>> {
        Ok(KeyBytes::new().text(self.as_str())?.finish())
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut parts = KeyParts::of(bytes);
        let name = name(&mut parts)?;
        parts.end().map(|()| name)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Key for ConfigName {
    fn encode(&self) -> Result<Vec<u8>> {
        Ok(KeyBytes::new().text(self.client.as_str())?.text(self.label.as_str())?.finish())
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut parts = KeyParts::of(bytes);
        let config = ConfigName { client: name(&mut parts)?, label: name(&mut parts)? };
        parts.end().map(|()| config)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// The key of a table with one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Only;

impl Key for Only {
    fn encode(&self) -> Result<Vec<u8>> {
        Ok(KeyBytes::new().text("server")?.finish())
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        String::decode(bytes).map(|_| Only)
    }

    fn show(&self) -> String {
        "of the server".to_owned()
    }
}

impl Record for Repository {
    const KIND: u16 = kind::REPOSITORY;
    const NAME: &'static str = "repository";
    const VERSION: u16 = 1;
}

impl Record for Client {
    const KIND: u16 = kind::CLIENT;
    const NAME: &'static str = "client";
    const VERSION: u16 = 3;
    fn evolutions() -> &'static [Evolution] {
        &[
            // Who was set up before there were job keys has a key of its own, and goes on with it.
            Evolution { from: 1, to: 2, apply: |body| client_key(body, "permanent") },
            // Without binaries on this server nothing changes for those from before there were any.
            Evolution { from: 2, to: 3, apply: |_| Ok(()) },
        ]
    }
}

/// A client that is reached by SSH gets its choice of keys.
fn client_key(body: &mut serde_json::Value, key: &str) -> std::result::Result<(), String> {
    let connection = body.get_mut("connection").and_then(|c| c.as_object_mut()).ok_or("it has no connection")?;
    if connection.get("kind").is_some_and(|kind| kind == "ssh") {
        connection.insert("key".into(), key.into());
    }
    Ok(())
}

impl Record for BackupConfig {
    const KIND: u16 = kind::CONFIG;
    const NAME: &'static str = "backup config";
    const VERSION: u16 = 2;
    fn evolutions() -> &'static [Evolution] {
        // Before there were target ages, everybody's was the default.
        &[Evolution { from: 1, to: 2, apply: |_| Ok(()) }]
    }
}

impl Record for Settings {
    const KIND: u16 = kind::SETTINGS;
    const NAME: &'static str = "settings";
    const VERSION: u16 = 1;
}

/// `repositories`: [`Repository`] by name.
pub struct Repositories;

impl Table for Repositories {
    type Key = RepositoryName;
    type Record = Repository;
    const NAME: &'static str = "repositories";
    fn key(record: &Repository) -> RepositoryName {
        record.name.clone()
    }
}

/// `clients`: [`Client`] by name.
pub struct Clients;

impl Table for Clients {
    type Key = ClientName;
    type Record = Client;
    const NAME: &'static str = "clients";
    fn key(record: &Client) -> ClientName {
        record.name.clone()
    }
}

/// `settings`: the one [`Settings`] of the server.
pub struct SettingsTable;

impl Table for SettingsTable {
    type Key = Only;
    type Record = Settings;
    const NAME: &'static str = "settings";
    fn key(_: &Settings) -> Only {
        Only
    }
}

/// `configs`: [`BackupConfig`] by client and label.
pub struct Configs;

const CONFIGS_BY_REPOSITORY: &str = "configs-by-repository";

impl Table for Configs {
    type Key = ConfigName;
    type Record = BackupConfig;
    const NAME: &'static str = "configs";
    fn key(record: &BackupConfig) -> ConfigName {
        record.name()
    }
    fn indexes() -> &'static [Index<BackupConfig>] {
        &[Index { name: CONFIGS_BY_REPOSITORY, fronts: |config| Ok(vec![config.repository.encode()?]) }]
    }
}

impl TableRef<'_, Configs> {
    /// The configs of one client, by label.
    pub fn of_client(&self, client: &ClientName) -> Result<Vec<BackupConfig>> {
        let entries = self.read.scan(Configs::NAME, &client.encode()?)?;
        entries.map(|entry| self.indexed(entry?.0)).collect()
    }

    /// The configs that write into one repository, by client and label.
    pub fn of_repository(&self, repository: &RepositoryName) -> Result<Vec<BackupConfig>> {
        let entries = self.read.scan(CONFIGS_BY_REPOSITORY, &repository.encode()?)?;
        entries.map(|entry| self.indexed(entry?.1)).collect()
    }
}
