#![allow(clippy::unwrap_used, reason = "these are tests")]

use super::words::Done;
use super::*;
use model::check::DamagedFiles;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use wire::importing::Counted;

fn order(what: What) -> Order {
    Order { archive: "ab".repeat(32), seconds: 60, what }
}

fn files() -> Order {
    order(What::Files { chunks: vec![] })
}

fn extract() -> Order {
    let extract = Extract {
        directory: "/nowhere".into(),
        files: 20,
        bytes: 1000,
        is_whole: false,
        take: vec!["pp:a".into()],
        seed: 7,
        known: BTreeMap::new(),
    };
    order(What::Extract(Box::new(extract)))
}

fn ready() -> Value {
    json!({"Ready": {"calls": true, "files": false, "limits": true}})
}

fn file(path: &str, damage: &str) -> Value {
    json!({"File": {"path": path, "path_hash": "", "item_hash": "", "content": "", "mode": 0, "uid": 0, "gid": 0, "size": 0, "mtime": 0,
        "ctime": null, "damage": damage, "note": null}})
}

/// What a worker hears of a process that says this, behind that it is ready: its last word, the others, and the archives that were asked for.
fn heard(order: &Order, words: impl IntoIterator<Item = Value>) -> (Result<Word>, Vec<Word>, Vec<String>) {
    heard_first(order, std::iter::once(ready()).chain(words))
}

fn heard_first(order: &Order, words: impl IntoIterator<Item = Value>) -> (Result<Word>, Vec<Word>, Vec<String>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let asked = std::cell::RefCell::new(vec![]);
    let connect = |archive: &str| {
        asked.borrow_mut().push(archive.to_owned());
        Err(Error::Unreachable("nobody is here".into()))
    };
    let mut told = vec![];
    let words: Vec<Value> = words.into_iter().collect();
    let last = std::thread::scope(|scope| {
        let theirs = &theirs;
        scope.spawn(move || {
            // A worker that does not listen any more is what is tested.
            let _ = words.iter().try_for_each(|word| json::write(&mut &*theirs, word));
            let _ = theirs.shutdown(std::net::Shutdown::Write);
        });
        let last = listen(&ours, order, &connect, &mut |word| {
            told.push(word);
            true
        });
        drop(ours);
        last
    });
    (last, told, asked.into_inner())
}

#[track_caller]
fn assert_refused(order: &Order, words: impl IntoIterator<Item = Value>, why: &str) {
    let (last, ..) = heard_first(order, words);
    let error = format!("{:#}", last.unwrap_err());
    assert!(error.contains(why), "{error}");
}

#[test]
fn what_it_lacks_it_says_once_and_in_three_words() {
    let (last, told, _) = heard(&files(), [json!({"Done": {"Files": {"paths": ["a"]}}})]);
    assert!(matches!(last.unwrap(), Word::Done(Done::Files(files)) if files.paths == ["a"]));
    let [Word::Ready(ready_word)] = &told[..] else { panic!("{told:?}") };
    assert!(ready_word.lacking().unwrap().ends_with(" by Landlock"));
    let endless = json!({"Ready": ["x".repeat(1000), "y", "z"]});
    assert_refused(&files(), [endless], "not understood");
    assert_refused(&files(), [ready(), ready()], "does not follow");
    assert_refused(&files(), [json!("Connect")], "does not follow");
    assert_refused(&files(), [json!({"Done": {"Files": {"paths": []}}})], "does not follow");
}

#[test]
fn it_does_not_say_that_it_is_lost() {
    assert_refused(&files(), [ready(), json!({"Lost": "x"})], "not understood");
    assert_refused(&files(), [ready(), json!("nonsense")], "not understood");
    assert_refused(&files(), [ready()], "closed");
}

#[test]
fn a_flood_of_progress_is_no_flood_of_events() {
    let flood = (0..50_000).map(|n| json!({"Progress": {"unit": "x\n".repeat(100), "done": n, "total": 0}}));
    let began = Instant::now();
    let (last, told, _) = heard(&files(), flood);
    assert!(last.is_err());
    assert!((told.len() as u128) <= 3 + began.elapsed().as_millis() / NEWS.as_millis(), "{}", told.len());
    let unit = told.iter().find_map(|word| if let Word::Progress { unit, .. } = word { Some(unit.as_str()) } else { None }).unwrap();
    assert!(unit.chars().count() <= words::UNIT + 1 && !unit.contains('\n'), "{unit}");
}

