//! Who is asking, and how often somebody may ask.
//!
//! What somebody shows is looked up in the database to know whom a page is for and which buttons it has. Whether something is done is not decided
//! here: `borgcubed` gets the same credential and looks for itself.

use crate::guard::Hosts;
use crate::query::Unanswered;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use model::Timestamp;
use model::web_user::{Credential, Role, identify};
use sha2::{Digest, Sha256};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use store::Read;
use subtle::ConstantTimeEq;

/// The cookie of who has signed in: the token itself.
pub const COOKIE: &str = "borgcube-session";
/// How long a browser keeps it, in seconds: a month of mornings.
const COOKIE_AGE: u32 = 30 * 86_400;
/// Longest credential that is looked at.
const MAX_SHOWN: usize = 256;
/// Requests in a second of one address, and at once.
const REQUESTS: (NonZeroU32, NonZeroU32) = (NonZeroU32::new(500).unwrap(), NonZeroU32::new(1000).unwrap());
/// Sign-ins in a minute of one address.
const SIGN_INS: NonZeroU32 = NonZeroU32::new(10).unwrap();
/// Addresses that are remembered before those at rest are forgotten.
const REMEMBERED: usize = 10_000;

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Peer {
    /// TCP.
    Address(IpAddr),
    /// A Unix socket: the user there, if the kernel tells.
    User(Option<u32>),
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Peer::Address(address) => address.fmt(f),
            Peer::User(Some(uid)) => write!(f, "the user {uid}"),
            Peer::User(None) => f.write_str("an unknown user"),
        }
    }
}

impl Peer {
    /// Whoever has one IPv6 address has 2^64 of them.
    pub(crate) fn key(self) -> Peer {
        match self {
            Peer::Address(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_none() => {
                Peer::Address(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into())
            }
            other => other,
        }
    }

    /// Where a web server that vouches for people may be.
    pub(crate) fn is_near(self) -> bool {
        match self {
            Peer::Address(address) => address.to_canonical().is_loopback(),
            Peer::User(_) => true,
        }
    }
}

/// What somebody shows to prove who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// Nothing.
    Nothing,
    /// A token that a program sends: no browser does that by itself.
    Bearer(String),
    /// A token that a browser keeps.
    Cookie(String),
    /// The word of the web server before us.
    Header(String),
    /// A Unix user at our Unix socket.
    User(u32),
}

impl Shown {
    /// Only who is signed in by it can be made to ask for something by a page of somebody else.
    #[must_use]
    pub fn may_be_forged(&self) -> bool {
        !matches!(self, Shown::Bearer(_))
    }
}

/// Somebody who is signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Viewer {
    /// The user's name.
    pub name: String,
    /// What the user may do.
    pub role: Role,
    /// What a form has to bring along.
    pub csrf: String,
    /// By a cookie, which signing out takes away.
    pub can_sign_out: bool,
}

/// What one server knows of access.
pub struct Access {
    /// Reading takes signing in, too.
    pub required: bool,
    header: Option<HeaderName>,
    key: [u8; 32],
    requests: DefaultKeyedRateLimiter<Peer>,
    sign_ins: DefaultKeyedRateLimiter<Peer>,
}

impl Access {
    /// `header`: in which a web server before us says who it is.
    pub fn new(required: bool, header: Option<HeaderName>) -> anyhow::Result<Access> {
        let mut key = [0; 32];
        unix::random::fill(&mut key)?;
        let (rate, burst) = REQUESTS;
        Ok(Access {
            required,
            header,
            key,
            requests: RateLimiter::keyed(Quota::per_second(rate).allow_burst(burst)),
            sign_ins: RateLimiter::keyed(Quota::per_minute(SIGN_INS)),
        })
    }

    /// Whether this peer has not asked too often.
    #[must_use]
    pub fn admits(&self, peer: Peer) -> bool {
        within(&self.requests, peer)
    }

    /// Whether this peer has not tried to sign in too often.
    #[must_use]
    pub fn admits_sign_in(&self, peer: Peer) -> bool {
        within(&self.sign_ins, peer)
    }

    /// What a request shows. The error: a program shows something that is none.
    pub fn shown(&self, headers: &HeaderMap, peer: Peer) -> Result<Shown, Unanswered> {
        let wrong = |sentence: &str| Err(Unanswered::Unauthenticated(sentence.into()));
        if let Some(value) = single(headers, &header::AUTHORIZATION)? {
            let token = value.to_str().ok().and_then(|text| text.split_once(' ')).filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
            return match token {
                Some((_, token)) if token.len() <= MAX_SHOWN => Ok(Shown::Bearer(token.trim().to_owned())),
                // A web server before us may have its own passwords.
                None if self.header.is_some() || value.to_str().is_ok_and(|text| !text.to_ascii_lowercase().starts_with("bearer")) => {
                    Ok(Shown::Nothing)
                }
                _ => wrong("the Authorization header is not 'Bearer TOKEN'"),
            };
        }
        if let Some(token) = cookie(headers) {
            return Ok(Shown::Cookie(token.to_owned()));
        }
        if let Some(name) = &self.header
            && peer.is_near()
            && let Some(value) = single(headers, name)?
        {
            return match value.to_str() {
                Ok("") => Ok(Shown::Nothing),
                Ok(text) if text.len() <= MAX_SHOWN => Ok(Shown::Header(text.to_owned())),
                _ => wrong("the header that names the user makes no sense"),
            };
        }
        Ok(match peer {
            Peer::User(Some(uid)) => Shown::User(uid),
            _ => Shown::Nothing,
        })
    }

