//! `borgcube policy`: which archives are kept.

use super::edit::{put, something};
use super::policy_preview::{self, Preview};
use crate::complete;
use crate::context::Context;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::output::{count, policies};
use clap::Subcommand;
use clap_complete::ArgValueCandidates;
use model::retention::{Count, Interval, Period, Scope, Zone};
use model::{ConfigName, Policy, PolicyName, Timestamp};
use wire::control::{Call, Confirmed, Policies, StoredPolicy};

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a retention policy: which archives are kept, of which backup configs
    Add(Box<Add>),
    /// List the policies
    #[command(alias = "ls")]
    List,
    /// Show one policy
    Show(Name),
    /// Change what a policy keeps, or what it is for
    Edit(Box<Edit>),
    /// Remove a policy; nothing that it was about to delete is deleted
    Remove(Name),
    /// Show what happens to each archive, which rule keeps it, and what would be freed
    Preview(Box<Preview>),
    /// Say that what stopped pruning is right, after having looked
    Confirm(Confirm),
}

/// A policy's name.
#[derive(Debug, clap::Args)]
pub struct Name {
    /// Policy
    #[arg(value_name = "POLICY", add = ArgValueCandidates::new(complete::policies))]
    name: PolicyName,
}

/// An interval that may be absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Within(Option<Interval>);

/// The rules.
#[derive(Debug, Default, clap::Args)]
pub struct Rules {
    /// Keep everything younger than this: 36H, 14d, 8w, 6m, 2y; none: no such rule
    #[arg(long, value_name = "INTERVAL", value_parser = within)]
    keep_within: Option<Within>,
    /// Keep so many archives of different seconds, which is: the last ones
    #[arg(long, alias = "keep-last", value_name = "NUMBER", allow_hyphen_values = true)]
    keep_secondly: Option<Count>,
    /// Keep the newest archive of so many minutes
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    keep_minutely: Option<Count>,
    /// Keep the newest archive of so many hours
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    keep_hourly: Option<Count>,
    /// Keep the newest archive of so many days
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    keep_daily: Option<Count>,
    /// Keep the newest archive of so many weeks
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    keep_weekly: Option<Count>,
    /// Keep the newest archive of so many months
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    keep_monthly: Option<Count>,
    /// Keep the newest archive of so many quarters of 13 weeks
    #[arg(long = "keep-13weekly", value_name = "NUMBER", allow_hyphen_values = true)]
    keep_13weekly: Option<Count>,
    /// Keep the newest archive of so many quarters of 3 months
    #[arg(long = "keep-3monthly", value_name = "NUMBER", allow_hyphen_values = true)]
    keep_3monthly: Option<Count>,
    /// Keep the newest archive of so many years
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    keep_yearly: Option<Count>,
    /// Keep so many of the newest archives of each config whatever the other rules say (a new policy: 3)
    #[arg(long, value_name = "NUMBER")]
    minimum: Option<u32>,
    /// Let days, weeks and so on begin as in this time zone (a new policy: the machine's)
    #[arg(long, value_name = "ZONE")]
    zone: Option<Zone>,
    /// Stop pruning a config of which more archives than this were made in 24 hours (a new policy: 48)
    #[arg(long, value_name = "NUMBER")]
    most_per_day: Option<u32>,
    /// Wait so long before an archive that goes is deleted: 0, 36H, 7d (a new policy: 7d)
    #[arg(long, value_name = "INTERVAL", value_parser = grace)]
    grace: Option<u32>,
}

/// What a policy is for.
#[derive(Debug, clap::Args)]
pub struct Scopes {
    /// Decide about this backup config; goes before all expressions; repeatable
    #[arg(long, value_name = "CLIENT/LABEL", add = ArgValueCandidates::new(complete::configs))]
    config: Vec<ConfigName>,
    /// Decide about all configs whose client and label match these regular expressions, such as 'web[0-9]+/.*'; repeatable
    #[arg(long, value_name = "REGEX/REGEX", value_parser = matching)]
    matching: Vec<Scope>,
}

