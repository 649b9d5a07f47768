//! `borgcube check-config`: what of which repositories is checked how often.

use super::edit::{put, something};
use crate::complete;
use crate::context::Context;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::output::checks;
use clap::{ArgGroup, Subcommand, ValueEnum};
use clap_complete::ArgValueCandidates;
use model::check::{CheckPlan, Repositories};
use model::retention::Interval;
use model::{CheckConfig, CheckName, RepositoryName, Timestamp};
use wire::control::{Call, CheckConfigs};

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a check config: what of which repositories is checked, how often, and for how long at a time
    Add(Box<Add>),
    /// List the check configs
    #[command(alias = "ls")]
    List,
    /// Show one check config
    Show(Name),
    /// Change what is checked, or how often
    Edit(Box<Edit>),
    /// Remove a check config; what was checked stays known
    Remove(Name),
}

/// A check config's name.
#[derive(Debug, clap::Args)]
pub struct Name {
    /// Check config
    #[arg(value_name = "CONFIG", add = ArgValueCandidates::new(complete::check_configs))]
    name: CheckName,
}

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Segment files: that every entry is whole, and where the index has it
    Structure,
    /// The manifest, the archives' metadata and signatures, and that all chunks they refer to are there
    Archives,
    /// The content of every object: decrypted, decompressed, its id recomputed
    Data,
}

/// A time limit, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtMost(Option<u32>);

/// What a config says.
#[derive(Debug, Default, clap::Args)]
pub struct Plan {
    /// Check this repository
    #[arg(long, value_name = "REPOSITORY", add = ArgValueCandidates::new(complete::repositories))]
    repository: Option<RepositoryName>,
    /// Check all repositories whose name matches this regular expression, such as 'main|old-.*'
    #[arg(long, value_name = "REGEX", conflicts_with = "repository")]
    matching: Option<String>,
    /// Check these parts, separated by commas (a new config: structure,archives)
    #[arg(long, value_name = "PARTS", value_delimiter = ',')]
    parts: Vec<Part>,
    /// Promise that everything is checked once in this time: 36H, 14d, 8w; whether it is, repository show tells (a new config: 14d)
    #[arg(long, value_name = "INTERVAL", value_parser = hours)]
    every: Option<u32>,
    /// Leave out what was checked less than this ago; 0: nothing (a new config: half of --every)
    #[arg(long, value_name = "INTERVAL", value_parser = hours)]
    skip: Option<u32>,
    /// End after this time, such as 90s, 30min or 2h, and go on there next time; none: check all that is due
    #[arg(long, value_name = "TIME", value_parser = at_most)]
    at_most: Option<AtMost>,
    /// Keep a note with it
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

/// Options of `borgcube check-config add`.
#[derive(Debug, clap::Args)]
#[command(
    group = ArgGroup::new("which").required(true).args(["repository", "matching"]),
    after_help = "A check reads beside backups and restores, and changes nothing. With --at-most it is cut into pieces: each goes on with what was not
checked for longest.

Examples:
  borgcube check-config add nightly --matching '.*' --every 14d --at-most 30min
  borgcube check-config add deep --repository main --parts structure,archives,data --every 90d --skip 60d --at-most 2h
  borgcube schedule add checks --at 'daily 13:00' --check-config nightly
  borgcube repository check --config nightly"
)]
pub struct Add {
    /// Name of the new check config
    #[arg(value_name = "CONFIG")]
    name: CheckName,
    #[command(flatten)]
    plan: Plan,
}

/// Options of `borgcube check-config edit`.
#[derive(Debug, clap::Args)]
#[command(after_help = "What was checked by then counts.

Example:
  borgcube check-config edit nightly --at-most 1h --every 7d --skip 3d")]
pub struct Edit {
    /// Check config
    #[arg(value_name = "CONFIG", add = ArgValueCandidates::new(complete::check_configs))]
    name: CheckName,
    #[command(flatten)]
    plan: Plan,
}

fn hours(text: &str) -> std::result::Result<u32, String> {
    let seconds = if text == "0" { 0 } else { text.parse::<Interval>()?.seconds() };
    u32::try_from(seconds / 3600).map_err(|_| format!("{text:?} is longer than anybody waits"))
}

fn at_most(text: &str) -> std::result::Result<AtMost, String> {
    if text == "none" {
        return Ok(AtMost(None));
    }
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "s" => Some(1),
        "m" | "min" => Some(60),
        "h" => Some(3600),
        _ => None,
    };
    let seconds = number.parse::<u32>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit)).filter(|seconds| *seconds > 0);
    seconds.map(|seconds| AtMost(Some(seconds))).ok_or_else(|| format!("{text:?} is no time limit: write 90s, 30min, 2h or none"))
}

