//! Stock borg alone, without any of BorgCube: what the judges are worth, before they judge us.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use testkit::borgs::{MODES, not_run};
use testkit::tree::{self, Spec};
use testkit::{Borg, BorgWorld};

fn backup(borg: &Borg, mode: &str) -> (BorgWorld, PathBuf, PathBuf) {
    let world = BorgWorld::with_passphrase("a test's passphrase");
    let (repository, source) = (world.join("repository"), world.join("source"));
    let made = tree::make(&source, Spec::default());
    for left_out in made.left_out {
        not_run("a kind of file", &left_out);
    }
    borg.init(&world, &repository, mode).expect("init");
    borg.create(&world, &repository, "first", &[], &[&source]).expect("create");
    (world, repository, source)
}

/// Every kind of thing in our trees survives every client version, and each mode is covered by one of them.
#[test]
fn stock_matrix_keeps_the_whole_tree() {
    let clients = Borg::all_clients();
    for (number, mode) in MODES.iter().enumerate() {
        let client = &clients[number % clients.len()];
        let (world, repository, source) = backup(client, mode);
        for judge in Borg::judges() {
            // Only since 1.2.5 do clients sign archives.
            if judge.at_least([1, 2, 5]) && !client.at_least([1, 2, 5]) {
                judge.check_verify_data(&world, &repository).expect("a sound repository");
                continue;
            }
            judge.judge(&world, &repository, "first", &source).unwrap_or_else(|e| panic!("{mode} by {}: {e:#}", client.version));
        }
    }
}

#[test]
fn a_judge_sees_one_flipped_byte_in_the_repository() {
    for judge in Borg::judges() {
        let (world, repository, _) = backup(&judge, "repokey-blake2");
        judge.check_verify_data(&world, &repository).expect("sound so far");
        let segment = biggest_segment(&repository.join("data"));
        let file = fs::File::options().read(true).write(true).open(&segment).expect("it opens");
        let middle = file.metadata().expect("metadata").len() / 2;
        let mut byte = [0];
        file.read_exact_at(&mut byte, middle).expect("read");
        file.write_all_at(&[byte[0] ^ 1], middle).expect("written");
        let error = judge.check_verify_data(&world, &repository).expect_err("damage must be found");
        assert!(format!("{error}").contains("check"), "{error:#}");
    }
}

#[test]
fn a_judge_sees_that_something_else_was_extracted() {
    for judge in Borg::judges() {
        let (world, repository, source) = backup(&judge, "repokey");
        tree::modify(&source, 2);
        let error = judge.judge(&world, &repository, "first", &source).expect_err("the source is another one now");
        let text = format!("{error:#}");
        assert!(text.contains("contents/new 2"), "{text}");
        assert!(text.contains("content differs from byte"), "{text}");
    }
}

#[test]
fn the_helpers_read_what_borg_says() {
    let borg = Borg::v1_4_5().unwrap_or_else(|| Borg::judges().remove(0));
    let (world, repository, source) = backup(&borg, "authenticated");
    borg.create(&world, &repository, "second", &["--stats"], &[&source]).expect("create");
    let archives = borg.archives(&world, &repository).expect("list --json");
    assert_eq!(archives, ["first", "second"]);
    if borg.at_least([1, 2, 5]) {
        let rows = borg.list_with_tam(&world, &repository).expect("tam");
        let verified = |name: &str| (name.to_owned(), "verified".to_owned());
        assert_eq!(rows, [verified("first"), verified("second")]);
    }
    let info = borg.info_json(&world, &repository, Some("second")).expect("info --json");
    assert_eq!(info["archives"][0]["name"], "second");
    assert!(info["archives"][0]["stats"]["nfiles"].as_u64() > Some(90));
    let info = borg.info_json(&world, &repository, None).expect("info");
    assert_eq!(info["encryption"]["mode"], "authenticated");
    let items = borg.items(&world, &repository, "first").expect("items");
    let listed = borg.extract_list(&world, &repository, "first").expect("extract --dry-run --list");
    assert!(items.len() > 100 && listed.len() >= items.len());
    let wrong = BorgWorld::with_passphrase("another");
    let answer = borg.archives(&wrong, &repository);
    // `authenticated` encrypts nothing, but its key blob is encrypted all the same.
    match answer {
        Ok(names) => panic!("the passphrase must matter: {names:?}"),
        Err(error) => assert!(format!("{error:#}").contains("is incorrect"), "{error:#}"),
    }
}

fn biggest_segment(data: &Path) -> PathBuf {
    fs::read_dir(data)
        .expect("a directory of segments")
        .flatten()
        .flat_map(|one| fs::read_dir(one.path()).into_iter().flatten().flatten())
        .map(|segment| segment.path())
        .max_by_key(|path| fs::metadata(path).map(|m| m.len()).unwrap_or(0))
        .expect("a segment")
}
