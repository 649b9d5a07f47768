//! Retention policies, and what is known of the clock that they go by.

use model::retention::Jump;
use model::{Policy, PolicyName};

use super::basics::name;
use super::kind;
use crate::error::Result;
use crate::key::{Key, KeyBytes, KeyParts};
use crate::record::Record;
use crate::table::Table;

impl Key for PolicyName {
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

impl Record for Policy {
    const KIND: u16 = kind::POLICY;
    const NAME: &'static str = "policy";
    const VERSION: u16 = 1;
}

impl Record for Jump {
    const KIND: u16 = kind::CLOCK_JUMP;
    const NAME: &'static str = "clock jump";
    const VERSION: u16 = 1;
}

/// `policies`: [`Policy`] by name.
pub struct PolicyTable;

impl Table for PolicyTable {
    type Key = PolicyName;
    type Record = Policy;
    const NAME: &'static str = "policies";
    fn key(record: &Policy) -> PolicyName {
        record.name.clone()
    }
}

/// `clock-jumps`: [`Jump`] by job.
pub struct ClockJumps;

impl Table for ClockJumps {
    type Key = u64;
    type Record = Jump;
    const NAME: &'static str = "clock-jumps";
    const NO_UNDO: Option<&'static str> =
        Some("what the clock showed is no decision of anybody; `borgcube policy confirm` says that it is right");
    fn key(record: &Jump) -> u64 {
        record.job
    }
}
