//! A49 to A62: archives, manifest, time.

use crate::afterwards::{borg_world, honest_backups_are_fine, stock_borgs_are_content};
use crate::hostile::{Hostile, Said, TIMESTAMP, directory, file, link, stream};
use crate::world::World;
use crate::{Deed, deed};
use borg::archive::Archive;
use borg::item::{ChunkRef, Item};
use borg::manifest::{ArchiveEntry, Manifest};
use borg::{Id, Key, KeyType};
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};
use testkit::borgs::Borg;
use tests::{newest_archive, newest_job, text};

pub const DEEDS: &[Deed] = &[
    Deed { rule: "archive-name", test: "a49", deed: |client| named(client, |name| format!("{name}0")) },
    Deed { rule: "manifest", test: "a53", deed: foreign_manifest },
    Deed { rule: "archive-not-put", test: "a53", deed: |client| foreign_archive(client, &foreign_key()) },
    Deed { rule: "manifest-entries", test: "a54", deed: |client| entries(client, &["", "x"]) },
    Deed { rule: "manifest-features", test: "a55", deed: features },
    Deed { rule: "item-stream", test: "a56", deed: |client| streamed(client, &[b"\x81\xa4path"]) },
    Deed { rule: "item-chunk-size", test: "a56", deed: large_piece },
    Deed { rule: "item-path", test: "a57", deed: |client| items(client, &[directory("../x")]) },
    Deed { rule: "item-hard-link", test: "a57", deed: |client| items(client, &[hard_link("h", "/etc/shadow")]) },
    Deed { rule: "item-type", test: "a58", deed: |client| items(client, &[Item { mode: Some(0o140_644), ..directory("socket") }]) },
    Deed { rule: "item-size", test: "a58", deed: |client| items(client, &[Item { size: Some(8 << 60), ..file("sparse", &[]) }]) },
    Deed { rule: "item-limits", test: "a58", deed: |client| items(client, &[Item { mtime: 1 << 80, ..file("f", &[]) }]) },
    Deed { rule: "archive-format", test: "a59", deed: |client| changed(client, |archive| archive.recreate_cmdline = Some(vec![])) },
    Deed { rule: "archive-chunker", test: "a59", deed: |client| changed(client, |a| a.chunker_params.as_mut().unwrap().numbers[0] = 99) },
    Deed { rule: "item-part", test: "a59", deed: |client| items(client, &[Item { part: Some(1), ..file("f", &[]) }]) },
    Deed { rule: "item-healthy", test: "a59", deed: |client| items(client, &[Item { chunks_healthy: Some(vec![]), ..file("f", &[]) }]) },
];

/// An archive of these items under the job's name.
fn items(client: &mut Hostile, items: &[Item]) -> Said {
    let name = client.archive_name.clone();
    client.propose(&name, items)
}

/// An archive under another name.
fn named(client: &mut Hostile, name: impl FnOnce(&str) -> String) -> Said {
    let name = name(&client.archive_name);
    client.propose(&name, &[directory("d")])
}

/// An archive whose item stream consists of these pieces.
fn streamed(client: &mut Hostile, pieces: &[&[u8]]) -> Said {
    let ids = pieces.iter().map(|piece| client.chunk(piece).id).collect();
    let archive = client.archive(&client.archive_name, ids);
    client.propose_archive(&archive)
}

/// An archive with something odd in its metadata.
fn changed(client: &mut Hostile, change: impl FnOnce(&mut Archive)) -> Said {
    let stream = client.items(&[directory("d")]);
    let mut archive = client.archive(&client.archive_name, vec![stream]);
    change(&mut archive);
    client.propose_archive(&archive)
}

fn foreign_key() -> Key {
    Key::generate(KeyType::Authenticated, &mut |bytes| bytes.fill(5))
}

fn foreign_manifest(client: &mut Hostile) -> Said {
    let envelope = client.seal(&Manifest::empty(TIMESTAMP).pack(&foreign_key(), [5; 64]));
    client.put_manifest(&envelope)
}

