//! `borgcube binary`: Borg binaries for clients that have no borg.

mod facts;
mod shelf;

use crate::complete;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::output::tables::Column::{Number, Text, Whole};
use crate::output::{Table, bytes};
use crate::tools::Tool;
use clap::Subcommand;
use clap_complete::ArgValueCandidates;
use facts::Named;
use model::Timestamp;
use model::binary::{Binary, BorgVersion, Glibc, LARGEST, Platform};
use serde::Serialize;
use shelf::{Draft, Shelf};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use unix::paths::Layout;

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Give clients without a borg this one: a single-file binary of Borg's releases
    Add(Add),
    /// List the binaries
    #[command(alias = "ls")]
    List,
    /// Remove a binary; clients that have kept it use it no more
    Remove(Name),
    /// Compare the binaries with their checksums
    Verify,
}

/// A binary's name.
#[derive(Debug, clap::Args)]
pub struct Name {
    /// Binary
    #[arg(value_name = "BINARY", add = ArgValueCandidates::new(complete::binaries))]
    name: String,
}

/// Options of `borgcube binary add`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Names of Borg's releases tell what is needed; what they do not tell is asked for. The file is run for its version, unless that is \
given: check its signature first.

Examples:
  borgcube binary add borg-linux-glibc231-x86_64
  borgcube binary add borg-linux-glibc235-arm64-gh --borg-version 1.4.5
  borgcube binary add borg-linuxnew64 --glibc 2.31"
)]
pub struct Add {
    /// The file; it is copied
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    /// It is this release of Borg; otherwise it is run for its version
    #[arg(long, value_name = "X.Y.Z")]
    borg_version: Option<BorgVersion>,
    /// It runs on this system and architecture, as uname -s -m calls them
    #[arg(long, value_name = "SYSTEM-MACHINE")]
    platform: Option<Platform>,
    /// It needs this glibc or a newer one; none: it needs no glibc
    #[arg(long, value_name = "X.Y|none")]
    glibc: Option<Needs>,
}

/// What `--glibc` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Needs(Option<Glibc>);

impl FromStr for Needs {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Needs, String> {
        if text == "none" { Ok(Needs(None)) } else { text.parse().map(|glibc| Needs(Some(glibc))) }
    }
}

/// Does it.
pub fn run(command: Command, context: &Context) -> Result<ExitCode> {
    let shelf = Shelf::of(&context.layout);
    match command {
        Command::Add(args) => add(args, &shelf, context)?,
        Command::List => list(&shelf, context)?,
        Command::Remove(Name { name }) => {
            let binary = shelf.remove(&name)?;
            context.done(&binary, &format!("Removed {name}."))?;
        }
        Command::Verify => return verify(&shelf, context),
    }
    Ok(ExitCode::SUCCESS)
}

fn add(args: Add, shelf: &Shelf, context: &Context) -> Result<()> {
    let shown = args.file.display().to_string();
    let unreadable = |e: std::io::Error| Error::failed(format!("cannot read {shown}: {e}"));
    let file = File::open(&args.file).map_err(unreadable)?;
    let meta = file.metadata().map_err(unreadable)?;
    if !meta.is_file() || meta.len() == 0 || meta.len() > LARGEST {
        return Err(Error::usage(format!("{shown} is no Borg binary: those are files of at most {}", bytes(LARGEST))));
    }
    let mut head = vec![];
    (&file).take(facts::HEAD as u64).read_to_end(&mut head).map_err(unreadable)?;
    let named = args.file.file_name().and_then(|name| name.to_str()).map(facts::named).unwrap_or_default();
    let said = |why: String| Error::usage(format!("{shown}: {why}"));
    let platform = facts::platform(args.platform, &named, &facts::head(&head)).map_err(said)?;
    let glibc = glibc(args.glibc, &named, &platform).map_err(said)?;

    let draft = shelf.draft(File::open(&args.file).map_err(unreadable)?, meta.len())?;
    let borg = version(args.borg_version, &named, &platform, &draft).map_err(said)?;
    if !borg.is_supported() {
        return Err(Error::usage(format!("{shown} is borg {borg}; clients need {} or newer, below 2", BorgVersion::OLDEST)));
    }
    let name = Binary::name_of(borg, &platform, glibc);
    let (size, sha256) = (draft.size, draft.sha256.clone());
    let binary = Binary { name, borg, platform, glibc, size, sha256, added: Timestamp::now() };
    shelf.put(draft, &binary)?;
    context.done(&binary, &format!("Added {} ({}, SHA-256 {}).", binary.name, bytes(size), binary.sha256))
}

