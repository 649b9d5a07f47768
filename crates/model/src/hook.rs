//! Commands that a backup runs on the client: hooks around it, and dumps that become files of its archive.

use crate::config::BackupConfig;
use crate::names::{DumpName, HookName};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The directory that dumps have in an archive.
pub const DUMP_DIRECTORY: &str = "borgcube-dumps";

/// The most hooks a config can have, and the most dumps.
const MOST: usize = 64;

/// Bytes of a command.
const LONGEST: usize = 64 * 1024;

/// A day and a half: no command may take longer.
const MOST_SECONDS: u32 = 36 * 3600;

/// Seconds that a process group has between SIGTERM and SIGKILL, and what the script needs around it.
pub const GRACE_SECONDS: u64 = 15;

/// What becomes of a backup whose hook fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// Before: nothing is backed up, and the job fails. After: the job fails, although its archive is complete.
    #[default]
    Fail,
    /// The job has a warning.
    Warn,
}

impl OnFailure {
    /// The word in JSON and for the client's script.
    pub fn word(self) -> &'static str {
        match self {
            OnFailure::Fail => "fail",
            OnFailure::Warn => "warn",
        }
    }
}

/// A pair of commands around a backup. Those before it run in the order of the config, those after it the other way round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Unique within the config.
    pub name: HookName,
    /// For the client's `sh`, before anything is backed up.
    #[serde(default)]
    pub before: Option<String>,
    /// For the client's `sh`, whenever the first one was started, whatever became of it and of the backup.
    #[serde(default)]
    pub after: Option<String>,
    /// Seconds that each of the two may take.
    pub seconds: u32,
    /// What becomes of the backup when one of them fails.
    #[serde(default)]
    pub on_failure: OnFailure,
}

impl Hook {
    /// Seconds for a hook that nobody gave a limit.
    pub const SECONDS: u32 = 600;
}

/// What a command writes to its standard output, as a file in the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dump {
    /// The file's name below [`DUMP_DIRECTORY`], unique within the config.
    pub name: DumpName,
    /// For the client's `sh`.
    pub command: String,
    /// Seconds that it may take.
    pub seconds: u32,
    /// It is written to the client's disk first, into the directory of BorgCube's cache; otherwise it is streamed.
    #[serde(default)]
    pub spool: bool,
}

impl Dump {
    /// Seconds for a dump that nobody gave a limit.
    pub const SECONDS: u32 = 6 * 3600;

    /// Its path in the archive.
    pub fn path(&self) -> String {
        format!("{DUMP_DIRECTORY}/{}", self.name)
    }
}

/// What a backup config has its client run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Commands {
    /// In the order in which they run before a backup.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
    /// In the order in which they are made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dumps: Vec<Dump>,
}

/// How borg gets the content of dumps that are streamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// There is none.
    Nothing,
    /// The one at this index is borg's standard input: that goes together with paths, and borg reads no other special file.
    Input(usize),
    /// Several are named pipes that borg opens. It opens whatever pipe or device it meets then, so there is nothing else that it could meet.
    Pipes,
}

impl Commands {
    /// There is nothing to run.
    pub fn is_empty(&self) -> bool {
        self.hooks.is_empty() && self.dumps.is_empty()
    }

    /// How the streamed dumps come to borg.
    pub fn stream(&self) -> Stream {
        let mut streamed = self.dumps.iter().enumerate().filter(|(_, dump)| !dump.spool);
        match (streamed.next(), streamed.next()) {
            (None, _) => Stream::Nothing,
            (Some((at, _)), None) => Stream::Input(at),
            (Some(_), Some(_)) => Stream::Pipes,
        }
    }

    /// The most seconds that commands take before borg begins.
    pub fn seconds_before(&self) -> u64 {
        let hooks = self.hooks.iter().filter(|hook| hook.before.is_some()).map(|hook| hook.seconds);
        let dumps = self.dumps.iter().filter(|dump| dump.spool).map(|dump| dump.seconds);
        hooks.chain(dumps).map(|seconds| u64::from(seconds) + GRACE_SECONDS).sum()
    }

    /// The most seconds that commands take when borg has ended.
    pub fn seconds_after(&self) -> u64 {
        self.hooks.iter().filter(|hook| hook.after.is_some()).map(|hook| u64::from(hook.seconds) + GRACE_SECONDS).sum()
    }