    /// Whose it is, and what `borgcubed` is to be shown. None: nobody's. The error: a program showed what is nobody's.
    pub fn viewer(&self, read: &Read<'_>, shown: &Shown, now: Timestamp) -> Result<Option<(Viewer, Credential)>, Unanswered> {
        let settings = read.settings()?.map(|settings| settings.web).unwrap_or_default();
        let token = |token: &String| Some(Credential::Token { token: token.clone() });
        let credential = match shown {
            Shown::Nothing => None,
            Shown::Bearer(text) | Shown::Cookie(text) => token(text),
            Shown::Header(name) => Some(Credential::Proxy { name: name.clone() }),
            Shown::User(uid) if settings.peer => {
                let name = unix::socket::user_name(*uid).map_err(|e| Unanswered::Internal(e.to_string()))?;
                name.map(|name| Credential::Peer { name })
            }
            Shown::User(_) => None,
        };
        let Some(credential) = credential else { return Ok(None) };
        match identify(&read.web_users().list()?, settings, &credential, now) {
            Ok(user) => {
                let name = user.name.to_string();
                let csrf = self.csrf(&name);
                let viewer = Viewer { name, role: user.role, csrf, can_sign_out: matches!(shown, Shown::Cookie(_)) };
                Ok(Some((viewer, credential)))
            }
            Err(refusal) => match shown {
                Shown::Bearer(_) => Err(Unanswered::Unauthenticated(refusal.to_string())),
                _ => Ok(None),
            },
        }
    }

    /// What forms for this user carry: nobody can know it who does not see the user's pages.
    fn csrf(&self, name: &str) -> String {
        let digest = Sha256::new_with_prefix(self.key).chain_update(name).finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn within(limiter: &DefaultKeyedRateLimiter<Peer>, peer: Peer) -> bool {
    if limiter.len() > REMEMBERED {
        limiter.retain_recent();
        limiter.shrink_to_fit();
    }
    limiter.check_key(&peer.key()).is_ok()
}

/// A header that may be there once.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h HeaderValue>, Unanswered> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (value, None) => Ok(value),
        _ => Err(Unanswered::BadRequest(format!("the header {name} is there more than once"))),
    }
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let token = all.flat_map(|line| line.split(';')).find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='));
    token.filter(|token| !token.is_empty() && token.len() <= MAX_SHOWN)
}

/// Whether a form or a call comes from a page of ours, as far as the browser says so.
pub fn check_origin(hosts: &Hosts, headers: &HeaderMap) -> Result<(), Unanswered> {
    let elsewhere = || Err(Unanswered::Forbidden("this comes from a page of another server".into()));
    if let Some(site) = headers.get("sec-fetch-site")
        && site != "same-origin"
        && site != "none"
    {
        return elsewhere();
    }
    let Some(origin) = single(headers, &header::ORIGIN)? else { return Ok(()) };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    match origin.to_str().ok().and_then(|origin| origin.split_once("://")) {
        Some(("http" | "https", name)) if name.eq_ignore_ascii_case(host) || hosts.names(name) => Ok(()),
        _ => elsewhere(),
    }
}

/// Whether a form brings along what its page got.
pub fn check_csrf(viewer: &Viewer, brought: Option<&str>) -> Result<(), Unanswered> {
    match brought {
        Some(brought) if bool::from(brought.as_bytes().ct_eq(viewer.csrf.as_bytes())) => Ok(()),
        // Of a program, which reads documentation less than this.
        None => Err(Unanswered::Forbidden(
            "the field csrf is missing: GET /api/v1/me says what it has to hold; with a bearer token it is not needed".into(),
        )),
        Some(_) => Err(Unanswered::Forbidden(
            "the page that this comes from is too old (its field csrf is not the one of GET /api/v1/me any more): go back, load it again and repeat it".into(),
        )),
    }
}

