use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use wire::session::Reference;

fn reference(n: u16, csize: u32) -> Reference {
    let mut id = [0; 32];
    id[..2].copy_from_slice(&n.to_be_bytes());
    Reference { id, size: u32::from(n), csize }
}

fn id(n: u16) -> Id {
    Id(reference(n, 0).id)
}

fn list(references: &[(u16, u32)], new: &[u16]) -> ViewList {
    ViewList { references: references.iter().map(|(n, csize)| reference(*n, *csize)).collect(), new: new.iter().map(|n| id(*n)).collect() }
}

fn scene() -> (tempfile::TempDir, Lists) {
    let dir = tempfile::tempdir().unwrap();
    let lists = Lists::new(dir.path().to_owned());
    (dir, lists)
}

/// Writes the list of archive number `n`.
fn save(lists: &Lists, n: u16, list: &ViewList, base: Option<&Named>) -> Named {
    let id = id(n).to_hex();
    let digest = lists.stage(list, base, None).unwrap().publish(&lists.path(&id)).unwrap();
    Named { id, digest }
}

fn size(lists: &Lists, named: &Named) -> u64 {
    std::fs::metadata(lists.path(&named.id)).unwrap().len()
}

fn names(lists: &Lists) -> BTreeSet<String> {
    std::fs::read_dir(&lists.directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

fn many(count: u16) -> ViewList {
    list(&(0..count).map(|n| (n, 7)).collect::<Vec<_>>(), &[])
}

#[test]
fn what_is_written_is_read() {
    let (_dir, lists) = scene();
    let whole = list(&[(1, 5), (9, 0)], &[3, 9]);
    let named = save(&lists, 100, &whole, None);
    // Which of the new ones it refers to, its references say.
    assert_eq!(lists.read(&named).unwrap(), list(&[(1, 5), (9, 0)], &[3]));
    let wrong = Named { digest: "0".repeat(64), ..named.clone() };
    assert!(matches!(lists.read(&wrong), Err(ViewListError::Damaged(_))));
    assert!(matches!(lists.read(&Named { id: "ab".repeat(32), ..named }), Err(ViewListError::Unreadable(..))));
    assert!(lists.note(&save(&lists, 101, &whole, None)).unwrap().is_none());
    let note = Note { mark: [1; 16], generation: [2; 32] };
    let staged = lists.stage(&whole, None, Some(note)).unwrap();
    let named = Named { id: id(102).to_hex(), digest: staged.publish(&lists.path(&id(102).to_hex())).unwrap() };
    assert_eq!(lists.note(&named).unwrap(), Some(note));
}

#[test]
fn what_is_not_published_goes() {
    let (_dir, lists) = scene();
    let staged = lists.stage(&many(5), None, None).unwrap();
    assert_eq!(names(&lists).len(), 1);
    drop(staged);
    assert!(names(&lists).is_empty());
}

#[test]
fn an_unchanged_run_writes_next_to_nothing() {
    let (_dir, lists) = scene();
    let first = save(&lists, 1000, &many(900), None);
    assert_eq!(size(&lists, &first), 168 + 900 * 40);
    // One chunk of the item stream is another one.
    let mut second = many(900);
    second.references[17].csize = 8;
    second.references.remove(500);
    second.references.push(reference(2000, 1));
    let named = save(&lists, 1001, &second, Some(&first));
    assert_eq!(size(&lists, &named), 168 + 2 * 40 + 32);
    assert_eq!(lists.read(&named).unwrap(), second);
    let same = save(&lists, 1002, &second, Some(&named));
    assert_eq!(size(&lists, &same), 168);
    assert_eq!(lists.read(&same).unwrap(), second);
}

#[test]
fn chains_are_bounded() {
    let (_dir, lists) = scene();
    let mut base = save(&lists, 1000, &many(50), None);
    let mut whole = 0;
    for n in 1001..1001 + 3 * MAX_DEPTH as u16 {
        base = save(&lists, n, &many(50), Some(&base));
        whole += u32::from(size(&lists, &base) > 1000);
    }
    assert_eq!(whole, 2);
    assert_eq!(lists.read(&base).unwrap(), many(50));
    // And so is what they cost: half of the chunks at once, or a few each time.
    let half: Vec<_> = (0..100).map(|n| (if n % 2 == 0 { n } else { n + 1000 }, 7)).collect();
    let half = list(&half.iter().copied().collect::<BTreeMap<_, _>>().into_iter().collect::<Vec<_>>(), &[]);
    let first = save(&lists, 3000, &many(100), None);
    assert_eq!(size(&lists, &save(&lists, 3001, &half, Some(&first))), 168 + 100 * 40);
    let (mut base, mut sizes) = (first, vec![]);
    for round in 0..40u16 {
        let mut changing = many(100);
        changing.references.iter_mut().skip(usize::from(round)).take(5).for_each(|r| r.csize = u32::from(round) + 100);
        base = save(&lists, 4000 + round, &changing, Some(&base));
        sizes.push(size(&lists, &base));
        assert_eq!(lists.read(&base).unwrap(), changing);
    }
    assert!(sizes.iter().any(|size| *size > 4000) && sizes.iter().any(|size| *size < 1000), "{sizes:?}");
}

#[test]
fn damage_anywhere_in_a_chain_is_seen() {
    let (_dir, lists) = scene();
    let first = save(&lists, 1000, &many(40), None);
    let mut second = many(40);
    second.references.pop();
    let named = save(&lists, 1001, &second, Some(&first));
    let other = save(&lists, 1002, &list(&[(700, 1)], &[]), None);
    for path in [lists.path(&first.id), lists.path(&named.id)] {
        let good = std::fs::read(&path).unwrap();
        for at in (0..good.len()).step_by(7) {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert!(lists.read(&named).is_err(), "byte {at}");
            std::fs::write(&path, &good[..at]).unwrap();
            assert!(lists.read(&named).is_err(), "cut at {at}");
        }
        let mut bad = good.clone();
        bad[20] ^= 1;
        std::fs::write(&path, &bad).unwrap();
        // The client uploads more: its view is what the others say. Garbage keeps everything.
        let union = lists.union(&[named.clone(), other.clone()]).unwrap();
        assert_eq!((union.references, union.lost.len()), (vec![reference(700, 1)], 1));
        assert!(lists.unreferenced(std::slice::from_ref(&other), std::slice::from_ref(&named)).is_err());
        assert!(lists.unreferenced(std::slice::from_ref(&named), std::slice::from_ref(&other)).is_err());
        // And the next list builds on nothing that is lost.
        let next = save(&lists, 1003, &second, Some(&named));
        assert_eq!(lists.read(&next).unwrap(), second);
        std::fs::write(&path, good).unwrap();
    }
    assert_eq!(lists.read(&named).unwrap(), second);
}

#[test]
fn a_base_stays_until_nothing_builds_on_it() {
    let (_dir, lists) = scene();
    let a = save(&lists, 1, &many(40), None);
    let b = save(&lists, 2, &many(40), Some(&a));
    let c = save(&lists, 3, &many(40), Some(&b));
    let nobody = HashSet::new();
    let file = |named: &Named| format!("{}.view", named.id);
    lists.forget(&[a.id.clone(), b.id.clone()], &HashSet::from([c.id.clone()]));
    assert_eq!(names(&lists).len(), 3);
    assert_eq!(lists.read(&c).unwrap(), many(40));
    // A running job builds on c.
    lists.forget(std::slice::from_ref(&c.id), &HashSet::from([c.id.clone()]));
    assert_eq!(names(&lists).len(), 3);
    let d = save(&lists, 4, &many(40), Some(&a));
    lists.forget(std::slice::from_ref(&c.id), &nobody);
    assert_eq!(names(&lists), BTreeSet::from([file(&a), file(&d)]));
    lists.forget(std::slice::from_ref(&d.id), &nobody);
    assert!(names(&lists).is_empty());
}

#[test]
fn a_list_that_others_build_on_is_never_written_over() {
    let (_dir, lists) = scene();
    let first = save(&lists, 1, &many(90), None);
    let mut changed = many(90);
    changed.references.pop();
    let second = save(&lists, 2, &changed, Some(&first));
    // Its archive is brought back: the same list again, whatever it would be the difference to now.
    let again = lists.stage_again(&first.id, &many(90), Some(&second)).unwrap().unwrap();
    assert!(!again.is_gone());
    assert_eq!(again.publish(&lists.path(&first.id)).unwrap(), first.digest);
    // The record cannot be written.
    again.withdraw(&lists.path(&first.id));
    drop(again);
    assert_eq!((lists.read(&first).unwrap(), lists.read(&second).unwrap()), (many(90), changed.clone()));
    // Stored sizes that nobody knew then are no other list.
    let mut known = many(90);
    known.references[3].csize = 99;
    assert!(
        lists
            .stage_again(&first.id, &known, None)
            .unwrap()
            .is_some_and(|staged| staged.publish(&lists.path(&first.id)).unwrap() == first.digest)
    );
    // Another list is refused, as long as somebody builds on the one that is there.
    assert!(lists.stage_again(&first.id, &many(89), None).unwrap().is_none());
    assert_eq!(names(&lists).len(), 2);
    let other = lists.stage_again(&second.id, &many(89), None).unwrap().unwrap();
    let digest = other.publish(&lists.path(&second.id)).unwrap();
    assert_eq!(lists.read(&Named { id: second.id.clone(), digest }).unwrap(), many(89));
    // One that is lost takes nothing with it that is not lost already.
    let path = lists.path(&first.id);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    bytes.truncate(1000);
    std::fs::write(&path, bytes).unwrap();
    let digest = lists.stage_again(&first.id, &many(89), None).unwrap().unwrap().publish(&path).unwrap();
    assert_eq!(lists.read(&Named { digest, ..first.clone() }).unwrap(), many(89));
    let again = lists.stage_again(&first.id, &many(89), None).unwrap().unwrap();
    remove(&path);
    assert!(again.is_gone());
}

#[test]
fn a_sweep_knows_bases() {
    let (_dir, lists) = scene();
    let a = save(&lists, 1, &many(40), None);
    let b = save(&lists, 2, &many(40), Some(&a));
    let c = save(&lists, 3, &many(40), None);
    std::fs::write(lists.directory.join("half.tmp"), "x").unwrap();
    let age = |name: &str| {
        let file = std::fs::File::options().write(true).open(lists.directory.join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 86_400)).unwrap();
    };
    names(&lists).iter().for_each(|name| age(name));
    let young = save(&lists, 4, &many(40), Some(&c));
    std::fs::write(lists.directory.join("young.tmp"), "x").unwrap();
    lists.sweep(&HashSet::from([b.id.clone()]));
    let file = |named: &Named| format!("{}.view", named.id);
    assert_eq!(names(&lists), BTreeSet::from([file(&a), file(&b), file(&c), file(&young), "young.tmp".into()]));
    // Where all lists are kept anyway, a half-written file goes all the same.
    let kept = [&a, &b, &c, &young].map(|named| named.id.clone());
    age("young.tmp");
    lists.sweep(&HashSet::from(kept.clone()));
    assert_eq!(names(&lists).len(), 4);
    lists.sweep(&HashSet::from(kept));
    assert_eq!(names(&lists).len(), 4);
}

#[test]
fn the_first_version_is_still_read() {
    let (_dir, lists) = scene();
    let old = include_bytes!("../../tests/fixtures/view-1.view");
    let named = Named { id: "ab".repeat(32), digest: include_str!("../../tests/fixtures/view-1.digest").trim().into() };
    std::fs::write(lists.path(&named.id), old).unwrap();
    let expected = list(&[(1, 10), (2, 0), (300, 77)], &[2]);
    assert_eq!(lists.read(&named).unwrap(), expected);
    assert_eq!(lists.note(&named).unwrap(), None);
    // And built upon, when that is worth it.
    let mut more = many(300);
    let whole = save(&lists, 1, &more, Some(&named));
    assert_eq!(lists.read(&whole).unwrap(), more);
    more = expected;
    more.references[1].csize = 5;
    more.new.clear();
    let next = save(&lists, 2, &more, Some(&named));
    assert!(size(&lists, &next) < 168 + 3 * 40);
    assert_eq!(lists.read(&next).unwrap(), more);
    lists.forget(std::slice::from_ref(&named.id), &HashSet::new());
    assert_eq!(lists.read(&next).unwrap(), more);
}

#[test]
fn unsorted_lists_are_not_read() {
    let (_dir, lists) = scene();
    for wrong in [[9, 1], [1, 1]] {
        let named = save(&lists, 1, &list(&[(wrong[0], 0), (wrong[1], 0)], &[]), None);
        assert!(matches!(lists.read(&named), Err(ViewListError::Damaged(_))));
    }
}

#[test]
fn normalised_and_found() {
    let mut many = vec![reference(2, 0), reference(1, 0), reference(2, 7)];
    normalise(&mut many);
    assert_eq!(many, [reference(1, 0), reference(2, 7)]);
    assert_eq!(find(&many, &id(2)), Some(&reference(2, 7)));
    assert_eq!(find(&many, &id(7)), None);
}

/// No file of ours does that. What it says must not make anybody else's words go unheard.
#[test]
fn a_file_that_both_names_and_removes_an_id_frees_nothing_that_others_have() {
    let (_dir, lists) = scene();
    let first = save(&lists, 1000, &many(90), None);
    let mut changed = many(90);
    changed.references[50].csize = 8;
    changed.references.pop();
    let second = save(&lists, 1001, &changed, Some(&first));
    let path = lists.path(&second.id);
    let mut bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 168 + 40 + 32);
    bytes[168 + 40..].copy_from_slice(&id(50).0);
    std::fs::write(&path, &bytes).unwrap();
    let second = Named { digest: hex(&<sha2::Sha256 as sha2::Digest>::digest(&bytes)), ..second };
    changed.references[50].csize = 9;
    let third = save(&lists, 1002, &changed, Some(&second));
    assert!(size(&lists, &third) < 500, "it builds on that");
    let freed = lists.unreferenced(std::slice::from_ref(&first), std::slice::from_ref(&third)).unwrap();
    assert_eq!(freed, [id(89)]);
    assert!(!lists.unreferenced(&[first, third], std::slice::from_ref(&second)).unwrap().contains(&id(50)), "in doubt it stays");
}

