//! Old records become present ones by the largest leaps; what cannot be trusted is refused with a name.
#![allow(clippy::unwrap_used, reason = "tests, their helper functions included")]

use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::record::{decode, encode, seal};
use store::{Error, Evolution, Record};

const KIND: u16 = 1001;

/// A type with the versions 1, 2, 3 and 7.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Disk {
    name: String,
    leaps: Vec<String>,
}

fn step(value: &mut Value, leap: &str) -> Result<(), String> {
    let leaps = value["leaps"].as_array_mut().ok_or("no leaps")?;
    leaps.push(leap.into());
    Ok(())
}

const LEAPS: &[Evolution] = &[
    Evolution { from: 1, to: 2, apply: |v| step(v, "1->2") },
    Evolution { from: 2, to: 3, apply: |v| step(v, "2->3") },
    Evolution { from: 2, to: 7, apply: |v| step(v, "2->7") },
];

impl Record for Disk {
    const KIND: u16 = KIND;
    const NAME: &'static str = "disk";
    const VERSION: u16 = 7;
    fn evolutions() -> &'static [Evolution] {
        LEAPS
    }
}

/// The same type, as a program between the releases knew it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct DiskOfVersion3 {
    name: String,
    leaps: Vec<String>,
}

impl Record for DiskOfVersion3 {
    const KIND: u16 = KIND;
    const NAME: &'static str = "disk";
    const VERSION: u16 = 3;
    fn evolutions() -> &'static [Evolution] {
        LEAPS
    }
}

fn stored(version: u16) -> Vec<u8> {
    seal(KIND, version, br#"{"name":"sda","leaps":[]}"#)
}

#[test]
fn the_path_takes_the_largest_leap_at_each_step() {
    let disk = decode::<Disk>("disk sda", &stored(1)).unwrap();
    assert_eq!(disk.path, [1, 2, 7]);
    assert_eq!(disk.record.leaps, ["1->2", "2->7"]);
    assert_eq!(decode::<Disk>("disk sda", &stored(2)).unwrap().path, [2, 7]);
    assert_eq!(decode::<Disk>("disk sda", &stored(7)).unwrap().path, [7]);
}

#[test]
fn no_leap_goes_beyond_the_version_wanted() {
    let disk = decode::<DiskOfVersion3>("disk sda", &stored(1)).unwrap();
    assert_eq!(disk.path, [1, 2, 3]);
    assert_eq!(disk.record.leaps, ["1->2", "2->3"]);
}

#[test]
fn a_missing_path_names_record_and_version() {
    let error = decode::<Disk>("disk sda", &stored(3)).unwrap_err();
    assert!(matches!(error, Error::NoPath { stored: 3, stuck: 3, wanted: 7, .. }));
    let text = error.to_string();
    assert!(text.contains("disk sda") && text.contains("version 3"), "{text}");
    assert!(matches!(decode::<Disk>("disk sda", &stored(0)), Err(Error::NoPath { stored: 0, .. })));
}

#[test]
fn a_newer_version_is_refused_with_the_way_out() {
    let text = decode::<DiskOfVersion3>("disk sda", &stored(7)).unwrap_err().to_string();
    assert!(text.contains("disk sda") && text.contains("version 7") && text.contains("upgrade BorgCube"), "{text}");
    assert!(matches!(decode::<Disk>("disk sda", &stored(8)), Err(Error::Newer { found: 8, known: 7, .. })));
}

#[test]
fn an_evolution_may_refuse() {
    let bytes = seal(KIND, 2, br#"{"name":"sda"}"#);
    let text = decode::<Disk>("disk sda", &bytes).unwrap_err().to_string();
    assert_eq!(text, "disk sda cannot be brought from version 2 to 7: no leaps");
}

#[test]
fn another_kind_is_refused() {
    let bytes = seal(KIND + 1, 7, br#"{"name":"sda","leaps":[]}"#);
    let error = decode::<Disk>("disk sda", &bytes).unwrap_err();
    assert!(matches!(&error, Error::WrongKind { record, found: 1002, expected: 1001 } if record == "disk sda"));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = encode(&Disk { name: "sda".into(), leaps: vec!["ä".into()] }).unwrap();
    assert!(decode::<Disk>("disk sda", &bytes).is_ok());
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        match decode::<Disk>("disk sda", &flipped) {
            Err(Error::Damaged { record, .. }) => assert_eq!(record, "disk sda"),
            other => panic!("bit {bit}: {other:?}"),
        }
    }
}

#[test]
fn every_shortening_is_noticed() {
    let bytes = stored(7);
    for length in 0..bytes.len() {
        assert!(matches!(decode::<Disk>("disk sda", &bytes[..length]), Err(Error::Damaged { .. })), "{length}");
    }
}

proptest::proptest! {
    #[test]
    fn what_was_written_is_read(name: String, leaps: Vec<String>) {
        let disk = Disk { name, leaps };
        let bytes = encode(&disk).unwrap();
        proptest::prop_assert_eq!(decode::<Disk>("disk", &bytes).unwrap().record, disk);
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes: Vec<u8>) {
        proptest::prop_assert!(decode::<Disk>("disk", &bytes).is_err());
    }
}
