//! Where an object is.

/// Where an object's envelope is, and how large it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Number of the segment.
    pub segment: u32,
    /// Bytes from the segment's beginning to the entry's.
    pub offset: u32,
    /// Bytes of plaintext; 0 if nobody knows.
    pub size: u32,
    /// Bytes of the envelope.
    pub csize: u32,
}
