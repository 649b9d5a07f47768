//! What these tests share.

use borg::Id;
use repository::{OpenOptions, Repository, Reserve};
use std::path::{Path, PathBuf};
use testkit::{Borg, BorgWorld};

/// Alone, with a host of its own, whatever space there is.
pub fn options(path: &Path) -> OpenOptions {
    OpenOptions {
        lock_wait: 1,
        exclusive: true,
        host_id: Some("test@1".into()),
        reserve: Reserve::NONE,
        ..OpenOptions::at(path.to_str().unwrap())
    }
}

/// With an index that is kept.
pub fn kept(path: &Path, index: &Path) -> OpenOptions {
    OpenOptions { index: Some(index.to_owned()), ..options(path) }
}

pub fn open(path: &Path) -> Repository {
    Repository::open(&options(path)).unwrap()
}

pub fn create(path: &Path) -> Repository {
    Repository::open(&OpenOptions { create: true, ..options(path) }).unwrap()
}

pub fn id(n: u32) -> Id {
    let mut id = [1; 32];
    id[..4].copy_from_slice(&n.to_le_bytes());
    Id(id)
}

/// Every borg there is, the oldest, too.
pub fn borgs() -> Vec<Borg> {
    let mut all = Borg::judges();
    all.extend(Borg::v1_1_18());
    all
}

/// A tree with some files, a little different for every number.
pub fn source(world: &BorgWorld, number: u32) -> PathBuf {
    let tree = world.join(format!("source-{number}"));
    std::fs::create_dir_all(&tree).unwrap();
    for n in 0..20u32 {
        let seed = if n < 15 { n } else { n + 1000 * number };
        let mut state = u64::from(seed) + 1;
        let bytes: Vec<u8> = (0..3000 * (n as usize + 1))
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as u8
            })
            .collect();
        std::fs::write(tree.join(n.to_string()), bytes).unwrap();
    }
    tree
}

/// All objects, sorted.
pub fn objects(repository: &mut Repository) -> Vec<(Id, Vec<u8>)> {
    let mut ids = repository.list_ids().unwrap();
    ids.sort();
    ids.into_iter().map(|id| (id, repository.get(&id).unwrap())).collect()
}

/// The numbers of all segment files.
pub fn segments(path: &Path) -> Vec<u32> {
    let mut found: Vec<u32> = std::fs::read_dir(path.join("data"))
        .unwrap()
        .flat_map(|dir| std::fs::read_dir(dir.unwrap().path()).unwrap())
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    found.sort_unstable();
    found
}

pub fn segment(path: &Path, number: u32) -> PathBuf {
    path.join("data").join((number / 1000).to_string()).join(number.to_string())
}

/// The names beside the segments that begin so.
pub fn beside(path: &Path, prefix: &str) -> Vec<String> {
    let names = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.starts_with(prefix)).collect();
    names.sort();
    names
}
