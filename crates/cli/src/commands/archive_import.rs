//! `borgcube archive import`, and which archives are of other origin.

use super::run::queued;
use super::{client, repository, wait};
use crate::complete;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::output::tables::Column::{Text, Whole};
use crate::output::{Table, count, shown};
use crate::owner_link::OwnerLink;
use clap_complete::ArgValueCandidates;
use model::import::{Attribution, Choice, DEFAULT_LABEL, Foreign, Import, Which};
use model::{ClientName, ConfigName, Label, RepositoryName, Work};
use serde::Serialize;
use std::collections::BTreeSet;
use wire::control::{ArchiveFilter, Archives, Call, Clients};
use wire::maintenance::{Operation, Report};

/// Options of `borgcube archive import`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Archives that another borg made (or a BorgCube whose state is lost) get records: from then on they count for retention, statistics, restores and
the client's deduplication. Everything that they refer to is read and verified first; an archive with missing or damaged chunks is refused, with
the files concerned, and the others go on. What has a record already is left alone, so it can be run again.

The client gets the right to what its archives hold. borgcube archive list --foreign shows what there is.

Examples:
  borgcube archive list --foreign --repository main
  borgcube archive import main --match 'web1-.*' --client web1 --label old --dry-run
  borgcube archive import main --match 'web1-.*' --client web1 --label old --wait
  borgcube archive import main --all --attribute-by-name --wait"
)]
pub struct Args {
    /// Repository
    #[arg(value_name = "REPOSITORY", add = ArgValueCandidates::new(complete::repositories))]
    repository: RepositoryName,
    /// Import these archives, by their whole names
    #[arg(value_name = "ARCHIVE", required_unless_present_any = ["matching", "all"])]
    names: Vec<String>,
    /// Import archives whose whole name matches this regular expression, but no checkpoints
    #[arg(id = "matching", long = "match", value_name = "REGEX", conflicts_with = "names")]
    matching: Option<String>,
    /// Import all that have no record, but no checkpoints
    #[arg(long, conflicts_with_all = ["names", "matching"])]
    all: bool,
    /// Attribute them to this client
    #[arg(long, short, required_unless_present = "attribute_by_name", add = ArgValueCandidates::new(complete::clients))]
    client: Option<ClientName>,
    /// Attribute them to this label of the client's; there need not be such a config
    #[arg(long, short, requires = "client", default_value = DEFAULT_LABEL)]
    label: Label,
    /// Attribute archives that a BorgCube made to the client and label that it has written into them, and leave others alone
    #[arg(long, conflicts_with_all = ["client", "label"])]
    attribute_by_name: bool,
    /// Tell what would be imported as whose, and import nothing; nothing is verified for that
    #[arg(long)]
    dry_run: bool,
    /// Show progress until the job has ended; the exit code tells how
    #[arg(long, short, conflicts_with = "dry_run")]
    wait: bool,
}

/// What becomes of one archive, as `--dry-run --json` shows it.
#[derive(Debug, Serialize)]
struct Planned {
    #[serde(flatten)]
    archive: Foreign,
    /// The config whose it would be.
    import_as: Option<ConfigName>,
    /// Why it is left alone.
    skipped_because: Option<String>,
}

/// Makes a job of it, or says what it would do.
pub fn run(args: Args, context: &Context) -> Result<()> {
    let name = args.repository;
    repository::find(&mut context.control()?, &name)?;
    let attribution = match args.client.filter(|_| !args.attribute_by_name) {
        Some(client) => {
            client::find(&mut context.control()?, &client)?;
            Attribution::Config(ConfigName { client, label: args.label })
        }
        None => Attribution::ByName,
    };
    let which = match (args.matching, args.all) {
        (Some(regex), _) => Which::Match(regex),
        (None, true) => Which::All,
        (None, false) => Which::Names(args.names),
    };
    let import = Import { which, attribution };
    import.check().map_err(Error::usage)?;
    let foreign = foreign(&name, context)?;
    let is_part_of_a_name = import.matches_part_of(&foreign);
    let (chosen, missing) = import.choose(foreign).map_err(Error::usage)?;
    let mut unknown = vec![];
    for archive in missing {
        let filter = ArchiveFilter { repository: Some(name.clone()), name: Some(archive.clone()), ..Default::default() };
        if context.control()?.call::<Archives>(Call::ListArchives { filter })?.archives.is_empty() {
            unknown.push(archive);
        } else {
            context.note(&format!("Archive {} has a record already.", shown(&archive)));
        }
    }
    if let Some(first) = unknown.first() {
        let hint = format!("borgcube archive list --foreign --repository {name} shows what can be imported.");
        return Err(Error::not_found(format!("repository {name} has no archive {first:?}")).hint(hint));
    }
    let planned: Vec<Planned> = chosen
        .into_iter()
        .map(|(archive, choice)| match choice {
            Choice::Import(config) => Planned { archive, import_as: Some(config), skipped_because: None },
            Choice::Skip(why) => Planned { archive, import_as: None, skipped_because: Some(why) },
        })
        .collect();
    if import.attribution == Attribution::ByName {
        let clients: Clients = context.control()?.call(Call::ListClients {})?;
        let known: BTreeSet<&ClientName> = clients.clients.iter().map(|client| &client.name).collect();
        no_client(&planned, &known)?;
    }
    if args.dry_run {
        return context.list(&planned, table(&planned));
    }
    if planned.iter().all(|one| one.import_as.is_none()) {
        for one in &planned {
            context.note(&format!("{}: {}", shown(&one.archive.name), one.skipped_because.as_deref().unwrap_or_default()));
        }
        return context.done(&planned, &nothing(&name, &import.which, is_part_of_a_name));
    }
    let going = planned.iter().filter(|one| one.import_as.is_some()).count() as u64;
    context.note(&format!("{} to import.", count(going, "archive")));
    let call = Call::RunMaintenance { repository: name, work: Work::Import { import: Box::new(import) }, retry: false };
    queued(call, args.wait, context)
}

