//! What the client's script tells of hooks and dumps: pure.
//!
//! The client is not trusted: there is at most one result for each command of the config, whatever it says, and what it says shapes
//! wording and failure, never whether there is an archive.

use model::hook::{CommandResult, Commands, Ended, OnFailure, Part};
use model::{Archive, BackupConfig, Cause, Failure};

/// What is known of a config's commands so far.
#[derive(Debug, Default)]
pub struct Results {
    commands: Commands,
    results: Vec<CommandResult>,
}

impl Results {
    /// Nothing has run yet.
    pub fn of(config: &BackupConfig) -> Results {
        Results { commands: config.commands.clone(), results: vec![] }
    }

    /// All of them, for the job's record.
    pub fn take_results(&mut self) -> Vec<CommandResult> {
        std::mem::take(&mut self.results)
    }

    /// A line of the script's: level, source and text of a line for the job's log. A warning is one of the job.
    pub fn line(&mut self, word: &str, rest: &str) -> Option<(&'static str, String, String)> {
        let mut words = rest.splitn(3, ' ');
        let part = match words.next()? {
            "before" => Part::Before,
            "after" => Part::After,
            "dump" => Part::Dump,
            _ => return None,
        };
        let (name, policy) = self.named(part, words.next()?)?;
        let rest = words.next().unwrap_or_default();
        let what = match part {
            Part::Dump => format!("dump {name}"),
            part => format!("{} hook {name}", part.word()),
        };
        match word {
            "begins" => Some(("info", what, "begins".into())),
            "said" => Some(("info", what, rest.to_owned())),
            "cut" => {
                let (total, kept) = rest.split_once(' ')?;
                let of = if total == "0" { String::new() } else { format!(" of {total}") };
                Some(("info", what, format!("(only the last {kept}{of} bytes of what it said are kept)")))
            }
            "ended" => {
                // Once: a client does not fill the record.
                if self.results.iter().any(|result| result.part == part && result.name == name) {
                    return None;
                }
                let result = parse(part, name, rest);
                let sentence = result.sentence();
                let is_warning = result.ended != Ended::Well && policy == OnFailure::Warn;
                self.results.push(result);
                Some((if is_warning { "warning" } else { "info" }, "borgcube".into(), sentence))
            }
            _ => None,
        }
    }

    fn named(&self, part: Part, index: &str) -> Option<(String, OnFailure)> {
        let index: usize = index.parse().ok()?;
        match part {
            Part::Dump => self.commands.dumps.get(index).map(|dump| (dump.name.to_string(), OnFailure::Fail)),
            Part::Before | Part::After => self.commands.hooks.get(index).map(|hook| (hook.name.to_string(), hook.on_failure)),
        }
    }

    /// Why the script gave up, if that was for a hook or a dump: `message` begins with its number, or is a sentence behind a dash.
    pub fn failure(&self, word: &str, message: &str) -> Option<Failure> {
        let (part, index) = match word {
            "hook-failed" => (Part::Before, message),
            "dump-failed" => (Part::Dump, message),
            _ => return None,
        };
        if let Some(sentence) = index.strip_prefix("- ") {
            return Some(Failure::new(Cause::DumpFailed { dump: String::new() }, sentence));
        }
        let (name, _) = self.named(part, index)?;
        let result = self.results.iter().find(|result| result.part == part && result.name == name)?;
        Some(failure(result, "; nothing was backed up"))
    }

    /// The dump for which there must be no archive: one that failed by itself.
    pub fn dump_failed(&self) -> Option<Failure> {
        let own = |ended: Ended| !matches!(ended, Ended::Well | Ended::Unread | Ended::Stopped);
        self.results.iter().find(|result| result.part == Part::Dump && own(result.ended)).map(|result| failure(result, ""))
    }

    /// What speaks against an archive that was committed all the same: each dump must have ended well.
    pub fn dump_missing(&self, archive: &Archive) -> Option<Failure> {
        let behind = format!("; archive {} has not all of it", archive.name);
        let dump = self.commands.dumps.iter().find(|dump| {
            let of = |result: &&CommandResult| result.part == Part::Dump && result.name == dump.name.as_str();
            self.results.iter().find(of).is_none_or(|result| result.ended != Ended::Well)
        })?;
        let result = self.results.iter().find(|result| result.part == Part::Dump && result.name == dump.name.as_str());
        let unread = CommandResult { part: Part::Dump, name: dump.name.to_string(), ended: Ended::Unread, seconds: 0, bytes: None };
        Some(failure(result.unwrap_or(&unread), &behind))
    }