fn glibc(given: Option<Needs>, named: &Named, platform: &Platform) -> std::result::Result<Option<Glibc>, String> {
    match given {
        Some(Needs(Some(_))) if platform.system() != "linux" => Err(format!("there is no glibc on {}", platform.system())),
        Some(Needs(needs)) => Ok(needs),
        None if platform.system() != "linux" => Ok(None),
        None if named.glibc.is_some() => Ok(named.glibc),
        None => {
            Err("its name does not say which glibc it needs (the notes of the release, 00_README.txt, do): say it with --glibc 2.31".into())
        }
    }
}

/// What it calls itself, if it runs here.
fn version(given: Option<BorgVersion>, named: &Named, platform: &Platform, draft: &Draft) -> std::result::Result<BorgVersion, String> {
    if let Some(given) = given {
        return Ok(given);
    }
    let here = Platform::new(std::env::consts::OS, std::env::consts::ARCH);
    let why = if here.as_ref() == Ok(platform) {
        match Tool::new(draft.path()).arg("-V").run() {
            Ok(said) if said.success => match BorgVersion::said(&said.out) {
                Some(version) => return Ok(version),
                None => format!("asked for its version it says {:?}", said.reason()),
            },
            Ok(said) => format!("it does not run here: {}", said.reason()),
            Err(error) => format!("it does not run here: {}", error.message()),
        }
    } else {
        format!("this machine cannot ask a program for {platform} for its version")
    };
    named.borg.ok_or_else(|| format!("{why}; say which release it is: --borg-version 1.4.5"))
}

fn list(shelf: &Shelf, context: &Context) -> Result<()> {
    let binaries = shelf.index()?.binaries;
    let columns = [Whole("BINARY"), Whole("BORG"), Whole("PLATFORM"), Whole("GLIBC"), Number("SIZE"), Whole("ADDED"), Whole("SHA-256")];
    let table = Table::new(&columns, &binaries, |binary| {
        vec![
            binary.name.clone(),
            binary.borg.to_string(),
            binary.platform.to_string(),
            binary.glibc.map(|glibc| glibc.to_string()).unwrap_or_default(),
            bytes(binary.size),
            binary.added.to_local(),
            binary.sha256.chars().take(16).collect(),
        ]
    });
    context.list(&binaries, table)
}

/// What `verify` says of a binary.
#[derive(Debug, Serialize)]
struct Verdict {
    name: String,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
}

fn verify(shelf: &Shelf, context: &Context) -> Result<ExitCode> {
    let judge = |binary: &Binary| {
        let trouble = shelf.trouble(binary);
        Verdict { name: binary.name.clone(), ok: trouble.is_none(), trouble }
    };
    let verdicts: Vec<Verdict> = shelf.index()?.binaries.iter().map(judge).collect();
    let table = Table::new(&[Whole("BINARY"), Text("VERDICT")], &verdicts, |verdict| {
        vec![verdict.name.clone(), verdict.trouble.clone().unwrap_or_else(|| "ok".to_owned())]
    });
    context.list(&verdicts, table)?;
    if verdicts.iter().all(|verdict| verdict.ok) {
        return Ok(ExitCode::SUCCESS);
    }
    context.note("What is not ok is sent to no client. Look who changed it; then remove it and add it again.");
    Ok(ExitCode::FAILURE)
}

/// Names and releases, for the shell's completion.
pub fn names(layout: &Layout) -> Vec<(String, String)> {
    let binaries = Shelf::of(layout).index().map(|index| index.binaries).unwrap_or_default();
    binaries.into_iter().map(|binary| (binary.name, bytes(binary.size))).collect()
}
