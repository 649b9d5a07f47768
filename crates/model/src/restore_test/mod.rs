//! Restore tests: what of which archive is extracted, and what comes of it.
//!
//! A test extracts a sample on the server and compares it: with the hashes that earlier tests have recorded, with hashes that a person brings, with
//! the live client. What nothing could be compared with is no good test: it says so, and the age of the last good test stays.

mod sample;
mod verdict;

pub use sample::{Candidate, Sample, Sampler};
pub use verdict::{Compared, Extracted, Live, Verdict, judge};

use crate::names::{ClientName, ConfigName, Label};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// What one test does.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RestoreTest {
    /// Of archives of this config. None: of all of the client; filled in when the job begins.
    #[serde(default)]
    pub label: Option<Label>,
    /// This archive. None: the newest whole one, filled in when the job begins.
    #[serde(default)]
    pub archive: Option<TestedArchive>,
    /// Files at most. None: [`RestoreTest::FILES`], or all that paths and expectations name.
    #[serde(default)]
    pub files: Option<u32>,
    /// Bytes at most.
    pub bytes: u64,
    /// These and what is below them only.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Hashes that a person brings; the files are tested.
    #[serde(default)]
    pub expect: Vec<Expected>,
    /// Compare with what is on the client now.
    #[serde(default)]
    pub live: bool,
    /// What the sample is drawn with: the same seed draws the same sample of the same archive, as long as the same files are recorded. None:
    /// drawn when the job begins.
    #[serde(default)]
    pub seed: Option<u32>,
}

/// An archive by name and id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TestedArchive {
    /// Its name.
    pub name: String,
    /// Its id in the repository, 64 hex digits.
    pub id: String,
}

/// What a file's content has to be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Expected {
    /// The path in the archive.
    pub path: String,
    /// SHA-256, 64 hex digits.
    pub sha256: String,
}

impl RestoreTest {
    /// Files of a sample, unless somebody says otherwise.
    pub const FILES: u32 = 20;

    /// Bytes of a sample, unless somebody says otherwise.
    pub const BYTES: u64 = 1 << 30;

    /// Files of one test at most.
    pub const MAX_FILES: u32 = 2000;

    /// Paths and expectations of one test at most,
    pub const MAX_WORDS: usize = 1000;

    /// and bytes of them.
    pub const MAX_WORD_BYTES: usize = 256 << 10;

    /// A test with the usual limits.
    #[must_use]
    pub fn new() -> RestoreTest {
        RestoreTest { bytes: RestoreTest::BYTES, ..RestoreTest::default() }
    }

    /// Whether a person has said which files.
    #[must_use]
    pub fn is_chosen(&self) -> bool {
        !self.paths.is_empty() || !self.expect.is_empty()
    }

    /// Files at most.
    #[must_use]
    pub fn most_files(&self) -> u32 {
        self.files.unwrap_or(if self.is_chosen() { RestoreTest::MAX_FILES } else { RestoreTest::FILES })
    }

    /// Says what is wrong with it before a job is made of it.
    pub fn check(&self) -> Result<(), String> {
        if let Some(TestedArchive { name, id }) = &self.archive {
            crate::names::check_archive_name(name).map_err(|e| e.to_string())?;
            if !is_sha256(id) {
                return Err(format!("{id:?} is no archive's id"));
            }
        }
        if !(1..=RestoreTest::MAX_FILES).contains(&self.most_files()) {
            return Err(format!("a restore test takes 1 to {} files", RestoreTest::MAX_FILES));
        }
        if self.bytes == 0 {
            return Err("a restore test of no bytes tests nothing: raise --bytes".into());
        }
        let words = self.paths.iter().chain(self.expect.iter().map(|expected| &expected.path));
        let (count, bytes) = words.clone().fold((0, 0), |(count, bytes), word| (count + 1, bytes + word.len()));
        if count > RestoreTest::MAX_WORDS || bytes > RestoreTest::MAX_WORD_BYTES {
            return Err(format!(
                "{count} paths of {bytes} bytes are too many for one restore test; at most {} of {} bytes",
                RestoreTest::MAX_WORDS,
                RestoreTest::MAX_WORD_BYTES
            ));
        }
        for path in words {
            let inside = path.trim_start_matches('/');
            if inside.is_empty() || path.contains('\0') || inside.split('/').any(|part| part == "..") {
                return Err(format!("{path:?} is no path in an archive"));
            }
        }
        if let Some(wrong) = self.expect.iter().find(|expected| !is_sha256(&expected.sha256)) {
            return Err(format!("{:?} of {:?} is no SHA-256: 64 hex digits", wrong.sha256, wrong.path));
        }
        Ok(())
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A file as an earlier test found it. Its path is there as a hash: the record of tests lists nobody's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// SHA-256 of the path in the archive, 64 hex digits.
    pub path: String,
    /// SHA-256 of what must be the same for the content to be: the list of chunks, size and time of modification.
    pub item: String,
    /// SHA-256 of the content.
    pub content: String,
    /// The archive's id: within one archive nothing about a file ever changes.
    pub archive: String,
    /// Type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: i64,
    /// Group.
    pub gid: i64,
    /// Bytes.
    pub size: u64,
    /// Time of modification, nanoseconds since 1970.
    pub mtime: i64,
    /// When it was tested last.
    pub time: Timestamp,
}

/// What came of one test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestResult {
    /// When it ended.
    pub time: Timestamp,
    /// The job.
    pub job: u64,
    /// The archive's name; empty if it came to none.
    #[serde(default)]
    pub archive: String,
    /// A sentence.
    pub what: String,
}

