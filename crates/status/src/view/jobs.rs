//! Jobs: rows, pages of the long list, one job with everything that is known of it.

use super::{ArchiveSizes, Context, Frame};
use crate::control::Told;
use crate::query::{Query, Unanswered};
use crate::text;
use askama::Template;
use model::progress::Progress;
use model::{ClientName, ConfigName, Job, JobKind, JobState, Label, RepositoryName, Timestamp, Yield};
use schemars::JsonSchema;
use serde::Serialize;
use store::JobFilter;

/// Jobs of one page.
const PAGE: usize = 50;
/// At most.
const MAX_PAGE: usize = 500;

/// A job in a list.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct JobRow {
    /// Never repeats.
    pub number: u64,
    /// `backup`, `check`, `compact`, `prune`, `restore`, `restore-test` or `import`.
    pub kind: &'static str,
    /// What it does, for people: `web1/etc`, `check of main`.
    pub subject: String,
    /// The client, if it runs on one.
    pub client: Option<String>,
    /// The config, `CLIENT/LABEL`, of a backup.
    pub config: Option<String>,
    /// The repository.
    pub repository: Option<String>,
    /// Where it stands, in the words of the manual.
    pub state: &'static str,
    /// The same in fewer words: `queued`, `running`, `done`, `failed` or `cancelled`.
    pub phase: &'static str,
    /// When it was asked for.
    #[schemars(with = "i64")]
    pub created: Timestamp,
    /// When it left the queue.
    #[schemars(with = "Option<i64>")]
    pub started: Option<Timestamp>,
    /// When it ended.
    #[schemars(with = "Option<i64>")]
    pub ended: Option<Timestamp>,
    /// From its start to its end, in seconds.
    pub duration: Option<f64>,
    /// Totals of the archive it made.
    pub statistics: Option<ArchiveSizes>,
    /// Why it failed or was cancelled.
    pub failure: Option<FailureView>,
    /// How many warnings there were.
    pub warning_count: u64,
    /// How far it is, while it runs.
    pub progress: Option<ProgressView>,
}

/// Why a job failed, and what to do.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct FailureView {
    /// The stable word.
    pub cause: &'static str,
    /// What happened this time.
    pub message: String,
    /// What to do next.
    pub advice: &'static str,
}

/// How far a job is.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ProgressView {
    /// Files so far.
    pub nfiles: u64,
    /// Bytes of them.
    pub original_size: u64,
    /// Newly stored bytes.
    pub deduplicated_size: u64,
    /// Bytes of original data per second.
    pub rate: u64,
    /// What the client works on, escaped for printing.
    pub path: String,
    /// Of a hundred, by what the last archive contained or by the steps; at most 99 while it runs. None: nobody knows.
    pub percent: Option<u64>,
    /// `12 of 40 segments`, of what runs on a repository.
    pub steps: Option<String>,
    /// In words, as the pages show it.
    pub text: String,
    /// When this was seen.
    #[schemars(with = "i64")]
    pub time: Timestamp,
}

impl ProgressView {
    /// Of a running job's progress.
    #[must_use]
    pub fn of(progress: &Progress) -> ProgressView {
        let steps = progress.steps.as_ref();
        let (done, total) = match steps {
            Some(steps) => (steps.done, steps.total),
            None => (progress.statistics.original_size, progress.expected.map_or(0, |expected| expected.original_size)),
        };
        let percent = (total > 0).then(|| u64::try_from(u128::from(done) * 100 / u128::from(total)).unwrap_or(99).min(99));
        let steps = steps.map(|steps| match steps.total {
            0 => format!("{} {}", steps.done, steps.unit),
            total => format!("{} of {total} {}", steps.done, steps.unit),
        });
        let s = &progress.statistics;
        let text = steps.clone().unwrap_or_else(|| {
            let (files, size) = (text::count(&s.nfiles, "file"), text::bytes(&s.original_size));
            format!("{files}, {size}, {}/s", text::bytes(&progress.rate))
        });
        ProgressView {
            nfiles: s.nfiles,
            original_size: s.original_size,
            deduplicated_size: s.deduplicated_size,
            rate: progress.rate,
            path: progress.path.clone(),
            percent,
            steps,
            text,
            time: progress.time,
        }
    }
}

/// `queued`, `running`, `done`, `failed` or `cancelled`.
#[must_use]
pub fn phase(state: JobState) -> &'static str {
    match state {
        JobState::JobCreated => "queued",
        JobState::Done => "done",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
        _ => "running",
    }
}

/// The states of a phase, or the one state that is named.
fn states_of(text: &str) -> Result<Vec<JobState>, Unanswered> {
    let phase_of = |wanted: &str| JobState::ALL.into_iter().filter(|state| phase(*state) == wanted).collect::<Vec<_>>();
    match phase_of(text) {
        states if !states.is_empty() => Ok(states),
        _ => text
            .parse()
            .map(|state| vec![state])
            .map_err(|e| Unanswered::BadRequest(format!("parameter state: {e}; or one of queued, running, done, failed, cancelled"))),
    }
}

