//! How a backup ended, from everything that is known: pure.
//!
//! Whether there is an archive, only the owner knows. The client's exit code is a vote on why there is none.

use super::commands::failure;
use super::report::Report;
use model::borg_report::{Ending, cause_of, ending, ssh_failure};
use model::{Cause, Failure};
use unix::pidfd::ExitStatus;
use wire::session::Outcome;

/// What the verdict rests on.
pub struct Evidence<'a> {
    /// The owner's word; None: it is gone.
    pub outcome: Option<&'a Outcome>,
    /// What the client wrote.
    pub report: &'a Report,
    /// How the local end of the connection (ssh, or the shell of a local client) ended.
    pub connection: ExitStatus,
    /// Who cancelled the job.
    pub cancelled: Option<&'a str>,
    /// The client is reached over SSH.
    pub over_ssh: bool,
}

/// The failure, or None when the backup is good; and a warning about a good archive, if any.
pub fn judge(evidence: &Evidence<'_>) -> (Option<Failure>, Option<String>) {
    let Evidence { outcome, report, .. } = evidence;
    if let Some(archive) = outcome.and_then(|o| o.archive.as_ref()) {
        // Whatever the client says now, borg has read less than there was, or nobody knows. Before all else: it casts doubt on the archive.
        if let Some(failure) = report.commands.dump_missing(archive) {
            return (Some(failure), None);
        }
        if !report.missing.is_empty() {
            let message = format!("not on the client: {}; the other paths are in archive {}", report.missing.join(", "), archive.name);
            return (Some(Failure::new(Cause::PathMissing, message)), None);
        }
        // The archive stays: it was complete and valid before. But somebody has to look at that host.
        let told = outcome.and_then(|o| o.failure.as_ref()).filter(|f| matches!(f.cause, Cause::PolicyViolation { .. }));
        if let Some(violation) = told {
            return (Some(violation.clone()), None);
        }
        if let Some(after) = report.commands.after_failed() {
            return (Some(failure(after, &format!("; archive {} is complete", archive.name))), None);
        }
        let clean = matches!(report.exit.map(ending), Some(Ending::Good { .. }));
        let warning =
            (!clean).then(|| "the client's borg did not end well after its archive was committed; the archive is complete".to_owned());
        return (None, warning);
    }
    (Some(no_archive(evidence)), None)
}

fn no_archive(evidence: &Evidence<'_>) -> Failure {
    trouble(evidence).or_else(|| complaint(evidence)).unwrap_or_else(|| {
        Failure::new(
            Cause::ClientBorgFailed { code: evidence.report.exit.unwrap_or(0), msgid: String::new() },
            "borg on the client reported success, but made no archive",
        )
    })
}

/// Borg 1.1 and 1.2 end as with warnings when they did not get as far as to do anything.
pub fn complaint(evidence: &Evidence<'_>) -> Option<Failure> {
    let code = evidence.report.exit.filter(|code| *code != 0)?;
    evidence.report.complaint.failure(code)
}

