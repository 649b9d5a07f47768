//! Nothing is written unless the transaction commits; what is committed is there, indexed and logged.
#![allow(clippy::unwrap_used, reason = "tests, their helper functions included")]

mod common;

use std::os::unix::fs::PermissionsExt;

use common::*;
use model::{JobState, Timestamp};
use store::{Error, JobFilter, Options, Store, TransactionNumber};

#[test]
fn an_error_leaves_nothing_behind() {
    let (_dir, store) = store();
    store.write_at(T0, "set up", "root", |w| w.clients().insert(&client("web1"))).unwrap();
    let before = store.read(|r| Ok((r.clients().list()?, r.jobs().count()?, r.log().newest(9)?))).unwrap();

    let refused = store.write_at(T0, "half", "root", |w| {
        w.clients().insert(&client("web2"))?;
        w.clients().remove(&client_name("web1"))?;
        w.jobs().create(|number| job(number, "web1/etc", "main"))?;
        Err::<(), _>(Error::caller("thought better of it"))
    });
    assert!(matches!(refused, Err(Error::Caller(_))));
    let after = store.read(|r| Ok((r.clients().list()?, r.jobs().count()?, r.log().newest(9)?))).unwrap();
    assert_eq!(before, after);
    assert_eq!(store.write_at(T0, "next", "root", |w| w.jobs().create(|n| job(n, "web1/etc", "main"))).unwrap().0.number, 1);
    verify(&store);
}

#[test]
fn a_transaction_sees_its_own_changes_and_others_after_the_commit() {
    let (_dir, store) = store();
    store
        .write_at(T0, "add", "root", |w| {
            w.clients().insert(&client("web1"))?;
            assert!(w.view().clients().exists(&client_name("web1"))?);
            let other = store.clone();
            let elsewhere = std::thread::spawn(move || other.read(|r| r.clients().count()));
            assert_eq!(elsewhere.join().unwrap()?, 0);
            Ok(())
        })
        .unwrap();
    assert_eq!(store.read(|r| r.clients().count()).unwrap(), 1);
}

#[test]
fn the_log_says_who_when_what_for_and_what() {
    let (_dir, store) = store();
    let ((), first) = store.write_at(T0, "add web1", "alice", |w| w.clients().insert(&client("web1"))).unwrap();
    let ((), second) = store
        .write_at(T0.plus_seconds(5), "rename", "bob", |w| {
            w.clients().update(&client_name("web1"), |c| {
                c.description = "new".into();
                Ok(())
            })
        })
        .unwrap();
    assert_eq!((first, second), (TransactionNumber(1), TransactionNumber(2)));
    let entries = store.read(|r| r.log().newest(10)).unwrap();
    assert_eq!(entries.iter().map(|e| e.number.0).collect::<Vec<_>>(), [2, 1]);
    let entry = &entries[0];
    assert_eq!((entry.time, entry.note.as_str(), entry.actor.as_str()), (T0.plus_seconds(5), "rename", "bob"));
    assert_eq!(entry.previous, entries[1].hash);
    assert_eq!((entry.changes[0].record.as_str(), entry.changes[0].verb()), ("client web1", "changed"));
    assert_eq!((entries[1].changes[0].verb(), &entries[1].changes[0].before), ("added", &None));
    assert_eq!(store.read(|r| r.log().newest_before(second, 10)).unwrap(), entries[1..]);
    assert_eq!(store.read(|r| r.log().newest(1)).unwrap(), entries[..1]);
    verify(&store);
}

