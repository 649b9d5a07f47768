//! Where a repository is, and the command that serves it.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// How another host is reached if nobody says otherwise. Nobody is there to answer a question, and a dead host must not keep a backup
/// waiting for ever.
pub const SSH: &str = "ssh -oBatchMode=yes -oConnectTimeout=30 -oServerAliveInterval=30";

/// A parsed repository URL: an absolute path, or `ssh://[user@]host[:port]/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// On this machine.
    Local(PathBuf),
    /// On another one.
    Ssh {
        /// `user@host` or `host`; an IPv6 address without its brackets.
        host: String,
        /// The port, if it is not ssh's default.
        port: Option<u16>,
        /// What Borg sends as the path: with its leading slash, `/./x` and `/~/x` for relative ones (Borg 1.x).
        path: String,
    },
}

impl Location {
    /// Reads a URL.
    pub fn parse(url: &str) -> Result<Location> {
        let refuse = || Error::BadUrl(format!("{url:?} is neither an absolute path nor ssh://user@host/path"));
        let Some(rest) = url.strip_prefix("ssh://") else {
            if !Path::new(url).is_absolute() || url.contains('\0') {
                return Err(refuse());
            }
            return Ok(Location::Local(url.into()));
        };
        let (authority, path) = rest.split_at(rest.find('/').ok_or_else(refuse)?);
        let (user, address) = match authority.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, authority),
        };
        let (name, port) = match address.strip_prefix('[') {
            Some(bracketed) => {
                let (name, port) = bracketed.split_once(']').ok_or_else(refuse)?;
                (name, port.strip_prefix(':'))
            }
            None => match address.split_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (address, None),
            },
        };
        let port = port.map(|port| port.parse().map_err(|_| refuse())).transpose()?;
        let host = user.map_or_else(|| name.to_owned(), |user| format!("{user}@{name}"));
        // Something that begins with a dash would be an option to ssh.
        if name.is_empty() || host.starts_with('-') || name.starts_with('-') || path.len() < 2 || rest.contains('\0') {
            return Err(refuse());
        }
        Ok(Location::Ssh { host, port, path: path.to_owned() })
    }

    /// The path for the RPC call `open`.
    pub(crate) fn path(&self) -> &[u8] {
        match self {
            Location::Local(path) => path.as_os_str().as_encoded_bytes(),
            Location::Ssh { path, .. } => path.as_bytes(),
        }
    }

    /// Program and arguments of the child.
    pub(crate) fn command(&self, borg: &str, rsh: Option<&str>) -> Result<Vec<String>> {
        let Location::Ssh { host, port, .. } = self else {
            return Ok(vec![borg.to_owned(), "serve".to_owned()]);
        };
        let rsh = rsh.unwrap_or(SSH);
        let mut words = split(rsh).ok_or_else(|| Error::BadUrl(format!("the ssh command {rsh:?} has an open quote")))?;
        if words.is_empty() {
            return Err(Error::BadUrl("the ssh command is empty".into()));
        }
        if let Some(port) = port {
            words.extend(["-p".to_owned(), port.to_string()]);
        }
        words.extend([host.clone(), borg.to_owned(), "serve".to_owned()]);
        Ok(words)
    }

    /// Who holds the lock, where the file system shows it: `host@id.pid-thread` as Borg notes it.
    pub(crate) fn lock_holder(&self) -> Option<String> {
        let Location::Local(path) = self else { return None };
        let entries = std::fs::read_dir(path.join("lock.exclusive")).ok()?;
        let names: Vec<_> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }
}

/// Splits a command line as a POSIX shell would, without expanding anything; None if a quote is open.
fn split(line: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (vec![], None::<String>, None);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (_, '\\') => word.get_or_insert_default().push(chars.next()?),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_their_commands() {
        let words = |url: &str, rsh| Location::parse(url).unwrap().command("borg", rsh).unwrap().join("|");
        assert_eq!(words("/srv/r", None), "borg|serve");
        assert_eq!(words("ssh://b@h:22/srv/r", Some("ssh -i 'a b'")), "ssh|-i|a b|-p|22|b@h|borg|serve");
        assert!(words("ssh://h/./r", None).ends_with("|h|borg|serve"));
        let path = |url: &str| Location::parse(url).unwrap().path().to_vec();
        assert_eq!(path("ssh://h/./r"), b"/./r");
        assert_eq!(path("ssh://h/~/r"), b"/~/r");
        assert_eq!(path("/srv/r"), b"/srv/r");
        let six = Location::parse("ssh://[::1]:2222/r").unwrap();
        assert_eq!(six, Location::Ssh { host: "::1".into(), port: Some(2222), path: "/r".into() });
    }

    #[test]
    fn what_is_no_url() {
        for bad in ["r", "", "ssh://h", "ssh:///r", "ssh://h/", "ssh://-oX/r", "ssh://u@-oX/r", "ssh://h:x/r", "/a\0b"] {
            assert!(matches!(Location::parse(bad), Err(Error::BadUrl(_))), "{bad}");
        }
        assert!(Location::parse("ssh://h/r").unwrap().command("borg", Some("ssh 'x")).is_err());
        assert!(Location::parse("ssh://h/r").unwrap().command("borg", Some(" ")).is_err());
    }

    #[test]
    fn words_of_a_shell() {
        assert_eq!(split(r#"a "b \"c" d\ e '' 'f\'"#).unwrap(), ["a", "b \"c", "d e", "", "f\\"]);
        assert_eq!(split("a \\"), None);
    }
}
