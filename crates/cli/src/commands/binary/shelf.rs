//! The directory of binaries and its index. The index says what counts, and is replaced as a whole.

use crate::error::{Error, Kind, Result};
use model::binary::{Binary, Index};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use unix::paths::Layout;

/// More than an index of a hundred binaries has.
const LARGEST_INDEX: u64 = 1024 * 1024;

/// The directory.
pub struct Shelf {
    directory: PathBuf,
    index: PathBuf,
    installed: bool,
}

/// A file in the directory that is not in the index yet; removed when it is dropped.
pub struct Draft {
    path: PathBuf,
    pub size: u64,
    pub sha256: String,
}

impl Draft {
    /// It can be run.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // It has another name by now, or nobody wants it.
        let _ = fs::remove_file(&self.path);
    }
}

impl Shelf {
    /// That of this server.
    pub fn of(layout: &Layout) -> Shelf {
        Shelf { directory: layout.binaries(), index: layout.binaries_index(), installed: layout.is_installed() }
    }

    /// What is in the index.
    pub fn index(&self) -> Result<Index> {
        match unix::files::read_small(&self.index, LARGEST_INDEX)? {
            Some(bytes) => Index::parse(&bytes).map_err(|why| {
                Error::failed(format!("the index {} cannot be used: {why}", self.index.display()))
                    .hint("Move it away, and add the binaries again.")
            }),
            None => Ok(Index::default()),
        }
    }

    /// The file of a binary.
    pub fn file(&self, binary: &Binary) -> PathBuf {
        self.directory.join(&binary.name)
    }

    fn failed(&self, doing: &str) -> impl Fn(io::Error) -> Error {
        let (what, installed) = (format!("cannot {doing} in {}", self.directory.display()), self.installed);
        move |e| match e.kind() {
            io::ErrorKind::PermissionDenied if installed => Error::new(Kind::Permission, format!("{what}: {e}"))
                .hint("What is in there runs on clients: on an installed server only root changes it."),
            io::ErrorKind::PermissionDenied => Error::new(Kind::Permission, format!("{what}: {e}")),
            io::ErrorKind::NotFound if installed => {
                Error::failed(format!("{what}: {e}")).hint("systemd-tmpfiles --create borgcube.conf makes the directory.")
            }
            _ => Error::failed(format!("{what}: {e}")),
        }
    }

    /// Copies a file of this size into the directory, under a name that nobody knows.
    pub fn draft(&self, mut from: File, size: u64) -> Result<Draft> {
        if !self.installed {
            fs::create_dir_all(&self.directory).map_err(self.failed("make files"))?;
        }
        let path = self.directory.join(format!(".draft-{}", unix::random::hex(8)?));
        let open = OpenOptions::new().write(true).create_new(true).mode(0o700).open(&path);
        let mut draft = Draft { path, size, sha256: String::new() };
        let mut to = open.map_err(self.failed("write"))?;
        let mut hash = Sha256::new();
        let mut copied = 0;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = from.read(&mut buffer).map_err(|e| Error::failed(format!("cannot read the file: {e}")))?;
            if read == 0 {
                break;
            }
            copied += read as u64;
            hash.update(&buffer[..read]);
            to.write_all(&buffer[..read]).map_err(self.failed("write"))?;
        }
        if copied != size {
            return Err(Error::failed("the file changed while it was read"));
        }
        to.sync_all().map_err(self.failed("write"))?;
        draft.sha256 = hex(hash);
        Ok(draft)
    }

    /// Gives a draft its name, and only then the index its line.
    pub fn put(&self, draft: Draft, binary: &Binary) -> Result<()> {
        let (_turn, mut index) = self.turn()?;
        if let Some(same) = index.binaries.iter().find(|known| known.name == binary.name) {
            let what = if same.sha256 == binary.sha256 { "there is this very binary" } else { "there is another binary" };
            return Err(Error::conflict(format!("{what} already: {}", same.name)).hint(format!("borgcube binary remove {}", same.name)));
        }
        // Who may read the directory may read it; nobody runs it here.
        fs::set_permissions(&draft.path, Permissions::from_mode(0o644))
            .and_then(|()| fs::rename(&draft.path, self.file(binary)))
            .map_err(self.failed("write"))?;
        index.binaries.push(binary.clone());
        index.binaries.sort_by(|a, b| a.name.cmp(&b.name));
        self.save(&index)
    }

    /// Takes a binary out of the index, and then its file away.
    pub fn remove(&self, name: &str) -> Result<Binary> {
        let (_turn, mut index) = self.turn()?;
        let Some(at) = index.binaries.iter().position(|known| known.name == name) else {
            return Err(Error::not_found(format!("there is no binary {name}")).hint("borgcube binary list shows what there is."));
        };
        let binary = index.binaries.remove(at);
        self.save(&index)?;
        match fs::remove_file(self.file(&binary)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.failed("remove files")(e)),
            _ => Ok(binary),
        }
    }

    /// The index for a change, as long as the file is open.
    fn turn(&self) -> Result<(File, Index)> {
        let directory = File::open(&self.directory).map_err(self.failed("change the index"))?;
        directory.lock().map_err(self.failed("change the index"))?;
        Ok((directory, self.index()?))
    }

    fn save(&self, index: &Index) -> Result<()> {
        let bytes = index.to_json().map_err(Error::failed)?;
        unix::files::write_with_mode(&self.index, &bytes, 0o644).map_err(|e| match e.io_kind() {
            Some(kind) => self.failed("change the index")(kind.into()),
            None => e.into(),
        })
    }

    /// What is wrong with the file of a binary; None: it is what was added.
    pub fn trouble(&self, binary: &Binary) -> Option<String> {
        let path = self.file(binary);
        match sum(&path) {
            Err(e) => Some(format!("cannot be read: {e}")),
            Ok((size, _)) if size != binary.size => Some(format!("has {size} bytes instead of {}", binary.size)),
            Ok((_, sha256)) if sha256 != binary.sha256 => Some("has another checksum".to_owned()),
            Ok(_) => None,
        }
    }
}

fn sum(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut size = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((size, hex(hash))),
            read => {
                size += read as u64;
                hash.update(&buffer[..read]);
            }
        }
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
