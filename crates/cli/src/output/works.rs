//! What a job is for, as lines of its card.

use super::{Details, bytes, count};
use model::Work;
use model::import::{Attribution, Which};
use model::restore::{Restore, Target};
use model::restore_test::RestoreTest;

/// Names of archives that a card has; more are counted.
const NAMED: usize = 10;

/// What it does, and to what. Its repository is told beside it.
pub fn work(details: Details, work: &Work) -> Details {
    match work {
        Work::Backup { .. } => details.maybe("Config", work.config().map(|config| config.to_string())),
        Work::Check { verify_data, config } => details
            .maybe("Check config", config.as_ref().map(|config| config.as_str()))
            .maybe("Content", verify_data.then_some("verified as well")),
        Work::Compact { threshold } => details.line("Threshold", format!("{threshold} %")),
        Work::Prune { policy, clients, labels, compact } => details
            .maybe("Policy", policy.as_ref().map(|policy| policy.as_str()))
            .maybe("Clients", clients.as_deref().map(|pattern| format!("/{pattern}/")))
            .maybe("Labels", labels.as_deref().map(|pattern| format!("/{pattern}/")))
            .maybe("Space", compact.then_some("given back as well")),
        Work::Restore { client, restore } => restored(details, client.as_str(), restore),
        Work::RestoreTest { client, test } => tested(details, client.as_str(), test),
        Work::Import { import } => {
            let which = match &import.which {
                Which::All => vec!["all without a record".to_owned()],
                Which::Match(pattern) => vec![format!("/{pattern}/")],
                Which::Names(names) => some(names),
            };
            let whose = match &import.attribution {
                Attribution::Config(config) => config.to_string(),
                Attribution::ByName => "as the archives say that an earlier BorgCube wrote them".to_owned(),
            };
            details.many("Imports", which).line("For", whose)
        }
    }
}

fn some(names: &[String]) -> Vec<String> {
    let more = names.len().saturating_sub(NAMED);
    let named = names.iter().take(NAMED).cloned();
    named.chain((more > 0).then(|| format!("and {more} more"))).collect()
}

fn restored(details: Details, client: &str, restore: &Restore) -> Details {
    let Restore { archive, of, paths, patterns, excludes, target, .. } = restore;
    let into = match target {
        Target::New => "a new directory in the home of the client's user".to_owned(),
        Target::Directory(path) => path.clone(),
        Target::InPlace => "where the files were, over what is there".to_owned(),
    };
    let to = if of.as_str() == client { client.to_owned() } else { format!("{client}, and it is an archive of {of}") };
    details
        .line("Restores", archive)
        .maybe("Everything", restore.is_whole().then_some("yes"))
        .many("Paths", some(paths))
        .many("Patterns", some(patterns))
        .many("Without", some(excludes))
        .line("To", to)
        .line("Into", into)
}

fn tested(details: Details, client: &str, test: &RestoreTest) -> Details {
    let of = test.label.as_ref().map_or_else(|| client.to_owned(), |label| format!("{client}/{label}"));
    let archive = test.archive.as_ref().map_or_else(|| "the newest whole one".to_owned(), |archive| archive.name.clone());
    let sample = format!("{} at most, {} of them at most", count(u64::from(test.most_files()), "file"), bytes(test.bytes));
    let expected = (!test.expect.is_empty()).then(|| format!("{} that a person brought", count(test.expect.len() as u64, "hash")));
    details
        .line("Tests", of)
        .line("Tested archive", archive)
        .line("Sample", sample)
        .many("Paths", some(&test.paths))
        .maybe("Expected", expected)
        .maybe("Live", test.live.then_some("compared with the client's files"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::import::Import;

    fn card(work: &Work) -> String {
        super::work(Details::new(), work).render()
    }

    #[test]
    fn a_restore_says_what_of_which_archive_goes_where() {
        let mut restore = Restore {
            archive: "web1-etc-1".into(),
            id: "ab".repeat(32),
            of: "web1".parse().unwrap(),
            paths: (0..12).map(|n| format!("etc/{n}")).collect(),
            patterns: vec![],
            excludes: vec!["*.o\u{1b}".into()],
            target: Target::Directory("/srv/back".into()),
            sparse: false,
            ignore_space: false,
        };
        let text = card(&Work::Restore { client: "web2".parse().unwrap(), restore: Box::new(restore.clone()) });
        for part in
            ["Restores: web1-etc-1", "and 2 more", "Without:  *.o\\u{1b}", "To:       web2, and it is an archive of web1", "/srv/back"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        (restore.paths, restore.excludes, restore.target) = (vec![], vec![], Target::InPlace);
        let whole = card(&Work::Restore { client: "web1".parse().unwrap(), restore: Box::new(restore) });
        assert!(whole.contains("Everything: yes") && whole.contains("where the files were") && !whole.contains("archive of"), "{whole}");
    }

    #[test]
    fn tests_imports_and_the_others_say_their_subject() {
        let test = RestoreTest { label: Some("etc".parse().unwrap()), live: true, ..RestoreTest::new() };
        let text = card(&Work::RestoreTest { client: "web1".parse().unwrap(), test: Box::new(test) });
        assert!(text.contains("web1/etc") && text.contains("the newest whole one") && text.contains("20 files at most"), "{text}");
        assert!(text.contains("compared with the client"), "{text}");
        let import = Import { which: Which::Match("old-.*".into()), attribution: Attribution::Config("web1/files".parse().unwrap()) };
        assert_eq!(card(&Work::Import { import: Box::new(import) }), "Imports: /old-.*/\nFor:     web1/files\n");
        let prune = Work::Prune { policy: Some("standard".parse().unwrap()), clients: Some("web.*".into()), labels: None, compact: true };
        assert_eq!(card(&prune), "Policy:  standard\nClients: /web.*/\nSpace:   given back as well\n");
        let check = Work::Check { verify_data: true, config: Some("nightly".parse().unwrap()) };
        assert_eq!(card(&check), "Check config: nightly\nContent:      verified as well\n");
    }
}
