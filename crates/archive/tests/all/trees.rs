//! Two archives compared.

use crate::owner::{Builder, Complaints, directory, everything, hard_link, link};
use archive::diff::{Change, Difference, diff};
use archive::kind::Kind;
use borg::archive::ChunkerParams;
use std::sync::Arc;

fn differences(old: Builder, new: Builder, same_cutting: bool) -> Vec<Difference> {
    let mut sources = [old.source(), new.source()];
    for (at, source) in sources.iter_mut().enumerate() {
        let mut metadata = (*source.metadata).clone();
        let bits = if same_cutting { 21 } else { 20 + at as u64 };
        metadata.chunker_params = Some(ChunkerParams { algorithm: None, numbers: vec![19, 23, bits, 4095] });
        source.metadata = Arc::new(metadata);
    }
    let mut found = vec![];
    let mut complaints = Complaints::default();
    let complain = &mut |path: Option<&[u8]>, what: &str| complaints.add(path, what);
    let mut each = |difference: &Difference| {
        found.push(difference.clone());
        Ok(())
    };
    diff(&sources[0], &sources[1], [everything(), everything()], &mut each, complain).unwrap();
    assert!(complaints.0.is_empty(), "{complaints:#?}");
    found
}

fn changes<'a>(found: &'a [Difference], path: &str) -> &'a [Change] {
    found.iter().find(|difference| difference.path == path.as_bytes()).map_or(&[], |difference| &difference.changes)
}

#[test]
fn what_was_added_removed_and_changed() {
    let (mut old, mut new) = (Builder::default(), Builder::default());
    for (builder, is_new) in [(&mut old, false), (&mut new, true)] {
        builder.add(&directory("d"));
        let same = builder.file("d/same", &[b"same"]);
        let changed = builder.file("d/changed", if is_new { &[b"one", b"three"] } else { &[b"one", b"two"] });
        let mut files = vec![same, changed, builder.file(if is_new { "d/new" } else { "d/old" }, &[b"12345"])];
        let mut mode = builder.file("d/mode", &[b"x"]);
        (mode.mode, mode.user) = (Some(if is_new { 0o100_600 } else { 0o100_644 }), Some(Some(if is_new { b"a" } else { b"b" }.to_vec())));
        files.push(mode);
        let mut attributes = builder.file("d/attributes", &[b"x"]);
        attributes.xattrs = Some(vec![(b"user.a".to_vec(), is_new.then(|| b"v".to_vec()))]);
        files.push(attributes);
        files.push(link("d/link", if is_new { "there" } else { "here" }));
        files.push(if is_new { directory("d/kind") } else { link("d/kind", "x") });
        // The order is an accident.
        if is_new {
            files.reverse();
        }
        files.iter().for_each(|file| {
            builder.add(file);
        });
        builder.add(&hard_link("d/hard", "d/changed"));
    }
    let found = differences(old, new, true);
    assert_eq!(changes(&found, "d/changed"), [Change::Content { bytes: Some((5, 3)) }]);
    assert_eq!(changes(&found, "d/hard"), []);
    assert_eq!(changes(&found, "d/new"), [Change::Added { size: 5 }]);
    assert_eq!(changes(&found, "d/old"), [Change::Removed { size: 5 }]);
    assert_eq!(changes(&found, "d/link"), [Change::Link]);
    assert_eq!(changes(&found, "d/attributes"), [Change::Attributes]);
    assert_eq!(changes(&found, "d/kind"), [Change::Mode { old: 0o120_777, new: 0o040_755 }]);
    let owner = Change::Owner { old: ("b".into(), "0".into()), new: ("a".into(), "0".into()) };
    assert_eq!(changes(&found, "d/mode"), [Change::Mode { old: 0o100_644, new: 0o100_600 }, owner]);
    assert_eq!(found.len(), 7, "{found:#?}");
    assert_eq!(found.iter().find(|d| d.path == b"d/kind").unwrap().kind, Kind::Directory);
}

#[test]
fn what_was_cut_in_another_way_is_read() {
    let make = |cuts: &[usize], last: u8| {
        let mut builder = Builder::default();
        let mut content: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
        content.push(last);
        let mut chunks: Vec<&[u8]> = vec![];
        let mut rest = content.as_slice();
        for cut in cuts.iter().cycle() {
            let (chunk, after) = rest.split_at((*cut).min(rest.len()));
            chunks.push(chunk);
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        let file = builder.file("file", &chunks);
        builder.add(&file);
        let other = builder.file("other", &[b"the same size", &[last]]);
        builder.add(&other);
        builder
    };
    assert_eq!(differences(make(&[1000, 70], 1), make(&[333], 1), false), []);
    let found = differences(make(&[1000, 70], 1), make(&[333], 2), false);
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|difference| difference.changes == [Change::Content { bytes: None }]));
}
