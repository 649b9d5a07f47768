//! Undo takes back one transaction, its indexes included, or says what is in the way.
#![allow(clippy::unwrap_used, reason = "tests, their helper functions included")]

mod common;

use common::*;
use model::{Job, JobState};
use store::{Error, JobFilter, Store, TransactionNumber as N};

fn number(result: store::Result<((), N)>) -> N {
    result.unwrap().1
}

fn add(store: &Store, name: &str) -> N {
    number(store.write_at(T0, &format!("add {name}"), "root", |w| w.clients().insert(&client(name))))
}

fn describe(store: &Store, name: &str, text: &str) -> N {
    number(store.write_at(T0, text, "root", |w| {
        w.clients().update(&client_name(name), |c| {
            c.description = text.into();
            Ok(())
        })
    }))
}

fn remove(store: &Store, name: &str) -> N {
    number(store.write_at(T0, "remove", "root", |w| w.clients().remove(&client_name(name)).map(drop)))
}

fn undo(store: &Store, number: N) -> store::Result<N> {
    let undone = store.undo(number, T0.plus_seconds(60), "alice");
    verify(store);
    undone
}

fn description(store: &Store, name: &str) -> Option<String> {
    store.read(|r| r.clients().get(&client_name(name))).unwrap().map(|c| c.description)
}

#[test]
fn insert_change_and_removal_are_reverted() {
    let (_dir, store) = store();
    let added = add(&store, "web1");
    undo(&store, added).unwrap();
    assert_eq!(description(&store, "web1"), None);

    add(&store, "web1");
    let changed = describe(&store, "web1", "new");
    undo(&store, changed).unwrap();
    assert_eq!(description(&store, "web1").as_deref(), Some("a host"));

    let removed = remove(&store, "web1");
    undo(&store, removed).unwrap();
    assert_eq!(description(&store, "web1").as_deref(), Some("a host"));
}

#[test]
fn an_undo_is_a_transaction_of_its_own_and_can_be_undone() {
    let (_dir, store) = store();
    add(&store, "web1");
    let changed = describe(&store, "web1", "new");
    let undone = undo(&store, changed).unwrap();
    let entry = store.read(|r| r.log().get(undone)).unwrap();
    assert_eq!((entry.undoes, entry.actor.as_str(), entry.note.as_str()), (Some(changed), "alice", "undo 2: new"));
    assert_eq!(entry.time, T0.plus_seconds(60));
    undo(&store, undone).unwrap();
    assert_eq!(description(&store, "web1").as_deref(), Some("new"));
}

