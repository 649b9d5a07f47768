//! Bytes of released versions, which every later version must read. A file is written once (`write_missing_fixtures`) and never again.
#![allow(clippy::unwrap_used, reason = "tests, their helper functions included")]

mod common;

use std::fmt::Debug;
use std::path::PathBuf;

use model::check::Health;
use model::restore_test::TestRecord;
use model::retention::Jump;
use model::space::Space;
use model::{
    Archive, BackupConfig, CheckConfig, Client, Job, Occurrence, Policy, Repository, Schedule, Settings, Timestamp, Trigger, WebUser,
};
use store::record::{decode, encode, seal};
use store::{Change, Deletion, Entry, Intent, PreparedSession, Record, TransactionNumber};

fn path(name: &str, version: u16) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    dir.join(format!("{}-{version}.hex", name.replace(' ', "-")))
}

fn fixture(name: &str, version: u16) -> Vec<u8> {
    let path = path(name, version);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// Every version reads as `expected`. The present one also is what we write: a changed shape needs a new version.
fn check<R: Record + PartialEq + Debug>(expected: R) {
    for version in 1..=R::VERSION {
        let bytes = fixture(R::NAME, version);
        let decoded = decode::<R>(R::NAME, &bytes).unwrap();
        assert_eq!(decoded.path.first(), Some(&version), "{}", R::NAME);
        assert_eq!(decoded.record, expected);
        if version == R::VERSION {
            assert_eq!(
                String::from_utf8_lossy(&encode(&expected).unwrap()[13..]),
                String::from_utf8_lossy(&bytes[13..]),
                "the shape of {} has changed: raise its version, add an evolution and a fixture",
                R::NAME
            );
            assert_eq!(encode(&expected).unwrap(), bytes);
        }
    }
}

fn entry() -> Entry {
    Entry {
        number: TransactionNumber(2),
        time: common::T0,
        note: "move web1".into(),
        actor: "root".into(),
        undoes: Some(TransactionNumber(1)),
        changes: vec![Change {
            table: "clients".into(),
            record: "client web1".into(),
            key: b"web1\0".to_vec(),
            before: Some(vec![0, 1, 255]),
            after: None,
        }],
        previous: "12".repeat(32),
        hash: "34".repeat(32),
    }
}

#[test]
fn repository() {
    check::<Repository>(common::repository("main"));
}

#[test]
fn client() {
    check::<Client>(common::client("web1"));
}

#[test]
fn config() {
    check::<BackupConfig>(common::config("web1/etc", "main"));
}

#[test]
fn job() {
    check::<Job>(common::failed_job(7));
}

#[test]
fn archive() {
    check::<Archive>(common::archive("main", "web1/etc", 7, 0));
}

#[test]
fn settings() {
    check::<Settings>(common::settings());
}

#[test]
fn session() {
    check::<PreparedSession>(common::session(&"9a".repeat(32), 7));
}

#[test]
fn intent() {
    check::<Intent>(common::intent(7));
}

#[test]
fn deletion() {
    check::<Deletion>(common::deletion());
}

#[test]
fn schedule() {
    check::<Schedule>(common::schedule("nightly"));
}

#[test]
fn occurrence() {
    check::<Occurrence>(common::occurrence(7));
}

#[test]
fn trigger() {
    check::<Trigger>(common::trigger());
}

#[test]
fn policy() {
    check::<Policy>(common::policy("standard"));
}

#[test]
fn clock_jump() {
    check::<Jump>(common::clock_jump());
}

#[test]
fn restore_tests() {
    check::<TestRecord>(common::restore_tests());
}

#[test]
fn check_config() {
    check::<CheckConfig>(common::check_config("nightly"));
}

#[test]
fn health() {
    check::<Health>(common::health("main"));
}

#[test]
fn space() {
    check::<Space>(common::space("main", 20_000));
}

#[test]
fn web_user() {
    check::<WebUser>(common::web_user("alice"));
}

#[test]
fn archives_from_before_retention_are_neither_held_nor_going() {
    let archive = decode::<Archive>("archive", &fixture(Archive::NAME, 2)).unwrap().record;
    assert_eq!((archive.hold, archive.pending_deletion), (None, None));
}

#[test]
fn log_entry() {
    check::<Entry>(entry());
}

#[test]
fn kinds_are_unique() {
    let mut kinds = vec![
        Entry::KIND,
        Repository::KIND,
        Client::KIND,
        BackupConfig::KIND,
        Job::KIND,
        Archive::KIND,
        Settings::KIND,
        PreparedSession::KIND,
        Intent::KIND,
        Schedule::KIND,
        Occurrence::KIND,
        Trigger::KIND,
        Policy::KIND,
        Jump::KIND,
        TestRecord::KIND,
        CheckConfig::KIND,
        Health::KIND,
        WebUser::KIND,
        Space::KIND,
    ];
    assert_eq!(kinds, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 20, 21, 23, 24], "a kind's number never changes");
    kinds.dedup();
    assert_eq!(kinds.len(), 19);
}

