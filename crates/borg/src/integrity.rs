//! Digests that Borg keeps of its index and cache files: XXH64, with the file's name mixed in.

use xxhash_rust::xxh64::Xxh64;

/// Computes the digests of one file while it is written or read.
///
/// Borg 1.x: a file has parts, each named; the digest of a part covers everything before it. Index files have the parts
/// `HashHeader` (18 bytes) and `final`, other files only `final`.
#[derive(Clone)]
pub struct Digests {
    hash: Xxh64,
    offset: u64,
    parts: Vec<(String, String)>,
}

impl Digests {
    /// `name` is the file's name without directories, as Borg calls it: `chunks`, `files`, `index.17`, ...
    #[must_use]
    pub fn new(name: &str) -> Digests {
        let mut digests = Digests { hash: Xxh64::new(0), offset: 0, parts: Vec::new() };
        digests.mix(name);
        digests
    }

    fn mix(&mut self, name: &str) {
        self.hash.update(format!("{:>10}", name.len()).as_bytes());
        self.hash.update(name.as_bytes());
    }

    /// The next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.offset += bytes.len() as u64;
    }

    /// The part that ends here; returns its digest in hex.
    pub fn end_part(&mut self, name: &str) -> String {
        self.mix(name);
        self.hash.update(self.offset.to_string().as_bytes());
        let digest = format!("{:016x}", self.hash.digest());
        self.parts.push((name.to_owned(), digest.clone()));
        digest
    }

    /// The JSON text that Borg stores, with the parts ended so far.
    #[must_use]
    pub fn to_json(&self) -> String {
        let parts: Vec<String> = self.parts.iter().map(|(name, digest)| format!("\"{name}\": \"{digest}\"")).collect();
        format!("{{\"algorithm\": \"XXH64\", \"digests\": {{{}}}}}", parts.join(", "))
    }
}

impl std::fmt::Debug for Digests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Digests").field("offset", &self.offset).field("parts", &self.parts).finish_non_exhaustive()
    }
}

/// The stored text for a whole file without parts.
#[must_use]
pub fn of_file(name: &str, content: &[u8]) -> String {
    let mut digests = Digests::new(name);
    digests.update(content);
    digests.end_part("final");
    digests.to_json()
}

/// The stored text for a whole index file (`chunks`, `index.N`).
#[must_use]
pub fn of_index(name: &str, content: &[u8]) -> String {
    let (header, rest) = content.split_at(content.len().min(18));
    let mut digests = Digests::new(name);
    digests.update(header);
    digests.end_part("HashHeader");
    digests.update(rest);
    digests.end_part("final");
    digests.to_json()
}
