//! `borgcube schedule`.

use super::edit::{put, something};
use super::{schedule_next, schedule_run};
use crate::complete;
use crate::context::Context;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::output::plans;
use clap::{ArgGroup, Subcommand};
use clap_complete::ArgValueCandidates;
use model::{Action, CheckName, ConfigName, PolicyName, Recurrence, RepositoryName, Schedule, ScheduleName, Timestamp};
use wire::control::{Call, History, ListedSchedule, OccurrenceFilter, Schedules, Upcoming};

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a schedule: when, and what to do
    Add(Box<Add>),
    /// List the schedules
    #[command(alias = "ls")]
    List,
    /// Show one schedule, its next runs and what became of the last ones
    Show(Name),
    /// Change when something is done, or what
    Edit(Box<Edit>),
    /// Remove a schedule; its history stays
    Remove(Name),
    /// Let a schedule's occurrences lead to runs again
    Enable(Name),
    /// Let a schedule's occurrences lead to nothing; each is recorded as skipped
    Disable(Name),
    /// List what is due next, or show it as a calendar
    Next(schedule_next::Next),
    /// Show a month: what ran, what was skipped, what is to run
    Calendar(schedule_next::Calendar),
    /// Show what became of the occurrences, newest first
    History(schedule_next::Past),
    /// Do everything that a schedule does, now
    Run(Name),
}

/// A schedule's name.
#[derive(Debug, clap::Args)]
pub struct Name {
    /// Schedule
    #[arg(value_name = "SCHEDULE", add = ArgValueCandidates::new(complete::schedules))]
    name: ScheduleName,
}

/// What a schedule does, in this order.
#[derive(Debug, clap::Args)]
pub struct Actions {
    /// Run this backup config; repeatable
    #[arg(long, value_name = "CLIENT/LABEL", add = ArgValueCandidates::new(complete::configs))]
    run: Vec<ConfigName>,
    /// Run all backup configs whose client and label match these regular expressions, such as 'web[0-9]+/.*'; repeatable
    #[arg(long, value_name = "REGEX/REGEX", value_parser = matching)]
    run_matching: Vec<Matching>,
    /// Check this repository; repeatable
    #[arg(long, value_name = "REPOSITORY", add = ArgValueCandidates::new(complete::repositories))]
    check: Vec<RepositoryName>,
    /// Check this repository, and decrypt each object and recompute its id; repeatable
    #[arg(long, value_name = "REPOSITORY", add = ArgValueCandidates::new(complete::repositories))]
    verify_data: Vec<RepositoryName>,
    /// Check what this check config says; repeatable
    #[arg(long, value_name = "CONFIG", add = ArgValueCandidates::new(complete::check_configs))]
    check_config: Vec<CheckName>,
    /// Give back the space of what was deleted from this repository; repeatable
    #[arg(long, value_name = "REPOSITORY", add = ArgValueCandidates::new(complete::repositories))]
    compact: Vec<RepositoryName>,
    /// Prune: let retention policies decide about the archives in this repository (or in all), delete what is due and give the space
    /// back; repeatable
    #[arg(long, value_name = "REPOSITORY", value_parser = repository_or_all)]
    prune: Vec<Where>,
    /// Prune what this policy decides about, in all repositories; repeatable
    #[arg(long, value_name = "POLICY", add = ArgValueCandidates::new(complete::policies))]
    prune_by: Vec<PolicyName>,
    /// Test restores of all configs whose client and label match these regular expressions, such as '.*/.*'; repeatable
    #[arg(long, value_name = "REGEX/REGEX", value_parser = matching)]
    restore_test: Vec<Matching>,
    /// The same, and compare with what is on the clients then; repeatable
    #[arg(long, value_name = "REGEX/REGEX", value_parser = matching)]
    restore_test_live: Vec<Matching>,
    /// Enable this other schedule; repeatable
    #[arg(long, value_name = "SCHEDULE", add = ArgValueCandidates::new(complete::schedules))]
    enable: Vec<ScheduleName>,
    /// Disable this other schedule; repeatable
    #[arg(long, value_name = "SCHEDULE", add = ArgValueCandidates::new(complete::schedules))]
    disable: Vec<ScheduleName>,
}

/// Regular expressions for client and label.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Matching(String, String);

/// A repository, or all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Where(Option<RepositoryName>);

fn repository_or_all(text: &str) -> std::result::Result<Where, String> {
    if text == "all" {
        Ok(Where(None))
    } else {
        text.parse().map(|name| Where(Some(name))).map_err(|e: model::names::NameError| e.to_string())
    }
}

