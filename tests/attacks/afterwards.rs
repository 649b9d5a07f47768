//! What there must be after attacks: honest backups work, and stock borgs find nothing wrong.

use crate::world::{PASSPHRASE, World};
use borg::Id;
use borg::segment::{HEADER, Header, MAGIC, PUT_HEADER, Tag};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use testkit::borgs::Borg;
use testkit::tree::{Spec, make};
use testkit::world::BorgWorld;
use tests::{newest_archive, text};

/// What a stock borg needs to know.
pub fn borg_world() -> BorgWorld {
    BorgWorld::with_passphrase(PASSPHRASE)
}

/// A third client backs up with a real borg, twice; then two stock borgs check every byte and extract what was backed up.
#[track_caller]
pub fn honest_backups_are_fine(world: &World) {
    let source = world.system.join("honest-source");
    make(&source, Spec { files: 12, ..Spec::default() });
    world.system.add_local_client("honest");
    world.system.add_config("honest", "all", "main", &[], &[&source]);
    world.system.run_ok("honest/all");
    world.system.run_ok("honest/all");
    let name = text(&newest_archive(&world.system), "name").to_owned();
    world.system.settle();
    let place = borg_world();
    for judge in Borg::judges() {
        judge.judge(&place, &world.repository, &name, &source).unwrap();
    }
}

/// Two stock borgs check every byte, read every item of every archive, and rebuild their caches from all of them.
#[track_caller]
pub fn stock_borgs_are_content(world: &World) {
    world.system.settle();
    for judge in Borg::judges() {
        let place = borg_world();
        judge.check_verify_data(&place, &world.repository).unwrap();
        for name in judge.archives(&place, &world.repository).unwrap() {
            // Not as records: what stands for a byte that is no text, JSON cannot say.
            let archive = format!("{}::{name}", world.repository.display());
            judge.run(&place, ["list", "--json-lines", &archive]).unwrap();
            judge.extract_list(&place, &world.repository, &name).unwrap();
        }
        // Statistics need the chunks cache: that is built from the item streams, by a parser that is not the one of the commands above.
        judge.info_json(&place, &world.repository, None).unwrap();
    }
}

/// Every object that was ever committed and not compacted away, as it is stored: a superseded one as well.
pub fn envelopes(repository: &Path) -> Vec<(Id, Vec<u8>)> {
    let mut segments = BTreeMap::new();
    for directory in fs::read_dir(repository.join("data")).unwrap().map(Result::unwrap) {
        for entry in fs::read_dir(directory.path()).unwrap().map(Result::unwrap) {
            segments.insert(entry.file_name().to_string_lossy().parse::<u64>().unwrap(), entry.path());
        }
    }
    let mut found = Vec::new();
    for path in segments.values() {
        let bytes = fs::read(path).unwrap();
        let mut rest = bytes.strip_prefix(&MAGIC).unwrap();
        while rest.len() >= HEADER {
            let header = Header::parse(rest).unwrap();
            let Some((entry, behind)) = rest.split_at_checked(header.size as usize) else { break };
            if header.tag == Tag::Put {
                found.push((Id(entry[HEADER..PUT_HEADER].try_into().unwrap()), entry[PUT_HEADER..].to_vec()));
            }
            rest = behind;
        }
    }
    found
}

/// The object as it is stored last.
pub fn envelope(repository: &Path, id: &Id) -> Option<Vec<u8>> {
    envelopes(repository).into_iter().rev().find(|(found, _)| found == id).map(|(_, envelope)| envelope)
}
