//! Who may connect. The socket is open to everybody, because sessions run as users that nobody knows beforehand: the kernel says who is at
//! the other end, and that decides before the first byte is read.

use std::collections::HashSet;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use unix::paths::{GROUP_OPERATORS, GROUP_SESSIONS, USER_DAEMON, USER_STATUS};
use unix::socket;

/// At most so often the log tells of those who may not connect; they could fill it otherwise.
const COMPLAIN: Duration = Duration::from_secs(10);

/// What somebody may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visitor {
    /// Prepare and finish sessions, maintain the repository: workers, people of group `borgcube`, root.
    pub works: bool,
    /// Open a session: the processes that talk to clients.
    pub opens: bool,
    /// Read archives on behalf of a person who shows a credential, and nothing else: the status daemon.
    pub reads_for: bool,
}

/// The numbers of those whom an installed server knows; None where the system knows none of the name.
#[derive(Debug, Default)]
struct Known {
    daemon: Option<u32>,
    status: Option<u32>,
    operators: Option<u32>,
    sessions: Option<u32>,
}

/// Looks who is at the other end. None: nobody who may be here, which the log says.
pub fn admit(stream: &UnixStream, installed: bool) -> unix::Result<Option<Visitor>> {
    let peer = socket::peer(stream)?;
    if !installed {
        // The embedded default has one user for everything.
        let own = peer.uid == socket::own_uid();
        let visitor = Visitor { works: own || peer.uid == 0, opens: own, reads_for: own };
        return Ok(admitted(visitor, peer.uid));
    }
    let known = Known {
        daemon: socket::user_id(USER_DAEMON)?,
        status: socket::user_id(USER_STATUS)?,
        operators: socket::group_id(GROUP_OPERATORS)?,
        sessions: socket::group_id(GROUP_SESSIONS)?,
    };
    let groups: HashSet<u32> = socket::peer_groups(stream)?.into_iter().collect();
    Ok(admitted(judge(&known, peer.uid, &groups), peer.uid))
}

fn judge(known: &Known, uid: u32, groups: &HashSet<u32>) -> Visitor {
    // Whatever groups it has: one of them is that of the operators, for the socket of the queue daemon.
    if uid != 0 && Some(uid) == known.status {
        return Visitor { works: false, opens: false, reads_for: true };
    }
    let is_in = |group: Option<u32>| group.is_some_and(|group| groups.contains(&group));
    Visitor { reads_for: false, works: uid == 0 || Some(uid) == known.daemon || is_in(known.operators), opens: is_in(known.sessions) }
}

fn admitted(visitor: Visitor, uid: u32) -> Option<Visitor> {
    if visitor.works || visitor.opens || visitor.reads_for {
        return Some(visitor);
    }
    static COMPLAINED: Mutex<Option<Instant>> = Mutex::new(None);
    let mut complained = COMPLAINED.lock().unwrap_or_else(PoisonError::into_inner);
    if complained.is_none_or(|at| at.elapsed() >= COMPLAIN) {
        *complained = Some(Instant::now());
        log::warn!(
            "a process of the user {uid} connected, which may not: it belongs neither to BorgCube nor to the group {GROUP_OPERATORS}"
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installed_server_knows_users_and_groups() {
        let known = Known { daemon: Some(900), operators: Some(901), sessions: Some(902), status: Some(903) };
        let judge = |uid, groups: &[u32]| {
            let Visitor { works, opens, reads_for } = judge(&known, uid, &groups.iter().copied().collect());
            assert!(!reads_for || uid == 903);
            (works, opens)
        };
        assert_eq!(judge(0, &[0]), (true, false), "root maintains, and is no session");
        assert_eq!(judge(900, &[900]), (true, false));
        assert_eq!(judge(1000, &[1000, 901]), (true, false));
        assert_eq!(judge(61_200, &[61_200, 902]), (false, true), "a session prepares nothing");
        assert_eq!(judge(1000, &[1000]), (false, false));
        assert_eq!(judge(901, &[1000]), (false, false), "a group's number is no user's");
        let status = super::judge(&known, 903, &[903, 901, 902].into());
        assert_eq!(status, Visitor { works: false, opens: false, reads_for: true }, "the groups of the status daemon give it no rights");
        let nobody = super::judge(&Known::default(), 1000, &HashSet::new());
        assert_eq!(nobody, Visitor { works: false, opens: false, reads_for: false }, "missing users and groups admit nobody");
    }

    #[test]
    fn the_embedded_default_is_one_user() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert_eq!(admit(&one, false).unwrap(), Some(Visitor { works: true, opens: true, reads_for: true }));
    }
}