fn foreign_archive(client: &mut Hostile, key: &Key) -> Said {
    let name = client.archive_name.clone();
    let packed = client.archive(&name, vec![]).pack(key, [4; 64]);
    let id = client.chunk(&packed).id;
    let manifest = client.manifest_with(&name, id);
    client.put_manifest(&manifest)
}

/// A manifest that adds the job's name with each of these suffixes.
fn entries(client: &mut Hostile, suffixes: &[&str]) -> Said {
    let mut manifest = client.manifest.clone();
    for suffix in suffixes {
        let name = format!("{}{suffix}", client.archive_name);
        manifest.archives.insert(name.into_bytes(), ArchiveEntry { id: Id([1; 32]), time: TIMESTAMP.into() });
    }
    let envelope = client.seal_manifest(&manifest);
    client.put_manifest(&envelope)
}

fn features(client: &mut Hostile) -> Said {
    // {"write": {"mandatory": ["x"]}}
    client.manifest.config.insert(b"feature_flags".to_vec(), b"\x81\xa5write\x81\xa9mandatory\x91\xa1x".to_vec());
    items(client, &[directory("d")])
}

/// A piece of an item stream that is larger than Borg cuts.
fn large_piece(client: &mut Hostile) -> Said {
    let many: Vec<Item> = (0..30_000).map(|n| directory(&format!("d{n}{}", "x".repeat(100)))).collect();
    items(client, &many)
}

fn hard_link(path: &str, source: &str) -> Item {
    Item { mode: Some(0o100_644), source: Some(source.into()), ..directory(path) }
}

/// Carries out a whole backup with this client.
#[track_caller]
fn committed(client: &mut Hostile, said: Said) {
    assert!(matches!(said, Said::Value(_)), "{said:?}");
    let said = client.commit();
    assert!(matches!(said, Said::Value(_)), "{said:?}");
}

/// A job of the hostile client that makes its archive.
#[track_caller]
fn done(world: &World, deed: impl FnOnce(&mut Hostile) -> Said) {
    let job = world.job("hostile");
    let mut client = job.open();
    let said = deed(&mut client);
    committed(&mut client, said);
    drop(client);
    let verdict = job.end(0);
    assert_eq!(verdict.state, "done", "{verdict:?}");
}

/// A job of the hostile client that is refused without an accusation.
#[track_caller]
fn overlaps(world: &World, these: &[Item]) {
    let verdict = world.attack(|client| drop(items(client, these).refused("PathsOverlap")));
    verdict.expect_cause("paths-overlap", "");
}

fn micros_now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

/// A time as borg and our own JSON write it, at most ten minutes ago.
#[track_caller]
fn assert_recent(what: &str, micros: i64) {
    let age = micros_now() - micros;
    assert!((-1_000_000..600_000_000).contains(&age), "{what} is {}", borg::time::format(micros));
}

#[test]
fn a49_names_that_resemble_ones_own() {
    let world = World::new();
    world.expect_deed(deed("archive-name", "a49"));
    let foreign = text(&newest_archive(&world.system), "name").to_owned();
    world.expect_rule("archive-name", |client| assert_eq!(named(client, |_| foreign.clone()).broke(), "archive-name"));
    for suffix in [".checkpointx", ".checkpoint.0", ".checkpoint.1.checkpoint", "-2"] {
        world.expect_rule("archive-name", |client| assert_eq!(named(client, |name| format!("{name}{suffix}")).broke(), "archive-name"));
    }
    world.expect_rule("archive-name", |client| {
        assert_eq!(named(client, |name| name[..name.len() - 1].to_owned()).broke(), "archive-name");
    });
    // The manifest says what it should, and the archive has another name; and the other way round.
    world.expect_rule("archive-name", |client| {
        let archive = client.archive(&foreign, vec![]);
        let id = client.put_archive(&archive);
        let manifest = client.manifest_with(&client.archive_name, id);
        assert_eq!(client.put_manifest(&manifest).broke(), "archive-name");
    });
}

