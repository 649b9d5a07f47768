//! What policies decide is written in one step, holds and confirmations are obeyed, and a clock that jumps is remembered.
#![allow(clippy::unwrap_used, reason = "tests, their helper functions included")]

mod common;

use common::{T0, archive, config_name, job, policy, repository_name, store};
use model::archive::Hold;
use model::retention::{Confirmation, Count, Fate, Period, Scope};
use model::schedule::Matcher;
use model::{Archive, Policy, Timestamp};
use store::retention::{Decision, Group, RetentionFilter};
use store::{ArchiveKey, Deletion, Error, Store};

const DAY: i64 = 86_400;

/// Keeps two days of everything.
fn two_days(name: &str) -> Policy {
    let applies = vec![Scope::Configs { client: ".*".into(), label: ".*".into() }];
    Policy {
        within: None,
        keep: [(Period::Daily, Count::Number(2))].into(),
        minimum: 0,
        zone: "UTC".parse().unwrap(),
        applies,
        confirmed: vec![],
        ..policy(name)
    }
}

/// `days` archives of a config, a day apart, the last one at [`T0`]; their ids are their jobs.
fn archives(store: &Store, repository: &str, config: &str, first: u64, days: u64) {
    let made = (0..days).map(|day| archive(repository, config, first + day, (day as i64 + 1 - days as i64) * DAY));
    let made: Vec<Archive> = made.collect();
    store.write("archives", "root", |w| made.iter().try_for_each(|archive| w.archives().insert(archive))).unwrap();
}

fn add(store: &Store, policy: &Policy) {
    store.write("policy", "root", |w| w.policies().put(policy)).unwrap();
}

fn now() -> Timestamp {
    T0.plus_seconds(600)
}

fn groups(store: &Store, filter: &RetentionFilter) -> Vec<Group> {
    store.read(|r| r.retention(filter, None, usize::MAX, now())).unwrap()
}

fn going(group: &Group) -> Vec<u64> {
    group.going().map(|archive| archive.job).collect()
}

fn key(repository: &str, id: u64) -> ArchiveKey {
    ArchiveKey { repository: repository_name(repository), id: format!("{id:064x}") }
}

fn record(store: &Store, id: u64) -> Archive {
    store.read(|r| r.archives().require(&key("main", id))).unwrap()
}

fn hold() -> Hold {
    Hold { since: T0, by: "user:ada".into(), reason: "the audit".into() }
}

#[test]
fn what_is_being_deleted_nobody_can_keep_any_more() {
    let (_dir, store) = store();
    archives(&store, "main", "web1/etc", 1, 2);
    let deletion = Deletion { repository: repository_name("main"), archives: vec![key("main", 1).id], time: T0 };
    store.write_at(T0, "deleting", "owner", |w| w.deletions().put(&deletion)).unwrap();
    let before = record(&store, 1);
    for refused in [
        store.write_at(T0, "hold", "ada", |w| w.hold(&[key("main", 2), key("main", 1)], &hold())).unwrap_err(),
        store.write_at(T0, "undelete", "ada", |w| w.undelete(&[key("main", 1)], None)).unwrap_err(),
    ] {
        let (refused, since) = (refused.to_string(), format!("is being deleted from repository main (since {})", T0.to_local()));
        assert!(refused.contains(&since) && refused.contains("; nothing was changed"), "{refused}");
        // Whoever reads that while nothing is running, and the repository cannot be opened, learns what to do.
        assert!(refused.contains("`borgcube repository check main` does that, or says why it cannot be opened"), "{refused}");
    }
    assert_eq!((record(&store, 1), record(&store, 2).hold), (before, None));
    store.write_at(T0, "hold", "ada", |w| w.hold(&[key("main", 2)], &hold())).unwrap();
    store.write_at(T0, "over", "owner", |w| w.deletions().remove(&repository_name("main"))).unwrap();
    store.write_at(T0, "hold", "ada", |w| w.hold(&[key("main", 1)], &hold())).unwrap();
}

