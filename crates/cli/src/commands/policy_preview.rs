//! `borgcube policy preview`: what would happen, why, and what it would free.

use super::policy::{Rules, find};
use super::wait;
use crate::complete;
use crate::context::{Context, write_out};
use crate::control::Control;
use crate::error::{Error, Kind, Result};
use crate::output::{bytes, count, policies, shown};
use crate::owner_link::OwnerLink;
use clap_complete::ArgValueCandidates;
use model::retention::Fate;
use model::{PolicyName, RepositoryName};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::IsTerminal;
use wire::control::{Call, PreviewedGroup, RetentionFilter};
use wire::maintenance::{Operation, Report};

/// Options of `borgcube policy preview`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Nothing is changed. With rules, it shows what the policy would do if it had them.

Examples:
  borgcube policy preview standard
  borgcube policy preview --client 'web[0-9]+' --going
  borgcube policy preview standard --keep-daily 14 --quick")]
pub struct Preview {
    /// Show the archives that this policy decides about only
    #[arg(value_name = "POLICY", add = ArgValueCandidates::new(complete::policies))]
    policy: Option<PolicyName>,
    /// Show those whose client's whole name matches this regular expression
    #[arg(long, short, value_name = "REGEX")]
    client: Option<String>,
    /// Show those whose config's whole label matches this regular expression
    #[arg(long, short, value_name = "REGEX")]
    label: Option<String>,
    /// Show those in this repository only
    #[arg(long, short, add = ArgValueCandidates::new(complete::repositories))]
    repository: Option<RepositoryName>,
    /// Show only what goes or is going already
    #[arg(long)]
    going: bool,
    /// Do not ask the repositories' owners what would be freed
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    rules: Rules,
}

/// What the archives that go would free in one repository.
#[derive(Debug, Serialize)]
struct Freed {
    repository: RepositoryName,
    archives: usize,
    chunks: u64,
    bytes: u64,
    kept_because: Option<String>,
}

#[derive(Debug, Serialize)]
struct Shown<'a> {
    groups: &'a [PreviewedGroup],
    /// None: nobody asked.
    freed: Option<&'a [Freed]>,
}

/// Does it.
pub fn run(args: &Preview, context: &Context) -> Result<()> {
    let mut control = context.control()?;
    let filter = filter(args, &mut control)?;
    let mut groups = pages(&filter, &mut control)?;
    let freed = if args.quick { None } else { Some(freed(&groups, context)?) };
    if args.going {
        for group in &mut groups {
            group.archives.retain(|archive| matches!(archive.verdict, Some(Fate::Goes { .. } | Fate::Going {})));
        }
    }
    if context.json {
        return context.print_json(&Shown { groups: &groups, freed: freed.as_deref() });
    }
    write_out(&policies::preview(&groups).render(std::io::stdout().is_terminal()))?;
    for line in remarks(&groups, freed.as_deref()) {
        context.say(&line)?;
    }
    Ok(())
}

fn filter(args: &Preview, control: &mut Control) -> Result<RetentionFilter> {
    let instead = match (&args.policy, args.rules.any()) {
        (_, false) => None,
        (None, true) => {
            return Err(Error::usage("say which policy would have these rules: borgcube policy preview POLICY --keep-daily 14"));
        }
        (Some(name), true) => {
            let mut policy = find(control, name)?;
            args.rules.apply(&mut policy);
            policy.check().map_err(Error::usage)?;
            Some(policy)
        }
    };
    let (policy, client, label, repository) = (args.policy.clone(), args.client.clone(), args.label.clone(), args.repository.clone());
    Ok(RetentionFilter { policy, client, label, repository, instead, going: args.going })
}

fn pages(filter: &RetentionFilter, control: &mut Control) -> Result<Vec<PreviewedGroup>> {
    let mut groups = vec![];
    let mut after = None;
    loop {
        let call = Call::PreviewRetention { filter: Box::new(filter.clone()), after };
        let mut page = control.call::<wire::control::Preview>(call)?;
        groups.append(&mut page.groups);
        after = page.next;
        if after.is_none() {
            return Ok(groups);
        }
    }
}

/// Asks each repository's owner what would go with the archives, those that are going already included.
fn freed(groups: &[PreviewedGroup], context: &Context) -> Result<Vec<Freed>> {
    let mut by_repository: BTreeMap<&RepositoryName, Vec<String>> = BTreeMap::new();
    for group in groups {
        let goes = group.archives.iter().filter(|archive| archive.may_go());
        by_repository.entry(&group.repository).or_default().extend(goes.map(|archive| archive.name.clone()));
    }
    let mut interrupts = wait::interrupts()?;
    let mut freed = vec![];
    // All are asked before anybody is waited for: each repository has an owner of its own.
    let wanted = by_repository.into_iter().filter(|(_, names)| !names.is_empty());
    let asked: Vec<_> = wanted
        .map(|(repository, names)| {
            (repository, names.len(), OwnerLink::ask(repository, Operation::Delete { archives: names, dry_run: true }, context))
        })
        .collect();
    for (repository, archives, link) in asked {
        let report = link.and_then(|link| link.report(&format!("what a deletion in {repository} would free"), &mut interrupts, context));
        match report {
            Ok(Report::Deleted { chunks, bytes, kept_because, .. }) => {
                freed.push(Freed { repository: repository.clone(), archives, chunks, bytes, kept_because });
            }
            Ok(other) => {
                log::debug!("{other:?}");
                return Err(Error::failed("the repository's owner reports something else than what was asked for"));
            }
            Err(error) if error.kind() == Kind::Interrupted => return Err(error),
            // The verdicts are there all the same.
            Err(error) => {
                context.note(&format!("borgcube: note: nobody says what repository {repository} could free: {}", error.message()))
            }
        }
    }
    Ok(freed)
}

/// What does not fit into a table.
fn remarks(groups: &[PreviewedGroup], freed: Option<&[Freed]>) -> Vec<String> {
    let mut lines = vec![];
    for group in groups {
        let PreviewedGroup { config, repository, .. } = group;
        if let Some(why) = &group.stopped {
            lines.push(format!("Pruning of {config} in {repository} is stopped: {}.", shown(why)));
            if let Some(policy) = &group.policy {
                lines.push(format!("  Once it is found right: borgcube policy confirm {policy} --config {config}"));
            }
        }
    }
    let verdicts = || groups.iter().flat_map(|group| &group.archives).filter_map(|archive| archive.verdict.as_ref());
    let goes = verdicts().filter(|fate| matches!(fate, Fate::Goes { .. })).count();
    let going = verdicts().filter(|fate| matches!(fate, Fate::Going {})).count();
    let going = if going == 0 { String::new() } else { format!(", {} already", count(going as u64, "archive")) };
    lines.push(format!("{} would go{going}.", count(goes as u64, "archive")));
    for Freed { repository, archives, chunks, bytes: size, kept_because } in freed.unwrap_or_default() {
        let (archives, chunks) = (count(*archives as u64, "archive"), count(*chunks, "chunk"));
        let mut line = format!("Without {archives}, a compact of repository {repository} could free {} in {chunks}.", bytes(*size));
        if let Some(why) = kept_because {
            line.push_str(&format!(" Some chunks stay: {}.", shown(why).trim_end_matches('.')));
        }
        lines.push(line);
    }
    lines
}
