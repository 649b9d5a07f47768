//! What the journal is told of a job's lines.
//!
//! The journal takes so many lines of one unit within half a minute (systemd: 10 000) and drops the rest, whosever they are; the workers of all
//! jobs are in the unit of `borgcubed`. So a client has a share of its own, and what is more stands in its job's log.

use wire::worker::{LogLine, Task};

/// Lines of one job's client that the journal gets: those of sixteen jobs, which run at a time unless somebody wants more, fit.
pub const SHARE: u64 = 500;

/// What the journal has to know with each line.
pub struct About {
    job: u64,
    client: String,
    repository: String,
    /// Lines of the client's so far.
    lines: u64,
}

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Journal(log::Level),
    /// The first one that the journal does not get.
    Over,
    Log,
}

impl About {
    /// Of a job that begins.
    pub fn of(task: &Task) -> About {
        let client = task.job.client().map(ToString::to_string).unwrap_or_default();
        About::new(task.job.number, client, task.repository.name.to_string())
    }

    fn new(job: u64, client: String, repository: String) -> About {
        About { job, client, repository, lines: 0 }
    }

    fn place(&mut self, line: &LogLine) -> Place {
        let level = match line.level.as_str() {
            "error" => log::Level::Error,
            "warning" => log::Level::Warn,
            "info" => log::Level::Info,
            // The files of `--list` are many.
            "file" => return Place::Log,
            _ => log::Level::Debug,
        };
        // Ours always get through.
        if line.source == "borgcube" || level > log::max_level() {
            return Place::Journal(level);
        }
        self.lines += 1;
        match self.lines {
            lines if lines <= SHARE => Place::Journal(level),
            lines if lines == SHARE + 1 => Place::Over,
            _ => Place::Log,
        }
    }

    /// The job's log is for the journal, too, as far as there is room for it.
    pub fn tell(&mut self, line: &LogLine) {
        match self.place(line) {
            Place::Journal(level) => self.say(level, &format!("{}: {}", line.source, line.message)),
            Place::Over => self.say(
                log::Level::Warn,
                &format!(
                    "its client has written {SHARE} lines: more of them are in the job's log only; read them with: borgcube job log {}",
                    self.job
                ),
            ),
            Place::Log => {}
        }
    }

    /// The job is over: says what the journal has not got.
    pub fn conclude(&self) {
        if let Some(missing) = self.lines.checked_sub(SHARE).filter(|missing| *missing > 0) {
            self.say(
                log::Level::Warn,
                &format!("{missing} lines of its client are in the job's log only; read them with: borgcube job log {}", self.job),
            );
        }
    }

    fn say(&self, level: log::Level, text: &str) {
        log::log!(level, event = "job-line", job = self.job, client = self.client.as_str(), repository = self.repository.as_str(); "{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Timestamp;

    #[test]
    fn a30_a_client_has_its_share_of_the_journal_and_we_are_always_heard() {
        log::set_max_level(log::LevelFilter::Info);
        let mut about = About::new(7, "web1".into(), "main".into());
        let line =
            |level: &str, source: &str| LogLine { time: Timestamp(0), level: level.into(), source: source.into(), message: "x".into() };
        let mut count = |level: &str, source: &str, times: u64| {
            let places: Vec<Place> = (0..times).map(|_| about.place(&line(level, source))).collect();
            let of = |wanted: fn(&Place) -> bool| places.iter().filter(|place| wanted(place)).count() as u64;
            (of(|place| matches!(place, Place::Journal(_))), of(|place| *place == Place::Over))
        };
        // What is not shown anyway takes nothing of it.
        count("debug", "borg", 10_000);
        assert_eq!(count("file", "borg", 10_000), (0, 0));
        assert_eq!(count("warning", "borg", SHARE - 1), (SHARE - 1, 0));
        assert_eq!(count("error", "client", 100_000), (1, 1));
        assert_eq!(count("warning", "borgcube", 10_000), (10_000, 0));
        assert_eq!(about.lines, SHARE - 1 + 100_000);
    }
}
