//! An archive of other origin gets a record: what it refers to is looked at, object by object, and written down as a view list.
//!
//! What its list of files refers to, a worker says, which has parsed it and has no key. What the list of files itself consists of is in the
//! metadata, which bear the key's authentication. The repository is not changed.

use super::foreign::quoted;
use super::read::{self, Genuine};
use super::verify::{Findings, verify};
use super::{Stop, Work};
use crate::failures::{internal, of_repository, of_store};
use crate::opening::Opening;
use crate::orphans;
use crate::upkeep::{Attached, Upkeep};
use crate::view;
use crate::viewlist::{Event, Named, ViewList, find, normalise};
use borg::archive::Archive as Metadata;
use borg::{Id, time};
use model::archive::Imported;
use model::progress::{SessionCounters, Statistics};
use model::{Archive, Cause, Failure, Timestamp, import};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use store::ArchiveKey;
use unix::poll::{Interest, poll};
use wire::importing::{Counted, Take, Use, kind as importing};
use wire::maintenance::Report;
use wire::session::{Reference, read_json};
use wire::{WireError, frame};

/// References that are looked at under the lock at a time.
const SLICE: usize = 4096;

/// Something else may change while the objects are read; then they are looked at again, so often.
const TRIES: u32 = 5;

/// Who has a list and its turn says it: without a word for so long, nobody is there any more.
const SILENCE: Duration = Duration::from_secs(600);

/// Two clocks may differ by so many seconds before one of them is wrong.
const TOLERANCE: i64 = 3600;

/// What the archive's files refer to.
struct Uses {
    /// Sorted by id, each id once; no stored sizes.
    references: Vec<Reference>,
    /// How often each is used.
    counts: Vec<u64>,
    counted: Counted,
}

/// Waits for its turn, listens to what the archive refers to, and imports it. Not before: lists are long, and there may be many who import.
pub fn run(work: &Work<'_>, take: &Take) -> Result<Report, Stop> {
    work.alone_while("an import", is_hung_up, || {
        let uses = receive(work)?;
        for _ in 0..TRIES {
            if let Some(report) = import(work, take, &uses)? {
                return Ok(report);
            }
        }
        Err(Failure::new(Cause::RepositoryError, "other archives were deleted all the time; run the import again").into())
    })
}

/// Its list is under way already, so that something to be read tells nothing.
fn is_hung_up(stream: &UnixStream) -> bool {
    poll(&[(stream.as_fd(), Interest::Hangup)], Some(Duration::ZERO)).map_or(true, |ready| ready[0].any())
}

fn receive(work: &Work<'_>) -> Result<Uses, Stop> {
    let silence = |limit| work.stream.set_read_timeout(limit).map_err(|e| internal(format!("a socket has no time limit: {e}")));
    // Everybody else who wants a turn waits.
    silence(Some(SILENCE))?;
    let received = listen(work)?;
    silence(None)?;
    Ok(received)
}

fn listen(work: &Work<'_>) -> Result<Uses, Stop> {
    let settings = work.owner.store.read(|r| r.settings()).map_err(|e| of_store(&e))?;
    let most = settings.map(|settings| settings.sessions).unwrap_or_default().objects;
    let mut uses = Uses { references: vec![], counts: vec![], counted: Counted::default() };
    let mut input = &work.stream;
    let mut payload = vec![];
    let nonsense = |e: WireError| Stop::from(internal(format!("what an archive refers to is not understood: {e}")));
    loop {
        match frame::read(&mut input, &mut payload) {
            Ok(importing::USES) => {}
            Ok(importing::COUNTED) => {
                uses.counted = read_json(&payload).map_err(nonsense)?;
                return Ok(uses);
            }
            Ok(other) => return Err(internal(format!("a worker sent a frame of type {other}")).into()),
            Err(e) => {
                log::debug!("whoever imports is gone: {e}");
                return Err(Stop::Gone);
            }
        }
        for Use { id, size, count } in Use::decode_all(&payload).map_err(nonsense)? {
            if uses.references.last().is_some_and(|last| last.id >= id) {
                return Err(internal("what an archive refers to does not come in order").into());
            }
            uses.references.push(Reference { id, size, csize: 0 });
            uses.counts.push(count);
        }
        if uses.references.len() as u64 > most {
            let message = format!("the archive refers to more than {most} chunks; `borgcube settings edit` raises that");
            return Err(Failure::new(Cause::QuotaExceeded { limit: "objects".into() }, message).into());
        }
    }
}

