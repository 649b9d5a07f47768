//! What makes an archive odd: it has far less than those before it, or its client's clock is wrong.
//!
//! A client decides what it sends. Nothing here keeps an archive out, and an archive without a doubt may still be worthless: this only sees
//! to it that a person hears of what a quiet success would hide.

use crate::failures::of_store;
use crate::owner::Owner;
use model::progress::Statistics;
use model::{Archive, ConfigName, Failure};
use store::ArchiveFilter;

/// How many of a config's archives count. What stays small for so long is no longer odd.
const BEFORE: usize = 10;

/// An archive with less than one in so many of the files or bytes is suspicious.
const SHRUNK: u64 = 20;

/// Below these, numbers go up and down without a meaning.
const FEW_FILES: u64 = 20;
const FEW_BYTES: u64 = 1 << 20;

/// Minutes that the client's clock may be wrong.
const MINUTES: i64 = 10;

/// Notes in the record what is odd about this archive.
pub fn note(owner: &Owner, archive: &mut Archive) -> Result<(), Failure> {
    archive.warnings.extend(clock(archive));
    if !archive.incomplete {
        let config = ConfigName { client: archive.client.clone(), label: archive.label.clone() };
        let filter = ArchiveFilter { repository: Some(owner.name.clone()), config: Some(config), ..ArchiveFilter::default() };
        let before = owner.store.read(|r| r.archives().page(&filter, 2 * BEFORE)).map_err(|e| of_store(&e))?;
        let before = before.iter().filter(|a| !a.incomplete).take(BEFORE).map(|a| &a.statistics);
        if let Some(warning) = shrunk(&archive.statistics, before) {
            archive.suspicious = true;
            archive.warnings.push(warning);
        }
    }
    archive.warnings.iter().for_each(|warning| log::warn!("job {}: {warning}", archive.job));
    Ok(())
}

/// The largest of those before is what counts: several small ones in a row must not make each other look normal.
fn shrunk<'a>(now: &Statistics, before: impl Iterator<Item = &'a Statistics>) -> Option<String> {
    let (mut files, mut bytes) = (0, 0);
    for statistics in before {
        files = files.max(statistics.nfiles);
        bytes = bytes.max(statistics.original_size);
    }
    let is_empty = now.nfiles == 0 && files > 0;
    let fewer = files >= FEW_FILES && now.nfiles < files / SHRUNK;
    let less = bytes >= FEW_BYTES && now.original_size < bytes / SHRUNK;
    (is_empty || fewer || less).then(|| {
        format!(
            "the archive has {} files and {} bytes, one of the last {BEFORE} of this config had {files} files and {bytes} bytes: \
             look at the client before anything is removed that is older",
            now.nfiles, now.original_size
        )
    })
}

/// The clock of the client, as far as its archive tells.
fn clock(archive: &Archive) -> Option<String> {
    let from = archive.start.plus_seconds(-60 * MINUTES);
    let to = archive.end.plus_seconds(60 * MINUTES);
    let claimed =
        |what: &str| archive.claims.iter().find_map(|claim| claim.strip_prefix(what).and_then(|text| borg::time::parse(text).ok()));
    let wrong = |time: &i64| !(from.0..=to.0).contains(time);
    let time = ["time=", "time_end="].into_iter().filter_map(claimed).find(wrong)?;
    let time = borg::time::format(time);
    Some(format!("the client's clock is wrong by more than {MINUTES} minutes: it says {time}; the archive has this server's time"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Timestamp;
    use model::progress::SessionCounters;

    fn statistics(nfiles: u64, original_size: u64) -> Statistics {
        Statistics { nfiles, original_size, ..Statistics::default() }
    }

    fn is_odd(now: (u64, u64), before: &[(u64, u64)]) -> bool {
        let before: Vec<_> = before.iter().map(|(files, bytes)| statistics(*files, *bytes)).collect();
        shrunk(&statistics(now.0, now.1), before.iter()).is_some()
    }

    #[test]
    fn a60_far_less_than_before() {
        assert!(!is_odd((0, 0), &[]), "a first archive may be empty");
        assert!(!is_odd((0, 0), &[(0, 0)]));
        assert!(is_odd((0, 0), &[(1, 5)]));
        assert!(is_odd((4, 9 << 20), &[(100, 9 << 20)]));
        assert!(!is_odd((5, 9 << 20), &[(100, 9 << 20)]));
        assert!(is_odd((100, 1 << 20), &[(100, 21 << 20)]));
        assert!(!is_odd((1, 1), &[(19, 1 << 19)]), "a handful of files");
        assert!(is_odd((1, 1), &[(1, 1), (0, 0), (100, 9 << 20)]), "the small ones before do not excuse it");
    }

    #[test]
    fn a51_a_clock_that_is_wrong() {
        let day = 86_400_000_000;
        let noon = Timestamp(borg::time::parse("2026-01-02T12:00:00.000000").unwrap());
        let says = |claim: &str| {
            let archive = Archive {
                id: String::new(),
                name: "a".into(),
                repository: "r".parse().unwrap(),
                client: "c".parse().unwrap(),
                label: "l".parse().unwrap(),
                job: 1,
                comment: String::new(),
                statistics: Statistics::default(),
                counters: SessionCounters::default(),
                start: Timestamp(noon.0 - day),
                end: noon,
                incomplete: false,
                view_digest: String::new(),
                claims: vec!["hostname=x".into(), claim.into()],
                suspicious: false,
                warnings: vec![],
            };
            clock(&archive)
        };
        for right in ["time=2026-01-01T11:55:00.000000", "time=2026-01-02T12:09:00.000000", "time_end=2026-01-02T00:00:00.000000", "time=x"]
        {
            assert_eq!(says(right), None, "{right}");
        }
        for wrong in ["time=2026-01-01T11:49:00.000000", "time_end=2026-01-02T12:11:00.000000", "time=9999-12-31T23:59:59.999999"] {
            assert!(says(wrong).is_some_and(|warning| warning.contains(wrong.split_once('=').unwrap().1)), "{wrong}");
        }
    }
}
