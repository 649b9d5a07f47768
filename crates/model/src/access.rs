//! Who may use the control socket.

/// A person or process at the control socket, as the kernel names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// User id.
    pub uid: u32,
    /// Whether the user is in the group `borgcube`.
    pub in_group: bool,
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
}
