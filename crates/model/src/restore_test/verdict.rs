//! What a test has found, from everything that is known: pure.

use super::{Ending, Expected, Known, TestRecord};
use crate::cause::{Cause, Failure};
use crate::time::Timestamp;
use std::collections::BTreeMap;

/// A file that was extracted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extracted {
    /// Its path in the archive, as it is shown to people.
    pub shown: String,
    /// Its path in the archive, if that is text.
    pub text: Option<String>,
    /// What the record of tests says of it now.
    pub known: Known,
    /// What is wrong with the extraction. None: it is whole.
    pub damage: Option<String>,
    /// What the client says of the same path.
    pub live: Live,
}

/// What a client has at a path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Live {
    /// Nobody was asked.
    #[default]
    NotAsked,
    /// It said nothing about it, or nothing that makes sense.
    Silent,
    /// Nothing, or something that is no file, or may not be read.
    Gone,
    /// A file of another size or time of modification, or one that changed while it was read.
    Changed,
    /// A file of the same size and time of modification, with this SHA-256; and whether its status was changed since the backup.
    Same {
        /// Of its content.
        content: String,
        /// Its ctime is not that of the archive. None: not known.
        touched: Option<bool>,
    },
}

/// How many files were compared, and with what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compared {
    /// The same as recorded by an earlier test.
    pub recorded: u64,
    /// The same as a person expects.
    pub expected: u64,
    /// The same as on the client.
    pub live: u64,
    /// Changed on the client since.
    pub changed: u64,
    /// Not there any more.
    pub gone: u64,
    /// Seen by a test for the first time, or for the first time since they changed: recorded.
    pub first_seen: u64,
}

impl Compared {
    /// Whether anything was.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.recorded + self.expected + self.live > 0
    }
}

/// What comes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// For the record.
    pub ending: Ending,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// What a person should know all the same.
    pub warnings: Vec<String>,
    /// Lines about single files.
    pub notes: Vec<String>,
    /// In numbers.
    pub compared: Compared,
    /// What the record keeps; empty if the test failed.
    pub files: Vec<Known>,
}

/// Files of which a line is written.
const NAMED: usize = 50;

/// Decides. `missing`: expected files that are not in the archive.
#[must_use]
pub fn judge(files: &[Extracted], known: &[Known], expect: &[Expected], missing: &[String], live: bool, now: Timestamp) -> Verdict {
    let known: BTreeMap<&str, &Known> = known.iter().map(|known| (known.path.as_str(), known)).collect();
    let expect: BTreeMap<&str, &str> = expect.iter().map(|e| (e.path.trim_start_matches('/'), e.sha256.as_str())).collect();
    let (mut compared, mut damaged, mut differs, mut live_differs) = (Compared::default(), vec![], vec![], vec![]);
    for path in missing {
        differs.push(format!("{path}: a hash was given, and it is no file in the archive"));
    }
    for file in files {
        let shown = &file.shown;
        if let Some(damage) = &file.damage {
            damaged.push(format!("{shown}: {damage}"));
            continue;
        }
        match known.get(file.known.path.as_str()) {
            Some(before) if before.item == file.known.item => match unlike(before, &file.known) {
                None => compared.recorded += 1,
                Some(what) => differs.push(format!("{shown}: {what}, although nothing about it has changed in the archive")),
            },
            _ => compared.first_seen += 1,
        }
        if let Some(wanted) = file.text.as_deref().and_then(|text| expect.get(text)) {
            if wanted.eq_ignore_ascii_case(&file.known.content) {
                compared.expected += 1;
            } else {
                differs.push(format!("{shown}: its SHA-256 is {}, and {wanted} was expected", file.known.content));
            }
        }
        match &file.live {
            Live::NotAsked | Live::Silent => {}
            Live::Gone => compared.gone += 1,
            Live::Changed => compared.changed += 1,
            Live::Same { content, .. } if *content == file.known.content => compared.live += 1,
            Live::Same { content, touched } => {
                let touched = match touched {
                    Some(true) => "; its ctime is newer than the backup: somebody wrote to it and set its time back",
                    Some(false) => "; its ctime is that of the backup: the client's disk or memory, or the archive, is wrong",
                    None => "",
                };
                live_differs.push(format!(
                    "{shown}: the client has the same size and time of modification, and another content: SHA-256 {content} there, {} in the archive{touched}",
                    file.known.content
                ));
            }
        }
    }
    let silent = files.iter().filter(|file| file.damage.is_none() && file.live == Live::Silent).count();
    let mut warnings = vec![];
    let failure = first(&damaged, |n, first| {
        Failure::new(Cause::RestoreTestDamaged, format!("{} cannot be restored whole{}: {first}", count(n), which(n)))
    })
    .or_else(|| {
        first(&differs, |n, first| {
            Failure::new(Cause::RestoreTestDiffers, format!("{} not what was recorded or expected{}: {first}", are(n), which(n)))
        })
    })
    .or_else(|| {
        first(&live_differs, |n, first| {
            Failure::new(Cause::RestoreTestLiveDiffers, format!("{} not what is on the client{}: {first}", are(n), which(n)))
        })
    });
    if silent > 0 {
        warnings.push(format!("the client said nothing usable about {}", count(silent)));
    }
    if failure.is_none() && live && compared.live == 0 {
        warnings.push(format!(
            "nothing could be compared with the live client: {} changed there since the backup, {} gone or unreadable",
            compared.changed, compared.gone
        ));
    }
    if failure.is_none() && !compared.is_any() {
        warnings.push(match compared.first_seen {
            0 => "no file was tested; this is no good test".to_owned(),
            n => format!(
                "{}, nothing to compare with yet; this is no good test. The next one compares with what was recorded, --live with the client, --expect with your own hashes",
                recorded(n as usize)
            ),
        });
    }
    let ending = match (&failure, compared.is_any()) {
        (Some(_), _) => Ending::Failed,
        (None, true) => Ending::Good,
        (None, false) => Ending::Unproven,
    };
    let keep = ending != Ending::Failed;
    let files = files.iter().filter(|_| keep).map(|file| Known { time: now, ..file.known.clone() }).collect();
    let notes = [damaged, differs, live_differs].concat().into_iter().take(NAMED).collect();
    Verdict { ending, failure, warnings, notes, compared, files }
}