#[test]
fn a_glance_at_a_large_transaction_is_small() {
    let (_dir, store) = store();
    let add = |w: &mut store::Write<'_>, from: u32, to: u32| (from..to).try_for_each(|n| w.clients().insert(&client(&format!("c{n:05}"))));
    store.write_at(T0, "one", "root", |w| add(w, 0, 1)).unwrap();
    store.write_at(T0, "many", "root", |w| add(w, 1, 3000)).unwrap();
    store.write_at(T0, "gone", "root", |w| w.clients().remove(&client_name("c00000")).map(drop)).unwrap();
    let last = TransactionNumber(u64::MAX);
    let (entries, glances) = store.read(|r| Ok((r.log().newest(10)?, r.log().glances_before(last, 10)?))).unwrap();
    assert_eq!((entries.len(), glances.len()), (3, 3));
    for (entry, glance) in entries.iter().zip(&glances) {
        assert_eq!((glance.number, glance.time, glance.undoes, &glance.hash), (entry.number, entry.time, entry.undoes, &entry.hash));
        assert_eq!((&glance.note, &glance.actor), (&entry.note, &entry.actor));
        let words: Vec<String> = entry.changes.iter().map(|change| format!("{} {}", change.verb(), change.record)).collect();
        assert!(words.starts_with(&glance.changes.first) && glance.changes.first.len() == words.len().min(20));
        assert_eq!(glance.changes.first.len() as u64 + glance.changes.more, words.len() as u64);
    }
    assert_eq!((glances[0].changes.first[0].as_str(), glances[1].changes.more), ("removed client c00000", 2979));
    assert_eq!(store.read(|r| r.log().glances_before(TransactionNumber(2), 10)).unwrap(), glances[2..]);
}

#[test]
fn what_amounts_to_nothing_is_not_logged() {
    let (_dir, store) = store();
    store.write_at(T0, "add", "root", |w| w.clients().insert(&client("web1"))).unwrap();
    let ((), none) = store
        .write_at(T0, "nothing", "root", |w| {
            w.clients().put(&client("web1"))?;
            w.clients().insert(&client("web2"))?;
            w.clients().remove(&client_name("web2"))?;
            Ok(())
        })
        .unwrap();
    assert_eq!(none, TransactionNumber::NONE);
    assert_eq!(store.read(|r| r.log().newest(9)).unwrap().len(), 1);
}

#[test]
fn one_record_changed_twice_is_one_change_with_the_first_image() {
    let (_dir, store) = store();
    store
        .write_at(T0, "add", "root", |w| {
            w.clients().insert(&client("web1"))?;
            w.clients().update(&client_name("web1"), |c| {
                c.description = "twice".into();
                Ok(())
            })
        })
        .unwrap();
    let entry = store.read(|r| r.log().last()).unwrap().unwrap();
    assert_eq!(entry.changes.len(), 1);
    assert_eq!(entry.changes[0].before, None);
    verify(&store);
}

#[test]
fn verbs_refuse_what_does_not_fit() {
    let (_dir, store) = store();
    store.write_at(T0, "add", "root", |w| w.clients().insert(&client("web1"))).unwrap();
    let twice = store.write_at(T0, "x", "root", |w| w.clients().insert(&client("web1")));
    assert_eq!(twice.unwrap_err().to_string(), "client web1 exists already");
    let missing = store.write_at(T0, "x", "root", |w| w.clients().remove(&client_name("db")));
    assert_eq!(missing.unwrap_err().to_string(), "client db does not exist");
    let missing = store.write_at(T0, "x", "root", |w| w.jobs().update(&9, |_| Ok(())));
    assert_eq!(missing.unwrap_err().to_string(), "job 9 does not exist");
    let renamed = store.write_at(T0, "x", "root", |w| {
        w.clients().update(&client_name("web1"), |c| {
            c.name = client_name("web2");
            Ok(())
        })
    });
    assert!(matches!(renamed, Err(Error::Unstorable { .. })));
    assert!(store.read(|r| r.clients().require(&client_name("web2"))).is_err());
}

#[test]
fn replace_is_a_compare_and_set() {
    let (_dir, store) = store();
    store.write_at(T0, "add", "root", |w| w.clients().insert(&client("web1"))).unwrap();
    let read = || store.read(|r| r.clients().stored(&client_name("web1"))).unwrap().unwrap();
    let (alice, bob) = (read(), read());
    let edit = |stored: &store::Stored<model::Client>, text: &str| {
        let mut edited = stored.record.clone();
        edited.description = text.into();
        store.write_at(T0, text, "root", |w| w.clients().replace(&stored.stamp, &edited))
    };
    edit(&alice, "by alice").unwrap();
    assert!(matches!(edit(&bob, "by bob"), Err(Error::Conflict { record, .. }) if record == "client web1"));
    assert_eq!(read().record.description, "by alice");
    edit(&read(), "by bob").unwrap();
}

