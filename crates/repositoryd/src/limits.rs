//! What a client may still add to the repository: what the settings leave it, and what the manifest has room for.

use model::settings::SessionLimits;
use model::{Cause, Failure};

/// Borg 1.x: an object, and with it the manifest, is no larger than 20 MiB and a little; beyond that nobody can open the repository.
pub const MANIFEST: usize = 20 << 20;

/// Left alone for what else is in a manifest, and for the archives of jobs that are running.
const MARGIN: usize = 64 << 10;

/// What an archive takes in a manifest besides its name: id, time, their names and heads.
pub const ENTRY: usize = 80;

/// What is there already, of this client and of everybody.
#[derive(Debug, Clone, Copy)]
pub struct Present {
    /// Archives of this client in this repository.
    pub archives: usize,
    /// Bytes that they refer to, each chunk once, compressed: as if there were no other client.
    pub bytes: u64,
    /// Bytes of the real manifest, about.
    pub manifest: usize,
}

/// The limits of the next session, and a warning if it is time for one; or why there can't be one.
pub fn next(limits: SessionLimits, present: Present) -> Result<(SessionLimits, Option<String>), Failure> {
    let exceeded = |limit: &str, message: String| Err(Failure::new(Cause::QuotaExceeded { limit: limit.to_owned() }, message));
    if present.archives as u64 >= limits.client_archives {
        let message = format!("The client has {} archives in this repository already, as many as the settings allow", present.archives);
        return exceeded("client-archives", message);
    }
    if present.manifest + MARGIN > MANIFEST {
        let message = "The repository has as many archives as Borg can list; delete some before the next backup".to_owned();
        return exceeded("manifest", message);
    }
    let left = limits.client_bytes.saturating_sub(present.bytes);
    if left == 0 {
        let message = format!("The client's archives hold {} bytes already, as much as the settings allow", present.bytes);
        return exceeded("client-bytes", message);
    }
    let warning = (present.manifest > MANIFEST / 2).then(|| {
        let percent = present.manifest.saturating_mul(100) / MANIFEST;
        format!(
            "the repository's list of archives has {percent} % of the size that Borg can read; delete archives, or begin a new repository"
        )
    });
    Ok((SessionLimits { bytes: limits.bytes.min(left), ..limits }, warning))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Present = Present { archives: 0, bytes: 0, manifest: 0 };

    fn limit(limits: SessionLimits, present: Present) -> String {
        match next(limits, present) {
            Err(Failure { cause: Cause::QuotaExceeded { limit }, .. }) => limit,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_left_is_what_a_session_may_send() {
        let limits = SessionLimits { client_bytes: 100, client_archives: 3, ..SessionLimits::default() };
        assert_eq!(next(limits, NOTHING), Ok((SessionLimits { bytes: 100, ..limits }, None)));
        assert_eq!(next(limits, Present { bytes: 99, archives: 2, ..NOTHING }), Ok((SessionLimits { bytes: 1, ..limits }, None)));
        assert_eq!(limit(limits, Present { bytes: 100, ..NOTHING }), "client-bytes");
        assert_eq!(limit(limits, Present { archives: 3, ..NOTHING }), "client-archives");
    }

    #[test]
    fn a31_a_manifest_warns_at_half_and_ends_before_the_end() {
        let limits = SessionLimits::default();
        let warning = next(limits, Present { manifest: MANIFEST / 2 + 1, ..NOTHING }).unwrap().1.unwrap();
        assert!(warning.contains(" 50 %"), "{warning}");
        assert_eq!(next(limits, Present { manifest: MANIFEST / 2, ..NOTHING }).unwrap().1, None);
        assert_eq!(limit(limits, Present { manifest: MANIFEST, ..NOTHING }), "manifest");
    }

    #[test]
    fn an_entry_is_not_larger_than_it_is_counted() {
        use borg::manifest::{ArchiveEntry, Manifest};
        let mut manifest = Manifest::empty("2026-01-02T03:04:05.000006");
        let empty = manifest.pack(&borg::Key::none(), [0; 64]).len();
        for n in 0..1000 {
            let entry = ArchiveEntry { id: borg::Id([7; 32]), time: "2026-01-02T03:04:05.000006".into() };
            manifest.archives.insert(format!("host-etc-2026-01-02T03:04:05-{n:04}").into_bytes(), entry);
        }
        let counted: usize = manifest.archives.keys().map(|name| name.len() + ENTRY).sum();
        let is = manifest.pack(&borg::Key::none(), [0; 64]).len() - empty;
        assert!(is <= counted && counted < is + is / 4, "{is} {counted}");
    }
}
