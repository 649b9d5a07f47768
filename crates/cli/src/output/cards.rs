//! One record with everything that is known of it.

use super::lists::{length, road};
use super::{Details, bytes, count, duration, exactly, works};
use crate::commands::damage::Checked;
use crate::commands::repository_show::Shown;
use crate::commands::restore_test::TestedClient;
use model::archive::PendingDeletion;
use model::client::Connection;
use model::progress::{Progress, Statistics, Steps};
use model::{Archive, BackupConfig, Client, Job, JobState, Settings, Timestamp, WebUser, Yield};
use wire::control::{JobDetail, Occupied, Status};

/// The server's state.
pub fn status(status: &Status) -> String {
    let mut text = Details::new()
        .line("BorgCube", &status.version)
        .line("Process", format!("{} since {}", status.pid, status.since.to_local()))
        .maybe("State", status.stopping.then_some("stopping: no new jobs"))
        .line("Jobs", format!("{} running, {} queued", status.running.len(), status.queued))
        .line("Archives", status.archives.to_string())
        .line("Repositories", status.repositories.to_string())
        .line("Clients", status.clients.to_string())
        .line("Configs", status.configs.to_string())
        .many("Due next", status.upcoming.iter().map(|due| format!("{} {}", due.time.to_local(), due.schedule)))
        .many("Occupied", status.occupied.iter().map(occupied))
        .render();
    for detail in &status.running {
        let progress = detail.progress.as_ref().map(|p| format!(": {}", progress(p))).unwrap_or_default();
        let end = if detail.cancelled_by.is_some() { ", being cancelled" } else { "" };
        text.push_str(&format!("Job {} {} {}{end}{progress}\n", detail.job.number, detail.job.subject(), detail.job.state));
    }
    text
}

/// A repository that backups may have to wait for.
fn occupied(occupied: &Occupied) -> String {
    let how = match occupied.by.as_str() {
        "a release" => "is lent to another borg".to_owned(),
        by => format!("is busy with {by}"),
    };
    format!("repository {} {how} since {}", occupied.repository, occupied.since.to_local())
}

/// A repository.
pub fn repository(shown: &Shown) -> String {
    let Checked { repository, health } = &shown.checked;
    let details = Details::new()
        .line("Repository", repository.name.as_str())
        .maybe("Description", Some(&repository.description))
        .line("URL", &repository.url)
        .line("Encryption", repository.encryption.as_str())
        .line("Repository id", &repository.repository_id)
        .maybe("Borg program", repository.remote_borg.as_deref())
        .maybe("SSH command", repository.rsh.as_deref())
        .line("Added", repository.created.to_local());
    super::checks::health(space(details, shown), health.as_ref()).render()
}

/// What it takes up, as lines of a card.
fn space(details: Details, shown: &Shown) -> Details {
    let sums = &shown.archives;
    let details = details.line(
        "Contains",
        format!("{}, {}, compressed {}", count(sums.count, "archive"), bytes(sums.original_size), bytes(sums.compressed_size)),
    );
    let Some(space) = &shown.space else {
        let why = if shown.checked.repository.is_remote() {
            "not known: borg serve on the other host does not tell"
        } else {
            "not known yet: it is measured when the repository is used next"
        };
        return details.line("On disk", why);
    };
    details
        .line("On disk", format!("{}, of which a compact can free {}", bytes(space.segments), bytes(space.freeable)))
        .line("Unique", format!("{} in {}", bytes(space.unique), count(space.chunks, "chunk")))
        .maybe("Ratio", shown.ratio.map(|ratio| format!("{ratio:.2} (size of the archives' files to what is unique)")))
        .line("Measured", space.time.to_local())
}

