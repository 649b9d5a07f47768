//! A01 to A12: tokens, SSH, and how a session begins.

use crate::hostile::{Hostile, Said, open};
use crate::world::{Job, World};
use borg::rpc::call;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use testkit::process;
use testkit::retry::retry_until;
use testkit::sshd::Sshd;
use testkit::system::programs;
use wire::session::{Open, VERSION, kind, write_json};

/// The path of a token that nobody made.
fn guess(n: u8) -> String {
    format!("/./{}", format!("{n:02x}").repeat(32))
}

fn knock(client: &mut Hostile, path: &str) -> Said {
    client.negotiate();
    client.call(|msgid| open(msgid, path.as_bytes()))
}

#[test]
fn a01_guesses_are_refused_logged_and_soon_not_looked_at() {
    let world = World::new();
    let before = world.fingerprint();
    // As sshd starts it for a client at this address.
    let from = |address: &str| {
        let mut shim = Command::new(programs().join("borgcube-proxy"));
        shim.env("BORGCUBE_STATE", world.system.state()).env("SSH_CONNECTION", format!("{address} 40000 192.0.2.1 22"));
        Hostile::through(&mut shim)
    };
    let job = world.job("hostile");
    for n in 0..5 {
        knock(&mut from("198.51.100.7"), &guess(n)).refused("SessionUnknown");
    }
    let misses = || world.system.log().matches("a client asked for a session that is not known").count();
    assert!(retry_until(Duration::from_secs(30), || (misses() == 5).then_some(())).is_some(), "each miss is in the log: {}", misses());
    // The sixth is not looked up, even if it were right.
    knock(&mut from("198.51.100.7"), &job.ticket.path).refused("SessionUnknown");
    let log = retry_until(Duration::from_secs(30), || Some(world.system.log()).filter(|log| log.contains("is not looked up")));
    let log = log.expect("it is said that this was not looked up");
    let token = job.ticket.path[3..].to_owned();
    assert!(!log.contains(&token) && !log.contains(&"00".repeat(32)), "tokens do not stand in logs");
    // Others are not affected, nor is the job.
    let mut other = from("198.51.100.8");
    assert!(matches!(knock(&mut other, &job.ticket.path), Said::Value(_)));
    drop(other);
    job.end(2);
    world.assert_unchanged(&before);
    // What a token is made of.
    assert_eq!(token.len(), 64, "256 bits");
}

#[test]
fn a02_a_used_token_is_used() {
    let world = World::new();
    let job = world.job("hostile");
    let mut client = job.open();
    for _ in 0..3 {
        knock(&mut world.stranger(), &job.ticket.path).refused("SessionUnknown");
    }
    // Whoever was first goes on undisturbed.
    client.backup_of(b"the first with the token makes the backup, whatever others try with it meanwhile");
    drop(client);
    let path = job.ticket.path.clone();
    assert_eq!(job.end(0).state, "done");
    knock(&mut world.stranger(), &path).refused("SessionUnknown");
}

