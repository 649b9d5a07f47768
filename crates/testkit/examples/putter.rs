//! Stands in for borg on a client and puts objects of 600 bytes as fast as it can; the benchmark's part `puts` starts it. How many, it
//! reads from the file `puts` in its cache directory; how many a second it were, it writes into `rate`. It makes no archive.
//!
//! A put is answered when the session has verified it. Then the owner may not have taken it yet, but no more than [`ON_THEIR_WAY`] are
//! between the two: these are not counted.

use anyhow::{Context, Result, anyhow, bail, ensure};
use borg::keyblob::LockedKey;
use borg::rpc::{MAX_MESSAGE, Reply, ReplyDecoder, call};
use borg::{Id, Key, KeyType};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

const SIZE: usize = 600;
/// The credit of a session is 16 MiB, and each of our puts is charged with a little more than its 600 bytes.
const ON_THEIR_WAY: usize = (16 << 20) / SIZE;

fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some("--version") {
        println!("borg 1.4.5");
        return Ok(());
    }
    let place = PathBuf::from(variable("BORG_BASE_DIR")?);
    let count: usize = std::fs::read_to_string(place.join("puts"))?.trim().parse()?;
    let rate = run(count)?;
    std::fs::write(place.join("rate"), format!("{rate:.0}"))?;
    Ok(())
}

fn variable(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| name.to_owned())
}

struct Server {
    calls: ChildStdin,
    replies: ChildStdout,
    decoder: ReplyDecoder,
    buffer: Vec<u8>,
    number: u64,
}

impl Server {
    /// The number of the next call.
    fn next(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    fn call(&mut self, call: &[u8]) -> Result<Vec<u8>> {
        self.calls.write_all(call)?;
        let mut answer = vec![];
        self.answers(1, |reply| {
            answer = reply.outcome.map_err(|e| anyhow!("{e}"))?.as_raw().map(<[u8]>::to_vec).unwrap_or_default();
            Ok(())
        })?;
        Ok(answer)
    }

    /// Reads so many answers.
    fn answers(&mut self, mut count: usize, mut take: impl FnMut(Reply<'_>) -> Result<()>) -> Result<()> {
        loop {
            while let Some(reply) = self.decoder.next_reply()? {
                take(reply)?;
                count -= 1;
            }
            if count == 0 {
                return Ok(());
            }
            let length = self.replies.read(&mut self.buffer)?;
            ensure!(length > 0, "the server closed the connection");
            self.decoder.push(&self.buffer[..length]);
        }
    }
}

/// Puts a second.
fn run(count: usize) -> Result<f64> {
    let repository = variable("BORG_REPO")?;
    let path = repository.find("/./").map(|at| repository[at..].to_owned()).context("no token in BORG_REPO")?;
    let rsh = variable("BORG_RSH")?;
    let mut words = rsh.split_whitespace().map(|word| word.trim_matches('\''));
    let mut child = Command::new(words.next().context("BORG_RSH is empty")?)
        .args(words)
        .args(["borgcube@localhost", "borg", "serve"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (Some(calls), Some(replies)) = (child.stdin.take(), child.stdout.take()) else { bail!("no pipes") };
    let mut server = Server { calls, replies, decoder: ReplyDecoder::new(MAX_MESSAGE), buffer: vec![0; 1 << 20], number: 0 };

    let number = server.next();
    server.call(&call::negotiate(number, &[1, 4, 5, -1]))?;
    let number = server.next();
    let open = call::Open {
        path: path.as_bytes(),
        create: false,
        lock_wait: Some(1),
        lock: true,
        exclusive: true,
        append_only: false,
        make_parent_dirs: false,
    };
    server.call(&call::open(number, &open))?;
    let number = server.next();
    let manifest = server.call(&call::get(number, &Id::MANIFEST))?;
    let number = server.next();
    let blob = server.call(&call::load_key(number))?;
    let kind = manifest.first().copied().and_then(KeyType::from_byte).context("the manifest's key type is unknown")?;
    let key = LockedKey::parse(std::str::from_utf8(&blob)?)?.unlock(variable("BORG_PASSPHRASE")?.as_bytes(), kind)?.key;

    // Made before the clock runs: the client's own work is not what is measured.
    let first = server.number + 1;
    let mut message = Vec::with_capacity(count * (SIZE + 100));
    for object in 0..count as u64 {
        put(first + object, object, &key, &mut message);
    }

    let begin = Instant::now();
    std::thread::scope(|scope| -> Result<()> {
        let Server { calls, replies, decoder, buffer, .. } = &mut server;
        let writing = scope.spawn(move || calls.write_all(&message));
        let mut left = count;
        while left > 0 {
            let length = replies.read(buffer)?;
            ensure!(length > 0, "the server closed the connection; {left} answers are missing");
            decoder.push(&buffer[..length]);
            while let Some(reply) = decoder.next_reply()? {
                reply.outcome.map_err(|e| anyhow!("{e}"))?;
                left -= 1;
            }
        }
        writing.join().map_err(|_| anyhow!("writing failed"))??;
        Ok(())
    })?;
    let rate = count.saturating_sub(ON_THEIR_WAY) as f64 / begin.elapsed().as_secs_f64();
    drop(server);
    child.wait()?;
    Ok(rate)
}

/// One call with an object that no other is like, and that is not compressible.
fn put(number: u64, object: u64, key: &Key, message: &mut Vec<u8>) {
    let content = content(object);
    let payload = borg::compress::compress(borg::compress::Compression::None, &content);
    message.extend_from_slice(&call::put(number, &key.id_hash(&content), &key.seal(&payload, 0)));
}

fn content(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(SIZE + 8);
    while bytes.len() < SIZE {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bytes.extend_from_slice(&(mixed ^ mixed >> 27).to_le_bytes());
    }
    bytes.truncate(SIZE);
    bytes
}
