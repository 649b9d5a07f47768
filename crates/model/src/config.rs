//! Backup configs: what to back up on a client.

use crate::borg_pattern::{check_exclude, check_pattern};
use crate::hook::{Commands, Stream};
use crate::names::{ClientName, ConfigName, Label, RepositoryName};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// What one `borg create` on a client backs up, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupConfig {
    /// The client.
    pub client: ClientName,
    /// The label, unique within the client.
    pub label: Label,
    /// Where the archives go.
    pub repository: RepositoryName,
    /// The paths, as the client sees them.
    pub paths: Vec<String>,
    /// `borg create --exclude` patterns.
    #[serde(default)]
    pub excludes: Vec<String>,
    /// `borg create --pattern` lines.
    #[serde(default)]
    pub patterns: Vec<String>,
    /// Stay on the file systems of the paths.
    #[serde(default)]
    pub one_file_system: bool,
    /// `borg create --compression`. None: Borg's default.
    #[serde(default)]
    pub compression: Option<String>,
    /// Seconds between checkpoints. None: Borg's default (1800).
    #[serde(default)]
    pub checkpoint_interval: Option<u32>,
    /// Read special files (block devices, FIFOs) as if they were regular ones.
    #[serde(default)]
    pub read_special: bool,
    /// Leave the inode number out of the files cache's comparison.
    #[serde(default)]
    pub ignore_inode: bool,
    /// Further options of `borg create`, each one argument.
    #[serde(default)]
    pub extra_options: Vec<String>,
    /// Hours after which a person has to hear that there is no newer good backup. By the end of the backup.
    #[serde(default = "default_target_age")]
    pub target_age_hours: u32,
    /// What the client runs before, after and during the backup.
    #[serde(default, flatten)]
    pub commands: Commands,
    /// When it was added.
    pub created: Timestamp,
}

/// For serde: configs from before there were target ages.
fn default_target_age() -> u32 {
    BackupConfig::TARGET_AGE_HOURS
}

/// Options that would break the promises of a backup or belong to the server; `extra_options` can't have them.
const FORBIDDEN: &[&str] = &[
    "--no-cache-sync",
    "--dry-run",
    "-n",
    "--stats",
    "-s",
    "--json",
    "--log-json",
    "--progress",
    "-p",
    "--comment",
    "--timestamp",
    "--rsh",
    "--remote-path",
    "--remote-ratelimit",
    "--upload-ratelimit",
    "--upload-buffer",
    "--remote-buffer",
    "--umask",
    "--lock-wait",
    "--bypass-lock",
    "--show-version",
    "--show-rc",
    "--debug",
    "--info",
    "-v",
    "--verbose",
    "--debug-topic",
    "--help",
    "-h",
    "--version",
    "-V",
    "--stdin-name",
    "--content-from-command",
    "--paths-from-stdin",
    "--paths-from-command",
    "--debug-profile",
    "--no-files-cache",
    "--consider-part-files",
];

impl BackupConfig {
    /// A day, and two hours more because no night is like the other.
    pub const TARGET_AGE_HOURS: u32 = 26;

    /// The longest target age, in hours: ten years.
    pub const MAX_TARGET_AGE_HOURS: u32 = 10 * 366 * 24;

    /// `CLIENT/LABEL`.
    pub fn name(&self) -> ConfigName {
        ConfigName { client: self.client.clone(), label: self.label.clone() }
    }

