//! Who may do what on the status pages: users, their roles, and how they prove who they are.
//!
//! The status daemon hands on what somebody asked for together with a [`Credential`]; `borgcubed` looks the user up itself. So whoever took the
//! status daemon over has no more than the credentials that came by since then. [`SignIn::Peer`] and [`SignIn::Proxy`] are exceptions, for there
//! the name is all there is: each takes a setting of its own ([`WebSettings`]).

use crate::time::Timestamp;
use crate::token::Token;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// The name of a user of the status pages: a Unix user's, or what a sign-in service calls somebody, such as a mail address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserName(String);

/// Archives that go by order of somebody on the web can be brought back for at least so many hours.
pub const LEAST_GRACE_HOURS: u32 = 24;

/// How the transaction log begins the names of these users. Nobody else is called so.
pub const ACTOR: &str = "web:";

/// Longest name in bytes.
const MAX_NAME: usize = 120;

impl UserName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UserName {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let usable = s.len() <= MAX_NAME
            && s.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && s.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@' | '+'));
        if usable {
            return Ok(UserName(s.to_owned()));
        }
        let shown: String = s.chars().take(80).collect();
        Err(format!(
            "{shown:?} is no usable user name: it has at most {MAX_NAME} letters, digits, '.', '_', '-', '@' and '+', and begins with a letter or a digit"
        ))
    }
}

impl TryFrom<String> for UserName {
    type Error = String;
    fn try_from(s: String) -> Result<Self, String> {
        s.parse()
    }
}

impl From<UserName> for String {
    fn from(name: UserName) -> String {
        name.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a user may do; each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Look.
    Viewer,
    /// Run, cancel, hold, enable and disable: nothing that makes anything go away.
    Operator,
    /// Change records, and let archives go.
    Administrator,
}

impl Role {
    /// All of them, the least first.
    pub const ALL: [Role; 3] = [Role::Viewer, Role::Operator, Role::Administrator];

    /// The word in records, JSON and the manual.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Administrator => "administrator",
        }
    }

    /// For sentences: `an operator`.
    #[must_use]
    pub fn with_article(self) -> &'static str {
        match self {
            Role::Viewer => "a viewer",
            Role::Operator => "an operator",
            Role::Administrator => "an administrator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == s);
        found.ok_or_else(|| format!("{s:?} is no role; choose viewer, operator or administrator"))
    }
}

/// SHA-256 of a token, 64 hex digits. The token itself is stored nowhere.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenHash(String);

impl TokenHash {
    /// Of a token.
    #[must_use]
    pub fn of(token: &Token) -> TokenHash {
        TokenHash(Sha256::digest(token.bytes()).iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// Short: enough to tell two apart.
impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenHash({}..)", self.0.get(..8).unwrap_or_default())
    }
}

/// How a user proves who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum SignIn {
    /// By a token: 256 random bits, shown once.
    Token {
        /// Its hash.
        hash: TokenHash,
    },
    /// By being the Unix user of that name, who connects to the status daemon's Unix socket.
    Peer,
    /// By the name that a web server before the status daemon vouches for.
    Proxy,
}

impl SignIn {
    /// Which way it is.
    #[must_use]
    pub fn way(&self) -> SignInWay {
        match self {
            SignIn::Token { .. } => SignInWay::Token,
            SignIn::Peer => SignInWay::Peer,
            SignIn::Proxy => SignInWay::Proxy,
        }
    }
}

/// A way to sign in, without what it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignInWay {
    /// [`SignIn::Token`].
    #[default]
    Token,
    /// [`SignIn::Peer`].
    Peer,
    /// [`SignIn::Proxy`].
    Proxy,
}

impl fmt::Display for SignInWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            SignInWay::Token => "token",
            SignInWay::Peer => "peer",
            SignInWay::Proxy => "proxy",
        })
    }
}

/// Somebody who may sign in to the status pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebUser {
    /// The name; the transaction log has it as `web:NAME`.
    pub name: UserName,
    /// What it may do.
    pub role: Role,
    /// How it proves who it is.
    pub sign_in: SignIn,
    /// Whether it may sign in at all.
    pub enabled: bool,
    /// When it was added.
    pub created: Timestamp,
    /// From when on it may not. None: never.
    #[serde(default)]
    pub expires: Option<Timestamp>,
    /// Free text: who it is, what for.
    #[serde(default)]
    pub comment: String,
}

