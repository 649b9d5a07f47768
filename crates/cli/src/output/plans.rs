//! Schedules, their future and their past, and triggers.

use super::tables::Column::{Number, Text, Whole};
use super::{Details, Table, count, duration, shown};
use model::occurrence::LeftOut;
use model::{Occurrence, Outcome, Timestamp, Trigger, WebUser};
use wire::control::{Due, ListedSchedule, Ran};

/// Schedules.
pub fn schedules(records: &[ListedSchedule]) -> Table {
    let columns = [Whole("NAME"), Whole("NEXT"), Text("WHEN"), Text("ACTIONS"), Text("LAST")];
    Table::new(&columns, records, |listed| {
        let schedule = &listed.schedule;
        let actions: Vec<String> = schedule.actions.iter().map(ToString::to_string).collect();
        let last = listed.last.as_ref().map(|o| format!("{} {}", o.time.to_local(), became(o)));
        vec![schedule.name.to_string(), next(listed), schedule.recurrence.to_string(), actions.join("; "), last.unwrap_or_default()]
    })
}

fn next(listed: &ListedSchedule) -> String {
    match listed.next {
        _ if !listed.schedule.enabled => "disabled".into(),
        Some(at) => at.to_local(),
        None => "never".into(),
    }
}

/// One schedule, what is due next, and what became of what was.
pub fn schedule(listed: &ListedSchedule, upcoming: &[Due], past: &[Occurrence]) -> String {
    let schedule = &listed.schedule;
    let jitter = (schedule.jitter_seconds > 0).then(|| format!("up to {}", duration(schedule.jitter_seconds.into())));
    let lines = schedule.recurrence.lines().join(" ");
    let lines = Some(lines).filter(|lines| lines != schedule.recurrence.text());
    Details::new()
        .line("Schedule", schedule.name.as_str())
        .maybe("Description", Some(&schedule.description))
        .line("State", if schedule.enabled { "enabled" } else { "disabled: its occurrences are skipped" })
        .line("When", schedule.recurrence.text())
        .maybe("RFC 5545", lines)
        .maybe("Later", jitter)
        .many("Actions", schedule.actions.iter().map(ToString::to_string))
        .many("Next", upcoming.iter().map(|due| due.time.to_local()))
        .many("History", past.iter().map(|o| format!("{} {}", o.time.to_local(), became(o))))
        .line("Added", schedule.created.to_local())
        .render()
}

/// What is due next.
pub fn upcoming(records: &[Due], now: Timestamp) -> Table {
    Table::new(&[Whole("TIME"), Text("IN"), Whole("SCHEDULE")], records, |due| {
        vec![due.time.to_local(), distance(due.time.seconds_since(now)), due.schedule.to_string()]
    })
}

