//! Which columns each kind of record has in a listing.

use super::tables::Column::{Number, Text, Whole};
use super::{Table, bytes, count, duration};
use crate::commands::damage::Checked;
use crate::commands::restore_test::TestedClient;
use model::client::Connection;
use model::progress::Statistics;
use model::{Archive, BackupConfig, Job};
use wire::control::{ListedJob, LogEntry};

/// Repositories.
pub fn repositories(records: &[Checked]) -> Table {
    Table::new(&[Whole("NAME"), Whole("ENCRYPTION"), Whole("CHECKED"), Text("URL"), Text("DESCRIPTION")], records, |checked| {
        let r = &checked.repository;
        let health = super::checks::health_in_short(checked.health.as_ref());
        vec![r.name.to_string(), r.encryption.to_string(), health, r.url.clone(), r.description.clone()]
    })
}

/// Clients.
pub fn clients(records: &[TestedClient]) -> Table {
    Table::new(&[Whole("NAME"), Text("CONNECTION"), Whole("RESTORE TESTED"), Text("DESCRIPTION")], records, |tested| {
        let c = &tested.client;
        let age = tested.age().map_or_else(|| "never".to_owned(), |age| format!("{age} ago"));
        vec![c.name.to_string(), road(&c.connection), age, c.description.clone()]
    })
}

/// `local`, or where SSH goes to.
pub fn road(connection: &Connection) -> String {
    match connection {
        Connection::Local { .. } => "local".into(),
        Connection::Ssh(ssh) => ssh.remote.clone(),
    }
}

/// Backup configs.
pub fn configs(records: &[BackupConfig]) -> Table {
    Table::new(&[Whole("CONFIG"), Whole("REPOSITORY"), Text("PATHS"), Text("EXCLUDES")], records, |c| {
        let rules = c.excludes.len() + c.patterns.len();
        let excludes = if rules == 0 { String::new() } else { count(rules as u64, "pattern") };
        let paths: Vec<String> = c.paths.iter().cloned().chain(c.commands.dumps.iter().map(model::Dump::path)).collect();
        vec![c.name().to_string(), c.repository.to_string(), paths.join(" "), excludes]
    })
}

/// Hooks.
pub fn hooks(records: &[crate::commands::hook::Listed]) -> Table {
    let columns = [Whole("CONFIG"), Whole("HOOK"), Number("LIMIT"), Whole("ON FAILURE"), Text("BEFORE"), Text("AFTER")];
    Table::new(&columns, records, |listed| {
        let hook = &listed.hook;
        vec![
            listed.config.to_string(),
            hook.name.to_string(),
            duration(f64::from(hook.seconds)),
            hook.on_failure.word().to_owned(),
            one_line(hook.before.as_deref()),
            one_line(hook.after.as_deref()),
        ]
    })
}

/// Dumps.
pub fn dumps(records: &[crate::commands::dump::Listed]) -> Table {
    let columns = [Whole("CONFIG"), Whole("DUMP"), Number("LIMIT"), Whole("HOW"), Text("COMMAND")];
    Table::new(&columns, records, |listed| {
        let dump = &listed.dump;
        let how = if dump.spool { "spooled" } else { "streamed" };
        vec![
            listed.config.to_string(),
            dump.name.to_string(),
            duration(f64::from(dump.seconds)),
            how.to_owned(),
            one_line(Some(&dump.command)),
        ]
    })
}

/// The first line of a command.
fn one_line(command: Option<&str>) -> String {
    let mut lines = command.unwrap_or_default().lines();
    let first = lines.next().unwrap_or_default().to_owned();
    if lines.next().is_some() { format!("{first} ...") } else { first }
}

/// Jobs.
pub fn jobs(records: &[ListedJob]) -> Table {
    let columns = [
        Number("JOB"),
        Whole("STATE"),
        Whole("SUBJECT"),
        Whole("CREATED"),
        Number("TIME"),
        Number("FILES"),
        Number("SIZE"),
        Number("NEW"),
        Text("REMARK"),
    ];
    Table::new(&columns, records, |listed| {
        let j = &listed.job;
        let figures = |f: fn(&Statistics) -> String| j.statistics.as_ref().map(f).unwrap_or_default();
        vec![
            j.number.to_string(),
            j.state.to_string(),
            j.subject(),
            j.created.to_local(),
            length(j).map(duration).unwrap_or_default(),
            figures(|s| s.nfiles.to_string()),
            figures(|s| bytes(s.original_size)),
            figures(|s| bytes(s.deduplicated_size)),
            remark(listed),
        ]
    })
}