    /// Says what is wrong with the commands of `config`.
    pub fn check(&self, config: &BackupConfig) -> Result<(), String> {
        for (what, count) in [("hooks", self.hooks.len()), ("dumps", self.dumps.len())] {
            if count > MOST {
                return Err(format!("a backup config can have {MOST} {what}, not {count}; one command can do several things"));
            }
        }
        for (at, hook) in self.hooks.iter().enumerate() {
            let what = format!("hook {}", hook.name);
            if self.hooks[..at].iter().any(|other| other.name == hook.name) {
                return Err(format!("there are two hooks with the name {}", hook.name));
            }
            if hook.before.is_none() && hook.after.is_none() {
                return Err(format!("{what} has no command: it needs one before the backup, one after it, or both"));
            }
            for command in hook.before.iter().chain(&hook.after) {
                is_command(&what, command)?;
            }
            is_limit(&what, hook.seconds)?;
        }
        for (at, dump) in self.dumps.iter().enumerate() {
            let what = format!("dump {}", dump.name);
            if self.dumps[..at].iter().any(|other| other.name == dump.name) {
                return Err(format!("there are two dumps with the name {}", dump.name));
            }
            is_command(&what, &dump.command)?;
            is_limit(&what, dump.seconds)?;
        }
        if self.dumps.is_empty() { Ok(()) } else { self.check_dumps(config) }
    }

    fn check_dumps(&self, config: &BackupConfig) -> Result<(), String> {
        let roots = config.patterns.iter().filter_map(|line| line.strip_prefix('R')).map(str::trim);
        let paths = || config.paths.iter().map(String::as_str).chain(roots.clone());
        // borg runs in a directory of its own then.
        if let Some(path) = paths().find(|path| !path.starts_with('/')) {
            return Err(format!("{path:?} must be an absolute path in a config with dumps"));
        }
        if let Some(path) = paths().find(|path| within_dumps(path)) {
            return Err(format!("{path:?} can't be backed up in a config with dumps: archives have those in {DUMP_DIRECTORY}"));
        }
        let options = ["--stdin-", "--patterns-from", "--exclude-from"];
        if let Some(option) = config.extra_options.iter().find(|o| options.iter().any(|prefix| o.starts_with(prefix))) {
            return Err(format!("extra option {option:?} does not go together with dumps"));
        }
        if config.read_special && self.stream() != Stream::Nothing {
            return Err(
                "read-special does not go together with a dump that is streamed; let it be written to the disk first (--spool)".into()
            );
        }
        if self.stream() == Stream::Pipes && paths().next().is_some() {
            return Err("next to paths borg can stream one dump only: let the others be written to the client's disk first (--spool), or \
                        make a config of its own for the dumps, without paths"
                .into());
        }
        Ok(())
    }
}

/// Whether that path would have the place of the dumps.
fn within_dumps(path: &str) -> bool {
    path.split('/').find(|part| !part.is_empty() && *part != ".") == Some(DUMP_DIRECTORY)
}

fn is_command(what: &str, command: &str) -> Result<(), String> {
    if command.trim().is_empty() {
        return Err(format!("the command of {what} is empty"));
    }
    if command.len() > LONGEST {
        return Err(format!("the command of {what} is longer than {LONGEST} bytes; put it into a file on the client and name that"));
    }
    if command.contains('\0') {
        return Err(format!("the command of {what} contains a zero byte"));
    }
    Ok(())
}

fn is_limit(what: &str, seconds: u32) -> Result<(), String> {
    if (1..=MOST_SECONDS).contains(&seconds) {
        return Ok(());
    }
    Err(format!("the time limit of {what} is from 1 second to {} hours", MOST_SECONDS / 3600))
}

/// When a command ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Before the backup.
    Before,
    /// After it.
    After,
    /// As a file of the archive.
    Dump,
}

impl Part {
    /// The word in JSON and of the client's script.
    pub fn word(self) -> &'static str {
        match self {
            Part::Before => "before",
            Part::After => "after",
            Part::Dump => "dump",
        }
    }
}

/// How a command ended, as the client says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ended", rename_all = "kebab-case")]
pub enum Ended {
    /// With exit code 0.
    Well,
    /// With another exit code; 128 and the signal's number where a signal ended it.
    Code {
        /// That code.
        code: i32,
    },
    /// It took too long.
    TooLate,
    /// The job was to end.
    Stopped,
    /// A dump without a byte.
    Empty,
    /// borg has not read all of the dump.
    Unread,
    /// It has ended, but something that it started held the dump open until the time limit.
    HeldOpen,
    /// It could not be started, or what it wrote could not be kept.
    Broken,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Well => f.write_str("ended well"),
            Ended::Code { code: code @ 129..=192 } => write!(f, "was ended by signal {}", code - 128),
            Ended::Code { code: 127 } => f.write_str("ended with code 127 (not found)"),
            Ended::Code { code } => write!(f, "ended with code {code}"),
            Ended::TooLate => f.write_str("took longer than its time limit"),
            Ended::Stopped => f.write_str("was stopped, because the job was to end"),
            Ended::Empty => f.write_str("has written nothing"),
            Ended::Unread => f.write_str("was not read to its end by borg"),
            Ended::HeldOpen => f.write_str("has ended, but a process it had started kept its output open beyond the time limit"),
            Ended::Broken => f.write_str("could not be run, or its output could not be kept"),
        }
    }
}