/// A client.
pub fn client(tested: &TestedClient) -> String {
    let client = &tested.client;
    let details = Details::new()
        .line("Client", client.name.as_str())
        .maybe("Description", Some(&client.description))
        .line("Connection", road(&client.connection));
    let details = match &client.connection {
        Connection::Local { .. } => details,
        Connection::Ssh(ssh) => details
            .maybe("This server", Some(&ssh.server))
            .line("Comes back", comes_back(ssh))
            .maybe("SSH program", ssh.rsh.as_deref())
            .many("SSH arguments", &ssh.rsh_options)
            .maybe("SSH key", ssh.ssh_identity_file.as_deref())
            .maybe("Client's SSH", ssh.client_rsh.as_deref()),
    };
    details
        .maybe("Borg program", client.connection.remote_borg())
        .maybe("Server's binary", server_binary(client))
        .maybe("Borg's cache", client.connection.remote_cache_dir())
        .many("Permanent keys", client.keys.iter().map(|key| format!("{} {}", key.key.kind(), key.key.fingerprint())))
        .many("Blackouts", client.blackouts.iter().map(ToString::to_string))
        .line("Restore test", tested.line())
        .line("Added", client.created.to_local())
        .render()
}

/// When a client uses a Borg binary of this server. What a client does that nobody has thought about is not said.
fn server_binary(client: &Client) -> Option<&'static str> {
    use model::client::BinaryUse;
    match client.borg_binary {
        BinaryUse::IfNeeded => None,
        BinaryUse::Always => Some("for each backup"),
        BinaryUse::Never => Some("never"),
    }
}

/// How a client's borg comes to this server.
fn comes_back(ssh: &model::client::SshConnection) -> &'static str {
    use model::client::{KeyUse, Road};
    match (ssh.road, ssh.key) {
        (Road::Carrier, _) => "over this server's own connection to it",
        (Road::Back, KeyUse::Job) => "by SSH, with a key of each job",
        (Road::Back, KeyUse::Permanent) => "by SSH, with a permanent key of its own",
    }
}

/// A backup config.
pub fn config(config: &BackupConfig) -> String {
    let yes = |flag: bool| flag.then_some("yes");
    Details::new()
        .line("Config", config.name().to_string())
        .line("Repository", config.repository.as_str())
        .many("Paths", &config.paths)
        .many("Excludes", &config.excludes)
        .many("Patterns", &config.patterns)
        .maybe("One file system", yes(config.one_file_system))
        .maybe("Compression", config.compression.as_deref())
        .maybe("Checkpoints", config.checkpoint_interval.map(|s| format!("every {s} seconds")))
        .maybe("Read special", yes(config.read_special))
        .maybe("Ignore inode", yes(config.ignore_inode))
        .many("Extra options", &config.extra_options)
        .line("Target age", format!("{} hours", config.target_age_hours))
        .many("Hooks", config.commands.hooks.iter().map(|hook| hook.name.as_str()))
        .many("Dumps", config.commands.dumps.iter().map(model::Dump::path))
        .line("Added", config.created.to_local())
        .render()
}

/// A hook.
pub fn hook(listed: &crate::commands::hook::Listed) -> String {
    let hook = &listed.hook;
    Details::new()
        .line("Hook", hook.name.as_str())
        .line("Config", listed.config.to_string())
        .many("Before", hook.before.iter().flat_map(|command| command.lines()))
        .many("After", hook.after.iter().flat_map(|command| command.lines()))
        .line("Time limit", duration(f64::from(hook.seconds)))
        .line("On failure", hook.on_failure.word())
        .render()
}

/// A dump.
pub fn dump(listed: &crate::commands::dump::Listed) -> String {
    let dump = &listed.dump;
    Details::new()
        .line("Dump", dump.name.as_str())
        .line("Config", listed.config.to_string())
        .line("In the archive", listed.path.as_str())
        .many("Command", dump.command.lines())
        .line("Time limit", duration(f64::from(dump.seconds)))
        .maybe("Spooled", dump.spool.then_some("written to the client's disk first"))
        .render()
}

