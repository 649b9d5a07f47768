//! Viewers and requests beside a running backup. How fast that is on a large server `make bench ONLY=status` says; nothing here looks at a clock.

use tests::load::{PATHS, Plan, run};

#[test]
fn many_look_while_a_backup_runs() {
    let plan = Plan { records: 2000, viewers: 200, a_second: 60, seconds: 3 };
    let outcome = run(plan);
    let asked: usize = outcome.took.values().map(Vec::len).sum();
    assert!(outcome.took.len() == PATHS.len() && asked as u64 >= plan.a_second * plan.seconds - 8, "{asked} requests");
    // Everybody heard the backup move and end, and the other one begin and end.
    assert!(outcome.progress >= 1 && outcome.jobs >= 4 && outcome.read > 0, "{outcome:?}");
    // A viewer is a socket and a small task: no buffers, nothing that grows with the database. The rest is what few viewers let one measure.
    let each = outcome.memory_idle.saturating_sub(outcome.memory) / plan.viewers;
    assert!(each < 20, "{each} kB for each viewer");
}