/// What is remembered of the restore tests of one config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestRecord {
    /// The client.
    pub client: ClientName,
    /// The config's label.
    pub label: Label,
    /// The last test that was good: something was compared, and nothing was wrong. Nothing else renews it.
    #[serde(default)]
    pub last_good: Option<TestResult>,
    /// The last one that failed.
    #[serde(default)]
    pub last_failed: Option<TestResult>,
    /// The last one that found nothing wrong, and nothing to compare with.
    #[serde(default)]
    pub last_unproven: Option<TestResult>,
    /// Files with their hashes, at most [`TestRecord::MOST`].
    #[serde(default)]
    pub files: Vec<Known>,
}

/// How a test ended, for the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Something was compared, and nothing is wrong.
    Good,
    /// Nothing is wrong as far as can be seen, and nothing was compared.
    Unproven,
    /// It failed.
    Failed,
}

impl TestRecord {
    /// Files that are recorded at most: those that were tested last.
    pub const MOST: usize = 400;

    /// Nothing is known yet.
    #[must_use]
    pub fn new(config: &ConfigName) -> TestRecord {
        let ConfigName { client, label } = config.clone();
        TestRecord { client, label, last_good: None, last_failed: None, last_unproven: None, files: vec![] }
    }

    /// A test has ended.
    pub fn add(&mut self, ending: Ending, result: TestResult, files: Vec<Known>) {
        match ending {
            Ending::Good => self.last_good = Some(result),
            Ending::Unproven => self.last_unproven = Some(result),
            Ending::Failed => {
                self.last_failed = Some(result);
                // What a failed test has found is nothing to compare with later.
                return;
            }
        }
        self.files.retain(|known| files.iter().all(|new| new.path != known.path));
        self.files.extend(files);
        self.files.sort_by_key(|known| std::cmp::Reverse(known.time));
        self.files.truncate(TestRecord::MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(path: u32, time: i64) -> Known {
        Known {
            path: format!("{path:064x}"),
            item: "0a".repeat(32),
            content: "0b".repeat(32),
            archive: "0c".repeat(32),
            mode: 0o100_644,
            uid: 0,
            gid: 0,
            size: 5,
            mtime: 0,
            time: Timestamp(time),
        }
    }

    fn result(job: u64) -> TestResult {
        TestResult { time: Timestamp(job as i64), job, archive: "a".into(), what: "x".into() }
    }

    #[test]
    fn only_a_good_test_renews_the_age_of_the_last_good_one() {
        let mut record = TestRecord::new(&"web1/etc".parse().unwrap());
        record.add(Ending::Unproven, result(1), vec![known(1, 1)]);
        assert!(record.last_good.is_none() && record.files.len() == 1);
        record.add(Ending::Good, result(2), vec![known(1, 2)]);
        record.add(Ending::Failed, result(3), vec![known(2, 3)]);
        record.add(Ending::Unproven, result(4), vec![]);
        assert_eq!(record.last_good.as_ref().map(|good| good.job), Some(2));
        assert_eq!(record.last_failed.as_ref().map(|failed| failed.job), Some(3));
        assert_eq!(record.files, [known(1, 2)]);
    }

    #[test]
    fn the_record_is_bounded_and_keeps_what_was_tested_last() {
        let mut record = TestRecord::new(&"web1/etc".parse().unwrap());
        for job in 0..100 {
            record.add(Ending::Good, result(job), (0..20).map(|n| known(job as u32 * 20 + n, job as i64)).collect());
        }
        assert_eq!(record.files.len(), TestRecord::MOST);
        assert!(record.files.iter().all(|known| known.time >= Timestamp(80)));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let wrong = |change: fn(&mut RestoreTest)| {
            let mut test = RestoreTest::new();
            change(&mut test);
            test.check().unwrap_err()
        };
        assert_eq!(RestoreTest::new().check(), Ok(()));
        assert!(wrong(|t| t.files = Some(0)).contains("1 to 2000"));
        assert!(wrong(|t| t.files = Some(2001)).contains("1 to 2000"));
        assert!(wrong(|t| t.bytes = 0).contains("--bytes"));
        assert!(wrong(|t| t.paths = vec!["a/../b".into()]).contains("no path"));
        assert!(wrong(|t| t.paths = vec!["/".into()]).contains("no path"));
        assert!(wrong(|t| t.paths = vec!["x".into(); 1001]).contains("too many"));
        assert!(wrong(|t| t.expect = vec![Expected { path: "x".into(), sha256: "0".into() }]).contains("SHA-256"));
        assert!(wrong(|t| t.archive = Some(TestedArchive { name: "a".into(), id: "x".into() })).contains("id"));
    }
}
