//! The configuration as one file, as a person has it in git: written, changed, looked at, applied, taken back.

use std::fs;
use testkit::system::TestSystem;
use tests::text;

#[test]
fn a_configuration_in_git() {
    let system = TestSystem::start();
    system.add_repository("main", "repokey-blake2", Some("not in any file"));
    system.add_local_client("host");
    let source = system.join("source");
    fs::create_dir(&source).unwrap();
    system.add_config("host", "all", "main", &[], &[&source]);
    let file = system.join("borgcube.toml");
    let path = file.display().to_string();
    system.cli_ok(&["export", "--output", &path]);
    let exported = fs::read_to_string(&file).unwrap();
    assert_eq!(system.cli_ok(&["export"]), exported);
    assert!(!exported.contains("not in any file") && exported.starts_with("# The configuration"), "{exported}");
    assert!(system.cli_ok(&["diff", &path]).contains("The server has what the file says."));
    assert!(system.cli_ok(&["apply", "--yes", &path]).contains("nothing to do"));
    // Where there is nothing to do, there is nothing to ask.
    assert!(system.cli_ok(&["apply", &path]).contains("nothing to do"));

    // What a person adds by hand.
    let more = "[policy.standard]\nkeep = { daily = 7 }\napplies = [{ kind = \"config\", config = \"host/all\" }]\n\
                [schedule.nightly]\nrecurrence = \"daily 02:30 UTC\"\nactions = [{ kind = \"run-config\", config = \"host/all\" }]\n";
    let wanted = format!("{}\n{more}", exported.replace("repository = \"main\"", "repository = \"main\"\none_file_system = true"));
    fs::write(&file, &wanted).unwrap();
    let (code, plan) = system.cli_fails(&["diff", &path]);
    assert_eq!(code, 7, "{plan}");
    for line in [
        "~ config host/all",
        "    one_file_system: (default) -> true",
        "+ schedule nightly",
        "    recurrence = \"daily 02:30 UTC\"",
        "2 added, 1 changed.",
    ] {
        assert!(plan.lines().any(|found| found == line), "{line}\n{plan}");
    }
    let output = system.cli(&["diff", "--json", &path]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), json["changes"].as_array().unwrap().len()), (Some(7), 3));
    let changed = &json["changes"][0];
    assert_eq!((text(changed, "action"), text(changed, "kind"), &changed["fields"][0]["new"]), ("change", "config", &true.into()));
    // Nobody is asked without a terminal, and nothing is done.
    let (code, said) = system.cli_fails(&["apply", &path]);
    assert!(code == 2 && said.contains("--yes") && said.contains("+ policy standard"), "{said}");
    assert!(system.cli_ok(&["apply", "--dry-run", &path]).contains("+ policy standard"));
    assert_eq!(system.cli_ok(&["export"]), exported);

    let applied = system.cli_ok(&["apply", "--yes", "--note", "review 12", &path]);
    assert!(applied.contains("Applied: 2 added, 1 changed. borgcube undo "), "{applied}");
    let last = system.cli_json(&["log", "-n", "1"])[0].clone();
    assert_eq!(text(&last, "note"), "apply configuration (2 added, 1 changed, 0 removed): review 12");
    system.cli_ok(&["diff", &path]);
    system.run_ok("host/all");

    // What is not in the file goes only when it is said, and not what has archives.
    let without: String = exported.split("[client.host]").next().unwrap().to_owned();
    fs::write(&file, &without).unwrap();
    system.cli_ok(&["diff", &path]);
    let (code, said) = system.cli_fails(&["apply", "--yes", "--remove-missing", &path]);
    assert!(
        code == 4 && said.contains("client host is not in the file and has archives") && said.contains("Nothing was changed"),
        "{said}"
    );
    fs::write(&file, &exported).unwrap();
    let removed = system.cli_ok(&["apply", "--yes", "--remove-missing", &path]);
    assert!(removed.contains("- schedule nightly") && removed.contains("1 changed, 2 removed"), "{removed}");
    assert_eq!(system.cli_ok(&["export"]), exported);
    let number = system.cli_json(&["log", "-n", "1"])[0]["transaction"].to_string();
    system.cli_ok(&["undo", &number]);
    fs::write(&file, &wanted).unwrap();
    system.cli_ok(&["diff", &path]);

    // Mistakes, all of them, where they are.
    fs::write(&file, wanted.replace("[policy.standard]\nkeep", "[policy.standard]\nkep").replace("daily 02:30 UTC", "dayly")).unwrap();
    let (code, said) = system.cli_fails(&["diff", &path]);
    assert_eq!(code, 2);
    let (_, without_terminal) = system.cli_fails(&["apply", &path]);
    assert!(without_terminal.contains("there is no field \"kep\""), "{without_terminal}");
    let line = |needle: &str| wanted.lines().position(|line| line.contains(needle)).unwrap() + 1;
    let place = format!("{path}:{}:1: there is no field \"kep\"; is keep meant?", line("keep"));
    assert!(said.contains(&place), "{place}\n{said}");
    assert!(said.contains(&format!("{path}:{}:14: \"dayly\" is no recurrence", line("daily 02:30"))), "{said}");
    let (code, said) = system.cli_fails(&["apply", "--yes", "/nowhere/borgcube.toml"]);
    assert!(code == 3 && said.contains("borgcube export"), "{said}");
    // A repository needs what is in no file.
    fs::write(
        &file,
        exported.replace("[repository.main]", "[repository.other]").replace("repository = \"main\"", "repository = \"other\""),
    )
    .unwrap();
    let (code, said) = system.cli_fails(&["apply", "--yes", &path]);
    assert!(code == 4 && said.contains("Type borgcube repository add other"), "{said}");
    system.settle();
}