const RULES: &str =
    "The rules are those of borg prune: each takes the newest archive of as many periods as it is given, leaving out what a rule
before it keeps, and the oldest archive while there are fewer periods. NUMBER may be all. An archive's time is the server's.";

/// Options of `borgcube policy add`.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{RULES}

Examples:
  borgcube policy add standard --keep-within 2d --keep-daily 7 --keep-weekly 4 --keep-monthly 12 --matching '.*/.*'
  borgcube policy add long --keep-daily 30 --keep-yearly all --config db1/data --grace 30d
  borgcube policy preview standard"))]
pub struct Add {
    /// Name of the new policy
    #[arg(value_name = "POLICY")]
    name: PolicyName,
    #[command(flatten)]
    rules: Rules,
    #[command(flatten)]
    scopes: Scopes,
    /// Keep a note with it
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

/// Options of `borgcube policy edit`.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("{RULES}

A rule with the number 0 is taken away. What the policy is for is replaced as a whole. With other rules, archives whose grace period runs
by this policy stay until it has decided about them again.

Examples:
  borgcube policy preview standard --keep-daily 14
  borgcube policy edit standard --keep-daily 14 --keep-weekly 0"))]
pub struct Edit {
    /// Policy
    #[arg(value_name = "POLICY", add = ArgValueCandidates::new(complete::policies))]
    name: PolicyName,
    #[command(flatten)]
    rules: Rules,
    #[command(flatten)]
    scopes: Scopes,
    /// Keep a note with it
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

/// Options of `borgcube policy confirm`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Pruning stops for a config with a burst of archives, with suspicious ones, or when the server's clock was wrong. Look at
what borgcube policy preview says, delete what is worthless, then confirm: everything made so far is taken as right.

Example:
  borgcube policy confirm standard --config web1/etc"
)]
pub struct Confirm {
    /// Policy
    #[arg(value_name = "POLICY", add = ArgValueCandidates::new(complete::policies))]
    name: PolicyName,
    /// Confirm for this config only
    #[arg(long, value_name = "CLIENT/LABEL", add = ArgValueCandidates::new(complete::configs))]
    config: Option<ConfigName>,
}

fn within(text: &str) -> std::result::Result<Within, String> {
    if text == "none" { Ok(Within(None)) } else { text.parse().map(|interval| Within(Some(interval))) }
}

/// Hours.
pub fn grace(text: &str) -> std::result::Result<u32, String> {
    let seconds = if text == "0" { 0 } else { text.parse::<Interval>()?.seconds() };
    u32::try_from(seconds / 3600).map_err(|_| format!("{text:?} is longer than anybody waits"))
}

/// Names have no slash, so the first one separates; without one all labels are meant.
fn matching(text: &str) -> std::result::Result<Scope, String> {
    let (client, label) = text.split_once('/').unwrap_or((text, ".*"));
    model::schedule::Matcher::new(client, label)?;
    Ok(Scope::Configs { client: client.to_owned(), label: label.to_owned() })
}

impl Rules {
    /// Whether anything was given.
    pub fn any(&self) -> bool {
        let other = self.keep_within.is_some() || self.minimum.is_some() || self.zone.is_some() || self.most_per_day.is_some();
        other || self.grace.is_some() || self.counts().iter().any(|(_, count)| count.is_some())
    }

    fn counts(&self) -> [(Period, Option<Count>); 9] {
        [
            (Period::Secondly, self.keep_secondly),
            (Period::Minutely, self.keep_minutely),
            (Period::Hourly, self.keep_hourly),
            (Period::Daily, self.keep_daily),
            (Period::Weekly, self.keep_weekly),
            (Period::Monthly, self.keep_monthly),
            (Period::Quarterly13Weekly, self.keep_13weekly),
            (Period::Quarterly3Monthly, self.keep_3monthly),
            (Period::Yearly, self.keep_yearly),
        ]
    }

