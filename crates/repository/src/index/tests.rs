//! The index against a map that does the same.

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::AtomicU64;

use proptest::prelude::*;

use super::*;

const REPOSITORY: RepositoryId = RepositoryId([9; 32]);

/// Few ids, many of which share their first bytes.
fn id(number: u16) -> Id {
    let mut id = [0x55; 32];
    id[7] = (number % 3) as u8;
    id[9..11].copy_from_slice(&number.to_be_bytes());
    Id(id)
}

/// Ids as they are.
fn spread(number: u64) -> Id {
    let mut id = [0; 32];
    for (n, word) in id.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        *word = (number + 1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15 + 2 * n as u64)
            .rotate_left(29)
            .wrapping_mul(0xbf58_476d_1ce4_e5b9)
            .to_le_bytes();
    }
    Id(id)
}

fn entry(segment: u32, number: u32) -> Entry {
    Entry { segment, offset: number, size: number + 1, csize: number + 2 }
}

fn content(index: &Index) -> Vec<(Id, Entry)> {
    index.iter().unwrap().collect::<Result<_>>().unwrap()
}

#[derive(Debug, Clone)]
enum Do {
    Insert(u16, u32),
    Remove(u16),
    Get(u16),
    Forget(BTreeSet<u32>),
    Checkpoint(u32),
    Reset,
    Reopen,
    Iterate,
}

fn what() -> impl Strategy<Value = Do> {
    prop_oneof![
        40 => (0..300u16, 0..8u32).prop_map(|(n, segment)| Do::Insert(n, segment)),
        15 => (0..300u16).prop_map(Do::Remove),
        15 => (0..300u16).prop_map(Do::Get),
        1 => proptest::collection::btree_set(0..8u32, 0..3).prop_map(Do::Forget),
        2 => any::<u32>().prop_map(Do::Checkpoint),
        1 => Just(Do::Reset),
        1 => Just(Do::Reopen),
        2 => Just(Do::Iterate),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn does_what_a_map_does(steps in proptest::collection::vec(what(), 1..1200), limit in 1..40usize) {
        let dir = tempfile::tempdir().unwrap();
        let (mut index, checkpoint) = Index::with_limit(Some(dir.path()), REPOSITORY, limit).unwrap();
        prop_assert_eq!(checkpoint, None);
        let mut now: HashMap<Id, Entry> = HashMap::new();
        let mut kept: (HashMap<Id, Entry>, Option<Checkpoint>) = (HashMap::new(), None);
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Do::Insert(n, segment) => {
                    let entry = entry(segment, number as u32);
                    let old = now.insert(id(n), entry);
                    if old.is_none() && number % 2 == 0 {
                        index.insert_absent(id(n), entry).unwrap();
                    } else {
                        prop_assert_eq!(index.insert(id(n), entry).unwrap(), old);
                    }
                }
                Do::Remove(n) => prop_assert_eq!(index.remove(&id(n)).unwrap(), now.remove(&id(n))),
                Do::Get(n) => prop_assert_eq!(index.get(&id(n)).unwrap(), now.get(&id(n)).copied()),
                Do::Forget(segments) => {
                    index.forget_segments(&segments);
                    now.retain(|_, entry| !segments.contains(&entry.segment));
                }
                Do::Checkpoint(transaction) => {
                    let state = SegmentState { size: 1, mtime_ns: -5, live: transaction, freeable: 3, deletes: 4 };
                    let checkpoint = Checkpoint { transaction, segments: [(4, state)].into() };
                    index.checkpoint(&checkpoint).unwrap();
                    kept = (now.clone(), Some(checkpoint));
                    prop_assert!(!index.wants_checkpoint());
                }
                Do::Reset => {
                    prop_assert_eq!(&index.reset().unwrap(), &kept.1);
                    now = kept.0.clone();
                }
                Do::Reopen => {
                    drop(index);
                    let (other, checkpoint) = Index::with_limit(Some(dir.path()), REPOSITORY, limit).unwrap();
                    prop_assert_eq!(&checkpoint, &kept.1);
                    (index, now) = (other, kept.0.clone());
                }
                Do::Iterate => {
                    let mut expected: Vec<(Id, Entry)> = now.iter().map(|(id, entry)| (*id, *entry)).collect();
                    expected.sort_unstable_by_key(|(id, _)| *id);
                    prop_assert_eq!(content(&index), expected);
                }
            }
            prop_assert_eq!(index.len(), now.len() as u64);
        }
        let mut counts: BTreeMap<u32, u64> = BTreeMap::new();
        now.values().for_each(|entry| *counts.entry(entry.segment).or_default() += 1);
        prop_assert_eq!(index.counts(), counts);
        for n in 0..300 {
            prop_assert_eq!(index.get(&id(n)).unwrap(), now.get(&id(n)).copied());
        }
        // Nothing stays but what the last checkpoint names.
        drop(index);
        let named = Current::read(dir.path(), REPOSITORY).map_or(0, |current| current.runs.len());
        prop_assert_eq!(runs_in(dir.path()).len(), named);
    }
}