#[test]
fn a50_names_that_do_harm() {
    let world = World::new();
    let long = "x".repeat(100_000);
    for suffix in ["/../x", "\nforged line", "\u{1b}[2J", "\u{202e}", "\0", long.as_str()] {
        let verdict = world.expect_rule("archive-name", |client| {
            let name = format!("{}{suffix}", client.archive_name);
            let id = client.put_archive(&client.archive("x", vec![]));
            let manifest = client.manifest_with(&name, id);
            assert_eq!(client.put_manifest(&manifest).broke(), "archive-name");
        });
        assert!(verdict.message.len() < 1000 && !verdict.message.contains(char::is_control), "{verdict:?}");
    }
    // A letter that looks like another one.
    world.expect_rule("archive-name", |client| {
        assert_eq!(named(client, |name| name.replacen('o', "\u{43e}", 1)).broke(), "archive-name");
    });
}

#[test]
fn a51_false_times() {
    let world = World::new();
    for (time, end) in [("9999-12-31T23:59:59.999999", "0001-01-01T00:00:00.000000"), ("1970-01-01T00:00:00.000000", TIMESTAMP)] {
        done(&world, |client| {
            let stream = client.items(&[directory("d")]);
            let mut archive = client.archive(&client.archive_name, vec![stream]);
            (archive.time, archive.time_end) = (time.into(), Some(end.into()));
            let id = client.put_archive(&archive);
            let mut manifest = client.manifest.clone();
            manifest.timestamp = Some(time.into());
            manifest.archives.insert(archive.name.clone(), ArchiveEntry { id, time: time.into() });
            let envelope = client.seal_manifest(&manifest);
            client.put_manifest(&envelope)
        });
        // Database.
        let record = newest_archive(&world.system);
        for field in ["start", "end"] {
            assert_recent(field, record[field].as_i64().unwrap());
        }
        // What the client said is a note, and that its clock is wrong a warning to whoever looks.
        let has = |list: &str, word: &str| record[list].as_array().unwrap().iter().any(|line| line.as_str().unwrap().contains(word));
        assert!(has("claims", &format!("time={time}")), "{record}");
        assert!(has("warnings", "clock"), "{record}");
        let job = newest_job(&world.system);
        assert!(job["warnings"].to_string().contains("clock is wrong"), "{job}");
        // Manifest and archive, as a stock borg reads them.
        world.system.settle();
        let place = borg_world();
        let borg = Borg::v1_4_5().expect("borg 1.4.5 is needed");
        for archive in borg.list_json(&place, &world.repository).unwrap()["archives"].as_array().unwrap() {
            for field in ["start", "time"] {
                assert!(text(archive, field).starts_with(&this_year()), "{archive}");
            }
        }
        let info = borg.info_json(&place, &world.repository, Some(text(&record, "name"))).unwrap();
        for field in ["start", "end"] {
            assert!(text(&info["archives"][0], field).starts_with(&this_year()), "{info}");
        }
        assert!(text(&info["repository"], "last_modified").starts_with(&this_year()), "{info}");
    }
}

/// The year, as a local time of today may have it.
fn this_year() -> String {
    borg::time::format(micros_now())[..4].to_owned()
}