    /// Says what is wrong with a config before it is stored.
    pub fn check(&self) -> Result<(), String> {
        if self.paths.is_empty() && !self.patterns.iter().any(|p| p.starts_with("R ")) && self.commands.dumps.is_empty() {
            return Err("a backup config needs at least one path (or a pattern 'R PATH', or a dump)".into());
        }
        for text in self.paths.iter().chain(&self.excludes).chain(&self.patterns).chain(&self.extra_options) {
            if text.is_empty() || text.contains('\0') || text.contains('\n') {
                return Err(format!("{text:?} must be neither empty nor contain a line break"));
            }
        }
        self.excludes.iter().try_for_each(|text| check_exclude(text))?;
        self.patterns.iter().try_for_each(|text| check_pattern(text))?;
        for option in &self.extra_options {
            match option.split_once('=') {
                Some(("--exclude", text)) => check_exclude(text)?,
                Some(("--pattern", text)) => check_pattern(text)?,
                _ => {}
            }
        }
        if let Some(c) = &self.compression
            && !is_compression(&c.split(',').collect::<Vec<_>>())
        {
            return Err(format!(
                "Borg knows no compression {c:?}: it is none, lz4, zstd[,1-22], zlib[,0-9] or lzma[,0-9], or auto,C or obfuscate,SPEC,C \
                 where C is one of these"
            ));
        }
        if self.checkpoint_interval == Some(0) {
            return Err("checkpoint_interval is a number of seconds, at least 1".into());
        }
        if !(1..=BackupConfig::MAX_TARGET_AGE_HOURS).contains(&self.target_age_hours) {
            return Err(format!("the target age is a number of hours, from 1 to {}", BackupConfig::MAX_TARGET_AGE_HOURS));
        }
        for option in &self.extra_options {
            let name = option.split('=').next().unwrap_or(option);
            // Borg's argument parser takes unique prefixes for the whole name: `--rs=COMMAND` is `--rsh`.
            let hit = FORBIDDEN.iter().find(|f| **f == name || (name.len() > 2 && f.starts_with("--") && f.starts_with(name)));
            if let Some(hit) = hit {
                return Err(format!("extra option {option:?} is not possible: BorgCube decides {hit} itself"));
            }
            if !option.starts_with('-') {
                return Err(format!("extra option {option:?} must begin with '-'; write values as --option=value"));
            }
        }
        self.commands.check(self)
    }

    /// The arguments of `borg` for archive `name`; the repository comes by BORG_REPO.
    pub fn borg_arguments(&self, archive: &str) -> Vec<String> {
        let mut args: Vec<String> = ["create", "--log-json", "--progress"].map(String::from).to_vec();
        if self.one_file_system {
            args.push("--one-file-system".into());
        }
        if let Some(c) = &self.compression {
            args.push(format!("--compression={c}"));
        }
        if let Some(seconds) = self.checkpoint_interval {
            args.push(format!("--checkpoint-interval={seconds}"));
        }
        if self.read_special || self.commands.stream() == Stream::Pipes {
            args.push("--read-special".into());
        }
        if let Stream::Input(at) = self.commands.stream()
            && let Some(dump) = self.commands.dumps.get(at)
        {
            args.push(format!("--stdin-name={}", dump.path()));
        }
        // The first pattern that matches counts.
        args.extend(self.commands.dumps.iter().map(|dump| format!("--pattern=+pf:{}", dump.path())));
        if self.ignore_inode {
            args.push("--files-cache=ctime,size".into());
        }
        args.extend(self.excludes.iter().map(|e| format!("--exclude={e}")));
        args.extend(self.patterns.iter().map(|p| format!("--pattern={p}")));
        args.extend(self.extra_options.iter().cloned());
        args.push("--".into());
        args.push(format!("::{archive}"));
        // First: when one of them fails nobody has waited for the paths.
        for (at, dump) in self.commands.dumps.iter().enumerate() {
            args.push(if self.commands.stream() == Stream::Input(at) { "-".into() } else { dump.path() });
        }
        args.extend(self.paths.iter().cloned());
        args
    }
}