    /// Changes what was given.
    pub fn apply(&self, policy: &mut Policy) {
        if let Some(Within(within)) = self.keep_within {
            policy.within = within;
        }
        for (period, count) in self.counts() {
            match count {
                Some(Count::Number(0)) => drop(policy.keep.remove(&period)),
                Some(count) => drop(policy.keep.insert(period, count)),
                None => {}
            }
        }
        put(&mut policy.minimum, self.minimum);
        put(&mut policy.zone, self.zone);
        put(&mut policy.most_per_day, self.most_per_day);
        put(&mut policy.grace_hours, self.grace);
    }
}

impl Scopes {
    fn list(self) -> Vec<Scope> {
        self.config.into_iter().map(|config| Scope::Config { config }).chain(self.matching).collect()
    }
}

/// Does it.
pub fn run(command: Command, context: &Context) -> Result<()> {
    match command {
        Command::Add(args) => {
            let policy = added(*args)?;
            let stored = context.control()?.call::<StoredPolicy>(Call::AddPolicy { policy: Box::new(policy.clone()) })?;
            warn(&stored, context);
            let name = &policy.name;
            context.done(&policy, &format!("Added policy {name}. What it would do: borgcube policy preview {name}"))
        }
        Command::List => {
            let all = all(&mut context.control()?)?;
            context.list(&all, policies::list(&all))
        }
        Command::Show(Name { name }) => {
            let policy = find(&mut context.control()?, &name)?;
            context.show(&policy, &policies::card(&policy))
        }
        Command::Edit(args) => {
            let mut control = context.control()?;
            let previous = find(&mut control, &args.name)?;
            let policy = edited(&previous, *args)?;
            something(&previous, &policy, "policy edit")?;
            let call = Call::UpdatePolicy { previous: Box::new(previous), policy: Box::new(policy.clone()) };
            warn(&control.call::<StoredPolicy>(call)?, context);
            context.done(&policy, &format!("Changed policy {}.", policy.name))
        }
        Command::Remove(Name { name }) => {
            let mut control = context.control()?;
            let policy = find(&mut control, &name)?;
            control.tell(Call::RemovePolicy { name: name.clone() })?;
            context.done(&policy, &format!("Removed policy {name}."))
        }
        Command::Preview(args) => policy_preview::run(&args, context),
        Command::Confirm(Confirm { name, config }) => {
            let confirmed = context.control()?.call::<Confirmed>(Call::ConfirmPolicy { name: name.clone(), config: config.clone() })?;
            let what = config.map_or_else(|| "everything that it is for".to_owned(), |config| config.to_string());
            let jobs = count(confirmed.up_to_job, "job");
            context.done(&confirmed, &format!("Policy {name} takes {what} as right, as far as the first {jobs} made it."))
        }
    }
}

fn warn(stored: &StoredPolicy, context: &Context) {
    for warning in &stored.warnings {
        context.note(&format!("borgcube: note: {warning}"));
    }
}

fn added(args: Add) -> Result<Policy> {
    let zone = match args.rules.zone {
        Some(zone) => zone,
        None => machine_zone()?,
    };
    let mut policy = Policy {
        name: args.name,
        description: args.description.unwrap_or_default(),
        within: None,
        keep: Default::default(),
        minimum: Policy::MINIMUM,
        zone,
        most_per_day: Policy::MOST_PER_DAY,
        grace_hours: Policy::GRACE_HOURS,
        applies: args.scopes.list(),
        confirmed: vec![],
        created: Timestamp::now(),
    };
    args.rules.apply(&mut policy);
    policy.check().map_err(Error::usage)?;
    Ok(policy)
}

fn machine_zone() -> Result<Zone> {
    let system = jiff::tz::TimeZone::system();
    let name = system.iana_name().unwrap_or_else(|| if system == jiff::tz::TimeZone::UTC { "UTC" } else { "" });
    name.parse().map_err(|_| Error::usage("this machine does not say which time zone it is in").hint("Say it with --zone Europe/Berlin."))
}

