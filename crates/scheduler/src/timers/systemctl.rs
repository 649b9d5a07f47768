//! Talking to systemd: its own program, with arguments that begin with a fixed word and end with units that we named ourselves.

use super::dropin::unit;
use anyhow::{Context, bail};
use model::ScheduleName;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Units in one call: far below what a command line may hold.
const AT_ONCE: usize = 500;

pub struct Systemctl {
    program: PathBuf,
}

impl Systemctl {
    pub fn new(program: &Path) -> Systemctl {
        Systemctl { program: program.to_owned() }
    }

    /// Reads all units anew.
    pub fn reload(&self) -> anyhow::Result<()> {
        self.call(&["daemon-reload"], &[]).map(drop)
    }

    pub fn stop(&self, names: &[ScheduleName]) -> anyhow::Result<()> {
        names.chunks(AT_ONCE).try_for_each(|names| self.call(&["stop", "--"], names).map(drop))
    }

    pub fn restart(&self, names: &[ScheduleName]) -> anyhow::Result<()> {
        names.chunks(AT_ONCE).try_for_each(|names| self.call(&["restart", "--"], names).map(drop))
    }

    /// The timers of `names` that do not wait for anything.
    pub fn states<'a>(&self, names: impl Iterator<Item = &'a ScheduleName>) -> anyhow::Result<BTreeSet<ScheduleName>> {
        let names: Vec<ScheduleName> = names.cloned().collect();
        let mut idle = BTreeSet::new();
        for names in names.chunks(AT_ONCE) {
            let output = self.call(&["show", "--property=Id,SubState", "--"], names)?;
            let waiting = waiting(&String::from_utf8_lossy(&output.stdout));
            idle.extend(names.iter().filter(|name| !waiting.contains(&unit(name))).cloned());
        }
        Ok(idle)
    }

    fn call(&self, arguments: &[&str], names: &[ScheduleName]) -> anyhow::Result<Output> {
        let mut command = Command::new(&self.program);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").stdin(Stdio::null());
        command.args(arguments).args(names.iter().map(unit));
        let output = command.output().with_context(|| format!("cannot run {}", self.program.display()))?;
        if !output.status.success() {
            let what = arguments.first().copied().unwrap_or_default();
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("systemctl {what}: {}: {}", output.status, unix::logging::escape(said.trim()));
        }
        Ok(output)
    }
}

/// The units that wait for their next moment or run just now, from the blocks of `systemctl show`.
fn waiting(shown: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for block in shown.split("\n\n") {
        let field = |key: &str| block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        if let (Some(id), Some("waiting" | "running")) = (field("Id"), field("SubState")) {
            found.insert(id.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_show_are_read() {
        let shown = "Id=borgcube-schedule@a.timer\nSubState=waiting\n\nSubState=elapsed\nId=borgcube-schedule@b.timer\n\n\
                     Id=borgcube-schedule@c.timer\nSubState=dead\n\nId=borgcube-schedule@d.timer\nSubState=running\n";
        let waiting = waiting(shown);
        assert_eq!(waiting, ["a", "d"].map(|name| format!("borgcube-schedule@{name}.timer")).into());
    }
}