/// How a hook or dump of a job ended.
fn how_it_ended(result: &model::hook::CommandResult) -> String {
    let size = result.bytes.map(|n| format!(", {}", bytes(n))).unwrap_or_default();
    format!("{}, {}{size}", result.sentence(), duration(result.seconds as f64))
}

/// A job.
pub fn job(detail: &JobDetail, retried_as: Option<u64>) -> String {
    let job = &detail.job;
    // A job that failed has made no archive of the name that was meant.
    let made = job.archive.is_some() || !matches!(job.state, JobState::Failed | JobState::Cancelled);
    let history = job.history.iter().map(|step| format!("{} {}", step.time.to_local(), step.state));
    let details = Details::new().line("Job", job.number.to_string()).line("Kind", job.kind().as_str());
    with_statistics(
        works::work(details, &job.work)
            .maybe("Repository", job.repository.as_ref().map(|r| r.as_str()))
            .line("State", job.state.as_str())
            .maybe("Waits", detail.waits.as_deref())
            .maybe("Cancellation", detail.cancelled_by.as_deref().map(|by| format!("under way, asked for by {by}")))
            .maybe("Progress", detail.progress.as_ref().map(progress))
            .maybe("Failure", job.failure.as_ref().map(|f| f.line()))
            .maybe("What to do", job.failure.as_ref().map(|f| f.cause.advice_for(job.kind())))
            .maybe("Archive", job.archive_name.as_deref().filter(|_| made))
            .maybe("Archive id", job.archive.as_deref())
            .maybe("Result", job.yielded.as_ref().map(yielded)),
        job.statistics.as_ref(),
    )
    .maybe("Time", length(job).map(duration))
    .maybe("Client's borg", job.client_borg.as_deref())
    .line("Asked for by", &job.actor)
    .maybe("Retries", job.retry_of.map(|n| format!("job {n}")))
    .maybe("Retried as", retried_as.map(|n| format!("job {n}")))
    .many("Hooks and dumps", job.commands.iter().map(how_it_ended))
    .many("History", history)
    .many("Warnings", &job.warnings)
    .maybe("", more_warnings(job))
    .render()
}

/// What came of a job that makes no archive.
pub fn yielded(yielded: &Yield) -> String {
    match yielded {
        Yield::Checked { objects, bytes: read, error_count, complete, structure, data, not_due_since } => {
            let errors = if *error_count == 0 { "no damage".to_owned() } else { count(*error_count, "error") };
            let end = if *complete { "" } else { ", and its time was over" };
            let coverage = [("structure", structure), ("data", data)];
            let coverage = coverage.iter().filter_map(|(part, coverage)| Some(format!("; {part}: {}", coverage.as_ref()?)));
            if let Some(last) = not_due_since {
                let coverage = coverage.collect::<String>();
                return format!("nothing was due, so nothing was checked; the last check was at {}{coverage}", last.to_local());
            }
            format!("{}, {} read: {errors}{end}{}", count(*objects, "object"), bytes(*read), coverage.collect::<String>())
        }
        Yield::Imported { imported, refused, skipped } => {
            let refused = if *refused == 0 { String::new() } else { format!(", {refused} refused") };
            let skipped = if *skipped == 0 { String::new() } else { format!(", {skipped} left alone") };
            format!("{} imported{refused}{skipped}", count(*imported, "archive"))
        }
        Yield::Restored { target, chunks, of, bytes: read } => {
            let into = if target.is_empty() { String::new() } else { format!("into {}: ", super::shown(target)) };
            format!("{into}{chunks} of {} read, {}", count(*of, "chunk"), bytes(*read))
        }
        Yield::RestoreTested {
            archive,
            seed,
            files,
            bytes: size,
            of_files,
            recorded,
            expected,
            live,
            changed,
            gone,
            first_seen,
            good,
            ..
        } => {
            let proven = if *good { "good" } else { "NOT a good test" };
            let parts = [
                (*recorded, "as recorded before"),
                (*expected, "as expected"),
                (*live, "as on the client"),
                (*changed, "changed there since"),
                (*gone, "gone there"),
                (*first_seen, "seen for the first time"),
            ];
            let parts: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
            let parts = if parts.is_empty() { "nothing to compare".to_owned() } else { parts.join(", ") };
            format!("{proven}: {} of {of_files} extracted from {archive}, {}: {parts}; seed {seed}", count(*files, "file"), bytes(*size))
        }
        Yield::Pruned { marked, deleted, bytes: size, freed, stopped } => {
            let marked = if *marked == 0 { String::new() } else { format!(", {} to be deleted", count(*marked, "more archive")) };
            let stopped = if *stopped == 0 { String::new() } else { format!(", stopped for {}", count(*stopped, "config")) };
            let deleted = count(*deleted, "archive");
            format!("{deleted} deleted with {}, {} freed{marked}{stopped}", bytes(*size), bytes(*freed))
        }
        Yield::Compacted { segments, freed, orphans, skipped } => {
            let orphans =
                if *orphans == 0 { String::new() } else { format!(", {} that no archive needs deleted", count(*orphans, "object")) };
            let skipped =
                if *skipped == 0 { String::new() } else { format!(", {} damaged and left alone", count(*skipped, "segment file")) };
            format!("{} freed, {} gone{orphans}{skipped}", bytes(*freed), count(*segments, "segment file"))
        }
    }
}