/// Why nothing is imported. Whoever knows grep takes a part of a name for a match.
fn nothing(repository: &RepositoryName, which: &Which, is_part_of_a_name: bool) -> String {
    let Which::Match(regex) = which else { return format!("There is nothing to import into the records of repository {repository}.") };
    let regex = shown(regex);
    match is_part_of_a_name {
        true => format!(
            "There is nothing to import: {regex:?} matches a part of names, and the whole name must match, as with {:?}.",
            format!(".*({regex}).*")
        ),
        false => format!(
            "There is nothing to import into the records of repository {repository}: no name of an archive without a record matches {regex:?}."
        ),
    }
}

/// Archives belong to clients that there are: nobody else could be asked for them.
fn no_client(planned: &[Planned], known: &BTreeSet<&ClientName>) -> Result<()> {
    let named: BTreeSet<&ClientName> = planned.iter().filter_map(|one| one.import_as.as_ref()).map(|config| &config.client).collect();
    let unknown: Vec<&str> = named.into_iter().filter(|client| !known.contains(client)).map(ClientName::as_str).collect();
    let Some(first) = unknown.first() else { return Ok(()) };
    let message = match unknown.len() {
        1 => format!("the archives name client {first}, and there is no such client"),
        _ => format!("the archives name these clients, and there are none: {}", unknown.join(", ")),
    };
    let hint = format!(
        "Add what is missing, such as with: borgcube client add {first} USER@HOST. Or import only a part with --match, or as another client's with --client."
    );
    Err(Error::not_found(message).hint("Nothing was imported.").hint(hint))
}

/// The archives in the manifest that have no record.
pub fn foreign(repository: &RepositoryName, context: &Context) -> Result<Vec<Foreign>> {
    let mut interrupts = wait::interrupts()?;
    let (mut all, mut after) = (vec![], None);
    loop {
        let link = OwnerLink::ask(repository, Operation::Foreign { after: after.clone() }, context)?;
        match link.report(&format!("archives of {repository}"), &mut interrupts, context)? {
            Report::Foreign { archives, next } => {
                all.extend(archives);
                after = next;
            }
            other => {
                log::debug!("{other:?}");
                return Err(Error::failed("the repository's owner reports something else than what was asked for"));
            }
        }
        if after.is_none() {
            all.sort_by(|a: &Foreign, b| (&b.time, &b.name).cmp(&(&a.time, &a.name)));
            return Ok(all);
        }
    }
}

/// As a listing; times are those that the archives claim, in UTC.
pub fn listing(archives: &[Foreign]) -> Table {
    let columns = [Whole("ARCHIVE"), Whole("SAID TIME (UTC)"), Text("SAID HOST"), Text("SAID USER"), Text("REMARK")];
    Table::new(&columns, archives, |archive| {
        let remark = match &archive.damage {
            Some(why) => format!("damaged: {why}"),
            None if !archive.signed => format!("not signed {}", archive.comment),
            None => archive.comment.clone(),
        };
        vec![archive.name.clone(), seconds(&archive.time), archive.hostname.clone(), archive.username.clone(), remark]
    })
}

fn table(planned: &[Planned]) -> Table {
    Table::new(&[Whole("ARCHIVE"), Whole("SAID TIME (UTC)"), Whole("AS"), Text("REMARK")], planned, |one| {
        let remark = one.skipped_because.as_ref().map(|why| format!("left alone: {why}"));
        vec![
            one.archive.name.clone(),
            seconds(&one.archive.time),
            one.import_as.as_ref().map(ToString::to_string).unwrap_or_default(),
            remark.or_else(|| one.archive.damage.as_ref().map(|why| format!("will be refused: {why}"))).unwrap_or_default(),
        ]
    })
}

/// Nobody wants to see what is behind the seconds.
fn seconds(time: &str) -> String {
    time.split('.').next().unwrap_or_default().replacen('T', " ", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_of_nobody_are_not_imported() {
        let planned = |config: Option<&str>| Planned {
            archive: serde_json::from_value(serde_json::json!({"name": "a", "id": "00"})).unwrap(),
            import_as: config.map(|config| config.parse().unwrap()),
            skipped_because: None,
        };
        let web1: ClientName = "web1".parse().unwrap();
        let known = BTreeSet::from([&web1]);
        assert!(no_client(&[planned(Some("web1/etc")), planned(None)], &known).is_ok());
        let error = no_client(&[planned(Some("web1/etc")), planned(Some("db1/etc")), planned(Some("db1/all"))], &known).unwrap_err();
        assert_eq!(error.message(), "the archives name client db1, and there is no such client");
        let error = no_client(&[planned(Some("web2/etc")), planned(Some("db1/etc"))], &known).unwrap_err();
        assert_eq!(error.message(), "the archives name these clients, and there are none: db1, web2");
        assert!(error.hints()[1].contains("borgcube client add db1"), "{error:?}");
    }

    #[test]
    fn a_part_of_a_name_is_no_match_and_it_says_so() {
        let (name, part) = ("main".parse().unwrap(), Which::Match("web1-".into()));
        let said = nothing(&name, &part, true);
        assert!(said.contains("the whole name must match") && said.contains("\".*(web1-).*\""), "{said}");
        assert!(nothing(&name, &part, false).contains("no name of an archive without a record matches"));
        assert!(!nothing(&name, &Which::All, false).contains("match"));
    }
}
