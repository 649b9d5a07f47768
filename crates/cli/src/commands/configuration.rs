//! `borgcube export`, `diff` and `apply`: the configuration as one file.

use super::{confirm, wait};
use crate::context::{Context, absolute, shell_word, write_out};
use crate::control::Control;
use crate::error::{Error, Kind, Result};
use crate::output::{changes, shown};
use model::Timestamp;
use model::declarative::{self, Mistake, Plan, Verb};
use serde::Serialize;
use serde_json::json;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use wire::control::{Applied, Call, Changes, Configured};

/// Exit code of a diff that found differences.
const DIFFERS: u8 = 7;

/// Largest file.
const LARGEST: u64 = 16 * 1024 * 1024;

/// Options of `borgcube export`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The file has settings, repositories, clients, backup configs, retention policies, check configs, schedules and triggers; borgcube.toml(5)
explains it. It has no secrets: passphrases, private keys and the ids of triggers stay on the server. The same configuration is always the same text.

Examples:
  borgcube export --output borgcube.toml
  borgcube export | git diff --no-index borgcube.toml -")]
pub struct Export {
    /// Write to this file, in the place of what is there; -: standard output, as without this option
    #[arg(long, short, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    output: Option<PathBuf>,
}

/// Options of `borgcube diff`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code 0: the server has what the file says; 7: it has not; 2: the file has mistakes.

Examples:
  borgcube diff borgcube.toml
  borgcube diff --json borgcube.toml | jq -r '.changes[].name'")]
pub struct Diff {
    /// File, as borgcube export writes it; -: standard input
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    /// Also remove what the server has and the file has not
    #[arg(long)]
    remove_missing: bool,
}

/// Options of `borgcube apply`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What the server has and the file has not stays, unless --remove-missing is given or the file has remove_missing = true in [apply]. Repositories
are never added or removed, nor are clients removed that have archives. Everything happens in one transaction, or nothing does;
borgcube undo reverts it. Jobs that run go on.

Examples:
  borgcube apply borgcube.toml
  borgcube apply --yes --note \"$(git log -1 --format=%h)\" borgcube.toml")]
pub struct Apply {
    /// File, as borgcube export writes it; -: standard input, with --yes
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Show the plan only
    #[arg(long, short = 'n', conflicts_with = "yes")]
    dry_run: bool,
    /// Also remove what the server has and the file has not
    #[arg(long)]
    remove_missing: bool,
    /// Say what for, in the transaction log
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    note: String,
}

/// A plan, and what it was made from.
#[derive(Debug, Serialize)]
struct Planned {
    transaction: u64,
    #[serde(flatten)]
    plan: Plan,
}

#[derive(Debug, Serialize)]
struct Done {
    #[serde(flatten)]
    applied: Applied,
    #[serde(flatten)]
    plan: Plan,
}

fn configured(control: &mut Control) -> Result<Configured> {
    control.call(Call::GetConfiguration {})
}

/// Writes the configuration.
pub fn export(args: &Export, context: &Context) -> Result<()> {
    let configuration = configured(&mut context.control()?)?.configuration;
    let text = if context.json {
        let objects: Vec<_> = configuration.objects().iter().map(declarative::Object::to_json).collect();
        crate::output::json(&json!({"format": declarative::FORMAT, "objects": objects}))?
    } else {
        declarative::export(&configuration)
    };
    let Some(path) = args.output.as_deref().filter(|path| *path != Path::new("-")) else { return write_out(&text) };
    let path = absolute(path)?;
    // A file that lives in git is there already, and meant to be replaced.
    let before = unix::files::read_small(&path, LARGEST).ok().flatten();
    write(&path, text.as_bytes())?;
    context.say(&wrote(&path, before.as_deref(), text.as_bytes()))
}

fn wrote(path: &Path, before: Option<&[u8]>, now: &[u8]) -> String {
    let path = path.display();
    match before {
        Some(before) if before == now => format!("{path} has the configuration already; nothing in it has changed."),
        Some(before) if !before.is_empty() => format!("Wrote the configuration to {path}, in the place of what was there."),
        _ => format!("Wrote the configuration to {path}."),
    }
}

/// Either as before or complete. What is no file, such as /dev/stdout, is written to and not replaced.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |e: &dyn std::fmt::Display| Error::failed(format!("{} cannot be written: {e}", path.display()));
    // A link stays a link.
    match path.canonicalize() {
        Ok(there) if !there.is_file() => {
            let file = File::options().write(true).open(path);
            file.and_then(|mut file| file.write_all(bytes)).map_err(|e| failed(&e))
        }
        Ok(there) => unix::files::write_with_mode(&there, bytes, 0o644).map_err(|e| failed(&e)),
        Err(_) => unix::files::write_with_mode(path, bytes, 0o644).map_err(|e| failed(&e)),
    }
}

/// Shows what an apply would do.
pub fn diff(args: &Diff, context: &Context) -> Result<ExitCode> {
    let planned = planned(&mut context.control()?, &args.file, args.remove_missing, context)?;
    let code = if planned.plan.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(DIFFERS) };
    if context.json {
        context.print_json(&planned)?;
        return Ok(code);
    }
    if planned.plan.is_empty() {
        context.say("The server has what the file says.")?;
    } else {
        write_out(&changes::plan(&planned.plan))?;
    }
    Ok(code)
}

