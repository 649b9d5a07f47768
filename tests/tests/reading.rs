//! Archives read on the server, with the real programs: what comes out is what stock borg gives, whoever made the archive.

use serde_json::Value;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use testkit::borgs::Borg;
use testkit::retry::retry_until;
use testkit::sshd::Sshd;
use testkit::system::TestSystem;
use testkit::tree::{Random, Spec, assert_same, make};
use testkit::world::BorgWorld;
use tests::{PATIENCE, newest_archive, text};

const PASSPHRASE: &str = "what is read back";

/// Where a tree of an absolute path is below an extracted one.
fn inside(root: &Path, source: &Path) -> PathBuf {
    root.join(source.strip_prefix("/").unwrap())
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Objects on lines of their own.
fn lines(system: &TestSystem, arguments: &[&str]) -> Vec<Value> {
    let text = system.cli_ok(&[arguments, &["--json"]].concat());
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What `borg export-tar` writes.
fn tar_of(borg: &Borg, world: &BorgWorld, repository: &Path, archive: &str, options: &[&str]) -> Vec<u8> {
    let location = format!("{}::{archive}", repository.display());
    let mut command = borg.command(world);
    let output = command.arg("export-tar").arg(location).arg("-").args(options).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Tar archives are too long to be printed: where they differ, and what that is a header of, if it is one.
#[track_caller]
fn assert_same_bytes(theirs: &[u8], ours: &[u8], what: &str) {
    let Some(at) = theirs.iter().zip(ours).position(|(a, b)| a != b) else {
        return assert_eq!(theirs.len(), ours.len(), "{what}: one is longer");
    };
    let block = |bytes: &[u8]| String::from_utf8_lossy(&bytes[at / 512 * 512..][..512]).into_owned();
    panic!("{what}: byte {at} of {} and {} differs:\n{:?}\n{:?}", theirs.len(), ours.len(), block(theirs), block(ours));
}

/// Extracts with everything, into a new directory.
fn extract(system: &TestSystem, archive: &[&str], name: &str) -> PathBuf {
    let target = system.join(name);
    let target_text = target.display().to_string();
    system.cli_ok(&[&["archive", "extract"], archive, &["--to", &target_text, "--privileged", "--quiet"]].concat());
    target
}

#[test]
fn what_borgcube_made_comes_out_as_from_stock_borg() {
    let system = TestSystem::start();
    let repository = system.add_repository("main", "repokey-blake2", Some(PASSPHRASE));
    let source = system.join("source");
    let made = make(&source, Spec::default());
    made.left_out.iter().for_each(|what| testkit::borgs::not_run("a part of the tree", what));
    system.add_local_client("host");
    system.add_config("host", "all", "main", &[], &[&source]);
    system.run_ok("host/all");
    let archive = text(&newest_archive(&system), "name").to_owned();

    let ours = extract(&system, &[&archive], "ours");
    assert_same(&source, &inside(&ours, &source));
    let output = system.cli(&["archive", "export-tar", &archive, "-", "--quiet"]);
    assert!(output.status.success(), "{}", said(&output));
    let stripped = ["--strip-components", "2", "--exclude", "*.txt"];
    let less = system.cli(&[&["archive", "export-tar", &archive, "-"], &stripped[..]].concat());
    assert!(less.status.success(), "{}", said(&less));

    // Names, as text or escaped.
    let files = lines(&system, &["archive", "files", &archive]);
    let latin = files.iter().find(|file| file["path_hex"].as_str().is_some_and(|hex| hex.ends_with("206973204c6174696e2d31"))).unwrap();
    assert!(text(latin, "path").ends_with("caf\\xe9 is Latin-1"), "{latin}");
    let fifo = files.iter().find(|file| text(file, "path").ends_with("special/fifo")).unwrap();
    assert_eq!((&fifo["type"], &fifo["mode"]), (&"fifo".into(), &"prw-r-----".into()));
    let some = lines(&system, &["archive", "files", &archive, "sh:**/hard*"]);
    assert!(some.len() == 3 && some.iter().filter(|file| file["hard_link_to"].is_string()).count() == 2, "{some:?}");
    let listed = system.cli_ok(&["archive", "files", &archive]);
    assert_eq!(listed.lines().count(), files.len());
    assert!(listed.contains("new\\nline") && !listed.contains('\t'), "{listed}");

    let path = source.join("contents/incompressible");
    let output_of_cat = system.cli(&[b"archive".as_slice(), b"cat", archive.as_bytes(), path.as_os_str().as_bytes()].map(os));
    assert!(output_of_cat.stdout == fs::read(&path).unwrap(), "{}", String::from_utf8_lossy(&output_of_cat.stderr));
    // A hard link without its master, and a name that is no text.
    for name in [b"links/hard 2".as_slice(), b"names/caf\xe9 is Latin-1"] {
        let path = source.join(os(name));
        let output = system.cli(&[b"archive".as_slice(), b"cat", archive.as_bytes(), path.as_os_str().as_bytes()].map(os));
        assert!(output.status.success() && output.stdout == fs::read(&path).unwrap(), "{}", said(&output));
    }

    system.settle();
    let world = BorgWorld::with_passphrase(PASSPHRASE);
    for judge in Borg::judges() {
        let theirs = world.join(format!("theirs-{}", judge.version));
        judge.extract(&world, &repository, &archive, &theirs).unwrap();
        assert_same(&inside(&theirs, &source), &inside(&ours, &source));
        assert_same_bytes(&tar_of(&judge, &world, &repository, &archive, &[]), &output.stdout, &format!("borg {}", judge.version));
        let part = tar_of(&judge, &world, &repository, &archive, &stripped);
        assert_same_bytes(&part, &less.stdout, &format!("borg {}, a part", judge.version));
    }
}

fn os(bytes: &[u8]) -> &std::ffi::OsStr {
    std::ffi::OsStr::from_bytes(bytes)
}

#[test]
fn what_stock_borgs_made_is_read_as_well() {
    let system = TestSystem::start();
    let modes = ["none", "repokey", "authenticated-blake2"];
    let judge = Borg::judges().pop().unwrap();
    for (borg, mode) in Borg::all_clients().into_iter().zip(modes) {
        let world = BorgWorld::with_passphrase(PASSPHRASE);
        let name = format!("of-{}", borg.version.replace('.', "-"));
        let (repository, source) = (system.join(&name), system.join(format!("source-{name}")));
        make(&source, Spec { files: 10, big: 1 << 20, seed: 7 });
        borg.init(&world, &repository, mode).unwrap();
        let mut archives = vec![];
        for (compression, chunker) in [
            ("none", "19,23,21,4095"),
            ("lz4", "10,16,13,4095"),
            ("zstd,10", "19,23,21,4095"),
            ("zlib,6", "12,20,15,255"),
            ("lzma,3", "19,23,21,4095"),
        ] {
            let archive = compression.split(',').next().unwrap();
            let options = ["--compression", compression, "--chunker-params", chunker];
            borg.create(&world, &repository, archive, &options, &[&source]).unwrap();
            archives.push(archive);
        }
        let path = repository.display().to_string();
        let secret = system.secret_file(&format!("secret-{name}"), PASSPHRASE).display().to_string();
        let passphrase = ["--passphrase-file", &secret];
        let passphrase = if mode == "none" { &[][..] } else { &passphrase };
        system.cli_ok(&[&["repository", "add", &name, &path, "--adopt"], passphrase].concat());
        let mut tars = vec![];
        for archive in &archives {
            let ours = extract(&system, &[archive, "--repository", &name], &format!("{name}-{archive}"));
            assert_same(&source, &inside(&ours, &source));
            fs::remove_dir_all(ours).unwrap();
            let output = system.cli(&["archive", "export-tar", archive, "-", "--repository", &name]);
            assert!(output.status.success(), "{}", said(&output));
            tars.push(output.stdout);
        }
        // Cut in other ways, and the same all the same.
        let same = lines(&system, &["archive", "diff", "none", "lz4", "--repository", &name]);
        assert!(same.is_empty(), "{same:?}");
        let (code, said) = system.cli_fails(&["archive", "files", "none"]);
        assert!(code == 3 && said.contains("--repository"), "{code} {said}");
        let (code, said) = system.cli_fails(&["archive", "files", "nothing", "--repository", &name]);
        assert!(code == 3 && said.contains("has no archive \"nothing\""), "{code} {said}");
        system.settle();
        for (archive, ours) in archives.iter().zip(&tars) {
            assert_same_bytes(&tar_of(&judge, &world, &repository, archive, &[]), ours, &format!("{name}::{archive}"));
        }
    }
}

#[test]
fn what_is_damaged_is_named_and_the_rest_is_there() {
    let system = TestSystem::start();
    let repository = system.add_repository("main", "none", None);
    let source = system.join("source");
    fs::create_dir(&source).unwrap();
    let content = |seed| Random::new(seed).bytes(200_000);
    for seed in 0..5 {
        fs::write(source.join(format!("file {seed}")), content(seed)).unwrap();
    }
    system.add_local_client("host");
    system.add_config("host", "all", "main", &["--compression=none"], &[&source]);
    system.run_ok("host/all");
    let archive = text(&newest_archive(&system), "name").to_owned();
    system.settle();
    // One bit in the middle of one file.
    let mut changed = 0;
    for entry in fs::read_dir(repository.join("data/0")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let wanted = &content(3)[100_000..100_064];
        if let Some(at) = bytes.windows(wanted.len()).position(|window| window == wanted) {
            bytes[at] ^= 1;
            fs::write(&path, bytes).unwrap();
            changed += 1;
        }
    }
    assert_eq!(changed, 1);
    let target = system.join("target").display().to_string();
    let strip = source.components().count() - 1;
    let (code, said) = system.cli_fails(&["archive", "extract", &archive, "--to", &target, "--strip-components", &strip.to_string()]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("file 3: 200000 bytes of it are lost") && said.contains("not everything"), "{said}");
    for seed in [0, 1, 2, 4] {
        assert!(fs::read(Path::new(&target).join(format!("file {seed}"))).unwrap() == content(seed), "{seed}");
    }
    assert_eq!(fs::read(Path::new(&target).join("file 3")).unwrap(), vec![0; 200_000]);
    let output = system.cli(&["archive", "extract", &archive, "--dry-run", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(report["error_count"] == 1 && text(&report["errors"][0], "path").ends_with("file 3"), "{report}");
}

#[test]
fn a_repository_behind_ssh_is_read() {
    let system = TestSystem::start();
    let mut storage = Sshd::start();
    let key = storage.authorize("");
    let source = system.join("source");
    make(&source, Spec { files: 5, ..Spec::default() });
    let repository = system.join("far");
    let url = format!("ssh://{}:{}{}", storage.destination(), storage.port(), repository.display());
    let secret = system.secret_file("secret", PASSPHRASE).display().to_string();
    let (rsh, borg) = (storage.rsh(&key), Borg::judges().pop().unwrap().program.display().to_string());
    let options = ["--encryption", "repokey", "--passphrase-file", &secret, "--rsh", &rsh, "--remote-borg", &borg];
    system.cli_ok(&[&["repository", "add", "far", &url], &options[..]].concat());
    system.add_local_client("host");
    system.add_config("host", "all", "far", &[], &[&source]);
    system.run_ok("host/all");
    let archive = text(&newest_archive(&system), "name").to_owned();
    let ours = extract(&system, &[&archive], "ours");
    assert_same(&source, &inside(&ours, &source));
}

#[test]
fn whoever_reads_slowly_keeps_nobody_waiting() {
    let system = TestSystem::start();
    system.add_repository("main", "repokey", Some(PASSPHRASE));
    let source = system.join("source");
    fs::create_dir(&source).unwrap();
    for seed in 0..40 {
        fs::write(source.join(format!("{seed}")), Random::new(seed).bytes(2 << 20)).unwrap();
    }
    system.add_local_client("host");
    system.add_config("host", "all", "main", &["--compression=none"], &[&source]);
    system.run_ok("host/all");
    let archive = text(&newest_archive(&system), "name").to_owned();
    let whole = system.cli(&["archive", "export-tar", &archive, "-"]).stdout;
    let (mut slow, mut out, mut read) = {
        let mut child = system.cli_command(&["archive", "export-tar", &archive, "-"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = child.stdout.take().unwrap();
        let mut first = vec![0; 1 << 20];
        out.read_exact(&mut first).unwrap();
        (child, out, first)
    };
    // It has begun, and takes nothing more: a release gets the repository, and a backup runs.
    system.cli_ok(&["repository", "release", "main", "--", "true"]);
    fs::write(source.join("one more"), "more").unwrap();
    system.run_ok("host/all");
    // The owner is restarted under it.
    let owner = system.pids("borgcube-repositoryd");
    for pid in &owner {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::Signal::SIGTERM).unwrap();
    }
    let gone = || system.pids("borgcube-repositoryd").iter().all(|pid| !owner.contains(pid)).then_some(());
    assert!(retry_until(PATIENCE, gone).is_some(), "{}", system.log());
    out.read_to_end(&mut read).unwrap();
    assert!(slow.wait().unwrap().success(), "{}", system.log());
    assert!(read == whole, "{} of {} bytes", read.len(), whole.len());
}

#[test]
fn bad_input_gets_a_sentence() {
    let system = TestSystem::start();
    system.add_repository("main", "none", None);
    let source = system.join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "content").unwrap();
    system.add_local_client("host");
    system.add_config("host", "all", "main", &[], &[&source]);
    system.run_ok("host/all");
    let archive = text(&newest_archive(&system), "name").to_owned();
    let full = system.join("source").display().to_string();
    let file = system.join("source/file").display().to_string();
    let cases: [(&[&str], i32, &str); 13] = [
        (&["files", "nothing"], 3, "there is no archive"),
        (&["files", &archive, "xx:y"], 2, "is not usable"),
        (&["files", &archive, "re:("], 2, "is not usable"),
        (&["files", &archive, "not/there"], 1, "nothing in it matches not/there"),
        (&["cat", &archive, "not/there"], 1, "no such file"),
        (&["cat", &archive, &full], 1, "it is a directory"),
        (&["extract", &archive], 2, "--to"),
        (&["extract", &archive, "--to", &full], 1, "is not empty"),
        (&["extract", &archive, "--to", &file], 1, "cannot use the directory"),
        (&["extract", &archive, "--to", "/nowhere/at/all"], 1, "cannot use the directory"),
        (&["export-tar", &archive, &file], 4, "exists already"),
        (&["export-tar", &archive, "/nowhere/at/all"], 1, "cannot write"),
        (&["diff", &archive, "nothing"], 3, "there is no archive"),
    ];
    for (arguments, code, sentence) in cases {
        let (found, said) = system.cli_fails(&[&["archive"], arguments].concat());
        assert!(found == code && said.contains(sentence), "{arguments:?}: {found} {said}");
    }
    assert_eq!(fs::read(source.join("file")).unwrap(), b"content");
    assert_eq!(fs::read_dir(&source).unwrap().count(), 1);
    // Nobody reads any more: that is no failure.
    let mut child = system.cli_command(&["archive", "files", &archive]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

/// A running `borgcube archive mount`; whatever happens, nothing stays mounted.
struct Mount {
    child: Child,
    at: PathBuf,
}

impl Mount {
    fn end(&mut self) -> Option<i32> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
        self.child.wait().unwrap().code()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.end();
        }
        // It is said to be no mount when all is well.
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).stderr(Stdio::null()).status();
    }
}

#[test]
fn an_archive_is_mounted_and_keeps_nobody_waiting() {
    if let Err(e) = fs::File::options().read(true).write(true).open("/dev/fuse") {
        return testkit::borgs::not_run("borgcube archive mount", &format!("/dev/fuse: {e}"));
    }
    let system = TestSystem::start();
    system.add_repository("main", "repokey-blake2", Some(PASSPHRASE));
    let source = system.join("source");
    make(&source, Spec::default());
    system.add_local_client("host");
    system.add_config("host", "all", "main", &[], &[&source]);
    system.run_ok("host/all");
    let archive = text(&newest_archive(&system), "name").to_owned();
    let at = system.join("mnt");
    fs::create_dir(&at).unwrap();
    let mut command = system.cli_command(&["archive", "mount", &archive, &at.display().to_string()]);
    let mut mount = Mount { child: command.stdout(Stdio::null()).spawn().unwrap(), at: at.clone() };
    let there = retry_until(PATIENCE, || inside(&at, &source).is_dir().then_some(()));
    assert!(there.is_some(), "{:?}\n{}", mount.child.try_wait(), system.log());
    // ACLs are not shown.
    let mut differences = testkit::tree::differences(&source, &inside(&at, &source));
    differences.retain(|difference| !difference.what.contains("system.posix_acl"));
    assert!(differences.is_empty(), "{}", testkit::tree::listed(&differences));
    assert!(fs::write(at.join("new"), "x").is_err() && fs::metadata(at.join("nothing")).is_err());
    // In the middle of a file, and backwards.
    let path = source.join("contents/incompressible");
    let (content, mounted) = (fs::read(&path).unwrap(), fs::File::open(inside(&at, &path)).unwrap());
    for offset in [2_000_000_u64, 1_000_001, 5, 3_000_000] {
        let mut part = vec![0; 100_000];
        std::os::unix::fs::FileExt::read_exact_at(&mounted, &mut part, offset).unwrap();
        assert!(part == content[offset as usize..][..part.len()], "{offset}");
    }
    drop(mounted);
    system.cli_ok(&["repository", "release", "main", "--", "true"]);
    system.run_ok("host/all");
    assert_eq!(fs::read(inside(&at, &source.join("contents/one byte"))).unwrap(), b"x");
    assert_eq!(mount.end(), Some(0), "{}", system.log());
    assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
    // As good an end as Ctrl-C.
    let mut command = system.cli_command(&["archive", "mount", &archive, &at.display().to_string()]);
    let mut again = Mount { child: command.stdout(Stdio::null()).spawn().unwrap(), at: at.clone() };
    assert!(retry_until(PATIENCE, || inside(&at, &source).is_dir().then_some(())).is_some(), "{}", system.log());
    assert!(Command::new("umount").arg(&at).status().unwrap().success());
    assert_eq!(again.child.wait().unwrap().code(), Some(0), "{}", system.log());
    let (code, said) = system.cli_fails(&["archive", "mount", &archive, "/nowhere/at/all"]);
    assert!(code == 2 && said.contains("cannot mount at"), "{code} {said}");
}
