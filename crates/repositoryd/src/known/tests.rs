use super::*;

const A: Id = Id([1; 32]);
const B: Id = Id([2; 32]);
const OLD: Id = Id([3; 32]);
const ME: Claimant = Claimant([1; 4]);
const YOU: Claimant = Claimant([2; 4]);

fn listed(ids: Vec<Id>) -> Known {
    Known::listed(ids, Path::new("/nonexistent"))
}

/// Decided and done.
fn step(known: &mut Known, most: usize) -> Tidying {
    let step = known.tidy_up_to(most);
    known.done();
    step
}

fn publish(known: &mut Known) -> Vec<Id> {
    let mut ids = vec![];
    let each = known.take_unpublished().each(|part| {
        ids.extend_from_slice(part);
        Ok(())
    });
    each.unwrap();
    known.publish(&ids);
    ids
}

fn stored(ids: &[Id]) -> Known {
    let mut known = listed(vec![OLD]);
    for id in ids {
        assert!(!known.claim(id, ME, None).unwrap());
        known.add_fresh(*id, ME).unwrap();
        assert!(known.store(id).unwrap());
    }
    known
}

#[test]
fn the_first_write_wins_and_the_last_claim_decides() {
    let mut known = stored(&[A]);
    assert!(known.claim(&OLD, YOU, None).unwrap() && known.claim(&A, YOU, None).unwrap());
    assert!(!known.store(&A).unwrap());
    // The first of two ends: the other one may still need it.
    assert_eq!(known.release(ME, [&A, &OLD]), 0);
    assert_eq!(step(&mut known, 9), Tidying::Nothing);
    assert_eq!(known.release(YOU, [&A]), 1);
    assert!(known.contains(&A).unwrap() && known.is_fresh(&A));
    assert_eq!(step(&mut known, 9), Tidying::Discard);
    assert!(!known.contains(&A).unwrap() && known.contains(&OLD).unwrap());
    assert_eq!((step(&mut known, 9), known.count()), (Tidying::Nothing, 1));
}

#[test]
fn what_an_archive_refers_to_stays() {
    let mut known = stored(&[A, B]);
    publish(&mut known);
    known.committed([&A]);
    // B has become durable as a by-product, so its removal has to be committed as well.
    assert_eq!(known.release(ME, [&A, &B]), 1);
    assert_eq!(step(&mut known, 9), Tidying::Delete(vec![B]));
    assert!(known.contains(&A).unwrap() && !known.contains(&B).unwrap());
    assert_eq!(step(&mut known, 9), Tidying::Commit);
    known.committed([]);
    assert_eq!((step(&mut known, 9), known.release(ME, [&A, &B])), (Tidying::Nothing, 0));
}

#[test]
fn what_goes_is_absent_before_it_is_gone() {
    let mut known = stored(&[A]);
    publish(&mut known);
    known.committed([&A]);
    let epoch = known.epoch();
    let seen = Some(Seen { epoch: epoch.load(Ordering::Acquire), there: true });
    assert!(known.claim(&A, ME, seen).unwrap());
    known.remove(&A);
    // What was seen before the decision counts no more, and whoever sends it now queues behind the deletion.
    assert!(!known.claim(&A, ME, seen).unwrap());
    known.add_fresh(A, ME).unwrap();
    assert!(known.contains(&A).unwrap());
    known.done();
    assert!(known.store(&A).unwrap() && known.contains(&A).unwrap());
    assert_eq!(known.release(ME, [&A]), 1);
    assert_eq!(step(&mut known, 9), Tidying::Discard);
    assert!(!known.contains(&A).unwrap());
}

#[test]
fn what_was_seen_before_a_commit_is_looked_up_again() {
    let mut known = stored(&[]);
    let seen = Some(Seen { epoch: known.epoch().load(Ordering::Acquire), there: false });
    assert!(!known.claim(&A, ME, None).unwrap());
    known.add_fresh(A, ME).unwrap();
    assert!(known.store(&A).unwrap());
    publish(&mut known);
    known.committed([&A]);
    // Otherwise it would be stored a second time, and deleted as an orphan of the one who sent it.
    assert!(known.claim(&A, ME, seen).unwrap());
}

