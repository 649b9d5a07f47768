//! `borgcube restore-test`.

use super::{archive, run as running};
use crate::complete;
use crate::context::Context;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::output::tables::Column::{Text, Whole};
use crate::output::{Table, count, duration};
use clap::{Subcommand, ValueHint};
use clap_complete::ArgValueCandidates;
use model::restore_test::{Expected, RestoreTest, TestResult, TestedArchive};
use model::{Client, ClientName, ConfigName, Label, RepositoryName, Timestamp};
use serde::Serialize;
use std::path::{Path, PathBuf};
use wire::control::{Call, ListedTests, RestoreTests};

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Extract a sample of an archive on the server and compare it, as a job
    Run(Run),
    /// List the last good and the last failed restore test of each config, and their age
    #[command(alias = "ls")]
    List(List),
}

/// Options of `borgcube restore-test run`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Files are extracted on the server by a confined process, hashed and removed. What is compared: hashes that earlier tests
have recorded, hashes of your own (--expect), the files on the client (--live). A test that can compare nothing, as the
first one of a config without --live and --expect, says so and does not count as good.

Examples:
  borgcube restore-test run web1/etc --wait
  borgcube restore-test run web1 --files 100 --bytes 5G --live --wait
  borgcube restore-test run web1/etc --path etc/ssh --path etc/fstab --wait
  borgcube restore-test run db1/data --archive db1-data-2026-11-01T02:00:00-17 --expect SHA256SUMS --wait"
)]
pub struct Run {
    /// Client, or one of its backup configs
    #[arg(value_name = "CLIENT[/LABEL]", value_parser = subject, add = ArgValueCandidates::new(complete::configs))]
    subject: Subject,
    /// Test this archive, by its name, its id or the beginning of its id (default: the newest whole one)
    #[arg(long, value_name = "ARCHIVE", add = ArgValueCandidates::new(complete::archives))]
    archive: Option<String>,
    /// Draw so many files (default: 20, or everything that --path and --expect name)
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=i64::from(RestoreTest::MAX_FILES)))]
    files: Option<u32>,
    /// Extract no more than this, such as 500M or 2G
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = size)]
    bytes: u64,
    /// Test this path in the archive and everything below it; repeatable
    #[arg(long, value_name = "PATH", value_hint = ValueHint::Other)]
    path: Vec<String>,
    /// Test the files of this list, and compare with its hashes (the form of sha256sum, paths as in the archive or with a slash before)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    expect: Option<PathBuf>,
    /// Compare with what is on the client now
    #[arg(long)]
    live: bool,
    /// Draw the same sample as an earlier test, whose seed `borgcube job show` tells
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u32>,
    /// Show progress until the job has ended; the exit code tells how
    #[arg(long, short)]
    wait: bool,
}

/// Options of `borgcube restore-test list`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Show those of this client only
    #[arg(long, short, add = ArgValueCandidates::new(complete::clients))]
    client: Option<ClientName>,
}

/// A client, or a config.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Subject {
    client: ClientName,
    label: Option<Label>,
}

fn subject(text: &str) -> std::result::Result<Subject, String> {
    if text.contains('/') {
        let config: ConfigName = text.parse().map_err(|e: model::names::NameError| e.to_string())?;
        return Ok(Subject { client: config.client, label: Some(config.label) });
    }
    let client = text.parse().map_err(|e: model::names::NameError| e.to_string())?;
    Ok(Subject { client, label: None })
}