#[test]
fn going_through_a_file_finds_what_its_streams_give() {
    let ends = |mut stream: file::Stream| {
        let mut ids = vec![];
        loop {
            match stream.next() {
                Ok(Some(entry)) => ids.push(Id(entry.id)),
                Ok(None) => return (ids, true),
                Err(_) => return (ids, false),
            }
        }
    };
    let (directory, _lists) = scene();
    let path = directory.path().join("file");
    // Small and large ones, below and beyond what is read together; in order, and with one out of it.
    for count in [0, 1, 2, 100, 1600, 4095, 4096, 4097, 9000_usize] {
        let places = [0, 1, count / 2, 4095, 4096, count - count.min(1)];
        for wrong in std::iter::once(None).chain(places.into_iter().filter(|at| *at > 0 && *at < count).map(Some)) {
            // Many begin alike.
            let mut ids: Vec<Id> = (0..count).map(|n| wide(n as u16)).collect();
            ids.sort_unstable();
            if let Some(at) = wrong {
                ids[at] = ids[at - 1];
            }
            let (references, removed) = (count as u64, count as u64);
            let base = Some(Named { id: "ab".repeat(32), digest: "cd".repeat(32) });
            let head = file::Head { base, depth: 1, references, removed, total: references, ..Default::default() };
            let mut bytes = head.encode();
            ids.iter().for_each(|id| bytes.extend([&id.0[..], &[7; 8]].concat()));
            ids.iter().for_each(|id| bytes.extend(id.0));
            std::fs::write(&path, &bytes).unwrap();
            for file in [file::Verified::in_memory(&bytes).unwrap(), file::Verified::trusted(&path).unwrap()] {
                let mut seen = vec![];
                let is_good = file.each_reference(&mut |id| seen.push(*id)).is_ok();
                assert_eq!((seen, is_good), ends(file.references().unwrap()), "{count} {wrong:?}");
                let mut seen = vec![];
                let is_good = file.each_removed(&mut |id| seen.push(*id)).is_ok();
                assert_eq!((&seen, is_good), (&ids[..wrong.unwrap_or(count)].to_vec(), wrong.is_none()), "{count} {wrong:?}");
            }
        }
    }
}

