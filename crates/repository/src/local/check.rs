//! Looks for damage, beside whoever writes. Nothing is repaired.
//!
//! First everything that is committed is read, on several threads: each entry must be where the one before it ends, of a size its tag can
//! have, and bear the right checksum; live objects are handed to whoever can tell what is in them. Then the log is read again from its
//! beginning, by its headers, as an opening without an index would, and what comes of it must be exactly what the index and the statistics
//! say. For that, a moment is needed in which nothing waits for a commit; the writer gives one after each commit.

use super::reader::Reader;
use super::replay::{Entries, Found, Statistics, note, superseded};
use super::shared::Shared;
use super::storage::Stamp;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::index::{self, Index, SegmentState};
use borg::Id;
use borg::segment::{PUT_HEADER, Tag, verify};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often whoever waits hears of it.
const NEWS: Duration = Duration::from_millis(100);

/// How long to wait for a moment in which nothing waits for a commit.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many findings are described; the others are counted.
const DESCRIBED: usize = 1000;

/// Tells whether an object's envelope is that object; why not, if it is not.
pub type Verify<'a> = &'a (dyn Fn(&Id, &[u8]) -> std::result::Result<(), String> + Sync);

/// How to check.
#[derive(Clone, Copy, Default)]
pub struct CheckOptions<'a> {
    /// Asked about every live object, from several threads. Without it, only what the log itself tells is checked.
    pub verify: Option<Verify<'a>>,
    /// Threads that read; 0 for one on each processor.
    pub threads: usize,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The segment it is in.
    pub segment: Option<u32>,
    /// Where in the segment.
    pub offset: Option<u32>,
    /// The object it is about.
    pub id: Option<Id>,
    /// What is wrong.
    pub what: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(segment) = self.segment {
            write!(f, "segment {segment}")?;
            if let Some(offset) = self.offset {
                write!(f, " at {offset}")?;
            }
            f.write_str(": ")?;
        }
        if let Some(id) = self.id {
            write!(f, "object {id}: ")?;
        }
        f.write_str(&self.what)
    }
}

/// What a check has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Live objects that were read.
    pub objects: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// What is wrong, not more than a thousand of it.
    pub findings: Vec<Finding>,
    /// How much is wrong.
    pub count: u64,
    /// Objects of which could not be told whether the index is right, because something waited for a commit all the time.
    pub unjudged: u64,
    /// It was ended before it was done.
    pub stopped: bool,
    /// Segments that were read from beginning to end, and how many live objects each has.
    pub segments: BTreeMap<u32, u64>,
    /// Segments in which something is wrong, or that are gone.
    pub damaged: BTreeSet<u32>,
}

impl CheckReport {
    pub(super) fn add(&mut self, segment: Option<u32>, offset: Option<u32>, id: Option<Id>, what: impl std::fmt::Display) {
        self.count += 1;
        self.damaged.extend(segment);
        if self.findings.len() < DESCRIBED {
            self.findings.push(Finding { segment, offset, id, what: what.to_string() });
        }
    }
}

/// What the writer tells of its last commit.
#[derive(Default)]
pub(super) struct Published {
    state: Mutex<State>,
    told: Condvar,
}

#[derive(Default)]
struct State {
    transaction: Option<u32>,
    statistics: Statistics,
    /// Segments that are being removed.
    vanishing: BTreeSet<u32>,
    wanted: bool,
    moment: Option<Result<Moment>>,
}

/// The repository as it was when nothing waited for a commit.
struct Moment {
    transaction: Option<u32>,
    statistics: Statistics,
    entries: index::Entries,
    /// False if something did wait all the same.
    quiet: bool,
}

impl Published {
    pub(super) fn statistics(&self) -> (Option<u32>, Statistics) {
        let state = self.state();
        (state.transaction, state.statistics.clone())
    }

