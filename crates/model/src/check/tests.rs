#![allow(clippy::unwrap_used, reason = "these are tests")]

use super::*;
use proptest::prelude::*;

const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

fn ago(hours: i64) -> Timestamp {
    NOW.plus_seconds(-hours * 3600)
}

fn piece(bytes: u64, written: i64, checked: Option<i64>) -> Piece {
    Piece { bytes, written: ago(written), checked: checked.map(ago) }
}

fn config() -> CheckConfig {
    let plan = CheckPlan { skip_hours: 24, ..CheckPlan::everything(true) };
    CheckConfig {
        name: "nightly".parse().unwrap(),
        description: String::new(),
        repositories: Repositories::Matching("m.*".into()),
        plan,
        created: NOW,
    }
}

#[test]
fn configs_that_make_no_sense_are_refused() {
    assert_eq!(config().check(), Ok(()));
    let wrong = |change: &dyn Fn(&mut CheckConfig)| {
        let mut config = config();
        change(&mut config);
        config.check().unwrap_err()
    };
    assert!(wrong(&|c| (c.plan.structure, c.plan.archives, c.plan.data) = (false, false, false)).contains("at least one of"));
    assert!(wrong(&|c| c.plan.skip_hours = 14 * 24).contains("shorter time"));
    assert!(wrong(&|c| c.plan.promise_hours = 0).contains("at least an hour"));
    assert!(wrong(&|c| c.plan.seconds = Some(0)).contains("time limit"));
    assert!(wrong(&|c| c.repositories = Repositories::Matching("(".into())).contains("regular expression"));
    let names = ["main", "other", "xmain"].map(|name| name.parse().unwrap());
    assert_eq!(config().repositories.choose(names.clone()).unwrap(), ["main".parse().unwrap()]);
    assert_eq!(Repositories::Named("gone".parse().unwrap()).choose(names).unwrap(), []);
}

#[test]
fn what_is_due() {
    let plan = CheckPlan::everything(false);
    assert_eq!(plan.due_before(NOW), NOW);
    assert_eq!(CheckPlan { since: Some(ago(1)), ..plan.clone() }.due_before(NOW), ago(1));
    assert_eq!(CheckPlan { skip_hours: 48, ..plan }.due_before(NOW), ago(48));
}

#[test]
fn a_repository_that_is_checked_in_time() {
    let pieces = [piece(50, 1000, Some(10)), piece(40, 1000, Some(9 * 24)), piece(10, 1, None)];
    let coverage = Coverage::of(pieces, 14 * 24, Some(ago(1000)), NOW);
    assert_eq!((coverage.per_cent(), coverage.never, coverage.promise), (90, 10, Promise::Holds));
    assert_eq!(coverage.to_string(), "90 % in 14 days, oldest unchecked: 9 days; 100 % every 14 days holds");
}

#[test]
fn a_pace_that_does_not_suffice_is_told_before_it_is_too_late() {
    // Written a week ago; since then a tenth was checked.
    let pieces = [piece(90, 7 * 24, None), piece(10, 7 * 24, Some(1))];
    let coverage = Coverage::of(pieces, 14 * 24, Some(ago(7 * 24)), NOW);
    assert_eq!((coverage.per_cent(), coverage.promise), (10, Promise::TooSlow));
    let pieces = [piece(45, 7 * 24, None), piece(55, 7 * 24, Some(1))];
    assert_eq!(Coverage::of(pieces, 14 * 24, Some(ago(7 * 24)), NOW).promise, Promise::Holds);
    let pieces = [piece(1, 15 * 24, None), piece(99, 7 * 24, Some(1))];
    let broken = Coverage::of(pieces, 14 * 24, Some(ago(7 * 24)), NOW);
    assert_eq!(broken.to_string(), "99 % in 14 days, oldest unchecked: 15 days; 100 % every 14 days does not hold");
    assert_eq!(Coverage::of([piece(5, 1, None)], 24, None, NOW).promise, Promise::Unknown);
    assert_eq!(Coverage::of([], 24, None, NOW).per_cent(), 100);
}

fn archive(name: &str) -> DamagedArchive {
    DamagedArchive {
        name: name.into(),
        id: "00".repeat(32),
        client: Some("web1".parse().unwrap()),
        label: Some("etc".parse().unwrap()),
        chunks: 1,
        error: None,
        files: None,
    }
}