fn filled(dir: &Path, count: u64) {
    let (index, _) = Index::with_limit(Some(dir), REPOSITORY, 500).unwrap();
    for n in 0..count {
        index.insert(spread(n), entry(1, n as u32)).unwrap();
    }
    index.checkpoint(&Checkpoint { transaction: 3, ..Checkpoint::default() }).unwrap();
}

#[test]
fn a_flipped_byte_is_never_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 3000);
    let files: Vec<PathBuf> = fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().path()).collect();
    for file in files.iter().filter(|file| !file.ends_with("lock")) {
        let good = fs::read(file).unwrap();
        for at in (0..good.len()).step_by(509).chain(good.len().saturating_sub(300)..good.len()) {
            // What damage an opening finds is removed: each case begins with a copy.
            let copy = tempfile::tempdir().unwrap();
            files.iter().for_each(|file| fs::copy(file, copy.path().join(file.file_name().unwrap())).map(drop).unwrap());
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            fs::write(copy.path().join(file.file_name().unwrap()), bad).unwrap();
            let (index, checkpoint) = Index::open(Some(copy.path()), REPOSITORY).unwrap();
            if checkpoint.is_none() {
                assert!(index.is_empty() && content(&index).is_empty());
                continue;
            }
            let mut errors = 0;
            for n in 0..3000 {
                match index.get(&spread(n)) {
                    Ok(found) => assert_eq!(found, Some(entry(1, n as u32))),
                    Err(error) => {
                        assert!(matches!(error, Error::IndexDamaged(_)), "{error}");
                        errors += 1;
                    }
                }
            }
            assert!(errors > 0, "{} byte {at}", file.display());
            assert!(index.iter().map_or(true, |mut entries| entries.any(|item| item.is_err())));
            assert!(index.checkpoint(&Checkpoint::default()).is_err());
            drop(index);
            let (_, checkpoint) = Index::open(Some(copy.path()), REPOSITORY).unwrap();
            assert_eq!(checkpoint, None, "damage that was found is not opened again");
        }
    }
}

#[test]
fn missing_cut_and_foreign_files_mean_an_empty_index() {
    let damage: [&dyn Fn(&Path); 4] = [
        &|dir| fs::remove_file(dir.join("current")).unwrap(),
        &|dir| fs::write(dir.join("current"), "").unwrap(),
        &|dir| runs_in(dir).iter().for_each(|run| fs::remove_file(run).unwrap()),
        &|dir| runs_in(dir).iter().for_each(|run| File::options().write(true).open(run).unwrap().set_len(4096).unwrap()),
    ];
    for damage in damage {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), 100);
        damage(dir.path());
        let (index, checkpoint) = Index::open(Some(dir.path()), REPOSITORY).unwrap();
        assert_eq!((checkpoint, index.len()), (None, 0));
        assert_eq!(runs_in(dir.path()), Vec::<PathBuf>::new());
    }
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 100);
    let (index, checkpoint) = Index::open(Some(dir.path()), RepositoryId([8; 32])).unwrap();
    assert_eq!((checkpoint, index.len()), (None, 0));
}

