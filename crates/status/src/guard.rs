//! What is refused before anybody looks at what is asked, and what every answer says to browsers.

use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Uri};
use std::collections::BTreeSet;

/// Names that always mean this machine.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// What is behind it is the id of a trigger.
pub const TRIGGER: &str = "/trigger/";

/// Where people sign in.
pub const SIGN_IN: &str = "/sign-in";

/// Where somebody signs in who then goes on to `next`.
#[must_use]
pub fn sign_in(next: &str) -> String {
    let next: String = form_urlencoded::byte_serialize(next.as_bytes()).collect();
    format!("{SIGN_IN}?next={next}")
}

/// What something happens at, and how.
const BY_POST: [(&str, &str); 4] = [
    (TRIGGER, "a trigger is used by POST"),
    ("/do/", "that is done by POST"),
    ("/api/v1/do/", "that is done by POST"),
    ("/sign-out", "signing out is done by POST"),
];

/// The longest path with its query.
const MAX_URI: usize = 4096;
/// The same below archives: a file's path has 4096 bytes on Linux, of which each may take three.
const MAX_FILE: usize = 13_000;

/// Scripts, styles and pictures come from here; nothing is inline, nothing comes from elsewhere, nobody frames a page.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The names that this server is called by. A page of somebody else's, whose name points to this machine since a moment ago (DNS rebinding),
/// calls it by another one.
#[derive(Debug, Clone)]
pub struct Hosts(BTreeSet<String>);

impl Hosts {
    /// Those of this machine and `names`.
    pub fn new(names: &[String]) -> anyhow::Result<Hosts> {
        for name in names {
            let usable = !name.is_empty() && name.len() <= 255 && name.chars().all(|c| c.is_ascii_alphanumeric() || "-._[]:".contains(c));
            if !usable {
                anyhow::bail!("--host {name:?} is no host name");
            }
        }
        Ok(Hosts(LOOPBACK.into_iter().map(str::to_owned).chain(names.iter().map(|name| name.to_ascii_lowercase())).collect()))
    }

    /// Whether a Host header names one of them, with any port.
    #[must_use]
    pub fn allows(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port))
                if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && (!name.contains(':') || name.ends_with(']')) =>
            {
                name
            }
            _ => host,
        };
        self.0.contains(&name.to_ascii_lowercase())
    }
}

impl Hosts {
    /// Whether this is one of the names that somebody chose for this server, with any port.
    #[must_use]
    pub fn names(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let is_loopback = LOOPBACK.iter().any(|name| host.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(':')));
        self.allows(&host) && !is_loopback
    }
}

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It would change something, or start something by looking.
    Method {
        /// What the Allow header says.
        allowed: &'static str,
        /// What people read.
        sentence: &'static str,
    },
    /// The name it calls this server by is not one of ours.
    Host,
    /// It is too long.
    Uri,
    /// It has empty parts, by which it could pass for another one.
    Path,
}

