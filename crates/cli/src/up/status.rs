//! The status daemon and its sockets: people look at it, nothing depends on it.

use super::backoff::Backoff;
use super::programs::Programs;
use crate::error::{Error, Result};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::str::FromStr;
use std::time::Instant;
use unix::Signal;
use unix::paths::Layout;
use unix::pidfd::ExitStatus;
use unix::spawn::Child;

/// Where the pages are, if nobody says otherwise and nobody else is there.
const PORT: u16 = 8420;

/// What `--status` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// Exactly here.
    At(SocketAddr),
    /// Nowhere.
    Nowhere,
}

impl FromStr for Where {
    type Err = String;
    fn from_str(text: &str) -> std::result::Result<Where, String> {
        if text == "none" {
            return Ok(Where::Nowhere);
        }
        let address: SocketAddr = text.parse().map_err(|_| "write 127.0.0.1:PORT, [::1]:PORT or none".to_owned())?;
        if !address.ip().is_loopback() {
            return Err("only this machine is answered: anybody who reaches the pages sees everything without signing in. Write 127.0.0.1:PORT, and put a web server with TLS and sign-in before it".to_owned());
        }
        Ok(Where::At(address))
    }
}

/// The sockets and the daemon behind them.
#[derive(Debug)]
pub struct Status {
    sockets: Option<(TcpListener, UnixListener)>,
    /// The process.
    pub child: Option<Child>,
    started: Instant,
    backoff: Backoff,
    /// When it is to be started.
    pub start_at: Option<Instant>,
}

impl Status {
    /// Listens. It is not started yet: it reads the database that the queue daemon makes.
    pub fn listen(layout: &Layout, wanted: Option<Where>) -> Result<Status> {
        let sockets = match wanted {
            Some(Where::Nowhere) => None,
            Some(Where::At(address)) => {
                let failed = |e| Error::failed(format!("cannot show the status pages at {address}: {e}"));
                Some(TcpListener::bind(address).map_err(|e| failed(e).hint("Choose another address with --status, or --status none."))?)
            }
            None => {
                let at = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
                Some(at(PORT).or_else(|_| at(0)).map_err(|e| Error::failed(format!("cannot show the status pages: {e}")))?)
            }
        };
        let sockets = match sockets {
            Some(tcp) => Some((tcp, unix::socket::listen(&layout.status_socket(), 0o600)?)),
            None => None,
        };
        let status = Status { sockets, child: None, started: Instant::now(), backoff: Backoff::default(), start_at: None };
        if let Some(url) = status.url() {
            unix::files::write_with_mode(&layout.status_url(), format!("{url}\n").as_bytes(), 0o600)?;
        }
        Ok(status)
    }

    /// Where the pages are.
    pub fn url(&self) -> Option<String> {
        let (tcp, _) = self.sockets.as_ref()?;
        tcp.local_addr().ok().map(|address| format!("http://{address}/"))
    }

    /// Starts it, if it is wanted.
    pub fn start(&mut self, programs: &Programs) {
        self.started = Instant::now();
        self.start_at = None;
        let Some((tcp, unix)) = &self.sockets else { return };
        match programs.status(tcp, unix) {
            Ok(child) => self.child = Some(child),
            Err(error) => {
                log::error!("there are no status pages: borgcube-statusd does not start: {}", error.message());
                self.rest();
            }
        }
    }

    /// It has ended although nobody wanted that.
    pub fn ended(&mut self, status: ExitStatus) {
        self.child = None;
        log::error!("borgcube-statusd {status}; it is started again");
        self.rest();
    }

    fn rest(&mut self) {
        self.start_at = Some(Instant::now() + self.backoff.failed(self.started.elapsed()));
    }

    /// Ends it, by this signal. It has nothing to lose.
    pub fn signal(&mut self, signal: Signal) {
        self.start_at = None;
        if let Some(Err(error)) = self.child.as_ref().map(|child| child.pidfd.signal(signal)) {
            log::error!("borgcube-statusd: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine() {
        assert_eq!("none".parse(), Ok(Where::Nowhere));
        assert!(matches!("127.0.0.1:0".parse(), Ok(Where::At(_))));
        assert!(matches!("[::1]:8420".parse(), Ok(Where::At(_))));
        assert!("0.0.0.0:8420".parse::<Where>().unwrap_err().contains("only this machine"));
        assert!("8420".parse::<Where>().is_err());
    }
}
