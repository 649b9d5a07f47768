//! Which items of an archive are meant.

use crate::error::Result;
use crate::pattern::{Pattern, Style};

/// Paths and patterns to take, others to leave out, and leading directories to forget. As in Borg, what is left out is left out of what is taken.
#[derive(Debug, Default)]
pub struct Selection {
    take: Vec<(Pattern, bool)>,
    leave: Vec<Pattern>,
    strip: usize,
}

impl Selection {
    /// `take` are paths, or patterns with their style (none: everything); `leave` are patterns, `fm:` if they have no style.
    pub fn new<T: AsRef<[u8]>, L: AsRef<[u8]>>(take: &[T], leave: &[L], strip: usize) -> Result<Selection> {
        let take = take.iter().map(|typed| Ok((Pattern::parse(typed.as_ref(), Style::Prefix)?, false)));
        let leave = leave.iter().map(|typed| Pattern::parse(typed.as_ref(), Style::Fnmatch));
        Ok(Selection { take: take.collect::<Result<_>>()?, leave: leave.collect::<Result<_>>()?, strip })
    }

    /// Whether it is everything, under its own name.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.take.is_empty() && self.leave.is_empty() && self.strip == 0
    }

    /// The path that an item gets, if it is meant.
    pub fn choose(&mut self, path: &[u8]) -> Option<Vec<u8>> {
        if self.leave.iter().any(|pattern| pattern.matches(path)) {
            return None;
        }
        let taken = self.take.iter_mut().find(|(pattern, _)| pattern.matches(path));
        let is_meant = taken.map(|(_, is_found)| *is_found = true).is_some() || self.take.is_empty();
        is_meant.then(|| self.stripped(path)).filter(|path| !path.is_empty())
    }

    /// Without leading directories.
    #[must_use]
    pub fn stripped(&self, path: &[u8]) -> Vec<u8> {
        path.split(|b| *b == b'/').skip(self.strip).collect::<Vec<_>>().join(&b'/')
    }

    /// What was asked for and is not in the archive.
    pub fn unmatched(&self) -> impl Iterator<Item = &str> {
        self.take.iter().filter(|(_, is_found)| !is_found).map(|(pattern, _)| pattern.text.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(selection: &mut Selection, path: &str) -> Option<String> {
        selection.choose(path.as_bytes()).map(|path| String::from_utf8(path).unwrap())
    }

    #[test]
    fn paths_patterns_and_stripping() {
        let mut all = Selection::default();
        assert!(all.is_everything());
        assert_eq!(chosen(&mut all, "a/b").as_deref(), Some("a/b"));
        let mut some = Selection::new(&["home/u", "etc", "nowhere"], &[] as &[&str], 1).unwrap();
        assert!(!some.is_everything());
        assert_eq!(chosen(&mut some, "home/u/x").as_deref(), Some("u/x"));
        assert_eq!(chosen(&mut some, "var/x"), None);
        assert_eq!(chosen(&mut some, "etc"), None, "nothing is left of it");
        assert_eq!(some.unmatched().collect::<Vec<_>>(), ["nowhere"]);
        let mut both = Selection::new(&["d"], &["*.o"], 0).unwrap();
        assert_eq!(chosen(&mut both, "d/a.o"), None);
        let mut not = Selection::new(&[] as &[&str], &["*.o"], 0).unwrap();
        assert_eq!(chosen(&mut not, "d/a.o"), None);
        assert_eq!(chosen(&mut not, "d/a.c").as_deref(), Some("d/a.c"));
    }
}