#[test]
fn damage_is_over_when_everything_was_looked_at_since() {
    let damage = Damage {
        since: ago(50),
        found: ago(20),
        needs_data: true,
        errors: vec!["segment 1: wrong checksum".into()],
        error_count: 1,
        chunks: 1,
        archives: vec![archive("a")],
        more_archives: 0,
        unknown: vec![DamagedArchive { client: None, label: None, ..archive("x") }],
        more_unknown: 0,
        unopenable: None,
        healed: 0,
    };
    let text = "1 chunk damaged or missing, in 1 archive of web1; of 1 archive of other origin nobody can tell";
    assert_eq!(damage.summary(), text);
    let all = Sound { structure: Some(ago(1)), data: Some(ago(2)), archives: Some(ago(3)), index: Some(ago(4)) };
    assert!(all.clears(&damage));
    for lacking in [Sound { structure: Some(ago(30)), ..all }, Sound { data: None, ..all }, Sound { archives: None, ..all }] {
        assert!(!lacking.clears(&damage), "{lacking:?}");
    }
    assert!(!Sound { index: Some(ago(20)), ..all }.clears(&damage));
    assert!(Sound { data: None, ..all }.clears(&Damage { needs_data: false, ..damage }));
}

#[test]
fn damage_says_what_is_known_and_what_was_healed() {
    let unopened = Damage::unopened(None, "no index", ago(9));
    assert_eq!((unopened.summary().as_str(), unopened.since), ("it cannot be opened", ago(9)));
    assert_eq!(unopened.errors, ["it cannot be opened: no index"]);
    // Said again, it is no second error; another reason takes the place of the first.
    let again = Damage::unopened(Some(unopened), "still none", ago(8));
    assert_eq!((again.errors.as_slice(), again.error_count, again.since), (&["it cannot be opened: still none".to_owned()][..], 1, ago(9)));
    let over = again.clone().not_found_again(true);
    assert_eq!((over.summary().as_str(), over.error_count), ("no damage found any more, and not everything looked at since", 0));

    let known =
        Damage { chunks: 3, archives: vec![archive("a")], errors: vec!["segment 5: x".into()], error_count: 1, unopenable: None, ..again };
    let closed = Damage::unopened(Some(known.clone()), "no index", ago(7));
    assert_eq!(closed.summary(), "it cannot be opened; known from before: 3 chunks damaged or missing, in 1 archive of web1");
    assert_eq!((closed.error_count, closed.healed), (2, 0));
    // A part of it is sound again, then all: what is left is bad entries that no archive needs.
    let partly = Damage { chunks: 1, ..closed.opened(1) };
    assert_eq!(partly.summary(), "1 chunk damaged or missing, in 1 archive of web1; 2 chunks healed");
    let healed = partly.not_found_again(false);
    assert_eq!(healed.summary(), "1 error in its files, and no archive known to be concerned; 3 chunks healed");
    let broken = DamagedArchive { error: Some("wrong signature".into()), ..archive("a") };
    let metadata = Damage { archives: vec![broken], ..healed };
    assert_eq!(metadata.clone().not_found_again(false).summary(), "something wrong with 1 archive of web1; 3 chunks healed");
    assert_eq!(metadata.not_found_again(true).archives, []);
    let refused = known.refuses_prune(&"main".parse().unwrap());
    assert!(refused.contains("3 chunks damaged") && refused.contains("`borgcube repository damage main`"), "{refused}");
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let piece = (0_u64..1 << 40, -10_i64..5000, proptest::option::of(-10_i64..5000));
    proptest::collection::vec(piece.prop_map(|(bytes, written, checked)| piece_of(bytes, written, checked)), 0..40)
}

fn piece_of(bytes: u64, written: i64, checked: Option<i64>) -> Piece {
    piece(bytes, written, checked)
}

