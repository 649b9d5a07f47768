//! One item.

use crate::intake::paths::{Kind, MAX_PATH, Paths, check_path};
use crate::rules::Rule;
use crate::stop::{Stop, quoted};
use borg::item::Item;

/// Nanoseconds that a file's time may lie from 1970: what 64 bits hold.
const TIMES: std::ops::RangeInclusive<i128> = i64::MIN as i128..=i64::MAX as i128;

/// The longest name of a user or group, and the longest ACL.
const MAX_NAME: usize = 1024;
const MAX_ACL: usize = 1 << 20;

/// Linux: names of extended attributes.
const MAX_XATTR_NAME: usize = 255;

/// Judges an item and enters it into the tree.
pub fn check(item: &Item, paths: &mut Paths) -> Result<(), Stop> {
    check_path(&item.path)?;
    let kind = kind(item)?;
    check_owner(item)?;
    check_limits(item)?;
    if item.chunks_healthy.is_some() {
        Rule::ItemHealthy.breach(quoted(&item.path))?;
    }
    match kind {
        Kind::File => check_file(item)?,
        Kind::Link => check_link(item)?,
        _ => check_other(item)?,
    }
    if let Some(part) = item.part {
        check_part(item, kind, part)?;
    }
    if kind != Kind::Link
        && let Some(source) = &item.source
        && !paths.is_master(source, kind)
    {
        let detail = format!("{:?} is a hard link of {:?}, which can't be one", quoted(&item.path), quoted(source));
        Rule::ItemHardLink.breach(detail)?;
    }
    paths.add(&item.path, kind, item.hardlink_master == Some(true))
}

/// Whether Borg counts the item as a file: the first of hard links only, and no parts.
pub fn is_counted(item: &Item) -> bool {
    item.mode.is_some_and(|mode| mode & FORMAT == REGULAR) && item.source.is_none() && item.part.is_none()
}

const FORMAT: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;

fn kind(item: &Item) -> Result<Kind, Stop> {
    let mode = item.mode.unwrap_or_default();
    let kind = match mode & FORMAT {
        0o040_000 => Kind::Directory,
        REGULAR => Kind::File,
        0o120_000 => Kind::Link,
        0o010_000 => Kind::Fifo,
        0o020_000 => Kind::Character,
        0o060_000 => Kind::Block,
        _ => return Err(Rule::ItemType.broken(format!("{:?} has the mode {mode:#o}", quoted(&item.path)))),
    };
    if mode > 0o177_777 || (item.path == b"." && kind != Kind::Directory) {
        return Err(Rule::ItemType.broken(format!("{:?} has the mode {mode:#o}", quoted(&item.path))));
    }
    Ok(kind)
}

fn has_no_business(item: &Item, field: &str) -> Result<(), Stop> {
    Rule::ItemType.breach(format!("{:?} has the field {field}, which its type does not have", quoted(&item.path)))
}

/// Borg 1.x: `create` always says whose an item is, if only by numbers and without names. Without that its `list`, `extract` and `mount`
/// end in the middle of the archive.
fn check_owner(item: &Item) -> Result<(), Stop> {
    if item.uid.is_none() || item.gid.is_none() || item.user.is_none() || item.group.is_none() {
        Rule::ItemType.breach(format!("{:?} does not say whose it is", quoted(&item.path)))?;
    }
    Ok(())
}

/// Content, or a hard link to it, never both.
fn check_file(item: &Item) -> Result<(), Stop> {
    let Some(chunks) = &item.chunks else {
        return match &item.source {
            Some(_) if item.hardlink_master.is_some() => has_no_business(item, "hardlink_master"),
            Some(_) if item.size.is_some_and(|size| size != 0) => {
                Rule::ItemSize.breach(format!("{:?} has a size but no content", quoted(&item.path)))
            }
            Some(_) => Ok(()),
            None => Rule::ItemType.breach(format!("{:?} is a file without content", quoted(&item.path))),
        };
    };
    if item.source.is_some() {
        has_no_business(item, "source")?;
    }
    if item.rdev.is_some() {
        has_no_business(item, "rdev")?;
    }
    if let Some(chunk) = chunks.iter().find(|chunk| chunk.size as usize > borg::MAX_PLAINTEXT) {
        Rule::ItemSize.breach(format!("{:?} has a chunk of {} bytes", quoted(&item.path), chunk.size))?;
    }
    let sum = item.content_size();
    match item.size {
        Some(size) if size != sum => Rule::ItemSize.breach(format!("{:?} has {sum} bytes and says {size}", quoted(&item.path))),
        _ => Ok(()),
    }
}