/// What makes a browser keep a token; `headers` are those of the sign-in.
pub fn remember(token: &str, headers: &HeaderMap) -> String {
    let is_https = headers.get(header::ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"));
    let secure = if is_https { "; Secure" } else { "" };
    format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={COOKIE_AGE}{secure}")
}

/// What makes it forget.
pub const FORGET: &str = "borgcube-session=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0";

/// An address within our pages, as far as somebody may choose one.
#[must_use]
pub fn local(address: &str) -> Option<&str> {
    let plain = address.bytes().all(|b| b.is_ascii_graphic() && b != b'\\' && b != b'"');
    (address.starts_with('/') && !address.starts_with("//") && address.len() <= 1000 && plain).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    const NEAR: Peer = Peer::Address(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    #[test]
    fn what_is_shown() {
        let access = Access::new(false, Some("x-user".parse().unwrap())).unwrap();
        let shown = |pairs: &[(&'static str, &str)], peer| access.shown(&headers(pairs), peer);
        assert_eq!(shown(&[], NEAR).unwrap(), Shown::Nothing);
        assert_eq!(shown(&[], Peer::User(Some(7))).unwrap(), Shown::User(7));
        assert_eq!(shown(&[("authorization", "Bearer ab")], NEAR).unwrap(), Shown::Bearer("ab".into()));
        assert_eq!(shown(&[("cookie", "a=b; borgcube-session=ab; c=d")], NEAR).unwrap(), Shown::Cookie("ab".into()));
        assert_eq!(shown(&[("cookie", "xborgcube-session=ab; borgcube-sessionx=ab")], NEAR).unwrap(), Shown::Nothing);
        assert_eq!(shown(&[("x-user", "alice")], NEAR).unwrap(), Shown::Header("alice".into()));
        // The word of the web server on this machine, and of nobody else; and nobody adds a second one.
        assert_eq!(shown(&[("x-user", "alice")], Peer::Address([192, 0, 2, 1].into())).unwrap(), Shown::Nothing);
        assert!(shown(&[("x-user", "alice"), ("x-user", "root")], NEAR).is_err());
        assert!(shown(&[("authorization", "Bearer")], NEAR).is_ok_and(|shown| shown == Shown::Nothing));
        let plain = Access::new(false, None).unwrap();
        assert_eq!(plain.shown(&headers(&[("x-user", "alice")]), NEAR).unwrap(), Shown::Nothing);
        assert!(plain.shown(&headers(&[("authorization", "Bearer")]), NEAR).is_err());
        assert_eq!(plain.shown(&headers(&[("authorization", "Basic eDp5")]), NEAR).unwrap(), Shown::Nothing);
    }

    #[test]
    fn pages_of_others_are_told_by_their_origin() {
        let hosts = Hosts::new(&["backup.example.net".into()]).unwrap();
        let check = |pairs: &[(&'static str, &str)]| check_origin(&hosts, &headers(pairs)).is_ok();
        assert!(check(&[("host", "localhost:8420")]));
        assert!(check(&[("host", "localhost:8420"), ("origin", "http://localhost:8420"), ("sec-fetch-site", "same-origin")]));
        // A web server before us may call us by another name than people do.
        assert!(check(&[("host", "127.0.0.1:8420"), ("origin", "https://backup.example.net")]));
        for origin in ["null", "http://evil.example", "http://localhost:3000", "https://backup.example.net.evil.example", "file://"] {
            assert!(!check(&[("host", "localhost:8420"), ("origin", origin)]), "{origin}");
        }
        for site in ["cross-site", "same-site"] {
            assert!(!check(&[("host", "localhost"), ("sec-fetch-site", site)]), "{site}");
        }
    }

    #[test]
    fn a_form_is_of_one_user_and_one_run_of_the_program() {
        let viewer =
            |access: &Access, name: &str| Viewer { name: name.into(), role: Role::Viewer, csrf: access.csrf(name), can_sign_out: true };
        let (ours, other) = (Access::new(false, None).unwrap(), Access::new(false, None).unwrap());
        let alice = viewer(&ours, "alice");
        assert!(check_csrf(&alice, Some(&alice.csrf)).is_ok());
        for wrong in [None, Some(""), Some(&alice.csrf[1..]), Some(&*ours.csrf("bob")), Some(&*other.csrf("alice"))] {
            let said = check_csrf(&alice, wrong).unwrap_err().to_string();
            assert!(said.contains("field csrf") && said.contains("GET /api/v1/me"), "{said}");
        }
    }

    #[test]
    fn cookies_are_kept_from_scripts_and_other_sites() {
        let plain = remember("ab", &headers(&[("origin", "http://localhost")]));
        assert!(plain.contains("; HttpOnly") && plain.contains("; SameSite=Strict") && !plain.contains("Secure"), "{plain}");
        assert!(remember("ab", &headers(&[("origin", "https://backup.example.net")])).ends_with("; Secure"));
        assert!(FORGET.starts_with(COOKIE));
    }

    #[test]
    fn addresses_within_our_pages() {
        assert_eq!(local("/jobs?state=failed"), Some("/jobs?state=failed"));
        for bad in ["", "jobs", "//evil.example", "https://evil.example", "/\\evil.example", "/a\r\nb", "/a b"] {
            assert_eq!(local(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn sign_ins_are_few_and_other_addresses_have_their_own() {
        let access = Access::new(false, None).unwrap();
        assert_eq!((0..50).filter(|_| access.admits_sign_in(NEAR)).count(), 10);
        assert!(access.admits_sign_in(Peer::Address([192, 0, 2, 1].into())));
        let v6 = |host: u16| Peer::Address(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, host).into());
        assert_eq!((0..50).filter(|n| access.admits_sign_in(v6(*n))).count(), 10);
    }
}