fn runs_in(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("run-")).collect()
}

#[test]
fn two_do_not_open_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let _index = Index::open(Some(dir.path()), REPOSITORY).unwrap();
    assert!(Index::open(Some(dir.path()), REPOSITORY).is_err());
}

#[test]
fn a_temporary_index_vanishes() {
    let (index, _) = Index::with_limit(None, REPOSITORY, 10).unwrap();
    (0..100).for_each(|n| assert_eq!(index.insert(spread(n), entry(1, 1)).unwrap(), None));
    index.checkpoint(&Checkpoint::default()).unwrap();
    index.insert(spread(1000), entry(1, 1)).unwrap();
    assert_eq!(index.reset().unwrap(), Some(Checkpoint::default()));
    assert_eq!(index.len(), 100);
    let dir = index.shared.place.dir.clone();
    assert!(dir.exists());
    drop(index);
    assert!(!dir.exists());
}

#[test]
fn many_ids_with_the_same_beginning() {
    let (index, _) = Index::with_limit(None, REPOSITORY, 700).unwrap();
    let same = |n: u16| {
        let mut id = [7; 32];
        id[30..].copy_from_slice(&n.to_be_bytes());
        Id(id)
    };
    for n in (0..4000).step_by(2) {
        index.insert(same(n), entry(1, n.into())).unwrap();
    }
    index.checkpoint(&Checkpoint::default()).unwrap();
    for n in 0..4000 {
        assert_eq!(index.get(&same(n)).unwrap(), (n % 2 == 0).then(|| entry(1, n.into())), "{n}");
    }
}

#[test]
fn readers_see_everything_while_runs_are_merged() {
    let (index, _) = Index::with_limit(None, REPOSITORY, 300).unwrap();
    let known = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (index, known) = (&index, &known);
        for reader in 0..3 {
            scope.spawn(move || {
                let mut turn = 0u64;
                loop {
                    let count = known.load(Ordering::Acquire);
                    if count == 30_000 {
                        break;
                    }
                    turn += 1;
                    if count > 0 {
                        let n = (turn * 7919 + reader) % count;
                        assert_eq!(index.get(&spread(n)).unwrap().map(|entry| entry.offset), Some(n as u32));
                        assert_eq!(index.get(&spread(n + 1_000_000)).unwrap(), None);
                    }
                    if turn.is_multiple_of(2000) {
                        let items = index.iter().unwrap().map(|item| item.unwrap()).collect::<Vec<_>>();
                        assert!(items.len() as u64 >= count && items.is_sorted_by(|a, b| a.0 < b.0));
                    }
                }
            });
        }
        for n in 0..30_000 {
            assert_eq!(index.insert(spread(n), entry((n % 5) as u32, n as u32)).unwrap(), None);
            known.store(n + 1, Ordering::Release);
            if n % 10_000 == 5000 {
                index.checkpoint(&Checkpoint::default()).unwrap();
            }
        }
    });
    assert_eq!(index.len(), 30_000);
    assert_eq!(index.counts()[&3], 6000);
}

#[test]
fn a_full_disk_is_an_error_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (index, _) = Index::with_limit(Some(dir.path()), REPOSITORY, 50).unwrap();
    (0..40).for_each(|n| assert_eq!(index.insert(spread(n), entry(1, n as u32)).unwrap(), None));
    // A run that cannot be created stands for a disk that is full.
    let taken = run::path(dir.path(), 0);
    fs::create_dir(&taken).unwrap();
    assert!(index.checkpoint(&Checkpoint::default()).is_err());
    (0..40).for_each(|n| assert_eq!(index.get(&spread(n)).unwrap(), Some(entry(1, n as u32))));
    index.checkpoint(&Checkpoint::default()).unwrap();
    assert_eq!(index.len(), 40);
    fs::remove_dir(&taken).unwrap();
    drop(index);
    let (index, checkpoint) = Index::open(Some(dir.path()), REPOSITORY).unwrap();
    assert_eq!((checkpoint, index.len()), (Some(Checkpoint::default()), 40));
}