#[test]
fn a52_false_names() {
    let world = World::new();
    done(&world, |client| {
        changed(client, |archive| {
            archive.hostname = Some(b"victim".to_vec());
            archive.username = Some(b"root\x1b[2J".to_vec());
            archive.comment = Some(b"keep for ever\nforged: line".to_vec());
            archive.cmdline = vec![b"borg".to_vec(), b"create".to_vec(), b"::victim-all".to_vec()];
            archive.cwd = Some(b"/home/victim\n".to_vec());
        })
    });
    let record = newest_archive(&world.system);
    assert_eq!((text(&record, "client"), text(&record, "comment")), ("hostile", ""));
    let claims = record["claims"].to_string();
    for claim in
        ["hostname=victim", "comment=keep for ever\\\\nforged: line", "username=root\\\\u{1b}[2J", "cmdline=borg create ::victim-all"]
    {
        assert!(claims.contains(claim), "{claim}: {claims}");
    }
    world.system.settle();
    for borg in Borg::judges() {
        let info = borg.info_json(&borg_world(), &world.repository, Some(text(&record, "name"))).unwrap();
        let archive = &info["archives"][0];
        assert_eq!((text(archive, "hostname"), text(archive, "username"), text(archive, "comment")), ("hostile", "borgcube", ""));
        assert!(!archive["command_line"].to_string().contains("victim"), "{archive}");
    }
    // What a person sees of it is text.
    let shown = world.system.cli_ok(&["archive", "show", text(&record, "name")]);
    assert!(!shown.contains('\u{1b}') && !shown.contains("\nforged"), "{shown}");
}

#[test]
fn a53_signatures_of_others() {
    let world = World::new();
    world.expect_deed(deed("manifest", "a53"));
    world.expect_deed(deed("archive-not-put", "a53"));
    // Not signed at all.
    world.expect_rule("archive-not-put", |client| assert_eq!(foreign_archive(client, &Key::none()).broke(), "archive-not-put"));
    world.expect_rule("manifest", |client| {
        let mut packed = client.manifest.pack(&client.key, [5; 64]);
        let at = packed.windows(4).position(|w| w == b"\xa3tam").unwrap();
        packed[at + 1] = b'x';
        let envelope = client.seal(&packed);
        assert_eq!(client.put_manifest(&envelope).broke(), "manifest");
    });
    // What is accepted was signed by the server: the judge of `stock_borgs_are_content` reads every archive, this one its signature.
    done(&world, |client| items(client, &[directory("d")]));
    world.system.settle();
    let borg = Borg::v1_4_5().expect("borg 1.4.5 is needed");
    let tams = borg.list_with_tam(&borg_world(), &world.repository).unwrap();
    assert!(tams.len() == 2 && tams.iter().all(|(_, tam)| tam == "verified"), "{tams:?}");
}

