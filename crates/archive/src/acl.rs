//! POSIX ACLs: Borg keeps them as text with names and numbers, Linux takes them as the value of an extended attribute.

/// Linux: the attribute that an access ACL is.
pub const ACCESS: &[u8] = b"system.posix_acl_access";

/// Linux: the same for the ACL that what is made in a directory begins with.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

/// Entries of one ACL. Linux file systems take some hundred at most.
const MOST: usize = 8192;

/// Linux: the version of the attribute's form.
const VERSION: u32 = 2;

/// Linux: the id of entries that are for nobody in particular.
const NOBODY: u32 = u32::MAX;

/// Whose entry it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// A user.
    User,
    /// A group.
    Group,
}

/// An ACL's text as the attribute's value. `number` gives the number of a user or group here, for the name and the number that are in the text.
/// None if the text makes no sense.
pub fn packed(text: &[u8], mut number: impl FnMut(Who, &str, Option<u32>) -> Option<u32>) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(text).ok()?;
    let mut entries: Vec<(u16, u32, u16)> = vec![];
    // The form that Linux' tools print: comments may follow.
    for line in text.split(['\n', ',']).map(|line| line.split('#').next().unwrap_or_default().trim()).filter(|line| !line.is_empty()) {
        let mut fields = line.split(':');
        let (tag, name, permissions, stored) = (fields.next()?, fields.next()?, fields.next()?, fields.next());
        let stored = stored.and_then(|stored| stored.trim().parse().ok());
        let mut who = |who| number(who, name, stored.or_else(|| name.parse().ok()));
        let (tag, id) = match (tag, name.is_empty()) {
            ("user" | "u", true) => (0x01, NOBODY),
            ("user" | "u", false) => (0x02, who(Who::User)?),
            ("group" | "g", true) => (0x04, NOBODY),
            ("group" | "g", false) => (0x08, who(Who::Group)?),
            ("mask" | "m", true) => (0x10, NOBODY),
            ("other" | "o", true) => (0x20, NOBODY),
            _ => return None,
        };
        entries.push((tag, id, bits(permissions)?));
        if entries.len() > MOST {
            return None;
        }
    }
    // The kernel wants them sorted.
    entries.sort_unstable();
    let mut value = VERSION.to_le_bytes().to_vec();
    for (tag, id, bits) in entries {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&bits.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    Some(value)
}

fn bits(permissions: &str) -> Option<u16> {
    permissions.trim().chars().try_fold(0, |bits, c| match c {
        'r' => Some(bits | 4),
        'w' => Some(bits | 2),
        'x' => Some(bits | 1),
        '-' => Some(bits),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_what_the_kernel_takes() {
        let text = b"user::rw-\nuser:nobody:r--:65534\nuser:1000:rwx:1000\ngroup::r--\nmask::rwx\nother::---\n";
        let value = packed(text, |_, name, stored| if name == "nobody" { Some(7) } else { stored }).unwrap();
        assert_eq!(&value[..4], [2, 0, 0, 0]);
        let entries: Vec<&[u8]> = value[4..].chunks(8).collect();
        assert_eq!(entries.len(), 6);
        assert_eq!(entries[0], [1, 0, 6, 0, 255, 255, 255, 255]);
        assert_eq!(entries[1], [2, 0, 4, 0, 7, 0, 0, 0]);
        assert_eq!(entries[2], [2, 0, 7, 0, 0xe8, 3, 0, 0]);
        assert_eq!(entries[5], [0x20, 0, 0, 0, 255, 255, 255, 255]);
    }

    #[test]
    fn nonsense_is_none() {
        let none = |_, _: &str, stored| stored;
        for text in ["user:unknown:rwx", "user::rwq", "user", "nobody::rwx", "mask:x:rwx"] {
            assert_eq!(packed(text.as_bytes(), none), None, "{text}");
        }
        assert_eq!(packed(b"\xff", none), None);
        assert_eq!(packed(b"", none), Some(vec![2, 0, 0, 0]));
        assert_eq!(packed("user::rwx\n".repeat(10_000).as_bytes(), none), None);
    }
}
