//! `borgcube keys`: repository keys for a safe place that is not this server.

use super::{repository, wait};
use crate::complete;
use crate::context::{Context, write_out};
use crate::error::{Error, Result};
use crate::output::count;
use crate::owner_link::OwnerLink;
use clap::{Subcommand, ValueEnum, ValueHint};
use clap_complete::ArgValueCandidates;
use model::{Repository, RepositoryName, Timestamp};
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use wire::maintenance::{KeyText, Operation, Report};

/// Printers begin a new page.
const NEXT_PAGE: char = '\u{c}';

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print a sheet with a repository's key, for a safe place that is not this server
    Export(Export),
}

/// Options of `borgcube keys export`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without its key nobody reads a repository, whatever is left of it: the key is in the repository's config (repokey, authenticated), or only
on this server (keyfile). The sheet has it as stock Borg takes it back, by typing (borg key import --paper) or as a file (borg key import).
It is protected by the passphrase, which is not on the sheet: keep that somewhere else. Only root gets it, and the transaction log says who did.

Examples:
  borgcube keys export main | lp
  borgcube keys export --all --output /root/keys.txt
  borgcube keys export main --format key --output main.key"
)]
pub struct Export {
    /// Repository
    #[arg(value_name = "REPOSITORY", required_unless_present = "all", add = ArgValueCandidates::new(complete::repositories))]
    name: Option<RepositoryName>,
    /// Print the sheets of all repositories that have a key, each on a page of its own
    #[arg(long, conflicts_with = "name")]
    all: bool,
    /// What to print
    #[arg(long, value_enum, default_value_t = Format::Sheet)]
    format: Format,
    /// Write it into this new file, which nobody else may read
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,
}

/// What is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// All a person needs years later, both forms of the key included
    Sheet,
    /// What borg key export --paper prints
    Paper,
    /// What borg key export writes
    Key,
}

/// A key as `--json` shows it.
#[derive(Debug, Serialize)]
struct Exported {
    repository: RepositoryName,
    repository_id: String,
    url: String,
    encryption: String,
    /// Where it was written. Otherwise the key itself follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    paper: Option<String>,
}

/// Does it.
pub fn run(command: Command, context: &Context) -> Result<()> {
    match command {
        Command::Export(args) => export(&args, context),
    }
}

fn export(args: &Export, context: &Context) -> Result<()> {
    let mut control = context.control()?;
    let repositories: Vec<Repository> = match &args.name {
        Some(name) => vec![repository::find(&mut control, name)?],
        None => repository::all(&mut control)?,
    };
    let (keyed, open): (Vec<Repository>, Vec<Repository>) = repositories.into_iter().partition(|r| r.encryption.has_key());
    if let (Some(name), Some(_)) = (&args.name, open.first()) {
        return Err(Error::usage(format!("repository {name} is not encrypted and has no key")));
    }
    for repository in &open {
        context.note(&format!("Repository {} is not encrypted and has no key.", repository.name));
    }
    if keyed.is_empty() {
        return Err(Error::not_found("there is no repository with a key"));
    }
    // Before the log says that somebody has the key.
    let file = match &args.output {
        Some(path) => Some((path, create(path)?)),
        None => {
            check_stdout()?;
            None
        }
    };
    let fetched = fetch(&keyed, args.format, context);
    let (texts, mut records) = match (fetched, &file) {
        (Ok(fetched), _) => fetched,
        (Err(error), Some((path, _))) => {
            // Nothing is in it, and it was made a moment ago.
            if let Err(e) = std::fs::remove_file(path) {
                context.note(&format!("{} stays behind: {e}", path.display()));
            }
            return Err(error);
        }
        (Err(error), None) => return Err(error),
    };
    let text = texts.join(&if args.format == Format::Sheet { NEXT_PAGE.to_string() } else { "\n".to_owned() });
    match file {
        Some((path, mut file)) => {
            let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
            written.map_err(|e| Error::failed(format!("cannot write {}: {e}", path.display())))?;
            for record in &mut records {
                (record.key, record.paper) = (None, None);
                record.file = Some(path.display().to_string());
            }
            let done = format!("{} in {}; only you may read that.", count(records.len() as u64, "key"), path.display());
            context.done(&records, &done)
        }
        None if context.json => context.print_json(&records),
        None => write_out(&text),
    }
}

