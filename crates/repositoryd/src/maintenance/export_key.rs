//! The repository's key for a safe place on paper: still locked by its passphrase, which stays here.

use super::{Stop, Work};
use crate::credentials::Credentials;
use crate::failures::{internal, of_state, of_store};
use crate::upkeep::Upkeep;
use borg::{keyblob, paperkey};
use model::{Cause, Failure};
use unix::socket;
use wire::maintenance::{KeyText, Report};

/// Gives it to root (and where one user has everything, to that one), and writes into the transaction log who has it.
pub fn export(work: &Work<'_>) -> Result<Report, Stop> {
    let peer = socket::peer(&work.stream).map_err(|e| of_state(&e))?;
    let is_own = !work.owner.layout.is_installed() && peer.uid == socket::own_uid();
    if peer.uid != 0 && !is_own {
        let message = "only root may have a repository's key; run it as root (sudo)";
        return Err(Failure::new(Cause::KeyMissing, message).into());
    }
    let opening = work.attach()?.opening;
    let kind = opening.key.key_type();
    if kind == borg::KeyType::None {
        let message = format!("repository {} is not encrypted and has no key", work.owner.name);
        return Err(Failure::new(Cause::KeyMissing, message).into());
    }
    let missing = |what: &str| Stop::from(Failure::new(Cause::KeyMissing, what));
    let text = if kind.is_keyfile() {
        Credentials::read()?.key.map(|key| key.to_string()).ok_or_else(|| missing("there is no keyfile any more"))?
    } else {
        let blob = work.ask(|reply| Upkeep::LoadKey { opening: opening.clone(), reply })?;
        let blob = blob.ok_or_else(|| missing("the repository's config holds no key any more"))?;
        String::from_utf8(blob).map_err(|_| missing("the key in the repository's config is no text"))?
    };
    // Behind the first line of a keyfile, which names the repository, stands what a repository has in its config.
    let blob = match text.trim_start().strip_prefix("BORG_KEY ") {
        Some(rest) => rest.split_once('\n').map(|(_, blob)| blob).ok_or_else(|| missing("the keyfile ends in its first line"))?,
        None => text.trim_start(),
    };
    let paper = paperkey::paper(blob, opening.id).map_err(|e| missing(&e.to_string()))?;
    let end = if blob.ends_with('\n') { "" } else { "\n" };
    let file = format!("{}{end}", keyblob::keyfile_text(opening.id, blob));
    let by = socket::user_name(peer.uid).ok().flatten().unwrap_or_else(|| format!("uid {}", peer.uid));
    let note = format!("key of repository {} exported", work.owner.name);
    let noted = work.owner.store.write(&note, &by, |w| {
        w.witness();
        Ok(())
    });
    if noted.map_err(|e| of_store(&e))?.1.0 == 0 {
        return Err(internal("the transaction log has no entry about it").into());
    }
    log::info!("{note}, asked for by {by}");
    Ok(Report::Key(Box::new(KeyText { repository_id: opening.id.to_hex(), file, paper })))
}