proptest! {
    #[test]
    fn coverage_is_what_the_records_say(pieces in pieces(), promise in 1_u32..2000, began in proptest::option::of(0_i64..5000)) {
        let coverage = Coverage::of(pieces.clone(), promise, began.map(ago), NOW);
        let bytes: u64 = pieces.iter().map(|piece| piece.bytes).sum();
        let young = |at: Timestamp| at >= ago(promise.into());
        let checked: u64 = pieces.iter().filter(|piece| piece.checked.is_some_and(young)).map(|piece| piece.bytes).sum();
        let never: u64 = pieces.iter().filter(|piece| piece.checked.is_none()).map(|piece| piece.bytes).sum();
        prop_assert_eq!((coverage.bytes, coverage.checked, coverage.never), (bytes, checked, never));
        prop_assert!(coverage.per_cent() <= 100 && (coverage.per_cent() < 100 || checked == bytes));
        let oldest = pieces.iter().map(|piece| piece.checked.unwrap_or(piece.written).min(NOW)).min();
        prop_assert_eq!(coverage.oldest, oldest);
        let is_late = oldest.is_some_and(|oldest| !young(oldest));
        // Never said to hold when something is too old, never said to be broken when nothing is.
        prop_assert!(!is_late || coverage.promise != Promise::Holds);
        prop_assert!(is_late || coverage.promise != Promise::Broken);
    }

    #[test]
    fn checking_something_makes_nothing_worse(mut pieces in pieces(), at in any::<proptest::sample::Index>(), promise in 1_u32..2000) {
        let before = Coverage::of(pieces.clone(), promise, Some(ago(5000)), NOW);
        if !pieces.is_empty() {
            let at = at.index(pieces.len());
            pieces[at].checked = Some(NOW);
        }
        let after = Coverage::of(pieces.clone(), promise, Some(ago(5000)), NOW);
        prop_assert!(after.checked >= before.checked && after.never <= before.never && after.oldest >= before.oldest);
        prop_assert!(before.promise != Promise::TooSlow || after.promise != Promise::Broken);
        pieces.iter_mut().for_each(|piece| piece.checked = Some(NOW));
        let all = Coverage::of(pieces, promise, Some(NOW), NOW);
        prop_assert_eq!((all.per_cent(), all.promise), (100, Promise::Holds));
    }
}

#[test]
fn what_is_recorded_of_damage_does_not_grow_with_what_clients_wrote() {
    let archive = |number: usize, paths: usize, length: usize| DamagedArchive {
        name: format!("archive {number}"),
        id: format!("{number:064x}"),
        client: None,
        label: None,
        chunks: 1,
        error: None,
        files: Some(DamagedFiles { paths: vec!["ß".repeat(length); paths], more: 1, incomplete: None }),
    };
    let damage = |archives: Vec<DamagedArchive>| Damage {
        since: NOW,
        found: NOW,
        needs_data: false,
        errors: vec!["a segment".into(); Damage::MAX_ERRORS],
        error_count: 100,
        chunks: 7,
        archives,
        more_archives: 0,
        unknown: vec![],
        more_unknown: 3,
        healed: 0,
        unopenable: None,
    };
    let size = |damage: &Damage| serde_json::to_vec(damage).unwrap().len();
    let small = damage((0..10).map(|number| archive(number, DamagedFiles::MAX, 20)).collect());
    let mut same = small.clone();
    same.fit();
    assert_eq!(same, small);

    // A few paths of one stay, whatever the others have.
    let mut archives: Vec<_> = (0..100).map(|number| archive(number, DamagedFiles::MAX, 2 * DamagedFiles::LONGEST)).collect();
    archives.push(archive(100, 2, 10));
    let mut large = damage(archives);
    assert!(size(&large) > 5 << 20);
    large.fit();
    assert!((Damage::LONGEST / 2..=Damage::LONGEST).contains(&size(&large)), "{}", size(&large));
    assert_eq!((large.archives.len(), large.more_archives, large.more_unknown), (101, 0, 3));
    let files = |at: usize| large.archives[at].files.as_ref().unwrap();
    assert!((0..100).all(|at| files(at).paths.len() as u64 + files(at).more == 51 && files(at).paths.len() > 5));
    assert_eq!(files(100).paths.len(), 2);

    // Nor with their number and names.
    let mut many = damage((0..500).map(|number| DamagedArchive { name: "x".repeat(10_000), ..archive(number, 0, 0) }).collect());
    many.fit();
    assert!(size(&many) <= Damage::LONGEST, "{}", size(&many));
    assert_eq!(many.archives.len() as u64 + many.more_archives, 500);
}
