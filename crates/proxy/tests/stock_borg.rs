//! Real borgs through the real shim and the real session; only the owner is one in memory.

mod common;

use anyhow::{Context, Result, ensure};
use borg::KeyType;
use borg::cache::{CacheConfig, REFCOUNT_STICKY, cache_config, write_chunks_index};
use borg::manifest::manifest_id;
use common::owner::{ARCHIVE, Owner, PASSPHRASE, REPOSITORY, TIMESTAMP};
use common::server::{Server, TOKEN, accept};
use model::token::Token;
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;
use testkit::{Borg, BorgWorld, tree};
use unix::paths::{ENV_STATE, Layout};

/// The client's side: cache in place, environment, command.
struct Client {
    borg: Borg,
    world: BorgWorld,
}

impl Client {
    fn new(borg: Borg) -> Client {
        let world = BorgWorld::with_passphrase(PASSPHRASE);
        Client { borg, world }
    }

    fn cache(&self) -> PathBuf {
        self.world.join(format!("cache/{REPOSITORY}"))
    }

    /// What the worker's script does before each job.
    fn prepare(&self, owner: &Owner) -> Result<()> {
        let cache = self.cache();
        fs::create_dir_all(&cache)?;
        let config = CacheConfig {
            repository: REPOSITORY,
            manifest: manifest_id(&owner.opened.manifest, &owner.key),
            timestamp: Some(TIMESTAMP),
            key_type: Some(owner.key.key_type()),
            previous_location: None,
        };
        fs::write(cache.join("config"), cache_config(&config))?;
        fs::write(cache.join("README"), "This is a Borg Backup cache")?;
        fs::write(cache.join("chunks.archive.d"), "")?;
        let mut chunks = fs::File::create(cache.join("chunks"))?;
        write_chunks_index(owner.view.iter().map(|(id, (size, csize, _))| (borg::Id(*id), REFCOUNT_STICKY, *size, *csize)), &mut chunks)?;
        if !cache.join("files").exists() {
            fs::write(cache.join("files"), "")?;
        }
        let security = self.world.join("security");
        if security.exists() {
            fs::remove_dir_all(security)?;
        }
        Ok(())
    }

    fn command(&self, server: &Server) -> Command {
        let mut command = self.borg.command(&self.world);
        let token = Token::from_random(TOKEN).to_hex();
        command
            .env("BORG_REPO", format!("ssh://borgcube-ssh@server/./{token}"))
            .env("BORG_RSH", env!("CARGO_BIN_EXE_borgcube-proxy"))
            .env("BORG_CACHE_DIR", self.world.join("cache"))
            .env("BORG_SECURITY_DIR", self.world.join("security"))
            .env(ENV_STATE, server.state.path());
        command
    }

    fn create(&self, server: &Server, options: &[&str], source: &Path) -> Result<Output> {
        let mut command = self.command(server);
        command.arg("create").args(options).arg(format!("::{ARCHIVE}")).arg(source);
        command.output().context("borg did not start")
    }
}

