//! By which credentials somebody gets something that goes on: live events, downloads. When one is void, that ends.

use model::Timestamp;
use model::web_user::{Credential, WebSettings, WebUser, identify};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// All of them.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<Vec<(Credential, watch::Sender<()>)>>);

/// Of one viewer. None: it looks as nobody in particular.
#[derive(Debug, Default)]
pub struct Session(Option<watch::Receiver<()>>);

impl Session {
    /// Until the viewer may not look any more.
    pub async fn ended(&mut self) {
        match &mut self.0 {
            // Nothing is ever sent: the sender goes.
            Some(ending) => while ending.changed().await.is_ok() {},
            None => std::future::pending().await,
        }
    }
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Vec<(Credential, watch::Sender<()>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody begins to look, by this credential. Whether it is good is looked up afterwards: what becomes void meanwhile is not missed.
    #[must_use]
    pub fn begin(&self, credential: Option<&Credential>) -> Session {
        let Some(credential) = credential else { return Session(None) };
        let mut all = self.lock();
        all.retain(|(_, ending)| ending.receiver_count() > 0);
        if let Some((_, ending)) = all.iter().find(|(known, _)| known == credential) {
            return Session(Some(ending.subscribe()));
        }
        let (ending, session) = watch::channel(());
        all.push((credential.clone(), ending));
        Session(Some(session))
    }

    /// Ends those by this credential; whoever still has it may begin another one.
    pub fn end(&self, credential: &Credential) {
        self.lock().retain(|(known, _)| known != credential);
    }

    /// Whether there are any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let mut all = self.lock();
        all.retain(|(_, ending)| ending.receiver_count() > 0);
        all.is_empty()
    }

    /// Ends those whose credentials are void by now.
    pub fn review(&self, users: &[WebUser], settings: WebSettings, now: Timestamp) {
        self.lock().retain(|(credential, _)| match identify(users, settings, credential, now) {
            Ok(_) => true,
            Err(refusal) => {
                log::info!("live events and downloads of somebody end: {}", unix::logging::escape(&refusal.to_string()));
                false
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::web_user::{Role, SignIn};
    use std::task::{Context, Poll, Waker};

    fn is_over(session: &mut Session) -> bool {
        let ended = std::pin::pin!(session.ended());
        matches!(ended.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(()))
    }

    #[test]
    fn what_is_void_ends_and_nothing_else() {
        let sessions = Sessions::default();
        let of = |name: &str| Credential::Proxy { name: name.into() };
        let user = |name: &str, enabled| {
            let (name, comment) = (name.parse().unwrap(), String::new());
            WebUser { name, role: Role::Viewer, sign_in: SignIn::Proxy, enabled, created: Timestamp(0), expires: None, comment }
        };
        let on = WebSettings { proxy: true, ..WebSettings::default() };
        let (mut alice, mut too, mut bob) =
            (sessions.begin(Some(&of("alice"))), sessions.begin(Some(&of("alice"))), sessions.begin(Some(&of("bob"))));
        let mut nobody = sessions.begin(None);
        sessions.review(&[user("alice", true), user("bob", true)], on, Timestamp(1));
        assert!(![&mut alice, &mut too, &mut bob, &mut nobody].into_iter().any(is_over));
        sessions.review(&[user("alice", false), user("bob", true)], on, Timestamp(1));
        assert!(is_over(&mut alice) && is_over(&mut too) && !is_over(&mut bob));
        // Enabled again, alice may look again.
        let mut again = sessions.begin(Some(&of("alice")));
        sessions.end(&of("bob"));
        assert!(is_over(&mut bob) && !is_over(&mut again) && !is_over(&mut nobody));
        sessions.review(&[user("alice", true)], WebSettings::default(), Timestamp(1));
        assert!(is_over(&mut again));
        let gone = sessions.begin(Some(&of("alice")));
        assert!(!sessions.is_empty());
        drop(gone);
        assert!(sessions.is_empty());
    }
}
