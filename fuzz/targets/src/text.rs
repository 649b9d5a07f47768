//! Lines, paths and configs.

use model::borg_report::{self, Line, MAX_LINE};
use model::declarative::{self, Configuration, Record};
use model::token::Token;
use model::{BackupConfig, Timestamp};
use queue::worker::report::Report;

/// A client's standard output and error, line by line, as the worker collects them: whatever a line says, what is kept of it is
/// printable and short.
pub fn borg_log(data: &[u8]) {
    let mut report = Report::default();
    for (number, line) in data.split(|byte| *byte == b'\n').enumerate() {
        match borg_report::parse_line(line) {
            Line::Message { level, message, msgid } => {
                let _ = level;
                let failure = borg_report::cause_of(2, &msgid, &message);
                assert!(!failure.message.is_empty() && !failure.cause.word().is_empty());
            }
            Line::Text(text) => assert!(text.len() <= 3 * line.len().min(MAX_LINE)),
            Line::Progress { .. } | Line::Extracting { .. } | Line::FileStatus { .. } | Line::Nothing => {}
        }
        let now = Timestamp(1_800_000_000_000_000 + number as i64 * 250_000);
        report.line(line, now);
        let _ = report.step(line, now);
    }
    let _ = borg_report::ssh_failure(report.text());
    let printable = |text: &str| !text.chars().any(|letter| letter.is_control() && letter != '\n');
    assert!(report.text().len() <= 16 * 1024 && printable(report.text()));
    assert!(report.warnings.len() <= model::Job::MAX_WARNINGS && report.warnings.iter().all(|text| printable(text) && text.len() < 4000));
    let progress = report.progress.take();
    assert!(progress.is_none_or(|progress| progress.path.len() < 1100 && printable(&progress.path)));
    assert!(report.version.as_deref().is_none_or(|version| version.len() < 200 && printable(version)));
    for line in report.take_lines() {
        assert!(line.message.len() <= 4100 && printable(&line.message), "{:?}", line.message);
    }
}

/// The path of a client's `open`.
pub fn token(data: &[u8]) {
    for path in [data.to_vec(), [b"/./", data].concat()] {
        if let Some(token) = Token::from_open_path(&path) {
            assert_eq!(format!("/./{}", token.to_hex()).as_bytes(), path, "two paths for one token");
            assert_eq!(Token::from_hex(token.to_hex().as_bytes()), Some(token));
        }
    }
    if let Some(bytes) = data.first_chunk::<32>() {
        let token = Token::from_random(*bytes);
        assert_eq!(Token::from_open_path(format!("/./{}", token.to_hex()).as_bytes()), Some(token));
    }
}

/// A file of `borgcube apply`: whatever it says, each mistake has a place in it; and what is read is written and read again as the same.
pub fn configuration_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let settings = serde_json::json!({"server_id": "x", "limits": {"per_client": 1, "per_repository": 8, "total": 16}});
    let mut there = Configuration {
        settings: serde_json::from_value(settings).expect("settings"),
        repositories: vec![],
        clients: vec![],
        configs: vec![],
        policies: vec![],
        check_configs: vec![],
        schedules: vec![],
        triggers: vec![],
    };
    let now = Timestamp(1_795_300_000_000_000);
    let document = match declarative::parse(text, now, &there) {
        Ok(document) => document,
        Err(mistakes) => {
            assert!(!mistakes.is_empty());
            let lines = text.matches('\n').count() + 1;
            return assert!(mistakes.iter().all(|m| (1..=lines).contains(&m.place.line) && m.place.column > 0 && !m.message.is_empty()));
        }
    };
    for (number, entry) in (0..).zip(document.entries) {
        assert_eq!(entry.record.check(), Ok(()));
        match entry.record {
            Record::Settings(settings) => there.settings = *settings,
            Record::Repository(repository) => there.repositories.push(*repository),
            Record::Client(client) => there.clients.push(*client),
            Record::Config(config) => there.configs.push(*config),
            Record::Policy(policy) => there.policies.push(*policy),
            Record::CheckConfig(config) => there.check_configs.push(*config),
            Record::Schedule(schedule) => there.schedules.push(*schedule),
            Record::Trigger(mut trigger) => {
                trigger.created = Timestamp(number);
                there.triggers.push(*trigger);
            }
        }
    }
    let written = declarative::export(&there);
    let again = declarative::parse(&written, now, &there).unwrap_or_else(|mistakes| panic!("{mistakes:?}\n{written}"));
    if let Ok(plan) = declarative::plan(&there, &[], &again, true) {
        assert!(plan.is_empty(), "{plan:?}\n{written}");
    }
}

/// A backup config as JSON, as it arrives and as it is stored.
pub fn config(data: &[u8]) {
    if let Ok(config) = serde_json::from_slice::<BackupConfig>(data) {
        let text = serde_json::to_vec(&config).expect("a config can be written");
        assert_eq!(serde_json::from_slice::<BackupConfig>(&text).ok().as_ref(), Some(&config));
        assert_arguments(&config);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = model::names::check_archive_name(text);
        if let Ok(name) = text.parse::<model::ConfigName>() {
            assert_eq!(name.to_string(), text);
        }
        if let Ok(name) = text.parse::<model::ClientName>() {
            assert_eq!(name.as_str(), text);
            assert!(!text.contains(['/', '\0', '\n', ' ']) && !text.starts_with('.'), "{text:?} becomes a part of paths");
        }
    }
}

/// A config that is accepted makes a command line in which nothing stands before `--` that the server forbids.
pub fn assert_arguments(config: &BackupConfig) {
    if config.check().is_err() {
        return;
    }
    let arguments = config.borg_arguments("web1-etc-x");
    assert!(arguments.iter().all(|argument| !argument.is_empty() && !argument.contains(['\0', '\n'])), "{arguments:?}");
    let end = arguments.iter().position(|argument| argument == "--").expect("options end");
    assert_eq!(arguments[end + 1], "::web1-etc-x");
    assert_eq!(arguments[end + 2..], config.paths);
    assert!(arguments[1..end].iter().all(|argument| argument.starts_with('-')), "{arguments:?}");
    let forbidden = ["--no-cache", "--timestamp", "--comment", "--remote-path", "--rsh", "--dry-run", "--stdin-name", "--remote"];
    assert!(arguments[1..end].iter().all(|argument| !forbidden.iter().any(|name| argument.starts_with(name))), "{arguments:?}");
}
