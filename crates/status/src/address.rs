//! Where to listen, and what may be reached from elsewhere.

use anyhow::{Context, bail};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::str::FromStr;

/// An address on the command line: `127.0.0.1:PORT`, `[::1]:PORT` or `unix:PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;
    fn from_str(text: &str) -> Result<Address, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') {
                return Err("the path of a Unix socket is absolute, for example unix:/run/borgcube/status.sock".into());
            }
            return Ok(Address::Unix(path.into()));
        }
        let wrong = |_| format!("{text:?} is no address: write 127.0.0.1:8420, [::1]:8420 or unix:/PATH");
        text.parse().map(Address::Tcp).map_err(wrong)
    }
}

/// A listening socket.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A Unix socket, and where it is: it is made under another name, which is all that it knows of itself.
    Unix(std::os::unix::net::UnixListener, PathBuf),
}

impl Listener {
    /// Listens at `address`. A Unix socket is for its owner and group.
    pub fn bind(address: &Address) -> anyhow::Result<Listener> {
        match address {
            Address::Tcp(address) => {
                let listener = std::net::TcpListener::bind(address).with_context(|| format!("cannot listen at {address}"))?;
                Ok(Listener::Tcp(listener))
            }
            Address::Unix(path) => Ok(Listener::Unix(unix::socket::listen(path, 0o660)?, path.clone())),
        }
    }

    /// A socket that somebody handed over.
    pub fn from_fd(fd: OwnedFd) -> anyhow::Result<Listener> {
        let tcp = std::net::TcpListener::from(fd.try_clone().context("a handed socket cannot be used")?);
        if tcp.local_addr().is_ok() {
            return Ok(Listener::Tcp(tcp));
        }
        let unix = std::os::unix::net::UnixListener::from(fd);
        let address = unix.local_addr().context("what was handed over is no listening socket")?;
        // Whoever handed it over may have given it another name since, which the kernel does not tell.
        let path = address.as_pathname().filter(|path| path.exists()).map(PathBuf::from).unwrap_or_default();
        Ok(Listener::Unix(unix, path))
    }

    /// Whether others than processes of this machine can connect.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        match self {
            Listener::Unix(..) => false,
            Listener::Tcp(tcp) => !tcp.local_addr().is_ok_and(|address| address.ip().is_loopback()),
        }
    }

    /// For people.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Listener::Tcp(tcp) => tcp.local_addr().map_or_else(|e| e.to_string(), |address| format!("http://{address}/")),
            Listener::Unix(_, path) if path.as_os_str().is_empty() => "a Unix socket that was handed over".to_owned(),
            Listener::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }
}

/// Two settings before anybody outside this machine is answered: that it is meant, and under which names.
pub fn check_exposure(listeners: &[Listener], exposed: bool, hosts: &[String]) -> anyhow::Result<()> {
    let Some(open) = listeners.iter().find(|listener| listener.is_exposed()) else { return Ok(()) };
    if !exposed || hosts.is_empty() {
        bail!(
            "{} can be reached from other machines, and tokens would travel to it in the clear: better put a web server with TLS before \
             127.0.0.1. If it is meant, say so twice: --expose, and --host NAME for the name it is called by",
            open.describe()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!("unix:/run/x.sock".parse(), Ok(Address::Unix("/run/x.sock".into())));
        assert!(matches!("[::1]:80".parse(), Ok(Address::Tcp(_))));
        for bad in ["8420", "localhost:8420", "unix:x", "", "127.0.0.1", "127.0.0.1:99999"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_unix_socket_is_called_by_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("status.sock");
        let listener = Listener::bind(&Address::Unix(path.clone())).unwrap();
        assert_eq!(listener.describe(), format!("unix:{}", path.display()));
        let handed = Listener::from_fd(std::os::unix::net::UnixListener::bind(directory.path().join("x")).unwrap().into()).unwrap();
        assert_eq!(handed.describe(), format!("unix:{}", directory.path().join("x").display()));
    }

    #[test]
    fn two_settings_open_it() {
        let anywhere = [Listener::bind(&"0.0.0.0:0".parse().unwrap()).unwrap()];
        let name = ["backup.example.net".to_owned()];
        assert!(check_exposure(&anywhere, false, &[]).is_err());
        assert!(check_exposure(&anywhere, true, &[]).is_err());
        assert!(check_exposure(&anywhere, false, &name).unwrap_err().to_string().contains("--expose"));
        assert!(check_exposure(&anywhere, true, &name).is_ok());
        let loopback = [Listener::bind(&"127.0.0.1:0".parse().unwrap()).unwrap()];
        assert!(check_exposure(&loopback, false, &[]).is_ok());
    }
}
