//! What the proxy's tests share: an owner that keeps everything in memory, and a client that says what a test wants.
#![allow(dead_code, reason = "each test program uses a part")]
#![allow(clippy::unwrap_used, reason = "these are tests")]

pub mod owner;
pub mod puppet;
pub mod server;

use borg::{Key, KeyType};

/// A key made of predictable bytes.
pub fn key(kind: KeyType, seed: u8) -> Key {
    let mut n = seed;
    Key::generate(kind, &mut |bytes| {
        for byte in bytes {
            n = n.wrapping_mul(31).wrapping_add(7);
            *byte = n;
        }
    })
}
