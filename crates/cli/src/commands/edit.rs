//! What all edits of records have in common.

use crate::error::{Error, Result};

/// Sets a field that was given; text that is empty clears it.
pub fn set(field: &mut Option<String>, given: Option<String>) {
    if let Some(value) = given {
        *field = Some(value).filter(|v| !v.is_empty());
    }
}

/// Sets a field that was given.
pub fn put<T>(field: &mut T, given: Option<T>) {
    if let Some(value) = given {
        *field = value;
    }
}

/// Replaces a list by what was given, if anything was.
pub fn replace(list: &mut Vec<String>, given: Vec<String>) {
    if !given.is_empty() {
        *list = given;
    }
}

/// An edit that changes nothing is most likely a mistake.
pub fn something<T: PartialEq>(previous: &T, edited: &T, command: &str) -> Result<()> {
    if previous != edited {
        return Ok(());
    }
    Err(Error::usage("nothing to change: everything is as it was asked for")
        .hint(format!("borgcube {command} --help lists what can be changed.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_set_cleared_and_left_alone() {
        let mut field = Some("old".to_owned());
        set(&mut field, None);
        assert_eq!(field.as_deref(), Some("old"));
        set(&mut field, Some("new".into()));
        assert_eq!(field.as_deref(), Some("new"));
        set(&mut field, Some(String::new()));
        assert_eq!(field, None);
        let mut list = vec!["a".to_owned()];
        replace(&mut list, vec![]);
        assert_eq!(list, ["a"]);
        replace(&mut list, vec!["b".into()]);
        assert_eq!(list, ["b"]);
    }
}