fn more_warnings(job: &Job) -> Option<String> {
    let more = job.warning_count.saturating_sub(job.warnings.len() as u64);
    (more > 0).then(|| format!("and {more} more: borgcube job log {}", job.number))
}

fn with_statistics(details: Details, statistics: Option<&Statistics>) -> Details {
    let Some(s) = statistics else { return details };
    details
        .line("Files", s.nfiles.to_string())
        .line("Original size", bytes(s.original_size))
        .line("Compressed size", bytes(s.compressed_size))
        .line("Newly stored", bytes(s.deduplicated_size))
}

/// An archive.
pub fn archive(archive: &Archive) -> String {
    let counters = &archive.counters;
    let sent = archive.imported.is_none().then(|| format!("{}, {}", count(counters.puts, "object"), bytes(counters.put_bytes)));
    let imported =
        archive.imported.as_ref().map(|imported| format!("at {} by {}; its times are what it says", imported.time.to_local(), imported.by));
    with_statistics(
        Details::new()
            .line("Archive", &archive.name)
            .line("Id", &archive.id)
            .line("Repository", archive.repository.as_str())
            .line("Client", archive.client.as_str())
            .line("Label", archive.label.as_str())
            .line("Job", archive.job.to_string())
            .maybe("Comment", Some(&archive.comment))
            .maybe("Incomplete", archive.incomplete.then_some("a checkpoint of a broken job; no restore point")),
        Some(&archive.statistics),
    )
    .maybe("Sent by client", sent)
    .maybe("Imported", imported)
    .line("Start", archive.start.to_local())
    .line("End", archive.end.to_local())
    .line("Time", duration(archive.end.seconds_since(archive.start)))
    .many(if archive.imported.is_some() { "It says" } else { "Client's claims" }, &archive.claims)
    .maybe("Suspicious", archive.suspicious.then_some("look at it before anything relies on it"))
    .many("Warnings", &archive.warnings)
    .maybe("Held", archive.hold.as_ref().map(|hold| format!("by {} since {} {}", hold.by, hold.since.to_local(), hold.reason)))
    .maybe("Goes", archive.pending_deletion.as_ref().map(going))
    .render()
}

fn going(pending: &PendingDeletion) -> String {
    let by = pending.policy.as_ref().map_or_else(|| pending.by.clone(), |policy| format!("policy {policy}"));
    format!("deleted from {} on, as {by} decided; until then: borgcube archive undelete", pending.due.to_local())
}

