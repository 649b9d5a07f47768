//! Archives of other origin: which of them are imported, and to whom they are attributed.
//!
//! Everything that is known of them beforehand was written by somebody else, who had the repository's key: it is quoted, and a person
//! decides what to make of it.

use crate::names::{ClientName, ConfigName, Label};
use crate::schedule::whole_name;
use serde::{Deserialize, Serialize};

/// Names of one import.
pub const MAX_NAMES: usize = 1000;

/// What the server writes as the user of its own archives.
pub const OWN_USER: &str = "borgcube";

/// The label of archives that got none.
pub const DEFAULT_LABEL: &str = "imported";

/// What a job imports, and whose it is from then on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Import {
    /// Which archives.
    pub which: Which,
    /// Whose they are.
    pub attribution: Attribution,
}

/// Which archives, of those that are in the manifest and have no record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Which {
    /// All but checkpoints.
    All,
    /// Those whose whole name matches this regular expression, but for checkpoints.
    Match(String),
    /// Those with these names, checkpoints or not.
    Names(Vec<String>),
}

/// Whose archives they are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attribution {
    /// All of them are this config's; there need not be such a config, but such a client.
    Config(ConfigName),
    /// An earlier BorgCube made them: name and metadata tell the config. Others are left alone.
    ByName,
}

/// An archive in the manifest that has no record. Texts are escaped for printing, and cut where they are long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Foreign {
    /// Its name; as it is, with marks in place of what is no UTF-8.
    pub name: String,
    /// Borg's id of it, 64 hex digits.
    pub id: String,
    /// When its metadata say that it was made.
    #[serde(default)]
    pub time: String,
    /// The host that its metadata say it was made on.
    #[serde(default)]
    pub hostname: String,
    /// The user that its metadata name.
    #[serde(default)]
    pub username: String,
    /// The comment in its metadata.
    #[serde(default)]
    pub comment: String,
    /// Its metadata bear the signature of the repository's key. Archives of older borgs may have none.
    #[serde(default)]
    pub signed: bool,
    /// Why its metadata cannot be used, if they cannot.
    #[serde(default)]
    pub damage: Option<String>,
}

/// What becomes of one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// It is imported, as this config's.
    Import(ConfigName),
    /// It was asked for, and is not imported: why.
    Skip(String),
}

/// Archives, each with what becomes of it.
pub type Chosen = Vec<(Foreign, Choice)>;

impl Import {
    /// Says what is wrong with it before a job is made of it.
    pub fn check(&self) -> Result<(), String> {
        match &self.which {
            Which::All => Ok(()),
            Which::Match(regex) => whole_name("archive", regex).map(drop),
            Which::Names(names) if names.is_empty() => Err("name at least one archive".into()),
            Which::Names(names) if names.len() > MAX_NAMES => {
                Err(format!("{} archives are too many names for one import, at most {MAX_NAMES}: use a regular expression", names.len()))
            }
            Which::Names(_) => Ok(()),
        }
    }

    /// Those that were asked for, each with what becomes of it, the oldest first; and names that were asked for and are not among them.
    pub fn choose(&self, foreign: Vec<Foreign>) -> Result<(Chosen, Vec<String>), String> {
        let regex = match &self.which {
            Which::Match(regex) => Some(whole_name("archive", regex)?),
            Which::All | Which::Names(_) => None,
        };
        let mut missing = vec![];
        if let Which::Names(names) = &self.which {
            missing.extend(names.iter().filter(|name| foreign.iter().all(|archive| archive.name != **name)).cloned());
        }
        let wanted = |archive: &Foreign| match (&self.which, &regex) {
            (Which::Names(names), _) => names.contains(&archive.name),
            (_, Some(regex)) => regex.is_match(&archive.name),
            _ => true,
        };
        let mut chosen: Chosen = foreign.into_iter().filter(wanted).map(|archive| self.decide(archive)).collect();
        // Borg 1.x: times of one form, of which the order is that of the texts.
        chosen.sort_by(|(a, _), (b, _)| (&a.time, &a.name).cmp(&(&b.time, &b.name)));
        Ok((chosen, missing))
    }

    /// Whether it is a regular expression that matches a part of some names and none as a whole.
    #[must_use]
    pub fn matches_part_of(&self, foreign: &[Foreign]) -> bool {
        let Which::Match(regex) = &self.which else { return false };
        let matches =
            |regex: &str| whole_name("archive", regex).is_ok_and(|regex| foreign.iter().any(|archive| regex.is_match(&archive.name)));
        !matches(regex) && matches(&format!(".*(?:{regex}).*"))
    }

    fn decide(&self, archive: Foreign) -> (Foreign, Choice) {
        let choice = if is_checkpoint(&archive.name) && !matches!(self.which, Which::Names(_)) {
            Choice::Skip("it is a checkpoint of a backup that broke off; name it to import it all the same".into())
        } else {
            match &self.attribution {
                Attribution::Config(config) => Choice::Import(config.clone()),
                Attribution::ByName => match attributed(&archive) {
                    Some(config) => Choice::Import(config),
                    None => Choice::Skip("it does not look as if a BorgCube had made it; import it with --client and --label".into()),
                },
            }
        };
        (archive, choice)
    }
}

/// Whether Borg calls its checkpoints like that: `NAME.checkpoint`, or with a number behind.
#[must_use]
pub fn is_checkpoint(name: &str) -> bool {
    match name.rsplit_once(".checkpoint") {
        Some((_, "")) => true,
        Some((_, rest)) => rest.strip_prefix('.').is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())),
        None => false,
    }
}

