//! The figures that are kept up to date are those that a look at everything gives.

use crate::records::{archive, ended, some};
use model::Archive;
use status::figures::Figures;
use store::{ArchiveKey, Store};

fn compare(store: &Store, followed: &mut Figures, when: &str) {
    store
        .read(|r| {
            followed.catch_up(r)?;
            let mut anew = Figures::default();
            anew.catch_up(r)?;
            // What there was once leaves an entry of zeros.
            let (mut kept, mut seen) = (followed.clone(), anew.clone());
            for figures in [&mut kept, &mut seen] {
                for repository in figures.repositories.values_mut() {
                    repository.days.retain(|_, sums| sums.archives > 0);
                }
                figures.configs.retain(|_, config| config.sums.archives > 0 || config.last_ended.is_some() || config.last_good.is_some());
                figures
                    .repositories
                    .retain(|_, repository| repository.sums.archives > 0 || repository.incomplete > 0 || repository.last_check.is_some());
            }
            assert_eq!(kept, seen, "{when}");
            Ok(())
        })
        .unwrap();
}

#[test]
fn they_follow_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let mut figures = Figures::default();
    compare(&store, &mut figures, "empty");
    some(&store);
    compare(&store, &mut figures, "filled");
    assert_eq!(figures.all.archives, 4);
    assert_eq!(figures.repositories[&"main".parse().unwrap()].incomplete, 1);

    let key = ArchiveKey::of(&archive(3, "web1/etc", 12));
    let (_, changed) = store
        .write("suspect", "root", |w| {
            w.archives().update(&key, |archive| {
                archive.suspicious = true;
                archive.statistics.original_size = 5;
                Ok(())
            })
        })
        .unwrap();
    compare(&store, &mut figures, "changed");
    let good = |figures: &Figures| figures.last_good(&"web1/etc".parse().unwrap()).map(|archive| archive.job);
    assert_eq!(good(&figures), Some(2));

    // Several changes of one record between two looks: only the first and the last count.
    store.undo(changed, model::Timestamp::now(), "root").unwrap();
    store.write("remove", "root", |w| w.archives().remove(&key)).unwrap();
    store.write("and again", "root", |w| w.archives().insert(&archive(3, "web1/etc", 12))).unwrap();
    compare(&store, &mut figures, "removed and added");
    assert_eq!(good(&figures), Some(3));

    let completed = Archive { incomplete: false, ..archive(6, "db1/data", 1) };
    store.write("complete", "root", |w| w.archives().put(&completed)).unwrap();
    store.write("job", "root", |w| w.jobs().insert(&ended(20, "db1/data", 0, None))).unwrap();
    compare(&store, &mut figures, "an incomplete one becomes whole");
    assert_eq!(figures.last_ended(&"db1/data".parse().unwrap()).unwrap().number, 20);

    let mut check = model::Job::new(
        21,
        model::Work::Check { verify_data: false, config: None },
        "main".parse().unwrap(),
        "root",
        model::Timestamp::now(),
    );
    store.write("check", "root", |w| w.jobs().insert(&check)).unwrap();
    compare(&store, &mut figures, "a check waits");
    check
        .force_state(model::JobState::Failed, model::Failure::new(model::Cause::RepositoryCheckNeeded, "x"), model::Timestamp::now())
        .unwrap();
    store.write("check", "root", |w| w.jobs().put(&check)).unwrap();
    compare(&store, &mut figures, "a check has ended");
    assert_eq!(figures.repositories[&"main".parse().unwrap()].last_check.as_ref().map(|job| job.number), Some(21));

    for number in 1..=4u64 {
        let config = if number == 4 { "db1/data" } else { "web1/etc" };
        store.write("remove", "root", |w| w.archives().remove(&ArchiveKey::of(&archive(number, config, 1)))).unwrap();
        compare(&store, &mut figures, "removed");
    }
    assert_eq!(figures.all.archives, 1);
    store.write("remove", "root", |w| w.configs().remove(&"new1/all".parse().unwrap())).unwrap();
    compare(&store, &mut figures, "a config is gone");
}