#[test]
fn everything_is_published_once() {
    let mut known = stored(&[A, B]);
    assert_eq!(publish(&mut known), [A, B]);
    known.committed([&A]);
    assert_eq!(publish(&mut known), []);
    assert!(!known.is_clean());
    assert_eq!(known.release(ME, [&B]), 1);
    assert_eq!(step(&mut known, 9), Tidying::Delete(vec![B]));
    assert!(!known.is_clean());
    known.committed([]);
    assert!(known.is_clean());
    // Adopted from an archive that is gone.
    known.adopt(OLD, &[ME, YOU]).unwrap();
    assert_eq!((known.release(ME, [&OLD]), known.release(ME, [&OLD]), known.release(YOU, [&OLD])), (0, 0, 1));
    assert_eq!(step(&mut known, 9), Tidying::Delete(vec![OLD]));
}

#[test]
fn nobody_lets_go_of_what_is_anothers() {
    // What this session sent went with an archive, and another one has sent it again before this one ends.
    let mut known = stored(&[A]);
    publish(&mut known);
    known.committed([&A]);
    known.remove(&A);
    known.done();
    assert!(!known.claim(&A, YOU, None).unwrap());
    known.add_fresh(A, YOU).unwrap();
    assert!(known.store(&A).unwrap());
    assert_eq!(known.release(ME, [&A]), 0);
    assert_eq!(step(&mut known, 9), Tidying::Nothing);
    assert!(known.is_claimed(&A) && known.contains(&A).unwrap());
    assert_eq!(known.release(YOU, [&A]), 1);
}

#[test]
fn an_orphan_that_is_adopted_is_none_any_more_and_claims_count_once_a_job() {
    let mut known = listed(vec![OLD]);
    known.add_orphans([OLD]);
    known.adopt(OLD, &[ME]).unwrap();
    assert_eq!(step(&mut known, 9), Tidying::Nothing, "it would go while somebody relies on it");
    // Whoever was found to hold it may be about to claim it: that is the same claim.
    assert!(known.claim(&OLD, ME, None).unwrap() && !known.rely(&OLD, ME));
    assert!(known.rely(&OLD, YOU) && !known.rely(&OLD, YOU));
    // In whatever order they let go.
    assert_eq!((known.release(ME, [&OLD]), known.rely(&OLD, ME), known.release(YOU, [&OLD])), (0, true, 0));
    assert_eq!(known.release(ME, [&OLD]), 1);
    known.forget_claimant(YOU);
    assert_eq!(step(&mut known, 9), Tidying::Delete(vec![OLD]));
    // Of what goes while it is shared, nothing is left that would count for what comes after it.
    known.add_fresh(A, ME).unwrap();
    assert!(known.rely(&A, YOU));
    known.committed([&A]);
    known.add_fresh(A, ME).unwrap();
    assert!(known.rely(&A, YOU));
    assert_eq!((known.release(ME, [&A]), known.release(YOU, [&A])), (0, 1));
}

#[test]
fn an_orphan_is_there_for_whoever_claims_it() {
    let mut known = stored(&[A, B]);
    assert_eq!(known.release(ME, [&A]), 1);
    // Not durable, and somebody else is in the transaction: nothing to be done.
    assert_eq!(step(&mut known, 9), Tidying::Nothing);
    assert!(known.claim(&A, ME, None).unwrap());
    assert_eq!(known.release(ME, [&B]), 1);
    assert_eq!(step(&mut known, 9), Tidying::Nothing);
    publish(&mut known);
    known.committed([&B]);
    assert_eq!(step(&mut known, 9), Tidying::Nothing);
    assert_eq!(known.release(ME, [&A]), 1);
    assert!(known.claim(&A, ME, None).unwrap());
    known.committed([&A]);
    assert!(known.contains(&A).unwrap() && known.contains(&B).unwrap() && !known.is_fresh(&A) && !known.is_fresh(&B));
    assert_eq!(step(&mut known, 9), Tidying::Nothing);
}

#[test]
fn what_is_still_queued_is_not_stored_for_nobody() {
    let mut known = stored(&[B]);
    known.add_fresh(A, ME).unwrap();
    assert_eq!(known.release(ME, [&A]), 1);
    // Another one's commit comes first, and does not make durable what is not there yet.
    publish(&mut known);
    known.committed([&B]);
    assert!(!known.store(&A).unwrap());
    assert!(!known.contains(&A).unwrap());
    assert_eq!(step(&mut known, 9), Tidying::Nothing);
    // Claimed again in time, it is stored once.
    known.add_fresh(A, ME).unwrap();
    assert_eq!(known.release(ME, [&A]), 1);
    assert!(known.claim(&A, ME, None).unwrap());
    assert!(known.store(&A).unwrap() && !known.store(&A).unwrap());
}