/// A user of the status pages.
pub fn web_user(user: &WebUser) -> String {
    Details::new()
        .line("Name", user.name.as_str())
        .line("Role", user.role.as_str())
        .line("Signs in by", user.sign_in.way().to_string())
        .line("State", super::plans::web_user_state(user, Timestamp::now()))
        .line("Expires", user.expires.map(Timestamp::to_local).unwrap_or_else(|| "never".into()))
        .line("In the log", user.actor())
        .maybe("Comment", Some(&user.comment))
        .line("Added", user.created.to_local())
        .render()
}

/// The settings.
pub fn settings(settings: &Settings) -> String {
    Details::new()
        .line("Server id", &settings.server_id)
        .line("Jobs per client", settings.limits.per_client.to_string())
        .line("Jobs per repository", settings.limits.per_repository.to_string())
        .line("Jobs in all", settings.limits.total.to_string())
        .line("A backup's objects", settings.sessions.objects.to_string())
        .line("A backup's small objects", settings.sessions.small_objects.to_string())
        .line("A backup's bytes", exactly(settings.sessions.bytes))
        .line("A backup's checkpoints", settings.sessions.checkpoints.to_string())
        .line("Proposals per minute", settings.sessions.proposals_per_minute.to_string())
        .line("Start seconds", settings.sessions.start_seconds.to_string())
        .line("Idle seconds", settings.sessions.idle_seconds.to_string())
        .line("Seconds in all", settings.sessions.total_seconds.to_string())
        .line("Grace seconds", settings.sessions.grace_seconds.to_string())
        .line("Bytes per second", settings.sessions.bytes_per_second.to_string())
        .line("A client's archives", settings.sessions.client_archives.to_string())
        .line("A client's bytes", exactly(settings.sessions.client_bytes))
        .line("A backup's log", exactly(settings.sessions.log_bytes))
        .line("Web sign-in by peer", if settings.web.peer { "on" } else { "off" })
        .line("Web sign-in by proxy", if settings.web.proxy { "on" } else { "off" })
        .line("Archives through the web", if settings.web.downloads { "on" } else { "off" })
        .render()
}

/// One line about a running backup.
pub fn progress(progress: &Progress) -> String {
    if let Some(steps) = &progress.steps {
        return self::steps(steps);
    }
    let s = &progress.statistics;
    // A client that restores tells nothing else.
    let restores = s.original_size > 0 && s.nfiles == 0 && s.compressed_size == 0;
    let of = progress.expected.map(|expected| format!(" of {}", bytes(expected.original_size))).unwrap_or_default();
    let mut line = if restores {
        format!("{}{of} restored, {}/s", bytes(s.original_size), bytes(progress.rate))
    } else {
        format!(
            "{}, {} original, {} compressed, {} deduplicated, {}/s",
            count(s.nfiles, "file"),
            bytes(s.original_size),
            bytes(s.compressed_size),
            bytes(s.deduplicated_size),
            bytes(progress.rate)
        )
    };
    if !progress.path.is_empty() {
        line.push_str(&format!(", {}", super::shown(&progress.path)));
    }
    line
}

/// How far an operation on a repository is.
pub fn steps(steps: &Steps) -> String {
    let unit = super::shown(&steps.unit);
    match steps.total {
        0 => format!("{} {unit}", steps.done),
        total => format!("{} of {total} {unit}", steps.done),
    }
}

