//! The main job: stock borg backs up through shim, session and owner, and stock borg confirms the result.

use std::fs;
use testkit::borgs::Borg;
use testkit::process;
use testkit::system::TestSystem;
use testkit::tree::{Spec, make, modify};
use testkit::world::BorgWorld;
use tests::{Tap, newest_archive, newest_job, number, start, text, wait_for_end, wait_for_state};

const PASSPHRASE: &str = "correct horse battery staple";

#[test]
fn three_runs_and_two_judges() {
    let system = TestSystem::start();
    let repository = system.add_repository("main", "repokey-blake2", Some(PASSPHRASE));
    system.add_local_client("host");
    let source = system.join("source");
    make(&source, Spec { files: 400, ..Spec::default() });
    // Borg never trusts the newest file of a run: it may have changed within the clock's grain.
    std::thread::sleep(std::time::Duration::from_millis(50));
    fs::write(source.join("zz-newest"), b"x").unwrap();
    system.add_config("host", "all", "main", &["--extra-option=--list"], &[&source]);
    let world = BorgWorld::with_passphrase(PASSPHRASE);
    let judge = || {
        let archive = text(&newest_archive(&system), "name").to_owned();
        system.settle();
        for borg in Borg::judges() {
            borg.judge(&world, &repository, &archive, &source).unwrap_or_else(|e| panic!("borg {}: {e:#}", borg.version));
        }
    };

    system.run_ok("host/all");
    let first = newest_archive(&system);
    judge();

    // Unchanged: no file is read again, and nearly nothing is sent.
    system.run_ok("host/all");
    let second = newest_archive(&system);
    let listed = statuses(&system, number(&newest_job(&system), "number"));
    assert!(listed.iter().filter(|(status, _)| status == "U").count() > 400, "{listed:?}");
    let read_again: Vec<_> =
        listed.iter().filter(|(status, path)| matches!(status.as_str(), "A" | "M" | "C") && !path.ends_with("zz-newest")).collect();
    assert!(read_again.is_empty(), "{read_again:?}");
    let counters = &second["counters"];
    let stream = number(counters, "item_stream_bytes");
    assert!(stream > 50_000, "{counters}");
    assert!(number(counters, "item_stream_put_bytes") * 20 <= stream, "more than 5 % of the item stream was sent again: {counters}");
    assert!(number(counters, "puts") <= 4, "{counters}");
    assert!(number(&second["statistics"], "deduplicated_size") * 20 < number(&first["statistics"], "deduplicated_size"));
    assert_eq!(number(&second["statistics"], "original_size"), number(&first["statistics"], "original_size"));
    judge();

    modify(&source, 2);
    system.run_ok("host/all");
    judge();
    assert_eq!(system.cli_json(&["archive", "list"]).as_array().map(Vec::len), Some(3));
}

/// Status letters and paths of `borg create --list` in a job's log.
fn statuses(system: &TestSystem, number: u64) -> Vec<(String, String)> {
    let log = system.cli_ok(&["--json", "job", "log", &number.to_string()]);
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let lines = lines.iter().filter(|line| line["level"] == "file");
    lines.filter_map(|line| text(line, "message").split_once(' ')).map(|(status, path)| (status.to_owned(), path.to_owned())).collect()
}

/// More references than go into one message between session and owner, and an item stream of many chunks.
#[test]
fn fifty_thousand_small_files() {
    let system = TestSystem::start();
    let repository = system.add_repository("main", "repokey", Some(PASSPHRASE));
    let Some(borg) = Borg::v1_4_5() else { panic!("borg 1.4.5 is needed") };
    system.cli_ok(&["client", "add", "host", "--local", &format!("--remote-borg={}", borg.program.display())]);
    let source = system.join("source");
    for number in 0..50_000u32 {
        let directory = source.join((number / 500).to_string());
        if number % 500 == 0 {
            fs::create_dir_all(&directory).unwrap();
        }
        fs::write(directory.join(number.to_string()), number.to_le_bytes()).unwrap();
    }
    system.add_config("host", "all", "main", &[], &[&source]);
    system.run_ok("host/all");
    let archive = newest_archive(&system);
    assert_eq!(number(&archive["statistics"], "nfiles"), 50_000);
    system.run_ok("host/all");
    assert_eq!(number(&newest_archive(&system)["counters"], "item_stream_put_bytes"), 0);
    system.settle();
    borg.judge(&BorgWorld::with_passphrase(PASSPHRASE), &repository, text(&archive, "name"), &source).unwrap();
}