/// None if something went while it was looked at.
fn import(work: &Work<'_>, take: &Take, uses: &Uses) -> Result<Option<Report>, Stop> {
    let attached = work.attach()?;
    let opening = &attached.opening;
    let Genuine { metadata, is_signed, .. } = match subject(work, &attached, take)? {
        Ok(genuine) => genuine,
        Err(why) => return Ok(Some(refused(why))),
    };
    let losses = opening.known().losses();
    // The list of files consists of chunks as well; what a file says about the size of the same one counts.
    let mut references = uses.references.clone();
    references.extend(metadata.items.iter().map(|id| Reference { id: id.0, size: 0, csize: 0 }));
    references.sort_unstable_by_key(|reference| (reference.id, reference.size == 0));
    references.dedup_by_key(|reference| reference.id);

    let mut findings = Findings::default();
    missing(opening, &references, &mut findings)?;
    let records = orphans::records(work.owner)?;
    let new = if findings.count == 0 { unlisted(work, &records, &mut references, &mut findings)? } else { vec![] };
    let stored = new.clone();
    if findings.count == 0 {
        verify(work, opening, &mut references, new, &mut findings)?;
    }
    if findings.count > 0 {
        let why = format!("{} of the chunks that it refers to are missing or damaged", findings.count);
        return Ok(Some(Report::Refused { why, count: findings.count, unusable: findings.shown() }));
    }
    let deduplicated = stored.iter().filter_map(|at| references.get(*at)).map(|reference| u64::from(reference.csize)).sum();
    let chunks = references.len() as u64;
    let statistics = Statistics { deduplicated_size: deduplicated, ..statistics(uses, &references) };
    normalise(&mut references);
    let list = ViewList { references, new: vec![] };
    let archive = record(work, take, &metadata, is_signed, statistics, uses.counted);
    let warnings = archive.warnings.clone();
    let staged = view::lists(work.owner).stage_again(&archive.id, &list, base(&records, &archive).as_ref())?;
    let Some(staged) = staged else {
        let why = "BorgCube had a list of its chunks before, which says something else, and the lists of other archives build on it: import it \
                   again when those archives are gone";
        return Ok(Some(refused(why.into())));
    };
    let opening = opening.clone();
    let done = work.ask(|reply| Upkeep::Adopt { opening, archive: Box::new(archive), list: staged, losses, reply })?;
    Ok(done.then_some(Report::Imported { chunks, statistics, warnings }))
}

fn refused(why: String) -> Report {
    Report::Refused { why: unix::logging::escape(&why), unusable: vec![], count: 0 }
}

/// The metadata of the archive that is meant; or why it can't be imported.
fn subject(work: &Work<'_>, attached: &Attached, take: &Take) -> Result<Result<Genuine, String>, Stop> {
    let id = Id::from_hex(&take.id).map_err(|_| internal(format!("{:?} is no archive's id", take.id)))?;
    if attached.archives.get(&take.name) != Some(&id) {
        return Ok(Err("it is not in the repository any more".into()));
    }
    let key = ArchiveKey { repository: work.owner.name.clone(), id: take.id.clone() };
    if work.owner.store.read(|r| r.archives().exists(&key)).map_err(|e| of_store(&e))? {
        return Ok(Err("it has a record already".into()));
    }
    if take.name.contains(char::REPLACEMENT_CHARACTER) {
        return Ok(Err("its name is not valid UTF-8; `borg rename` gives it another one".into()));
    }
    Ok(match read::metadata(work, &attached.opening, &id)? {
        Err(why) => Err(format!("its metadata: {why}")),
        Ok(genuine) if genuine.metadata.name != take.name.as_bytes() => {
            Err(format!("its metadata call it {:?}", quoted(&genuine.metadata.name)))
        }
        Ok(genuine) => Ok(genuine),
    })
}

