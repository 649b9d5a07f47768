//! Hard links. Borg stores the content with the first of the names, the master, and has the others point at it; of a part of an archive the
//! master may be missing.

use crate::kind::{Kind, hard_link};
use borg::item::{ChunkRef, Item};
use std::collections::HashMap;
use std::sync::Arc;

/// Bytes for masters that were not selected.
pub const MEMORY: usize = 256 << 20;

/// What an item consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Nothing besides itself.
    Itself,
    /// These chunks.
    Chunks(Arc<Vec<ChunkRef>>),
    /// It is another name of what is at this path of the selection.
    LinkTo(Vec<u8>),
}

/// Masters that were not selected, until one of their links is.
#[derive(Debug)]
pub struct Links {
    masters: HashMap<Vec<u8>, Master>,
    memory: usize,
    /// Masters for which there was no memory.
    pub forgotten: u64,
}

#[derive(Debug)]
enum Master {
    /// Not selected.
    Absent(Option<Arc<Vec<ChunkRef>>>),
    /// Its first selected link has taken its place, at this path.
    Replaced(Vec<u8>),
}

impl Default for Links {
    fn default() -> Links {
        Links::within(MEMORY)
    }
}

impl Links {
    /// With so many bytes for masters that were not selected.
    pub fn within(memory: usize) -> Links {
        Links { masters: HashMap::new(), memory, forgotten: 0 }
    }

    /// An item that was not selected.
    pub fn pass_by(&mut self, item: Item) {
        // Old archives do not say which items are masters.
        if !Kind::of(&item).has_hard_links() || item.source.is_some() || !item.hardlink_master.unwrap_or(true) {
            return;
        }
        let chunks = item.chunks.map(Arc::new);
        let size = item.path.len() + chunks.as_ref().map_or(0, |chunks| chunks.len() * size_of::<ChunkRef>()) + 100;
        match self.memory.checked_sub(size) {
            Some(left) => {
                self.memory = left;
                self.masters.insert(item.path, Master::Absent(chunks));
            }
            None => self.forgotten += 1,
        }
    }

    /// What a selected item consists of, that gets the path `name`; `stripped` gives the path that its master would have.
    pub fn body(&mut self, item: &mut Item, name: &[u8], stripped: impl FnOnce(&[u8]) -> Vec<u8>) -> Body {
        let Some(source) = hard_link(item) else {
            return item.chunks.take().map_or(Body::Itself, |chunks| Body::Chunks(Arc::new(chunks)));
        };
        match self.masters.get_mut(source) {
            None => Body::LinkTo(stripped(source)),
            Some(Master::Replaced(first)) => Body::LinkTo(first.clone()),
            Some(master) => match std::mem::replace(master, Master::Replaced(name.to_vec())) {
                Master::Absent(Some(chunks)) => Body::Chunks(chunks),
                _ => Body::Itself,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use borg::Id;

    fn item(path: &str, source: Option<&str>) -> Item {
        let chunk = ChunkRef { id: Id([1; 32]), size: 5, csize: 5 };
        Item {
            path: path.into(),
            mode: Some(0o100_644),
            source: source.map(Into::into),
            chunks: source.is_none().then(|| vec![chunk]),
            ..Item::default()
        }
    }

    #[test]
    fn the_first_selected_link_takes_the_masters_place() {
        let mut links = Links::default();
        links.pass_by(item("not/selected", None));
        let mut body = |path: &str, source| links.body(&mut item(path, source), path.as_bytes(), <[u8]>::to_vec);
        assert!(matches!(body("a", Some("not/selected")), Body::Chunks(chunks) if chunks.len() == 1));
        assert_eq!(body("b", Some("not/selected")), Body::LinkTo(b"a".to_vec()));
        assert_eq!(body("c", Some("selected")), Body::LinkTo(b"selected".to_vec()));
        assert!(matches!(body("d", None), Body::Chunks(_)));
    }

    #[test]
    fn memory_for_masters_ends() {
        let mut links = Links { memory: 1000, ..Links::default() };
        for n in 0..100 {
            links.pass_by(item(&format!("file {n}"), None));
        }
        assert!(links.masters.len() < 10 && links.forgotten > 90);
    }
}
