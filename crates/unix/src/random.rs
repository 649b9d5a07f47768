//! Randomness from the kernel.

use crate::{Error, Result};

/// Fills `buffer` with cryptographically secure random bytes; waits until the kernel has gathered enough.
pub fn fill(buffer: &mut [u8]) -> Result<()> {
    getrandom::fill(buffer).map_err(|e| Error::io("the kernel gives no random bytes", std::io::Error::from(e)))
}

/// `bytes` random bytes as lower-case hexadecimal, for names of temporary files.
pub fn hex(bytes: usize) -> Result<String> {
    let mut buffer = vec![0; bytes];
    fill(&mut buffer)?;
    Ok(buffer.iter().map(|byte| format!("{byte:02x}")).collect())
}