#[test]
fn each_config_in_each_repository_is_decided_about_alone() {
    let (_dir, store) = store();
    archives(&store, "main", "web1/etc", 1, 4);
    archives(&store, "main", "web1/home", 11, 2);
    archives(&store, "other", "web1/etc", 21, 3);
    archives(&store, "main", "web2/etc", 31, 3);
    add(&store, &two_days("all"));
    let decided: Vec<(String, String, Vec<u64>)> =
        groups(&store, &RetentionFilter::default()).iter().map(|g| (g.config.to_string(), g.repository.to_string(), going(g))).collect();
    let expected =
        [("web1/etc", "main", vec![2, 1]), ("web1/etc", "other", vec![21]), ("web1/home", "main", vec![]), ("web2/etc", "main", vec![31])];
    assert_eq!(decided, expected.map(|(config, repository, going)| (config.to_owned(), repository.to_owned(), going)));
    let other = RetentionFilter { repository: Some(repository_name("other")), ..Default::default() };
    assert_eq!(groups(&store, &other).len(), 1);
    let web2 = RetentionFilter { configs: Some(Matcher::new("web2", ".*").unwrap()), ..Default::default() };
    assert_eq!(groups(&store, &web2).len(), 1);
    let none = RetentionFilter { policy: Some("none".parse().unwrap()), ..Default::default() };
    assert_eq!(groups(&store, &none), []);
}

#[test]
fn pages_lose_nothing() {
    let (_dir, store) = store();
    for number in 0..7 {
        archives(&store, "main", &format!("web{number}/etc"), 10 * number + 1, 3);
    }
    add(&store, &two_days("all"));
    let mut paged = vec![];
    loop {
        let after = paged.last().map(|group: &Group| group.config.clone());
        let page = store.read(|r| r.retention(&RetentionFilter::default(), after.as_ref(), 4, now())).unwrap();
        assert!(page.len() <= 2);
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    assert_eq!(paged, groups(&store, &RetentionFilter::default()));
}

/// A preview of other rules says what is so when they are stored: what the policy has decided before is forgotten then.
#[test]
fn a_preview_of_other_rules_forgets_what_the_old_ones_decided() {
    let (_dir, store) = store();
    archives(&store, "main", "web1/etc", 1, 5);
    add(&store, &two_days("all"));
    store.write_at(now(), "prune", "root", |w| w.prune(&RetentionFilter::default(), now(), "root").map(drop)).unwrap();
    let with = |policy: Policy| {
        let filter = RetentionFilter { instead: Some(policy), ..Default::default() };
        let Decision::Planned { fates, .. } = groups(&store, &filter).remove(0).decision else { panic!("stopped") };
        fates.iter().map(|fate| matches!(fate, Fate::Going {} | Fate::Goes { .. })).collect::<Vec<_>>()
    };
    assert_eq!(with(two_days("all")), [false, false, true, true, true], "the same rules");
    let four = Policy { keep: [(Period::Daily, Count::Number(4))].into(), ..two_days("all") };
    assert_eq!(with(four.clone()), [false, false, false, false, true]);
    // What a person chose stays chosen.
    store
        .write_at(now(), "delete", "ada", |w| w.mark_for_deletion(&[key("main", 3)], now().plus_seconds(9), now(), "ada").map(drop))
        .unwrap();
    assert_eq!(with(four), [false, false, true, false, false], "one fewer is there to be counted");
}

#[test]
fn nothing_is_decided_without_exactly_one_policy() {
    let (_dir, store) = store();
    archives(&store, "main", "web1/etc", 1, 4);
    assert_eq!(groups(&store, &RetentionFilter::default())[0].decision, Decision::NoPolicy);
    add(&store, &two_days("all"));
    add(&store, &two_days("both"));
    assert!(groups(&store, &RetentionFilter::default())[0].stopped().unwrap().contains("both are for it"));
    let pruned = store.write("prune", "root", |w| w.prune(&RetentionFilter::default(), now(), "root")).unwrap().0;
    assert_eq!((pruned.marked.len(), pruned.stopped.len()), (0, 1));
    add(&store, &Policy { applies: vec![Scope::Config { config: config_name("web1/etc") }], ..two_days("both") });
    assert_eq!(going(&groups(&store, &RetentionFilter::default())[0]), [2, 1]);
}

#[test]
fn a_grace_period_ends_with_a_deletion_or_with_undelete() {
    let (_dir, store) = store();
    archives(&store, "main", "web1/etc", 1, 5);
    add(&store, &two_days("all"));
    let prune = |now| store.write("prune", "root", |w| w.prune(&RetentionFilter::default(), now, "job 9")).unwrap().0;
    let first = prune(now());
    assert_eq!(first.marked.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), [key("main", 3), key("main", 2), key("main", 1)]);
    assert!(first.due.is_empty());
    let pending = record(&store, 2).pending_deletion.unwrap();
    assert_eq!((pending.since, pending.due, pending.policy.unwrap().as_str()), (now(), now().plus_seconds(7 * DAY), "all"));
    let again = prune(now());
    assert_eq!((first.pending, again.marked.len(), again.pending), (0, 0, 3), "once is enough");

    let undelete = |id, hold: Option<Hold>| store.write("undelete", "root", |w| w.undelete(&[key("main", id)], hold.as_ref()));
    undelete(2, Some(hold())).unwrap();
    assert_eq!((record(&store, 2).pending_deletion, record(&store, 2).hold), (None, Some(hold())));
    assert!(matches!(undelete(2, None), Err(Error::Caller(_))));
    store.write("hold", "root", |w| w.hold(&[key("main", 1)], &hold())).unwrap();
    assert_eq!(record(&store, 1).pending_deletion, None, "what is held does not go");

    assert_eq!(prune(now().plus_seconds(7 * DAY - 1)).due.len(), 0);
    let over = prune(now().plus_seconds(7 * DAY));
    assert_eq!(over.due[&repository_name("main")].iter().map(|archive| archive.job).collect::<Vec<_>>(), [3]);
    store.write("release", "root", |w| w.release_holds(&[key("main", 1)])).unwrap();
    assert_eq!(prune(now()).marked.len(), 1, "released, it goes again");
}