fn said(output: &Output) -> String {
    format!("{}\n{}{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn source() -> Result<tempfile::TempDir> {
    let directory = tempfile::tempdir()?;
    let path = directory.path();
    for n in 0..50 {
        fs::create_dir_all(path.join(format!("d{}", n % 5)))?;
        fs::write(path.join(format!("d{}/f{n}", n % 5)), format!("file {n}\n").repeat(n * 100))?;
    }
    let mut big = fs::File::create(path.join("big"))?;
    let mut x = 1u64;
    for _ in 0..1 << 20 {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        big.write_all(&x.to_le_bytes())?;
    }
    fs::write(path.join("empty"), "")?;
    fs::hard_link(path.join("d1/f1"), path.join("d1/hard"))?;
    std::os::unix::fs::symlink("d1/f1", path.join("soft"))?;
    Ok(directory)
}

/// The totals we compute are those that the client's borg writes into its archive (1.1 writes none).
fn as_borg_counts(borg: &Borg, owner: &Owner) -> Result<()> {
    let (proposal, ..) = owner.proposals.last().context("no proposal")?;
    let statistics = proposal.statistics;
    let expected = [("size", statistics.original_size), ("csize", statistics.compressed_size), ("nfiles", statistics.nfiles)];
    for (what, number) in expected {
        let stated = proposal.claims.iter().find_map(|claim| claim.strip_prefix(what)?.strip_prefix('='));
        ensure!(stated.is_some() == borg.at_least([1, 2, 0]), "{:?}", proposal.claims);
        ensure!(stated.is_none_or(|stated| stated == number.to_string()), "{}: {what}: {stated:?}, not {number}", borg.version);
    }
    Ok(())
}

/// Two runs over the same tree: everything, then nothing but metadata.
fn two_backups(borg: Borg, kind: KeyType) -> Result<()> {
    let label = format!("borg {} with {kind}", borg.version);
    let source = source()?;
    let client = Client::new(borg);
    let owner = Arc::new(Mutex::new(Owner::new(common::key(kind, 1))));
    client.prepare(&owner.lock().expect("not poisoned"))?;
    let server = Server::start(owner)?;
    let output = client.create(&server, &["--json", "--compression=lz4"], source.path())?;
    ensure!(output.status.success(), "{label}: {}", said(&output));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let owner = server.finish()?;
    let puts = {
        let mut owner = owner.lock().expect("not poisoned");
        ensure!(owner.commits == 1 && owner.violation.is_none(), "{label}: {:?}", owner.violation);
        let end = owner.end.clone().context("no end")?;
        ensure!(end.failure.is_none(), "{label}: {end:?}");
        let (proposal, ..) = owner.proposals.last().context("no proposal")?;
        ensure!(!proposal.checkpoint);
        let stats = &said["archive"]["stats"];
        ensure!(stats["nfiles"] == proposal.statistics.nfiles, "{label}: {stats} {:?}", proposal.statistics);
        as_borg_counts(&client.borg, &owner)?;
        let counters = end.counters;
        ensure!(counters.item_stream_bytes > 0 && counters.item_stream_put_bytes == counters.item_stream_bytes);
        owner.next_job();
        counters.puts
    };
    // A second job of the same client: a new session, its own earlier archive as the view.
    client.prepare(&owner.lock().expect("not poisoned"))?;
    let server = Server::start(owner)?;
    let output = client.create(&server, &["--json", "--compression=lz4"], source.path())?;
    ensure!(output.status.success(), "{label}: {}", self::said(&output));
    let owner = server.finish()?;
    let owner = owner.lock().expect("not poisoned");
    as_borg_counts(&client.borg, &owner)?;
    let counters = owner.end.clone().context("no end")?.counters;
    ensure!(owner.commits == 1 && counters.puts < puts, "{label}: {counters:?}");
    // Borg 1.1 stores the time of last access, which its own reading has changed.
    let unchanged = client.borg.at_least([1, 2, 0]);
    ensure!(!unchanged || (counters.item_stream_put_bytes == 0 && counters.puts == 1), "{label}: {counters:?}");
    ensure!(counters.item_stream_bytes > 0, "{label}: {counters:?}");
    Ok(())
}

/// What was backed up, by a client of any version that writes to it, comes back to a client of any version.
fn restore(writer: &Borg, reader: &Borg, kind: KeyType) -> Result<()> {
    let label = format!("borg {} for borg {} with {kind}", writer.version, reader.version);
    let source = source()?;
    let client = Client::new(writer.clone());
    let owner = Arc::new(Mutex::new(Owner::new(common::key(kind, 1))));
    client.prepare(&owner.lock().expect("not poisoned"))?;
    let server = Server::start(owner)?;
    // Padding is for the one who watches the repository; Borg 1.1 cannot read it.
    let options: &[&str] = if writer.at_least([1, 2, 0]) { &["--compression=obfuscate,110,zstd"] } else { &["--compression=zlib"] };
    let output = client.create(&server, options, source.path())?;
    ensure!(output.status.success(), "{label}: {}", said(&output));
    let owner = server.finish()?;
    owner.lock().expect("not poisoned").restore();
    let server = Server::start(owner)?;
    let client = Client::new(reader.clone());
    let into = tempfile::tempdir()?;
    let mut command = client.command(&server);
    command.args(["extract", "--progress", "--log-json"]).arg(format!("::{ARCHIVE}")).current_dir(into.path());
    let output = command.output()?;
    ensure!(output.status.success(), "{label}: {}", said(&output));
    let owner = server.finish()?;
    let owner = owner.lock().expect("not poisoned");
    ensure!(owner.violation.is_none() && owner.put.is_empty(), "{label}: {:?}", owner.violation);
    ensure!(owner.end.as_ref().is_some_and(|end| end.failure.is_none()), "{label}: {:?}", owner.end);
    let differences = tree::differences(source.path(), &into.path().join(source.path().strip_prefix("/")?));
    ensure!(differences.is_empty(), "{label}: {}", tree::listed(&differences));
    Ok(())
}

#[test]
fn every_borg_restores_what_every_borg_has_made() -> Result<()> {
    let borgs = Borg::all_clients();
    for writer in &borgs {
        for reader in &borgs {
            restore(writer, reader, KeyType::AuthenticatedBlake2)?;
        }
    }
    for kind in [KeyType::Authenticated, KeyType::None] {
        let borg = borgs.last().context("no borg")?;
        restore(borg, borg, kind)?;
    }
    Ok(())
}

/// A borg that restores and tries to do more is told so in one line.
#[test]
fn a_restore_that_wants_more_is_refused_in_one_clean_line() -> Result<()> {
    for borg in Borg::all_clients() {
        let source = source()?;
        let client = Client::new(borg);
        let owner = Arc::new(Mutex::new(Owner::new(common::key(KeyType::Authenticated, 1))));
        client.prepare(&owner.lock().expect("not poisoned"))?;
        let server = Server::start(owner)?;
        let output = client.create(&server, &[], source.path())?;
        ensure!(output.status.success(), "{}", said(&output));
        let owner = server.finish()?;
        owner.lock().expect("not poisoned").restore();
        client.prepare(&owner.lock().expect("not poisoned"))?;
        let server = Server::start(owner)?;
        let output = client.command(&server).args(["delete", &format!("::{ARCHIVE}")]).output()?;
        ensure!(output.status.code() == Some(2), "{}", said(&output));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(text.contains("BorgCube refused this restore: ") && !text.contains("Traceback"), "{}: {text}", client.borg.version);
        let owner = server.finish()?;
        let owner = owner.lock().expect("not poisoned");
        let rule = owner.violation.as_ref().map(|violation| violation.rule.as_str()).unwrap_or_default();
        ensure!(["restore-write", "method"].contains(&rule), "{}: {rule}", client.borg.version);
    }
    Ok(())
}

#[test]
fn every_borg_with_every_kind_of_client_key() -> Result<()> {
    for borg in Borg::all_clients() {
        for kind in [KeyType::Authenticated, KeyType::AuthenticatedBlake2, KeyType::None] {
            two_backups(borg.clone(), kind)?;
        }
    }
    Ok(())
}

/// A big file that takes some seconds at the rate of [`slowly`].
fn big_source() -> Result<tempfile::TempDir> {
    let directory = tempfile::tempdir()?;
    let mut big = fs::File::create(directory.path().join("big"))?;
    let mut x = 1u64;
    for _ in 0..2 << 20 {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        big.write_all(&x.to_le_bytes())?;
    }
    Ok(directory)
}

/// About 5 MB/s, with a checkpoint each second.
fn slowly(borg: &Borg) -> Vec<&'static str> {
    let rate = if borg.at_least([1, 2, 0]) { "--upload-ratelimit=5000" } else { "--remote-ratelimit=5000" };
    vec![rate, "--checkpoint-interval=1", "--compression=none", "--chunker-params=16,19,17,4095"]
}