fn fetch(repositories: &[Repository], format: Format, context: &Context) -> Result<(Vec<String>, Vec<Exported>)> {
    let mut interrupts = wait::interrupts()?;
    let (mut texts, mut records) = (vec![], vec![]);
    for repository in repositories {
        let link = OwnerLink::ask(&repository.name, Operation::ExportKey, context)?;
        let key = match link.report(&format!("key of {}", repository.name), &mut interrupts, context)? {
            Report::Key(key) => *key,
            _ => return Err(Error::failed("the repository's owner reports something else than what was asked for")),
        };
        texts.push(match format {
            Format::Sheet => sheet(repository, &key, Timestamp::now()),
            Format::Paper => paper(&key),
            Format::Key => key.file.clone(),
        });
        let KeyText { repository_id, file, paper } = key;
        records.push(Exported {
            repository: repository.name.clone(),
            repository_id,
            url: repository.url.clone(),
            encryption: repository.encryption.to_string(),
            file: None,
            key: Some(file),
            paper: Some(paper),
        });
    }
    Ok((texts, records))
}

/// A file that was not there, for nobody else.
fn create(path: &Path) -> Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => Error::conflict(format!("{} is there already, and is not written over", path.display()))
            .hint("Name another file, or remove it."),
        _ => Error::failed(format!("cannot make {}: {e}", path.display())),
    })
}

/// A terminal, a pipe and a file of one's own are fine; a file that others may read is none for keys.
fn check_stdout() -> Result<()> {
    let cannot = |e: io::Error| Error::failed(format!("cannot look at standard output: {e}"));
    let stdout = File::from(io::stdout().as_fd().try_clone_to_owned().map_err(cannot)?);
    let meta = stdout.metadata().map_err(cannot)?;
    if meta.is_file() && meta.mode() & 0o077 != 0 {
        return Err(Error::usage("standard output is a file that others may read").hint("--output FILE makes one that only you may read."));
    }
    Ok(())
}

/// As `borg key export --paper` prints it.
fn paper(key: &KeyText) -> String {
    format!("To restore key use borg key import --paper /path/to/repo\n\n{}", key.paper)
}

/// Years later, without BorgCube, and perhaps without this server.
fn sheet(repository: &Repository, key: &KeyText, now: Timestamp) -> String {
    let Repository { name, url, encryption, .. } = repository;
    let place = if encryption.is_keyfile() {
        "in a file on the server only: without this sheet and that file the repository is lost"
    } else {
        "in the repository's file `config`: this sheet is for when that is damaged or lost"
    };
    let rule = "-".repeat(78);
    format!(
        "\
KEY OF A BORG REPOSITORY                                  printed {date}

Repository    {name} (its name in BorgCube)
Location      {url}
Id            {id}
Encryption    {encryption}
The key is    {place}

This sheet does not open the repository: the PASSPHRASE is not on it. Keep the
passphrase as well, and somewhere else. Whoever has both, and the repository,
reads everything. Nothing else is on this sheet: no data, and no settings of
BorgCube. Print it anew when the passphrase or the key was changed.

To use it, install Borg 1.x (https://borgbackup.org) where the repository is.
Let nothing else use the repository meanwhile.

1. By typing:
       borg key import --paper LOCATION
   asks for the lines below, one by one, beginning with the one behind `id:`.
   The two letters at the end of each line tell typing errors at once.

{rule}
{paper}{rule}

2. From a file: scan or type the lines from BORG_KEY to the last one into FILE:
       borg key import LOCATION FILE

{rule}
{file}{rule}

Then, with the passphrase, `borg list LOCATION` shows what is in it.
",
        date = now.to_rfc3339(),
        id = key.repository_id,
        paper = key.paper,
        file = key.file,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::EncryptionMode;

    #[test]
    fn a_sheet_has_both_forms_and_says_what_is_missing() {
        let mut repository = Repository {
            name: "main".parse().unwrap(),
            url: "/srv/borg".into(),
            description: String::new(),
            repository_id: "ab".repeat(32),
            encryption: EncryptionMode::Repokey,
            remote_borg: None,
            rsh: None,
            created: Timestamp(0),
        };
        let key = KeyText {
            repository_id: "ab".repeat(32),
            file: format!("BORG_KEY {}\nabc\n", "ab".repeat(32)),
            paper: "BORG PAPER KEY v1\nid: 1 / x\n 1: y - 00\n".into(),
        };
        let text = sheet(&repository, &key, Timestamp(0));
        for part in
            ["/srv/borg", "1970-01-01", "\nBORG PAPER KEY v1\n", "\n 1: y - 00\n", "\nBORG_KEY abab", "PASSPHRASE is not on it", "`config`"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.lines().filter(|line| !line.contains("abab")).all(|line| line.len() <= 100), "{text}");
        repository.encryption = EncryptionMode::Keyfile;
        assert!(sheet(&repository, &key, Timestamp(0)).contains("on the server only"));
        assert!(paper(&key).starts_with("To restore key use borg key import --paper /path/to/repo\n\nBORG PAPER KEY v1\n"));
    }

    #[test]
    fn files_are_new_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        assert_eq!(create(&path).unwrap().metadata().unwrap().mode() & 0o777, 0o600);
        assert!(create(&path).unwrap_err().message().contains("not written over"));
    }
}