#[test]
fn nothing_of_a_damaged_repository_is_pruned_and_it_is_said() {
    let (_dir, store) = store();
    archives(&store, "main", "web1/etc", 1, 4);
    archives(&store, "other", "web1/etc", 11, 4);
    archives(&store, "main", "web2/etc", 21, 1);
    let prune = |now| store.write("prune", "root", |w| w.prune(&RetentionFilter::default(), now, "root")).unwrap().0;
    store.write("check", "root", |w| w.health().put(&common::health("main"))).unwrap();
    assert_eq!(prune(now()), Default::default(), "no policy, nothing to refuse");
    add(&store, &two_days("all"));
    let pruned = prune(now());
    assert!(pruned.marked.iter().all(|(key, _)| key.repository == repository_name("other")) && pruned.marked.len() == 2);
    let why = &pruned.refused[&repository_name("main")];
    assert!(why.contains("2 chunks damaged") && why.contains("`borgcube repository damage main`"), "{why}");
    assert_eq!((pruned.refused.len(), pruned.stopped.len()), (1, 0));
    // Once it is sound, it goes on.
    store.write("check", "root", |w| w.health().put(&model::check::Health { damage: None, ..common::health("main") })).unwrap();
    let on = prune(now());
    assert_eq!((on.marked.len(), on.pending, on.refused.len()), (2, 2, 0));
    // What a person has chosen waits as well: it may be the only archive that is whole.
    store.write("delete", "root", |w| w.mark_for_deletion(&[key("main", 21)], now(), now(), "root")).unwrap();
    store.write("check", "root", |w| w.health().put(&common::health("main"))).unwrap();
    assert!(!prune(now()).due.contains_key(&repository_name("main")));
}

