//! Checks: what of which repositories is looked at how often, and what is known of it.

use crate::names::{CheckName, ClientName, Label, RepositoryName};
use crate::schedule::whole_name;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// What to check, where, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckConfig {
    /// Its name.
    pub name: CheckName,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// Which repositories.
    pub repositories: Repositories,
    /// What, how often, how long.
    #[serde(flatten)]
    pub plan: CheckPlan,
    /// When it was added.
    pub created: Timestamp,
}

/// One repository, or some.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Repositories {
    /// This one.
    Named(RepositoryName),
    /// Those whose whole name matches this regular expression.
    Matching(String),
}

impl Repositories {
    /// Those that are meant, of all there are.
    ///
    /// # Errors
    /// A sentence about an expression that makes no sense.
    pub fn choose(&self, all: impl IntoIterator<Item = RepositoryName>) -> Result<Vec<RepositoryName>, String> {
        match self {
            Repositories::Named(name) => Ok(all.into_iter().filter(|one| one == name).collect()),
            Repositories::Matching(pattern) => {
                let pattern = whole_name("repository", pattern)?;
                Ok(all.into_iter().filter(|name| pattern.is_match(name.as_str())).collect())
            }
        }
    }
}

impl fmt::Display for Repositories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Repositories::Named(name) => write!(f, "{name}"),
            Repositories::Matching(pattern) => write!(f, "/{pattern}/"),
        }
    }
}

/// What of a repository is checked, and of that what is due.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CheckPlan {
    /// Segment files: that every entry is whole, and where the index has it.
    pub structure: bool,
    /// The manifest, the archives' metadata and signatures, and that every chunk they refer to is there.
    pub archives: bool,
    /// Every object: decrypted, decompressed, its id recomputed.
    pub data: bool,
    /// What was checked less than so many hours ago is left out. 0: nothing is.
    #[serde(default)]
    pub skip_hours: u32,
    /// It ends after so many seconds at the end of the slice it is at; the next one goes on with what was not checked for longest.
    #[serde(default)]
    pub seconds: Option<u32>,
    /// All of it is to be checked once in so many hours.
    pub promise_hours: u32,
    /// Only what was not checked since then: a check that begins again goes on where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

impl CheckPlan {
    /// A promise, if nobody says otherwise: two weeks.
    pub const PROMISE_HOURS: u32 = 14 * 24;

    /// The longest of all times, in hours.
    pub const MAX_HOURS: u32 = 10 * 366 * 24;

    /// Everything, whenever it was checked last.
    #[must_use]
    pub fn everything(data: bool) -> CheckPlan {
        CheckPlan {
            structure: true,
            archives: true,
            data,
            skip_hours: 0,
            seconds: None,
            promise_hours: CheckPlan::PROMISE_HOURS,
            since: None,
        }
    }

    /// What was checked at this moment or later is left out.
    #[must_use]
    pub fn due_before(&self, now: Timestamp) -> Timestamp {
        match self.skip_hours {
            0 => self.since.unwrap_or(now),
            hours => now.plus_seconds(-i64::from(hours) * 3600),
        }
    }

    /// `structure, archives and data`.
    #[must_use]
    pub fn parts(&self) -> String {
        let parts = [(self.structure, "structure"), (self.archives, "archives"), (self.data, "data")];
        let parts: Vec<&str> = parts.into_iter().filter(|(is_wanted, _)| *is_wanted).map(|(_, name)| name).collect();
        parts.join(", ")
    }
}

