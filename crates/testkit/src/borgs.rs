//! The real borgs: where they are on this machine, and what tests ask of them.
//!
//! `scripts/setup test` puts them there. A version that could not be had is reported as a row that was not run.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::tree;
use crate::world::BorgWorld;

/// The seven ways a Borg 1.x repository can be made, as `borg init --encryption` calls them.
pub const MODES: [&str; 7] = ["none", "repokey", "keyfile", "repokey-blake2", "keyfile-blake2", "authenticated", "authenticated-blake2"];

/// One real borg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Borg {
    /// As it says itself: `1.4.5`.
    pub version: String,
    /// Where it is.
    pub program: PathBuf,
}

/// Says, where nobody can miss it, that the rows of the matrix with this borg were not run.
pub fn not_run(what: &str, why: &str) {
    eprintln!("\n!!!!! NOT RUN: {what}: {why}\n");
}

impl Borg {
    /// The oldest line that clients may have.
    pub fn v1_1_18() -> Option<Self> {
        static FOUND: OnceLock<Option<Borg>> = OnceLock::new();
        FOUND.get_or_init(|| built("1.1.18")).clone()
    }

    /// Debian 12's package. It knows no archive TAM and follows planted links when it extracts.
    pub fn v1_2_4() -> Option<Self> {
        Self::debian().filter(|borg| borg.version == "1.2.4")
    }

    /// The newest; refuses archives without a valid TAM and links that lead out.
    pub fn v1_4_5() -> Option<Self> {
        static FOUND: OnceLock<Option<Borg>> = OnceLock::new();
        FOUND.get_or_init(|| built("1.4.5")).clone()
    }

    /// The distribution's own package: 1.2.4 on Debian 12, 1.4.0 on Debian 13.
    pub fn debian() -> Option<Self> {
        static FOUND: OnceLock<Option<Borg>> = OnceLock::new();
        FOUND
            .get_or_init(|| {
                let program = PathBuf::from("/usr/bin/borg");
                let version = version_of(&program)?;
                Some(Borg { version, program })
            })
            .clone()
    }

    /// Every client version of the matrix that this machine has; the others are reported as not run.
    ///
    /// Where Debian's own borg is not 1.2.4, it takes that place, and 1.2.4 is reported as not run.
    pub fn all_clients() -> Vec<Self> {
        let mut found = Vec::new();
        found.extend(Self::v1_1_18().or_else(|| missing("1.1.18")));
        let debian = Self::debian();
        if debian.as_ref().is_none_or(|borg| borg.version != "1.2.4") {
            missing("1.2.4");
        }
        found.extend(debian);
        found.extend(Self::v1_4_5().or_else(|| missing("1.4.5")));
        found
    }

    /// Those that judge a repository, 1.2.4 and 1.4.5: only together do they say "fine".
    ///
    /// # Panics
    /// When there is none at all: nothing could be judged.
    pub fn judges() -> Vec<Self> {
        let mut found = Vec::new();
        found.extend(Self::v1_2_4().or_else(|| missing("1.2.4")));
        found.extend(Self::v1_4_5().or_else(|| missing("1.4.5")));
        assert!(!found.is_empty(), "there is no real borg to judge with: run scripts/setup test");
        found
    }

    /// This borg, in that world.
    pub fn command(&self, world: &BorgWorld) -> Command {
        world.command(&self.program)
    }

    /// Is this at least version `major.minor.patch`?
    pub fn at_least(&self, wanted: [u32; 3]) -> bool {
        let mut have = self.version.split('.').map(|word| word.parse().unwrap_or(0u32));
        let have: [u32; 3] = std::array::from_fn(|_| have.next().unwrap_or(0));
        have >= wanted
    }

    /// Runs it and gives its standard output. Anything but exit code 0 is an error that says everything.
    pub fn run<A: AsRef<OsStr>>(&self, world: &BorgWorld, arguments: impl IntoIterator<Item = A>) -> Result<String> {
        let mut command = self.command(world);
        command.args(arguments);
        self.finish(command)
    }