/// How a schedule's times are written, in the help of `add` and `edit`.
const TIMES: &str = "WHEN is a shorthand, with a time zone behind it unless the machine's is meant:
  hourly [MM]                 hourly 15
  daily HH:MM[,HH:MM]         daily 02:30 Europe/Berlin
  weekdays HH:MM              weekdays 22:00
  weekly DAYS HH:MM           weekly sat,sun 03:00
  monthly DAYS HH:MM          monthly 1,15 03:00      monthly last 04:00
  yearly MM-DD HH:MM          yearly 01-02 12:00
or the lines of RFC 5545 (DTSTART, RRULE, RDATE, EXDATE), separated by spaces:
  'DTSTART;TZID=Europe/Berlin:20260101T030000 RRULE:FREQ=MONTHLY;BYDAY=1SU'
Nothing runs more often than once in an hour.";

/// Options of `borgcube schedule add`.
#[derive(Debug, clap::Args)]
#[command(
    group = ArgGroup::new("actions").required(true).multiple(true).args(["run", "run_matching", "check", "verify_data", "check_config", "compact", "prune", "prune_by", "restore_test", "restore_test_live", "enable", "disable"]),
    after_help = format!("{TIMES}

Examples:
  borgcube schedule add nightly --at 'daily 02:30' --run web1/etc --run web2/etc --jitter 600
  borgcube schedule add everything --at 'weekly sat 20:00 Europe/Berlin' --run-matching '.*/.*'
  borgcube schedule add upkeep --at 'weekly sun 10:00' --compact main --check main
  borgcube schedule add tidy --at 'daily 12:00' --prune all
  borgcube schedule add proof --at 'weekly sat 12:00' --restore-test '.*/.*'
  borgcube schedule add weekend --at 'weekly fri 18:00' --disable nightly --enable hourly")
)]
pub struct Add {
    /// Name of the new schedule; its timer is borgcube-schedule@NAME.timer
    #[arg(value_name = "SCHEDULE")]
    name: ScheduleName,
    /// Say when
    #[arg(long, value_name = "WHEN")]
    at: String,
    #[command(flatten)]
    actions: Actions,
    /// Begin each run up to this many seconds later, so that not everything begins at once
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    jitter: u32,
    /// Keep a note with it
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Add it disabled
    #[arg(long)]
    disabled: bool,
}

/// Options of `borgcube schedule edit`.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{TIMES}

Actions are replaced as a whole. Enable and disable a schedule with the commands of these names.

Examples:
  borgcube schedule edit nightly --at 'daily 03:30'
  borgcube schedule edit nightly --run web1/etc --run web3/etc --jitter 900"))]