/// Seconds from the start to the end.
pub fn length(job: &Job) -> Option<f64> {
    Some(job.ended()?.seconds_since(job.started()?))
}

fn remark(listed: &ListedJob) -> String {
    if let Some(by) = &listed.cancelled_by {
        return format!("being cancelled by {by}");
    }
    match (&listed.job.failure, listed.job.warning_count) {
        (Some(failure), _) => failure.cause.word().to_owned(),
        (None, 0) => listed.waits.clone().unwrap_or_default(),
        (None, n) => count(n, "warning"),
    }
}

/// Archives.
pub fn archives(records: &[Archive]) -> Table {
    let columns = [
        Whole("ARCHIVE"),
        Whole("REPOSITORY"),
        Whole("TIME"),
        Number("FILES"),
        Number("SIZE"),
        Number("NEW"),
        Number("JOB"),
        Text("REMARK"),
    ];
    Table::new(&columns, records, |a| {
        vec![
            a.name.clone(),
            a.repository.to_string(),
            a.start.to_local(),
            a.statistics.nfiles.to_string(),
            bytes(a.statistics.original_size),
            bytes(a.statistics.deduplicated_size),
            a.job.to_string(),
            archive_remark(a),
        ]
    })
}

fn archive_remark(archive: &Archive) -> String {
    let going = archive.pending_deletion.as_ref().map(|pending| format!("goes at {}", pending.due.to_local()));
    let marks = [archive.incomplete.then(|| "incomplete".to_owned()), archive.suspicious.then(|| "suspicious".into()), going];
    let imported = archive.imported.as_ref().map(|_| "imported".to_owned());
    let held = archive.hold.as_ref().map(|_| "held".to_owned());
    let comment = Some(archive.comment.clone()).filter(|comment| !comment.is_empty() && !archive.incomplete);
    marks.into_iter().chain([imported, held, comment]).flatten().collect::<Vec<_>>().join(", ")
}

/// The transaction log.
pub fn log(records: &[LogEntry]) -> Table {
    Table::new(&[Number("NR"), Whole("TIME"), Text("WHO"), Text("WHAT"), Text("RECORDS")], records, |e| {
        vec![e.transaction.to_string(), e.time.to_local(), e.actor.clone(), e.note.clone(), e.records.join(" ")]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Cause, Failure, JobState, Timestamp};

    fn job() -> Job {
        Job::backup(7, &"web1/etc".parse().unwrap(), "main".parse().unwrap(), "root", Timestamp(0))
    }

    fn listed(job: Job) -> ListedJob {
        ListedJob { job, waits: None, cancelled_by: None }
    }

    #[test]
    fn jobs_in_each_kind_of_end() {
        let (queued, mut failed, mut warned) = (job(), job(), job());
        failed.update_state(JobState::JobCreated, JobState::ClientPreparing, Timestamp(1_000_000)).unwrap();
        failed.force_state(JobState::Failed, Failure::new(Cause::PathMissing, "x"), Timestamp(91_000_000)).unwrap();
        warned.state = JobState::Done;
        warned.warning_count = 2;
        warned.statistics = Some(Statistics { nfiles: 5, original_size: 1_500_000, compressed_size: 1000, deduplicated_size: 12 });
        let queued = ListedJob { waits: Some("waits for job 6 of the same config".into()), ..listed(queued) };
        let cancelled = ListedJob { cancelled_by: Some("user:ada".into()), ..listed(job()) };
        let text = jobs(&[queued, listed(failed), listed(warned), cancelled]).render(false).replace(&Timestamp(0).to_local(), "T");
        let expected = "\
JOB\tSTATE\tSUBJECT\tCREATED\tTIME\tFILES\tSIZE\tNEW\tREMARK
7\tjob_created\tweb1/etc\tT\t\t\t\t\twaits for job 6 of the same config
7\tfailed\tweb1/etc\tT\t1 min 30 s\t\t\t\tpath-missing
7\tdone\tweb1/etc\tT\t\t5\t1.50 MB\t12 B\t2 warnings
7\tjob_created\tweb1/etc\tT\t\t\t\t\tbeing cancelled by user:ada
";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_transaction_log() {
        let entry = LogEntry {
            transaction: 3,
            time: Timestamp(0),
            actor: "user:ada".into(),
            note: "add client web1".into(),
            records: vec!["clients/web1".into()],
            hash: "00".into(),
        };
        let text = log(&[entry]).render(false).replace(&Timestamp(0).to_local(), "T");
        assert_eq!(text, "NR\tTIME\tWHO\tWHAT\tRECORDS\n3\tT\tuser:ada\tadd client web1\tclients/web1\n");
    }
}