impl CheckConfig {
    /// Says what is wrong with a config before it is stored.
    ///
    /// # Errors
    /// One sentence.
    pub fn check(&self) -> Result<(), String> {
        if self.description.len() > 1000 || self.description.chars().any(char::is_control) {
            return Err("a description has at most 1000 characters, and no line breaks".into());
        }
        let plan = &self.plan;
        if !(plan.structure || plan.archives || plan.data) {
            return Err("a check config checks at least one of structure, archives and data".into());
        }
        if plan.promise_hours == 0 || plan.promise_hours > CheckPlan::MAX_HOURS || plan.skip_hours > CheckPlan::MAX_HOURS {
            return Err("how often everything is checked is at least an hour and at most ten years".into());
        }
        if plan.skip_hours >= plan.promise_hours {
            return Err(format!(
                "what is left out for {} cannot be checked every {}: leave it out for a shorter time",
                days(plan.skip_hours),
                days(plan.promise_hours)
            ));
        }
        if plan.seconds == Some(0) {
            return Err("a check with a time limit needs at least a second".into());
        }
        if plan.since.is_some() {
            return Err("since when something counts as checked is decided when a check begins".into());
        }
        match &self.repositories {
            Repositories::Named(_) => Ok(()),
            Repositories::Matching(pattern) => whole_name("repository", pattern).map(drop),
        }
    }
}

/// `14 days`, `36 hours`.
#[must_use]
pub fn days(hours: u32) -> String {
    let many = |number: u32, unit: &str| if number == 1 { format!("1 {unit}") } else { format!("{number} {unit}s") };
    if hours >= 24 && hours.is_multiple_of(24) { many(hours / 24, "day") } else { many(hours, "hour") }
}

/// What is recorded of one piece of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Its bytes.
    pub bytes: u64,
    /// When it was written, as its file says.
    pub written: Timestamp,
    /// When it was found sound last. None: never.
    pub checked: Option<Timestamp>,
}

/// How much of a repository was found sound, and how long ago. Facts of [`Coverage::at`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Coverage {
    /// When this was computed.
    pub at: Timestamp,
    /// Bytes there are.
    pub bytes: u64,
    /// Of them checked within the promised time.
    pub checked: u64,
    /// Of them never checked.
    pub never: u64,
    /// What was not checked for longest was checked then, or if it never was, written then. None: there is nothing.
    pub oldest: Option<Timestamp>,
    /// How often everything is to be checked, in hours.
    pub promise_hours: u32,
    /// Whether it is.
    pub promise: Promise,
}

/// Whether everything is checked as often as promised, if checks go on as they did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Promise {
    /// Nothing was checked yet.
    #[default]
    Unknown,
    /// Nothing is too old, and what is checked in a day suffices.
    Holds,
    /// Nothing is too old yet, but what is checked in a day does not suffice.
    TooSlow,
    /// Something was not checked for longer than that.
    Broken,
}

const HOUR: i64 = 3_600_000_000;

/// A pace is not judged by less than a day.
const DAY: i64 = 24 * HOUR;

impl Coverage {
    /// Computes it from what is recorded. `began` is when anything was checked for the first time.
    pub fn of(pieces: impl IntoIterator<Item = Piece>, promise_hours: u32, began: Option<Timestamp>, now: Timestamp) -> Coverage {
        let within = i64::from(promise_hours) * HOUR;
        let (mut this, mut newest) = (Coverage { at: now, promise_hours, ..Coverage::default() }, None);
        let pieces: Vec<Piece> = pieces.into_iter().collect();
        let mut is_late = false;
        for piece in &pieces {
            // A clock that went back, or a file from the future, makes nothing younger than new.
            let checked = piece.checked.map(|checked| checked.min(now));
            let known = checked.unwrap_or(piece.written).min(now);
            let age = now.0.saturating_sub(known.0);
            this.bytes += piece.bytes;
            match checked {
                Some(_) if age <= within => this.checked += piece.bytes,
                Some(_) => {}
                None => this.never += piece.bytes,
            }
            is_late |= age > within;
            this.oldest = Some(this.oldest.map_or(known, |oldest| oldest.min(known)));
            newest = newest.max(checked);
        }
        this.promise = match (newest, began) {
            _ if pieces.is_empty() => Promise::Holds,
            (None, _) | (_, None) => Promise::Unknown,
            _ if is_late => Promise::Broken,
            (Some(newest), Some(began)) => {
                // What came after the last check has its time still before it.
                let there: u64 =
                    pieces.iter().filter(|piece| piece.checked.is_some() || piece.written <= newest).map(|piece| piece.bytes).sum();
                let time = now.0.saturating_sub(began.0).clamp(DAY.min(within), within);
                let projected = u128::from(this.checked) * u128::from(within.unsigned_abs()) / u128::from(time.unsigned_abs().max(1));
                if projected >= u128::from(there) { Promise::Holds } else { Promise::TooSlow }
            }
        };
        this
    }

