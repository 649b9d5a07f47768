//! `borgcube trigger`.

use super::edit::something;
use super::schedule_run;
use crate::complete;
use crate::context::Context;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::output::plans;
use clap::{ArgGroup, Subcommand};
use clap_complete::{ArgValueCandidates, CompletionCandidate};
use model::trigger::{AccessContext, TriggerTarget};
use model::{ConfigName, ScheduleName, Trigger};
use wire::control::{AddedTrigger, Call, Triggers};

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a trigger: an id that starts a schedule or a backup config
    Add(Add),
    /// List the triggers with their ids: whoever knows one may use it
    #[command(alias = "ls")]
    List,
    /// Use a trigger
    Run(Id),
    /// Let a trigger work again
    Enable(Id),
    /// Let a trigger be refused
    Disable(Id),
    /// Remove a trigger
    Remove(Id),
}

/// Options of `borgcube trigger add`.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("target").required(true).args(["schedule", "config"]), after_help = "The id is 128 random bits. Treat it like a password: it is its holder's only credential.

Examples:
  borgcube trigger add --config web1/etc --comment 'before upgrades, for ada'
  borgcube trigger add --schedule nightly --access anonymous-web --comment 'button in the wiki'")]
pub struct Add {
    /// Start this schedule
    #[arg(long, short, value_name = "SCHEDULE", add = ArgValueCandidates::new(complete::schedules))]
    schedule: Option<ScheduleName>,
    /// Start this backup config
    #[arg(long, short, value_name = "CLIENT/LABEL", add = ArgValueCandidates::new(complete::configs))]
    config: Option<ConfigName>,
    /// Let it be used from here: local-cli or anonymous-web
    #[arg(long, value_name = "CONTEXT", default_value = "local-cli", add = ArgValueCandidates::new(contexts))]
    access: AccessContext,
    /// Keep a note with it: who got it, what for
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    comment: String,
    /// Add it disabled
    #[arg(long)]
    disabled: bool,
}

/// A trigger's id.
#[derive(Debug, clap::Args)]
pub struct Id {
    /// Id of the trigger; to change one, its beginning will do if no other begins like that
    #[arg(value_name = "ID", add = ArgValueCandidates::new(complete::triggers))]
    id: String,
}

fn contexts() -> Vec<CompletionCandidate> {
    AccessContext::ALL.iter().map(|context| CompletionCandidate::new(context.as_str())).collect()
}

/// Does it.
pub fn run(command: Command, context: &Context) -> Result<()> {
    match command {
        Command::Add(args) => {
            let target = match (args.schedule, args.config) {
                (Some(schedule), _) => TriggerTarget::Schedule { schedule },
                (None, Some(config)) => TriggerTarget::Config { config },
                (None, None) => return Err(Error::usage("say what it starts: --schedule or --config")),
            };
            let call = Call::AddTrigger { access: args.access, target, comment: args.comment, enabled: !args.disabled };
            let added = context.control()?.call::<AddedTrigger>(call)?.trigger;
            let sentence = match added.access {
                AccessContext::LocalCli => {
                    format!("Added trigger {0} for {1}. Use it with: borgcube trigger run {0}", added.id, added.target)
                }
                AccessContext::AnonymousWeb => format!("Added trigger {} for {}.", added.id, added.target),
            };
            context.done(&added, &sentence)
        }
        Command::List => {
            let triggers = all(&mut context.control()?)?;
            context.list(&triggers, plans::triggers(&triggers))
        }
        Command::Run(Id { id }) => schedule_run::report(Call::FireTrigger { id, context: AccessContext::LocalCli }, context),
        Command::Enable(Id { id }) => switch(&id, true, context),
        Command::Disable(Id { id }) => switch(&id, false, context),
        Command::Remove(Id { id }) => {
            let mut control = context.control()?;
            let trigger = find(&mut control, &id)?;
            control.tell(Call::RemoveTrigger { id: trigger.id.clone() })?;
            context.done(&trigger, &format!("Removed trigger {} of {}.", trigger.id.short(), trigger.target))
        }
    }
}

fn switch(id: &str, enabled: bool, context: &Context) -> Result<()> {
    let mut control = context.control()?;
    let previous = find(&mut control, id)?;
    let (command, word) = if enabled { ("trigger enable", "enabled") } else { ("trigger disable", "disabled") };
    let short = previous.id.short().to_owned();
    if previous.enabled == enabled {
        return context.done(&previous, &format!("Trigger {short} is {word} already."));
    }
    let trigger = Trigger { enabled, ..previous.clone() };
    something(&previous, &trigger, command)?;
    control.tell(Call::UpdateTrigger { previous, trigger: trigger.clone() })?;
    context.done(&trigger, &format!("Trigger {short} is {word}."))
}

/// All triggers.
pub fn all(control: &mut Control) -> Result<Vec<Trigger>> {
    Ok(control.call::<Triggers>(Call::ListTriggers {})?.triggers)
}

/// By the whole id, or by a beginning that only one has.
fn find(control: &mut Control, id: &str) -> Result<Trigger> {
    chosen(all(control)?, id)
}

fn chosen(triggers: Vec<Trigger>, id: &str) -> Result<Trigger> {
    let hint = "borgcube trigger list shows what there is.";
    let mut found = triggers.into_iter().filter(|trigger| !id.is_empty() && trigger.id.as_str().starts_with(id));
    match (found.next(), found.next()) {
        (Some(trigger), None) => Ok(trigger),
        (None, _) => Err(Error::not_found(format!("no trigger's id begins with {:?}", id)).hint(hint)),
        (Some(_), Some(_)) => Err(Error::usage(format!("more than one trigger's id begins with {id}")).hint("Write more of it.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use model::{Timestamp, TriggerId};

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        command: Command,
    }

    #[test]
    fn a_trigger_starts_one_thing_from_one_place() {
        let parse = |words: &str| Cli::try_parse_from(format!("x {words}").split_whitespace());
        assert!(parse("add --config web1/etc").is_ok());
        assert!(parse("add --schedule nightly --access anonymous-web --disabled").is_ok());
        assert!(parse("add").is_err());
        assert!(parse("add --config web1/etc --schedule nightly").is_err());
        assert!(parse("add --config web1/etc --access everybody").is_err());
    }

    #[test]
    fn a_beginning_will_do_if_it_is_the_only_one() {
        let trigger = |byte: u8| Trigger {
            id: TriggerId::from_random([byte; 16]),
            access: AccessContext::LocalCli,
            enabled: true,
            comment: String::new(),
            target: TriggerTarget::Config { config: "web1/etc".parse().unwrap() },
            created: Timestamp(0),
            last_used: None,
        };
        let all = || vec![trigger(0xa1), trigger(0xa2)];
        assert_eq!(chosen(all(), "a1a1").unwrap(), trigger(0xa1));
        for bad in ["", "a", "b", "a1a2"] {
            assert!(chosen(all(), bad).is_err(), "{bad}");
        }
    }
}
