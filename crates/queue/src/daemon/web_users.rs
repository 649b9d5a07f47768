//! Users of the status pages: adding, changing and removing them. Only who controls the server may.

use super::Daemon;
use super::errors::{from_store, refuse, refuse_in};
use model::token::Token;
use model::web_user::{Role, SignIn, SignInWay, TokenHash};
use model::{Timestamp, UserName, WebUser};
use wire::control::{ControlError, ErrorKind, Event, IssuedUser, WebUsers};

type Answered<T> = std::result::Result<T, ControlError>;

fn missing(name: &UserName) -> store::Error {
    refuse_in(ErrorKind::NotFound, format!("there is no user {name}; `borgcube user list` shows who there is"))
}

/// A new token, and how to recognize it.
fn issue() -> Answered<(String, SignIn)> {
    let mut bits = [0; 32];
    unix::random::fill(&mut bits).map_err(|e| refuse(ErrorKind::Internal, e.to_string()))?;
    let token = Token::from_random(bits);
    Ok((token.to_hex(), SignIn::Token { hash: TokenHash::of(&token) }))
}

fn check(user: &WebUser, now: Timestamp) -> Answered<()> {
    user.check().map_err(|why| refuse(ErrorKind::InvalidArgument, why))?;
    if user.expires.is_some_and(|expires| expires <= now) {
        return Err(refuse(ErrorKind::InvalidArgument, "the moment when the user expires is over already; disable the user instead"));
    }
    Ok(())
}

impl Daemon {
    pub(super) fn list_web_users(&self) -> Answered<WebUsers> {
        self.store.read(|r| Ok(WebUsers { users: r.web_users().list()? })).map_err(from_store)
    }

    pub(super) fn add_web_user(
        &mut self,
        name: UserName,
        role: Role,
        way: SignInWay,
        expires: Option<Timestamp>,
        comment: String,
        actor: &str,
    ) -> Answered<IssuedUser> {
        let (token, sign_in) = match way {
            SignInWay::Token => {
                let (token, sign_in) = issue()?;
                (Some(token), sign_in)
            }
            SignInWay::Peer => (None, SignIn::Peer),
            SignInWay::Proxy => (None, SignIn::Proxy),
        };
        let created = Timestamp::now();
        let user = WebUser { name, role, sign_in, enabled: true, created, expires, comment };
        check(&user, created)?;
        let note = format!("add user {} of the status pages, {role}, who signs in by {way}", user.name);
        let written = self.store.write_at(created, &note, actor, |w| {
            if w.view().web_users().exists(&user.name)? {
                let message = format!("there is a user {} already; change it with `borgcube user edit`, or choose another name", user.name);
                return Err(refuse_in(ErrorKind::AlreadyExists, message));
            }
            w.web_users().insert(&user)
        });
        written.map_err(from_store)?;
        self.users_changed();
        Ok(IssuedUser { user, token })
    }

    pub(super) fn update_web_user(&mut self, previous: &WebUser, mut user: WebUser, actor: &str) -> Answered<()> {
        if previous.name != user.name {
            return Err(refuse(ErrorKind::InvalidArgument, "a user cannot be renamed: remove it and add it under the new name"));
        }
        if previous.sign_in != user.sign_in {
            let message = "how a user signs in cannot be changed: remove it and add it again; `borgcube user token` makes a new token";
            return Err(refuse(ErrorKind::InvalidArgument, message));
        }
        user.created = previous.created;
        if previous.expires != user.expires {
            check(&user, Timestamp::now())?;
        }
        user.check().map_err(|why| refuse(ErrorKind::InvalidArgument, why))?;
        let verb = match (previous.enabled, user.enabled) {
            (false, true) => "enable",
            (true, false) => "disable",
            _ => "change",
        };
        let written = self.store.write(&format!("{verb} user {} of the status pages", user.name), actor, |w| {
            let stored = w.view().web_users().get(&user.name)?.ok_or_else(|| missing(&user.name))?;
            if stored != *previous {
                let message = format!("user {} was changed by somebody else meanwhile; look at it again and repeat your change", user.name);
                return Err(refuse_in(ErrorKind::Conflict, message));
            }
            w.web_users().put(&user)
        });
        written.map_err(from_store)?;
        self.users_changed();
        Ok(())
    }

    pub(super) fn renew_web_token(&mut self, name: &UserName, actor: &str) -> Answered<IssuedUser> {
        let (token, sign_in) = issue()?;
        let written = self.store.write(&format!("new token for user {name} of the status pages"), actor, |w| {
            let stored = w.view().web_users().get(name)?.ok_or_else(|| missing(name))?;
            if stored.sign_in.way() != SignInWay::Token {
                let message = format!("user {name} signs in by {}, without a token", stored.sign_in.way());
                return Err(refuse_in(ErrorKind::Conflict, message));
            }
            let user = WebUser { sign_in: sign_in.clone(), ..stored };
            w.web_users().put(&user)?;
            Ok(user)
        });
        let (user, _) = written.map_err(from_store)?;
        self.users_changed();
        Ok(IssuedUser { user, token: Some(token) })
    }

    pub(super) fn remove_web_user(&mut self, name: &UserName, actor: &str) -> Answered<()> {
        let written = self.store.write(&format!("remove user {name} of the status pages"), actor, |w| {
            if !w.view().web_users().exists(name)? {
                return Err(missing(name));
            }
            w.web_users().remove(name).map(drop)
        });
        written.map_err(from_store)?;
        self.users_changed();
        Ok(())
    }

    /// The status daemon ends what is shown to those who may not look any more.
    pub(super) fn users_changed(&mut self) {
        self.broadcast(&Event::UsersChanged);
    }
}
