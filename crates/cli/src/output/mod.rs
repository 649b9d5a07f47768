//! Records as people and programs see them. Everything here is a pure function from values to text.

pub mod calendar;
pub mod cards;
pub mod changes;
pub mod checks;
pub mod details;
pub mod lists;
pub mod live;
pub mod plans;
pub mod policies;
pub mod size;
pub mod tables;
pub mod works;

pub use details::Details;
pub use size::{bytes, count, duration, exactly};
pub use tables::Table;

use crate::error::{Error, Result};
use serde::Serialize;

/// Text fit for a terminal, whoever wrote it. Records hold what came from clients already escaped; escaping that once more would double its
/// backslashes, so they stay, and everything that could move a cursor becomes visible.
pub fn shown(text: &str) -> String {
    text.split('\\').map(unix::logging::escape).collect::<Vec<_>>().join("\\")
}

/// JSON for programs: indented, keys in the order of the records, a line break at the end.
pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    let mut text = serde_json::to_string_pretty(value).map_err(|e| Error::failed(format!("cannot print JSON: {e}")))?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves_the_cursor_and_escapes_stay_readable() {
        assert_eq!(shown("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb\\nc");
        assert_eq!(shown("already \\u{1b} escaped \\\\"), "already \\u{1b} escaped \\\\");
    }
}