#[test]
fn a_later_change_of_the_same_record_is_named() {
    let (_dir, store) = store();
    let added = add(&store, "web1");
    let changed = describe(&store, "web1", "one");
    let last = describe(&store, "web1", "two");
    for number in [added, changed] {
        match undo(&store, number) {
            Err(Error::ChangedLater { number: n, later, record }) => assert_eq!((n, later, record.as_str()), (number, last, "client web1")),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(description(&store, "web1").as_deref(), Some("two"));
    let history = store.read(|r| r.log().history::<store::tables::Clients>(&client_name("web1"))).unwrap();
    assert_eq!(history, [last, changed, added]);
    undo(&store, last).unwrap();
    let text = undo(&store, changed).unwrap_err().to_string();
    assert!(text.contains("transaction 4 changed client web1 after it"), "{text}");
}

#[test]
fn the_same_transaction_is_undone_once() {
    let (_dir, store) = store();
    let added = add(&store, "web1");
    let undone = undo(&store, added).unwrap();
    assert!(matches!(undo(&store, added), Err(Error::ChangedLater { later, .. }) if later == undone));
}

#[test]
fn a_later_removal_and_a_new_record_of_that_name_are_in_the_way() {
    let (_dir, store) = store();
    let added = add(&store, "web1");
    let removed = remove(&store, "web1");
    assert!(matches!(undo(&store, added), Err(Error::ChangedLater { .. })));
    let again = add(&store, "web1");
    assert!(matches!(undo(&store, removed), Err(Error::ChangedLater { later, .. }) if later == again));
}

#[test]
fn later_changes_of_other_records_are_not_in_the_way() {
    let (_dir, store) = store();
    let added = add(&store, "web1");
    // Names that begin like it.
    for name in ["web", "web10", "web2"] {
        add(&store, name);
    }
    undo(&store, added).unwrap();
    assert_eq!(description(&store, "web1"), None);
    assert_eq!(store.read(|r| r.clients().count()).unwrap(), 3);
}

#[test]
fn all_records_of_a_transaction_or_none() {
    let (_dir, store) = store();
    let both = number(store.write_at(T0, "two", "root", |w| {
        w.clients().insert(&client("web1"))?;
        w.clients().insert(&client("web2"))
    }));
    let later = describe(&store, "web2", "x");
    assert!(matches!(undo(&store, both), Err(Error::ChangedLater { .. })));
    assert!(description(&store, "web1").is_some(), "nothing of a refused undo is done");
    undo(&store, later).unwrap();
    // `later` and its undo both touched web2 after `both`.
    assert!(matches!(undo(&store, both), Err(Error::ChangedLater { .. })));
}

#[test]
fn what_is_not_in_the_log_cannot_be_undone() {
    let (_dir, store) = store();
    add(&store, "web1");
    for number in [0, 2, u64::MAX] {
        assert!(matches!(undo(&store, N(number)), Err(Error::NoTransaction(n)) if n == N(number)));
    }
}

#[test]
fn tokens_and_intents_do_not_come_back() {
    let (_dir, store) = store();
    let prepared = number(store.write_at(T0, "prepare", "owner", |w| w.sessions().insert(&session("a", 1))));
    let (_, claimed) = store.write_at(T0, "claim", "owner", |w| w.sessions().claim("a", T0)).unwrap();
    let intended = number(store.write_at(T0, "intend", "owner", |w| w.intents().insert(&intent(7))));
    for number in [prepared, claimed, intended] {
        let error = undo(&store, number).unwrap_err();
        assert!(matches!(error, Error::NotUndoable { .. }), "{error}");
    }
    let text = undo(&store, claimed).unwrap_err().to_string();
    assert!(text.contains("prepared session a") && text.contains("stays so"), "{text}");
    assert_eq!(store.read(|r| r.sessions().count()).unwrap(), 0);
}

#[test]
fn indexes_follow() {
    let (_dir, store) = store();
    let (made, first) = store.write_at(T0, "run", "root", |w| w.jobs().create(|n| job(n, "web1/etc", "main"))).unwrap();
    let (_, stepped) = store
        .write_at(T0, "step", "borgcubed", |w| w.jobs().update_state(made.number, JobState::JobCreated, JobState::ClientPreparing, T0))
        .unwrap();
    let jobs = |state| -> Vec<Job> {
        let filter = JobFilter { states: vec![state], client: Some(client_name("web1")), ..JobFilter::default() };
        store.read(|r| r.jobs().page(&filter, 9)).unwrap()
    };
    assert_eq!((jobs(JobState::JobCreated).len(), jobs(JobState::ClientPreparing).len()), (0, 1));
    let undone = undo(&store, stepped).unwrap();
    assert_eq!((jobs(JobState::JobCreated), jobs(JobState::ClientPreparing)), (vec![made.clone()], vec![]));
    undo(&store, undone).unwrap();
    assert_eq!((jobs(JobState::JobCreated).len(), jobs(JobState::ClientPreparing).len()), (0, 1));
    assert!(matches!(undo(&store, first), Err(Error::ChangedLater { .. })));
}

#[test]
fn job_numbers_never_repeat() {
    let (dir, store) = store();
    let create = |store: &Store| store.write_at(T0, "run", "root", |w| w.jobs().create(|n| job(n, "web1/etc", "main"))).unwrap();
    let (one, made) = create(&store);
    undo(&store, made).unwrap();
    let (two, _) = create(&store);
    store.write_at(T0, "remove", "root", |w| w.jobs().remove(&two.number)).unwrap();
    let (three, _) = create(&store);
    drop(store);
    let store = Store::open(dir.path().join("db")).unwrap();
    let (four, made) = create(&store);
    // A record that comes back keeps its number, and nobody else gets it.
    let undone = undo(&store, made).unwrap();
    let (five, _) = create(&store);
    undo(&store, undone).unwrap();
    let (six, _) = create(&store);
    let numbers = [one.number, two.number, three.number, four.number, five.number, six.number];
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    let given_up = store.write_at(T0, "run", "root", |w| {
        w.jobs().create(|n| job(n, "web1/etc", "main"))?;
        Err::<(), _>(Error::caller("no"))
    });
    assert!(given_up.is_err());
    assert_eq!(create(&store).0.number, 7, "a number that was never committed was never given");
}

#[test]
fn what_was_only_witnessed_is_in_the_log_and_nothing_to_take_back() {
    let (_dir, store) = common::store();
    let (_, nothing) = store.write("nothing happened", "root", |_| Ok(())).unwrap();
    assert_eq!(nothing, store::TransactionNumber::NONE);
    let (_, number) = store
        .write("key exported", "root", |w| {
            w.witness();
            Ok(())
        })
        .unwrap();
    let entry = store.read(|r| r.log().get(number)).unwrap();
    assert_eq!((entry.note.as_str(), entry.changes.len()), ("key exported", 0));
    store.read(|r| r.log().verify_chain()).unwrap();
    let error = store.undo(number, common::T0, "root").unwrap_err();
    assert!(error.to_string().contains("outside of the database"), "{error}");
}
