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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_fills_differ_and_reach_every_byte() {
        let (mut first, mut second) = ([0; 64], [0; 64]);
        fill(&mut first).unwrap();
        fill(&mut second).unwrap();
        assert_ne!(first, second);
        // A byte that stayed 0 in 16 fills would be an accident of probability 2^-128.
        let mut seen = [0; 64];
        for _ in 0..16 {
            let mut more = [0; 64];
            fill(&mut more).unwrap();
            seen.iter_mut().zip(more).for_each(|(seen, byte)| *seen |= byte);
        }
        assert!(seen.iter().all(|byte| *byte != 0));
    }

    #[test]
    fn hexadecimal_has_two_digits_a_byte() {
        let text = hex(8).unwrap();
        assert_eq!(text.len(), 16);
        assert!(text.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()));
    }
}