impl WebUser {
    /// Who the transaction log names.
    #[must_use]
    pub fn actor(&self) -> String {
        format!("{ACTOR}{}", self.name)
    }

    /// Says what is wrong with a user before it is stored.
    pub fn check(&self) -> Result<(), String> {
        if self.comment.len() > 1000 || self.comment.chars().any(char::is_control) {
            return Err("a comment has at most 1000 characters, and no line breaks".into());
        }
        Ok(())
    }
}

/// Whose claims about who somebody is are believed. Both are off at first: whoever takes the status daemon over could claim any of these names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct WebSettings {
    /// The status daemon's, about Unix users at its Unix socket.
    pub peer: bool,
    /// A web server's before it, by a header.
    pub proxy: bool,
    /// Whether operators may read archives through the status pages: browse and download.
    pub downloads: bool,
}

impl WebSettings {
    /// Nothing was changed.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == WebSettings::default()
    }
}

/// What somebody shows to prove who it is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Credential {
    /// A token as it was given, 64 hex digits.
    Token {
        /// The token.
        token: String,
    },
    /// The name of the Unix user at the other end of the status daemon's socket.
    Peer {
        /// The name.
        name: String,
    },
    /// The name in a front proxy's header.
    Proxy {
        /// The name.
        name: String,
    },
}

/// Without the token, so that no log has it.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credential::Token { .. } => f.write_str("Token(..)"),
            Credential::Peer { name } => write!(f, "Peer({name:?})"),
            Credential::Proxy { name } => write!(f, "Proxy({name:?})"),
        }
    }
}

/// Why a credential is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No user has that token.
    #[error("no user has that token")]
    UnknownToken,
    /// No user of that name signs in so.
    #[error("there is no user {name:?} who signs in by {way}; `borgcube user add` adds one")]
    UnknownName {
        /// The name.
        name: String,
        /// The way.
        way: SignInWay,
    },
    /// Such names are not believed.
    #[error("signing in by {0} is off; `borgcube settings edit --web-{0} on` allows it")]
    Off(SignInWay),
    /// The user is disabled.
    #[error("the user {0} is disabled")]
    Disabled(UserName),
    /// The user's time is over.
    #[error("the user {0} has expired")]
    Expired(UserName),
}