/// What is not there; or is there only because a running backup has sent it, and goes again if that breaks off.
fn missing(opening: &Opening, references: &[Reference], findings: &mut Findings) -> Result<(), Stop> {
    let mut sweep = opening.sweep(references.len())?;
    let mut seen = Vec::with_capacity(SLICE);
    for part in references.chunks(SLICE) {
        seen.clear();
        for reference in part {
            let id = Id(reference.id);
            seen.push(match &mut sweep {
                Some(sweep) => Some(sweep.see(&id).map_err(|e| of_repository(&e))?),
                None => opening.see(&id)?,
            });
        }
        let known = opening.known();
        for (reference, seen) in part.iter().zip(&seen) {
            let id = Id(reference.id);
            if !known.contains_seen(&id, *seen).map_err(|e| of_repository(&e))? {
                findings.add(id, "it is not in the repository");
            } else if known.is_fresh(&id) {
                findings.add(id, "it was missing, and a backup that runs has just sent it: import again when that has ended");
            }
        }
    }
    Ok(())
}

/// Fills in the sizes of what other imported archives refer to as well, which was looked at then; gives the places of the others. What was made
/// here is looked at once more: a client may have sent what was in the repository already, and then nobody has read that.
fn unlisted(work: &Work<'_>, records: &[Archive], references: &mut [Reference], findings: &mut Findings) -> Result<Vec<usize>, Stop> {
    let named: Vec<Named> = records.iter().filter(|archive| archive.imported.is_some()).map(Named::of).collect();
    let mut listed = vec![false; references.len()];
    let mut at = 0;
    let scanned = view::lists(work.owner).scan(&named, &mut |event| {
        let reference = match event {
            Event::Tree { .. } => {
                at = 0;
                return;
            }
            Event::Reference(reference) => reference,
        };
        while references.get(at).is_some_and(|ours| ours.id < reference.id) {
            at += 1;
        }
        if let Some(ours) = references.get_mut(at).filter(|ours| ours.id == reference.id) {
            // Only a client's word for the stored size may be missing; then it is read.
            if reference.csize != 0 && !listed[at] {
                listed[at] = true;
                if ours.size != 0 && ours.size != reference.size {
                    findings.add(Id(ours.id), &format!("it has {} bytes, and the archive says {}", reference.size, ours.size));
                }
                (ours.size, ours.csize) = (reference.size, reference.csize);
            }
        }
    });
    // A list that is lost says nothing, and what only it has is read.
    scanned.map_err(|e| internal(e.to_string()))?.iter().for_each(|e| log::warn!("{e}"));
    Ok(listed.iter().enumerate().filter(|(_, listed)| !**listed).map(|(at, _)| at).collect())
}

/// Borg 1.x: an archive's totals are those of its files; neither parts nor the list of files are in them.
fn statistics(uses: &Uses, references: &[Reference]) -> Statistics {
    let mut statistics = Statistics { nfiles: uses.counted.files, ..Statistics::default() };
    for (used, count) in uses.references.iter().zip(&uses.counts) {
        let Some(reference) = find(references, &Id(used.id)) else { continue };
        let times = |size: u32| u64::from(size).saturating_mul(*count);
        statistics.original_size = statistics.original_size.saturating_add(times(reference.size));
        statistics.compressed_size = statistics.compressed_size.saturating_add(times(reference.csize));
    }
    statistics
}

/// What the list can be the difference to: that of the config's newest archive before this one.
fn base(records: &[Archive], archive: &Archive) -> Option<Named> {
    let same = |other: &&Archive| other.client == archive.client && other.label == archive.label && !other.incomplete;
    let before = records.iter().filter(same).filter(|other| other.start <= archive.start).max_by_key(|other| other.start);
    before.or_else(|| records.iter().filter(same).min_by_key(|other| other.start)).map(Named::of)
}

