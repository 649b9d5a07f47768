//! The journal's native protocol: one datagram an entry, fields with their values' lengths, so that no value can begin another field.

use crate::{Error, Result, fdpass};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// Where systemd-journald listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// A connection to the journal.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
}

/// One entry in the making.
#[derive(Debug, Default)]
pub struct Entry {
    bytes: Vec<u8>,
}

impl Entry {
    /// Adds a field. `name` is ours: capital letters, digits and `_`, and no `_` at its beginning (those are the journal's own); a field with
    /// another name is left out by the journal. `value` may hold anything.
    pub fn field(&mut self, name: &str, value: &str) {
        debug_assert!(name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_') && !name.starts_with('_'));
        self.bytes.extend(name.bytes());
        self.bytes.push(b'\n');
        self.bytes.extend((value.len() as u64).to_le_bytes());
        self.bytes.extend(value.bytes());
        self.bytes.push(b'\n');
    }
}

impl Journal {
    /// Connects. An error means that there is no journal (in a container, for instance).
    pub fn connect(socket: &Path) -> io::Result<Journal> {
        let own = UnixDatagram::unbound()?;
        own.connect(socket)?;
        Ok(Journal { socket: own })
    }

    /// Hands an entry over.
    pub fn send(&self, entry: &Entry) -> Result<()> {
        match self.socket.send(&entry.bytes) {
            Ok(_) => Ok(()),
            // Larger than a datagram may be: a sealed file in memory in its place.
            Err(e) if matches!(e.raw_os_error(), Some(nix::libc::EMSGSIZE | nix::libc::ENOBUFS)) => self.send_file(entry),
            Err(e) => Err(Error::io("the journal does not take an entry", e)),
        }
    }

    fn send_file(&self, entry: &Entry) -> Result<()> {
        let mut file: File = fdpass::memfd("journal-entry")?;
        file.write_all(&entry.bytes).map_err(|e| Error::io("the journal does not take an entry", e))?;
        fdpass::seal(&file)?;
        fdpass::send_fd_alone(&self.socket, file.as_fd())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// An entry as journald takes it apart.
    pub fn parse(mut bytes: &[u8]) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let end = bytes.iter().position(|b| *b == b'\n').unwrap();
            let line = std::str::from_utf8(&bytes[..end]).unwrap();
            if let Some((name, value)) = line.split_once('=') {
                fields.push((name.to_owned(), value.to_owned()));
                bytes = &bytes[end + 1..];
                continue;
            }
            let size = u64::from_le_bytes(bytes[end + 1..end + 9].try_into().unwrap()) as usize;
            let value = &bytes[end + 9..end + 9 + size];
            fields.push((line.to_owned(), std::str::from_utf8(value).unwrap().to_owned()));
            assert_eq!(bytes[end + 9 + size], b'\n');
            bytes = &bytes[end + 10 + size..];
        }
        fields
    }

    #[test]
    fn a74_no_value_forges_a_field() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::connect(&path).unwrap();
        let hostile = [
            "x\nPRIORITY=0\nMESSAGE_ID=0123456789abcdef0123456789abcdef",
            "x\nBORGCUBE_JOB=1\n",
            "\n\0\0\0\0\0\0\0\0\nBORGCUBE_CLIENT=victim",
            "BORGCUBE_CLIENT=victim",
            "",
            "=",
            "\n",
        ];
        for value in hostile {
            let mut entry = Entry::default();
            entry.field("MESSAGE", value);
            entry.field("BORGCUBE_CLIENT", "hostile");
            journal.send(&entry).unwrap();
            let mut buffer = vec![0; 1 << 16];
            let size = journald.recv(&mut buffer).unwrap();
            let fields = parse(&buffer[..size]);
            assert_eq!(fields.len(), 2, "{value:?}");
            let fields: BTreeMap<_, _> = fields.into_iter().collect();
            assert_eq!((fields["MESSAGE"].as_str(), fields["BORGCUBE_CLIENT"].as_str()), (value, "hostile"));
        }
    }

    #[test]
    fn what_is_too_large_goes_by_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let mut entry = Entry::default();
        entry.field("MESSAGE", &"x".repeat(1 << 20));
        Journal::connect(&path).unwrap().send(&entry).unwrap();
        let file = fdpass::recv_fd_alone(&journald).unwrap();
        assert!(fdpass::is_sealed(&file));
        use std::os::unix::fs::FileExt;
        let mut bytes = vec![0; entry.bytes.len()];
        File::from(file).read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, entry.bytes);
        assert!(Journal::connect(&directory.path().join("nobody")).is_err());
    }
}
