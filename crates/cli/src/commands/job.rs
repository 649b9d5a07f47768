//! `borgcube job`.

use super::wait;
use crate::complete;
use crate::context::{Context, write_out};
use crate::control::Next;
use crate::error::{Error, Result};
use crate::output::{cards, lists, shown};
use clap::Subcommand;
use clap_complete::{ArgValueCandidates, CompletionCandidate};
use model::{Cause, ClientName, Job, JobKind, JobState, Label, RepositoryName};
use serde::Serialize;
use wire::control::{Call, JobDetail, JobFilter, JobLog, Jobs};
use wire::worker::LogLine;

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List jobs, newest first
    #[command(alias = "ls")]
    List(List),
    /// Show one job
    Show(Number),
    /// Print a job's log
    Log(Log),
    /// Show a job's progress until it has ended; the exit code tells how
    Wait(Number),
    /// Cancel a queued or running job
    Cancel(Cancel),
}

/// A job.
#[derive(Debug, clap::Args)]
pub struct Number {
    /// Number of the job
    #[arg(value_name = "JOB", value_parser = number, add = ArgValueCandidates::new(complete::jobs))]
    job: u64,
}

/// Options of `borgcube job cancel`.
#[derive(Debug, clap::Args)]
pub struct Cancel {
    /// Number of the job
    #[arg(value_name = "JOB", value_parser = number, add = ArgValueCandidates::new(complete::live_jobs))]
    job: u64,
}

/// Options of `borgcube job log`.
#[derive(Debug, clap::Args)]
pub struct Log {
    /// Number of the job
    #[arg(value_name = "JOB", value_parser = number, add = ArgValueCandidates::new(complete::jobs))]
    job: u64,
    /// Go on until the job has ended; on an installed server, with what daemons say of it in the journal
    #[arg(long, short)]
    follow: bool,
}

/// Options of `borgcube job list`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  borgcube job list --job-state failed
  borgcube job list --client web1 --limit 10 --json
  borgcube job list --before 4711")]
pub struct List {
    /// Show those in this state only (--state is the server's directory)
    #[arg(long, short = 's', value_name = "STATE", add = ArgValueCandidates::new(states))]
    job_state: Option<JobState>,
    /// Show those of this kind only
    #[arg(long, short, add = ArgValueCandidates::new(kinds))]
    kind: Option<JobKind>,
    /// Show those of this client only
    #[arg(long, short, add = ArgValueCandidates::new(complete::clients))]
    client: Option<ClientName>,
    /// Show those of this config label only
    #[arg(long, short)]
    label: Option<Label>,
    /// Show those of this repository only
    #[arg(long, short, add = ArgValueCandidates::new(complete::repositories))]
    repository: Option<RepositoryName>,
    /// Show those with smaller numbers only: the next page
    #[arg(long, value_name = "JOB")]
    before: Option<u64>,
    /// Show at most so many
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = 100)]
    limit: u32,
}

/// A job's number, as people type it.
fn number(text: &str) -> std::result::Result<u64, String> {
    text.parse().map_err(|_| "a job is named by its number; borgcube job list shows them".into())
}

fn kinds() -> Vec<CompletionCandidate> {
    JobKind::ALL.iter().map(|k| CompletionCandidate::new(k.as_str())).collect()
}

fn states() -> Vec<CompletionCandidate> {
    JobState::ALL.iter().map(|s| CompletionCandidate::new(s.as_str())).collect()
}

/// A job as `--json` shows it: the record, and beside its fields what only memory knows.
#[derive(Debug, Serialize)]
pub struct Flat<'a> {
    #[serde(flatten)]
    job: &'a Job,
    progress: &'a Option<model::progress::Progress>,
    waits: &'a Option<String>,
    cancelled_by: &'a Option<String>,
    /// The job that does it once more.
    retried_as: Option<u64>,
}

