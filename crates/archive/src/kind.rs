//! What an item is.

use borg::item::Item;

/// The kind of an item, from its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A named pipe.
    Fifo,
    /// A character device.
    Character,
    /// A block device.
    Block,
    /// Something that Borg does not write: a socket, or nonsense.
    Unknown,
}

/// The bits of `st_mode` that say what it is.
const FORMAT: u32 = 0o170_000;

impl Kind {
    /// Of an item.
    #[must_use]
    pub fn of(item: &Item) -> Kind {
        Kind::of_mode(item.mode.unwrap_or(0))
    }

    /// Of what has this `st_mode`.
    #[must_use]
    pub fn of_mode(mode: u32) -> Kind {
        match mode & FORMAT {
            0o100_000 => Kind::File,
            0o040_000 => Kind::Directory,
            0o120_000 => Kind::Link,
            0o010_000 => Kind::Fifo,
            0o020_000 => Kind::Character,
            0o060_000 => Kind::Block,
            _ => Kind::Unknown,
        }
    }

    /// Whether Borg stores several names of one such thing as hard links; `source` of others is where a symbolic link leads.
    #[must_use]
    pub fn has_hard_links(self) -> bool {
        matches!(self, Kind::File | Kind::Fifo | Kind::Character | Kind::Block)
    }

    /// The letter that `ls` and Borg show.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Kind::File => '-',
            Kind::Directory => 'd',
            Kind::Link => 'l',
            Kind::Fifo => 'p',
            Kind::Character => 'c',
            Kind::Block => 'b',
            Kind::Unknown => '?',
        }
    }
}

/// Type and permissions as `ls` and Borg show them: `-rwsr-xr-t`.
#[must_use]
pub fn mode_text(mode: u32) -> String {
    let mut text = String::with_capacity(10);
    text.push(Kind::of_mode(mode).letter());
    for (shift, special, set, unset) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => unset,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// The master of a hard link, if the item is one.
#[must_use]
pub fn hard_link(item: &Item) -> Option<&[u8]> {
    item.source.as_deref().filter(|_| Kind::of(item).has_hard_links())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_as_people_know_them() {
        assert_eq!(mode_text(0o100_644), "-rw-r--r--");
        assert_eq!(mode_text(0o041_777), "drwxrwxrwt");
        assert_eq!(mode_text(0o104_755), "-rwsr-xr-x");
        assert_eq!(mode_text(0o102_644), "-rw-r-Sr--");
        assert_eq!(mode_text(0o120_777), "lrwxrwxrwx");
        assert_eq!(mode_text(0), "?---------");
    }
}
