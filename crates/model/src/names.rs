//! Names that people give. Constructing one *is* the validation.
//!
//! They become file names, unit instances, SSH arguments and parts of archive names, so the alphabet is small:
//! letters, digits, `.`, `_`, `-`, at most 64 bytes, beginning with a letter or a digit (never `-`: an option; never `.`: a path).

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {name:?} is not usable: {reason}")]
pub struct NameError {
    what: &'static str,
    name: String,
    reason: &'static str,
}

fn check(what: &'static str, name: &str) -> Result<(), NameError> {
    let refuse = |reason| Err(NameError { what, name: name.chars().take(80).collect(), reason });
    if name.is_empty() {
        return refuse("it is empty");
    }
    if name.len() > 64 {
        return refuse("it is longer than 64 characters");
    }
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return refuse("it must begin with a letter or a digit");
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')) {
        return refuse("only letters, digits, '.', '_' and '-' are allowed");
    }
    Ok(())
}

// One definition of what a name type is; several types, so that a client can't be passed where a repository is meant.
macro_rules! name_type {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $type {
            type Err = NameError;
            fn from_str(s: &str) -> Result<Self, NameError> {
                check($what, s)?;
                Ok(Self(s.to_owned()))
            }
        }
        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(s: String) -> Result<Self, NameError> {
                check($what, &s)?;
                Ok(Self(s))
            }
        }
        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name_type!(
    /// A repository's name on this server.
    RepositoryName, "repository name"
);
name_type!(
    /// A client: a host that is backed up. Usually its host name.
    ClientName, "client name"
);
name_type!(
    /// The label of a backup config, unique within its client.
    Label, "label"
);

name_type!(
    /// A schedule's name; the instance of its timer unit, `borgcube-schedule@NAME.timer`.
    ScheduleName, "schedule name"
);

name_type!(
    /// A retention policy's name.
    PolicyName, "policy name"
);

name_type!(
    /// A check config's name.
    CheckName, "check config name"
);

name_type!(
    /// A hook's name, unique within its backup config.
    HookName, "hook name"
);
name_type!(
    /// A dump's name, unique within its backup config: the name of a file.
    DumpName, "dump name"
);

/// A backup config's full name, `CLIENT/LABEL`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ConfigName {
    /// The client that is backed up.
    pub client: ClientName,
    /// The config's label.
    pub label: Label,
}

impl FromStr for ConfigName {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        let Some((client, label)) = s.split_once('/') else {
            return Err(NameError { what: "config name", name: s.chars().take(80).collect(), reason: "it has the form CLIENT/LABEL" });
        };
        Ok(ConfigName { client: client.parse()?, label: label.parse()? })
    }
}
impl TryFrom<String> for ConfigName {
    type Error = NameError;
    fn try_from(s: String) -> Result<Self, NameError> {
        s.parse()
    }
}
impl From<ConfigName> for String {
    fn from(name: ConfigName) -> String {
        name.to_string()
    }
}
impl fmt::Display for ConfigName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.client, self.label))
    }
}

/// Checks a name that a person wants for an archive.
///
/// Borg 1.x: at most 255 bytes and no `/`; ours besides: printable ASCII without spaces, no `::` (it ends a repository URL), no `{`
/// (a placeholder to Borg) and no `.checkpoint` (that suffix belongs to Borg).
pub fn check_archive_name(name: &str) -> Result<(), NameError> {
    let refuse = |reason| Err(NameError { what: "archive name", name: name.chars().take(80).collect(), reason });
    if name.is_empty() || name.len() > 200 {
        return refuse("it must have 1 to 200 characters");
    }
    if name.starts_with('-') {
        return refuse("it must not begin with '-'");
    }
    if !name.chars().all(|c| c.is_ascii_graphic()) || name.contains(['/', '{', '}']) || name.contains("::") {
        return refuse("only printable ASCII without spaces, '/', '{', '}' and '::' is allowed");
    }
    if name.contains(".checkpoint") {
        return refuse("'.checkpoint' belongs to Borg's own interrupted archives");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_hurt_are_refused() {
        for bad in ["", "-o", ".hidden", "a/b", "a b", "a\nb", "ä", "a\u{0}", &"x".repeat(65), "..", "$(x)"] {
            assert!(bad.parse::<ClientName>().is_err(), "{bad:?}");
            assert!(serde_json::from_value::<ClientName>(serde_json::Value::String(bad.into())).is_err(), "{bad:?} by serde");
        }
        for good in ["web1", "Web-1.example.net", "0", "a_b"] {
            assert_eq!(good.parse::<ClientName>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn config_names_have_two_parts() {
        let name: ConfigName = "web1/etc".parse().unwrap();
        assert_eq!(name.to_string(), "web1/etc");
        assert!("web1".parse::<ConfigName>().is_err());
        assert!("web1/".parse::<ConfigName>().is_err());
        assert!("web1/a/b".parse::<ConfigName>().is_err());
    }

    #[test]
    fn archive_names_follow_borg_and_a_little_more() {
        assert!(check_archive_name("web1-etc-2026-11-21T23:59:59").is_ok());
        for bad in ["", "a/b", "a::b", "{now}", "-x", "x.checkpoint", "x.checkpoint.1", "a b", "a\nb"] {
            assert!(check_archive_name(bad).is_err(), "{bad:?}");
        }
    }
}