    /// A hook after the backup that was to end well and did not.
    pub fn after_failed(&self) -> Option<&CommandResult> {
        self.results.iter().find(|result| {
            let strict = self.commands.hooks.iter().any(|h| h.name.as_str() == result.name && h.on_failure == OnFailure::Fail);
            result.part == Part::After && result.ended != Ended::Well && strict
        })
    }
}

/// The failure of a job whose hook or dump ended like this; `behind` ends the sentence.
pub fn failure(result: &CommandResult, behind: &str) -> Failure {
    let cause = match result.part {
        Part::Dump => Cause::DumpFailed { dump: result.name.clone() },
        Part::Before | Part::After => Cause::HookFailed { hook: result.name.clone() },
    };
    Failure::new(cause, format!("{}{behind}", result.sentence()))
}

/// `WORD CODE SECONDS [BYTES]`.
fn parse(part: Part, name: String, rest: &str) -> CommandResult {
    let mut words = rest.split(' ');
    let word = words.next().unwrap_or_default();
    let code = words.next().and_then(|text| text.parse().ok()).unwrap_or(-1);
    let ended = match word {
        "code" if code == 0 => Ended::Well,
        "code" => Ended::Code { code },
        "too-late" => Ended::TooLate,
        "stopped" => Ended::Stopped,
        "empty" => Ended::Empty,
        "unread" => Ended::Unread,
        "held-open" => Ended::HeldOpen,
        _ => Ended::Broken,
    };
    let seconds = words.next().and_then(|text| text.parse().ok()).unwrap_or(0);
    let bytes = words.next().and_then(|text| text.parse().ok());
    CommandResult { part, name, ended, seconds, bytes }
}

#[cfg(test)]
mod tests {
    use super::super::script::tests::task;
    use super::*;
    use model::Connection;
    use model::hook::{Dump, Hook};

    fn results() -> Results {
        let (_, mut backup) = task(Connection::Local { remote_borg: None, remote_cache_dir: None });
        let hook = |name: &str, on_failure| Hook {
            name: name.parse().unwrap(),
            before: Some("x".into()),
            after: Some("x".into()),
            seconds: 5,
            on_failure,
        };
        backup.config.commands.hooks = vec![hook("strict", OnFailure::Fail), hook("lenient", OnFailure::Warn)];
        backup.config.commands.dumps = vec![Dump { name: "db".parse().unwrap(), command: "x".into(), seconds: 5, spool: false }];
        Results::of(&backup.config)
    }

    #[test]
    fn lines_become_results() {
        let mut all = results();
        assert_eq!(all.line("begins", "before 0").unwrap().1, "before hook strict");
        assert_eq!(all.line("said", "before 0 borgcube exit 0").unwrap(), ("info", "before hook strict".into(), "borgcube exit 0".into()));
        assert_eq!(all.line("cut", "before 0 100 32").unwrap().2, "(only the last 32 of 100 bytes of what it said are kept)");
        assert_eq!(all.line("ended", "before 0 code 0 3 ").unwrap().0, "info");
        assert_eq!(all.line("ended", "before 0 code 1 3 "), None, "once is enough");
        assert_eq!(all.line("ended", "before 1 code 5 3 ").unwrap().0, "warning");
        assert_eq!(all.line("ended", "dump 0 code 0 3 77").unwrap().2, "the command of dump db ended well");
        for nonsense in
            [("ended", "before 2 code 0 1"), ("ended", "x 0 code 0 1"), ("ended", "before"), ("said", ""), ("else", "before 0 x")]
        {
            assert_eq!(all.line(nonsense.0, nonsense.1), None, "{nonsense:?}");
        }
        let all = all.take_results();
        assert_eq!(
            all.iter().map(|r| (r.ended, r.seconds, r.bytes)).collect::<Vec<_>>(),
            [(Ended::Well, 3, None), (Ended::Code { code: 5 }, 3, None), (Ended::Well, 3, Some(77))]
        );
    }

    #[test]
    fn failures_name_the_command() {
        let mut all = results();
        assert_eq!(all.failure("hook-failed", "0"), None, "it did not run");
        all.line("ended", "before 0 too-late 0 5 ").unwrap();
        let failure = all.failure("hook-failed", "0").unwrap();
        assert_eq!(failure.line(), "hook-failed: the before command of hook strict took longer than its time limit; nothing was backed up");
        all.line("ended", "after 1 code 1 5 ").unwrap();
        assert_eq!(all.after_failed(), None);
        all.line("ended", "after 0 code 1 5 ").unwrap();
        assert_eq!(all.after_failed().unwrap().name, "strict");
        assert_eq!(all.dump_failed(), None);
        all.line("ended", "dump 0 empty 0 5 0").unwrap();
        assert_eq!(all.dump_failed().unwrap().cause, Cause::DumpFailed { dump: "db".into() });
    }
}