/// Bytes with a letter behind them, powers of 1000.
fn size(text: &str) -> std::result::Result<u64, String> {
    let wrong = || format!("{text:?} is no size; write it as 500M or 2G");
    let (digits, factor) = match text.char_indices().last() {
        Some((at, letter)) if letter.is_ascii_alphabetic() => {
            let power = "KMGT".find(letter.to_ascii_uppercase()).ok_or_else(wrong)?;
            (&text[..at], 1000_u64.pow(power as u32 + 1))
        }
        _ => (text, 1),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(factor).filter(|bytes| *bytes > 0).ok_or_else(wrong)
}

/// Does it.
pub fn run(command: Command, context: &Context) -> Result<()> {
    match command {
        Command::Run(args) => test(args, context),
        Command::List(args) => list(&args, context),
    }
}

fn test(args: Run, context: &Context) -> Result<()> {
    let Subject { client, mut label } = args.subject;
    let found = match &args.archive {
        Some(name) => Some(archive::find(context, name, None)?.ok_or_else(|| archive::unknown(name))?),
        None => None,
    };
    if let Some(archive) = &found {
        if archive.client != client || label.as_ref().is_some_and(|label| archive.label != *label) {
            return Err(Error::usage(format!("archive {} is one of {}/{}", archive.name, archive.client, archive.label)));
        }
        label = Some(archive.label.clone());
    }
    let expect = args.expect.as_deref().map(expected).transpose()?.unwrap_or_default();
    let test = RestoreTest {
        label,
        archive: found.as_ref().map(|archive| TestedArchive { name: archive.name.clone(), id: archive.id.clone() }),
        files: args.files,
        bytes: args.bytes,
        paths: args.path,
        expect,
        live: args.live,
        seed: args.seed,
    };
    test.check().map_err(Error::usage)?;
    let repository: Option<RepositoryName> = found.map(|archive| archive.repository);
    running::queued(Call::RunRestoreTest { client, repository, test: Box::new(test), retry: !args.wait }, args.wait, context)
}

/// A list as `sha256sum` writes it.
fn expected(path: &Path) -> Result<Vec<Expected>> {
    let failed = |e: &dyn std::fmt::Display| Error::usage(format!("cannot read {}: {e}", path.display()));
    let most = 4 * RestoreTest::MAX_WORD_BYTES as u64;
    let bytes = unix::files::read_small(path, most).map_err(|e| failed(&e))?.ok_or_else(|| failed(&"there is no such file"))?;
    let text = String::from_utf8(bytes).map_err(|_| failed(&"it is no UTF-8"))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty());
    let parsed: Result<Vec<_>> =
        lines.map(|(at, line)| sum(line).ok_or_else(|| failed(&format!("line {} is none of sha256sum", at + 1)))).collect();
    let parsed = parsed?;
    if parsed.is_empty() { Err(failed(&"it is empty")) } else { Ok(parsed) }
}

/// GNU: two spaces, or a space and a star; a backslash before the hash marks a name with escapes.
fn sum(line: &str) -> Option<Expected> {
    let (escaped, line) = line.strip_prefix('\\').map_or((false, line), |rest| (true, rest));
    let (hash, rest) = line.split_at_checked(64)?;
    let name = rest.strip_prefix("  ").or_else(|| rest.strip_prefix(" *"))?;
    let is_hash = hash.bytes().all(|b| b.is_ascii_hexdigit());
    let name = if escaped { unescaped(name)? } else { name.to_owned() };
    let name = name.trim_start_matches("./").trim_start_matches('/');
    (is_hash && !name.is_empty()).then(|| Expected { path: name.to_owned(), sha256: hash.to_ascii_lowercase() })
}

fn unescaped(name: &str) -> Option<String> {
    let mut characters = name.chars();
    let mut plain = String::new();
    while let Some(c) = characters.next() {
        plain.push(match c {
            '\\' => match characters.next()? {
                'n' => '\n',
                'r' => '\r',
                '\\' => '\\',
                _ => return None,
            },
            c => c,
        });
    }
    Some(plain)
}

/// What tests have found, with their age.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    tests: ListedTests,
    /// Seconds since the last good one.
    good_age_seconds: Option<u64>,
}

/// All that is known of restore tests.
pub fn all(control: &mut Control) -> Result<Vec<ListedTests>> {
    Ok(control.call::<RestoreTests>(Call::ListRestoreTests {})?.tests)
}

