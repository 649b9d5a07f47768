//! Manifests and archive metadata. What was mutated is signed again: else no change behind the signature would be looked at.

use crate::bytes::Bytes;
use crate::keys::key;
use borg::archive::Archive;
use borg::manifest::{MAX_ARCHIVES, Manifest};
use borg::msgpack::{Limits, Reader};
use borg::tam::{self, Context, Status, Tam};
use borg::{Key, KeyType};
use proxy::intake;
use std::sync::LazyLock;

static KEY: LazyLock<Key> = LazyLock::new(|| key(KeyType::Authenticated, 1));
static FOREIGN: LazyLock<Key> = LazyLock::new(|| key(KeyType::Authenticated, 2));

/// Signs a packed map that has a `tam` with room for a proof.
#[must_use]
pub fn signed(packed: &[u8], context: Context, key: &Key) -> Option<Vec<u8>> {
    let mut reader = Reader::with_limits(packed, Limits::LOOSE);
    let mut tam = None;
    for _ in 0..reader.read_map_len().ok()? {
        if reader.read_raw().ok()? == b"tam" {
            tam = Some(Tam::read(&mut reader).ok()?);
        } else {
            reader.skip_value().ok()?;
        }
    }
    let tam = tam.filter(|tam| tam.hmac.len() == 64)?;
    let at = packed.windows(64).position(|window| window == tam.hmac)?;
    let salt = tam.salt.to_vec();
    let mut out = packed.to_vec();
    out[at..at + 64].fill(0);
    let proof = tam::sign(key, context, &out, &salt);
    out[at..at + 64].copy_from_slice(&proof);
    Some(out)
}

/// A manifest: read, judged as a request, written again.
pub fn manifest(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let sign = !bytes.rarely(4);
    let input = bytes.rest();
    let packed = sign.then(|| signed(input, Context::Manifest, &KEY)).flatten().unwrap_or_else(|| input.to_vec());
    let parsed = Manifest::parse_with_status(&packed, &KEY);
    if let Ok((manifest, status)) = &parsed {
        assert!(manifest.archives.len() <= MAX_ARCHIVES);
        assert_eq!(Manifest::parse(&packed, &KEY).is_ok(), *status == Status::Verified, "an unsigned manifest is accepted");
        if *status == Status::Verified {
            assert!(Manifest::parse(&packed, &FOREIGN).is_err(), "a manifest of another key is accepted");
        }
        let mut expected = manifest.clone();
        expected.config.insert(b"tam_required".to_vec(), vec![0xc3]);
        let again = Manifest::parse(&manifest.pack(&KEY, [3; 64]), &KEY);
        assert_eq!(again.as_ref(), Ok(&expected), "written again it means something else");
        let _ = (manifest.timestamp_micros(), manifest.tam_required(), manifest.mandatory_features("write"));
    }
    let shown = Manifest::empty("2026-01-02T03:04:05.000006");
    if let Ok((request, manifest)) = intake::manifest::request(&packed, &shown, b"job-1", &KEY) {
        assert!(parsed.is_ok());
        let new: Vec<_> = manifest.archives.iter().collect();
        let [(name, entry)] = new[..] else { panic!("a manifest with {} new archives is accepted", new.len()) };
        assert_eq!((name, entry.id), (&request.name, request.archive));
        assert!(is_name_of(name, "job-1", request.checkpoint), "{:?} is accepted", String::from_utf8_lossy(name));
        assert!(!manifest.config.contains_key(&b"feature_flags"[..]) && manifest.version == 1);
    }
}

/// Whether an archive of this name is the job's, or a checkpoint of it.
#[must_use]
pub fn is_name_of(name: &[u8], job: &str, checkpoint: bool) -> bool {
    let Ok(name) = std::str::from_utf8(name) else { return false };
    let Some(suffix) = name.strip_prefix(job) else { return false };
    let number = suffix.strip_prefix(".checkpoint").map(|number| number.strip_prefix('.').unwrap_or(number));
    match number {
        None => !checkpoint && suffix.is_empty(),
        Some("") => checkpoint && suffix == ".checkpoint",
        Some(digits) => {
            checkpoint && suffix.starts_with(".checkpoint.") && digits.parse::<u64>().is_ok_and(|n| n.to_string() == *digits && n > 0)
        }
    }
}

/// Archive metadata: read both ways, judged, written again.
pub fn archive(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let sign = !bytes.rarely(4);
    let input = bytes.rest();
    let packed = sign.then(|| signed(input, Context::Archive, &KEY)).flatten().unwrap_or_else(|| input.to_vec());
    let (tolerant, strict) = (Archive::parse(&packed), Archive::parse_strict(&packed));
    if matches!(Archive::verify_tam(&packed, &KEY), Ok(Status::Verified)) {
        assert!(Archive::verify_tam(&packed, &FOREIGN).is_err(), "an archive of another key is accepted");
    }
    if let Ok(archive) = &strict {
        assert_eq!(tolerant.as_ref(), Ok(archive), "strict reading accepts no more");
        assert!(archive.other.is_empty() && !archive.name.is_empty());
    }
    if let Ok(archive) = &tolerant {
        let again = archive.pack(&KEY, [4; 64]);
        assert_eq!(Archive::verify_tam(&again, &KEY), Ok(Status::Verified));
        let mut expected = archive.clone();
        expected.other.remove(&b"tam"[..]);
        assert_eq!(Archive::parse(&again).as_ref(), Ok(&expected), "written again it means something else");
        assert_eq!(Archive::parse_strict(&again).is_ok(), strict.is_ok() || is_only_form(&packed, archive), "{strict:?}");
    }
    for name in [&b"job-1"[..], b""] {
        if let Ok(accepted) = intake::archive::accept(&packed, name) {
            assert_eq!(strict.as_ref(), Ok(&accepted.archive));
            assert_eq!(accepted.archive.name, name);
            let printable = |text: &str| text.len() < 400 && !text.chars().any(char::is_control);
            assert!(accepted.claims.iter().all(|claim| printable(claim)), "{:?}", accepted.claims);
            assert!(accepted.cwd.as_deref().is_none_or(printable));
        }
    }
}

/// Refused by strict reading for its form (new-style strings) and not for its content, which is what we write.
fn is_only_form(packed: &[u8], archive: &Archive) -> bool {
    archive.other.is_empty() && matches!(Archive::parse_strict(packed), Err(borg::archive::ArchiveError::Malformed(_)))
}