#[test]
fn without_a_grace_period_it_is_due_at_once() {
    let (_dir, store) = store();
    archives(&store, "main", "web1/etc", 1, 4);
    add(&store, &Policy { grace_hours: 0, ..two_days("all") });
    let pruned = store.write("prune", "root", |w| w.prune(&RetentionFilter::default(), now(), "root")).unwrap().0;
    assert_eq!(pruned.due[&repository_name("main")].len(), 2);
}

#[test]
fn what_a_person_deletes_waits_for_no_policy() {
    let (_dir, store) = store();
    archives(&store, "main", "web1/etc", 1, 2);
    let mark = |ids: &[u64], due| {
        let keys: Vec<ArchiveKey> = ids.iter().map(|id| key("main", *id)).collect();
        store.write("delete", "user:ada", |w| w.mark_for_deletion(&keys, due, now(), "user:ada"))
    };
    mark(&[1], now().plus_seconds(DAY)).unwrap();
    let due = |seconds| {
        let now = now().plus_seconds(seconds);
        store.write("prune", "root", |w| w.prune(&RetentionFilter::default(), now, "root")).unwrap().0.due.values().flatten().count()
    };
    assert_eq!((due(DAY - 1), due(DAY)), (0, 1));
    mark(&[1], now().plus_seconds(2 * DAY)).unwrap();
    assert_eq!(due(DAY), 1, "asking again puts nothing off");
    store.write("hold", "root", |w| w.hold(&[key("main", 2)], &hold())).unwrap();
    let refused = mark(&[1, 2], now()).unwrap_err().to_string();
    assert!(refused.contains("held by user:ada (the audit)") && refused.contains("archive release"), "{refused}");
    assert_eq!(due(0), 0, "refused as a whole");
}

#[test]
fn a_clock_that_jumps_is_remembered_until_somebody_confirms() {
    let (_dir, store) = store();
    archives(&store, "main", "web1/etc", 1, 4);
    add(&store, &two_days("all"));
    let create = |created| {
        let created = |number| model::Job { created, ..job(number, "web1/etc", "main") };
        store.write("job", "root", |w| w.jobs().create(created)).unwrap().0.number
    };
    assert_eq!((create(T0), create(T0.plus_seconds(300))), (1, 2));
    assert_eq!(going(&groups(&store, &RetentionFilter::default())[0]), [2, 1]);
    assert_eq!(create(T0.plus_seconds(400 * DAY)), 3);
    assert_eq!(create(now()), 4);
    let jumps = store.read(|r| r.clock_jumps().list()).unwrap();
    assert_eq!(jumps.iter().map(|jump| jump.job).collect::<Vec<_>>(), [3, 4]);
    let stopped = groups(&store, &RetentionFilter::default())[0].stopped().unwrap();
    assert!(stopped.contains("the server's clock went from") && stopped.contains("before job 4"), "{stopped}");
    let confirmed = vec![Confirmation { config: None, job: 4, by: "root".into(), at: now() }];
    add(&store, &Policy { confirmed, ..two_days("all") });
    assert_eq!(going(&groups(&store, &RetentionFilter::default())[0]), [2, 1]);
    // A jump that no job has noticed yet.
    let ahead = store.read(|r| r.retention(&RetentionFilter::default(), None, 1, now().plus_seconds(400 * DAY))).unwrap();
    assert!(ahead[0].stopped().unwrap().contains("before job 5"));
}

#[test]
fn a_policys_choice_is_not_deleted_while_something_looks_wrong() {
    let (_dir, store) = store();
    archives(&store, "main", "web1/etc", 1, 4);
    add(&store, &two_days("all"));
    store.write("prune", "root", |w| w.prune(&RetentionFilter::default(), now(), "root")).unwrap();
    let odd = Archive { suspicious: true, ..archive("main", "web1/etc", 5, 300) };
    store.write("archive", "root", |w| w.archives().insert(&odd)).unwrap();
    let late = now().plus_seconds(8 * DAY);
    let pruned = store.write("prune", "root", |w| w.prune(&RetentionFilter::default(), late, "root")).unwrap().0;
    assert_eq!(pruned.due.len(), 0);
    assert!(pruned.stopped[0].2.contains("suspicious"));
}
