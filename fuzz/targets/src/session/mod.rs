//! The session as a state machine: the bytes of an input become a sequence of calls of a hostile client (right ones, wrong ones, at
//! right and wrong times) and of events around it. An owner in memory answers; what the session does is held against a model of
//! its own, [`world::World`], that knows the rules a second time.

mod client;
mod world;

use crate::bytes::Bytes;
use borg::rpc::{Request, ServerDecoder};
use proxy::session::Event;
use std::time::Duration;
use world::World;

/// Plays an input.
pub fn run(data: &[u8]) {
    play(data);
}

/// Plays an input; how many archives and checkpoints were committed.
pub fn play(data: &[u8]) -> usize {
    let mut bytes = Bytes::new(data);
    let mut world = World::new(&mut bytes);
    // Each step costs a hash or two; more than this many find nothing that fewer do not.
    for _ in 0..200 {
        if bytes.is_empty() || world.quit.is_some() {
            break;
        }
        step(&mut world, &mut bytes);
    }
    if world.quit.is_none() {
        world.owner_is_slow = false;
        world.deliver(usize::MAX);
        world.event(Event::ClientClosed);
    }
    world.assert_end();
    world.commits
}

fn step(world: &mut World, bytes: &mut Bytes<'_>) {
    let choice = bytes.byte();
    if world.waits_for_owner() || choice >= 0xe0 {
        match choice % 8 {
            0 => world.owner_is_slow = true,
            1 => world.owner_is_slow = false,
            2 => {
                world.now += Duration::from_secs(u64::from(bytes.byte()) * 40);
                world.event(Event::Tick);
            }
            3 if bytes.rarely(8) => world.lose_owner(),
            4 if bytes.rarely(8) => world.event(Event::ClientClosed),
            5 if bytes.rarely(4) && !world.waits_for_owner() => world.nonsense(bytes.byte(), bytes.some()),
            _ => world.deliver(1 + bytes.below(4)),
        }
        if !world.owner_is_slow {
            world.deliver(usize::MAX);
        }
        return;
    }
    if choice >= 0xd0 {
        return raw(world, bytes.some());
    }
    let call = client::call(world, choice, bytes);
    world.call(call.method());
}

/// Bytes on the wire, through the decoder that the shell uses.
fn raw(world: &mut World, stream: &[u8]) {
    let mut decoder = ServerDecoder::new(4096);
    decoder.push(stream);
    while world.session.wants_client() && world.quit.is_none() {
        match decoder.next_request() {
            Ok(Some(Ok(Request { method, .. }))) => world.call(method),
            Ok(Some(Err(error))) => world.bad_request(error),
            Ok(None) => break,
            Err(error) => world.event(Event::BadStream(error.to_string())),
        }
    }
}