#[test]
fn files_are_those_of_a_sample_and_not_more() {
    let many = |count| (0..count).map(|_| file("61", "x"));
    let done = || json!({"Done": {"Tried": Summary::default()}});
    let most = RestoreTest::MAX_FILES as usize;
    let (last, told, _) = heard(&extract(), many(most).chain([done()]));
    assert!(last.is_ok() && told.len() == most + 1);
    assert!(heard(&extract(), many(most + 1).chain([done()])).0.is_err());
    assert!(heard(&extract(), [file("6x", "x"), done()]).0.is_err());
    assert!(heard(&files(), [file("61", "x")]).0.is_err());
    // Nor do few of them say more than a worker remembers.
    let large = "x".repeat(1 << 20);
    let (last, told, _) = heard(&extract(), (0..200).map(|_| file("61", &large)));
    assert!(format!("{:#}", last.unwrap_err()).contains("more than") && told.len() <= (TALK >> 20) + 1, "{}", told.len());
}

#[test]
fn connections_are_to_one_archive_and_have_an_end() {
    let (last, told, asked) = heard(&files(), (0..CONNECTIONS + 1).map(|_| json!("Connect")));
    assert!(last.is_err() && told.len() == 1);
    assert!(asked.len() == CONNECTIONS && asked.iter().all(|archive| *archive == "ab".repeat(32)));
}

#[test]
fn results_are_those_that_were_asked_for_and_bounded() {
    let checked = |done: Done, order: Order| done.checked(&order.what);
    let uses = |file, uses| Done::Uses { file, uses, counted: Counted::default() };
    assert!(checked(uses(1, 7), order(What::Uses { most: 7 })).is_ok());
    assert!(checked(uses(2, 7), order(What::Uses { most: 7 })).is_err());
    assert!(checked(uses(1, 8), order(What::Uses { most: 7 })).is_err());
    assert!(checked(uses(1, 7), files()).is_err() && checked(Done::Tried(Summary::default()), files()).is_err());
    assert!(checked(Done::Refused { why: String::new(), is_damage: true }, files()).is_err());

    let paths = vec!["a\u{1b}".to_owned() + &"ö".repeat(10_000); 10_000];
    let many = DamagedFiles { paths, more: u64::MAX - 1, incomplete: Some("x".repeat(10_000)) };
    let Ok(Done::Files(found)) = checked(Done::Files(many), files()) else { panic!() };
    assert!(found.paths.len() == DamagedFiles::MAX && found.more == u64::MAX);
    assert!(found.paths.iter().all(|path| path.starts_with("a\\u{1b}ö") && path.chars().count() == DamagedFiles::LONGEST + 1));
    assert!(found.incomplete.unwrap().len() < 600);

    let summary = Summary {
        unmatched: vec!["pp:a".into(), "pp:b".into(), "pp:a".into()],
        complaints: vec!["x\n".repeat(5000); 5000],
        ..Summary::default()
    };
    let Ok(Done::Tried(summary)) = checked(Done::Tried(summary), extract()) else { panic!() };
    assert_eq!(summary.unmatched, ["pp:a"]);
    assert!(summary.complaints.len() == 20 && summary.complaints[0].chars().count() == words::SENTENCE + 1);
}

#[test]
fn its_failures_accuse_nobody() {
    let failed =
        |cause: Cause| match heard(&files(), [serde_json::to_value(Word::Failed(Failure::new(cause, "x".repeat(100_000)))).unwrap()]).0 {
            Ok(Word::Failed(failure)) => {
                assert_eq!(failure.message.chars().count(), words::SENTENCE + 1);
                failure.cause
            }
            other => panic!("{other:?}"),
        };
    for honest in [Cause::OwnerLost, Cause::RepositoryIntegrity, Cause::QuotaExceeded { limit: "restore-test".into() }] {
        assert_eq!(failed(honest.clone()), honest);
    }
    let rule = Cause::PolicyViolation { rule: "x".into() };
    for false_one in [rule, Cause::Cancelled { by: "root".into() }, Cause::BorgcubedRestart, Cause::QuotaExceeded { limit: "x".repeat(9) }]
    {
        assert_eq!(failed(false_one), Cause::Internal);
    }
}

#[test]
fn a_word_without_end_ends() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    std::thread::scope(|scope| {
        let theirs = &theirs;
        scope.spawn(move || while (&*theirs).write_all(&[b' '; 1 << 16]).is_ok() {});
        let last = listen(&ours, &files(), &|_| Err(Error::Unreachable(String::new())), &mut |_| true);
        assert!(last.is_err());
        drop(ours);
    });
}
