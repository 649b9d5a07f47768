//! Shim and session as processes, with a client that speaks raw messages.

mod common;

use anyhow::{Context, Result, bail, ensure};
use borg::compress::{Compression, compress};
use borg::rpc::{MAX_MESSAGE, ReplyDecoder, call};
use borg::{Id, Key, KeyType};
use common::owner::Owner;
use common::server::{Server, TOKEN};
use model::Cause;
use model::token::Token;
use std::io::{ErrorKind, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use unix::paths::ENV_STATE;

/// A client with the shim in place of ssh.
struct Raw {
    shim: Child,
    calls: Option<ChildStdin>,
    replies: ChildStdout,
    decoder: ReplyDecoder,
    msgid: u64,
}

impl Raw {
    fn start(server: &Server) -> Result<Raw> {
        let mut shim = Command::new(env!("CARGO_BIN_EXE_borgcube-proxy"))
            .env(ENV_STATE, server.state.path())
            .env("SSH_ORIGINAL_COMMAND", "rm -rf /")
            .args(["borgcube-ssh@server", "borg", "serve"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (calls, replies) = (shim.stdin.take(), shim.stdout.take().context("a pipe")?);
        let mut raw = Raw { shim, calls, replies, decoder: ReplyDecoder::new(MAX_MESSAGE), msgid: 2 };
        raw.send(&call::negotiate(1, &[1, 4, 5, -1]))?;
        let path = format!("/./{}", Token::from_random(TOKEN).to_hex());
        let open = call::Open {
            path: path.as_bytes(),
            create: false,
            lock_wait: Some(1),
            lock: true,
            exclusive: true,
            append_only: false,
            make_parent_dirs: false,
        };
        raw.send(&call::open(2, &open))?;
        ensure!(raw.answer()? == Ok(1) && raw.answer()? == Ok(2));
        Ok(raw)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.calls.as_mut().context("closed")?.write_all(bytes)?)
    }

    fn put(&mut self, key: &Key, plaintext: &[u8]) -> Result<u64> {
        self.msgid += 1;
        let envelope = key.seal(&compress(Compression::None, plaintext), 0);
        self.send(&call::put(self.msgid, &key.id_hash(plaintext), &envelope))?;
        Ok(self.msgid)
    }

    /// The number of the next answer, or the exception's class.
    fn answer(&mut self) -> Result<Result<u64, String>> {
        loop {
            if let Some(reply) = self.decoder.next_reply()? {
                return Ok(reply.outcome.map(|_| reply.msgid).map_err(|e| e.class));
            }
            let mut buffer = [0; 4096];
            match self.replies.read(&mut buffer)? {
                0 => bail!("closed"),
                n => self.decoder.push(&buffer[..n]),
            }
        }
    }

    /// Closes; the shim's exit code and what stands on its standard error.
    fn close(mut self) -> Result<(i32, String)> {
        drop(self.calls.take());
        let mut rest = Vec::new();
        self.replies.read_to_end(&mut rest)?;
        let mut said = String::new();
        self.shim.stderr.take().context("a pipe")?.read_to_string(&mut said)?;
        Ok((self.shim.wait()?.code().context("a code")?, said))
    }
}

fn owner(change: impl FnOnce(&mut Owner)) -> (Arc<Mutex<Owner>>, Key) {
    let mut owner = Owner::new(common::key(KeyType::Authenticated, 1));
    change(&mut owner);
    let key = owner.key.clone();
    (Arc::new(Mutex::new(owner)), key)
}

#[test]
fn descriptors_pass_and_the_end_comes_at_once() -> Result<()> {
    let (owner, key) = owner(|_| {});
    let server = Server::start(owner)?;
    let mut client = Raw::start(&server)?;
    let msgid = client.put(&key, b"data")?;
    ensure!(client.answer()? == Ok(msgid));
    let began = Instant::now();
    let (code, said) = client.close()?;
    ensure!(code == 0 && said.is_empty(), "{code} {said}");
    let owner = server.finish()?;
    ensure!(began.elapsed() < Duration::from_secs(8));
    let owner = owner.lock().expect("not poisoned");
    ensure!(owner.put.len() == 1 && owner.end.as_ref().is_some_and(|end| end.failure.is_none() && end.counters.puts == 1));
    Ok(())
}

#[test]
fn a_shim_that_is_killed_takes_nothing_with_it() -> Result<()> {
    let (owner, key) = owner(|_| {});
    let server = Server::start(owner)?;
    let mut client = Raw::start(&server)?;
    client.shim.kill()?;
    client.shim.wait()?;
    // The session has the descriptors itself.
    let msgid = client.put(&key, b"data")?;
    ensure!(client.answer()? == Ok(msgid));
    drop(client);
    ensure!(server.finish()?.lock().expect("not poisoned").end.is_some());
    Ok(())
}

#[test]
fn a_violation_is_the_code_and_the_last_word() -> Result<()> {
    let (owner, _) = owner(|_| {});
    let server = Server::start(owner)?;
    let mut client = Raw::start(&server)?;
    client.send(&call::list(3, 100, None))?;
    ensure!(client.answer()? == Err("PolicyViolation".into()));
    client.send(&call::rollback(4))?;
    ensure!(client.answer()? == Ok(4));
    let (code, _) = client.close()?;
    ensure!(code == 1);
    let owner = server.finish()?;
    let violation = owner.lock().expect("not poisoned").violation.clone();
    ensure!(violation.is_some_and(|violation| violation.rule == "method"));
    Ok(())
}

#[test]
fn garbage_is_answered_with_a_line() -> Result<()> {
    let (owner, _) = owner(|_| {});
    let server = Server::start(owner)?;
    let mut client = Raw::start(&server)?;
    client.send(b"\xc1{garbage")?;
    let (code, said) = client.close()?;
    ensure!(code == 1 && said.starts_with("BorgCube refused this backup: message: ") && said.lines().count() == 1, "{said}");
    server.finish()?;
    Ok(())
}

/// Small objects, each confirmed by itself, nobody reading the answers for a while: nothing may stand still.
#[test]
fn a21_a_flood_of_tiny_objects() -> Result<()> {
    let (owner, key) = owner(|_| {});
    let server = Server::start(owner)?;
    let mut client = Raw::start(&server)?;
    let mut calls = client.calls.take().context("a pipe")?;
    let count = 50_000u64;
    let writing = thread::spawn(move || -> Result<()> {
        let mut buffer = Vec::new();
        for number in 0..count {
            let plaintext = number.to_le_bytes();
            let envelope = key.seal(&compress(Compression::None, &plaintext), 0);
            buffer.extend(call::put(3 + number, &key.id_hash(&plaintext), &envelope));
            if buffer.len() > 60_000 {
                calls.write_all(&buffer)?;
                buffer.clear();
            }
        }
        calls.write_all(&buffer)?;
        Ok(())
    });
    thread::sleep(Duration::from_millis(300));
    for number in 0..count {
        ensure!(client.answer()? == Ok(3 + number));
    }
    writing.join().expect("no panic")?;
    client.close()?;
    let owner = server.finish()?;
    ensure!(owner.lock().expect("not poisoned").put.len() as u64 == count);
    Ok(())
}

#[test]
fn large_objects_wait_for_credit() -> Result<()> {
    let (owner, key) = owner(|_| {});
    let server = Server::start(owner)?;
    let mut client = Raw::start(&server)?;
    let chunks: Vec<Vec<u8>> = (0..6u8).map(|n| vec![n; 15 << 20]).collect();
    for chunk in &chunks {
        let msgid = client.put(&key, chunk)?;
        ensure!(client.answer()? == Ok(msgid));
    }
    client.close()?;
    let owner = server.finish()?;
    let owner = owner.lock().expect("not poisoned");
    ensure!(owner.put.len() == 6 && owner.put.values().all(|(size, _)| *size == 15 << 20));
    Ok(())
}

#[test]
fn a29_a_client_that_says_nothing_is_left() -> Result<()> {
    let (owner, _) = owner(|owner| owner.opened.limits.idle_seconds = 1);
    let server = Server::start(owner)?;
    let client = Raw::start(&server)?;
    let began = Instant::now();
    // It learns why on its standard error, and gets a moment to close by itself.
    let mut client = client;
    let mut errors = client.shim.stderr.take().context("a pipe")?;
    let mut line = [0; 200];
    let n = errors.read(&mut line)?;
    let line = String::from_utf8_lossy(&line[..n]).into_owned();
    ensure!(line.starts_with("BorgCube: the session took too long") && began.elapsed() < Duration::from_secs(30), "{line}");
    drop(client);
    let owner = server.finish()?;
    let failure = owner.lock().expect("not poisoned").end.clone().context("no end")?.failure.context("no failure")?;
    ensure!(failure.cause == Cause::TooSlow);
    Ok(())
}

#[test]
fn a21_a_client_that_never_reads_is_left() -> Result<()> {
    let (owner, key) = owner(|owner| owner.opened.limits.total_seconds = 3);
    let server = Server::start(owner)?;
    let mut client = Raw::start(&server)?;
    let envelope = key.seal(&compress(Compression::None, b"x"), 0);
    let one = call::put(3, &key.id_hash(b"x"), &envelope);
    let many = one.repeat(1000);
    let began = Instant::now();
    let stopped = loop {
        if let Err(e) = client.calls.as_mut().context("a pipe")?.write_all(&many) {
            break e;
        }
        ensure!(began.elapsed() < Duration::from_secs(30), "it still takes in calls");
    };
    ensure!(stopped.kind() == ErrorKind::BrokenPipe, "{stopped}");
    ensure!(began.elapsed() < Duration::from_secs(30));
    drop(client);
    server.finish()?;
    Ok(())
}

#[test]
fn a11_others_than_the_shim_get_nothing() -> Result<()> {
    let (owner, _) = owner(|_| {});
    let server = Server::start(owner)?;
    let layout = unix::paths::Layout::new(server.state.path());
    // No descriptors, only bytes.
    let mut stranger = unix::socket::connect(&layout.session_socket())?;
    stranger.write_all(b"hello")?;
    let mut rest = Vec::new();
    match stranger.read_to_end(&mut rest) {
        Ok(_) => ensure!(rest.is_empty()),
        Err(e) => ensure!(e.kind() == ErrorKind::ConnectionReset, "{e}"),
    }
    drop(unix::socket::connect(&layout.repository_socket("r"))?);
    server.finish()?;
    Ok(())
}

#[test]
fn a29_a_connection_without_descriptors_is_left() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let layout = unix::paths::Layout::new(directory.path());
    layout.create_directories()?;
    let sessions = unix::socket::listen(&layout.session_socket(), 0o600)?;
    let silent = unix::socket::connect(&layout.session_socket())?;
    let began = Instant::now();
    common::server::accept(&sessions, directory.path())?;
    let after = began.elapsed();
    ensure!((Duration::from_secs(9)..Duration::from_secs(60)).contains(&after), "{after:?}");
    drop(silent);
    Ok(())
}

#[test]
fn an_owner_that_dies_is_told_in_one_line() -> Result<()> {
    let (owner, key) = owner(|_| {});
    let server = Server::start(owner.clone())?;
    let mut client = Raw::start(&server)?;
    client.put(&key, b"data")?;
    client.answer()?.map_err(anyhow::Error::msg)?;
    owner.lock().expect("not poisoned").crash = true;
    client.put(&key, b"more")?;
    let mut errors = client.shim.stderr.take().context("a pipe")?;
    let mut line = [0; 200];
    let n = errors.read(&mut line)?;
    ensure!(line[..n] == *b"BorgCube: the repository's owner process ended\n", "{}", String::from_utf8_lossy(&line[..n]));
    drop(client);
    server.finish()?;
    Ok(())
}

#[test]
fn an_owner_that_fails_while_chunks_wait_says_why() -> Result<()> {
    let (owner, key) =
        owner(|owner| owner.last_words = Some(model::Failure::new(model::Cause::RepositoryEnospc, "the repository is full")));
    let server = Server::start(owner.clone())?;
    let mut client = Raw::start(&server)?;
    owner.lock().expect("not poisoned").crash = true;
    for n in 0..3u8 {
        // It may have been told before it has sent them all.
        if client.put(&key, &vec![n; 15 << 20]).is_err() {
            break;
        }
    }
    let mut errors = client.shim.stderr.take().context("a pipe")?;
    let mut line = [0; 200];
    let n = errors.read(&mut line)?;
    ensure!(line[..n] == *b"BorgCube: the repository is full\n", "{}", String::from_utf8_lossy(&line[..n]));
    drop(client);
    server.finish()?;
    Ok(())
}

#[test]
fn every_id_is_recomputed() -> Result<()> {
    let (owner, key) = owner(|_| {});
    let server = Server::start(owner)?;
    let mut client = Raw::start(&server)?;
    let envelope = key.seal(&compress(Compression::None, b"x"), 0);
    client.send(&call::put(3, &Id([1; 32]), &envelope))?;
    ensure!(client.answer()? == Err("PolicyViolation".into()));
    drop(client);
    let owner = server.finish()?;
    let owner = owner.lock().expect("not poisoned");
    ensure!(owner.put.is_empty() && owner.violation.as_ref().is_some_and(|violation| violation.rule == "chunk-id"));
    Ok(())
}
