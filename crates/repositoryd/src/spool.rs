//! A list of ids that only grows until it is taken: the end of it in memory, the rest in a file without a name.

use crate::failures::of_state;
use borg::Id;
use model::Failure;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Ids in memory: 1 MiB.
const IN_MEMORY: usize = 1 << 15;

/// The list.
#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    memory: Vec<Id>,
    file: Option<File>,
    /// Ids in the file.
    filed: u64,
}

impl Spool {
    /// An empty one, whose file will be in that directory.
    pub fn new(directory: &Path) -> Spool {
        Spool { directory: directory.to_owned(), memory: vec![], file: None, filed: 0 }
    }

    /// Another one in the same directory takes its place.
    pub fn take(&mut self) -> Spool {
        let empty = Spool::new(&self.directory);
        std::mem::replace(self, empty)
    }

    /// Adds one.
    pub fn push(&mut self, id: Id) -> Result<(), Failure> {
        if self.memory.len() >= IN_MEMORY {
            self.write_out().map_err(|e| self.failure(e))?;
        }
        self.memory.push(id);
        Ok(())
    }

    fn write_out(&mut self) -> std::io::Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => tempfile::tempfile_in(&self.directory)?,
        };
        let bytes: Vec<u8> = self.memory.iter().flat_map(|id| id.0).collect();
        let written = file.write_all_at(&bytes, self.filed * 32);
        self.file = Some(file);
        written?;
        self.filed += self.memory.len() as u64;
        self.memory.clear();
        Ok(())
    }

    /// Calls `each` with all ids, in the order in which they came, in parts; ends with its first error.
    pub fn each(&self, mut each: impl FnMut(&[Id]) -> Result<(), Failure>) -> Result<(), Failure> {
        let mut at = 0;
        let mut bytes = vec![];
        while let Some(file) = self.file.as_ref().filter(|_| at < self.filed) {
            let count = (self.filed - at).min(IN_MEMORY as u64);
            bytes.resize(count as usize * 32, 0);
            file.read_exact_at(&mut bytes, at * 32).map_err(|e| self.failure(e))?;
            let ids: Vec<Id> = bytes.as_chunks::<32>().0.iter().map(|id| Id(*id)).collect();
            each(&ids)?;
            at += count;
        }
        each(&self.memory)
    }

    fn failure(&self, cause: std::io::Error) -> Failure {
        let doing = format!("the list in {} of what is not committed yet fails", self.directory.display());
        of_state(&unix::Error::Io { doing, cause })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_come_back_in_order_and_few_are_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(dir.path());
        let id = |n: usize| Id(std::array::from_fn(|at| n.to_le_bytes()[at % 8]));
        let count = 3 * IN_MEMORY + 5;
        for n in 0..count {
            spool.push(id(n)).unwrap();
            assert!(spool.memory.len() <= IN_MEMORY);
        }
        let taken = spool.take();
        let mut next = 0;
        let each = taken.each(|part| {
            part.iter().for_each(|found| {
                assert_eq!(*found, id(next));
                next += 1;
            });
            Ok(())
        });
        each.unwrap();
        assert_eq!(next, count);
        spool.each(|part| if part.is_empty() { Ok(()) } else { Err(crate::failures::ending()) }).unwrap();
        assert!(taken.each(|_| Err(crate::failures::ending())).is_err());
        let mut nowhere = Spool::new(Path::new("/nonexistent"));
        for n in 0..IN_MEMORY {
            nowhere.push(id(n)).unwrap();
        }
        assert!(nowhere.push(id(0)).unwrap_err().message.contains("/nonexistent"));
    }
}