/// `3 h 5 min`, as exact as somebody wants to know who waits for it.
fn distance(seconds: f64) -> String {
    let minutes = (seconds.max(0.0) / 60.0) as u64;
    match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
        (0, 0, 0) => "less than a minute".into(),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// What became of occurrences.
pub fn history(records: &[Occurrence]) -> Table {
    let columns = [Number("NR"), Whole("TIME"), Whole("SCHEDULE"), Whole("BY"), Text("RESULT")];
    Table::new(&columns, records, |o| {
        vec![o.number.to_string(), o.time.to_local(), o.schedule.to_string(), o.origin.to_string(), became(o)]
    })
}

/// In one line.
fn became(occurrence: &Occurrence) -> String {
    match &occurrence.outcome {
        Outcome::Run { jobs, done, left_out } => {
            let mut parts: Vec<String> = (!jobs.is_empty()).then(|| job_list(jobs)).into_iter().collect();
            parts.extend(done.iter().cloned());
            parts.extend(left_out.iter().map(left));
            parts.join("; ")
        }
        Outcome::Skip { reason, left_out } => {
            let many = if occurrence.count > 1 {
                format!("{} times since {}: ", occurrence.count, occurrence.first.to_local())
            } else {
                String::new()
            };
            let parts: Vec<String> = left_out.iter().map(left).collect();
            let parts = if parts.is_empty() { String::new() } else { format!(" ({})", parts.join("; ")) };
            format!("{many}skipped: {reason}{parts}")
        }
    }
}

/// `jobs 3, 4`, and of many only how many.
fn job_list(jobs: &[u64]) -> String {
    const NAMED: usize = 8;
    let mut numbers: Vec<String> = jobs.iter().take(NAMED).map(ToString::to_string).collect();
    if jobs.len() > NAMED {
        numbers.push(format!("... ({} in all)", jobs.len()));
    }
    format!("{} {}", if jobs.len() == 1 { "job" } else { "jobs" }, numbers.join(", "))
}

fn left(part: &LeftOut) -> String {
    let job = part.job.map(|job| format!(", job {job}")).unwrap_or_default();
    format!("not {}: {}{job}", part.what, part.reason)
}

/// What a run by hand or by a trigger has led to.
pub fn ran(ran: &Ran) -> String {
    let mut lines = vec![];
    match ran.jobs.as_slice() {
        [] => {}
        [job] => lines.push(format!("Job {job} is in the queue. Follow it with: borgcube job wait {job}")),
        jobs => lines.push(format!("{} are in the queue: {}", count(jobs.len() as u64, "job"), job_list(jobs))),
    }
    lines.extend(ran.done.iter().map(|what| format!("Done: {}", shown(what))));
    lines.extend(ran.left_out.iter().map(|part| format!("Left out {}: {}", shown(&part.what), explained(part))));
    if lines.is_empty() {
        lines.push("There was nothing to do.".into());
    }
    lines.join("\n") + "\n"
}

fn explained(part: &LeftOut) -> String {
    let job = part.job.map(|job| format!(" (job {job})")).unwrap_or_default();
    format!("{}{job}", part.reason.explanation())
}

/// Triggers.
pub fn triggers(records: &[Trigger]) -> Table {
    let columns = [Whole("ID"), Whole("ACCESS"), Whole("STATE"), Text("STARTS"), Whole("LAST USED"), Text("COMMENT")];
    Table::new(&columns, records, |trigger| {
        vec![
            trigger.id.to_string(),
            trigger.access.to_string(),
            if trigger.enabled { "enabled" } else { "disabled" }.to_owned(),
            trigger.target.to_string(),
            trigger.last_used.map(Timestamp::to_local).unwrap_or_else(|| "never".into()),
            trigger.comment.clone(),
        ]
    })
}

/// Users of the status pages.
pub fn web_users(records: &[WebUser]) -> Table {
    let columns = [Whole("NAME"), Whole("ROLE"), Whole("SIGNS IN BY"), Whole("STATE"), Whole("EXPIRES"), Text("COMMENT")];
    Table::new(&columns, records, |user| {
        vec![
            user.name.to_string(),
            user.role.to_string(),
            user.sign_in.way().to_string(),
            web_user_state(user, Timestamp::now()).to_owned(),
            user.expires.map(Timestamp::to_local).unwrap_or_else(|| "never".into()),
            user.comment.clone(),
        ]
    })
}

/// Whether somebody may sign in now.
pub fn web_user_state(user: &WebUser, now: Timestamp) -> &'static str {
    match user.expires {
        _ if !user.enabled => "disabled",
        Some(expires) if expires <= now => "expired",
        _ => "enabled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Action, Origin, Recurrence, Schedule, SkipReason};

    const NOW: Timestamp = Timestamp(1_795_300_000_000_000);

    fn entry(outcome: Outcome) -> Occurrence {
        Occurrence {
            number: 1,
            schedule: "nightly".parse().unwrap(),
            time: NOW,
            first: NOW,
            count: 1,
            origin: Origin::Schedule,
            outcome,
            recorded: NOW,
            actor: "schedule".into(),
        }
    }

    #[test]
    fn what_became_of_an_occurrence_is_one_line() {
        let part = LeftOut { what: "web1/etc".into(), reason: SkipReason::StillRunning, job: Some(7) };
        let run = Outcome::Run { jobs: vec![8, 9], done: vec!["schedule b enabled".into()], left_out: vec![part.clone()] };
        assert_eq!(became(&entry(run)), "jobs 8, 9; schedule b enabled; not web1/etc: still-running, job 7");
        let skip = Outcome::Skip { reason: SkipReason::StillRunning, left_out: vec![part] };
        assert_eq!(became(&entry(skip)), "skipped: still-running (not web1/etc: still-running, job 7)");
        let many = Occurrence { count: 300, ..entry(Outcome::Skip { reason: SkipReason::Missed, left_out: vec![] }) };
        assert!(became(&many).starts_with("300 times since ") && became(&many).ends_with(": skipped: missed"), "{}", became(&many));
        let jobs: Vec<u64> = (1..=20).collect();
        assert_eq!(job_list(&jobs), "jobs 1, 2, 3, 4, 5, 6, 7, 8, ... (20 in all)");
    }

    #[test]
    fn a_run_says_what_it_led_to_and_what_it_left_out() {
        let part = LeftOut { what: "web1/etc".into(), reason: SkipReason::StillRunning, job: Some(7) };
        let text = ran(&Ran { jobs: vec![8], done: vec!["schedule b enabled".into()], left_out: vec![part], warnings: vec![] });
        let expected = "Job 8 is in the queue. Follow it with: borgcube job wait 8
Done: schedule b enabled
Left out web1/etc: A job of the same config was still queued or running. (job 7)
";
        assert_eq!(text, expected);
        assert_eq!(ran(&Ran::default()), "There was nothing to do.\n");
    }

    #[test]
    fn one_schedule() {
        let schedule_record = Schedule {
            name: "nightly".parse().unwrap(),
            description: String::new(),
            recurrence: Recurrence::parse("daily 02:30", "UTC", NOW).unwrap(),
            enabled: false,
            actions: vec![Action::RunConfig { config: "web1/etc".parse().unwrap() }],
            jitter_seconds: 90,
            handled: NOW,
            ahead: None,
            created: NOW,
        };
        let listed = ListedSchedule { schedule: schedule_record, next: None, last: None };
        let text = schedule(&listed, &[], &[]).replace(&NOW.to_local(), "T");
        let expected = "Schedule: nightly
State:    disabled: its occurrences are skipped
When:     daily 02:30 UTC
RFC 5545: DTSTART:20260101T120000Z RRULE:FREQ=DAILY;BYHOUR=2;BYMINUTE=30;BYSECOND=0
Later:    up to 1 min 30 s
Actions:  run web1/etc
Added:    T
";
        assert_eq!(text, expected);
        assert_eq!(schedules(&[listed]).render(false).lines().nth(1), Some("nightly\tdisabled\tdaily 02:30 UTC\trun web1/etc\t"));
    }

    #[test]
    fn how_long_it_takes() {
        let all = [5.0, 600.0, 11_100.0, 200_000.0].map(distance);
        assert_eq!(all, ["less than a minute", "10 min", "3 h 5 min", "2 d 7 h"]);
    }
}
