//! What the vectors do not cover: round trips, limits, and input made by somebody who means harm.

mod compress;
mod index;
mod items;
mod keys;
mod metadata;
mod msgpack;
mod rpc;

/// Random bytes that are the same in every run; only for tests.
fn noise(seed: u64) -> impl FnMut(&mut [u8]) {
    let mut state = seed.wrapping_mul(2) | 1;
    move |bytes| {
        for byte in bytes {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = (state >> 32) as u8;
        }
    }
}
