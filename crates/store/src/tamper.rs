//! Whoever changes the database past the log is found out. These tests write bytes as an intruder with access to the file could.

use model::{Client, Connection, Timestamp};
use tempfile::TempDir;

use crate::key::Key;
use crate::log::Entry;
use crate::record::Record;
use crate::store::{LOG, Store};
use crate::{Error, Result, TransactionNumber, Write, record};

fn client(name: &str, description: &str) -> Client {
    Client {
        name: name.parse().unwrap(),
        description: description.into(),
        connection: Connection::Local { remote_borg: None, remote_cache_dir: None },
        keys: vec![],
        blackouts: vec![],
        borg_binary: Default::default(),
        created: Timestamp(0),
    }
}

/// Five transactions, which add web1 to web5.
fn five() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for n in 1..=5 {
        let client = client(&format!("web{n}"), "");
        store.write_at(Timestamp(n), "add", "root", |w| w.clients().insert(&client)).unwrap();
    }
    assert_eq!(verify(&store).unwrap(), 5);
    (dir, store)
}

fn verify(store: &Store) -> Result<u64> {
    store.read(|r| r.log().verify_chain())
}

fn tamper(store: &Store, f: impl FnMut(&mut Write<'_>) -> Result<()>) {
    store.transaction(f).unwrap();
}

fn broken_at(store: &Store) -> (u64, String) {
    match verify(store) {
        Err(Error::BrokenLog { number, what }) => (number.0, what),
        other => panic!("not noticed: {other:?}"),
    }
}

/// Changes entry 3 in the log and gives it a sound checksum again.
fn change_entry(store: &Store, change: impl Fn(&mut Entry)) {
    tamper(store, |w| {
        let mut entry = w.view().log().get(TransactionNumber(3))?;
        change(&mut entry);
        w.put_bytes(LOG, &3u64.encode()?, &entry.encode()?)
    });
}

#[test]
fn every_field_of_an_entry_is_covered() {
    type Change = (&'static str, fn(&mut Entry));
    let changes: [Change; 10] = [
        ("time", |e| e.time = Timestamp(99)),
        ("note", |e| e.note = "something else".into()),
        ("actor", |e| e.actor = "nobody".into()),
        ("undoes", |e| e.undoes = Some(TransactionNumber(1))),
        ("no changes", |e| e.changes.clear()),
        ("table", |e| e.changes[0].table = "jobs".into()),
        ("record", |e| e.changes[0].record = "client web9".into()),
        ("key", |e| e.changes[0].key.push(0)),
        ("before", |e| e.changes[0].before = Some(Vec::new())),
        ("after", |e| e.changes[0].after = None),
    ];
    for (field, change) in changes {
        let (_dir, store) = five();
        change_entry(&store, change);
        assert_eq!(broken_at(&store), (3, "its hash does not fit its contents".into()), "{field}");
    }
}

#[test]
fn a_rewritten_entry_breaks_the_next_one() {
    let (_dir, store) = five();
    change_entry(&store, |e| {
        e.actor = "nobody".into();
        e.hash = e.compute_hash();
    });
    assert_eq!(broken_at(&store), (4, "it does not follow the entry before it".into()));
}

#[test]
fn a_missing_entry_is_noticed() {
    let (_dir, store) = five();
    tamper(&store, |w| w.delete_bytes(LOG, &3u64.encode()?));
    assert_eq!(broken_at(&store).0, 3);
}

#[test]
fn exchanged_entries_are_noticed() {
    let (_dir, store) = five();
    tamper(&store, |w| {
        let other = w.view().log().get(TransactionNumber(4))?;
        w.put_bytes(LOG, &3u64.encode()?, &other.encode()?)
    });
    assert_eq!(broken_at(&store).0, 3);
}

#[test]
fn a_cut_off_end_is_noticed_by_the_records() {
    let (_dir, store) = five();
    tamper(&store, |w| w.delete_bytes(LOG, &5u64.encode()?));
    assert_eq!(broken_at(&store), (0, "client web5 was changed without an entry".into()));
}

#[test]
fn a_record_changed_added_or_removed_past_the_log_is_noticed() {
    let key = |name: &str| name.to_owned().encode().unwrap();
    let (_dir, store) = five();
    tamper(&store, |w| w.put_bytes("clients", &key("web2"), &record::encode(&client("web2", "evil"))?));
    assert_eq!(broken_at(&store), (2, "client web2 was changed without an entry".into()));
    let (_dir, store) = five();
    tamper(&store, |w| w.put_bytes("clients", &key("web9"), &record::encode(&client("web9", ""))?));
    assert_eq!(broken_at(&store), (0, "client web9 was changed without an entry".into()));
    let (_dir, store) = five();
    tamper(&store, |w| w.delete_bytes("clients", &key("web2")));
    assert_eq!(broken_at(&store), (2, "client web2 is missing".into()));
}

#[test]
fn flipped_bits_of_a_stored_record_are_noticed_when_it_is_read() {
    let (_dir, store) = five();
    let key = "web2".to_owned().encode().unwrap();
    let good = store.read(|r| Ok(r.get("clients", &key)?.unwrap().to_vec())).unwrap();
    // All of them are tried in the tests of the records; here a few, through the whole stack.
    for bit in (0..good.len() * 8).step_by(41) {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        tamper(&store, |w| w.put_bytes("clients", &key, &bad));
        let read = store.read(|r| r.clients().get(&"web2".parse().unwrap()));
        assert!(matches!(&read, Err(Error::Damaged { record, .. }) if record == "client web2"), "bit {bit}: {read:?}");
        assert!(store.read(|r| r.clients().list()).is_err());
        let update = store.write_at(Timestamp(9), "x", "root", |w| w.clients().update(&"web2".parse().unwrap(), |_| Ok(())));
        assert!(matches!(update, Err(Error::Damaged { .. })));
    }
}

#[test]
fn a_record_under_the_key_of_another_is_noticed() {
    let (_dir, store) = five();
    let [one, two] = ["web1", "web2"].map(|name| name.to_owned().encode().unwrap());
    tamper(&store, |w| {
        let other = w.view().get("clients", &one)?.unwrap().to_vec();
        w.put_bytes("clients", &two, &other)
    });
    let text = store.read(|r| r.clients().get(&"web2".parse().unwrap())).unwrap_err().to_string();
    assert!(text.starts_with("client web2 is damaged: it says that it is web1"), "{text}");
}

#[test]
fn a_newer_record_is_refused_and_left_alone() {
    let (_dir, store) = five();
    let key = "web2".to_owned().encode().unwrap();
    let newer = record::seal(Client::KIND, 999, b"{}");
    tamper(&store, |w| w.put_bytes("clients", &key, &newer));
    let name = "web2".parse().unwrap();
    assert!(matches!(store.read(|r| r.clients().get(&name)), Err(Error::Newer { .. })));
    let update = store.write_at(Timestamp(9), "x", "root", |w| w.clients().update(&name, |_| Ok(())));
    assert!(matches!(update, Err(Error::Newer { .. })));
    let remove = store.write_at(Timestamp(9), "x", "root", |w| w.clients().remove(&name));
    assert!(matches!(remove, Err(Error::Newer { .. })));
    assert_eq!(store.read(|r| Ok(r.get("clients", &key)?.map(<[u8]>::to_vec))).unwrap(), Some(newer));
}

#[test]
fn a_database_of_a_later_layout_is_refused() {
    let (dir, store) = five();
    tamper(&store, |w| w.set_meta(b"layout", 2));
    drop(store);
    assert!(matches!(Store::open(dir.path()), Err(Error::NewerLayout { found: 2, known: 1 })));
    assert!(matches!(crate::Options::new().read_only().open(dir.path()), Err(Error::NewerLayout { .. })));
}

#[test]
fn an_index_that_lies_is_noticed() {
    let (_dir, store) = five();
    let job = |n| model::Job::backup(n, &"web1/etc".parse().unwrap(), "main".parse().unwrap(), "root", Timestamp(0));
    store.write_at(Timestamp(6), "run", "root", |w| w.jobs().create(job)).unwrap();
    store.read(|r| r.log().verify_indexes()).unwrap();
    let front = [b"done\0", &1u64.encode().unwrap()[..]].concat();
    tamper(&store, |w| w.put_bytes("jobs-by-state", &front, &1u64.encode()?));
    assert!(store.read(|r| r.log().verify_indexes()).is_err());
    tamper(&store, |w| {
        w.delete_bytes("jobs-by-state", &front)?;
        w.delete_bytes("jobs-by-client", &[b"web1\0", &1u64.encode()?[..]].concat())
    });
    assert!(store.read(|r| r.log().verify_indexes()).unwrap_err().to_string().contains("jobs-by-client lacks it"));
}

#[test]
fn an_index_that_is_new_is_filled() {
    let (dir, store) = five();
    let job = |n| model::Job::backup(n, &"web1/etc".parse().unwrap(), "main".parse().unwrap(), "root", Timestamp(0));
    store.write_at(Timestamp(6), "run", "root", |w| w.jobs().create(job)).unwrap();
    drop(store);
    // As a database of a time before that index existed.
    drop_database(dir.path(), "jobs-by-client");
    let store = Store::open(dir.path()).unwrap();
    store.read(|r| r.log().verify_indexes()).unwrap();
    verify(&store).unwrap();
    let filter = crate::JobFilter { client: Some("web1".parse().unwrap()), ..Default::default() };
    assert_eq!(store.read(|r| r.jobs().page(&filter, 9)).unwrap().len(), 1);
}

fn drop_database(dir: &std::path::Path, name: &'static str) {
    let (environment, _) = crate::env::open(dir, &[name], crate::env::MAP_SIZE, false).unwrap();
    let mut txn = environment.env.write_txn().unwrap();
    #[expect(unsafe_code, reason = "heed has no safe way to delete a database")]
    // SAFETY: no other handle of this database is used afterwards; the environment is closed at once.
    unsafe {
        environment.db(name).unwrap().remove(&mut txn).unwrap();
    }
    txn.commit().unwrap();
}

#[test]
fn a_counter_that_is_behind_does_not_repeat_a_number() {
    let (_dir, store) = five();
    let make = |n| model::Job::backup(n, &"web1/etc".parse().unwrap(), "main".parse().unwrap(), "root", Timestamp(0));
    let create = || store.write_at(Timestamp(6), "run", "root", |w| w.jobs().create(make)).unwrap().0.number;
    assert_eq!((create(), create()), (1, 2));
    tamper(&store, |w| w.set_meta(&crate::store::counter_key::<crate::tables::Jobs>(), 1));
    assert_eq!(create(), 3);
}