/// The config of an archive that an earlier BorgCube made: `CLIENT-LABEL-TIME-JOB`, with the client as its host. The host tells where the
/// client's name ends, and the form of the time where the label does.
#[must_use]
pub fn attributed(archive: &Foreign) -> Option<ConfigName> {
    if archive.username != OWN_USER || archive.damage.is_some() {
        return None;
    }
    let client: ClientName = archive.hostname.parse().ok()?;
    let name = archive.name.strip_suffix(".checkpoint").unwrap_or(&archive.name);
    let rest = name.strip_prefix(client.as_str())?.strip_prefix('-')?;
    let (rest, number) = rest.rsplit_once('-')?;
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let at = rest.len().checked_sub(TIME.len())?;
    let (label, time) = (rest.get(..at)?, rest.get(at..)?);
    let fits = time.bytes().zip(TIME.bytes()).all(|(b, form)| if form == b'0' { b.is_ascii_digit() } else { b == form });
    let label: Label = label.strip_suffix('-')?.parse().ok()?;
    fits.then_some(ConfigName { client, label })
}

/// The form of [`crate::Timestamp::to_name`].
const TIME: &str = "0000-00-00T00:00:00";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Timestamp, Work};

    fn foreign(name: &str, hostname: &str, username: &str) -> Foreign {
        Foreign {
            name: name.into(),
            id: "ab".repeat(32),
            time: "2026-01-02T03:04:05.000000".into(),
            hostname: hostname.into(),
            username: username.into(),
            comment: String::new(),
            signed: true,
            damage: None,
        }
    }

    #[test]
    fn what_a_borgcube_made_says_whose_it_is() {
        for config in ["web1/etc", "web-1/etc-2026", "a/b", "web1.example.net/my_label"] {
            let config: ConfigName = config.parse().unwrap();
            let job = crate::Job::new(17, Work::backup(&config), "main".parse().unwrap(), "root", Timestamp(0));
            let name = job.default_archive_name(Timestamp(1_700_000_000_000_000)).unwrap();
            assert_eq!(attributed(&foreign(&name, config.client.as_str(), OWN_USER)), Some(config.clone()), "{name}");
            assert_eq!(attributed(&foreign(&name, config.client.as_str(), "root")), None, "another user");
            assert_eq!(attributed(&foreign(&name, "other", OWN_USER)), None, "another host");
            let damaged = Foreign { damage: Some("x".into()), ..foreign(&name, config.client.as_str(), OWN_USER) };
            assert_eq!(attributed(&damaged), None);
        }
        for name in [
            "web1-etc",
            "web1-etc-2026-01-02T03:04:05",
            "web1-etc-2026-01-02T03:04:05-",
            "web1--2026-01-02T03:04:05-1",
            "web1-2026-01-02T03:04:05-1",
            "web1-e/c-2026-01-02T03:04:05-1",
            "web1-etc-2026-01-02 03:04:05-1",
            "web1-é-2026-01-02T03:04:05-1",
        ] {
            assert_eq!(attributed(&foreign(name, "web1", OWN_USER)), None, "{name}");
        }
    }

    #[test]
    fn checkpoints_are_told_by_their_names() {
        for name in ["a.checkpoint", "a.checkpoint.1", ".checkpoint", "a.checkpoint.b.checkpoint.12"] {
            assert!(is_checkpoint(name), "{name}");
        }
        for name in ["a", "a.checkpoints", "a.checkpoint.", "a.checkpoint.x", "checkpoint", "a.checkpoint.1x"] {
            assert!(!is_checkpoint(name), "{name}");
        }
    }

    #[test]
    fn what_is_asked_for_is_chosen_the_oldest_first() {
        let config: ConfigName = "web1/old".parse().unwrap();
        let all = || {
            let mut old = foreign("host-a", "host", "root");
            old.time = "2025-01-02T03:04:05.000000".into();
            vec![foreign("host-b", "host", "root"), old, foreign("host-b.checkpoint", "host", "root")]
        };
        let names = |which: Which| {
            let import = Import { which, attribution: Attribution::Config(config.clone()) };
            import.check().unwrap();
            let (chosen, missing) = import.choose(all()).unwrap();
            let shown = chosen.into_iter().map(|(archive, choice)| match choice {
                Choice::Import(to) => {
                    assert_eq!(to, config);
                    archive.name
                }
                Choice::Skip(_) => format!("({})", archive.name),
            });
            shown.chain(missing.into_iter().map(|name| format!("?{name}"))).collect::<Vec<_>>()
        };
        assert_eq!(names(Which::All), ["host-a", "host-b", "(host-b.checkpoint)"]);
        assert_eq!(names(Which::Match("host-.".into())), ["host-a", "host-b"]);
        assert_eq!(names(Which::Match("host".into())), Vec::<String>::new(), "the whole name");
        assert_eq!(names(Which::Names(vec!["host-b.checkpoint".into(), "c".into()])), ["host-b.checkpoint", "?c"]);
        let by_name = Import { which: Which::All, attribution: Attribution::ByName };
        assert!(by_name.choose(all()).unwrap().0.iter().all(|(_, choice)| matches!(choice, Choice::Skip(_))));
        let part = |regex: &str| Import { which: Which::Match(regex.into()), ..by_name.clone() }.matches_part_of(&all());
        assert!(part("host") && part("-b") && !part("host-.") && !part("web") && !by_name.matches_part_of(&all()));
        for bad in [Which::Match("a)|(b".into()), Which::Names(vec![]), Which::Names(vec![String::new(); MAX_NAMES + 1])] {
            assert!(Import { which: bad, attribution: Attribution::ByName }.check().is_err());
        }
    }
}