    fn finish(&self, mut command: Command) -> Result<String> {
        let output = command.output().with_context(|| format!("{} did not start", self.program.display()))?;
        ensure!(output.status.success(), "borg {}: {}", self.version, described(&command, &output));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Makes a repository with `borg init`; `mode` is one of [`MODES`].
    pub fn init(&self, world: &BorgWorld, repository: &Path, mode: &str) -> Result<String> {
        self.run(world, ["init".as_ref(), "--encryption".as_ref(), mode.as_ref(), repository.as_os_str()])
    }

    /// `borg create`, with further options.
    pub fn create(&self, world: &BorgWorld, repository: &Path, archive: &str, options: &[&str], paths: &[&Path]) -> Result<String> {
        let mut command = self.command(world);
        command.arg("create").args(options);
        command.arg(at(repository, archive)).args(paths);
        self.finish(command)
    }

    /// `borg check --verify-data`: reads, decrypts and verifies every byte. Gives what it said.
    pub fn check_verify_data(&self, world: &BorgWorld, repository: &Path) -> Result<String> {
        let mut command = self.command(world);
        command.args(["--info", "check", "--verify-data"]);
        command.arg(repository);
        let output = command.output().context("borg check did not start")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            bail!("borg {}: {}", self.version, described(&command, &output));
        }
        Ok(said)
    }

    /// The archives, oldest first, each with what borg says about its TAM: `verified` or `none`.
    ///
    /// Only versions from 1.2.5 on can tell.
    pub fn list_with_tam(&self, world: &BorgWorld, repository: &Path) -> Result<Vec<(String, String)>> {
        ensure!(self.at_least([1, 2, 5]), "borg {} knows no archive TAM", self.version);
        let mut command = self.command(world);
        command.args(["list", "--consider-checkpoints", "--format"]);
        command.arg("{tam} {archive}{NUL}").arg(repository);
        let text = self.finish(command)?;
        Ok(text.split('\0').filter_map(|row| row.split_once(' ')).map(|(tam, archive)| (archive.to_owned(), tam.to_owned())).collect())
    }

    /// `borg list --json` of a repository.
    pub fn list_json(&self, world: &BorgWorld, repository: &Path) -> Result<Value> {
        let mut command = self.command(world);
        command.args(["list", "--json"]).arg(repository);
        Ok(serde_json::from_str(&self.finish(command)?)?)
    }

    /// The names of all archives but checkpoints, oldest first.
    pub fn archives(&self, world: &BorgWorld, repository: &Path) -> Result<Vec<String>> {
        let list = self.list_json(world, repository)?;
        let rows = list["archives"].as_array().context("no archives in JSON")?;
        rows.iter().map(|row| Ok(row["name"].as_str().context("no name")?.to_owned())).collect()
    }

    /// `borg info --json` of a repository, or of one archive in it.
    pub fn info_json(&self, world: &BorgWorld, repository: &Path, archive: Option<&str>) -> Result<Value> {
        let mut command = self.command(world);
        command.args(["info", "--json"]);
        match archive {
            Some(name) => command.arg(at(repository, name)),
            None => command.arg(repository),
        };
        Ok(serde_json::from_str(&self.finish(command)?)?)
    }

    /// An object of the repository as it is stored, by its id (`borg debug get-obj`).
    pub fn object(&self, world: &BorgWorld, repository: &Path, id: &str) -> Result<Vec<u8>> {
        let file = tempfile::NamedTempFile::new()?;
        let mut command = self.command(world);
        command.args(["debug", "get-obj"]).arg(repository).arg(id).arg(file.path());
        self.finish(command)?;
        Ok(std::fs::read(file.path())?)
    }