fn first<R>(all: &[String], make: impl FnOnce(usize, &String) -> R) -> Option<R> {
    all.first().map(|first| make(all.len(), first))
}

fn count(n: usize) -> String {
    if n == 1 { "1 file".into() } else { format!("{n} files") }
}

/// Of many files, only so many are kept in mind.
fn recorded(n: usize) -> String {
    let most = TestRecord::MOST;
    if n <= most { format!("{} recorded", count(n)) } else { format!("{} seen for the first time and {most} of them recorded", count(n)) }
}

fn are(n: usize) -> String {
    if n == 1 { "1 file is".into() } else { format!("{n} files are") }
}

fn which(n: usize) -> &'static str {
    if n == 1 { "" } else { ", the first" }
}

/// What has changed of what cannot have.
fn unlike(before: &Known, now: &Known) -> Option<String> {
    if before.content != now.content {
        return Some(format!("its SHA-256 is {}, and a test on {} had recorded {}", now.content, before.time.to_local(), before.content));
    }
    // Permissions may change without the content; within one archive they cannot.
    let same = (before.mode, before.uid, before.gid, before.size) == (now.mode, now.uid, now.gid, now.size);
    (before.archive == now.archive && !same)
        .then(|| format!("its mode, owner or size is not what a test on {} had recorded of the same archive", before.time.to_local()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(path: &str, content: u8) -> Known {
        Known {
            path: path.into(),
            item: "item".into(),
            content: format!("{content:02x}").repeat(32),
            archive: "a".into(),
            mode: 0o100_644,
            uid: 0,
            gid: 0,
            size: 5,
            mtime: 0,
            time: Timestamp(1),
        }
    }

    fn file(path: &str, content: u8, live: Live) -> Extracted {
        Extracted { shown: path.into(), text: Some(path.into()), known: known(path, content), damage: None, live }
    }

    fn word(verdict: &Verdict) -> &'static str {
        verdict.failure.as_ref().map_or("", |failure| failure.cause.word())
    }

    #[test]
    fn a_test_without_anything_to_compare_with_is_not_good() {
        let verdict = judge(&[file("a", 1, Live::NotAsked)], &[], &[], &[], false, Timestamp(9));
        assert_eq!((verdict.ending, verdict.compared.first_seen, verdict.files.len()), (Ending::Unproven, 1, 1));
        assert!(verdict.warnings[0].contains("1 file recorded, nothing to compare with yet"), "{verdict:?}");
        assert_eq!(verdict.files[0].time, Timestamp(9));
        assert_eq!(recorded(400), "400 files recorded");
        assert_eq!(recorded(2000), "2000 files seen for the first time and 400 of them recorded");
        let none = judge(&[], &[], &[], &[], false, Timestamp(9));
        assert!(none.ending == Ending::Unproven && none.warnings[0].contains("no file was tested"));
        let gone = [file("a", 1, Live::Gone), file("b", 1, Live::Changed)];
        let verdict = judge(&gone, &[], &[], &[], true, Timestamp(9));
        assert_eq!((verdict.ending, verdict.compared.gone, verdict.compared.changed), (Ending::Unproven, 1, 1));
        assert!(verdict.warnings[0].contains("1 changed there"), "{verdict:?}");
    }

    #[test]
    fn recorded_hashes_bind_what_has_not_changed() {
        let good = judge(&[file("a", 1, Live::NotAsked)], &[known("a", 1)], &[], &[], false, Timestamp(9));
        assert_eq!((good.ending, good.compared.recorded), (Ending::Good, 1));
        let bad = judge(&[file("a", 2, Live::NotAsked)], &[known("a", 1)], &[], &[], false, Timestamp(9));
        assert_eq!((bad.ending, word(&bad), bad.files.len()), (Ending::Failed, "restore-test-differs", 0));
        let changed = Known { item: "other".into(), ..known("a", 1) };
        let new = judge(&[file("a", 2, Live::NotAsked)], &[changed], &[], &[], false, Timestamp(9));
        assert_eq!((new.ending, new.compared.first_seen), (Ending::Unproven, 1));
        // Another mode in another archive is somebody's chmod; in the same one it is not.
        let other = Known { mode: 0o100_600, archive: "b".into(), ..known("a", 1) };
        assert_eq!(
            judge(&[file("a", 1, Live::NotAsked)], std::slice::from_ref(&other), &[], &[], false, Timestamp(9)).ending,
            Ending::Good
        );
        let same = Known { archive: "a".into(), ..other };
        assert_eq!(judge(&[file("a", 1, Live::NotAsked)], &[same], &[], &[], false, Timestamp(9)).ending, Ending::Failed);
    }

    #[test]
    fn expectations_are_met_or_the_test_fails() {
        let expect = |sha256: &str| [Expected { path: "/a".into(), sha256: sha256.repeat(32) }];
        let files = [file("a", 0xab, Live::NotAsked)];
        assert_eq!(judge(&files, &[], &expect("AB"), &[], false, Timestamp(9)).ending, Ending::Good);
        assert_eq!(word(&judge(&files, &[], &expect("ac"), &[], false, Timestamp(9))), "restore-test-differs");
        assert_eq!(word(&judge(&files, &[], &[], &["b".into()], false, Timestamp(9))), "restore-test-differs");
    }

    #[test]
    fn the_live_client_differs_only_with_the_same_size_and_time() {
        let same = |content: u8, touched| Live::Same { content: format!("{content:02x}").repeat(32), touched };
        assert_eq!(judge(&[file("a", 1, same(1, Some(true)))], &[], &[], &[], true, Timestamp(9)).ending, Ending::Good);
        let bad = judge(&[file("a", 1, same(2, Some(true)))], &[], &[], &[], true, Timestamp(9));
        assert_eq!(word(&bad), "restore-test-live-differs");
        assert!(bad.failure.unwrap().message.contains("set its time back"));
        let rotten = judge(&[file("a", 1, same(2, Some(false)))], &[], &[], &[], true, Timestamp(9));
        assert!(rotten.failure.unwrap().message.contains("ctime is that of the backup"));
        let silent = judge(&[file("a", 1, Live::Silent)], &[], &[], &[], true, Timestamp(9));
        assert!(silent.ending == Ending::Unproven && silent.warnings[0].contains("nothing usable"));
    }

    #[test]
    fn damage_comes_first() {
        let damaged = Extracted { damage: Some("lost".into()), ..file("a", 1, Live::Same { content: "x".into(), touched: None }) };
        let verdict = judge(&[damaged, file("b", 2, Live::NotAsked)], &[known("b", 1)], &[], &[], false, Timestamp(9));
        assert_eq!(word(&verdict), "restore-test-damaged");
        assert_eq!(verdict.notes.len(), 2);
    }
}