fn edited(previous: &Policy, args: Edit) -> Result<Policy> {
    let mut policy = previous.clone();
    args.rules.apply(&mut policy);
    put(&mut policy.description, args.description);
    let scopes = args.scopes.list();
    if !scopes.is_empty() {
        policy.applies = scopes;
    }
    policy.check().map_err(Error::usage)?;
    Ok(policy)
}

/// All policies.
pub fn all(control: &mut Control) -> Result<Vec<Policy>> {
    Ok(control.call::<Policies>(Call::ListPolicies {})?.policies)
}

/// The policy of this name.
pub fn find(control: &mut Control, name: &PolicyName) -> Result<Policy> {
    let found = all(control)?.into_iter().find(|policy| policy.name == *name);
    found.ok_or_else(|| Error::not_found(format!("there is no policy {name}")).hint("borgcube policy list shows what there is."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(subcommand)]
        command: Command,
    }

    fn parse(words: &[&str]) -> std::result::Result<Command, clap::Error> {
        Ok(Cli::try_parse_from([&["policy"], words].concat())?.command)
    }

    fn add(words: &[&str]) -> Result<Policy> {
        match parse(&[&["add", "standard", "--zone", "UTC"], words].concat()).unwrap() {
            Command::Add(args) => added(*args),
            _ => panic!("not an add"),
        }
    }

    #[test]
    fn a_new_policy() {
        let words = [
            "--keep-within",
            "2d",
            "--keep-daily",
            "7",
            "--keep-3monthly",
            "all",
            "--keep-yearly",
            "-1",
            "--matching",
            "web.*",
            "--config",
            "a/b",
        ];
        let policy = add(&words).unwrap();
        let kept: Vec<String> = policy.keep.iter().map(|(period, count)| format!("{period} {count}")).collect();
        assert_eq!(kept, ["daily 7", "3monthly all", "yearly all"]);
        assert_eq!((policy.minimum, policy.most_per_day, policy.grace_hours), (3, 48, 168));
        let applies: Vec<String> = policy.applies.iter().map(ToString::to_string).collect();
        assert_eq!(applies, ["a/b", "clients /web.*/ with labels /.*/"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        assert!(add(&[]).unwrap_err().message().contains("at least one rule"));
        assert!(add(&["--keep-13weekly", "1", "--keep-3monthly", "1"]).unwrap_err().message().contains("13 weeks or 3 months"));
        let why = |words: &[&str]| parse(&[&["add", "x"], words].concat()).unwrap_err().to_string();
        assert!(why(&["--keep-daily", "many"]).contains("write 7, or `all`"));
        assert!(why(&["--keep-within", "14"]).contains("such as 14d"));
        assert!(why(&["--grace", "soon"]).contains("no interval"));
        assert!(why(&["--zone", "Mars"]).contains("no time zone"));
        assert!(why(&["--matching", "("]).contains("regular expression"));
    }

    #[test]
    fn only_what_was_named_changes() {
        let before = add(&["--keep-within", "2d", "--keep-daily", "7", "--keep-weekly", "4", "--config", "a/b"]).unwrap();
        let edit = |words: &[&str]| match parse(&[&["edit", "standard"], words].concat()).unwrap() {
            Command::Edit(args) => edited(&before, *args),
            _ => panic!("not an edit"),
        };
        assert_eq!(edit(&[]).unwrap(), before);
        let after = edit(&["--keep-within", "none", "--keep-weekly", "0", "--grace", "0", "--config", "c/d"]).unwrap();
        assert_eq!((after.within, after.keep.len(), after.grace_hours), (None, 1, 0));
        assert_eq!(after.applies, [Scope::Config { config: "c/d".parse().unwrap() }]);
        assert!(edit(&["--keep-within", "none", "--keep-weekly", "0", "--keep-daily", "0"]).is_err());
    }
}
