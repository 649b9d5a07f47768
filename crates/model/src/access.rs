//! Who may use the control socket.

/// A person or process at the control socket, as the kernel names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// User id.
    pub uid: u32,
    /// Whether the user is in the group `borgcube`.
    pub in_group: bool,
}

/// What somebody at the control socket may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rights {
    /// Ask what this service is.
    None,
    /// See what happens and what jobs wrote, and use triggers that anybody may use who knows their id: the status daemon.
    Watch,
    /// Everything.
    Control,
}

/// What `peer` may do with a daemon that runs as `daemon_uid`, where `status_uid` is the status daemon's user, if there is one.
#[must_use]
pub fn rights(peer: &Peer, daemon_uid: u32, status_uid: Option<u32>) -> Rights {
    // Whatever groups somebody has put it into: it listens to the network.
    if status_uid == Some(peer.uid) && peer.uid != 0 && peer.uid != daemon_uid {
        Rights::Watch
    } else if may_control(peer, daemon_uid) {
        Rights::Control
    } else {
        Rights::None
    }
}

/// Whether `peer` may control a daemon that runs as `daemon_uid`: root, the daemon's own user, and the group `borgcube`.
#[must_use]
pub fn may_control(peer: &Peer, daemon_uid: u32) -> bool {
    peer.uid == 0 || peer.uid == daemon_uid || peer.in_group
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_owner_and_group() {
        let peer = |uid, in_group| Peer { uid, in_group };
        assert!(may_control(&peer(0, false), 900));
        assert!(may_control(&peer(900, false), 900));
        assert!(may_control(&peer(1000, true), 900));
        assert!(!may_control(&peer(1000, false), 900));
    }

    #[test]
    fn the_status_daemon_watches() {
        let peer = |uid, in_group| Peer { uid, in_group };
        assert_eq!(rights(&peer(901, false), 900, Some(901)), Rights::Watch);
        assert_eq!(rights(&peer(901, true), 900, Some(901)), Rights::Watch);
        assert_eq!(rights(&peer(901, false), 900, None), Rights::None);
        assert_eq!(rights(&peer(1000, true), 900, Some(901)), Rights::Control);
        // The embedded default: everything is one user.
        assert_eq!(rights(&peer(900, false), 900, Some(900)), Rights::Control);
        assert_eq!(rights(&peer(0, false), 900, Some(0)), Rights::Control);
    }
}
