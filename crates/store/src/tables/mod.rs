//! BorgCube's tables: which record lies where, and what it is found by.
//!
//! | table          | key                     | indexes                                        |
//! |----------------|-------------------------|------------------------------------------------|
//! | `repositories` | name                    |                                                |
//! | `clients`      | name                    |                                                |
//! | `configs`      | client, label           | repository                                     |
//! | `jobs`         | number                  | state; client; repository; config; kind; label |
//! | `archives`     | repository, archive id  | time; client; config; repository; name; job; incomplete |
//! | `settings`     | the only one            |                                                |
//! | `sessions`     | hash of the token       | job                                            |
//! | `intents`      | repository, job         |                                                |
//! | `deletions`    | repository              |                                                |
//! | `schedules`    | name                    |                                                |
//! | `occurrences`  | number                  | schedule; schedule and time                    |
//! | `triggers`     | id                      |                                                |
//! | `policies`     | name                    |                                                |
//! | `clock-jumps`  | job                     |                                                |
//! | `restore-tests`| client, label           |                                                |
//! | `check-configs`| name                    |                                                |
//! | `health`       | repository              |                                                |
//! | `web-users`    | name                    |                                                |
//! | `space`        | repository, day         | (not in the log)                               |

mod archives;
mod basics;
mod checks;
mod jobs;
mod owner;
mod restore_tests;
mod retention;
mod schedules;
mod space;
mod web_users;

pub use archives::{ArchiveFilter, ArchiveKey, Archives};
pub use basics::{Clients, Configs, Repositories, SettingsTable};
pub use checks::{CheckConfigs, HealthTable};
pub use jobs::{JobFilter, Jobs};
pub use owner::{Deletion, Deletions, Intent, IntentKey, Intents, PreparedSession, Sessions};
pub use restore_tests::RestoreTests;
pub use retention::{ClockJumps, PolicyTable};
pub use schedules::{OccurrenceFilter, Occurrences, Schedules, Triggers};
pub use space::{SpaceKey, SpaceTable};
pub use web_users::WebUsers;

use crate::error::Result;
use crate::handle::{TableMut, TableRef};
use crate::table::TableDef;
use crate::txn::{Read, Write};

/// The kinds of records, each number once and for ever.
mod kind {
    // 1 is the log's entry.
    pub const REPOSITORY: u16 = 2;
    pub const CLIENT: u16 = 3;
    pub const CONFIG: u16 = 4;
    pub const JOB: u16 = 5;
    pub const ARCHIVE: u16 = 6;
    pub const SETTINGS: u16 = 7;
    pub const SESSION: u16 = 8;
    pub const INTENT: u16 = 9;
    pub const SCHEDULE: u16 = 10;
    pub const OCCURRENCE: u16 = 11;
    pub const TRIGGER: u16 = 12;
    pub const POLICY: u16 = 13;
    pub const CLOCK_JUMP: u16 = 14;
    pub const RESTORE_TESTS: u16 = 15;
    pub const CHECK_CONFIG: u16 = 20;
    pub const HEALTH: u16 = 21;
    pub const DELETION: u16 = 22;
    pub const WEB_USER: u16 = 23;
    pub const SPACE: u16 = 24;
}

/// All tables.
pub(crate) fn all() -> Vec<TableDef> {
    vec![
        TableDef::of::<Repositories>(),
        TableDef::of::<Clients>(),
        TableDef::of::<Configs>(),
        TableDef::of::<Jobs>(),
        TableDef::of::<Archives>(),
        TableDef::of::<SettingsTable>(),
        TableDef::of::<Sessions>(),
        TableDef::of::<Intents>(),
        TableDef::of::<Deletions>(),
        TableDef::of::<Schedules>(),
        TableDef::of::<Occurrences>(),
        TableDef::of::<Triggers>(),
        TableDef::of::<PolicyTable>(),
        TableDef::of::<ClockJumps>(),
        TableDef::of::<RestoreTests>(),
        TableDef::of::<CheckConfigs>(),
        TableDef::of::<HealthTable>(),
        TableDef::of::<WebUsers>(),
        TableDef::of::<SpaceTable>(),
    ]
}

