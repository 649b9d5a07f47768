//! What a file has besides its content: owner, permissions, ACLs, extended attributes, times, flags.

use crate::acl::{self, Who};
use crate::kind::Kind;
use borg::item::Item;
use std::collections::HashMap;
use unix::beneath::{Flags, Made};

/// Names of users and groups that are remembered.
const NAMES: usize = 10_000;

/// Linux: what a file may do with the rights of its owner or group.
const SET_ID: u32 = 0o6000;

/// Borg 1.x keeps BSD's numbers.
const NO_DUMP: u64 = 0x1;
const IMMUTABLE: u64 = 0x2;
const APPEND_ONLY: u64 = 0x4;
const COMPRESSED: u64 = 0x20;

/// How attributes are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Owners by number, whatever the names in the archive are here.
    pub numeric_ids: bool,
    /// Also what can do harm on this machine, with the rights that we have: set-uid and set-gid bits of files, capabilities and other attributes
    /// that only root may set, flags that only root may set, devices.
    pub privileged: bool,
}

/// What was left out, for everybody to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeftOut {
    /// Files whose set-uid or set-gid bit was left out.
    pub set_ids: u64,
    /// Attributes and flags that only root may set.
    pub attributes: u64,
    /// Devices that were not made.
    pub devices: u64,
    /// Owners that could not be set because we are not root.
    pub owners: u64,
}

enum Owner {
    Unknown,
    Nonsense,
    Known(u32, u32),
}

/// Sets attributes; remembers who is who.
#[derive(Debug)]
pub struct Attributes {
    options: Options,
    is_root: bool,
    users: HashMap<Vec<u8>, Option<u32>>,
    groups: HashMap<Vec<u8>, Option<u32>>,
    /// So far.
    pub left_out: LeftOut,
}

impl Attributes {
    /// With nobody known yet.
    #[must_use]
    pub fn new(options: Options) -> Attributes {
        let is_root = unix::socket::own_uid() == 0;
        Attributes { options, is_root, users: HashMap::new(), groups: HashMap::new(), left_out: LeftOut::default() }
    }

    /// Gives `made` everything that the item has; says what could not be done. In the order in which one does not undo the other.
    pub fn set(&mut self, item: &Item, made: &Made, complain: &mut dyn FnMut(&str)) {
        let mut tried = |done: unix::Result<()>| {
            if let Err(e) = done {
                complain(&e.to_string());
            }
        };
        let kind = Kind::of(item);
        match self.owner(item) {
            Owner::Unknown => {}
            Owner::Nonsense => complain_of(&mut tried, "its owner is no number that a user or group can have"),
            Owner::Known(uid, gid) => match made.set_owner(uid, gid) {
                // As anybody else one keeps what one makes.
                Err(_) if !self.is_root => self.left_out.owners += 1,
                done => tried(done),
            },
        }
        if let Some(mode) = item.mode {
            let is_left_out = kind != Kind::Directory && !self.options.privileged && mode & SET_ID != 0 && kind != Kind::Link;
            self.left_out.set_ids += u64::from(is_left_out);
            tried(made.set_mode(if is_left_out { mode & !SET_ID } else { mode }));
        }
        if kind != Kind::Link {
            for (text, name) in [(&item.acl_access, acl::ACCESS), (&item.acl_default, acl::DEFAULT)] {
                let Some(text) = text.as_ref().filter(|text| !text.is_empty()) else { continue };
                let numeric = self.options.numeric_ids;
                match acl::packed(text, |who, name, stored| self.number(who, name.as_bytes(), numeric).or(stored)) {
                    Some(value) => tried(made.set_attribute(name, &value)),
                    None => complain_of(&mut tried, "its ACL makes no sense"),
                }
            }
        }
        for (name, value) in item.xattrs.iter().flatten() {
            // ACLs are items' own; what else the system keeps there is its affair.
            if name.starts_with(b"system.") {
                continue;
            }
            if !name.starts_with(b"user.") && !self.options.privileged {
                self.left_out.attributes += 1;
                continue;
            }
            if name.is_empty() || name.contains(&0) {
                complain_of(&mut tried, "the name of one of its attributes makes no sense");
                continue;
            }
            tried(made.set_attribute(name, value.as_deref().unwrap_or_default()));
        }
        tried(made.set_times(item.atime.unwrap_or(item.mtime), item.mtime));
        let flags = self.flags(item.bsdflags.unwrap_or(0));
        if flags != Flags::default()
            && let Err(e) = made.set_flags(flags)
        {
            // As stock borg: most file systems know some of them only.
            log::debug!("{e}");
        }
    }

    fn flags(&mut self, bits: u64) -> Flags {
        let has = |bit: u64| bits & bit != 0;
        let mut flags =
            Flags { no_dump: has(NO_DUMP), compressed: has(COMPRESSED), immutable: has(IMMUTABLE), append_only: has(APPEND_ONLY) };
        if !self.options.privileged && (flags.immutable || flags.append_only) {
            self.left_out.attributes += 1;
            (flags.immutable, flags.append_only) = (false, false);
        }
        flags
    }

    /// As stock borg: by name if it is known here, else by number; negative numbers are root's.
    fn owner(&mut self, item: &Item) -> Owner {
        let numeric = self.options.numeric_ids;
        let user = item.user.as_ref().and_then(|name| name.as_deref());
        let group = item.group.as_ref().and_then(|name| name.as_deref());
        if user.is_none() && group.is_none() && item.uid.is_none() && item.gid.is_none() {
            return Owner::Unknown;
        }
        // Linux: the largest number means that nothing is to be changed.
        let plain = |id: Option<i64>| u32::try_from(id.unwrap_or(0).max(0)).ok().filter(|id| *id != u32::MAX);
        let uid = user.and_then(|name| self.number(Who::User, name, numeric)).or_else(|| plain(item.uid));
        let gid = group.and_then(|name| self.number(Who::Group, name, numeric)).or_else(|| plain(item.gid));
        match (uid, gid) {
            (Some(uid), Some(gid)) => Owner::Known(uid, gid),
            _ => Owner::Nonsense,
        }
    }

    /// User and group as they would be set; what makes no sense is nobody's (Linux: 65534).
    pub(crate) fn owner_numbers(&mut self, item: &Item) -> (u32, u32) {
        match self.owner(item) {
            Owner::Known(uid, gid) => (uid, gid),
            Owner::Unknown => (0, 0),
            Owner::Nonsense => (65534, 65534),
        }
    }

    fn number(&mut self, who: Who, name: &[u8], numeric: bool) -> Option<u32> {
        if numeric || name.is_empty() {
            return None;
        }
        let known = match who {
            Who::User => &mut self.users,
            Who::Group => &mut self.groups,
        };
        if let Some(number) = known.get(name) {
            return *number;
        }
        let number = std::str::from_utf8(name).ok().filter(|name| name.len() <= 256 && !name.contains('\0')).and_then(|name| {
            let found = match who {
                Who::User => unix::socket::user_id(name),
                Who::Group => unix::socket::group_id(name),
            };
            found.unwrap_or_else(|e| {
                log::debug!("{e}");
                None
            })
        });
        if known.len() >= NAMES {
            known.clear();
        }
        known.insert(name.to_vec(), number);
        number
    }
}

fn complain_of(tried: &mut impl FnMut(unix::Result<()>), what: &str) {
    tried(Err(unix::Error::Invalid(what.to_owned())));
}