fn record(work: &Work<'_>, take: &Take, metadata: &Metadata, signed: bool, statistics: Statistics, counted: Counted) -> Archive {
    let now = Timestamp::now();
    let (start, end, wrong) = times(metadata, now);
    let mut warnings: Vec<String> = wrong.into_iter().collect();
    if !signed {
        warnings.push("its metadata are not signed (TAM), as older borgs leave them".into());
    }
    if counted.repaired > 0 {
        warnings.push(format!("in {} of its files, a repair has replaced lost parts by zeros", counted.repaired));
    }
    if import::is_checkpoint(&take.name) {
        warnings.push("by its name it is a checkpoint of a backup that broke off: files may be missing".into());
    }
    Archive {
        id: take.id.clone(),
        name: take.name.clone(),
        repository: work.owner.name.clone(),
        client: take.config.client.clone(),
        label: take.config.label.clone(),
        job: take.job,
        comment: quoted(metadata.comment.as_deref().unwrap_or_default()),
        statistics,
        counters: SessionCounters::default(),
        start,
        end,
        incomplete: false,
        view_digest: String::new(),
        claims: claims(metadata),
        suspicious: false,
        warnings,
        hold: None,
        pending_deletion: None,
        imported: Some(Imported { time: now, by: take.by.clone(), signed }),
    }
}

/// When it was made, as it says. A time that cannot be is replaced by the present one, and what is wrong with it told.
fn times(metadata: &Metadata, now: Timestamp) -> (Timestamp, Timestamp, Option<String>) {
    let parse = |text: &str| time::parse(text).ok().map(Timestamp).filter(|time| *time <= now.plus_seconds(TOLERANCE));
    let end = |start: Timestamp| {
        let end = metadata.time_end.as_deref().and_then(parse);
        end.filter(|end| *end >= start).unwrap_or(start)
    };
    match parse(&metadata.time) {
        Some(start) => (start, end(start), None),
        None => {
            let said = quoted(metadata.time.as_bytes());
            (now, now, Some(format!("it says that it was made at {said}, which cannot be: here it has the time of the import")))
        }
    }
}

/// What its maker says.
fn claims(metadata: &Metadata) -> Vec<String> {
    let mut claims = vec![];
    let mut claim = |what: &str, value: Option<&[u8]>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            claims.push(format!("{what}={}", quoted(value)));
        }
    };
    claim("hostname", metadata.hostname.as_deref());
    claim("username", metadata.username.as_deref());
    claim("time", Some(metadata.time.as_bytes()));
    claim("time_end", metadata.time_end.as_deref().map(str::as_bytes));
    claim("cmdline", Some(&metadata.cmdline.join(&b' ')));
    claims
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(time: &str, end: Option<&str>) -> Metadata {
        Metadata { time: time.into(), time_end: end.map(Into::into), ..Metadata::default() }
    }

    #[test]
    fn times_are_what_the_archive_says_unless_they_cannot_be() {
        let at = |text: &str| Timestamp(time::parse(text).unwrap());
        let (early, late) = ("2026-01-02T03:04:05.000006", "2026-01-02T04:00:00.000000");
        let now = at("2026-02-01T00:00:00.000000");
        assert_eq!(times(&said(early, Some(late)), now), (at(early), at(late), None));
        assert_eq!(times(&said(early, None), now), (at(early), at(early), None));
        assert_eq!(times(&said(late, Some(early)), now), (at(late), at(late), None), "an end before the beginning");
        for wrong in ["9999-12-31T23:59:59.999999", "2026-02-01T02:00:00.000000", "yesterday", ""] {
            let (start, end, why) = times(&said(wrong, Some(late)), now);
            assert_eq!((start, end), (now, now), "{wrong}");
            assert!(why.is_some_and(|why| why.contains(wrong)), "{wrong}");
        }
        // A clock that is a little ahead.
        let ahead = "2026-02-01T00:30:00.000000";
        assert_eq!(times(&said(ahead, None), now), (at(ahead), at(ahead), None));
    }

    #[test]
    fn what_its_maker_says_is_fit_to_be_printed() {
        let metadata = Metadata {
            hostname: Some(b"ho\x1b[2Jst".to_vec()),
            username: Some(vec![b'x'; 5000]),
            cmdline: vec![b"borg".to_vec(), b"create\n".to_vec()],
            ..said("2026-01-02T03:04:05.000006", None)
        };
        let claims = claims(&metadata);
        assert_eq!(claims[0], "hostname=ho\\u{1b}[2Jst");
        assert!(claims[1].len() < 300, "{}", claims[1]);
        assert_eq!(claims.last().unwrap(), "cmdline=borg create\\n");
    }
}