#[test]
fn a_flipped_bit_in_any_record_is_noticed() {
    let bytes = fixture(Job::NAME, 1);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(decode::<Job>("job 7", &flipped).is_err(), "bit {bit}");
    }
}

#[test]
fn fields_that_may_be_absent_are_filled() {
    let body = br#"{"number":1,"kind":"backup","client":"web1","label":"etc","repository":null,"state":"job_created","history":[],"actor":"root","created":5}"#;
    let job = decode::<Job>("job 1", &seal(Job::KIND, 1, body)).unwrap().record;
    assert_eq!((job.created, job.repository, job.warning_count), (Timestamp(5), None, 0));
}

#[test]
fn clients_from_before_job_keys_go_on_with_their_own() {
    let ssh = |key: &str| {
        format!(r#"{{"name":"web1","connection":{{"kind":"ssh","remote":"root@web1","server":"borgcube-ssh@backup"{key}}},"created":5}}"#)
    };
    let read = |version: u16, body: &str| {
        let client = decode::<Client>("client web1", &seal(Client::KIND, version, body.as_bytes())).unwrap().record;
        match client.connection {
            model::Connection::Ssh(ssh) => (ssh.key, ssh.road, client.keys),
            model::Connection::Local { .. } => panic!("not local"),
        }
    };
    let back = model::client::Road::Back;
    assert_eq!(read(1, &ssh("")), (model::client::KeyUse::Permanent, back, vec![]));
    assert_eq!(read(2, &ssh("")), (model::client::KeyUse::Job, back, vec![]));
    assert_eq!(read(2, &ssh(r#","key":"permanent""#)), (model::client::KeyUse::Permanent, back, vec![]));
}

fn write<R: Record>(record: &R) {
    let path = path(R::NAME, R::VERSION);
    if path.exists() {
        return;
    }
    let hex: Vec<String> = encode(record).unwrap().iter().map(|b| format!("{b:02x}")).collect();
    let lines: Vec<String> = hex.chunks(64).map(|line| line.concat()).collect();
    std::fs::write(path, lines.join("\n") + "\n").unwrap();
}

/// `cargo test -p store --test fixtures -- --ignored` after a new version was made.
#[test]
#[ignore = "writes into the source tree, for new versions only"]
fn write_missing_fixtures() {
    write(&common::repository("main"));
    write(&common::client("web1"));
    write(&common::config("web1/etc", "main"));
    write(&common::failed_job(7));
    write(&common::archive("main", "web1/etc", 7, 0));
    write(&common::settings());
    write(&common::session(&"9a".repeat(32), 7));
    write(&common::intent(7));
    write(&common::deletion());
    write(&common::schedule("nightly"));
    write(&common::occurrence(7));
    write(&common::trigger());
    write(&common::web_user("alice"));
    write(&common::policy("standard"));
    write(&common::clock_jump());
    write(&common::restore_tests());
    write(&common::check_config("nightly"));
    write(&common::health("main"));
    write(&common::space("main", 20_000));
    write(&entry());
}