fn list(args: &List, context: &Context) -> Result<()> {
    let now = Timestamp::now();
    let tests = all(&mut context.control()?)?.into_iter();
    let tests = tests.filter(|tests| args.client.as_ref().is_none_or(|client| tests.client == *client));
    let rows: Vec<Row> =
        tests.map(|tests| Row { good_age_seconds: tests.last_good.as_ref().map(|good| seconds(good, now)), tests }).collect();
    let columns = [Whole("CONFIG"), Whole("LAST GOOD"), Whole("AGE"), Whole("LAST FAILED"), Text("WHAT")];
    let table = Table::new(&columns, &rows, |row| {
        let ListedTests { client, label, last_good, last_failed, last_unproven, .. } = &row.tests;
        let time = |result: &Option<TestResult>| result.as_ref().map_or_else(|| "never".to_owned(), |r| r.time.to_local());
        // What matters most: why the newest one is no good one.
        let newest = [last_good, last_failed, last_unproven].into_iter().flatten().max_by_key(|result| result.time);
        let what = newest.map_or_else(|| "not tested yet".to_owned(), |result| format!("job {}: {}", result.job, result.what));
        let age = last_good.as_ref().map(|good| age(good, now)).unwrap_or_default();
        vec![format!("{client}/{label}"), time(last_good), age, time(last_failed), what]
    });
    context.list(&rows, table)
}

/// Seconds since a test.
fn seconds(result: &TestResult, now: Timestamp) -> u64 {
    now.seconds_since(result.time).max(0.0) as u64
}

/// The same for people.
fn age(result: &TestResult, now: Timestamp) -> String {
    duration(now.seconds_since(result.time).max(0.0).max(10.0))
}

/// A client with what is known of its restore tests.
#[derive(Debug, Serialize)]
pub struct TestedClient {
    /// The record.
    #[serde(flatten)]
    pub client: Client,
    /// The newest good test of any of its configs.
    pub last_good_restore_test: Option<TestResult>,
    /// Seconds since then.
    pub restore_test_age_seconds: Option<u64>,
    /// Configs of which no restore was ever good.
    pub configs_without_restore_test: usize,
}

/// Puts both together.
pub fn with_clients(clients: Vec<Client>, tests: &[ListedTests]) -> Vec<TestedClient> {
    let now = Timestamp::now();
    let clients = clients.into_iter().map(|client| {
        let of_client = || tests.iter().filter(|tests| tests.client == client.name);
        let newest = of_client().filter_map(|tests| tests.last_good.clone()).max_by_key(|result| result.time);
        let without = of_client().filter(|tests| tests.last_good.is_none()).count();
        TestedClient {
            client,
            restore_test_age_seconds: newest.as_ref().map(|good| seconds(good, now)),
            last_good_restore_test: newest,
            configs_without_restore_test: without,
        }
    });
    clients.collect()
}

impl TestedClient {
    /// The age of the last good test in a word or two.
    pub fn age(&self) -> Option<String> {
        self.restore_test_age_seconds.map(|seconds| duration((seconds as f64).max(10.0)))
    }

    /// A sentence about it.
    pub fn line(&self) -> String {
        let without = match self.configs_without_restore_test {
            0 => String::new(),
            n => format!("; {} without a good one", count(n as u64, "config")),
        };
        match (&self.last_good_restore_test, self.age()) {
            (Some(good), Some(age)) => format!("good {age} ago (job {}){without}", good.job),
            _ => "no good one yet: borgcube restore-test run".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_sha256sum_are_read() {
        let hash = "ab".repeat(32);
        let path = |line: &str| sum(line).map(|expected| expected.path);
        assert_eq!(path(&format!("{hash}  etc/hosts")).as_deref(), Some("etc/hosts"));
        assert_eq!(path(&format!("{hash} *./etc/a b")).as_deref(), Some("etc/a b"));
        assert_eq!(path(&format!("\\{hash}  /etc/a\\nb\\\\c")).as_deref(), Some("etc/a\nb\\c"));
        assert_eq!(sum(&format!("{}  x", "AB".repeat(32))).unwrap().sha256, hash);
        for wrong in
            [&hash[..], "x  y", &format!("{hash} etc"), &format!("{hash}  "), &format!("\\{hash}  a\\x"), &format!("{}z  x", &hash[1..])]
        {
            assert_eq!(path(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_have_letters() {
        assert_eq!((size("500M"), size("2g"), size("7")), (Ok(500_000_000), Ok(2_000_000_000), Ok(7)));
        for wrong in ["", "M", "1X", "-1", "0", "99999999999T", "1.5G", "5 M"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_client_or_a_config() {
        assert_eq!(subject("web1").unwrap().label, None);
        assert_eq!(subject("web1/etc").unwrap().label, Some("etc".parse().unwrap()));
        assert!(subject("web1/").is_err() && subject("-x").is_err());
    }
}