#[test]
fn figures_agree_with_stock_borg() {
    let system = TestSystem::start();
    let repository = system.add_repository("main", "repokey", Some(PASSPHRASE));
    system.add_local_client("host");
    let source = system.join("source");
    make(&source, Spec::default());
    system.add_config("host", "all", "main", &[], &[&source]);
    system.run_ok("host/all");
    let archive = newest_archive(&system);
    let name = text(&archive, "name");
    system.settle();
    let world = BorgWorld::with_passphrase(PASSPHRASE);
    for borg in Borg::judges() {
        let info = borg.info_json(&world, &repository, Some(name)).unwrap();
        let stock = &info["archives"][0];
        assert_eq!(stock["hostname"], "host");
        assert_eq!(stock["name"], name);
        assert_eq!(stock["stats"]["nfiles"], archive["statistics"]["nfiles"], "{stock}");
        assert_eq!(stock["stats"]["original_size"], archive["statistics"]["original_size"], "{stock}");
        assert_eq!(text(stock, "id"), text(&archive, "id"));
    }
}

#[test]
fn every_part_is_a_process_of_its_own_and_none_but_the_owner_sees_the_key() {
    let system = TestSystem::start();
    let repository = system.add_repository("main", "repokey", Some(PASSPHRASE));
    system.add_local_client("host");
    let source = system.join("source");
    fs::create_dir(&source).unwrap();
    let tap = Tap::open(&source.join("tap"), 300_000);
    system.add_config("host", "all", "main", &["--read-special"], &[&source]);
    let job = start(&system, "host/all");
    wait_for_state(&system, job, "client_in_progress");
    std::thread::sleep(std::time::Duration::from_secs(2));

    let key = real_key(&repository);
    let parts = ["borgcube-proxy", "borgcube-session", "borgcube-worker", "borgcubed", "borgcube-repositoryd"];
    let mut pids = vec![];
    for part in parts {
        let running = system.pids(part);
        assert!(!running.is_empty(), "{part} does not run");
        pids.extend(running.iter().map(|pid| (part, *pid)));
    }
    // The search itself has to be able to find something: the owner has the key.
    for (part, pid) in &pids {
        let found = key.iter().any(|secret| memory_contains(*pid, secret));
        assert_eq!(found, *part == "borgcube-repositoryd", "{part} (pid {pid})");
    }
    // No secret in anybody's arguments.
    for pid in process::all() {
        let arguments = process::arguments(pid).join(" ");
        assert!(!arguments.contains(PASSPHRASE), "{arguments}");
    }
    tap.close();
    let ended = wait_for_end(&system, job);
    assert_eq!(text(&ended, "state"), "done", "{ended}");
}

/// enc_key and enc_hmac_key of a repokey repository, asked of stock borg itself.
fn real_key(repository: &std::path::Path) -> Vec<Vec<u8>> {
    let script = "import sys, configparser, binascii\n\
        from hashlib import pbkdf2_hmac\n\
        from borg.helpers import msgpack\n\
        from borg.crypto.low_level import AES\n\
        config = configparser.ConfigParser(interpolation=None); config.read(sys.argv[1] + '/config')\n\
        blob = msgpack.unpackb(binascii.a2b_base64(config.get('repository', 'key')), raw=True)\n\
        kek = pbkdf2_hmac('sha256', sys.argv[2].encode(), blob[b'salt'], blob[b'iterations'], 32)\n\
        inner = msgpack.unpackb(AES(kek, b'\\0'*16).decrypt(blob[b'data']), raw=True)\n\
        print(inner[b'enc_key'].hex()); print(inner[b'enc_hmac_key'].hex())\n";
    let Some(borg) = Borg::v1_4_5() else { panic!("borg 1.4.5 is needed to know the real key") };
    let python = borg.program.with_file_name("python");
    let output = std::process::Command::new(python).args(["-c", script]).arg(repository).arg(PASSPHRASE).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let keys: Vec<Vec<u8>> =
        text.lines().map(|hex| (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()).collect();
    assert_eq!(keys.iter().map(Vec::len).collect::<Vec<_>>(), [32, 32]);
    keys
}

/// Whether a process has `needle` anywhere in its readable memory.
fn memory_contains(pid: i32, needle: &[u8]) -> bool {
    use std::os::unix::fs::FileExt;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("the process runs, and we are root or its owner");
    let memory = fs::File::open(format!("/proc/{pid}/mem")).expect("its memory can be read");
    let mut seen = 0;
    let mut found = false;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (Some(range), Some(mode)) = (words.next(), words.next()) else { continue };
        if !mode.starts_with('r') || line.contains("[v") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let (mut at, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        let mut buffer = vec![0; 4 << 20];
        while at < to {
            let want = buffer.len().min((to - at) as usize);
            let Ok(got) = memory.read_at(&mut buffer[..want], at) else { break };
            if got == 0 {
                break;
            }
            seen += got;
            found |= buffer[..got].windows(needle.len()).any(|w| w == needle);
            // The next piece overlaps: a needle may lie across the border.
            at += if got == want && at + (got as u64) < to { (got - needle.len()) as u64 } else { got as u64 };
        }
    }
    assert!(seen > 100_000, "almost nothing of pid {pid} could be read");
    found
}