    /// Hundredths, rounded down: 100 means everything.
    #[must_use]
    pub fn per_cent(&self) -> u64 {
        if self.bytes == 0 { 100 } else { (u128::from(self.checked) * 100 / u128::from(self.bytes)) as u64 }
    }

    /// Seconds since what was not checked for longest was, or was written.
    #[must_use]
    pub fn age(&self, now: Timestamp) -> Option<f64> {
        self.oldest.map(|oldest| now.seconds_since(oldest).max(0.0))
    }
}

impl fmt::Display for Coverage {
    /// `97 % in 14 days, oldest unchecked: 9 days; at this pace not everything is checked every 14 days`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} % in {}", self.per_cent(), days(self.promise_hours))?;
        if let Some(age) = self.age(self.at) {
            let hours = (age / 3600.0) as u32;
            let age = if hours >= 48 { days(hours / 24 * 24) } else { days(hours) };
            write!(f, ", oldest unchecked: {age}")?;
        }
        match self.promise {
            Promise::Unknown => f.write_str("; nothing was checked yet"),
            Promise::Holds => write!(f, "; 100 % every {} holds", days(self.promise_hours)),
            Promise::TooSlow => write!(f, "; at this pace 100 % every {} will not hold", days(self.promise_hours)),
            Promise::Broken => write!(f, "; 100 % every {} does not hold", days(self.promise_hours)),
        }
    }
}

/// What is known of a repository's health: written by its owner after each check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The repository.
    pub repository: RepositoryName,
    /// When it was checked last, wholly or in part.
    pub checked: Timestamp,
    /// Of the segment files.
    #[serde(default)]
    pub structure: Option<Coverage>,
    /// Of the objects' content.
    #[serde(default)]
    pub data: Option<Coverage>,
    /// When all archives were last found sound. None: never.
    #[serde(default)]
    pub archives: Option<Timestamp>,
    /// When the index was last compared with all segments. None: never.
    #[serde(default)]
    pub index: Option<Timestamp>,
    /// What is damaged. None: nothing is known to be.
    #[serde(default)]
    pub damage: Option<Damage>,
}

/// What is damaged: it stays recorded until a complete check finds everything sound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// When it was found first.
    pub since: Timestamp,
    /// When it was found last.
    pub found: Timestamp,
    /// Only a check of the data would find all of it.
    pub needs_data: bool,
    /// What was found, in sentences; at most [`Damage::MAX_ERRORS`].
    pub errors: Vec<String>,
    /// How much was found.
    pub error_count: u64,
    /// Chunks that are damaged or missing.
    pub chunks: u64,
    /// Archives concerned; at most [`Damage::MAX_ARCHIVES`].
    pub archives: Vec<DamagedArchive>,
    /// More of them.
    #[serde(default)]
    pub more_archives: u64,
    /// Archives that BorgCube did not make, so that nobody can tell whether they are concerned; at most [`Damage::MAX_ARCHIVES`].
    pub unknown: Vec<DamagedArchive>,
    /// More of them.
    #[serde(default)]
    pub more_unknown: u64,
    /// Why the repository cannot even be opened, when that was tried last. None: it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unopenable: Option<String>,
    /// Chunks that were damaged or missing and are not any more: they were sent again, or belong to no archive any more.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub healed: u64,
}

/// An archive with damage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedArchive {
    /// Its name, escaped for printing.
    pub name: String,
    /// Its id, 64 hex digits.
    pub id: String,
    /// Whose it is. None: BorgCube did not make it.
    #[serde(default)]
    pub client: Option<ClientName>,
    /// Of which config.
    #[serde(default)]
    pub label: Option<Label>,
    /// Chunks of it that are damaged or missing.
    pub chunks: u64,
    /// What else is wrong with it.
    #[serde(default)]
    pub error: Option<String>,
    /// Files that cannot be restored whole, escaped for printing; at most [`DamagedFiles::MAX`]. None: nobody has looked yet.
    #[serde(default)]
    pub files: Option<DamagedFiles>,
}