/// Runs rows that mostly wait next to each other.
fn at_once<T: Sync>(rows: &[T], run: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let running: Vec<_> = rows.iter().map(|row| scope.spawn(|| run(row))).collect();
        running.into_iter().try_for_each(|row| row.join().expect("no panic"))
    })
}

#[test]
fn checkpoints_of_a_real_borg() -> Result<()> {
    let borgs = Borg::all_clients();
    at_once(&borgs, |borg| {
        let source = big_source()?;
        let client = Client::new(borg.clone());
        let owner = Arc::new(Mutex::new(Owner::new(common::key(KeyType::Authenticated, 1))));
        client.prepare(&owner.lock().expect("not poisoned"))?;
        let server = Server::start(owner)?;
        let output = client.create(&server, &slowly(&client.borg), source.path())?;
        ensure!(output.status.success(), "{}", said(&output));
        let owner = server.finish()?;
        let owner = owner.lock().expect("not poisoned");
        let checkpoints: Vec<bool> = owner.proposals.iter().map(|(proposal, ..)| proposal.checkpoint).collect();
        let (complete, earlier) = checkpoints.split_last().context("no proposal")?;
        ensure!(!complete && earlier.len() >= 2 && earlier.iter().all(|checkpoint| *checkpoint), "{checkpoints:?}");
        // Borg's own total is some thousand bytes larger here, as if checkpoints were content; ours is the file's size.
        let statistics = owner.proposals.last().context("no proposal")?.0.statistics;
        ensure!(statistics.nfiles == 1 && statistics.original_size == 16 << 20, "{statistics:?}");
        Ok(())
    })
}

