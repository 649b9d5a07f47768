//! Who holds a repository's lock: the file `lock.roster` and the names in `lock.exclusive` (Borg 1.x: fact 9.7).

use serde_json::{Map, Value, json};

/// One process that holds a lock or wants it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder {
    /// Borg's identity of the host.
    pub host: String,
    /// Process.
    pub pid: u32,
    /// Thread; 0 since there is Borg 1.
    pub thread: u64,
}

impl Holder {
    /// The name of its file in `lock.exclusive`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}-{:x}", self.host, self.pid, self.thread)
    }

    /// Reads such a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Holder> {
        let (rest, thread) = name.rsplit_once('-')?;
        let (host, pid) = rest.rsplit_once('.')?;
        Some(Holder { host: host.to_owned(), pid: pid.parse().ok()?, thread: u64::from_str_radix(thread, 16).ok()? })
    }

    fn from_json(value: &Value) -> Option<Holder> {
        let [host, pid, thread] = value.as_array()?.as_slice() else { return None };
        let pid = pid.as_u64().and_then(|pid| u32::try_from(pid).ok())?;
        Some(Holder { host: host.as_str()?.to_owned(), pid, thread: thread.as_u64()? })
    }
}

/// The file `lock.roster`. What is not understood counts as empty, as in Borg 1.x.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    /// Readers.
    pub shared: Vec<Holder>,
    /// The writer.
    pub exclusive: Vec<Holder>,
}

impl Roster {
    /// Reads the file.
    #[must_use]
    pub fn parse(text: &[u8]) -> Roster {
        let value: Value = serde_json::from_slice(text).unwrap_or_default();
        let holders = |name: &str| -> Vec<Holder> {
            value.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Holder::from_json).collect()
        };
        Roster { shared: holders("shared"), exclusive: holders("exclusive") }
    }

    /// The file.
    #[must_use]
    pub fn text(&self) -> String {
        let list = |holders: &[Holder]| holders.iter().map(|h| json!([h.host, h.pid, h.thread])).collect::<Vec<_>>();
        let mut map = Map::new();
        map.insert("shared".into(), list(&self.shared).into());
        map.insert("exclusive".into(), list(&self.exclusive).into());
        Value::Object(map).to_string()
    }

    /// Whether nobody is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shared.is_empty() && self.exclusive.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rosters_and_names_of_borg() {
        let holder = Holder { host: "vm.example-1.org@3281355014145".into(), pid: 17553, thread: 0 };
        assert_eq!(holder.name(), "vm.example-1.org@3281355014145.17553-0");
        assert_eq!(Holder::from_name(&holder.name()).as_ref(), Some(&holder));
        assert_eq!(Holder::from_name("x"), None);
        let roster = Roster::parse(br#"{"exclusive": [["vm.example-1.org@3281355014145", 17553, 0]], "shared": []}"#);
        assert_eq!(roster, Roster { shared: vec![], exclusive: vec![holder] });
        assert_eq!(Roster::parse(roster.text().as_bytes()), roster);
        assert!(Roster::parse(b"").is_empty() && Roster::parse(b"[1]").is_empty());
    }
}