pub struct Edit {
    /// Schedule
    #[arg(value_name = "SCHEDULE", add = ArgValueCandidates::new(complete::schedules))]
    name: ScheduleName,
    /// Say when
    #[arg(long, value_name = "WHEN")]
    at: Option<String>,
    #[command(flatten)]
    actions: Actions,
    /// Begin each run up to this many seconds later
    #[arg(long, value_name = "SECONDS")]
    jitter: Option<u32>,
    /// Keep a note with it
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

/// Names have no slash, so the first one separates; without one all labels are meant.
fn matching(text: &str) -> std::result::Result<Matching, String> {
    let (client, label) = text.split_once('/').unwrap_or((text, ".*"));
    model::schedule::Matcher::new(client, label)?;
    Ok(Matching(client.to_owned(), label.to_owned()))
}

impl Actions {
    fn list(self) -> Vec<Action> {
        let run = self.run.into_iter().map(|config| Action::RunConfig { config });
        let matching = self.run_matching.into_iter().map(|Matching(client, label)| Action::RunConfigs { client, label });
        let enable = self.enable.into_iter().map(|schedule| Action::EnableSchedule { schedule });
        let disable = self.disable.into_iter().map(|schedule| Action::DisableSchedule { schedule });
        let check = self.check.into_iter().map(|repository| Action::Check { repository, verify_data: false });
        let verify = self.verify_data.into_iter().map(|repository| Action::Check { repository, verify_data: true });
        let check_by = self.check_config.into_iter().map(|config| Action::CheckBy { config });
        let compact = self.compact.into_iter().map(|repository| Action::Compact { repository });
        let prune = |repository, policy| Action::Prune { repository, policy, clients: None, labels: None };
        let pruned = self.prune.into_iter().map(|Where(repository)| prune(repository, None));
        let by = self.prune_by.into_iter().map(|policy| prune(None, Some(policy)));
        let test = |live| move |Matching(client, label)| Action::RestoreTest { client, label, live };
        let tests = self.restore_test.into_iter().map(test(false)).chain(self.restore_test_live.into_iter().map(test(true)));
        run.chain(matching)
            .chain(pruned)
            .chain(by)
            .chain(compact)
            .chain(check)
            .chain(verify)
            .chain(check_by)
            .chain(tests)
            .chain(enable)
            .chain(disable)
            .collect()
    }
}

/// Does it.
pub fn run(command: Command, context: &Context) -> Result<()> {
    match command {
        Command::Add(args) => {
            let schedule = added(*args, Timestamp::now())?;
            context.control()?.tell(Call::AddSchedule { schedule: schedule.clone() })?;
            let next = schedule.recurrence.next_after(Timestamp::now()).filter(|_| schedule.enabled);
            let next = next.map_or_else(|| "It is disabled.".to_owned(), |at| format!("Due next: {}", at.to_local()));
            context.done(&schedule, &format!("Added schedule {}. {next}", schedule.name))
        }
        Command::List => {
            let schedules = all(&mut context.control()?)?;
            context.list(&schedules, plans::schedules(&schedules))
        }
        Command::Show(Name { name }) => show(&name, context),
        Command::Edit(args) => {
            let mut control = context.control()?;
            let previous = find(&mut control, &args.name)?.schedule;
            let schedule = edited(&previous, *args, Timestamp::now())?;
            something(&previous, &schedule, "schedule edit")?;
            control.tell(Call::UpdateSchedule { previous: Box::new(previous), schedule: Box::new(schedule.clone()) })?;
            context.done(&schedule, &format!("Changed schedule {}.", schedule.name))
        }
        Command::Remove(Name { name }) => {
            let mut control = context.control()?;
            let schedule = find(&mut control, &name)?.schedule;
            control.tell(Call::RemoveSchedule { name: name.clone() })?;
            context.done(&schedule, &format!("Removed schedule {name}."))
        }
        Command::Enable(Name { name }) => switch(&name, true, context),
        Command::Disable(Name { name }) => switch(&name, false, context),
        Command::Next(args) => schedule_next::next(&args, context),
        Command::Calendar(args) => schedule_next::calendar(&args, context),
        Command::History(args) => schedule_next::history(&args, context),
        Command::Run(Name { name }) => schedule_run::report(Call::RunSchedule { name }, context),
    }
}

fn show(name: &ScheduleName, context: &Context) -> Result<()> {
    let mut control = context.control()?;
    let listed = find(&mut control, name)?;
    let upcoming = Call::NextOccurrences { name: Some(name.clone()), count: 5, from: None, until: None };
    let upcoming = control.call::<Upcoming>(upcoming)?.occurrences;
    let filter = OccurrenceFilter { schedule: Some(name.clone()), limit: 10, ..Default::default() };
    let past = control.call::<History>(Call::ListOccurrences { filter })?.occurrences;
    context.show(&listed, &plans::schedule(&listed, &upcoming, &past))
}

fn switch(name: &ScheduleName, enabled: bool, context: &Context) -> Result<()> {
    let mut control = context.control()?;
    let previous = find(&mut control, name)?.schedule;
    let (command, word) = if enabled { ("schedule enable", "enabled") } else { ("schedule disable", "disabled") };
    if previous.enabled == enabled {
        return context.done(&previous, &format!("Schedule {name} is {word} already."));
    }
    let schedule = Schedule { enabled, ..previous.clone() };
    something(&previous, &schedule, command)?;
    control.tell(Call::UpdateSchedule { previous: Box::new(previous), schedule: Box::new(schedule.clone()) })?;
    context.done(&schedule, &format!("Schedule {name} is {word}."))
}

fn added(args: Add, now: Timestamp) -> Result<Schedule> {
    let schedule = Schedule {
        name: args.name,
        description: args.description.unwrap_or_default(),
        recurrence: recurrence(&args.at, now)?,
        enabled: !args.disabled,
        actions: args.actions.list(),
        jitter_seconds: args.jitter,
        handled: now,
        ahead: None,
        created: now,
    };
    schedule.check().map_err(Error::usage)?;
    Ok(schedule)
}

fn edited(previous: &Schedule, args: Edit, now: Timestamp) -> Result<Schedule> {
    let mut schedule = previous.clone();
    if let Some(at) = &args.at {
        schedule.recurrence = recurrence(at, now)?;
    }
    put(&mut schedule.jitter_seconds, args.jitter);
    put(&mut schedule.description, args.description);
    let actions = args.actions.list();
    if !actions.is_empty() {
        schedule.actions = actions;
    }
    schedule.check().map_err(Error::usage)?;
    Ok(schedule)
}

/// What `--at` means. Shorthand without a zone of its own is in the machine's.
fn recurrence(text: &str, now: Timestamp) -> Result<Recurrence> {
    let system = jiff::tz::TimeZone::system();
    let zone = system.iana_name().unwrap_or_else(|| if system == jiff::tz::TimeZone::UTC { "UTC" } else { "" });
    Recurrence::parse(text, zone, now).map_err(|error| {
        let refused = Error::usage(error.to_string());
        match (zone, &error) {
            ("", model::recurrence::RecurrenceError::UnknownZone(named)) if named.is_empty() => {
                Error::usage("this machine does not say which time zone it is in")
                    .hint("Put one behind it, such as: daily 02:30 Europe/Berlin")
            }
            _ => refused,
        }
    })
}

/// All schedules.
pub fn all(control: &mut Control) -> Result<Vec<ListedSchedule>> {
    Ok(control.call::<Schedules>(Call::ListSchedules {})?.schedules)
}

fn find(control: &mut Control, name: &ScheduleName) -> Result<ListedSchedule> {
    let found = all(control)?.into_iter().find(|s| s.schedule.name == *name);
    found.ok_or_else(|| Error::not_found(format!("there is no schedule {name}")).hint("borgcube schedule list shows what there is."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    const NOW: Timestamp = Timestamp(1_795_300_000_000_000);

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        command: Command,
    }

    fn parse(words: &[&str]) -> std::result::Result<Command, clap::Error> {
        Cli::try_parse_from(["x"].iter().chain(words)).map(|cli| cli.command)
    }

    fn add(words: &[&str]) -> Result<Schedule> {
        match parse(&[&["add", "nightly"], words].concat()).unwrap() {
            Command::Add(args) => added(*args, NOW),
            _ => panic!("not an add"),
        }
    }

    #[test]
    fn a_new_schedule_has_its_actions_in_order() {
        let schedule = add(&["--at", "daily 02:30 UTC", "--disable", "b", "--run-matching", "web.*/etc|home", "--run", "a/b"]).unwrap();
        let said: Vec<String> = schedule.actions.iter().map(ToString::to_string).collect();
        assert_eq!(said, ["run a/b", "run all configs of clients /web.*/ with labels /etc|home/", "disable schedule b"]);
        assert!(schedule.enabled && schedule.jitter_seconds == 0);
        let all = add(&["--at", "daily 02:30 UTC", "--run-matching", "web.*", "--disabled"]).unwrap();
        assert_eq!(all.actions, [Action::RunConfigs { client: "web.*".into(), label: ".*".into() }]);
        assert!(!all.enabled);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        assert!(parse(&["add", "nightly", "--at", "daily 02:30"]).is_err(), "nothing to do");
        assert!(parse(&["add", "nightly", "--at", "x", "--run-matching", "("]).unwrap_err().to_string().contains("regular expression"));
        let why = |at: &str| add(&["--at", at, "--run", "a/b"]).unwrap_err().message().to_owned();
        assert!(why("DTSTART:20260101T000000Z RRULE:FREQ=MINUTELY").contains("no finer than hourly"));
        assert!(why("DTSTART:20260101T000000 RRULE:FREQ=DAILY").contains("has no time zone"));
        assert!(why("DTSTART:20200101T000000Z RRULE:FREQ=DAILY;COUNT=3").contains("no next run"));
    }

    #[test]
    fn only_what_was_named_changes() {
        let before = add(&["--at", "daily 02:30 UTC", "--run", "a/b", "--jitter", "60", "--description", "old"]).unwrap();
        let edit = |words: &[&str]| match parse(&[&["edit", "nightly"], words].concat()).unwrap() {
            Command::Edit(args) => edited(&before, *args, NOW).unwrap(),
            _ => panic!("not an edit"),
        };
        assert_eq!(edit(&[]), before);
        let after = edit(&["--at", "daily 03:30 UTC", "--run", "c/d"]);
        assert_eq!(after.recurrence.text(), "daily 03:30 UTC");
        assert_eq!(after.actions, [Action::RunConfig { config: "c/d".parse().unwrap() }]);
        assert_eq!((after.jitter_seconds, after.description.as_str()), (60, "old"));
    }
}