/// Of a check that began when nothing was known to be damaged.
fn spoiled(known: &mut Known, ids: &[Id]) {
    let before = known.spoiled().ids();
    known.spoil(ids, &[], &before);
}

#[test]
fn what_was_sent_again_stays_whatever_a_check_reads_before_it_is_committed() {
    for commit in [false, true] {
        let mut known = listed(vec![OLD]);
        spoiled(&mut known, &[OLD]);
        assert!(!known.claim(&OLD, ME, None).unwrap());
        known.add_fresh(OLD, ME).unwrap();
        assert!(known.store(&OLD).unwrap());
        // It was sound when the next check read it.
        spoiled(&mut known, &[]);
        assert_eq!(known.spoiled().ids(), [OLD]);
        publish(&mut known);
        known.committed(if commit { &[OLD][..] } else { &[] });
        known.release(ME, [&OLD]);
        assert_eq!(step(&mut known, 9), Tidying::Nothing, "an archive refers to it");
        assert_eq!(known.spoiled().len(), usize::from(!commit));
        // Nobody has it, and it was durable: now it may be sound.
        spoiled(&mut known, &[]);
        assert!(known.contains(&OLD).unwrap() && !known.is_fresh(&OLD));
    }
}

#[test]
fn what_is_found_damaged_is_nobodys_any_more() {
    // One that a session has stored, and an orphan.
    let mut known = stored(&[A]);
    known.add_orphans([OLD]);
    spoiled(&mut known, &[A, OLD]);
    for id in [A, OLD] {
        assert!(!known.contains(&id).unwrap() && !known.claim(&id, YOU, None).unwrap() && !known.rely(&id, YOU));
    }
    // Sent again, it counts again; no archive refers to the orphan, so it goes as others do.
    for id in [A, OLD] {
        known.add_fresh(id, YOU).unwrap();
        assert!(known.store(&id).unwrap() && known.contains(&id).unwrap());
    }
    publish(&mut known);
    known.committed([&A]);
    assert_eq!(known.spoiled().ids(), [OLD]);
    assert_eq!(known.release(YOU, [&A, &OLD]), 1);
    assert_eq!(step(&mut known, 9), Tidying::Delete(vec![OLD]));
    // If that is undone, it is back, and damaged.
    known.discarded();
    known.done();
    assert!(!known.contains(&OLD).unwrap() && !known.is_fresh(&OLD));
    assert_eq!(step(&mut known, 9), Tidying::Delete(vec![OLD]));
}

/// No archive refers to a damaged chunk any more: whatever becomes of the copy that a session sends, nothing stays.
#[test]
fn what_is_damaged_and_sent_again_goes_with_its_last_archive_and_its_session() {
    let damaged = || {
        let mut known = listed(vec![OLD]);
        spoiled(&mut known, &[OLD]);
        known.add_fresh(OLD, ME).unwrap();
        known
    };
    let is_gone = |mut known: Known| {
        assert_eq!(step(&mut known, 9), Tidying::Delete(vec![OLD]));
        assert_eq!((step(&mut known, 9), known.count()), (Tidying::Commit, 0));
    };
    // It is still queued when the archive goes, and never stored: the damaged copy is there as before.
    let mut known = damaged();
    known.abandon(&OLD).unwrap();
    assert_eq!(known.published(), [OLD]);
    assert_eq!(known.release(ME, [&OLD]), 1);
    assert!(!known.store(&OLD).unwrap());
    is_gone(known);
    // The same, and the transaction is discarded first.
    let mut known = damaged();
    known.abandon(&OLD).unwrap();
    assert_eq!(known.release(ME, [&OLD]), 1);
    assert_eq!(step(&mut known, 9), Tidying::Discard);
    assert!(!known.store(&OLD).unwrap());
    is_gone(known);
    // It is stored before, or after the archive goes, and discarded.
    for before in [true, false] {
        let mut known = damaged();
        if before {
            assert!(known.store(&OLD).unwrap());
        }
        known.abandon(&OLD).unwrap();
        if !before {
            assert!(known.store(&OLD).unwrap());
        }
        assert_eq!(known.release(ME, [&OLD]), 1);
        assert_eq!(step(&mut known, 9), Tidying::Discard);
        assert!(!known.contains(&OLD).unwrap());
        is_gone(known);
    }
    // Somebody else's commit makes it durable.
    let mut known = damaged();
    assert!(known.store(&OLD).unwrap());
    publish(&mut known);
    known.committed([]);
    known.abandon(&OLD).unwrap();
    assert_eq!(known.release(ME, [&OLD]), 1);
    is_gone(known);
}

