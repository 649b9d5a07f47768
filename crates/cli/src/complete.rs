//! Names for the shell's completion, asked for at the running server. Where nothing answers there are no names, and no complaint: the
//! person is in the middle of typing.

use crate::commands::{binary, check_config, client, config, policy, repository, schedule, trigger, user};
use crate::control::Control;
use crate::error::Result;
use clap_complete::CompletionCandidate;
use model::EncryptionMode;
use std::ffi::OsString;
use std::path::PathBuf;
use unix::paths::{ENV_STATE, Layout};
use wire::control::{ArchiveFilter, Archives, Call, JobFilter, Jobs};

/// Clients.
pub fn clients() -> Vec<CompletionCandidate> {
    names(|c| Ok(client::all(c)?.into_iter().map(|x| (x.name.to_string(), x.description)).collect()))
}

/// Repositories.
pub fn repositories() -> Vec<CompletionCandidate> {
    names(|c| Ok(repository::all(c)?.into_iter().map(|x| (x.name.to_string(), x.url)).collect()))
}

/// Borg binaries.
pub fn binaries() -> Vec<CompletionCandidate> {
    candidates(binary::names(&layout()))
}

/// Backup configs.
pub fn configs() -> Vec<CompletionCandidate> {
    names(|c| Ok(config::all(c)?.into_iter().map(|x| (x.name().to_string(), x.paths.join(" "))).collect()))
}

/// Hooks, of whichever config.
pub fn hooks() -> Vec<CompletionCandidate> {
    let of = |c: model::BackupConfig| {
        let name = c.name().to_string();
        c.commands.hooks.into_iter().map(move |hook| (hook.name.to_string(), name.clone()))
    };
    names(move |c| Ok(config::all(c)?.into_iter().flat_map(of).collect()))
}

/// Dumps, of whichever config.
pub fn dumps() -> Vec<CompletionCandidate> {
    let of = |c: model::BackupConfig| {
        let name = c.name().to_string();
        c.commands.dumps.into_iter().map(move |dump| (dump.name.to_string(), name.clone()))
    };
    names(move |c| Ok(config::all(c)?.into_iter().flat_map(of).collect()))
}

/// Schedules.
pub fn schedules() -> Vec<CompletionCandidate> {
    names(|c| Ok(schedule::all(c)?.into_iter().map(|x| (x.schedule.name.to_string(), x.schedule.recurrence.to_string())).collect()))
}

/// Retention policies.
pub fn policies() -> Vec<CompletionCandidate> {
    names(|c| Ok(policy::all(c)?.into_iter().map(|x| (x.name.to_string(), x.description)).collect()))
}

/// Check configs.
pub fn check_configs() -> Vec<CompletionCandidate> {
    names(|c| Ok(check_config::all(c)?.into_iter().map(|x| (x.name.to_string(), x.description)).collect()))
}

/// Triggers.
pub fn triggers() -> Vec<CompletionCandidate> {
    names(|c| Ok(trigger::all(c)?.into_iter().map(|x| (x.id.to_string(), format!("{} {}", x.target, x.comment))).collect()))
}

/// Users of the status pages.
pub fn web_users() -> Vec<CompletionCandidate> {
    names(|c| Ok(user::all(c)?.into_iter().map(|x| (x.name.to_string(), format!("{} {}", x.role, x.comment))).collect()))
}

/// Jobs, newest first.
pub fn jobs() -> Vec<CompletionCandidate> {
    job_numbers(|_| true)
}

/// Jobs that can be cancelled.
pub fn live_jobs() -> Vec<CompletionCandidate> {
    job_numbers(|job| !job.state.is_final())
}

fn job_numbers(wanted: impl Fn(&model::Job) -> bool) -> Vec<CompletionCandidate> {
    names(|c| {
        let jobs = c.call::<Jobs>(Call::ListJobs { filter: JobFilter { limit: 50, ..Default::default() } })?.jobs;
        Ok(jobs
            .into_iter()
            .map(|listed| listed.job)
            .filter(&wanted)
            .map(|j| (j.number.to_string(), format!("{} {}", j.subject(), j.state)))
            .collect())
    })
}

/// Archives, newest first.
pub fn archives() -> Vec<CompletionCandidate> {
    names(|c| {
        let filter = ArchiveFilter { limit: 200, ..Default::default() };
        let archives = c.call::<Archives>(Call::ListArchives { filter })?.archives;
        Ok(archives.into_iter().map(|a| (a.name, a.repository.to_string())).collect())
    })
}

/// Encryption modes.
pub fn encryption_modes() -> Vec<CompletionCandidate> {
    EncryptionMode::ALL.iter().map(|m| CompletionCandidate::new(m.as_str())).collect()
}

fn names(ask: impl FnOnce(&mut Control) -> Result<Vec<(String, String)>>) -> Vec<CompletionCandidate> {
    let found = Control::connect(&layout().control_socket()).and_then(|mut control| {
        control.hurry();
        ask(&mut control)
    });
    candidates(found.unwrap_or_default())
}

fn layout() -> Layout {
    match state(std::env::args_os().collect()) {
        Some(state) => Layout::new(&state),
        None => Layout::system(),
    }
}

fn candidates(found: Vec<(String, String)>) -> Vec<CompletionCandidate> {
    let with_order = |(at, (name, help)): (usize, (String, String))| {
        let help = Some(crate::output::shown(&help)).filter(|h| !h.is_empty());
        CompletionCandidate::new(name).help(help.map(Into::into)).display_order(Some(at))
    };
    found.into_iter().enumerate().map(with_order).collect()
}

/// The state directory of the command line that is being typed: its words follow `--` in ours.
fn state(arguments: Vec<OsString>) -> Option<PathBuf> {
    let mut words = arguments.into_iter().skip_while(|a| a != "--").skip(1);
    while let Some(word) = words.next() {
        if word == "--state" {
            return words.next().and_then(|w| std::path::absolute(w).ok());
        }
        if let Some(value) = word.to_str().and_then(|w| w.strip_prefix("--state=")) {
            return std::path::absolute(value).ok();
        }
    }
    std::env::var_os(ENV_STATE).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_directory_is_read_from_the_line_being_typed() {
        let line = |words: &str| state(words.split(' ').map(OsString::from).collect());
        assert_eq!(line("borgcube -- borgcube --state /srv/x run"), Some("/srv/x".into()));
        assert_eq!(line("borgcube -- borgcube run --state=/srv/y"), Some("/srv/y".into()));
        if std::env::var_os(ENV_STATE).is_none() {
            assert_eq!(line("borgcube --state /not/this -- borgcube run"), None);
        }
    }
}