#[test]
fn a54_more_or_less_than_one_archive() {
    let world = World::new();
    world.expect_deed(deed("manifest-entries", "a54"));
    world.expect_rule("manifest-entries", |client| assert_eq!(entries(client, &[]).broke(), "manifest-entries"));
    let many: Vec<String> = (0..100_000).map(|n| format!(".{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    world.expect_rule("manifest-entries", |client| assert_eq!(entries(client, &many).broke(), "manifest-entries"));
    // A foreign archive under ones own id, beside ones own.
    let foreign = newest_archive(&world.system);
    world.expect_rule("manifest-entries", |client| {
        let entry = ArchiveEntry { id: Id([1; 32]), time: TIMESTAMP.into() };
        client.manifest.archives.insert(text(&foreign, "name").into(), entry);
        assert_eq!(items(client, &[directory("d")]).broke(), "manifest-entries");
    });
    // A manifest that has nothing but the new archive drops nothing: only what it adds is looked at.
    done(&world, |client| {
        client.manifest = Manifest::empty(TIMESTAMP);
        items(client, &[directory("d")])
    });
    let list = world.system.cli_json(&["archive", "list"]);
    assert_eq!(list.as_array().unwrap().len(), 2);
    stock_borgs_are_content(&world);
    let kept = Borg::v1_4_5().unwrap().archives(&borg_world(), &world.repository).unwrap();
    assert!(kept.contains(&text(&foreign, "name").to_owned()) && kept.len() == 2, "{kept:?}");
}

#[test]
fn a55_a_manifest_that_locks_everybody_out() {
    let world = World::new();
    world.expect_deed(deed("manifest-features", "a55"));
    // A manifest of the future.
    world.expect_rule("manifest", |client| {
        let envelope = client.seal(b"\xc1\xc1\xc1\xc1future");
        assert_eq!(client.put_manifest(&envelope).broke(), "manifest");
    });
    world.expect_rule("manifest", |client| {
        client.manifest.version = 2;
        assert_eq!(items(client, &[directory("d")]).broke(), "manifest");
    });
    // Odd settings, invented item keys, the year 9999: not refused, and not copied.
    done(&world, |client| {
        client.manifest.config.insert(b"odd".to_vec(), b"\xa3set".to_vec());
        client.manifest.item_keys.extend((0..900).map(|n| format!("key{n}").into_bytes()));
        client.manifest.timestamp = Some("9999-12-31T23:59:59.999999".into());
        items(client, &[directory("d")])
    });
    world.system.settle();
    let (place, borg) = (borg_world(), Borg::v1_4_5().expect("borg 1.4.5 is needed"));
    let dump = place.join("manifest.json");
    borg.run(&place, ["debug", "dump-manifest", world.repository.to_str().unwrap(), dump.to_str().unwrap()]).unwrap();
    let manifest: Value = serde_json::from_slice(&std::fs::read(&dump).unwrap()).unwrap();
    assert!(text(&manifest, "timestamp").starts_with(&this_year()), "{manifest}");
    assert_eq!(manifest["config"].as_object().unwrap().keys().collect::<Vec<_>>(), ["tam_required"], "{manifest}");
    assert!(!manifest["item_keys"].to_string().contains("key1"), "{manifest}");
    // Nobody is locked out: a stock borg writes, and we after it.
    let source = world.system.join("source");
    borg.create(&place, &world.repository, "by-hand", &[], &[&source]).unwrap();
    done(&world, |client| items(client, &[directory("d")]));
    stock_borgs_are_content(&world);
}

#[test]
fn a56_item_streams_that_are_none() {
    let world = World::new();
    world.expect_deed(deed("item-stream", "a56"));
    world.expect_deed(deed("item-chunk-size", "a56"));
    // No map, no msgpack, nested without an end, an item without what it must have, the same field twice, a new string type.
    let no_mode = [&b"\x82\xa4path\xa1x\xa5mtime"[..], b"\x00"].concat();
    let twice = b"\x83\xa4path\xa1x\xa4path\xa1y\xa5mtime\x00".to_vec();
    let new_string = b"\x83\xa4path\xd9\x01x\xa4mode\xcd\x41\xed\xa5mtime\x00".to_vec();
    for bad in [vec![5], vec![0xc1], vec![0x91; 1000], no_mode, twice, new_string] {
        world.expect_rule("item-stream", |client| assert_eq!(streamed(client, &[&bad]).broke(), "item-stream"));
    }
    // A field of no Borg, behind a thousand good items.
    world.expect_rule("item-stream", |client| {
        let mut good = stream(&(0..1000).map(|n| directory(&format!("d{n}"))).collect::<Vec<_>>());
        let mut odd = stream(&[directory("x")]);
        odd[0] += 1;
        odd.extend_from_slice(b"\xa5owner\x01");
        good.extend(odd);
        assert_eq!(streamed(client, &[&good]).broke(), "item-stream");
    });
    // One chunk again and again.
    world.expect_rule("item-limits", |client| {
        let id = client.items(&[directory("d")]);
        let archive = client.archive(&client.archive_name, vec![id; 1001]);
        assert_eq!(client.propose_archive(&archive).broke(), "item-limits");
    });
    // Ids that dangle, at the end of a stream that is all right.
    world.expect_rule("reference-not-own", |client| {
        let id = client.items(&[directory("d")]);
        let archive = client.archive(&client.archive_name, vec![id, Id([1; 32])]);
        assert_eq!(client.propose_archive(&archive).broke(), "reference-not-own");
    });
    // Cut anywhere, in pieces of no bytes and of one byte: that is a stream as any other.
    done(&world, |client| {
        let whole = stream(&[directory("a"), file("a/f", &[]), link("a/l", "f")]);
        let mut pieces: Vec<&[u8]> = whole.chunks(1).collect();
        pieces.insert(3, &[]);
        streamed(client, &pieces)
    });
    done(&world, |client| streamed(client, &[]));
    stock_borgs_are_content(&world);
}

#[test]
fn a57_paths_and_links() {
    let world = World::new();
    world.expect_deed(deed("item-path", "a57"));
    world.expect_deed(deed("item-hard-link", "a57"));
    for path in ["", "/etc/passwd", "a/../../x", "a//b", "a\0"] {
        world.expect_rule("item-path", |client| assert_eq!(items(client, &[directory(path)]).broke(), "item-path"));
    }
    // A hard link to what comes later, to what cannot be shared, through a link.
    let master = |path: &str| Item { hardlink_master: Some(true), ..file(path, &[]) };
    for these in [
        vec![hard_link("h", "later"), master("later")],
        vec![directory("d"), hard_link("h", "d")],
        vec![link("l", "/etc"), hard_link("h", "l/shadow")],
    ] {
        world.expect_rule("item-hard-link", |client| assert_eq!(items(client, &these).broke(), "item-hard-link"));
    }
    // E5: a child of a link leads out of wherever it is extracted. Honest clients can produce such a list, when files change meanwhile.
    overlaps(&world, &[link("evil", "/tmp"), file("evil/x", &[])]);
    overlaps(&world, &[file("evil/x", &[]), link("evil", "/tmp")]);
    overlaps(&world, &[directory("x"), link("x", "y")]);
    overlaps(&world, &[link("a", "b"), master("m"), Item { source: Some(b"m".to_vec()), ..hard_link("a/h", "m") }]);
    // The same path twice as the same thing is what overlapping PATHS make, and a link may point anywhere.
    done(&world, |client| items(client, &[directory("x"), directory("x"), master("m"), hard_link("h", "m"), link("out", "/etc/passwd")]));
    stock_borgs_are_content(&world);
}

#[test]
fn a58_items_beyond_all_bounds() {
    let world = World::new();
    for rule in ["item-type", "item-size", "item-limits"] {
        world.expect_deed(deed(rule, "a58"));
    }
    let value = |length: usize| Some(vec![b'x'; length]);
    let limits = [
        Item { uid: Some(1 << 32), ..directory("d") },
        Item { mtime: -(1 << 80), ..directory("d") },
        Item { user: Some(value(5000)), ..directory("d") },
        Item { xattrs: Some(vec![(vec![b'x'; 300], None)]), ..directory("d") },
        Item { acl_access: value((1 << 20) + 1), ..directory("d") },
    ];
    for item in limits {
        world.expect_rule("item-limits", |client| assert_eq!(items(client, std::slice::from_ref(&item)).broke(), "item-limits"));
    }
    // A chunk that says it is larger than any can be: 8 EiB would be a hundred items of those.
    world.expect_rule("item-size", |client| {
        let chunk = ChunkRef { size: u32::MAX, ..client.chunk(b"x") };
        assert_eq!(items(client, &[file("f", &[chunk; 3])]).broke(), "item-size");
    });
    world.expect_rule("item-type", |client| {
        let block = Item { mode: Some(0o060_600), ..directory("sda") };
        assert_eq!(items(client, &[block]).broke(), "item-type");
    });
    // Within the limits it is data, whatever it means to a system it is extracted on: stock borgs read it, and say what it is.
    done(&world, |client| {
        let odd = [
            Item { mode: Some(0o106_755), ..file("suid", &[]) },
            Item { mode: Some(0o060_660), rdev: Some(0x0800), ..directory("sda") },
            Item { mode: Some(0o020_666), rdev: Some(u64::MAX), ..directory("char") },
            Item { mode: Some(0o010_600), ..directory("fifo") },
            Item { uid: Some(u32::MAX.into()), gid: Some(-1), user: Some(value(1000)), group: Some(None), ..file("nobody", &[]) },
            Item { mtime: i64::MIN.into(), atime: Some(i64::MAX.into()), ctime: Some(-1), birthtime: Some(0), ..file("times", &[]) },
            Item { bsdflags: Some(u64::MAX), ..file("flags", &[]) },
            Item { xattrs: Some(vec![(b"user.x".to_vec(), value(400_000)), (b"\xff\xfe".to_vec(), None)]), ..file("xattrs", &[]) },
            Item { acl_access: value(1 << 10), acl_default: value(0), ..directory("acl") },
            Item { path: b"\xff\xfe\n\x1b[2J".to_vec(), user: Some(Some(vec![0xff])), ..file("", &[]) },
            Item { path: vec![b'n'; 32 * 1024], ..file("", &[]) },
            Item { path: [&b"d/"[..]; 2047].concat().into_iter().chain(*b"f").collect(), ..file("", &[]) },
        ];
        items(client, &odd)
    });
    stock_borgs_are_content(&world);
}

#[test]
fn a58_a_great_many_items() {
    let world = World::new();
    // 100 000 directories, in pieces as Borg cuts them.
    done(&world, |client| {
        let mut ids = vec![];
        for part in 0..20 {
            let many: Vec<Item> = (0..5000).map(|n| directory(&format!("p{part}/d{n}"))).collect();
            ids.push(client.items(&many));
        }
        let archive = client.archive(&client.archive_name, ids);
        client.propose_archive(&archive)
    });
    stock_borgs_are_content(&world);
}

#[test]
fn a59_what_create_does_not_write() {
    let world = World::new();
    for rule in ["archive-format", "archive-chunker", "item-part", "item-healthy"] {
        world.expect_deed(deed(rule, "a59"));
    }
    world.expect_rule("archive-format", |client| {
        let said = changed(client, |archive| drop(archive.other.insert(b"item_ptrs".to_vec(), vec![0x90])));
        assert_eq!(said.broke(), "archive-format");
    });
    world.expect_rule("archive-format", |client| {
        // Version 2.
        let name = client.archive_name.clone();
        let packed = client.archive(&name, vec![]).pack(&client.key, [4; 64]);
        assert_eq!(signed_again(client, &name, &packed, |at| at[0] = 2).broke(), "archive-format");
    });
    world.expect_rule("item-part", |client| {
        assert_eq!(items(client, &[Item { part: Some(0), ..file("f.borg_part_0", &[]) }]).broke(), "item-part");
    });
    // With content the healthy chunks would be what a later repair brings back.
    world.expect_rule("item-healthy", |client| {
        let chunk = client.chunk(b"x");
        let healthy = vec![ChunkRef { id: Id([1; 32]), ..chunk }];
        assert_eq!(items(client, &[Item { chunks_healthy: Some(healthy), ..file("f", &[chunk]) }]).broke(), "item-healthy");
    });
}

/// Changes the version of packed archive metadata, signs it anew and asks for it.
fn signed_again(client: &mut Hostile, name: &str, packed: &[u8], change: impl FnOnce(&mut [u8])) -> Said {
    let mut packed = packed.to_vec();
    let at = packed.windows(8).rposition(|w| w == b"\xa7version").unwrap() + 8;
    change(&mut packed[at..]);
    // The salt is 64 times 4; the proof is over the whole with zeros in its place.
    let proof = packed.windows(6).position(|w| w == b"\xa4hmac\xda").unwrap() + 8;
    packed[proof..proof + 64].fill(0);
    let signed = borg::tam::sign(&client.key, borg::tam::Context::Archive, &packed, &[4; 64]);
    packed[proof..proof + 64].copy_from_slice(&signed);
    let id = client.chunk(&packed).id;
    let manifest = client.manifest_with(name, id);
    client.put_manifest(&manifest)
}

#[test]
fn a60_an_archive_of_nothing() {
    let world = World::new();
    let full: Vec<Item> = (0..50).map(|n| file(&format!("f{n}"), &[])).collect();
    done(&world, |client| items(client, &full));
    assert_eq!(newest_archive(&world.system)["suspicious"], false);
    // Nothing at all, and nearly nothing: the jobs are done, for the client says so, and both say that somebody should look.
    for few in [vec![], full[..1].to_vec()] {
        done(&world, |client| items(client, &few));
        let archive = newest_archive(&world.system);
        assert_eq!(archive["suspicious"], true, "{archive}");
        let warnings = newest_job(&world.system)["warnings"].to_string();
        assert!(warnings.contains("had 50 files"), "{warnings}");
        assert!(world.system.cli_ok(&["archive", "list", "--limit", "1"]).contains("suspicious"));
        assert!(world.system.cli_ok(&["archive", "show", text(&archive, "name")]).contains("look at the client"));
    }
    // As much as ever is no news.
    done(&world, |client| items(client, &full));
    assert_eq!(newest_archive(&world.system)["suspicious"], false);
}

/// What looks like encrypted, the same for each number.
fn noise(number: u64, length: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn a61_files_that_were_encrypted() {
    let world = World::new();
    let line = |number: u64, n: u64| format!("line {n} of file {number}: nothing happened\n");
    let text = |number: u64| (0..6000).map(|n| line(number, n)).collect::<String>().into_bytes();
    let backup = |contents: Vec<Vec<u8>>| {
        done(&world, |client| {
            let files: Vec<Item> =
                contents.iter().enumerate().map(|(n, content)| file(&format!("f{n}"), &[client.chunk(content)])).collect();
            items(client, &files)
        });
        newest_archive(&world.system)
    };
    // Seven files stay, one changes.
    for day in 0..5 {
        let archive = backup((0..7).chain([100 + day]).map(text).collect());
        assert_eq!(archive["suspicious"], false, "{archive}");
    }
    // As much is new after an upgrade, and looks like what was there before.
    assert_eq!(backup((200..208).map(text).collect())["suspicious"], false);
    let archive = backup((0..8).map(|n| noise(n, 200_000)).collect());
    assert_eq!(archive["suspicious"], true, "{archive}");
    let warnings = newest_job(&world.system)["warnings"].to_string();
    assert!(warnings.contains("may have been encrypted"), "{warnings}");
    assert!(world.system.cli_ok(&["archive", "show", text_of(&archive)]).contains("look at it before anything is removed"));
}

fn text_of(archive: &serde_json::Value) -> &str {
    text(archive, "name")
}

#[test]
fn a62_checkpoints_are_no_archives() {
    let world = World::new();
    let checkpoint = |client: &mut Hostile, number: &str| {
        let said = named(client, |name| format!("{name}.checkpoint{number}"));
        committed(client, said);
    };
    let flags = || -> Vec<bool> {
        let list = world.system.cli_json(&["archive", "list"]);
        list.as_array().unwrap().iter().map(|archive| archive["incomplete"].as_bool().unwrap()).collect()
    };
    // The client stops at a checkpoint and says that all went well. Two jobs, two checkpoints each: the newest of each stays.
    for _ in 0..2 {
        let job = world.job("hostile");
        let mut client = job.open();
        checkpoint(&mut client, "");
        checkpoint(&mut client, ".1");
        drop(client);
        let verdict = job.end(0);
        assert_eq!((verdict.state.as_str(), verdict.word.as_str()), ("failed", "client-borg-failed"), "{verdict:?}");
    }
    assert_eq!(flags(), [true, true, false]);
    world.system.settle();
    let names = Borg::v1_4_5().unwrap().archives(&borg_world(), &world.repository).unwrap();
    assert_eq!(names.len(), 1, "a checkpoint looks like an archive: {names:?}");
    stock_borgs_are_content(&world);
    // The first success of the config takes them away.
    done(&world, |client| items(client, &[directory("d")]));
    assert_eq!(flags(), [false, false]);
    stock_borgs_are_content(&world);
}

#[test]
fn after_attacks_on_archives_an_honest_backup_is_fine() {
    let world = World::new();
    let before = world.fingerprint();
    for deed in DEEDS {
        let verdict = world.attempt(|client| assert_eq!((deed.deed)(client).broke(), deed.rule));
        verdict.expect_rule(deed.rule);
    }
    world.assert_unchanged(&before);
    honest_backups_are_fine(&world);
}
