//! Check configs, and what checks have found.

use model::check::Health;
use model::{CheckConfig, CheckName, RepositoryName};

use super::basics::name;
use super::kind;
use crate::error::Result;
use crate::key::{Key, KeyBytes, KeyParts};
use crate::record::Record;
use crate::table::Table;

impl Key for CheckName {
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

impl Record for CheckConfig {
    const KIND: u16 = kind::CHECK_CONFIG;
    const NAME: &'static str = "check config";
    const VERSION: u16 = 1;
}

impl Record for Health {
    const KIND: u16 = kind::HEALTH;
    const NAME: &'static str = "health";
    const VERSION: u16 = 1;
}

/// `check-configs`: [`CheckConfig`] by name.
pub struct CheckConfigs;

impl Table for CheckConfigs {
    type Key = CheckName;
    type Record = CheckConfig;
    const NAME: &'static str = "check-configs";
    fn key(record: &CheckConfig) -> CheckName {
        record.name.clone()
    }
}

/// `health`: [`Health`] by repository.
pub struct HealthTable;

impl Table for HealthTable {
    type Key = RepositoryName;
    type Record = Health;
    const NAME: &'static str = "health";
    const NO_UNDO: Option<&'static str> = Some("what a check has found is no decision of anybody; the next one finds out how it is then");
    fn key(record: &Health) -> RepositoryName {
        record.repository.clone()
    }
}