/// Borg 1.x: what `--compression` takes, at its commas.
fn is_compression(words: &[&str]) -> bool {
    let level = |text: &str, range: std::ops::RangeInclusive<u32>| {
        text.bytes().all(|b| b.is_ascii_digit()) && text.parse().is_ok_and(|level| range.contains(&level))
    };
    match words {
        ["none" | "lz4" | "zstd" | "zlib" | "lzma"] => true,
        ["zstd", text] => level(text, 1..=22),
        ["zlib" | "lzma", text] => level(text, 0..=9),
        ["auto", inner @ ..] => !matches!(inner.first(), Some(&("auto" | "obfuscate"))) && is_compression(inner),
        ["obfuscate", spec, inner @ ..] => {
            (level(spec, 1..=6) || level(spec, 110..=123) || *spec == "250") && inner.first() != Some(&"obfuscate") && is_compression(inner)
        }
        _ => false,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One with everything but commands.
    pub fn config() -> BackupConfig {
        BackupConfig {
            client: "web1".parse().unwrap(),
            label: "etc".parse().unwrap(),
            repository: "main".parse().unwrap(),
            paths: vec!["/etc".into(), "--strange".into()],
            excludes: vec!["*.tmp".into()],
            patterns: vec![],
            one_file_system: true,
            compression: Some("zstd,3".into()),
            checkpoint_interval: Some(60),
            read_special: false,
            ignore_inode: true,
            extra_options: vec!["--list".into()],
            target_age_hours: BackupConfig::TARGET_AGE_HOURS,
            commands: Commands::default(),
            created: Timestamp(0),
        }
    }

    #[test]
    fn arguments_end_options_before_paths() {
        let args = config().borg_arguments("web1-etc-x");
        let dashes = args.iter().position(|a| a == "--").unwrap();
        assert_eq!(&args[dashes + 1..], ["::web1-etc-x", "/etc", "--strange"]);
        assert!(args[..dashes].contains(&"--compression=zstd,3".to_string()));
    }

    #[test]
    fn options_that_belong_to_the_server_are_refused_also_when_abbreviated() {
        assert_eq!(config().check(), Ok(()));
        for bad in [
            "--no-cache-sync",
            "--no-cache",
            "--timestamp=2099-01-01T00:00:00",
            "--timest=x",
            "--comment=x",
            "-n",
            "plain",
            "--remote-path=x",
            "--rs=sh -c x",
            "--um=0",
        ] {
            let mut c = config();
            c.extra_options = vec![bad.into()];
            assert!(c.check().is_err(), "{bad}");
        }
    }

    #[test]
    fn compressions_are_those_of_borg() {
        let check = |compression: &str| BackupConfig { compression: Some(compression.into()), ..config() }.check();
        for good in [
            "none",
            "lz4",
            "zstd",
            "zstd,22",
            "zlib,0",
            "lzma,9",
            "auto,zstd,7",
            "auto,lzma",
            "obfuscate,110,auto,zstd,3",
            "obfuscate,250,lz4",
        ] {
            assert_eq!(check(good), Ok(()));
        }
        for bad in
            ["", "lz5", "lz4,", "zstd,0", "zstd,23", "zstd,+3", "zlib,10", "zstd,3,4", "auto", "auto,auto,lz4", "obfuscate,7,lz4", "ZSTD"]
        {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns_that_no_borg_takes_are_refused() {
        for bad in [
            BackupConfig { excludes: vec!["*.o".into(), "re:(".into()], ..config() },
            BackupConfig { patterns: vec!["- re:*a".into()], ..config() },
            BackupConfig { patterns: vec!["*.o".into()], ..config() },
            BackupConfig { extra_options: vec!["--exclude=re:[".into()], ..config() },
            BackupConfig { extra_options: vec!["--pattern=x".into()], ..config() },
        ] {
            assert!(bad.check().unwrap_err().contains("is none that Borg takes"), "{bad:?}");
        }
    }

    #[test]
    fn empty_configs_are_refused() {
        let mut c = config();
        c.paths.clear();
        assert!(c.check().unwrap_err().contains("path"));
        c.patterns = vec!["R /etc".into()];
        assert!(c.check().is_ok());
    }
}