    /// The ids of the chunks of an archive's item stream (`borg debug dump-archive-items`).
    pub fn item_chunks(&self, world: &BorgWorld, repository: &Path, archive: &str) -> Result<Vec<String>> {
        let directory = tempfile::tempdir()?;
        let mut command = self.command(world);
        command.args(["debug", "dump-archive-items"]).arg(at(repository, archive)).current_dir(directory.path());
        self.finish(command)?;
        let mut ids = vec![];
        for entry in std::fs::read_dir(directory.path())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            // NUMBER_ID.items
            ids.push(name.split(['_', '.']).nth(1).context("no id in its name")?.to_owned());
        }
        Ok(ids)
    }

    /// The items of an archive as `borg list --json-lines` shows them.
    pub fn items(&self, world: &BorgWorld, repository: &Path, archive: &str) -> Result<Vec<Value>> {
        let mut command = self.command(world);
        command.args(["list", "--json-lines"]);
        command.arg(at(repository, archive));
        self.finish(command)?.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// Extracts an archive below a directory, which is made if it is not there.
    pub fn extract(&self, world: &BorgWorld, repository: &Path, archive: &str, into: &Path) -> Result<String> {
        std::fs::create_dir_all(into)?;
        let mut command = self.command(world);
        command.arg("extract").arg(at(repository, archive));
        command.current_dir(into);
        self.finish(command)
    }

    /// `borg extract --dry-run --list`: reads and verifies everything, writes nothing, gives the paths as borg
    /// prints them.
    pub fn extract_list(&self, world: &BorgWorld, repository: &Path, archive: &str) -> Result<Vec<String>> {
        let mut command = self.command(world);
        command.args(["extract", "--dry-run", "--list"]);
        command.arg(at(repository, archive));
        let output = command.output().context("borg extract did not start")?;
        ensure!(output.status.success(), "borg {}: {}", self.version, described(&command, &output));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(said.lines().map(str::to_owned).collect())
    }

    /// The verdict of this borg on one archive of `source`: the repository is sound, every archive's TAM is
    /// verified (where this version can tell), and what is extracted is `source`, byte for byte.
    pub fn judge(&self, world: &BorgWorld, repository: &Path, archive: &str, source: &Path) -> Result<()> {
        self.check_verify_data(world, repository)?;
        if self.at_least([1, 2, 5]) {
            for (name, tam) in self.list_with_tam(world, repository)? {
                ensure!(tam == "verified", "borg {} says of archive {name}: its TAM is {tam}", self.version);
            }
        }
        let into = tempfile::Builder::new().prefix("extracted-").tempdir_in(world.path())?;
        self.extract(world, repository, archive, into.path())?;
        let inside = source.strip_prefix("/").unwrap_or(source);
        let differences = tree::differences(source, &into.path().join(inside));
        ensure!(
            differences.is_empty(),
            "borg {} extracted something else than was backed up:\n{}",
            self.version,
            tree::listed(&differences)
        );
        Ok(())
    }
}

/// `REPOSITORY::ARCHIVE`.
fn at(repository: &Path, archive: &str) -> std::ffi::OsString {
    let mut location = repository.as_os_str().to_owned();
    location.push("::");
    location.push(archive);
    location
}

fn described(command: &Command, output: &Output) -> String {
    let words: Vec<_> = command.get_args().map(|word| String::from_utf8_lossy(word.as_bytes())).collect();
    format!(
        "borg {}: {}\n{}{}",
        words.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn missing(version: &str) -> Option<Borg> {
    not_run(&format!("borg {version}"), "it is not installed: run scripts/setup test, which says why it cannot be had");
    None
}

/// A borg that scripts/setup built, if it is complete and really is that version.
fn built(version: &str) -> Option<Borg> {
    let caches = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(directory) => PathBuf::from(directory),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".cache"),
    };
    let environment = caches.join(format!("borgcube-tests/borg-{version}"));
    if !environment.join("complete").exists() {
        return None;
    }
    let program = environment.join("bin/borg");
    let says = version_of(&program);
    if says.as_deref() != Some(version) {
        eprintln!("testkit: {} should be borg {version}, but says {says:?}", program.display());
        return None;
    }
    Some(Borg { version: version.to_owned(), program })
}

/// What `borg --version` says, without the word borg.
fn version_of(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").env("BORG_SELFTEST", "disabled").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().strip_prefix("borg ")?.to_owned())
}
