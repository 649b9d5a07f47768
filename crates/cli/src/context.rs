//! What every command has at hand.

use crate::args::Global;
use crate::control::Control;
use crate::error::{Error, Kind, Result};
use crate::output::{self, Table};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use unix::paths::Layout;

/// Layout, connection and output of one command.
#[derive(Debug)]
pub struct Context {
    /// Where everything lies.
    pub layout: Layout,
    /// The state directory, absolute, if the embedded default is meant; None: an installed server.
    pub state: Option<PathBuf>,
    /// Print records as JSON.
    pub json: bool,
    /// Print nothing that was not asked for.
    pub quiet: bool,
}

impl Context {
    /// From the global options.
    pub fn new(global: &Global) -> Result<Context> {
        let state = match &global.state {
            Some(state) => Some(absolute(state)?),
            None => None,
        };
        let layout = state.as_deref().map_or_else(Layout::system, Layout::new);
        Ok(Context { layout, state, json: global.json, quiet: global.quiet })
    }

    /// A connection to `borgcubed`.
    pub fn control(&self) -> Result<Control> {
        Control::connect(&self.layout.control_socket()).map_err(|error| self.unreachable(error))
    }

    /// What to do when `borgcubed` does not answer depends on how this server is run.
    fn unreachable(&self, error: Error) -> Error {
        match (error.kind(), &self.state) {
            (Kind::Unreachable, Some(state)) => Error::new(Kind::Unreachable, format!("borgcube up is not running in {}", state.display()))
                .hint(format!("Start it with: borgcube up --state {}", shell_word(state))),
            (Kind::Unreachable, None) => error
                .hint("Start it with: systemctl start borgcubed")
                .hint("A server that was started by borgcube up is reached with --state DIR or BORGCUBE_STATE."),
            (Kind::Permission, _) => error.hint("Members of the group borgcube, root and the user who runs BorgCube may use it."),
            _ => error,
        }
    }

    /// Records: a table for people, an array of the records as JSON.
    pub fn list<T: Serialize>(&self, records: &[T], table: Table) -> Result<()> {
        if self.json {
            return self.print_json(&records);
        }
        if records.is_empty() && io::stdout().is_terminal() {
            return self.say("There are none.");
        }
        let width = io::stdout().is_terminal().then_some(());
        write_out(&table.render(width.is_some()))
    }

    /// One record: lines for people, one object as JSON.
    pub fn show<T: Serialize>(&self, record: &T, text: &str) -> Result<()> {
        if self.json { self.print_json(record) } else { write_out(text) }
    }

    /// What a command has done: the record as JSON, one sentence for people unless they want quiet.
    pub fn done<T: Serialize>(&self, record: &T, sentence: &str) -> Result<()> {
        if self.json { self.print_json(record) } else { self.say(sentence) }
    }

    /// A sentence that nobody asked for.
    pub fn say(&self, sentence: &str) -> Result<()> {
        if self.quiet || self.json { Ok(()) } else { write_out(&format!("{sentence}\n")) }
    }

    /// A remark beside the output.
    pub fn note(&self, sentence: &str) {
        if !self.quiet && !self.json {
            // Remarks may get lost.
            let _ = writeln!(io::stderr(), "{sentence}");
        }
    }

    /// Any value as JSON.
    pub fn print_json<T: Serialize + ?Sized>(&self, value: &T) -> Result<()> {
        write_out(&output::json(value)?)
    }
}

/// Prints `coloured` on a terminal that wants colours, otherwise `plain`.
pub fn print(coloured: &str, plain: &str) -> Result<()> {
    let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    write_out(if colours { coloured } else { plain })
}

/// Writes to standard output. That nobody reads it any more is no failure, but the end.
pub fn write_out(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| match e.kind() {
        io::ErrorKind::BrokenPipe => Error::new(Kind::BrokenPipe, "nobody reads the output"),
        _ => Error::failed(format!("cannot write to standard output: {e}")),
    })
}

/// The path as other processes understand it, whatever their working directory. Symbolic links stay.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| Error::usage(format!("{} is not usable: {e}", path.display())))
}

/// A path as a person would type it into a shell.
pub fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_./-+:@,=".contains(c));
    if plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_words() {
        assert_eq!(shell_word(Path::new("/srv/x-1")), "/srv/x-1");
        assert_eq!(shell_word(Path::new("/my dir")), "'/my dir'");
        assert_eq!(shell_word(Path::new("/it's")), r"'/it'\''s'");
    }
}
