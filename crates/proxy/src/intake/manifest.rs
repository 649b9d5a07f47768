//! A manifest that a client puts: nothing but the request to add one archive.

use crate::rules::Rule;
use crate::stop::{Stop, quoted};
use borg::manifest::Manifest;
use borg::{Id, Key};

/// What a client's manifest asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The new archive's metadata object, under the client's id.
    pub archive: Id,
    /// The name the client gives it.
    pub name: Vec<u8>,
    /// A checkpoint, or the complete archive.
    pub checkpoint: bool,
}

/// Reads what a manifest asks for that the client has written over `current`, the manifest it was shown last.
///
/// Entries that are missing mean nothing: the server's manifest is its own.
pub fn request(plaintext: &[u8], current: &Manifest, archive_name: &[u8], key: &Key) -> Result<(Request, Manifest), Stop> {
    let manifest = Manifest::parse(plaintext, key).map_err(|error| Rule::Manifest.broken(error.to_string()))?;
    if manifest.version != 1 {
        Rule::Manifest.breach(format!("version {}", manifest.version))?;
    }
    if manifest.config.contains_key(b"feature_flags".as_slice()) {
        Rule::ManifestFeatures.breach("the manifest has feature flags, which no Borg 1.x sets")?;
    }
    let is_new = |name: &[u8], id: Id| current.archives.get(name).is_none_or(|entry| entry.id != id);
    let mut new = manifest.archives.iter().filter(|(name, entry)| is_new(name, entry.id));
    let (name, entry) = match (new.next(), new.next()) {
        (Some(only), None) => only,
        (None, _) => return Err(Rule::ManifestEntries.broken("the manifest adds no archive")),
        (Some((one, _)), Some((two, _))) => {
            return Err(Rule::ManifestEntries.broken(format!("the manifest adds {:?} and {:?}", quoted(one), quoted(two))));
        }
    };
    let checkpoint = match name.strip_prefix(archive_name) {
        Some(b"") => false,
        Some(suffix) if is_checkpoint_suffix(suffix) => true,
        _ => {
            Rule::ArchiveName.breach(format!("the archive is called {:?}", quoted(name)))?;
            false
        }
    };
    let request = Request { archive: entry.id, name: name.clone(), checkpoint };
    Ok((request, manifest))
}

/// Borg 1.x: `.checkpoint`, and `.checkpoint.1`, `.checkpoint.2`... where that exists already.
fn is_checkpoint_suffix(suffix: &[u8]) -> bool {
    match suffix.strip_prefix(b".checkpoint") {
        Some([]) => true,
        Some([b'.', b'1'..=b'9', digits @ ..]) => digits.len() < 9 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use borg::manifest::ArchiveEntry;

    fn entry(n: u8) -> ArchiveEntry {
        ArchiveEntry { id: Id([n; 32]), time: "2026-01-02T03:04:05.000006".into() }
    }

    fn manifest(entries: &[(&str, u8)]) -> Manifest {
        let mut manifest = Manifest::empty("2026-01-02T03:04:05.000006");
        manifest.archives = entries.iter().map(|(name, n)| (name.as_bytes().to_vec(), entry(*n))).collect();
        manifest
    }

    fn key() -> Key {
        Key::generate(borg::KeyType::Authenticated, &mut |bytes| bytes.fill(5))
    }

    fn ask(new: &Manifest, current: &Manifest) -> Result<Request, String> {
        let packed = new.pack(&key(), [1; 64]);
        request(&packed, current, b"job-1", &key()).map(|(request, _)| request).map_err(|stop| match stop {
            Stop::Violation(v) => v.rule,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn the_archive_and_its_checkpoints() {
        let empty = manifest(&[]);
        let final_request = ask(&manifest(&[("job-1", 1)]), &empty).unwrap();
        assert!(!final_request.checkpoint && final_request.archive == Id([1; 32]));
        for name in ["job-1.checkpoint", "job-1.checkpoint.1", "job-1.checkpoint.27"] {
            assert!(ask(&manifest(&[(name, 1)]), &empty).unwrap().checkpoint, "{name}");
        }
        // The entry of the last checkpoint may stay, be replaced or go.
        let before = manifest(&[("job-1.checkpoint", 1)]);
        assert!(ask(&manifest(&[("job-1.checkpoint", 2)]), &before).unwrap().checkpoint);
        assert!(!ask(&manifest(&[("job-1.checkpoint", 1), ("job-1", 2)]), &before).unwrap().checkpoint);
        assert!(!ask(&manifest(&[("job-1", 2)]), &before).unwrap().checkpoint);
    }

    #[test]
    fn a49_a50_other_names() {
        for name in [
            "job-10",
            "job-",
            "job-1.",
            "job-1.checkpoint.",
            "job-1.checkpoint.0",
            "job-1.checkpoint.01",
            "job-1.checkpoint.1x",
            "job-1.checkpointx",
            "job-1.checkpoint.1.checkpoint",
            "job-1.checkpoint.9999999999",
            "job-2",
            "",
            "job-1\n",
            "job-1/",
            "JOB-1",
        ] {
            assert_eq!(ask(&manifest(&[(name, 1)]), &manifest(&[])), Err("archive-name".into()), "{name:?}");
        }
    }

    #[test]
    fn a54_none_or_several() {
        assert_eq!(ask(&manifest(&[]), &manifest(&[])), Err("manifest-entries".into()));
        let before = manifest(&[("job-1.checkpoint", 1)]);
        assert_eq!(ask(&before, &before), Err("manifest-entries".into()));
        assert_eq!(ask(&manifest(&[("job-1", 1), ("other", 2)]), &manifest(&[])), Err("manifest-entries".into()));
        let many: Vec<_> = (0..1000).map(|n| format!("archive-{n}")).collect();
        let many: Vec<_> = many.iter().map(|name| (name.as_str(), 3)).collect();
        assert_eq!(ask(&manifest(&many), &manifest(&[])), Err("manifest-entries".into()));
    }

    #[test]
    fn a53_a55_signature_and_features() {
        let good = manifest(&[("job-1", 1)]);
        let foreign = Key::generate(borg::KeyType::Authenticated, &mut |bytes| bytes.fill(6));
        let refuse = |packed: &[u8]| match request(packed, &manifest(&[]), b"job-1", &key()) {
            Err(Stop::Violation(v)) => v.rule,
            other => panic!("{other:?}"),
        };
        assert_eq!(refuse(&good.pack(&foreign, [1; 64])), "manifest");
        let mut cut = good.pack(&key(), [1; 64]);
        cut.pop();
        assert_eq!(refuse(&cut), "manifest");
        assert_eq!(refuse(b"\xc1\xc1\xc1\xc1"), "manifest");
        assert_eq!(refuse(&[]), "manifest");
        let mut newer = good.clone();
        newer.version = 2;
        assert_eq!(ask(&newer, &manifest(&[])), Err("manifest".into()));
        let mut features = good;
        // {"read": {"mandatory": ["x"]}}
        features.config.insert(b"feature_flags".to_vec(), b"\x81\xa4read\x81\xa9mandatory\x91\xa1x".to_vec());
        assert_eq!(ask(&features, &manifest(&[])), Err("manifest-features".into()));
    }
}