impl JobRow {
    /// Of a record and, if it runs, its progress.
    #[must_use]
    pub fn of(job: &Job, progress: Option<&Progress>) -> JobRow {
        let (started, ended) = (job.started(), job.ended());
        JobRow {
            number: job.number,
            kind: job.kind().as_str(),
            subject: job.subject(),
            client: job.client().map(ToString::to_string),
            config: job.config().map(|config| config.to_string()),
            repository: job.repository.as_ref().map(ToString::to_string),
            state: job.state.as_str(),
            phase: phase(job.state),
            created: job.created,
            started,
            ended,
            duration: started.zip(ended).map(|(started, ended)| ended.seconds_since(started)),
            statistics: job.statistics.as_ref().map(ArchiveSizes::from),
            failure: job.failure.as_ref().map(|failure| FailureView {
                cause: failure.cause.word(),
                message: failure.message.clone(),
                advice: failure.cause.advice_for(job.kind()),
            }),
            warning_count: job.warning_count,
            progress: progress.filter(|_| job.state.is_running()).map(ProgressView::of),
        }
    }
}

impl Context<'_> {
    /// Rows of jobs.
    pub fn rows<'j>(&self, jobs: impl IntoIterator<Item = &'j Job>) -> Vec<JobRow> {
        jobs.into_iter().map(|job| JobRow::of(job, self.live.progress.get(&job.number))).collect()
    }
}

/// What a page of a long list shows of it.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Window {
    /// The query of the next page. None: this is the last one.
    pub next: Option<String>,
    /// Whether this is the first page.
    pub first: bool,
    /// The query of the first page.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) newest: String,
}

impl Window {
    /// Of a list in which the parameter `name` says where to go on; `next` is its value on the next page.
    #[must_use]
    pub fn of(query: &Query, name: &str, next: Option<String>) -> Window {
        Window { next: next.map(|next| query.with(name, &next)), first: query.text(name).is_none(), newest: query.without(name) }
    }
}

/// A page of jobs.
#[derive(Debug, Template, Serialize, JsonSchema)]
#[template(path = "jobs.html")]
pub struct JobsPage {
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) frame: Frame,
    /// The newest first.
    pub jobs: Vec<JobRow>,
    /// The rest of the list.
    pub window: Window,
    /// As asked for: `state`.
    pub state: Option<String>,
    /// As asked for: `client`.
    pub client: Option<String>,
    /// As asked for: `repository`.
    pub repository: Option<String>,
    /// As asked for: `kind`.
    pub kind: Option<String>,
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) kinds: Vec<&'static str>,
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) clients: Vec<String>,
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) repositories: Vec<String>,
}

impl JobsPage {
    /// By what the query asks for.
    pub fn new(c: &Context<'_>, query: &Query) -> Result<JobsPage, Unanswered> {
        let limit = query.limit(PAGE, MAX_PAGE)?;
        let filter = JobFilter {
            states: query.text("state").map(states_of).transpose()?.unwrap_or_default(),
            client: query.get::<ClientName>("client")?,
            repository: query.get::<RepositoryName>("repository")?,
            config: query.get::<ConfigName>("config")?,
            kind: query.get::<JobKind>("kind")?,
            label: query.get::<Label>("label")?,
            before: query.number("before")?,
        };
        // One more shows whether there is another page.
        let mut jobs = c.read.jobs().page(&filter, limit + 1)?;
        let more = jobs.len() > limit;
        jobs.truncate(limit);
        let last = jobs.last().map(|job| job.number);
        let next = last.filter(|_| more).map(|last| last.to_string());
        let text = |name| query.text(name).map(str::to_owned);
        Ok(JobsPage {
            frame: c.frame("jobs"),
            jobs: c.rows(&jobs),
            window: Window::of(query, "before", next),
            state: text("state"),
            client: text("client"),
            repository: text("repository"),
            kind: text("kind"),
            kinds: JobKind::ALL.into_iter().map(JobKind::as_str).collect(),
            clients: c.read.clients().list()?.iter().map(|client| client.name.to_string()).collect(),
            repositories: c.read.repositories().list()?.iter().map(|repository| repository.name.to_string()).collect(),
        })
    }
}

/// A step of a job's history.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct StepView {
    /// The state.
    pub state: &'static str,
    /// When it was entered.
    #[schemars(with = "i64")]
    pub time: Timestamp,
    /// How long it lasted, in seconds. None: it is the present one, or the last.
    pub seconds: Option<f64>,
}

/// A line of a job's log.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Line {
    /// When.
    #[schemars(with = "i64")]
    pub time: Timestamp,
    /// `error`, `warning`, `info`, `debug`, `file`.
    pub level: String,
    /// Who says so: `borgcube`, `borg`, `ssh`.
    pub source: String,
    /// The text, escaped for printing.
    pub message: String,
}