#[test]
fn job_states_are_a_compare_and_set() {
    let (_dir, store) = store();
    let (job, _) = store.write_at(T0, "run", "root", |w| w.jobs().create(|n| job(n, "web1/etc", "main"))).unwrap();
    let step = |previous, to| store.write_at(T0, "step", "borgcubed", |w| w.jobs().update_state(job.number, previous, to, T0));
    step(JobState::JobCreated, JobState::ClientPreparing).unwrap();
    let late = step(JobState::JobCreated, JobState::ClientPreparing);
    assert!(matches!(late, Err(Error::State(model::job::StateError::Unexpected { .. }))));
    let state = |state| store.read(|r| r.jobs().in_state(state)).unwrap().len();
    assert_eq!((state(JobState::JobCreated), state(JobState::ClientPreparing)), (0, 1));
    assert_eq!(store.read(|r| r.jobs().running()).unwrap().len(), 1);
    let filter = JobFilter { states: vec![JobState::JobCreated], ..JobFilter::default() };
    assert!(store.read(|r| r.jobs().page(&filter, 5)).unwrap().is_empty());
    verify(&store);
}

#[test]
fn transactions_do_not_nest() {
    let (_dir, store) = store();
    assert!(matches!(store.read(|_| store.read(|_| Ok(()))), Err(Error::Nested)));
    assert!(matches!(store.read(|_| store.write("x", "root", |_| Ok(()))), Err(Error::Nested)));
    assert!(matches!(store.write("x", "root", |_| store.read(|_| Ok(()))), Err(Error::Nested)));
    let (_dir2, other) = common::store();
    store.read(|_| other.read(|_| Ok(()))).unwrap();
    store.read(|_| Ok(())).unwrap();
}

#[test]
fn one_process_opens_a_database_once() {
    let (dir, store) = store();
    assert!(matches!(Store::open(dir.path().join("db")), Err(Error::AlreadyOpen(_))));
    drop(store);
    Store::open(dir.path().join("db")).unwrap();
}

#[test]
fn what_was_committed_is_there_after_reopening() {
    let (dir, store) = store();
    store
        .write_at(T0, "set up", "root", |w| {
            w.repositories().insert(&repository("main"))?;
            w.clients().insert(&client("web1"))?;
            w.configs().insert(&config("web1/etc", "main"))?;
            w.set_settings(&settings())?;
            w.archives().insert(&archive("main", "web1/etc", 1, 0))
        })
        .unwrap();
    drop(store);
    let store = Store::open(dir.path().join("db")).unwrap();
    store
        .read(|r| {
            assert_eq!(r.repositories().list()?, [repository("main")]);
            assert_eq!(r.clients().list()?, [client("web1")]);
            assert_eq!(r.configs().list()?, [config("web1/etc", "main")]);
            assert_eq!(r.settings()?, Some(settings()));
            assert_eq!(r.archives().list()?, [archive("main", "web1/etc", 1, 0)]);
            Ok(())
        })
        .unwrap();
    verify(&store);
}

#[test]
fn reading_only() {
    let (dir, store) = store();
    store.write_at(T0, "add", "root", |w| w.clients().insert(&client("web1"))).unwrap();
    drop(store);
    let store = Options::new().read_only().open(dir.path().join("db")).unwrap();
    assert_eq!(store.read(|r| r.clients().count()).unwrap(), 1);
    assert!(matches!(store.write("x", "root", |_| Ok(())), Err(Error::ReadOnly)));
    assert!(store.stat().unwrap().readers > 0, "the reader is registered");
    let nowhere = Options::new().read_only().open(dir.path().join("nowhere"));
    assert!(matches!(nowhere, Err(Error::Io { .. })));
}