/// One line about a job that has ended.
pub fn ended(job: &Job) -> String {
    let mut line = format!("Job {} {}", job.number, job.state);
    if job.state != JobState::Done {
        return line;
    }
    if let Some(name) = &job.archive_name {
        line.push_str(&format!(": archive {}", super::shown(name)));
    }
    if let Some(s) = &job.statistics {
        let sizes = [bytes(s.original_size), bytes(s.compressed_size), bytes(s.deduplicated_size)];
        line.push_str(&format!(", {}, {} original, {} compressed, {} new", count(s.nfiles, "file"), sizes[0], sizes[1], sizes[2]));
    }
    if let Some(yielded) = &job.yielded {
        line.push_str(&format!(": {}, {}", job.subject(), self::yielded(yielded)));
    }
    if let Some(seconds) = length(job) {
        line.push_str(&format!(", {}", duration(seconds)));
    }
    if job.warning_count > 0 {
        line.push_str(&format!(", {} (borgcube job log {})", count(job.warning_count, "warning"), job.number));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::space::Space;
    use model::{Cause, Failure, Timestamp};
    use wire::control::ArchiveSums;

    #[test]
    fn a_failed_job_says_why_and_what_to_do() {
        let mut record = Job::backup(7, &"web1/etc".parse().unwrap(), "main".parse().unwrap(), "root", Timestamp(0));
        record.force_state(JobState::Failed, Failure::new(Cause::PassphraseWrong, "it does not open"), Timestamp(0)).unwrap();
        record.warnings = vec!["one".into()];
        record.warning_count = 3;
        record.archive_name = Some("not-made".into());
        let text = job(&JobDetail { job: record, progress: None, waits: None, cancelled_by: None }, Some(9))
            .replace(&Timestamp(0).to_local(), "T");
        let advice = Cause::PassphraseWrong.advice();
        let expected = format!(
            "\
Job:          7
Kind:         backup
Config:       web1/etc
Repository:   main
State:        failed
Failure:      passphrase-wrong: it does not open
What to do:   {advice}
Asked for by: root
Retried as:   job 9
History:      T job_created
              T failed
Warnings:     one
              and 2 more: borgcube job log 7
"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn what_a_repository_takes_up_is_said_or_that_nobody_knows() {
        let shown = |url: &str, space: Option<Space>| {
            let record = serde_json::json!({"name": "main", "url": url, "repository_id": "ab", "encryption": "none", "created": 0});
            let checked = Checked { repository: serde_json::from_value(record).unwrap(), health: None };
            let archives = ArchiveSums { count: 2, original_size: 5_000, compressed_size: 4_000 };
            let ratio = space.as_ref().map(|_| 2.5);
            repository(&Shown { checked, space, archives, ratio })
        };
        let space =
            Space { repository: "main".parse().unwrap(), time: Timestamp(0), segments: 3_000, freeable: 500, unique: 2_000, chunks: 1 };
        let text = shown("/srv/main", Some(space));
        for part in
            ["2 archives, 5.00 kB, compressed 4.00 kB", "3.00 kB, of which a compact can free 500 B", "2.00 kB in 1 chunk\n", "2.50 ("]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(shown("/srv/main", None).contains("not known yet: it is measured when the repository is used next"));
        let far = shown("ssh://borg@storage/./main", None);
        assert!(far.contains("not known: borg serve on the other host does not tell") && !far.contains("Unique"), "{far}");
    }

    #[test]
    fn hostile_text_is_shown_and_does_nothing() {
        let record = Archive {
            id: "aa".into(),
            name: "x\u{1b}]0;gone\u{7}".into(),
            repository: "main".parse().unwrap(),
            client: "web1".parse().unwrap(),
            label: "etc".parse().unwrap(),
            job: 1,
            comment: String::new(),
            statistics: Statistics::default(),
            counters: Default::default(),
            start: Timestamp(0),
            end: Timestamp(0),
            incomplete: true,
            view_digest: String::new(),
            claims: vec!["host \u{202e}live".into()],
            suspicious: true,
            warnings: vec!["odd".into()],
            hold: None,
            pending_deletion: None,
            imported: None,
        };
        let text = archive(&record);
        assert!(text.contains("x\\u{1b}]0;gone\\u{7}") && text.contains("host \\u{202e}live"), "{text}");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text}");
        assert!(text.contains("no restore point") && text.contains("Suspicious") && text.contains("odd"), "{text}");
    }
}
