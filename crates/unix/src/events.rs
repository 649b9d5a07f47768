//! What happens, as the journal knows it: a `MESSAGE_ID` for each kind of event.
//!
//! A log call names its event by word, `log::info!(event = "job-done", job = 7; "...")`; the catalogue
//! (`systemd/catalog/borgcube.catalog`, for `journalctl -x`) has a text for each id, which a test compares with this table.

/// A kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// What log calls say.
    pub word: &'static str,
    /// The `MESSAGE_ID`: random once, the same for ever.
    pub id: &'static str,
}

const fn event(word: &'static str, id: &'static str) -> Event {
    Event { word, id }
}

/// All of them. An id never changes and is never used again.
pub const EVENTS: &[Event] = &[
    event("daemon-ready", "80219a04d6ecf028235fa428369b7cb9"),
    event("daemon-stopped", "f63f5c573c71bb2436df0678634e98e2"),
    event("job-started", "5b9b12e10d78408aeff9adf0c4c47200"),
    event("job-done", "9dccf70e80565dec11088dbcf5bf559d"),
    event("job-failed", "c88a7cbfb632f13b098422e5dbf2b1a2"),
    event("job-cancelled", "05a13964e7fca2117d74582ab171a6ba"),
    event("job-retried", "1fc39741df4d9c99f6599182434d9789"),
    event("job-line", "204352cf251878fec3dddab5de3940af"),
    event("session-opened", "7060c47b798cb3fdc306e6e15f3cfa9a"),
    event("session-refused", "0d65c4d3d3b9633e5d6fac3d29434a53"),
    event("policy-violation", "198490c1e19174f18657871609f455a6"),
    event("database-trouble", "c4b00e6f56b44da7b48860c449cd819d"),
    event("worker-misbehaves", "573cd367b483661be5fd4b36ffe45174"),
    event("connection-refused", "51a28abaaf0ac6316336473f945f9659"),
    event("schedule-run", "62f87d51dc55b7eb04fa4b5b90772332"),
    event("schedule-skip", "2d17793c6f0888503a5b181f1feb3c67"),
    event("undone", "719a2fb44ff6e87e934defb9fb5427dc"),
];

/// The id of an event, by its word.
#[must_use]
pub fn id(word: &str) -> Option<&'static str> {
    EVENTS.iter().find(|event| event.word == word).map(|event| event.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const CATALOGUE: &str = include_str!("../../../systemd/catalog/borgcube.catalog");

    /// Entries as systemd reads them: `-- ID`, headers, an empty line, text.
    fn entries() -> BTreeMap<&'static str, (Vec<&'static str>, String)> {
        let mut entries = BTreeMap::new();
        let lines = CATALOGUE.lines().filter(|line| !line.starts_with('#'));
        let text = lines.collect::<Vec<_>>().join("\n");
        let text: &'static str = text.leak();
        for entry in text.split("-- ").skip(1) {
            let (id, rest) = entry.split_once('\n').unwrap();
            let (headers, body) = rest.split_once("\n\n").unwrap();
            assert!(entries.insert(id, (headers.lines().collect(), body.trim().to_owned())).is_none(), "{id} has two entries");
        }
        entries
    }

    #[test]
    fn ids_are_ids_and_unique() {
        for (at, event) in EVENTS.iter().enumerate() {
            assert!(event.id.len() == 32 && event.id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{event:?}");
            assert!(EVENTS[..at].iter().all(|other| other.id != event.id && other.word != event.word), "{event:?}");
        }
        assert_eq!(id("job-done"), EVENTS.iter().find(|e| e.word == "job-done").map(|e| e.id));
        assert_eq!(id("nonsense"), None);
    }

    #[test]
    fn every_event_has_its_text_and_every_text_its_event() {
        let entries = entries();
        for event in EVENTS {
            let Some((headers, body)) = entries.get(event.id) else { panic!("the catalogue has no entry for {event:?}") };
            for header in ["Subject: ", "Defined-By: BorgCube", "Documentation: "] {
                assert!(headers.iter().any(|line| line.starts_with(header)), "{event:?} has no {header}");
            }
            assert!(body.len() > 40, "{event:?} says nothing");
        }
        assert_eq!(entries.len(), EVENTS.len(), "the catalogue has entries of no event");
    }

    /// systemd itself reads it and finds each text again.
    #[test]
    fn journalctl_takes_the_catalogue() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("usr/lib/systemd/catalog");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::create_dir_all(root.path().join("var/lib/systemd/catalog")).unwrap();
        std::fs::write(directory.join("borgcube.catalog"), CATALOGUE).unwrap();
        let run = |arguments: &[&str]| {
            let output = std::process::Command::new("journalctl").arg(format!("--root={}", root.path().display())).args(arguments).output();
            match output {
                Ok(output) => {
                    Some((output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()))
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
                Err(e) => panic!("{e}"),
            }
        };
        let Some((good, said)) = run(&["--update-catalog"]) else {
            println!("NOT RUN: journalctl is not installed");
            return;
        };
        assert!(good && said.is_empty(), "{said}");
        let (_, list) = run(&["--list-catalog"]).unwrap();
        for event in EVENTS {
            assert!(list.contains(event.id), "{event:?} is missing in {list}");
        }
    }

    /// A word that no event has would be lost without a sound.
    #[test]
    fn every_word_in_the_sources_is_an_event() {
        let crates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let (mut stack, mut seen) = (vec![crates.to_owned()], std::collections::BTreeSet::new());
        let mark = ["event", " = \""].concat();
        while let Some(directory) = stack.pop() {
            for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
                let path = entry.path();
                if path.is_dir() {
                    stack.push(path);
                } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("unix/src/events.rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    for call in text.split("log::").skip(1) {
                        let end = call.find(';').unwrap_or(call.len());
                        if let Some((_, rest)) = call[..end].split_once(&mark) {
                            let word = rest.split('"').next().unwrap();
                            assert!(id(word).is_some(), "{} logs the event {word:?}, which is not in the table", path.display());
                            seen.insert(word.to_owned());
                        }
                    }
                }
            }
        }
        let unused: Vec<_> = EVENTS.iter().filter(|event| !seen.contains(event.word)).collect();
        assert!(unused.is_empty(), "no log call names {unused:?}");
    }
}