/// One job.
#[derive(Debug, Template, Serialize, JsonSchema)]
#[template(path = "job.html")]
pub struct JobPage {
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) frame: Frame,
    /// As in lists.
    pub job: JobRow,
    /// Every state so far.
    pub history: Vec<StepView>,
    /// Why it waits.
    pub waits: Option<String>,
    /// Who is having it cancelled.
    pub cancelled_by: Option<String>,
    /// The archive it makes or made.
    pub archive_name: Option<String>,
    /// That archive's id, once it is there.
    pub archive: Option<String>,
    /// What came of it, if it makes no archive, in words.
    pub result: Option<String>,
    /// The client's borg, as it says itself.
    pub client_borg: Option<String>,
    /// Who asked for it.
    pub actor: String,
    /// The schedule that asked for it.
    pub schedule: Option<String>,
    /// The job whose failure this one retries.
    pub retry_of: Option<u64>,
    /// It does not start before this moment.
    #[schemars(with = "Option<i64>")]
    pub not_before: Option<Timestamp>,
    /// The first of its warnings, escaped for printing.
    pub warnings: Vec<String>,
    /// The newest lines of its log, in order.
    pub log: Vec<Line>,
    /// Older lines that are left out.
    pub log_left_out: u64,
    /// Why the log and why it waits are not known, if so.
    pub trouble: Option<String>,
}

impl JobPage {
    /// Of one job.
    pub fn new(c: &Context<'_>, number: u64, told: Told) -> Result<JobPage, Unanswered> {
        let job = c.read.jobs().get(&number)?.ok_or_else(|| Unanswered::NotFound(format!("there is no job {number}")))?;
        let ends = job.history.iter().skip(1).map(|step| Some(step.time)).chain([None]);
        let history = job.history.iter().zip(ends).map(|(step, end)| StepView {
            state: step.state.as_str(),
            time: step.time,
            seconds: end.map(|end| end.seconds_since(step.time)),
        });
        let log = told.log.into_iter();
        Ok(JobPage {
            frame: c.frame("jobs"),
            history: history.collect(),
            waits: told.waits,
            cancelled_by: told.cancelled_by,
            archive_name: job.archive_name.clone(),
            archive: job.archive.clone(),
            result: job.yielded.as_ref().map(result),
            client_borg: job.client_borg.clone(),
            actor: job.actor.clone(),
            schedule: job.schedule.as_ref().map(ToString::to_string),
            retry_of: job.retry_of,
            not_before: job.not_before,
            warnings: job.warnings.clone(),
            log: log.map(|line| Line { time: line.time, level: line.level, source: line.source, message: line.message }).collect(),
            log_left_out: told.left_out as u64,
            trouble: told.trouble,
            job: JobRow::of(&job, c.live.progress.get(&number)),
        })
    }
}

/// What came of a job, in words.
fn result(yielded: &Yield) -> String {
    use text::{bytes, count};
    match yielded {
        Yield::Checked { not_due_since: Some(last), .. } => format!("nothing was due; the last check was at {}", text::local(last)),
        Yield::Checked { objects, bytes: read, error_count, complete, structure, data, .. } => {
            let found = if *error_count == 0 { "nothing is wrong".to_owned() } else { count(error_count, "error") };
            let end = if *complete { "" } else { ", and its time was over" };
            let coverage = [("structure", structure), ("data", data)];
            let coverage = coverage.iter().filter_map(|(part, coverage)| Some(format!("; {part}: {}", coverage.as_ref()?)));
            format!("{found}; {} read, {}{end}{}", count(objects, "object"), bytes(read), coverage.collect::<String>())
        }
        Yield::Compacted { segments, freed, skipped, .. } => {
            let skipped = if *skipped > 0 { format!("; {} damaged and left alone", count(skipped, "segment")) } else { String::new() };
            format!("{} freed in {}{skipped}", bytes(freed), count(segments, "segment"))
        }
        Yield::Pruned { marked, deleted, freed, stopped, .. } => {
            let stopped = if *stopped > 0 { format!("; pruning is stopped for {}", count(stopped, "config")) } else { String::new() };
            format!("{} deleted, {} marked, {} freed{stopped}", count(deleted, "archive"), count(marked, "archive"), bytes(freed))
        }
        Yield::Imported { imported, refused, skipped } => {
            format!("{} imported, {refused} refused, {skipped} left alone", count(imported, "archive"))
        }
        Yield::Restored { target, chunks, of, bytes: read } => {
            let into = if target.is_empty() { String::new() } else { format!(" to {target}") };
            format!("restored{into}: {} of {} read, {}", text::number(chunks), count(of, "chunk"), bytes(read))
        }
        Yield::RestoreTested { archive, files, bytes: size, of_files, good, .. } => {
            let proven = if *good { "good" } else { "not a good test" };
            format!("{proven}: {} of {} extracted from {archive}, {}", count(files, "file"), text::number(of_files), bytes(size))
        }
    }
}