/// Looks at a request's head.
pub fn check(hosts: &Hosts, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refused> {
    let mut named = headers.get_all(header::HOST).iter();
    let (host, another) = (named.next(), named.next());
    // A request line with a name in it overrides the header (RFC 9112, 3.2.2).
    let host = uri.authority().map(|authority| authority.as_str()).or(host.and_then(|host| host.to_str().ok()));
    if another.is_some() || !host.is_some_and(|host| hosts.allows(host)) {
        return Err(Refused::Host);
    }
    let is_file = ["/archives/", "/api/v1/archives/"].iter().any(|start| uri.path().starts_with(start));
    if uri.path().contains("//") && !is_file {
        return Err(Refused::Path);
    }
    let is_looking = method == Method::GET || method == Method::HEAD;
    // A preview of a link must not start anything.
    if let Some((_, sentence)) = BY_POST.iter().find(|(beginning, _)| uri.path().starts_with(beginning)) {
        if method != Method::POST {
            return Err(Refused::Method { allowed: "POST", sentence });
        }
    } else if uri.path() == SIGN_IN {
        if !is_looking && method != Method::POST {
            return Err(Refused::Method { allowed: "GET, HEAD, POST", sentence: "signing in is a form" });
        }
    } else if !is_looking {
        return Err(Refused::Method {
            allowed: "GET, HEAD",
            sentence: "that can only be looked at; what can be done has addresses below /do",
        });
    }
    let most = if is_file { MAX_FILE } else { MAX_URI };
    if uri.path_and_query().is_some_and(|path| path.as_str().len() > most) {
        return Err(Refused::Uri);
    }
    Ok(())
}

/// Whether the page that sent this request is one of ours, as browsers say in its Origin. Who says nothing is no page.
#[must_use]
pub fn is_own_origin(hosts: &Hosts, headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    match (authority, host) {
        (Some(authority), Some(host)) if authority.eq_ignore_ascii_case(host) => true,
        // A web server before us may call us by another name than the one that browsers know; but this machine's own names are anybody's on it.
        (Some(authority), _) => hosts.names(authority),
        _ => false,
    }
}

/// Puts into an answer what every answer has.
pub fn harden(headers: &mut HeaderMap) {
    let all = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // With none at all browsers would send forms as those of nobody ("Origin: null").
        (header::REFERRER_POLICY, "same-origin"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
    ];
    for (name, value) in all {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine_and_no_others() {
        let hosts = Hosts::new(&["Backup.example.net".into()]).unwrap();
        for good in ["localhost", "localhost:8420", "127.0.0.1:1", "[::1]:8420", "[::1]", "LOCALHOST", "backup.example.net:443"] {
            assert!(hosts.allows(good), "{good}");
        }
        for bad in
            ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil", "localhost:", "localhost:x", "::1", "127.0.0.2", "a:b:1"]
        {
            assert!(!hosts.allows(bad), "{bad}");
        }
        assert!(Hosts::new(&["a b".into()]).is_err());
    }

    #[test]
    fn pages_of_ours_and_of_others() {
        let hosts = Hosts::new(&["backup.example.net".into()]).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("127.0.0.1:8420"));
        assert!(is_own_origin(&hosts, &headers));
        for (origin, is_own) in [
            ("http://127.0.0.1:8420", true),
            ("https://backup.example.net", true),
            ("http://127.0.0.1:3000", false),
            ("http://localhost", false),
            ("https://evil.example", false),
            ("null", false),
        ] {
            headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            assert_eq!(is_own_origin(&hosts, &headers), is_own, "{origin}");
        }
    }

    #[test]
    fn two_names_are_none() {
        let hosts = Hosts::new(&[]).unwrap();
        let uri: Uri = "/".parse().unwrap();
        let mut headers = HeaderMap::new();
        assert_eq!(check(&hosts, &Method::GET, &uri, &headers), Err(Refused::Host));
        headers.append(header::HOST, HeaderValue::from_static("localhost"));
        assert_eq!(check(&hosts, &Method::GET, &uri, &headers), Ok(()));
        for odd in ["//do/run-config", "/api/v1//do/run-config", "//trigger/x"] {
            assert_eq!(check(&hosts, &Method::GET, &odd.parse().unwrap(), &headers), Err(Refused::Path), "{odd}");
        }
        assert!(matches!(check(&hosts, &Method::POST, &uri, &headers), Err(Refused::Method { allowed: "GET, HEAD", .. })));
        let trigger: Uri = "/trigger/x".parse().unwrap();
        assert_eq!(check(&hosts, &Method::POST, &trigger, &headers), Ok(()));
        assert!(matches!(check(&hosts, &Method::GET, &trigger, &headers), Err(Refused::Method { allowed: "POST", .. })));
        assert_eq!(check(&hosts, &Method::GET, &"http://evil.example/".parse().unwrap(), &headers), Err(Refused::Host));
        headers.append(header::HOST, HeaderValue::from_static("evil.example"));
        assert_eq!(check(&hosts, &Method::GET, &uri, &headers), Err(Refused::Host));
    }
}