#[test]
fn a03_of_a_thousand_racers_one_wins() {
    let world = World::new();
    let before = world.fingerprint();
    // Through sessions, as many at a time as may be strangers.
    let job = world.job("hostile");
    let won = AtomicUsize::new(0);
    let (barrier, sessions) = (Barrier::new(40), 40);
    std::thread::scope(|scope| {
        for _ in 0..sessions {
            scope.spawn(|| {
                let mut racer = world.stranger();
                racer.negotiate();
                barrier.wait();
                if let Said::Value(_) = racer.call(|msgid| open(msgid, job.ticket.path.as_bytes())) {
                    won.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(won.load(Ordering::SeqCst), 1);
    job.end(2);
    // At the one place where it is decided, as a session would ask: a thousand at once.
    let job = world.job("hostile");
    let socket = unix::paths::Layout::new(&world.system.state()).repository_socket("main");
    let mut racers: Vec<UnixStream> = (0..1000).map(|_| unix::socket::connect(&socket).unwrap()).collect();
    let ask = Open { version: VERSION, token: job.ticket.path[3..].to_owned(), client_version: "1.4.5".into(), client: None };
    racers.iter_mut().for_each(|racer| write_json(racer, kind::OPEN, &ask).unwrap());
    let mut buffer = Vec::new();
    let answers: Vec<u8> = racers.iter_mut().map(|racer| wire::frame::read(racer, &mut buffer).unwrap()).collect();
    assert_eq!(answers.iter().filter(|answer| **answer == kind::OPENED).count(), 1);
    assert_eq!(answers.iter().filter(|answer| **answer == kind::REFUSED).count(), 999);
    drop(racers);
    job.end(2).expect_cause("session-lost", "");
    world.assert_unchanged(&before);
}

#[test]
fn a04_a_stolen_token_is_worth_one_archive_of_its_own_job() {
    let world = World::new();
    let (mine, theirs) = (world.job("hostile"), world.job("victim"));
    // The thief has the token of the victim's job, but not its passphrase: the key stays shut, and without it nothing is accepted.
    let mut thief = theirs.connect();
    assert!(matches!(knock(&mut thief, &theirs.ticket.path), Said::Value(_)));
    let borg::msgpack::OwnedValue::Raw(blob) = thief.ok(call::load_key) else { panic!("a key") };
    let locked = borg::keyblob::LockedKey::parse(std::str::from_utf8(&blob).unwrap()).unwrap();
    assert!(locked.unlock(mine.ticket.passphrase.as_bytes(), borg::KeyType::Authenticated).is_err());
    // And under the name of its own job it gets nowhere: the token names the job.
    thief.key = borg::Key::generate(borg::KeyType::Authenticated, &mut |bytes| bytes.fill(7));
    let (id, envelope) = (thief.key.id_hash(b"x"), thief.seal(b"x"));
    assert_eq!(thief.put(&id, &envelope).broke(), "chunk-id");
    drop(thief);
    theirs.end(2).expect_rule("chunk-id");
    // The thief's own job is what it was.
    let mut client = mine.open();
    client.backup_of(b"an honest backup by the thief, of its own things, long enough to be a chunk of its own");
    drop(client);
    assert_eq!(mine.end(0).state, "done");
}

#[test]
fn a04_a_job_whose_key_comes_with_another_token_fails_by_that_rule() {
    let world = World::new();
    let (mine, theirs) = (world.job("hostile"), world.job("victim"));
    // As the forced command of the job's key says it.
    let token = model::token::Token::from_hex(&mine.ticket.path.as_bytes()[3..]).unwrap();
    let hash = <sha2::Sha256 as sha2::Digest>::digest(token.bytes()).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let thief = || Hostile::connect_with(&world.session_socket(), format!("!\n{hash}\n").as_bytes());
    assert_eq!(knock(&mut thief(), &theirs.ticket.path).broke(), "token-not-own");
    // Its own token is worth nothing any more.
    knock(&mut thief(), &mine.ticket.path).refused("SessionUnknown");
    mine.end(2).expect_rule("token-not-own");
    // The victim has lost nothing by it.
    let mut victim = theirs.open();
    victim.backup_of(b"an honest backup beside a thief, of its own things, long enough to be a chunk of its own");
    drop(victim);
    assert_eq!(theirs.end(0).state, "done");
}

#[test]
fn a05_a_token_expires_and_dies_with_its_worker() {
    let world = World::with(&[("BORGCUBE_TOKEN_SECONDS", "2")]);
    let before = world.fingerprint();
    let job = world.job("hostile");
    std::thread::sleep(Duration::from_millis(2300));
    let said = knock(&mut world.stranger(), &job.ticket.path);
    let Said::Exception(exception) = &said else { panic!("{said:?}") };
    assert!(["PolicyViolation", "SessionUnknown"].contains(&exception.class.as_str()), "{exception:?}");
    job.end(2);
    // The worker dies before its client has come.
    let job = world.job("hostile");
    let [worker] = world.system.pids("borgcube-worker")[..] else { panic!("one worker") };
    process::signal(worker, nix::sys::signal::Signal::SIGKILL);
    let ended = tests::wait_for_end(&world.system, job.number);
    assert_eq!(tests::text(&ended, "state"), "failed", "{ended}");
    knock(&mut world.stranger(), &job.ticket.path).refused("SessionUnknown");
    world.assert_unchanged(&before);
}

#[test]
fn a06_no_secret_where_others_look() {
    let world = World::new();
    let job = world.job("hostile");
    let client = job.open();
    let (token, passphrase) = (job.ticket.path[3..].to_owned(), job.ticket.passphrase.clone());
    let secrets = [token.as_str(), passphrase.as_str(), crate::world::PASSPHRASE];
    let relay = world.relay_directory("hostile");
    let [worker] = world.system.pids("borgcube-worker")[..] else { panic!("one worker") };
    let clients = process::descendants(worker);
    let mut looked = 0;
    for pid in process::all() {
        looked += 1;
        let ours = process::has_environment(pid, "BORGCUBE_STATE", world.system.state().as_os_str());
        let arguments = process::arguments(pid).join(" ");
        let environment = String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/environ")).unwrap_or_default()).into_owned();
        // The repository's passphrase is the same in other tests, whose borgs have it.
        for secret in &secrets[..if ours { 3 } else { 2 }] {
            assert!(!arguments.contains(secret), "a secret is among the arguments of {pid}");
            // Borg itself gets them so; nobody but its user and root can read that.
            let own = clients.contains(&pid) || arguments.contains(relay.to_str().unwrap());
            assert!(own || !environment.contains(secret), "a secret is in the environment of {pid}: {arguments}");
        }
    }
    assert!(looked > 5);
    drop(client);
    let cache = job.ticket.cache.clone();
    job.end(2);
    // Nor afterwards in any file: not of the server (which keeps the passphrase in one place), not of the client.
    assert!(cache.starts_with(world.system.home()));
    for file in files(&world.system.home()).into_iter().chain(files(&world.system.state())) {
        let Ok(bytes) = fs::read(&file) else { continue };
        let has = |secret: &str| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!has(secrets[0]) && !has(secrets[1]), "{} has a secret of an ended job", file.display());
        assert!(!has(secrets[2]) || file.starts_with(world.system.state().join("credentials")), "{}", file.display());
    }
}

fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let (mut found, mut stack) = (vec![], vec![directory.to_owned()]);
    while let Some(directory) = stack.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => stack.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found
}

/// A real sshd with the forced command that a server has for its clients, and a key for it.
fn server(world: &World) -> (Sshd, std::path::PathBuf) {
    let mut sshd = Sshd::start();
    let proxy = programs().join("borgcube-proxy");
    let forced = format!("command=\"env BORGCUBE_STATE={} {}\",restrict", world.system.state().display(), proxy.display());
    let key = sshd.authorize(&forced);
    (sshd, key)
}

/// Through ssh, with these words behind the destination.
fn over_ssh(sshd: &Sshd, key: &Path, options: &[&str], job: &Job<'_>, words: &[&str]) -> Hostile {
    let mut command = Command::new("ssh");
    command.args(sshd.ssh_options(key)).args(options).arg(sshd.destination()).args(words).stderr(Stdio::null());
    let mut client = Hostile::through(&mut command);
    client.archive_name = job.archive_name();
    client
}

#[test]
fn a07_whatever_command_a_client_asks_for() {
    let world = World::new();
    let (sshd, key) = server(&world);
    let proof = world.system.join("proof");
    let evil = format!("touch {}", proof.display());
    // One job for all: each of these gets to a session and nothing else.
    for words in [
        &[evil.as_str()][..],
        &["borg", "serve", "--restrict-to-path", "/", "--append-only"],
        &["/bin/sh", "-i"],
        &["--", "--socket", "/tmp/elsewhere"],
        &["$(reboot)", ";", &evil],
    ] {
        let job = world.job("hostile");
        let mut client = over_ssh(&sshd, &key, &[], &job, words);
        client.open(&job.ticket);
        drop(client);
        job.end(2).expect_cause("client-borg-failed", "");
    }
    // A subsystem is a command as well, if sshd has it at all.
    let job = world.job("hostile");
    let mut client = over_ssh(&sshd, &key, &["-s"], &job, &["sftp"]);
    assert!(matches!(client.call(|msgid| call::negotiate(msgid, &[1, 4, 5, -1])), Said::Value(_) | Said::HungUp));
    drop(client);
    job.end(2);
    assert!(!proof.exists());
    // And a whole backup comes in that way.
    let job = world.job("hostile");
    let mut client = over_ssh(&sshd, &key, &[], &job, &["borg", "serve"]);
    client.open(&job.ticket);
    client.backup_of(b"through a real ssh and the forced command, a whole backup of one file of some length");
    drop(client);
    assert_eq!(job.end(0).state, "done");
}

#[test]
fn a08_no_terminal_no_forwarding_no_environment() {
    let world = World::new();
    let (sshd, key) = server(&world);
    let job = world.job("hostile");
    // The client's environment goes nowhere: these would lead elsewhere, or run something.
    let elsewhere = ["-o", "SetEnv=BORGCUBE_STATE=/nowhere LD_PRELOAD=/nowhere.so BORGCUBE_LOG=trace SSH_CONNECTION=forged", "-A"];
    let mut client = over_ssh(&sshd, &key, &elsewhere, &job, &["x"]);
    client.open(&job.ticket);
    let session = world.session();
    let environment = fs::read(format!("/proc/{session}/environ")).unwrap();
    let names: Vec<String> =
        environment.split(|b| *b == 0).map(|v| String::from_utf8_lossy(v).split('=').next().unwrap_or("").to_owned()).collect();
    for name in &names {
        assert!(!name.starts_with("SSH_CONNECTION") && !name.starts_with("LD_") && name != "TERM", "{names:?}");
    }
    drop(client);
    job.end(2);
    // What a client might use the server for beside.
    let run = |options: &[&str]| {
        let output = Command::new("ssh").args(sshd.ssh_options(&key)).args(options).stdin(Stdio::null()).output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let destination = sshd.destination();
    let target = format!("127.0.0.1:{}", sshd.port());
    let said = run(&["-W", &target, &destination]);
    assert!(said.contains("prohibited") || said.contains("forwarding failed"), "{said}");
    let said = run(&["-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1", &destination, "x"]);
    assert!(said.contains("forwarding failed"), "{said}");
    let said = run(&["-o", "LogLevel=INFO", "-tt", &destination, "x"]);
    assert!(said.contains("PTY allocation request failed"), "{said}");
}

#[test]
fn a10_a_flood_of_connections_shuts_nobody_out() {
    let world = World::new();
    let socket = world.session_socket();
    let silent = || unix::socket::connect(&socket).unwrap();
    let flood: Vec<UnixStream> = (0..200).map(|_| silent()).collect();
    let half_open: Vec<Hostile> = (0..100).map(|_| world.stranger()).collect();
    let begin = Instant::now();
    let job = world.job("hostile");
    let mut client = job.open();
    client.backup_of(b"an honest client among three hundred that say nothing, with some bytes of its own to keep");
    drop(client);
    assert_eq!(job.end(0).state, "done");
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}, and the deadline of the silent ones is ten seconds");
    // There are never more than so many that have shown nothing, and soon none.
    assert!(world.system.pids("borgcube-session").len() <= 66);
    let gone = retry_until(Duration::from_secs(15), || world.system.pids("borgcube-session").is_empty().then_some(()));
    assert!(gone.is_some(), "strangers stay");
    drop((flood, half_open));
}

#[test]
fn a10_one_key_has_a_few_connections_at_a_time() {
    const MOST: usize = 16;
    let world = World::new();
    // As sshd starts it for a client's permanent key.
    let shim = |client: &str| {
        let mut shim = Command::new(programs().join("borgcube-proxy"));
        shim.arg("--socket").arg(world.session_socket()).args(["--client", client]);
        shim.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        shim
    };
    let begin = Instant::now();
    let mut flood: Vec<_> = (0..3 * MOST).map(|_| shim("hostile").spawn().unwrap()).collect();
    // One of those that are refused waits for a while, because it has told the log.
    let refused = 2 * MOST - 1;
    let mut ended = || flood.iter_mut().filter_map(|shim| shim.try_wait().unwrap()).collect::<Vec<_>>();
    let codes = retry_until(Duration::from_secs(8), || Some(ended()).filter(|ended| ended.len() >= refused));
    let codes = codes.unwrap_or_else(|| panic!("more than {MOST} are let in"));
    assert!(codes.len() == refused && codes.iter().all(|code| code.code() == Some(1)), "{codes:?}");
    assert!(world.system.pids("borgcube-session").len() <= MOST);
    // Others have places all the same.
    let job = world.job("victim");
    let mut victim = Hostile::through(&mut shim("victim"));
    assert!(matches!(knock(&mut victim, &job.ticket.path), Said::Value(_)));
    assert!(begin.elapsed() < Duration::from_secs(10), "the silent ones are gone by now, and nothing is proved");
    // Whoever is refused is told why.
    let refused = shim("hostile").output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("the key of client hostile has 16 connections"), "{refused:?}");
    // And with the flood everything about it is over.
    for shim in &mut flood {
        shim.kill().unwrap();
        shim.wait().unwrap();
    }
    knock(&mut Hostile::through(&mut shim("hostile")), &guess(1)).refused("SessionUnknown");
    drop(victim);
    job.end(2);
}

#[test]
fn a11_other_users_of_the_server_do_not_get_in() {
    let world = World::new();
    let socket = world.session_socket();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&socket), 0o600);
    let layout = unix::paths::Layout::new(&world.system.state());
    for path in [layout.control_socket(), layout.repository_socket("main")] {
        assert_eq!(mode(&path) & 0o007, 0, "{}", path.display());
    }
    assert_eq!(mode(layout.run()), 0o700);
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not run: only root can be somebody else");
        return;
    }
    // Somebody else's process, with a program that it may run.
    let directory = tempfile::tempdir().unwrap();
    let shim = directory.path().join("borgcube-proxy");
    fs::copy(programs().join("borgcube-proxy"), &shim).unwrap();
    for path in [directory.path(), &shim] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let other = || {
        let mut command = Command::new(&shim);
        command.arg("--socket").arg(&socket).uid(65534).gid(65534).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.current_dir("/").output().unwrap()
    };
    let output = other();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("cannot be reached"), "{output:?}");
    // Even if the modes were all wrong, the session looks who it is.
    for path in [socket.as_path(), layout.run(), layout.state(), layout.state().parent().unwrap()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let output = other();
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    let log = retry_until(Duration::from_secs(30), || Some(world.system.log()).filter(|log| log.contains("the user 65534 connected")));
    assert!(log.is_some(), "{}", world.system.log());
}

#[test]
fn a12_there_is_no_challenge_to_reflect() {
    let world = World::new();
    // The server says nothing before it is asked: no challenge, no greeting.
    let mut silent = world.stranger();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    assert_eq!(ours.read(&mut [0]).unwrap(), 0);
    assert!(silent.is_silent(Duration::from_millis(300)));
    // And knows no call by which one could prove oneself; a token is all there is, and it is worth one session.
    for method in ["auth", "login", "challenge", "authenticate"] {
        assert_eq!(world.stranger().named(method, &[]).broke(), "method");
    }
}