/// Files of an archive that cannot be restored whole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DamagedFiles {
    /// Their paths, escaped for printing.
    pub paths: Vec<String>,
    /// More of them.
    #[serde(default)]
    pub more: u64,
    /// What of the list of files could not be read: there may be more.
    #[serde(default)]
    pub incomplete: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks this way")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl DamagedFiles {
    /// Paths that are named for each archive.
    pub const MAX: usize = 50;

    /// Characters of a path that are kept; what is longer is cut, with a mark.
    pub const LONGEST: usize = 300;

    /// Characters of a sentence.
    pub const SENTENCE: usize = 500;
}

impl Damage {
    /// Sentences that are kept.
    pub const MAX_ERRORS: usize = 100;

    /// Archives that are named.
    pub const MAX_ARCHIVES: usize = 500;

    /// Whether the archive with this id is concerned, or may be.
    #[must_use]
    pub fn concerns(&self, id: &str) -> bool {
        self.more_archives > 0 || self.archives.iter().chain(&self.unknown).any(|archive| archive.id == id)
    }

    /// Bytes of the record, about. Who wrote an archive chose the paths in it.
    pub const LONGEST: usize = 1 << 20;

    /// Leaves out what is more than [`Damage::LONGEST`]: paths, of the archives that have most of them first, then archives; counted among the others.
    pub fn fit(&mut self) {
        /// What there is about a text or an archive besides its text.
        const BESIDE: usize = 300;
        let of = |text: &String| text.len() + 8;
        let paths = |archive: &DamagedArchive| archive.files.iter().flat_map(|files| &files.paths).map(of).sum::<usize>();
        let texts = |archive: &DamagedArchive| {
            let why = archive.files.iter().filter_map(|files| files.incomplete.as_ref());
            BESIDE + archive.name.len() + archive.error.iter().chain(why).map(of).sum::<usize>()
        };
        let all = || self.archives.iter().chain(&self.unknown);
        let mut size =
            BESIDE + self.errors.iter().map(of).sum::<usize>() + all().map(|archive| paths(archive) + texts(archive)).sum::<usize>();
        while size > Damage::LONGEST {
            let most = self.archives.iter_mut().chain(&mut self.unknown).max_by_key(|archive| paths(archive));
            if let Some(files) = most.and_then(|archive| archive.files.as_mut())
                && let Some(path) = files.paths.pop()
            {
                files.more += 1;
                size -= of(&path);
            } else if let Some(archive) = self.unknown.pop() {
                self.more_unknown += 1;
                size -= texts(&archive);
            } else if let Some(archive) = self.archives.pop() {
                self.more_archives += 1;
                size -= texts(&archive);
            } else {
                break;
            }
        }
    }

    /// Whether there are archives of which nobody has looked which files it concerns.
    #[must_use]
    pub fn is_unnamed(&self) -> bool {
        self.archives.iter().chain(&self.unknown).any(|archive| archive.files.is_none())
    }

    /// The clients concerned.
    #[must_use]
    pub fn clients(&self) -> BTreeSet<&ClientName> {
        self.archives.iter().filter_map(|archive| archive.client.as_ref()).collect()
    }

    /// Archives that are concerned, the unnamed ones as well.
    #[must_use]
    pub fn archive_count(&self) -> u64 {
        self.archives.len() as u64 + self.more_archives
    }

