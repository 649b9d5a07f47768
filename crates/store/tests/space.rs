//! What repositories take up is kept by day, outside of the log.
#![allow(clippy::unwrap_used, reason = "tests, their helper functions included")]

mod common;

use common::*;
use model::space::Space;
use store::{Store, TransactionNumber};

fn note(store: &Store, space: &Space) {
    let (_, number) = store.write("measured", "owner", |w| w.space().note(space)).unwrap();
    assert_eq!(number, TransactionNumber::NONE);
}

#[test]
fn the_last_of_a_day_wins_and_the_log_knows_nothing_of_it() {
    let (_dir, store) = store();
    let main = "main".parse().unwrap();
    assert_eq!(store.read(|r| r.space().newest(&main)).unwrap(), None);
    for day in [10, 11] {
        note(&store, &space("main", day));
        note(&store, &space("main2", day));
    }
    let last = Space { segments: 7, time: space("main", 11).time.plus_seconds(60), ..space("main", 11) };
    note(&store, &last);
    assert_eq!(store.read(|r| r.space().newest(&main)).unwrap(), Some(last.clone()));
    assert_eq!(store.read(|r| r.space().history(&main)).unwrap(), [space("main", 10), last.clone()]);
    // With a change that somebody made, it is no part of what is told of that.
    let both = store.write("add", "root", |w| {
        w.space().note(&space("main", 12))?;
        w.clients().insert(&client("web1"))
    });
    let number = both.unwrap().1;
    assert_eq!(store.read(|r| r.log().get(number)).unwrap().changes.len(), 1);
    verify(&store);
    store.undo(number, T0, "root").unwrap();
    assert_eq!(store.read(|r| r.space().history(&main)).unwrap().len(), 3);
    verify(&store);
    // A clock that was wrong leaves no entry that stays the newest for years.
    note(&store, &space("main", 90_000));
    note(&store, &space("main", 13));
    assert_eq!(store.read(|r| r.space().newest(&main)).unwrap(), Some(space("main", 13)));
    store.write("forget", "root", |w| w.space().forget(&main)).unwrap();
    assert_eq!(store.read(|r| r.space().history(&main)).unwrap(), []);
    assert_eq!(store.read(|r| r.space().history(&"main2".parse().unwrap())).unwrap().len(), 2);
}
