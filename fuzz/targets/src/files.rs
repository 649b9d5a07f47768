//! Files that are read again: the client's chunks cache, and what a repository consists of.

use borg::cache::{ChunksIndex, REFCOUNT_STICKY, write_chunks_index};
use borg::segment::{self, HEADER, Header, PUT_HEADER, Tag};
use std::collections::BTreeMap;

/// A chunks index: any file is refused or read; what we write holds what was put in.
pub fn chunks_index(data: &[u8]) {
    if let Ok(index) = ChunksIndex::parse(data) {
        assert!(index.buckets() * 44 + 18 == data.len());
        for entry in index.iter() {
            let _ = index.get(&entry.id);
        }
        assert!(index.get(&borg::Id([0xab; 32])).is_none_or(|entry| entry.id.0 == [0xab; 32]));
    }
    // The same bytes as entries: their ids begin alike, so that they meet in the table.
    let mut entries = BTreeMap::new();
    for bytes in data.chunks_exact(6) {
        let mut id = [bytes[5]; 32];
        id[..4].copy_from_slice(&[bytes[0], bytes[1] & 3, 0, bytes[2] & 0x80]);
        entries.insert(borg::Id(id), (u32::from(bytes[3]).min(REFCOUNT_STICKY), u32::from(bytes[4]), u32::from(bytes[5])));
    }
    let mut file = Vec::new();
    write_chunks_index(entries.iter().map(|(id, (count, size, csize))| (*id, *count, *size, *csize)), &mut file)
        .expect("ids are different");
    let index = ChunksIndex::parse(&file).expect("our own index is read");
    assert_eq!(index.iter().count(), entries.len());
    for (id, (refcount, size, csize)) in entries {
        let found = index.get(&id).expect("what was put in is found");
        assert_eq!((found.refcount, found.size, found.csize), (refcount, size, csize));
    }
}

/// A segment after its magic: every entry is refused or has the size that its tag allows, damage is noticed, and what we write is
/// read as it was meant.
pub fn segment(data: &[u8]) {
    let mut rest = data;
    // As a reader walks: header, then what the header says.
    while let Ok(header) = Header::parse(rest) {
        let size = header.size as usize;
        assert!((HEADER..=segment::MAX_ENTRY).contains(&size), "an entry of {size} bytes");
        let Some(entry) = rest.get(..size) else { break };
        let (head, content) = entry.split_at(size.min(PUT_HEADER));
        if let Ok(verified) = segment::verify(head, content) {
            assert_eq!(verified, header);
            let mut damaged = head.to_vec();
            let at = data.len() % head.len();
            damaged[at] ^= 1 << (size % 8);
            assert!(segment::verify(&damaged, content).is_err(), "damage at {at} goes unnoticed");
            if let (Tag::Put, Ok(head)) = (header.tag, <&[u8; PUT_HEADER]>::try_from(head)) {
                let id = borg::Id::try_from(&head[HEADER..]).expect("an id");
                assert_eq!(segment::verify_put(head, content, &id), Ok(()));
                assert_eq!(segment::put_header(&id, content), *head);
            }
        }
        rest = &rest[size..];
    }
    let id = borg::Id([data.first().copied().unwrap_or(7); 32]);
    let (head, other) = (segment::put_header(&id, data), borg::Id([0x55; 32]));
    assert_eq!(segment::verify_put(&head, data, &id), Ok(()));
    assert!(id == other || segment::verify_put(&head, data, &other).is_err(), "an entry counts as another object's");
    assert_eq!(segment::verify(&segment::delete(&id), &[]).map(|header| header.tag), Ok(Tag::Delete));
    assert_eq!(segment::verify(&segment::COMMIT, &[]).map(|header| header.tag), Ok(Tag::Commit));
}

/// A lock's roster and the names of its holders: what is not understood is nobody, the rest is written as it was read.
pub fn roster(data: &[u8]) {
    use borg::roster::{Holder, Roster};
    let roster = Roster::parse(data);
    assert_eq!(Roster::parse(roster.text().as_bytes()), roster);
    for holder in roster.shared.iter().chain(&roster.exclusive) {
        assert_eq!(Holder::from_name(&holder.name()).as_ref(), Some(holder), "{:?}", holder.name());
    }
    if let Some(holder) = std::str::from_utf8(data).ok().and_then(Holder::from_name) {
        assert_eq!(Holder::from_name(&holder.name()), Some(holder));
    }
}

/// The config of a repository: read and written it stays what it is, and setting the key changes nothing else.
pub fn repository_config(data: &[u8]) {
    use borg::config::Config;
    let Ok(mut config) = Config::parse(&String::from_utf8_lossy(data)) else { return };
    assert_eq!(Config::parse(&config.text()).as_ref(), Ok(&config), "written again it means something else");
    let settings = config.settings();
    let blob: Vec<String> = data.chunks(9).take(5).map(|chunk| chunk.iter().map(|byte| char::from(b'A' + byte % 26)).collect()).collect();
    let blob = blob.join("\n");
    let others = ["version", "id", "append_only", "max_segment_size", "last_segment_checked"];
    let before = others.map(|name| config.get(name));
    for _ in 0..2 {
        config.set("key", &blob);
        assert_eq!(config.get("key").as_deref(), Some(&blob[..]));
        assert_eq!(others.map(|name| config.get(name)), before, "setting one option changes another");
        assert_eq!(config.settings(), settings);
        assert_eq!(Config::parse(&config.text()).as_ref(), Ok(&config));
    }
}

/// A view list: what is read is written and read again as the same, and memory follows what is there.
pub fn view_list(data: &[u8]) {
    use repositoryd::viewlist::Parsed;
    let Some(parsed) = Parsed::parse(data) else { return };
    assert!(parsed.entries() * 32 <= data.len(), "more entries than bytes");
    let bytes = parsed.encode().expect("memory");
    assert_eq!(Parsed::parse(&bytes).as_ref(), Some(&parsed));
    if data.starts_with(b"BCVIEW2\n") {
        assert_eq!(bytes.len(), data.len());
        // But for what has no meaning: a reserved number, and the base of a list that is whole.
        assert_eq!(bytes[168..], data[168..]);
    }
}