/// Whose credential it is, at the moment `now`.
pub fn identify<'u>(users: &'u [WebUser], settings: WebSettings, credential: &Credential, now: Timestamp) -> Result<&'u WebUser, Refusal> {
    let by_name = |name: &str, way: SignInWay, believed: bool| {
        if !believed {
            return Err(Refusal::Off(way));
        }
        let found = users.iter().find(|user| user.sign_in.way() == way && user.name.as_str() == name);
        found.ok_or_else(|| Refusal::UnknownName { name: name.chars().take(80).collect(), way })
    };
    let user = match credential {
        Credential::Token { token } => {
            let token = Token::from_hex(token.as_bytes()).ok_or(Refusal::UnknownToken)?;
            let wanted = TokenHash::of(&token);
            let has_it = |user: &&WebUser| matches!(&user.sign_in, SignIn::Token { hash } if *hash == wanted);
            users.iter().find(has_it).ok_or(Refusal::UnknownToken)?
        }
        Credential::Peer { name } => by_name(name, SignInWay::Peer, settings.peer)?,
        Credential::Proxy { name } => by_name(name, SignInWay::Proxy, settings.proxy)?,
    };
    if !user.enabled {
        return Err(Refusal::Disabled(user.name.clone()));
    }
    if user.expires.is_some_and(|expires| expires <= now) {
        return Err(Refusal::Expired(user.name.clone()));
    }
    Ok(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, sign_in: SignIn) -> WebUser {
        let name = name.parse().unwrap();
        WebUser { name, role: Role::Operator, sign_in, enabled: true, created: Timestamp(0), expires: None, comment: String::new() }
    }

    fn with_token(name: &str, byte: u8) -> (WebUser, Credential) {
        let token = Token::from_random([byte; 32]);
        (user(name, SignIn::Token { hash: TokenHash::of(&token) }), Credential::Token { token: token.to_hex() })
    }

    const NOW: Timestamp = Timestamp(1_000_000);
    const BOTH: WebSettings = WebSettings { peer: true, proxy: true, downloads: false };

    #[test]
    fn a_token_is_its_users_and_nobody_elses() {
        let ((alice, hers), (bob, his)) = (with_token("alice", 1), with_token("bob", 2));
        let users = [alice, bob];
        let who = |credential: &Credential| identify(&users, WebSettings::default(), credential, NOW).map(|user| user.name.to_string());
        assert_eq!(who(&hers).unwrap(), "alice");
        assert_eq!(who(&his).unwrap(), "bob");
        for wrong in ["", "alice", &"0".repeat(64), &"01".repeat(31), &"01".repeat(33), &"A1".repeat(32)] {
            assert_eq!(who(&Credential::Token { token: wrong.into() }), Err(Refusal::UnknownToken), "{wrong}");
        }
        // Neither the hash nor the name is a credential.
        let SignIn::Token { hash } = &users[0].sign_in else { panic!() };
        assert_eq!(who(&Credential::Token { token: hash.0.clone() }), Err(Refusal::UnknownToken));
        let named = Credential::Peer { name: "alice".into() };
        assert!(matches!(identify(&users, BOTH, &named, NOW), Err(Refusal::UnknownName { .. })));
    }

    #[test]
    fn disabled_and_expired_users_are_refused() {
        let (alice, hers) = with_token("alice", 1);
        let off = [WebUser { enabled: false, ..alice.clone() }];
        assert!(matches!(identify(&off, BOTH, &hers, NOW), Err(Refusal::Disabled(_))));
        let until = |moment: Timestamp| [WebUser { expires: Some(moment), ..alice.clone() }];
        assert!(matches!(identify(&until(NOW), BOTH, &hers, NOW), Err(Refusal::Expired(_))));
        assert!(identify(&until(NOW.plus_seconds(1)), BOTH, &hers, NOW).is_ok());
    }

    #[test]
    fn names_are_believed_where_a_setting_says_so_and_not_across_ways() {
        let users = [user("alice", SignIn::Peer), user("bob@example.net", SignIn::Proxy)];
        let peer = |name: &str| Credential::Peer { name: name.into() };
        let proxy = |name: &str| Credential::Proxy { name: name.into() };
        assert_eq!(identify(&users, WebSettings::default(), &peer("alice"), NOW), Err(Refusal::Off(SignInWay::Peer)));
        assert_eq!(
            identify(&users, WebSettings { peer: true, ..WebSettings::default() }, &proxy("bob@example.net"), NOW),
            Err(Refusal::Off(SignInWay::Proxy))
        );
        assert!(identify(&users, BOTH, &peer("alice"), NOW).is_ok());
        assert!(identify(&users, BOTH, &proxy("bob@example.net"), NOW).is_ok());
        for wrong in [proxy("alice"), peer("bob@example.net"), peer("Alice"), peer("")] {
            assert!(matches!(identify(&users, BOTH, &wrong, NOW), Err(Refusal::UnknownName { .. })), "{wrong:?}");
        }
    }

    #[test]
    fn no_log_has_a_token() {
        let (alice, hers) = with_token("alice", 0xab);
        assert_eq!(format!("{hers:?}"), "Token(..)");
        assert!(!format!("{alice:?}").contains("abab"));
        let SignIn::Token { hash } = &alice.sign_in else { panic!() };
        assert!(!format!("{alice:?}").contains(&hash.0));
    }

    #[test]
    fn names() {
        for good in ["alice", "_apt", "a.b-c_d", "bob+x@example.net", "1"] {
            assert!(good.parse::<UserName>().is_ok(), "{good}");
        }
        for bad in ["", "-x", "@x", "a b", "a/b", "a\n", "é", "<b>", &"x".repeat(121)] {
            assert!(bad.parse::<UserName>().is_err(), "{bad}");
        }
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Administrator);
    }
}