/// Makes the server have what the file says.
pub fn apply(args: &Apply, context: &Context) -> Result<()> {
    let mut control = context.control()?;
    let Planned { transaction: base, plan } = planned(&mut control, &args.file, args.remove_missing, context)?;
    if plan.is_empty() {
        let applied = Applied { transaction: 0, warnings: vec![] };
        return context.done(&Done { applied, plan }, "The server has what the file says; there is nothing to do.");
    }
    let unseen = context.json || (context.quiet && args.yes);
    if !unseen {
        write_out(&changes::plan(&plan))?;
    }
    if args.dry_run {
        return if context.json { context.print_json(&Planned { transaction: base, plan }) } else { Ok(()) };
    }
    if let [first, more @ ..] = plan.obstacles.as_slice() {
        let beside = match more.len() {
            0 => String::new(),
            1 => ", and one more thing is in the way".to_owned(),
            n => format!(", and {n} more things are in the way"),
        };
        let message = format!("{}{beside}", shown(&first.message));
        return Err(Error::conflict(message).hint("Nothing was changed: everything is applied, or nothing."));
    }
    if !args.yes {
        if !io::stdin().is_terminal() || args.file == Path::new("-") {
            return Err(Error::usage("there is no terminal to ask whether that is meant; nothing was changed")
                .hint("--yes applies without asking; --dry-run shows what would be done."));
        }
        let interrupts = wait::interrupts()?;
        let untouched = "nothing was changed";
        if !confirm::ask("Apply this?", untouched, &interrupts)? {
            return Err(Error::failed(untouched));
        }
    }
    let wanted = Changes { base, changes: plan.changes.iter().map(|step| step.change.clone()).collect(), note: args.note.clone() };
    let applied: Applied = control.call(Call::ApplyConfiguration(Box::new(wanted)))?;
    for warning in &applied.warnings {
        context.note(&format!("borgcube: {}", shown(warning)));
    }
    if plan.changes.iter().any(|step| step.kind == declarative::Kind::Trigger && step.action == Verb::Add) {
        context.note("New triggers have ids of the server's: borgcube trigger list shows them.");
    }
    let number = applied.transaction;
    let sentence = format!("Applied: {}. borgcube undo {number} reverts it.", changes::summary(&plan));
    context.done(&Done { applied, plan }, &sentence)
}

fn planned(control: &mut Control, file: &Path, remove_missing: bool, context: &Context) -> Result<Planned> {
    let (name, text) = read(file)?;
    let Configured { transaction, configuration, archived } = configured(control)?;
    let plan = declarative::compare(&text, Timestamp::now(), &configuration, &archived, remove_missing);
    Ok(Planned { transaction, plan: plan.map_err(|mistakes| wrong(&name, &mistakes, context))? })
}

/// The file's name for people, and its text.
fn read(file: &Path) -> Result<(String, String)> {
    let (name, mut bytes) = (shell_word(file), vec![]);
    let unreadable = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => Error::not_found(format!("there is no file {name}")).hint("borgcube export --output FILE writes one."),
        io::ErrorKind::PermissionDenied => Error::new(Kind::Permission, format!("{name} cannot be read: {e}")),
        _ => Error::usage(format!("{name} cannot be read: {e}")),
    };
    let source: Box<dyn Read> =
        if file == Path::new("-") { Box::new(io::stdin()) } else { Box::new(File::open(file).map_err(unreadable)?) };
    source.take(LARGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Error::usage(format!("{name} is larger than {} MiB: that is no configuration", LARGEST >> 20)));
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let valid = e.utf8_error().valid_up_to();
        let line = e.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count() + 1;
        Error::usage(format!("{name}:{line}: this is not UTF-8, as TOML is"))
    })?;
    Ok((if file == Path::new("-") { "standard input".to_owned() } else { name }, text))
}

/// All mistakes, each on a line that editors and CI know how to read.
fn wrong(name: &str, mistakes: &[Mistake], context: &Context) -> Error {
    let lines = mistakes.iter().map(|mistake| format!("{name}:{}", shown(&mistake.to_string())));
    let count = crate::output::count(mistakes.len() as u64, "mistake");
    let error = Error::usage(format!("{name} has {count}; nothing was changed"));
    if context.json {
        return lines.fold(error, Error::hint);
    }
    let text: String = lines.map(|line| line + "\n").collect();
    // When standard error is gone, too, the exit code still tells.
    let _ = io::stderr().write_all(text.as_bytes());
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_replaced_is_named_as_such() {
        let path = Path::new("/x/borgcube.toml");
        assert_eq!(wrote(path, None, b"a"), "Wrote the configuration to /x/borgcube.toml.");
        assert_eq!(wrote(path, Some(b""), b"a"), wrote(path, None, b"a"));
        assert!(wrote(path, Some(b"b"), b"a").ends_with("in the place of what was there."));
        assert!(wrote(path, Some(b"a"), b"a").contains("nothing in it has changed"));
    }
}