impl Plan {
    /// Changes what was given.
    fn apply(self, config: &mut CheckConfig) {
        let which = self.repository.map(Repositories::Named).or(self.matching.map(Repositories::Matching));
        put(&mut config.repositories, which);
        let plan = &mut config.plan;
        if !self.parts.is_empty() {
            let has = |part| self.parts.contains(&part);
            (plan.structure, plan.archives, plan.data) = (has(Part::Structure), has(Part::Archives), has(Part::Data));
        }
        put(&mut plan.promise_hours, self.every);
        put(&mut plan.skip_hours, self.skip);
        put(&mut plan.seconds, self.at_most.map(|AtMost(seconds)| seconds));
        put(&mut config.description, self.description);
    }
}

/// Does it.
pub fn run(command: Command, context: &Context) -> Result<()> {
    match command {
        Command::Add(args) => {
            let config = added(*args)?;
            context.control()?.tell(Call::AddCheckConfig { config: Box::new(config.clone()) })?;
            let name = &config.name;
            context.done(&config, &format!("Added check config {name}. To check by it now: borgcube repository check --config {name}"))
        }
        Command::List => {
            let all = all(&mut context.control()?)?;
            context.list(&all, checks::configs(&all))
        }
        Command::Show(Name { name }) => {
            let config = find(&mut context.control()?, &name)?;
            context.show(&config, &checks::config(&config))
        }
        Command::Edit(args) => {
            let Edit { name, plan } = *args;
            let mut control = context.control()?;
            let previous = find(&mut control, &name)?;
            let mut config = previous.clone();
            plan.apply(&mut config);
            config.check().map_err(Error::usage)?;
            something(&previous, &config, "check-config edit")?;
            control.tell(Call::UpdateCheckConfig { previous: Box::new(previous), config: Box::new(config.clone()) })?;
            context.done(&config, &format!("Changed check config {name}."))
        }
        Command::Remove(Name { name }) => {
            let mut control = context.control()?;
            let config = find(&mut control, &name)?;
            control.tell(Call::RemoveCheckConfig { name: name.clone() })?;
            context.done(&config, &format!("Removed check config {name}."))
        }
    }
}

fn added(args: Add) -> Result<CheckConfig> {
    let Add { name, plan } = args;
    let promise = plan.every.unwrap_or(CheckPlan::PROMISE_HOURS);
    let mut config = CheckConfig {
        name,
        description: String::new(),
        repositories: Repositories::Matching(String::new()),
        plan: CheckPlan { promise_hours: promise, skip_hours: promise / 2, ..CheckPlan::everything(false) },
        created: Timestamp::now(),
    };
    plan.apply(&mut config);
    config.check().map_err(Error::usage)?;
    Ok(config)
}

/// All check configs.
pub fn all(control: &mut Control) -> Result<Vec<CheckConfig>> {
    Ok(control.call::<CheckConfigs>(Call::ListCheckConfigs {})?.configs)
}

/// The check config of this name.
pub fn find(control: &mut Control, name: &CheckName) -> Result<CheckConfig> {
    let found = all(control)?.into_iter().find(|config| config.name == *name);
    found
        .ok_or_else(|| Error::not_found(format!("there is no check config {name}")).hint("borgcube check-config list shows what there is."))
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
        Ok(Cli::try_parse_from([&["check-config"], words].concat())?.command)
    }

    fn add(words: &[&str]) -> Result<CheckConfig> {
        match parse(&[&["add", "nightly"], words].concat()).unwrap() {
            Command::Add(args) => added(*args),
            _ => panic!("not an add"),
        }
    }

    #[test]
    fn a_new_config() {
        let config = add(&["--matching", "m.*", "--parts", "structure,data", "--every", "10d", "--at-most", "30min"]).unwrap();
        assert_eq!(config.repositories, Repositories::Matching("m.*".into()));
        let plan = &config.plan;
        assert_eq!((plan.structure, plan.archives, plan.data), (true, false, true));
        assert_eq!((plan.promise_hours, plan.skip_hours, plan.seconds), (240, 120, Some(1800)));
        let plain = add(&["--repository", "main"]).unwrap().plan;
        assert_eq!((plain.parts(), plain.promise_hours, plain.skip_hours, plain.seconds), ("structure, archives".into(), 336, 168, None));
        assert_eq!(add(&["--repository", "main", "--skip", "0", "--at-most", "none"]).unwrap().plan.skip_hours, 0);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        assert!(parse(&["add", "x"]).unwrap_err().to_string().contains("required"));
        let why = |words: &[&str]| parse(&[&["add", "x", "--repository", "main"], words].concat()).unwrap_err().to_string();
        assert!(why(&["--at-most", "0s"]).contains("no time limit"));
        assert!(why(&["--at-most", "ü"]).contains("no time limit"));
        assert!(why(&["--every", "14"]).contains("such as 14d"));
        assert!(why(&["--parts", "all"]).contains("structure"));
        assert!(why(&["--matching", "x"]).contains("cannot be used with"));
        assert!(add(&["--repository", "main", "--skip", "14d"]).unwrap_err().message().contains("shorter time"));
        assert!(add(&["--matching", "("]).unwrap_err().message().contains("regular expression"));
    }
}
