//! Which columns each kind of record has in a listing.

use super::tables::Column::{Number, Text};
use super::{Table, bytes, count, duration};
use model::client::Connection;
use model::progress::Statistics;
use model::{Archive, BackupConfig, Client, Job, Repository};
use wire::control::LogEntry;

/// Repositories.
pub fn repositories(records: &[Repository]) -> Table {
    Table::new(&[Text("NAME"), Text("ENCRYPTION"), Text("URL"), Text("DESCRIPTION")], records, |r| {
        vec![r.name.to_string(), r.encryption.to_string(), r.url.clone(), r.description.clone()]
    })
}

/// Clients.
pub fn clients(records: &[Client]) -> Table {
    Table::new(&[Text("NAME"), Text("CONNECTION"), Text("DESCRIPTION")], records, |c| {
        vec![c.name.to_string(), road(&c.connection), c.description.clone()]
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
    Table::new(&[Text("CONFIG"), Text("REPOSITORY"), Text("PATHS"), Text("EXCLUDES")], records, |c| {
        let rules = c.excludes.len() + c.patterns.len();
        let excludes = if rules == 0 { String::new() } else { count(rules as u64, "pattern") };
        vec![c.name().to_string(), c.repository.to_string(), c.paths.join(" "), excludes]
    })
}

/// Jobs.
pub fn jobs(records: &[Job]) -> Table {
    let columns = [
        Number("JOB"),
        Text("STATE"),
        Text("CONFIG"),
        Text("CREATED"),
        Number("TIME"),
        Number("FILES"),
        Number("SIZE"),
        Number("NEW"),
        Text("REMARK"),
    ];
    Table::new(&columns, records, |j| {
        let figures = |f: fn(&Statistics) -> String| j.statistics.as_ref().map(f).unwrap_or_default();
        vec![
            j.number.to_string(),
            j.state.to_string(),
            j.config().to_string(),
            j.created.to_local(),
            length(j).map(duration).unwrap_or_default(),
            figures(|s| s.nfiles.to_string()),
            figures(|s| bytes(s.original_size)),
            figures(|s| bytes(s.deduplicated_size)),
            remark(j),
        ]
    })
}

/// Seconds from the start to the end.
pub fn length(job: &Job) -> Option<f64> {
    Some(job.ended()?.seconds_since(job.started()?))
}

fn remark(job: &Job) -> String {
    match (&job.failure, job.warning_count) {
        (Some(failure), _) => failure.cause.word().to_owned(),
        (None, 0) => String::new(),
        (None, n) => count(n, "warning"),
    }
}

/// Archives.
pub fn archives(records: &[Archive]) -> Table {
    let columns =
        [Text("ARCHIVE"), Text("REPOSITORY"), Text("TIME"), Number("FILES"), Number("SIZE"), Number("NEW"), Number("JOB"), Text("REMARK")];
    Table::new(&columns, records, |a| {
        vec![
            a.name.clone(),
            a.repository.to_string(),
            a.start.to_local(),
            a.statistics.nfiles.to_string(),
            bytes(a.statistics.original_size),
            bytes(a.statistics.deduplicated_size),
            a.job.to_string(),
            if a.incomplete { "incomplete".into() } else { a.comment.clone() },
        ]
    })
}

/// The transaction log.
pub fn log(records: &[LogEntry]) -> Table {
    Table::new(&[Number("NR"), Text("TIME"), Text("WHO"), Text("WHAT"), Text("RECORDS")], records, |e| {
        vec![e.transaction.to_string(), e.time.to_local(), e.actor.clone(), e.note.clone(), e.records.join(" ")]
    })
}
