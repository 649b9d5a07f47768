//! Whether the time of an answer tells what others have stored.

use crate::hostile::{Said, directory, file};
use crate::world::{SECRET, World};
use borg::Id;
use borg::compress::{Compression, compress};
use borg::msgpack::OwnedValue;
use borg::rpc::call;
use std::time::{Duration, Instant};
use testkit::tree::Random;

/// Of each kind. A sixteenth of what it takes to see one percent, and enough to see a fifth.
const CHUNKS: usize = 2000;

/// Bytes of each.
const SIZE: usize = 4096;

/// The probability that a chunk of one kind took longer than one of the other: 0.5 tells nothing.
fn area_under_curve(one: &[Duration], other: &[Duration]) -> f64 {
    let mut all: Vec<(Duration, bool)> = one.iter().map(|t| (*t, true)).chain(other.iter().map(|t| (*t, false))).collect();
    all.sort_unstable();
    let (mut below, mut sum) = (0u64, 0u64);
    for (_, is_one) in all {
        if is_one { sum += below } else { below += 1 }
    }
    sum as f64 / (one.len() * other.len()) as f64
}

#[test]
fn r28_time_tells_nothing() {
    let world = World::new();
    let mut random = Random::new(28);
    let mut chunks = |count| (0..count).map(|_| random.bytes(SIZE)).collect::<Vec<_>>();
    let (present, absent) = (chunks(CHUNKS), chunks(CHUNKS));
    let job = world.job("victim");
    let mut victim = job.open();
    let stored: Vec<_> = present.iter().map(|chunk| victim.chunk(chunk)).collect();
    let name = victim.archive_name.clone();
    for said in [victim.propose(&name, &[directory("d"), file("d/f", &stored)]), victim.commit()] {
        assert!(matches!(said, Said::Value(_)), "{said:?}");
    }
    drop(victim);
    assert_eq!(job.end(0).state, "done");

    let mut times = [Vec::with_capacity(CHUNKS), Vec::with_capacity(CHUNKS)];
    // What is asked next may have to wait for what was asked before: the answer for a chunk that says nothing by itself.
    let mut behind = [Vec::with_capacity(CHUNKS), Vec::with_capacity(CHUNKS)];
    let verdict = world.attack(|client| {
        let key = client.key.clone();
        let seal = |plaintext: &[u8]| key.seal(&compress(Compression::Lz4, plaintext), 0);
        let neutral = client.chunk(SECRET).id;
        // Both in turn, in an order that nobody can follow, so that a slow second of this machine meets both alike.
        let mut order = Random::new(5);
        let mut ask = |id: &Id, envelope: &[u8]| {
            let begin = Instant::now();
            assert_eq!(client.ok(|msgid| call::put(msgid, id, envelope)), OwnedValue::Nil);
            begin.elapsed()
        };
        let (mut left, mut next) = ([present.iter(), absent.iter()], 0);
        while left.iter().any(|kind| kind.len() > 0) {
            if order.bytes(1)[0] & 1 == 1 || left[next].len() == 0 {
                next = 1 - next;
            }
            let Some(chunk) = left[next].next() else { continue };
            times[next].push(ask(&key.id_hash(chunk), &seal(chunk)));
            behind[next].push(ask(&neutral, &seal(SECRET)));
        }
    });
    verdict.expect_cause("client-borg-failed", "");
    let area = |[present, absent]: &[Vec<Duration>; 2]| area_under_curve(present, absent);
    let (area, behind) = (area(&times), area(&behind));
    println!("R28: area under the curve over {CHUNKS} present and {CHUNKS} absent chunks: {area:.3}, behind them {behind:.3}");
    assert!((0.35..0.65).contains(&area), "{area}: the time of an answer tells what is stored");
    // The owner works on while the next is asked, on processors that all share: nothing is promised there, see the threat model.
}

#[test]
fn the_area_is_the_probability() {
    let millis = |n: std::ops::Range<u64>| n.map(Duration::from_millis).collect::<Vec<_>>();
    assert!((area_under_curve(&millis(0..100), &millis(100..200)) - 0.0).abs() < 0.01);
    assert!((area_under_curve(&millis(100..200), &millis(0..100)) - 1.0).abs() < 0.01);
    assert!((area_under_curve(&millis(0..200), &millis(50..150)) - 0.5).abs() < 0.02);
}
