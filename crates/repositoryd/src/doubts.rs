//! What makes an archive odd: it has far less than those before it, nearly all of it is new and cannot be compressed, or its client's clock
//! is wrong.
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

/// So many archives tell what a config usually has.
const HISTORY: usize = 5;

/// An archive of which more than so many hundredths are new is suspicious, if that is so many times what was new in the middle
/// one of those before.
const CHURN: u64 = 25;
const MORE: u64 = 5;

/// So many hundredths of what is new are left when it is compressed: that looks like encrypted. What the config had before was compressed
/// to fewer.
const INCOMPRESSIBLE: u64 = 97;
const COMPRESSIBLE: u64 = 80;

/// Below these, numbers go up and down without a meaning.
const FEW_FILES: u64 = 20;
const FEW_BYTES: u64 = 1 << 20;

/// Minutes that the client's clock may be wrong.
const MINUTES: i64 = 10;

/// Notes in the record what is odd about this archive. `fresh` are the bytes of what it was the first to store, before compression.
pub fn note(owner: &Owner, archive: &mut Archive, fresh: u64) -> Result<(), Failure> {
    archive.warnings.extend(clock(archive));
    if !archive.incomplete {
        let config = ConfigName { client: archive.client.clone(), label: archive.label.clone() };
        let filter = ArchiveFilter { repository: Some(owner.name.clone()), config: Some(config), ..ArchiveFilter::default() };
        let before = owner.store.read(|r| r.archives().page(&filter, 2 * BEFORE)).map_err(|e| of_store(&e))?;
        let before = || before.iter().filter(|a| !a.incomplete);
        let all: Vec<&Statistics> = before().take(BEFORE).map(|a| &a.statistics).collect();
        let good: Vec<&Statistics> = before().filter(|a| !a.suspicious).take(BEFORE).map(|a| &a.statistics).collect();
        let doubts = [shrunk(&archive.statistics, all.into_iter()), churned(&archive.statistics, fresh, &good)];
        for doubt in doubts.into_iter().flatten() {
            archive.suspicious = true;
            archive.warnings.push(doubt);
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

/// Whether files may have been encrypted on the client: far more than usual is new, and hardly any of it can be compressed, although what
/// there was before could. `good` are archives without a doubt.
fn churned(now: &Statistics, fresh: u64, good: &[&Statistics]) -> Option<String> {
    if good.len() < HISTORY || now.original_size < FEW_BYTES {
        return None;
    }
    let hundredths = |part: u64, whole: u64| part.saturating_mul(100) / whole.max(1);
    let new = hundredths(fresh, now.original_size);
    let left = hundredths(now.deduplicated_size, fresh);
    let mut usual: Vec<u64> = good.iter().map(|s| hundredths(s.deduplicated_size, s.compressed_size)).collect();
    let mut sizes: Vec<u64> = good.iter().map(|s| hundredths(s.compressed_size, s.original_size)).collect();
    usual.sort_unstable();
    sizes.sort_unstable();
    // Of the first archive all was new, and of one after an upgrade much.
    let [usual, size] = [&usual, &sizes].map(|sorted| sorted.get(sorted.len() / 2).copied().unwrap_or(100));
    let is_odd = new >= CHURN && new >= usual.saturating_mul(MORE) && left >= INCOMPRESSIBLE && size <= COMPRESSIBLE;
    is_odd.then(|| {
        format!(
            "{new} % of the archive is new and cannot be compressed; in the last {} archives of this config usually {usual} % was new, \
             and compressed to {size} %: files may have been encrypted on the client, look at it before anything is removed that is older",
            good.len()
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

    /// Of an archive of 100 MiB.
    fn stored(compressed: u64, new: u64) -> Statistics {
        let mib = |n: u64| n << 20;
        Statistics { nfiles: 100, original_size: mib(100), compressed_size: mib(compressed), deduplicated_size: mib(new) }
    }

    #[test]
    fn a61_much_is_new_and_cannot_be_compressed() {
        // The first one stored all of it, the others a little.
        let usual = [stored(50, 50), stored(50, 1), stored(50, 2), stored(50, 0), stored(51, 1)];
        let is_odd =
            |now: Statistics, fresh: u64, before: &[Statistics]| churned(&now, fresh << 20, &before.iter().collect::<Vec<_>>()).is_some();
        assert!(is_odd(stored(100, 100), 100, &usual), "all of it");
        assert!(is_odd(stored(65, 30), 30, &usual), "a third of it");
        assert!(!is_odd(stored(100, 100), 100, &usual[1..]), "too few to compare with");
        assert!(!is_odd(stored(52, 5), 5, &usual), "a little");
        assert!(!is_odd(stored(50, 50), 100, &usual), "much is new, and like what there was before: an upgrade");
        assert!(!is_odd(stored(80, 30), 90, &usual), "half of what is new");
        let photos = [stored(99, 99), stored(100, 1), stored(100, 2), stored(100, 0), stored(100, 1)];
        assert!(!is_odd(stored(100, 100), 100, &photos), "nothing of it could ever be compressed");
        let busy = [stored(50, 50), stored(50, 10), stored(50, 4), stored(50, 9), stored(50, 5)];
        assert!(!is_odd(stored(65, 30), 30, &busy), "much is always new");
        let small = Statistics { original_size: 1000, compressed_size: 1000, deduplicated_size: 1000, nfiles: 1 };
        assert!(churned(&small, 1000, &usual.iter().collect::<Vec<_>>()).is_none(), "a handful of bytes");
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
                hold: None,
                pending_deletion: None,
                imported: None,
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