/// Why the client's borg did not end well, or its session did not.
pub fn trouble(evidence: &Evidence<'_>) -> Option<Failure> {
    let Evidence { outcome, report, .. } = evidence;
    // What the owner says outranks what a client may say; "the session was lost" is the one thing that needs an explanation.
    let told = outcome.and_then(|o| o.failure.clone());
    if let Some(failure) = &told
        && failure.cause != Cause::SessionLost
    {
        return Some(failure.clone());
    }
    if let Some(by) = evidence.cancelled {
        let kept = if outcome.is_some_and(|o| o.checkpoint.is_some()) { "; what was backed up is kept for the next run" } else { "" };
        return Some(Failure::new(Cause::Cancelled { by: by.to_owned() }, format!("cancelled by {by}{kept}")));
    }
    if let Some(failure) = &report.script_failure {
        return Some(failure.clone());
    }
    // borg was ended for it.
    if let Some(failure) = report.commands.dump_failed() {
        return Some(failure);
    }
    if outcome.is_none() {
        return Some(Failure::new(Cause::OwnerLost, "the repository's owner process ended during the job"));
    }
    Some(match report.exit.map(ending) {
        Some(Ending::Killed { signal }) => {
            Failure::new(Cause::ClientBorgKilled { signal }, format!("borg on the client was killed by signal {signal}"))
        }
        Some(Ending::Bad { code }) => {
            let (msgid, message) = report.error.clone().unwrap_or_default();
            let mut failure = cause_of(code, &msgid, &message);
            if report.error.is_none()
                && let Some(complaint) = complaint(evidence)
            {
                failure = complaint;
            }
            // "Is borg working on the server?" helps nobody; what ssh on the client said does.
            if failure.cause == Cause::ClientCannotReachServer
                && let Some(said) = report.warnings.iter().rev().find_map(|w| w.strip_prefix("Remote: "))
            {
                failure.message = format!("borg on the client could not connect to this server: {said}");
            }
            match told {
                // The session went first: whatever borg made of that (1.2 may show a traceback) is a consequence.
                Some(lost) => lost,
                // It was there, so the road to this server is not the trouble.
                None if failure.cause == Cause::ClientCannotReachServer && outcome.is_some_and(|o| o.opened) => {
                    Failure::new(Cause::SessionLost, failure.message)
                }
                None => failure,
            }
        }
        Some(Ending::Good { .. }) => return told,
        None => match evidence.connection {
            ExitStatus::Signaled(signal) => {
                Failure::new(Cause::ClientConnectionFailed, format!("the connection to the client was killed by signal {signal}"))
            }
            ExitStatus::Exited(255) if evidence.over_ssh => ssh_failure(report.text()),
            status => {
                let last = report.text().lines().last().unwrap_or("no reason was given").to_owned();
                Failure::new(Cause::ClientConnectionFailed, format!("the connection to the client {status}: {last}"))
            }
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::progress::SessionCounters;
    use model::{Archive, Timestamp};

    fn outcome(failure: Option<Cause>) -> Outcome {
        let failure = failure.map(|c| Failure::new(c, "told"));
        Outcome { opened: true, archive: None, checkpoint: None, failure, counters: SessionCounters::default(), served: None }
    }

    fn report(lines: &[&str], errors: &[&str]) -> Report {
        let mut report = Report::default();
        lines.iter().for_each(|l| drop(report.step(l.as_bytes(), Timestamp(0))));
        errors.iter().for_each(|l| report.line(l.as_bytes(), Timestamp(0)));
        report
    }

    fn word(outcome: Option<&Outcome>, report: &Report, connection: ExitStatus, cancelled: Option<&str>) -> &'static str {
        let evidence = Evidence { outcome, report, connection, cancelled, over_ssh: true };
        judge(&evidence).0.map_or("good", |f| f.cause.word())
    }

    #[test]
    fn the_owner_outranks_the_client() {
        let violation = outcome(Some(Cause::PolicyViolation { rule: "x".into() }));
        let killed = report(&["borgcube exit 137"], &[]);
        let ok = ExitStatus::Exited(0);
        assert_eq!(word(Some(&violation), &killed, ok, None), "policy-violation");
        assert_eq!(word(Some(&violation), &killed, ok, Some("root")), "policy-violation");
        assert_eq!(word(Some(&outcome(Some(Cause::RepositoryEnospc))), &killed, ok, None), "repository-enospc");
    }

    #[test]
    fn who_was_killed() {
        let lost = outcome(Some(Cause::SessionLost));
        let ok = ExitStatus::Exited(0);
        assert_eq!(word(Some(&lost), &report(&["borgcube exit 137"], &[]), ok, None), "client-borg-killed");
        let closed = r#"{"type":"log_message","levelname":"ERROR","message":"closed","msgid":"ConnectionClosed"}"#;
        assert_eq!(word(Some(&lost), &report(&["borgcube exit 80"], &[closed]), ok, None), "session-lost");
        let traceback = r#"{"type":"log_message","levelname":"ERROR","message":"Traceback (most recent call last):"}"#;
        assert_eq!(word(Some(&lost), &report(&["borgcube exit 2"], &[traceback]), ok, None), "session-lost");
        assert_eq!(word(Some(&outcome(None)), &report(&["borgcube exit 2"], &[traceback]), ok, None), "client-borg-failed");
        assert_eq!(word(None, &report(&["borgcube exit 80"], &[closed]), ok, None), "owner-lost");
        assert_eq!(word(Some(&lost), &report(&["borgcube exit 2"], &[]), ok, Some("anna")), "cancelled");
    }

    #[test]
    fn what_is_said_before_borg_does_anything() {
        let traceback = ["Traceback (most recent call last):", "  File x", "re.error: missing ), unterminated subpattern at position 0"];
        let usage = ["usage: borg create [-h]", "borg create: error: argument -e/--exclude: invalid value"];
        let broken = ["Traceback (most recent call last):", "  File x", "ImportError: no msgpack"];
        let ok = ExitStatus::Exited(0);
        // No session, for borg did not get as far.
        let none = Outcome { opened: false, ..outcome(None) };
        for (exit, said, expected) in [
            ("borgcube exit 1", &traceback[..], "client-borg-refused"),
            ("borgcube exit 2", &traceback[..], "client-borg-refused"),
            ("borgcube exit 2", &usage[..], "client-borg-refused"),
            ("borgcube exit 1", &broken[..], "client-borg-failed"),
        ] {
            let report = report(&[exit], said);
            assert_eq!(word(Some(&none), &report, ok, None), expected, "{exit}");
            let evidence = Evidence { outcome: Some(&none), report: &report, connection: ok, cancelled: None, over_ssh: true };
            let message = judge(&evidence).0.unwrap().message;
            assert!(!message.contains("success") && message.contains(said.last().unwrap().rsplit(": ").next().unwrap()), "{message}");
        }
        // Who says that all is well has nothing to complain of.
        assert_eq!(word(Some(&none), &report(&["borgcube exit 0"], &traceback), ok, None), "client-borg-failed");
    }

    #[test]
    fn ssh_and_script() {
        let none = Outcome { opened: false, ..outcome(None) };
        let refused = report(&[], &["ssh: connect to host x port 22: Connection refused"]);
        assert_eq!(word(Some(&none), &refused, ExitStatus::Exited(255), None), "client-connection-failed");
        let changed = report(&[], &["@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @", "Host key verification failed."]);
        assert_eq!(word(Some(&none), &changed, ExitStatus::Exited(255), None), "host-key-changed");
        let missing = report(&["borgcube failed client-borg-missing borg was not found on the client"], &[]);
        assert_eq!(word(Some(&none), &missing, ExitStatus::Exited(0), None), "client-borg-missing");
        let hint = r#"{"type":"log_message","levelname":"ERROR","message":"x","msgid":"ConnectionClosedWithHint"}"#;
        assert_eq!(word(Some(&none), &report(&["borgcube exit 81"], &[hint]), ExitStatus::Exited(0), None), "client-cannot-reach-server");
    }

    #[test]
    fn a_complete_archive_and_what_came_after() {
        let archive = Archive {
            id: "00".repeat(32),
            name: "a".into(),
            repository: "r".parse().unwrap(),
            client: "c".parse().unwrap(),
            label: "l".parse().unwrap(),
            job: 1,
            comment: String::new(),
            statistics: Default::default(),
            counters: SessionCounters::default(),
            start: Timestamp(0),
            end: Timestamp(1),
            incomplete: false,
            view_digest: String::new(),
            claims: vec![],
            suspicious: false,
            warnings: vec![],
            hold: None,
            pending_deletion: None,
            imported: None,
        };
        let with = |cause| Outcome { archive: Some(archive.clone()), ..outcome(cause) };
        let (ok, good) = (ExitStatus::Exited(0), report(&["borgcube exit 0"], &[]));
        assert_eq!(word(Some(&with(None)), &good, ok, None), "good");
        assert_eq!(word(Some(&with(None)), &report(&["borgcube exit 137"], &[]), ok, None), "good");
        assert_eq!(word(Some(&with(Some(Cause::SessionLost))), &good, ok, None), "good");
        let violation = Cause::PolicyViolation { rule: "method".into() };
        assert_eq!(word(Some(&with(Some(violation))), &good, ok, None), "policy-violation");
        let missing = report(&["borgcube missing /nowhere", "borgcube exit 0"], &[]);
        assert_eq!(word(Some(&with(None)), &missing, ok, None), "path-missing");
    }

    #[test]
    fn a_lie_about_success_is_no_archive() {
        assert_eq!(word(Some(&outcome(None)), &report(&["borgcube exit 0"], &[]), ExitStatus::Exited(0), None), "client-borg-failed");
    }
}