#[test]
fn a_damaged_orphan_that_is_sent_again_for_nothing_is_still_one() {
    for is_stored in [false, true] {
        let mut known = listed(vec![OLD]);
        known.add_orphans([OLD]);
        spoiled(&mut known, &[OLD]);
        known.add_fresh(OLD, ME).unwrap();
        assert!(!is_stored || known.store(&OLD).unwrap());
        assert_eq!(known.release(ME, [&OLD]), 1);
        assert_eq!(step(&mut known, 9), Tidying::Discard);
        assert!(!known.is_clean(), "the journal still has it");
        assert_eq!(step(&mut known, 9), Tidying::Delete(vec![OLD]));
    }
}

#[test]
fn what_is_damaged_as_soon_as_it_is_stored_goes_as_well() {
    // Durable already, or not yet.
    for is_durable in [true, false] {
        let mut known = stored(&[A, B]);
        if is_durable {
            publish(&mut known);
            known.committed([]);
        }
        spoiled(&mut known, &[A]);
        if !is_durable {
            publish(&mut known);
            known.committed([]);
        }
        assert!(!known.contains(&A).unwrap() && !known.is_clean());
        assert_eq!(step(&mut known, 9), Tidying::Delete(vec![A]));
        assert_eq!(known.release(ME, [&A, &B]), 1);
        assert_eq!(step(&mut known, 9), Tidying::Delete(vec![B]));
        assert_eq!((step(&mut known, 9), known.count()), (Tidying::Commit, 1));
    }
}

#[test]
fn what_was_sent_while_a_check_looked_is_not_taken_for_damaged() {
    let mut known = listed(vec![OLD]);
    spoiled(&mut known, &[A, OLD]);
    let before = known.spoiled().ids();
    known.add_fresh(OLD, ME).unwrap();
    assert!(known.store(&OLD).unwrap());
    publish(&mut known);
    known.committed([&OLD]);
    // B was missing when the check looked, and is on its way now.
    known.add_fresh(B, ME).unwrap();
    assert!(known.store(&B).unwrap());
    known.spoil(&[A, OLD], &[B], &before);
    assert_eq!(known.spoiled().ids(), [A, B]);
    assert!(known.contains(&OLD).unwrap() && known.contains(&B).unwrap());
    publish(&mut known);
    known.committed([]);
    assert_eq!(known.release(ME, [&B]), 1);
    assert_eq!(step(&mut known, 9), Tidying::Nothing, "archives refer to it");
}

#[test]
fn deletions_come_in_batches_and_come_back_with_a_discard() {
    let ids: Vec<Id> = (10..20).map(|n| Id([n; 32])).collect();
    let mut known = stored(&ids);
    publish(&mut known);
    known.committed([]);
    assert_eq!(known.release(ME, &ids), 10);
    assert_eq!(step(&mut known, 4), Tidying::Delete(ids[..4].to_vec()));
    // Stored again, and again for nothing.
    assert!(!known.claim(&ids[0], ME, None).unwrap());
    known.add_fresh(ids[0], ME).unwrap();
    assert!(known.store(&ids[0]).unwrap());
    assert_eq!(step(&mut known, 4), Tidying::Delete(ids[4..8].to_vec()));
    assert_eq!(step(&mut known, 4), Tidying::Delete(ids[8..].to_vec()));
    assert_eq!(step(&mut known, 4), Tidying::Nothing);
    assert_eq!(known.release(ME, [&ids[0]]), 1);
    assert_eq!(step(&mut known, 4), Tidying::Discard);
    assert!(ids.iter().all(|id| known.contains(id).unwrap() && known.is_fresh(id)));
    assert_eq!(step(&mut known, 99), Tidying::Delete(ids));
    assert_eq!(step(&mut known, 99), Tidying::Commit);
}