    /// The same, without a copy; short.
    pub(super) fn with_statistics<T>(&self, look: impl FnOnce(&Statistics) -> T) -> T {
        look(&self.state().statistics)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// The writer says that nothing waits for a commit.
    pub(super) fn publish(&self, transaction: Option<u32>, statistics: &Statistics) {
        let mut state = self.published.state();
        state.transaction = transaction;
        state.statistics.clone_from(statistics);
        if state.wanted && state.vanishing.is_empty() {
            state.wanted = false;
            // With what belongs to it: before it is taken, there may be another commit.
            state.moment =
                Some(self.index.iter().map(|entries| Moment { transaction, statistics: statistics.clone(), entries, quiet: true }));
            self.published.told.notify_all();
        }
        drop(state);
        self.tail().dirty = false;
    }

    /// The writer is about to remove these.
    pub(super) fn publish_vanishing(&self, segments: BTreeSet<u32>) {
        self.published.state().vanishing = segments;
    }

    /// Nothing is removed any more, and only these are left.
    pub(super) fn publish_vanished(&self, left: &Statistics) {
        let mut state = self.published.state();
        state.vanishing.clear();
        state.statistics.retain(|segment, _| left.contains_key(segment));
    }

    /// Waits for a moment; none if `go_on` says no.
    fn moment(&self, go_on: &mut dyn FnMut() -> bool) -> Result<Option<Moment>> {
        let begin = Instant::now();
        self.published.state().moment = None;
        loop {
            let late = begin.elapsed() > PATIENCE;
            {
                let _inside = self.enter();
                let tail = self.tail();
                let mut state = self.published.state();
                if !tail.dirty && state.vanishing.is_empty() || late {
                    let quiet = !tail.dirty;
                    (state.wanted, state.moment) = (false, None);
                    let (transaction, statistics) = (state.transaction, state.statistics.clone());
                    return Ok(Some(Moment { transaction, statistics, entries: self.index.iter()?, quiet }));
                }
            }
            let mut state = self.published.state();
            state.wanted = true;
            let waited = self.published.told.wait_timeout_while(state, NEWS, |state| state.moment.is_none());
            let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if let Some(moment) = state.moment.take() {
                return moment.map(Some);
            }
            drop(state);
            if !go_on() {
                self.published.state().wanted = false;
                return Ok(None);
            }
        }
    }

    /// Segments that are committed.
    fn committed(&self, transaction: Option<u32>) -> Result<Vec<(u32, Stamp)>> {
        let mut segments = self.storage.segments()?;
        segments.retain(|(segment, _)| transaction.is_some_and(|transaction| *segment <= transaction));
        Ok(segments)
    }
}

impl Reader {
    /// Checks everything that is committed, beside whoever writes. `progress` hears how many of how many bytes are done, and ends the check
    /// by answering no. An error means that it could not be checked; what is damaged is in the report.
    pub fn check(&self, options: &CheckOptions<'_>, progress: &mut dyn FnMut(u64, u64) -> bool) -> Result<CheckReport> {
        let shared = self.shared()?;
        let transaction = shared.published.state().transaction;
        let segments = shared.committed(transaction)?;
        let total: u64 = segments.iter().map(|(_, stamp)| stamp.size).sum();
        let mut report = read_all(&shared, &segments, options, &mut |done| progress(done, total));
        if !report.stopped {
            compare_all(&shared, &mut report, &mut || progress(total, total))?;
        }
        Ok(report)
    }
}

/// Compares what the log says with index and statistics, of one moment.
pub(super) fn compare_all(shared: &Shared, report: &mut CheckReport, go_on: &mut dyn FnMut() -> bool) -> Result<()> {
    for _ in 0..3 {
        let Some(moment) = shared.moment(go_on)? else {
            report.stopped = true;
            return Ok(());
        };
        if compare(shared, moment, report, go_on)? {
            return Ok(());
        }
    }
    Err(Error::Unsupported("segments are removed faster than they can be checked; check again when nothing is compacted".into()))
}

/// Reads all segments.
pub(super) fn read_all(
    shared: &Shared,
    segments: &[(u32, Stamp)],
    options: &CheckOptions<'_>,
    progress: &mut dyn FnMut(u64) -> bool,
) -> CheckReport {
    let threads = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        threads => threads,
    };
    let work = Work {
        shared,
        verify: options.verify,
        segments,
        next: AtomicUsize::new(0),
        done: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        report: Mutex::default(),
        busy: (Mutex::new(threads), Condvar::new()),
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work.run());
        }
        let mut busy = work.busy.0.lock().unwrap_or_else(PoisonError::into_inner);
        while *busy > 0 {
            busy = work.busy.1.wait_timeout(busy, NEWS).unwrap_or_else(PoisonError::into_inner).0;
            if !work.stop.load(Ordering::Relaxed) && !progress(work.done.load(Ordering::Relaxed)) {
                work.stop.store(true, Ordering::Relaxed);
            }
        }
    });
    let stopped = work.stop.into_inner();
    let mut report = work.report.into_inner().unwrap_or_else(PoisonError::into_inner);
    (report.stopped, report.bytes) = (stopped, work.done.into_inner());
    report.findings.sort_by_key(|finding| (finding.segment, finding.offset));
    report
}