#[test]
fn files_are_as_private_as_their_directory() {
    let dir = tempfile::tempdir().unwrap();
    for (name, directory, file) in [("own", 0o700, 0o600), ("shared", 0o770, 0o660)] {
        let db = dir.path().join(name);
        std::fs::create_dir(&db).unwrap();
        std::fs::set_permissions(&db, std::fs::Permissions::from_mode(directory)).unwrap();
        let _store = Store::open(&db).unwrap();
        for name in ["data.mdb", "lock.mdb"] {
            assert_eq!(db.join(name).metadata().unwrap().permissions().mode() & 0o777, file, "{name}");
        }
    }
}

#[test]
fn a_copy_is_complete_compact_and_overwrites_nothing() {
    let (dir, store) = store();
    for n in 0..200 {
        store.write_at(T0, "add", "root", |w| w.clients().put(&client(&format!("web{n}")))).unwrap();
    }
    let copy = dir.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    store.copy_to(copy.join("data.mdb")).unwrap();
    assert!(matches!(store.copy_to(copy.join("data.mdb")), Err(Error::Io { what: "will not overwrite", .. })));
    assert_eq!(copy.join("data.mdb").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(&copy).unwrap().count(), 1);
    let restored = Store::open(&copy).unwrap();
    assert_eq!(restored.read(|r| r.clients().list()).unwrap(), store.read(|r| r.clients().list()).unwrap());
    assert!(restored.stat().unwrap().file_size <= store.stat().unwrap().file_size);
    verify(&restored);
}

#[test]
fn sizes_are_told() {
    let (_dir, store) = store();
    store.write_at(T0, "add", "root", |w| w.clients().insert(&client("web1"))).unwrap();
    let stat = store.stat().unwrap();
    assert_eq!(stat.map_size, store::env::MAP_SIZE as u64);
    assert!(stat.used_size <= stat.map_size && stat.file_size > 0);
    let clients = stat.tables.iter().find(|t| t.name == "clients").unwrap();
    assert_eq!((clients.entries, clients.size > 0), (1, true));
}

#[test]
fn tokens_are_used_once_and_in_time() {
    let (_dir, store) = store();
    let late = Timestamp(session("a", 1).expires.0);
    store
        .write_at(T0, "prepare", "owner", |w| {
            for (hash, job) in [("a", 1), ("b", 1), ("c", 2), ("d", 3)] {
                w.sessions().insert(&session(hash, job))?;
            }
            Ok(())
        })
        .unwrap();
    let claim = |hash: &str, now| store.write_at(now, "claim", "owner", |w| w.sessions().claim(hash, now)).unwrap().0;
    assert_eq!(claim("a", T0), Some(session("a", 1)));
    assert_eq!(claim("a", T0), None);
    assert_eq!(claim("nonsense", T0), None);
    assert_eq!(claim("c", late), None);
    assert_eq!(claim("c", T0), None, "an expired token is gone for good");
    assert_eq!(store.write_at(T0, "withdraw", "owner", |w| w.sessions().withdraw(1)).unwrap().0, 1);
    assert_eq!(store.write_at(late, "expire", "owner", |w| w.sessions().expire(late)).unwrap().0, 1);
    assert_eq!(store.read(|r| r.sessions().count()).unwrap(), 0);
    verify(&store);
}

#[test]
fn an_intent_becomes_an_archive() {
    let (_dir, store) = store();
    let mut intent = intent(7);
    let checkpoint = archive("main", "web1/etc", 6, -10);
    intent.removes = vec![checkpoint.id.clone(), "77".repeat(32)];
    let key = store::IntentKey { repository: repository_name("main"), job: 7 };
    store
        .write_at(T0, "intend", "owner", |w| {
            w.archives().insert(&checkpoint)?;
            w.intents().insert(&intent)
        })
        .unwrap();
    assert_eq!(store.read(|r| r.intents().of_repository(&repository_name("main"))).unwrap(), [intent.clone()]);
    assert!(store.read(|r| r.intents().of_repository(&repository_name("mai"))).unwrap().is_empty());
    store.write_at(T0, "register", "owner", |w| w.intents().register(&key)).unwrap();
    assert_eq!(store.read(|r| r.archives().list()).unwrap(), [intent.archive]);
    assert_eq!(store.read(|r| r.intents().count()).unwrap(), 0);
    verify(&store);
}
