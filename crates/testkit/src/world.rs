//! A place of its own for borg: home, caches, keys and security records that no other test sees.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A temporary directory with everything borg keeps about a user, and the variables borg is started with.
///
/// The directory goes when the value is dropped.
#[derive(Debug)]
pub struct BorgWorld {
    directory: TempDir,
    variables: Vec<(OsString, OsString)>,
}

impl Default for BorgWorld {
    fn default() -> Self {
        Self::new()
    }
}

impl BorgWorld {
    /// An empty world without a passphrase.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("borg-world-").tempdir().expect("a temporary directory can be made");
        Self { directory, variables: Vec::new() }
    }

    /// The same, with the passphrase that new and opened repositories have.
    pub fn with_passphrase(passphrase: &str) -> Self {
        let mut world = Self::new();
        world.set("BORG_PASSPHRASE", passphrase);
        world
    }

    /// Every borg of this world is started with this variable; it wins over the ones set by default.
    pub fn set(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        let name = name.as_ref().to_owned();
        self.variables.retain(|(known, _)| *known != name);
        self.variables.push((name, value.as_ref().to_owned()));
        self
    }

    /// Where this world is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A path inside of it, to put repositories and extracted files at.
    pub fn join(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.path().join(relative)
    }

    /// A command in this world, with nothing inherited but where programs and temporary files are.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().stdin(Stdio::null());
        for name in ["PATH", "TMPDIR"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("HOME", self.path())
            .env("LANG", "C.UTF-8")
            .env("LC_ALL", "C.UTF-8")
            .env("BORG_BASE_DIR", self.path())
            // Its self test costs a quarter of a second at each start and tests borg, not us.
            .env("BORG_SELFTEST", "disabled")
            // A question could not be answered: standard input is empty.
            .env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes")
            .env("BORG_RELOCATED_REPO_ACCESS_IS_OK", "yes")
            .env("BORG_DELETE_I_KNOW_WHAT_I_AM_DOING", "YES")
            .env("BORG_CHECK_I_KNOW_WHAT_I_AM_DOING", "YES");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}
