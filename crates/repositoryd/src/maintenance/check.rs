//! Everything is read beside the backups, and nothing is changed.
//!
//! The log and its objects first, in parallel; then what refers to them: the manifest, the metadata of its archives, and the lists of the archives' chunks.

use super::{Stop, Work};
use crate::failures::of_repository;
use crate::opening::Opening;
use crate::orphans;
use crate::pauses::pause_for_tests;
use crate::view;
use crate::viewlist::Named;
use borg::archive::Archive as Metadata;
use borg::manifest::Manifest;
use borg::{Id, Key, MAX_PLAINTEXT};
use model::{Archive, Cause, Failure};
use repository::{CheckOptions, Reader};
use wire::maintenance::Report;

/// What was found.
#[derive(Default)]
struct Findings {
    errors: Vec<String>,
    count: u64,
    objects: u64,
    bytes: u64,
}

impl Findings {
    fn add(&mut self, error: &str) {
        self.count += 1;
        if self.errors.len() < Report::MAX_ERRORS {
            self.errors.push(unix::logging::escape(error));
        }
    }
}

/// Reads everything; with `verify_data`, each object is decrypted and its id computed from its content.
pub fn check(work: &Work<'_>, verify_data: bool) -> Result<Report, Stop> {
    let attached = work.attach()?;
    let opening = &attached.opening;
    pause_for_tests("check");
    let Some(reader) = opening.reader() else {
        let message = "a repository behind borg serve is checked with `borg check`; release it for that";
        return Err(Failure::new(Cause::RepositoryError, message).into());
    };
    let mut findings = Findings::default();
    objects(work, &reader, verify_data.then_some(&opening.key), &mut findings)?;
    if let Err(error) = manifest(&reader, &opening.key) {
        findings.add(&format!("the manifest: {error}"));
    }
    for (at, (name, id)) in attached.archives.iter().enumerate() {
        work.progress("archives", at as u64, attached.archives.len() as u64)?;
        if let Err(error) = metadata(&reader, &opening.key, name, id)
            && work.attach()?.archives.get(name) == Some(id)
        {
            findings.add(&format!("archive {name}: {error}"));
        }
    }
    let records = orphans::records(work.owner)?;
    for (at, archive) in records.iter().filter(|archive| attached.archives.contains_key(&archive.name)).enumerate() {
        work.progress("lists", at as u64, records.len() as u64)?;
        let found = references(work, opening, &reader, archive);
        if !found.is_empty() && work.attach()?.archives.contains_key(&archive.name) {
            found.iter().for_each(|error| findings.add(&format!("archive {}: {error}", archive.name)));
        }
    }
    let Findings { errors, count, objects, bytes } = findings;
    log::info!("a check found {count} errors");
    Ok(Report::Checked { objects, bytes, errors, error_count: count })
}

/// The log and all objects in it, on all cores, and whether the index says the same.
fn objects(work: &Work<'_>, reader: &Reader, key: Option<&Key>, findings: &mut Findings) -> Result<(), Stop> {
    let verify = key.map(|key| move |id: &Id, envelope: &[u8]| verify(key, id, envelope));
    let options = CheckOptions { verify: verify.as_ref().map(|verify| verify as _), threads: 0 };
    let mut stop = None;
    let mut progress = |done, total| {
        stop = work.progress("bytes", done, total).err();
        stop.is_none()
    };
    let report = reader.check(&options, &mut progress).map_err(|e| of_repository(&e))?;
    if let Some(stop) = stop {
        return Err(stop);
    }
    (findings.objects, findings.bytes) = (report.objects, report.bytes);
    report.findings.iter().for_each(|finding| findings.add(&finding.to_string()));
    findings.count += report.count.saturating_sub(report.findings.len() as u64);
    Ok(())
}

/// Whether an envelope contains what its id promises.
fn verify(key: &Key, id: &Id, envelope: &[u8]) -> Result<(), String> {
    let plain = open(key, envelope)?;
    // The manifest's id is none of its content; its signature is looked at with the archives.
    if *id == Id::MANIFEST || key.id_hash(&plain) == *id { Ok(()) } else { Err("its content is not what its id promises".into()) }
}

fn open(key: &Key, envelope: &[u8]) -> Result<Vec<u8>, String> {
    let payload = key.open(envelope).map_err(|e| e.to_string())?;
    let plain = borg::compress::decompress(&payload, MAX_PLAINTEXT).map_err(|e| e.to_string())?;
    Ok(plain.into_owned())
}

fn fetch(reader: &Reader, key: &Key, id: &Id) -> Result<Vec<u8>, String> {
    let envelope = reader.get(id).map_err(|e| e.to_string())?;
    open(key, &envelope.ok_or("it is not in the repository")?)
}

fn manifest(reader: &Reader, key: &Key) -> Result<(), String> {
    Manifest::parse(&fetch(reader, key, &Id::MANIFEST)?, key).map(drop).map_err(|e| e.to_string())
}

fn metadata(reader: &Reader, key: &Key, name: &str, id: &Id) -> Result<(), String> {
    let packed = fetch(reader, key, id).map_err(|e| format!("its metadata: {e}"))?;
    let parsed = Metadata::parse(&packed).map_err(|e| e.to_string())?;
    // Archives of old borgs have no signature; a wrong one is wrong in any case.
    Metadata::verify_tam(&packed, key).map_err(|e| e.to_string())?;
    if String::from_utf8_lossy(&parsed.name) != name {
        return Err(format!("its metadata calls it {:?}", String::from_utf8_lossy(&parsed.name)));
    }
    for item in &parsed.items {
        if !reader.contains(item).map_err(|e| e.to_string())? {
            return Err(format!("chunk {item} of its list of files is missing"));
        }
    }
    Ok(())
}

/// What is wrong with the chunks of an archive, in at most three sentences.
fn references(work: &Work<'_>, opening: &Opening, reader: &Reader, archive: &Archive) -> Vec<String> {
    let list = match view::lists(work.owner).read(&Named::of(archive)) {
        Ok(list) => list,
        Err(e) => return vec![e.to_string()],
    };
    let (mut missing, mut sizes, mut unreadable) = ((0_u64, None), (0_u64, None), None);
    for reference in &list.references {
        let id = Id(reference.id);
        match reader.entry(&id) {
            Ok(Some(entry)) if entry.size != 0 && entry.size != reference.size => sizes = (sizes.0 + 1, sizes.1.or(Some(id))),
            Ok(Some(_)) => {}
            Ok(None) => missing = (missing.0 + 1, missing.1.or(Some(id))),
            Err(e) => unreadable = Some(e.to_string()),
        }
    }
    let mut found: Vec<String> = unreadable.into_iter().collect();
    if opening.failure().is_some() {
        return found;
    }
    if let (count, Some(first)) = missing {
        found.push(format!("{count} of its chunks are missing, the first one is {first}"));
    }
    if let (count, Some(first)) = sizes {
        found.push(format!("{count} of its chunks have another size, the first one is {first}"));
    }
    found
}