struct Work<'a> {
    shared: &'a Shared,
    verify: Option<Verify<'a>>,
    segments: &'a [(u32, Stamp)],
    next: AtomicUsize,
    done: AtomicU64,
    stop: AtomicBool,
    report: Mutex<CheckReport>,
    busy: (Mutex<usize>, Condvar),
}

/// Says that a thread has ended, also if it panicked.
struct Ended<'a>(&'a (Mutex<usize>, Condvar));

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.1.notify_all();
    }
}

impl Work<'_> {
    fn run(&self) {
        let _ended = Ended(&self.busy);
        let mut data = vec![];
        while let Some((segment, stamp)) = self.segments.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            if let Err(error) = self.read(*segment, *stamp, &mut data) {
                self.report().add(Some(*segment), None, None, error);
            }
        }
    }

    fn report(&self) -> MutexGuard<'_, CheckReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, segment: u32, stamp: Stamp, data: &mut Vec<u8>) -> Result<()> {
        // Gone: compacted meanwhile, or missed when the index is compared. Empty: a removal that was cut short (Borg 1.x).
        let Some(file) = self.shared.storage.open(segment)? else { return Ok(()) };
        if stamp.size == 0 {
            self.report().segments.insert(segment, 0);
            return Ok(());
        }
        let mut entries = Entries::new(&file, segment, stamp.size);
        let (mut objects, mut at, mut is_whole) = (0, 0, true);
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let found = match entries.next() {
                None => break,
                Some(Ok(found)) => found,
                Some(Err(error)) => {
                    // It says where.
                    let mut report = self.report();
                    report.add(None, None, None, error);
                    report.damaged.insert(segment);
                    is_whole = false;
                    break;
                }
            };
            let Found { offset, header, id } = found;
            if header.tag == Tag::Put {
                objects += u64::from(self.read_put(&file, segment, offset, header.size, &id, data));
            }
            self.done.fetch_add(entries.position() - at, Ordering::Relaxed);
            at = entries.position();
        }
        self.done.fetch_add(stamp.size - at, Ordering::Relaxed);
        let mut report = self.report();
        report.objects += objects;
        if is_whole {
            report.segments.insert(segment, objects);
        }
        Ok(())
    }

    /// Reads one entry; whether it is a live object.
    fn read_put(&self, file: &std::fs::File, segment: u32, offset: u32, size: u32, id: &Id, data: &mut Vec<u8>) -> bool {
        let wrong = |what: &dyn std::fmt::Display| self.report().add(Some(segment), Some(offset), Some(*id), what);
        data.resize(size as usize, 0);
        if let Err(error) = file.read_exact_at(data, offset.into()) {
            wrong(&error);
            return false;
        }
        let (head, envelope) = data.split_at(PUT_HEADER);
        if let Err(error) = verify(head, envelope) {
            wrong(&error);
            return false;
        }
        match self.shared.index.get(id) {
            Ok(Some(entry)) if (entry.segment, entry.offset) == (segment, offset) => {}
            Ok(_) => return false,
            Err(error) => {
                wrong(&error);
                return false;
            }
        }
        if let Some(verify) = self.verify
            && let Err(why) = verify(id, envelope)
        {
            wrong(&why);
        }
        true
    }
}

/// Compares what the log says with index and statistics. False if segments vanished before they were read.
fn compare(shared: &Shared, moment: Moment, report: &mut CheckReport, go_on: &mut dyn FnMut() -> bool) -> Result<bool> {
    let expected = shared.index.scratch()?;
    let mut statistics = Statistics::new();
    for (segment, stamp) in shared.committed(moment.transaction)? {
        if !go_on() {
            report.stopped = true;
            return Ok(true);
        }
        if !moment.statistics.contains_key(&segment) {
            report.add(Some(segment), None, None, "nobody knows of this segment");
            continue;
        }
        if !apply(shared, &expected, &mut statistics, segment, stamp)? {
            return Ok(false);
        }
    }
    let mut found = CheckReport::default();
    let Moment { transaction, statistics: known, entries, quiet } = moment;
    compare_entries(&expected, entries, transaction, quiet, &mut found)?;
    if quiet {
        compare_statistics(&statistics, &known, &mut found);
    }
    if found.count > 0 {
        let now = shared.published.state();
        if known.keys().any(|segment| !now.statistics.contains_key(segment) || now.vanishing.contains(segment)) {
            // It was compacted since that moment.
            return Ok(false);
        }
    }
    report.count += found.count;
    report.damaged.append(&mut found.damaged);
    report.unjudged = found.unjudged;
    report.findings.extend(found.findings);
    report.findings.truncate(DESCRIBED);
    Ok(true)
}