impl<'a> Flat<'a> {
    /// Of a job, and the one that does it once more.
    pub fn new(detail: &'a JobDetail, retried_as: Option<u64>) -> Flat<'a> {
        Flat { job: &detail.job, progress: &detail.progress, waits: &detail.waits, cancelled_by: &detail.cancelled_by, retried_as }
    }
}

/// The job that BorgCube made by itself to do this one once more, if it did.
pub fn retry(job: &Job, context: &Context) -> Result<Option<u64>> {
    const PAGE: u32 = 100;
    let Some(failure) = job.failure.as_ref().filter(|_| job.state == JobState::Failed) else { return Ok(None) };
    if failure.cause != Cause::ViewStale && !job.retry {
        return Ok(None);
    }
    let mut before = None;
    loop {
        let filter = JobFilter { kind: Some(job.kind()), before, limit: PAGE, ..Default::default() };
        let filter = match job.config() {
            Some(config) => JobFilter { client: Some(config.client), label: Some(config.label), ..filter },
            None => JobFilter { repository: job.repository.clone(), ..filter },
        };
        let jobs = context.control()?.call::<Jobs>(Call::ListJobs { filter })?.jobs;
        if let Some(again) = jobs.iter().find(|other| other.job.retry_of == Some(job.number)) {
            return Ok(Some(again.job.number));
        }
        // Newest first; a retry is newer than what it retries.
        match jobs.last() {
            Some(last) if jobs.len() == PAGE as usize && last.job.number > job.number => before = Some(last.job.number),
            _ => return Ok(None),
        }
    }
}

/// Does it.
pub fn run(command: Command, context: &Context) -> Result<()> {
    match command {
        Command::List(args) => {
            let List { job_state: state, kind, client, label, repository, before, limit } = args;
            let filter = JobFilter { state, kind, client, label, repository, before, limit };
            let jobs = context.control()?.call::<Jobs>(Call::ListJobs { filter })?.jobs;
            context.list(&jobs, lists::jobs(&jobs))
        }
        Command::Show(Number { job }) => {
            let detail: JobDetail = context.control()?.call(Call::GetJob { job })?;
            let retried_as = retry(&detail.job, context)?;
            context.show(&Flat::new(&detail, retried_as), &cards::job(&detail, retried_as))
        }
        Command::Log(args) => log(&args, context),
        Command::Wait(Number { job }) => wait::until_end(job, &wait::interrupts()?, context),
        Command::Cancel(Cancel { job }) => {
            let mut control = context.control()?;
            control.tell(Call::CancelJob { job })?;
            let detail: JobDetail = control.call(Call::GetJob { job })?;
            let sentence = match detail.job.state.is_final() {
                true => format!("Job {job} is cancelled."),
                false => being_cancelled(&detail.job),
            };
            context.done(&Flat::new(&detail, None), &sentence)
        }
    }
}

/// What is to be expected of a job that does not end at once.
fn being_cancelled(job: &Job) -> String {
    let checkpoint = if job.kind() == JobKind::Backup { "; the client may still write a checkpoint" } else { "" };
    format!("Job {0} is being cancelled{checkpoint}. Watch it with: borgcube job wait {0}", job.number)
}

/// With `--json` one record a line, because a log that is followed has no end.
fn log(args: &Log, context: &Context) -> Result<()> {
    if args.follow && super::journal::follow(args.job, context)? {
        return Ok(());
    }
    let mut replies = context.control()?.replies::<JobLog>(Call::GetJobLog { job: args.job, follow: args.follow })?;
    while let Next::Item(part) = replies.next(None, None)? {
        let mut text = String::new();
        for line in &part.lines {
            text.push_str(&if context.json { json_line(line)? } else { log_line(line) });
        }
        write_out(&text)?;
    }
    Ok(())
}

fn json_line(line: &LogLine) -> Result<String> {
    let text = serde_json::to_string(line).map_err(|e| Error::failed(format!("cannot print JSON: {e}")))?;
    Ok(text + "\n")
}

fn log_line(line: &LogLine) -> String {
    let level = match line.level.as_str() {
        "info" | "file" => String::new(),
        level => format!("{}: ", shown(level)),
    };
    format!("{} {}: {level}{}\n", line.time.to_local(), shown(&line.source), shown(&line.message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Timestamp;

    #[test]
    fn a_job_in_json_is_the_record_with_four_more_fields() {
        let job = Job::backup(7, &"web1/etc".parse().unwrap(), "main".parse().unwrap(), "root", Timestamp(5));
        let record = serde_json::to_value(&job).unwrap();
        let detail = JobDetail { job, progress: None, waits: Some("waits for job 6".into()), cancelled_by: None };
        let mut json = serde_json::to_value(Flat::new(&detail, Some(8))).unwrap();
        assert_eq!(json["waits"], "waits for job 6");
        assert_eq!(json["retried_as"], 8);
        let fields = json.as_object_mut().unwrap();
        fields.remove("waits");
        fields.remove("progress");
        fields.remove("cancelled_by");
        fields.remove("retried_as");
        assert_eq!(json, record);
    }

    #[test]
    fn log_lines() {
        let line = |level: &str, message: &str| {
            let line = LogLine { time: Timestamp(0), level: level.into(), source: "borg".into(), message: message.into() };
            log_line(&line).split_once("borg: ").unwrap().1.to_owned()
        };
        assert_eq!(line("info", "fine"), "fine\n");
        assert_eq!(line("warning", "x\u{1b}[0m"), "warning: x\\u{1b}[0m\n");
    }
}