fn check_link(item: &Item) -> Result<(), Stop> {
    match &item.source {
        None => Rule::ItemType.breach(format!("{:?} is a link to nothing", quoted(&item.path)))?,
        Some(target) if target.is_empty() || target.contains(&0) || target.len() > MAX_PATH => {
            Rule::ItemLimits.breach(format!("{:?} is a link to {:?}", quoted(&item.path), quoted(target)))?;
        }
        Some(_) => {}
    }
    // A target may lead anywhere: it is only text here. Whoever extracts must not follow it.
    no_content(item)?;
    if item.hardlink_master == Some(true) {
        has_no_business(item, "hardlink_master")?;
    }
    Ok(())
}

/// Directories, pipes, devices.
fn check_other(item: &Item) -> Result<(), Stop> {
    no_content(item)?;
    let kind = kind(item)?;
    if kind == Kind::Directory && (item.source.is_some() || item.hardlink_master == Some(true)) {
        has_no_business(item, "source or hardlink_master")?;
    }
    let device = matches!(kind, Kind::Character | Kind::Block);
    if item.rdev.is_some() && !device {
        has_no_business(item, "rdev")?;
    }
    if device && item.rdev.is_none() && item.source.is_none() {
        Rule::ItemType.breach(format!("{:?} is a device without a number", quoted(&item.path)))?;
    }
    Ok(())
}

fn no_content(item: &Item) -> Result<(), Stop> {
    if item.chunks.is_some() || item.part.is_some() {
        has_no_business(item, "chunks or part")?;
    }
    if item.size.is_some_and(|size| size != 0) {
        Rule::ItemSize.breach(format!("{:?} has a size but no content", quoted(&item.path)))?;
    }
    Ok(())
}

/// Borg 1.x: `PATH.borg_part_N`, made while a checkpoint is taken inside a file.
fn check_part(item: &Item, kind: Kind, part: u64) -> Result<(), Stop> {
    let suffix = format!(".borg_part_{part}");
    let named = item.path.strip_suffix(suffix.as_bytes()).is_some_and(|base| !base.is_empty() && !base.ends_with(b"/"));
    if kind == Kind::File && part > 0 && named && item.chunks.is_some() {
        return Ok(());
    }
    Rule::ItemPart.breach(format!("{:?} says it is part {part}", quoted(&item.path)))
}

fn check_limits(item: &Item) -> Result<(), Stop> {
    let beyond = |what: &str| Rule::ItemLimits.breach(format!("{:?}: {what}", quoted(&item.path)));
    for (what, id) in [("uid", item.uid), ("gid", item.gid)] {
        // -1 is what "nobody in particular" looks like where ids are signed.
        if id.is_some_and(|id| !(-1..=i64::from(u32::MAX)).contains(&id)) {
            return beyond(what);
        }
    }
    for (what, name) in [("user", &item.user), ("group", &item.group)] {
        if name.iter().flatten().any(|name| name.len() > MAX_NAME || name.contains(&0)) {
            return beyond(what);
        }
    }
    let times = [Some(item.mtime), item.atime, item.ctime, item.birthtime];
    if times.iter().flatten().any(|time| !TIMES.contains(time)) {
        return beyond("a time");
    }
    let acls = [&item.acl_access, &item.acl_default, &item.acl_extended, &item.acl_nfs4];
    if acls.iter().any(|acl| acl.as_ref().is_some_and(|acl| acl.len() > MAX_ACL)) {
        return beyond("an ACL");
    }
    if item.xattrs.iter().flatten().any(|(name, _)| name.is_empty() || name.len() > MAX_XATTR_NAME || name.contains(&0)) {
        return beyond("the name of an extended attribute");
    }
    Ok(())
}