/// Interrupted by SIGINT (1.2 and later write a checkpoint then) and by SIGKILL: what was committed stays, the rest is over at once.
#[test]
fn an_interrupted_borg() -> Result<()> {
    let borgs = Borg::all_clients();
    let rows: Vec<_> = borgs.iter().flat_map(|borg| [(borg, "-INT"), (borg, "-KILL")]).collect();
    at_once(&rows, |(borg, signal)| {
        let source = big_source()?;
        let client = Client::new((*borg).clone());
        let owner = Arc::new(Mutex::new(Owner::new(common::key(KeyType::Authenticated, 1))));
        client.prepare(&owner.lock().expect("not poisoned"))?;
        let server = Server::start(owner.clone())?;
        let mut command = client.command(&server);
        command.arg("create").args(slowly(&client.borg)).arg(format!("::{ARCHIVE}")).arg(source.path());
        let mut running = command.stderr(std::process::Stdio::null()).spawn()?;
        let committed =
            testkit::retry_until(std::time::Duration::from_secs(20), || (owner.lock().expect("not poisoned").commits > 0).then_some(()));
        ensure!(committed.is_some(), "no checkpoint");
        let killed = Command::new("kill").args([*signal, &running.id().to_string()]).status()?;
        ensure!(killed.success());
        running.wait()?;
        let began = std::time::Instant::now();
        let owner = server.finish()?;
        ensure!(began.elapsed() < std::time::Duration::from_secs(30), "the session stayed");
        let owner = owner.lock().expect("not poisoned");
        let label = format!("borg {} {signal}", client.borg.version);
        ensure!(owner.violation.is_none(), "{label}: {:?}", owner.violation);
        ensure!(owner.end.as_ref().is_some_and(|end| end.failure.is_none()), "{label}: {:?}", owner.end);
        ensure!(owner.proposals.iter().all(|(proposal, ..)| proposal.checkpoint), "{label}");
        Ok(())
    })
}

#[test]
fn a_refusal_is_one_clean_line() -> Result<()> {
    for borg in Borg::all_clients() {
        let source = source()?;
        let client = Client::new(borg);
        let mut owner = Owner::new(common::key(KeyType::Authenticated, 1));
        // The server wants another archive than the client makes.
        owner.opened.archive_name = "another".into();
        let owner = Arc::new(Mutex::new(owner));
        client.prepare(&owner.lock().expect("not poisoned"))?;
        let server = Server::start(owner)?;
        let output = client.create(&server, &[], source.path())?;
        ensure!(output.status.code() == Some(2), "{}", said(&output));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = "BorgCube refused this backup: archive-name: The archive has the job's name or that of its checkpoint \
                    (this client: the archive is called \"job-1\")";
        ensure!(text.trim().lines().last() == Some(line) && !text.contains("Traceback"), "{}: {text}", client.borg.version);
        let owner = server.finish()?;
        let owner = owner.lock().expect("not poisoned");
        ensure!(owner.commits == 0 && owner.violation.as_ref().is_some_and(|v| v.rule == "archive-name"));
    }
    Ok(())
}

#[test]
fn an_unknown_token_is_one_clean_line() -> Result<()> {
    for borg in Borg::all_clients() {
        let owner = Arc::new(Mutex::new(Owner::new(common::key(KeyType::Authenticated, 1))));
        let client = Client::new(borg);
        let server = Server::start(owner)?;
        for path in ["/./TOKEN".to_owned(), format!("/./{}", "ab".repeat(32)), "/srv/repository".to_owned()] {
            let layout = Layout::new(server.state.path());
            let mut command = client.command(&server);
            command.env("BORG_REPO", format!("ssh://borgcube-ssh@server{path}")).args(["list"]);
            let listener = layout.run().join("one.sock");
            let sessions = unix::socket::listen(&listener, 0o600)?;
            let state = server.state.path().to_owned();
            let accepting = thread::spawn(move || accept(&sessions, &state));
            command.env("BORG_RSH", format!("{} --socket {}", env!("CARGO_BIN_EXE_borgcube-proxy"), listener.display()));
            let output = command.output()?;
            accepting.join().expect("no panic")?;
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.code() == Some(2), "{}", said(&output));
            ensure!(text.starts_with("BorgCube knows no such session") && text.lines().count() == 1, "{text}");
        }
        // Let the threads that wait for a session go.
        let layout = Layout::new(server.state.path());
        drop(UnixStream::connect(layout.session_socket())?);
        drop(UnixStream::connect(layout.repository_socket("r"))?);
        server.finish()?;
    }
    Ok(())
}

#[test]
fn without_a_server_the_shim_says_so() -> Result<()> {
    let state = tempfile::tempdir()?;
    let output = Command::new(env!("CARGO_BIN_EXE_borgcube-proxy"))
        .env(ENV_STATE, state.path())
        .args(["-p", "2222", "borgcube-ssh@server", "borg", "serve", "--umask=077"])
        .output()?;
    ensure!(output.status.code() == Some(1) && output.stdout.is_empty());
    let text = String::from_utf8(output.stderr)?;
    ensure!(text == "BorgCube cannot be reached on this server; is it running?\n", "{text}");
    Ok(())
}