/// What became of one command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandResult {
    /// When it ran.
    pub part: Part,
    /// The hook's or dump's name.
    pub name: String,
    /// How it ended.
    #[serde(flatten)]
    pub ended: Ended,
    /// How long it took, as the client says.
    pub seconds: u64,
    /// Bytes of a dump.
    #[serde(default)]
    pub bytes: Option<u64>,
}

impl CommandResult {
    /// One sentence without a full stop.
    pub fn sentence(&self) -> String {
        let what = match self.part {
            Part::Dump => format!("the command of dump {}", self.name),
            part => format!("the {} command of hook {}", part.word(), self.name),
        };
        format!("{what} {}", self.ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(name: &str, spool: bool) -> Dump {
        Dump { name: name.parse().unwrap(), command: "pg_dump all".into(), seconds: 60, spool }
    }

    fn hook(name: &str) -> Hook {
        Hook {
            name: name.parse().unwrap(),
            before: Some("lvcreate x".into()),
            after: Some("lvremove x".into()),
            seconds: 60,
            on_failure: OnFailure::Fail,
        }
    }

    fn check(paths: &[&str], commands: &Commands) -> Result<(), String> {
        let mut config = crate::config::tests::config();
        config.paths = paths.iter().map(|path| (*path).to_owned()).collect();
        config.commands = commands.clone();
        config.check()
    }

    fn commands(hooks: Vec<Hook>, dumps: Vec<Dump>) -> Commands {
        Commands { hooks, dumps }
    }

    #[test]
    fn what_goes_together() {
        let one = commands(vec![], vec![dump("a.sql", false), dump("b.sql", true)]);
        assert_eq!(check(&["/etc"], &one), Ok(()));
        assert_eq!(one.stream(), Stream::Input(0));
        let several = commands(vec![], vec![dump("a.sql", false), dump("b.sql", false)]);
        assert_eq!(check(&[], &several), Ok(()));
        assert_eq!(several.stream(), Stream::Pipes);
        assert!(check(&["/etc"], &several).unwrap_err().contains("--spool"));
        assert_eq!(commands(vec![], vec![dump("a", true)]).stream(), Stream::Nothing);
        assert!(check(&["etc"], &one).unwrap_err().contains("absolute"));
        for path in ["/borgcube-dumps", "//./borgcube-dumps/x"] {
            assert!(check(&[path], &one).unwrap_err().contains("borgcube-dumps"), "{path}");
        }
        assert_eq!(check(&["/srv/borgcube-dumps"], &one), Ok(()));
        assert_eq!(check(&["/borgcube-dumps"], &Commands::default()), Ok(()));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let empty = Hook { before: None, after: None, ..hook("x") };
        let blank = Hook { before: Some(" \n".into()), ..hook("x") };
        let endless = Hook { seconds: 0, ..hook("x") };
        for (bad, says) in [
            (vec![hook("x"), hook("x")], "two hooks"),
            (vec![empty], "no command"),
            (vec![blank], "is empty"),
            (vec![endless], "time limit"),
            (vec![Hook { after: Some("x".repeat(LONGEST + 1)), ..hook("x") }], "longer than"),
        ] {
            assert!(check(&["/etc"], &commands(bad, vec![])).unwrap_err().contains(says), "{says}");
        }
        assert!(check(&["/etc"], &commands(vec![], vec![dump("a", true), dump("a", true)])).unwrap_err().contains("two dumps"));
        assert!(check(&[], &commands(vec![hook("x")], vec![])).is_err(), "hooks are nothing to back up");
    }

    #[test]
    fn how_long_it_may_take() {
        let all = commands(vec![hook("a"), Hook { after: None, ..hook("b") }], vec![dump("d", false), dump("s", true)]);
        assert_eq!((all.seconds_before(), all.seconds_after()), (3 * 75, 75));
    }

    #[test]
    fn results_are_sentences() {
        let result = CommandResult { part: Part::Before, name: "lvm".into(), ended: Ended::Code { code: 137 }, seconds: 3, bytes: None };
        assert_eq!(result.sentence(), "the before command of hook lvm was ended by signal 9");
        let json = serde_json::to_value(&result).unwrap();
        assert_eq!((json["ended"].as_str(), json["code"].as_i64()), (Some("code"), Some(137)));
        assert_eq!(serde_json::from_value::<CommandResult>(json).unwrap(), result);
    }
}
