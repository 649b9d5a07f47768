use borg::cache::{ChunksIndex, IndexError, REFCOUNT_STICKY, buckets_for, write_chunks_index};
use borg::{Id, integrity};
use proptest::prelude::*;

/// An id whose home is the given bucket (of any table larger than it), told apart by `n`.
fn at(bucket: u32, n: u8) -> Id {
    let mut id = [n; 32];
    id[..4].copy_from_slice(&bucket.to_le_bytes());
    Id(id)
}

fn written(entries: &[(Id, u32, u32, u32)]) -> Vec<u8> {
    let mut file = Vec::new();
    write_chunks_index(entries.iter().copied(), &mut file).expect("writing into memory");
    file
}

#[test]
fn table_sizes_are_borgs() {
    for (entries, buckets) in [(0, 1031), (773, 1031), (774, 2053), (100_000, 262_147), (400_000_000, 543_105_119)] {
        assert_eq!(buckets_for(entries), Some(buckets), "{entries} entries");
    }
    assert_eq!(buckets_for(500_000_000), None);
    assert_eq!(buckets_for(usize::MAX), None);
}

#[test]
fn entries_that_run_over_the_end_are_found() {
    let entries: Vec<_> = (0..20).map(|n| (at(1025 + u32::from(n % 6), n), 1, u32::from(n), 3)).collect();
    let entries: Vec<_> = entries.into_iter().chain((0..5).map(|n| (at(u32::from(n) * 2, 100 + n), 1, 2, 3))).collect();
    let file = written(&entries);
    assert_eq!(file.len(), 18 + 1031 * 44);
    let index = ChunksIndex::parse(&file).expect("our own");
    for (id, refcount, size, csize) in &entries {
        let entry = index.get(id).expect("it was written");
        assert_eq!((entry.refcount, entry.size, entry.csize), (*refcount, *size, *csize));
    }
    assert_eq!(index.iter().count(), entries.len());
    assert_eq!(index.get(&at(1030, 200)), None);
}

#[test]
fn an_empty_index() {
    let file = written(&[]);
    let index = ChunksIndex::parse(&file).expect("our own");
    assert_eq!((index.buckets(), index.iter().count()), (1031, 0));
    assert_eq!(index.get(&Id([0; 32])), None);
}

#[test]
fn what_no_index_can_hold_is_refused_before_anything_is_written() {
    let mut file = Vec::new();
    let twice = [(at(1, 1), 1, 1, 1), (at(2, 2), 1, 1, 1), (at(1, 1), 2, 2, 2)];
    assert!(matches!(write_chunks_index(twice, &mut file), Err(IndexError::Duplicate(id)) if id == at(1, 1)));
    let reserved = [(at(1, 1), REFCOUNT_STICKY + 1, 1, 1)];
    assert!(matches!(write_chunks_index(reserved, &mut file), Err(IndexError::Refcount(_))));
    assert!(file.is_empty());
}

#[test]
fn damaged_files_are_refused() {
    let file = written(&[(at(1, 1), 1, 1, 1)]);
    for length in [0, 7, 17, 18, 60, file.len() - 1] {
        assert!(ChunksIndex::parse(&file[..length]).is_err(), "{length} bytes");
    }
    for at in [0, 8, 12, 16, 17] {
        let mut changed = file.clone();
        changed[at] ^= 1;
        assert!(ChunksIndex::parse(&changed).is_err(), "byte {at}");
    }
    let no_buckets = [b"BORG_IDX".as_slice(), &[0; 8], &[32, 12]].concat();
    assert!(ChunksIndex::parse(&no_buckets).is_err());
    assert!(integrity::of_index("chunks", &file[..5]).contains("HashHeader"), "short files have a digest too");
}

proptest! {
    #[test]
    fn everything_written_is_found(ids in proptest::collection::hash_set((0u32..1200, any::<u8>()), 0..900)) {
        let entries: Vec<_> = ids.iter().map(|(bucket, n)| (at(*bucket, *n), 1 + bucket, 5, 6)).collect();
        let file = written(&entries);
        let index = ChunksIndex::parse(&file).expect("our own");
        prop_assert_eq!(index.buckets(), buckets_for(entries.len()).expect("few") as usize);
        for (id, refcount, ..) in &entries {
            prop_assert_eq!(index.get(id).map(|entry| entry.refcount), Some(*refcount));
        }
        prop_assert_eq!(index.iter().count(), entries.len());
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = ChunksIndex::parse(&bytes).is_ok();
        let _ = ChunksIndex::parse(&[b"BORG_IDX", bytes.as_slice()].concat()).is_ok();
    }
}