    /// One sentence.
    #[must_use]
    pub fn summary(&self) -> String {
        let many = |number: u64, what: &str| if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") };
        let archives = many(self.archive_count(), "archive");
        let clients: Vec<&str> = self.clients().into_iter().map(ClientName::as_str).take(5).collect();
        let of = if clients.is_empty() { String::new() } else { format!(" of {}", clients.join(", ")) };
        let unknown = match self.unknown.len() as u64 + self.more_unknown {
            0 => String::new(),
            n => format!("; of {} of other origin nobody can tell", many(n, "archive")),
        };
        let what = match (self.chunks, self.archive_count()) {
            (0, 0) if self.error_count > 0 => {
                format!("{} in its files, and no archive known to be concerned", many(self.error_count, "error"))
            }
            (0, 0) => "no damage found any more, and not everything looked at since".to_owned(),
            (0, _) => format!("something wrong with {archives}{of}"),
            (chunks, _) => format!("{} damaged or missing, in {archives}{of}", many(chunks, "chunk")),
        };
        let healed = if self.healed == 0 { String::new() } else { format!("; {} healed", many(self.healed, "chunk")) };
        match &self.unopenable {
            None => format!("{what}{unknown}{healed}"),
            Some(_) if self.chunks == 0 && self.archive_count() == 0 => "it cannot be opened".to_owned(),
            Some(_) => format!("it cannot be opened; known from before: {what}{unknown}{healed}"),
        }
    }

    /// The damage after a look that has found nothing of it any more, and was no look at everything. `all_archives`: at archives it was.
    #[must_use]
    pub fn not_found_again(self, all_archives: bool) -> Damage {
        let mut damage = self.opened(0);
        damage.archives.retain(|archive| archive.error.is_some() && !all_archives);
        damage.archives.iter_mut().for_each(|archive| archive.chunks = 0);
        (damage.chunks, damage.unknown, damage.more_archives, damage.more_unknown) = (0, vec![], 0, 0);
        damage
    }

    /// The damage of a repository that could be opened, and has so many damaged chunks now.
    #[must_use]
    pub fn opened(mut self, chunks: u64) -> Damage {
        self.healed += self.chunks.saturating_sub(chunks);
        if self.unopenable.take().is_some() {
            let before = self.errors.len();
            self.errors.retain(|error| !error.starts_with(Damage::UNOPENABLE));
            self.error_count = self.error_count.saturating_sub((before - self.errors.len()) as u64);
        }
        self
    }

    /// The damage of a repository that cannot be opened, found `now`, with what was known before.
    #[must_use]
    pub fn unopened(earlier: Option<Damage>, why: &str, now: Timestamp) -> Damage {
        let mut damage = match earlier {
            Some(earlier) => earlier.opened(u64::MAX),
            None => Damage {
                since: now,
                found: now,
                needs_data: false,
                errors: vec![],
                error_count: 0,
                chunks: 0,
                archives: vec![],
                more_archives: 0,
                unknown: vec![],
                more_unknown: 0,
                unopenable: None,
                healed: 0,
            },
        };
        damage.found = now;
        damage.errors.insert(0, format!("{}: {why}", Damage::UNOPENABLE));
        damage.errors.truncate(Damage::MAX_ERRORS);
        damage.error_count += 1;
        damage.unopenable = Some(why.to_owned());
        damage
    }

    /// How the sentence begins that says why the repository cannot be opened.
    const UNOPENABLE: &str = "it cannot be opened";

    /// Why nothing is pruned, and what to do.
    #[must_use]
    pub fn refuses_prune(&self, repository: &RepositoryName) -> String {
        format!(
            "nothing is pruned while repository {repository} is damaged ({}), because what is old may be all that is sound: `borgcube repository damage {repository}` says what to do",
            self.summary()
        )
    }
}

/// What the last complete look at each part of a repository has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sound {
    /// Everything that there is was found sound at this moment or later: segments,
    pub structure: Option<Timestamp>,
    /// content,
    pub data: Option<Timestamp>,
    /// archives,
    pub archives: Option<Timestamp>,
    /// and the index.
    pub index: Option<Timestamp>,
}

impl Sound {
    /// Whether this damage is over: everything was looked at since it was found, and was sound.
    #[must_use]
    pub fn clears(&self, damage: &Damage) -> bool {
        let since = |moment: Option<Timestamp>| moment.is_some_and(|moment| moment > damage.found);
        since(self.structure) && since(self.archives) && since(self.index) && (!damage.needs_data || since(self.data))
    }
}

#[cfg(test)]
mod tests;