impl<'t> Read<'t> {
    /// The repositories by name.
    pub fn repositories(&self) -> TableRef<'t, Repositories> {
        self.table()
    }

    /// The clients by name.
    pub fn clients(&self) -> TableRef<'t, Clients> {
        self.table()
    }

    /// The backup configs by client and label.
    pub fn configs(&self) -> TableRef<'t, Configs> {
        self.table()
    }

    /// The jobs by number.
    pub fn jobs(&self) -> TableRef<'t, Jobs> {
        self.table()
    }

    /// The archives by repository and id.
    pub fn archives(&self) -> TableRef<'t, Archives> {
        self.table()
    }

    /// The server's settings, once they were made.
    pub fn settings(&self) -> Result<Option<model::Settings>> {
        self.table::<SettingsTable>().get(&basics::Only)
    }

    /// The sessions that the owners prepared, by the hash of their token.
    pub fn sessions(&self) -> TableRef<'t, Sessions> {
        self.table()
    }

    /// What the owners are about to commit.
    pub fn intents(&self) -> TableRef<'t, Intents> {
        self.table()
    }

    /// What owners take out of their repositories at this moment, by repository.
    pub fn deletions(&self) -> TableRef<'t, Deletions> {
        self.table()
    }

    /// The schedules by name.
    pub fn schedules(&self) -> TableRef<'t, Schedules> {
        self.table()
    }

    /// What became of the schedules' occurrences, by number.
    pub fn occurrences(&self) -> TableRef<'t, Occurrences> {
        self.table()
    }

    /// The triggers by id.
    pub fn triggers(&self) -> TableRef<'t, Triggers> {
        self.table()
    }

    /// The retention policies by name.
    pub fn policies(&self) -> TableRef<'t, PolicyTable> {
        self.table()
    }

    /// Where the server's clock jumped, by the job before which it was noticed.
    pub fn clock_jumps(&self) -> TableRef<'t, ClockJumps> {
        self.table()
    }

    /// What restore tests have found, by client and label.
    pub fn restore_tests(&self) -> TableRef<'t, RestoreTests> {
        self.table()
    }

    /// The check configs by name.
    pub fn check_configs(&self) -> TableRef<'t, CheckConfigs> {
        self.table()
    }

    /// What checks have found, by repository.
    pub fn health(&self) -> TableRef<'t, HealthTable> {
        self.table()
    }

    /// Who may sign in to the status pages, by name.
    pub fn web_users(&self) -> TableRef<'t, WebUsers> {
        self.table()
    }

    /// What repositories take up, by repository and day.
    pub fn space(&self) -> TableRef<'t, SpaceTable> {
        self.table()
    }
}

impl<'t> Write<'t> {
    /// The repositories by name.
    pub fn repositories(&mut self) -> TableMut<'_, 't, Repositories> {
        self.table()
    }

    /// The clients by name.
    pub fn clients(&mut self) -> TableMut<'_, 't, Clients> {
        self.table()
    }

    /// The backup configs by client and label.
    pub fn configs(&mut self) -> TableMut<'_, 't, Configs> {
        self.table()
    }

    /// The jobs by number.
    pub fn jobs(&mut self) -> TableMut<'_, 't, Jobs> {
        self.table()
    }

    /// The archives by repository and id.
    pub fn archives(&mut self) -> TableMut<'_, 't, Archives> {
        self.table()
    }

    /// Makes or replaces the server's settings.
    pub fn set_settings(&mut self, settings: &model::Settings) -> Result<()> {
        self.table::<SettingsTable>().put(settings)
    }

    /// The sessions that the owners prepared, by the hash of their token.
    pub fn sessions(&mut self) -> TableMut<'_, 't, Sessions> {
        self.table()
    }

    /// What the owners are about to commit.
    pub fn intents(&mut self) -> TableMut<'_, 't, Intents> {
        self.table()
    }

    /// What owners take out of their repositories at this moment, by repository.
    pub fn deletions(&mut self) -> TableMut<'_, 't, Deletions> {
        self.table()
    }

    /// The schedules by name.
    pub fn schedules(&mut self) -> TableMut<'_, 't, Schedules> {
        self.table()
    }

    /// What became of the schedules' occurrences, by number.
    pub fn occurrences(&mut self) -> TableMut<'_, 't, Occurrences> {
        self.table()
    }

    /// The triggers by id.
    pub fn triggers(&mut self) -> TableMut<'_, 't, Triggers> {
        self.table()
    }

    /// The retention policies by name.
    pub fn policies(&mut self) -> TableMut<'_, 't, PolicyTable> {
        self.table()
    }

    /// Where the server's clock jumped, by the job before which it was noticed.
    pub fn clock_jumps(&mut self) -> TableMut<'_, 't, ClockJumps> {
        self.table()
    }

    /// What restore tests have found, by client and label.
    pub fn restore_tests(&mut self) -> TableMut<'_, 't, RestoreTests> {
        self.table()
    }

    /// The check configs by name.
    pub fn check_configs(&mut self) -> TableMut<'_, 't, CheckConfigs> {
        self.table()
    }

    /// What checks have found, by repository.
    pub fn health(&mut self) -> TableMut<'_, 't, HealthTable> {
        self.table()
    }

    /// Who may sign in to the status pages, by name.
    pub fn web_users(&mut self) -> TableMut<'_, 't, WebUsers> {
        self.table()
    }

    /// What repositories take up, by repository and day.
    pub fn space(&mut self) -> TableMut<'_, 't, SpaceTable> {
        self.table()
    }
}