/// Ids as hashes are, of which some begin alike: a filter lets through more than what is looked for.
fn wide(n: u16) -> Id {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(u64::from(n % 5000).wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes());
    id[8..10].copy_from_slice(&n.to_be_bytes());
    Id(id)
}

/// So many ids come and go together: three times as many are more than what is read into memory at once.
const GROUP: u16 = 900;
const GROUPS: u16 = 8;

/// One archive: what it builds on, whether that is of its config or not, and what is different.
#[derive(Debug, Clone)]
struct Made {
    base: Option<usize>,
    groups: BTreeSet<u16>,
    few: BTreeSet<u16>,
    others: BTreeSet<u16>,
}

/// What becomes of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Goes,
    Stays,
    /// It went before; its file may be somebody's base.
    Gone,
    /// Somebody names it on both sides: it stays.
    Both,
}

fn made() -> impl Strategy<Value = Made> {
    let base = prop_oneof![1 => Just(None), 6 => any::<usize>().prop_map(Some)];
    let groups = prop_oneof![
        3 => Just(BTreeSet::new()),
        2 => proptest::collection::btree_set(0..GROUPS, 0..4),
        1 => Just((0..GROUPS).collect()),
    ];
    let few = |most| proptest::collection::btree_set(0..GROUP * GROUPS + 50, 0..most);
    (base, groups, few(6), few(4)).prop_map(|(base, groups, few, others)| Made { base, groups, few, others })
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![4 => Just(Fate::Goes), 4 => Just(Fate::Stays), 2 => Just(Fate::Gone), 1 => Just(Fate::Both)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Trees of any shape, files of any size.
    #[test]
    fn what_is_freed_agrees_with_a_model(
        all in proptest::collection::vec(made(), 2..12),
        fates in proptest::collection::vec(proptest::collection::vec(fate(), 12), 1..5),
    ) {
        let (_dir, lists) = scene();
        let mut here: Vec<(Named, BTreeSet<u16>, BTreeSet<u16>)> = vec![];
        for (n, Made { base, groups, few, others }) in all.into_iter().enumerate() {
            let base = base.filter(|_| n > 0).and_then(|base| here.get(base % n));
            let mut chunks = base.map(|(_, chunks, _)| chunks.clone()).unwrap_or_default();
            for id in groups.iter().flat_map(|group| group * GROUP..(group + 1) * GROUP).chain(few) {
                if !chunks.remove(&id) {
                    chunks.insert(id);
                }
            }
            let mut references: Vec<Reference> =
                chunks.iter().map(|n| Reference { id: wide(*n).0, size: 1, csize: 1 }).collect();
            references.sort_unstable_by_key(|reference| reference.id);
            let mut new: Vec<Id> = others.iter().map(|n| wide(*n)).collect();
            new.sort_unstable();
            let named = save(&lists, 1000 + n as u16, &ViewList { references, new }, base.map(|(named, ..)| named));
            let others = others.difference(&chunks).copied().collect();
            here.push((named, chunks, others));
        }
        for fates in fates {
            let of = |wanted: &[Fate]| -> Vec<&(Named, BTreeSet<u16>, BTreeSet<u16>)> {
                here.iter().zip(&fates).filter(|(_, fate)| wanted.contains(fate)).map(|(archive, _)| archive).collect()
            };
            let named = |archives: &[&(Named, BTreeSet<u16>, BTreeSet<u16>)]| -> Vec<Named> {
                archives.iter().map(|(named, ..)| named.clone()).collect()
            };
            let (go, stay) = (of(&[Fate::Goes, Fate::Both]), of(&[Fate::Stays, Fate::Both]));
            let mut expected: BTreeSet<u16> = go.iter().flat_map(|(_, chunks, others)| chunks.union(others).copied()).collect();
            let kept: BTreeSet<u16> = stay.iter().flat_map(|(_, chunks, _)| chunks.iter().copied()).collect();
            expected.retain(|n| !kept.contains(n));
            let expected: BTreeSet<Id> = expected.into_iter().map(wide).collect();
            let mut twice = named(&go);
            twice.extend(named(&go[..go.len().min(1)]));
            for lists in [lists.clone(), lists.clone().trusting()] {
                let freed = lists.unreferenced(&twice, &named(&stay)).unwrap();
                prop_assert_eq!(&freed, &expected.iter().copied().collect::<Vec<_>>());
            }
            let mut left: Vec<Id> = (0..GROUP * GROUPS).map(wide).collect();
            left.sort_unstable();
            let all: BTreeSet<Id> = left.iter().copied().collect();
            lists.subtract(&mut left, &named(&stay)).unwrap();
            let kept: BTreeSet<Id> = kept.into_iter().map(wide).collect();
            prop_assert_eq!(left, all.difference(&kept).copied().collect::<Vec<_>>());
        }
    }
}

/// What happens to the archives of one repository.
#[derive(Debug, Clone)]
enum Step {
    /// An archive of a config with these chunks; incomplete ones are no base.
    Add { config: usize, chunks: BTreeMap<u16, u32>, others: BTreeSet<u16>, incomplete: bool },
    /// The same as the config's last archive, but for a few.
    Again { config: usize, changes: BTreeMap<u16, u32>, without: BTreeSet<u16> },
    /// Some archives go.
    Delete(Vec<usize>),
}

fn step() -> impl Strategy<Value = Step> {
    let chunks = || proptest::collection::btree_map(0u16..60, 0u32..4, 0..40);
    let few = || proptest::collection::btree_map(0u16..60, 0u32..4, 0..4);
    let ids = || proptest::collection::btree_set(0u16..60, 0..4);
    prop_oneof![
        1 => (0..3usize, chunks(), ids(), any::<bool>()).prop_map(|(config, chunks, others, incomplete)| Step::Add { config, chunks, others, incomplete }),
        4 => (0..3usize, few(), ids()).prop_map(|(config, changes, without)| Step::Again { config, changes, without }),
        2 => proptest::collection::vec(0..20usize, 1..4).prop_map(Step::Delete),
    ]
}

struct Known {
    named: Named,
    config: usize,
    chunks: BTreeMap<u16, u32>,
    others: BTreeSet<u16>,
    incomplete: bool,
}

fn as_list(chunks: &BTreeMap<u16, u32>, others: &BTreeSet<u16>) -> ViewList {
    ViewList { references: chunks.iter().map(|(n, c)| reference(*n, *c)).collect(), new: others.iter().map(|n| id(*n)).collect() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn histories_agree_with_a_model(steps in proptest::collection::vec(step(), 1..40)) {
        let (_dir, lists) = scene();
        let mut here: Vec<Known> = vec![];
        for (n, step) in steps.into_iter().enumerate() {
            let (config, chunks, others, incomplete) = match step {
                Step::Add { config, chunks, others, incomplete } => (config, chunks, others, incomplete),
                Step::Again { config, changes, without } => {
                    let last = here.iter().rev().find(|a| a.config == config && !a.incomplete);
                    let mut chunks = last.map(|a| a.chunks.clone()).unwrap_or_default();
                    chunks.extend(changes);
                    chunks.retain(|n, _| !without.contains(n));
                    (config, chunks, BTreeSet::new(), false)
                }
                Step::Delete(which) => {
                    let gone: BTreeSet<usize> = which.into_iter().filter(|_| !here.is_empty()).map(|n| n % here.len()).collect();
                    let (mut left, mut old) = (vec![], vec![]);
                    for (n, archive) in here.into_iter().enumerate() {
                        if gone.contains(&n) { old.push(archive) } else { left.push(archive) }
                    }
                    here = left;
                    let named = |archives: &[Known]| archives.iter().map(|a| a.named.clone()).collect::<Vec<_>>();
                    let mut expected: BTreeSet<u16> = old.iter().flat_map(|a| a.chunks.keys().chain(&a.others).copied()).collect();
                    here.iter().flat_map(|a| a.chunks.keys()).for_each(|n| { expected.remove(n); });
                    let expected: Vec<Id> = expected.into_iter().map(id).collect();
                    prop_assert_eq!(lists.unreferenced(&named(&old), &named(&here)).unwrap(), expected);
                    let kept = here.iter().map(|a| a.named.id.clone()).collect();
                    lists.forget(&named(&old).into_iter().map(|n| n.id).collect::<Vec<_>>(), &kept);
                    continue;
                }
            };
            let others: BTreeSet<u16> = others.into_iter().filter(|n| !chunks.contains_key(n)).collect();
            let base = here.iter().rev().find(|a| a.config == config && !a.incomplete).map(|a| a.named.clone());
            let named = save(&lists, 1000 + n as u16, &as_list(&chunks, &others), base.as_ref());
            here.push(Known { named, config, chunks, others, incomplete });
            for archive in &here {
                prop_assert_eq!(lists.read(&archive.named).unwrap(), as_list(&archive.chunks, &archive.others));
            }
            for config in 0..3 {
                // The newest first, as a client's archives are asked for; what has a stored size is preferred.
                let of: Vec<&Known> = here.iter().rev().filter(|a| a.config == config || config == 2).collect();
                let named: Vec<Named> = of.iter().map(|a| a.named.clone()).collect();
                let union = lists.union(&named).unwrap();
                prop_assert!(union.lost.is_empty());
                let ids: BTreeSet<u16> = of.iter().flat_map(|a| a.chunks.keys().copied()).collect();
                prop_assert_eq!(union.references.iter().map(|r| r.id).collect::<Vec<_>>(), ids.iter().map(|n| id(*n).0).collect::<Vec<_>>());
                for entry in &union.references {
                    let n = u16::from_be_bytes([entry.id[0], entry.id[1]]);
                    let stated: BTreeSet<u32> = of.iter().filter_map(|a| a.chunks.get(&n).copied()).collect();
                    prop_assert!(stated.contains(&entry.csize));
                    prop_assert!(entry.csize != 0 || stated.len() == 1);
                }
            }
        }
        // Nothing is left that nobody needs.
        let all: Vec<String> = here.iter().map(|a| a.named.id.clone()).collect();
        lists.forget(&all, &HashSet::new());
        prop_assert!(names(&lists).is_empty(), "{:?}", names(&lists));
    }
}