/// What a segment does to the index; false if it is gone.
fn apply(shared: &Shared, index: &Index, statistics: &mut Statistics, segment: u32, stamp: Stamp) -> Result<bool> {
    let Some(file) = shared.storage.open(segment)? else { return Ok(false) };
    statistics.insert(segment, SegmentState { size: stamp.size, ..SegmentState::default() });
    if stamp.size == 0 {
        return Ok(true);
    }
    // What is damaged was reported when it was read.
    for Found { offset, header, id } in Entries::new(&file, segment, stamp.size).map_while(Result::ok) {
        match header.tag {
            Tag::Put => {
                superseded(statistics, index.insert(id, Entry { segment, offset, size: 0, csize: header.data() })?);
                note(statistics, segment, |state| state.live += 1);
            }
            Tag::Delete => {
                superseded(statistics, index.remove(&id)?);
                note(statistics, segment, |state| {
                    state.deletes += 1;
                    state.freeable += u64::from(header.size);
                });
            }
            Tag::Commit => note(statistics, segment, |state| state.freeable += u64::from(header.size)),
        }
    }
    Ok(true)
}

/// Both are sorted by id. What is newer than `transaction` is not judged.
fn compare_entries(
    expected: &Index,
    entries: index::Entries,
    transaction: Option<u32>,
    quiet: bool,
    report: &mut CheckReport,
) -> Result<()> {
    let place = |entry: &Entry| (entry.segment, entry.offset, entry.csize);
    let committed = |entry: &Entry| transaction.is_some_and(|transaction| entry.segment <= transaction);
    let (mut theirs, mut ours) = (expected.iter()?, entries);
    let (mut log, mut known) = (theirs.next().transpose()?, ours.next().transpose()?);
    loop {
        let id = match (&log, &known) {
            (None, None) => return Ok(()),
            (Some((a, _)), Some((b, _))) => *a.min(b),
            (Some((id, _)), None) | (None, Some((id, _))) => *id,
        };
        let here = log.take_if(|(other, _)| *other == id).map(|(_, entry)| entry);
        let there = known.take_if(|(other, _)| *other == id).map(|(_, entry)| entry);
        match (here, there) {
            (Some(here), Some(there)) if place(&here) == place(&there) => {}
            (_, Some(there)) if !quiet && !committed(&there) => {}
            (Some(_), None) if !quiet => report.unjudged += 1,
            (Some(here), None) => report.add(Some(here.segment), Some(here.offset), Some(id), "the index lacks it"),
            (None, Some(there)) => {
                report.add(Some(there.segment), Some(there.offset), Some(id), "the index has it here, but nothing here stores it");
            }
            (Some(here), Some(there)) => {
                let what = format!("the index has it in segment {} at {} with {} bytes", there.segment, there.offset, there.csize);
                report.add(Some(here.segment), Some(here.offset), Some(id), what);
            }
            (None, None) => {}
        }
        if here.is_some() {
            log = theirs.next().transpose()?;
        }
        if there.is_some() {
            known = ours.next().transpose()?;
        }
    }
}

fn compare_statistics(expected: &Statistics, found: &Statistics, report: &mut CheckReport) {
    let numbers = |state: &SegmentState| (state.size, state.live, state.freeable, state.deletes);
    for (segment, state) in found {
        match expected.get(segment) {
            None => report.add(Some(*segment), None, None, "its file is gone"),
            Some(other) if numbers(other) != numbers(state) => {
                let [ours, theirs] =
                    [state, other].map(|s| format!("{} bytes, {} live objects, {} bytes to free", s.size, s.live, s.freeable));
                report.add(Some(*segment), None, None, format!("its statistics are {ours}; they should be {theirs}"));
            }
            Some(_) => {}
        }
    }
}
