//! What is remembered of restore tests.

use model::ConfigName;
use model::restore_test::TestRecord;

use super::kind;
use crate::record::Record;
use crate::table::Table;

impl Record for TestRecord {
    const KIND: u16 = kind::RESTORE_TESTS;
    const NAME: &'static str = "restore tests";
    const VERSION: u16 = 1;
}

/// `restore-tests`: [`TestRecord`] by client and label.
pub struct RestoreTests;

impl Table for RestoreTests {
    type Key = ConfigName;
    type Record = TestRecord;
    const NAME: &'static str = "restore-tests";
    const NO_UNDO: Option<&'static str> = Some("what restore tests have found is no decision of anybody");
    fn key(record: &TestRecord) -> ConfigName {
        ConfigName { client: record.client.clone(), label: record.label.clone() }
    }
}
