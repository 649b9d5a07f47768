//! Connections: accepting them, limits on them, and the stop.

use crate::access::{Access, Peer};
use crate::address::Listener;
use crate::browse::Reading;
use crate::guard::Hosts;
use crate::hub::Hub;
use crate::routes::{App, Outcomes};
use crate::source::Source;
use anyhow::Context;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use unix::paths::Layout;

/// How long a client may take for a request's head; also how long a connection may be idle.
const HEAD_TIME: Duration = Duration::from_secs(20);
/// The largest head of a request.
const HEAD_SIZE: usize = 16 * 1024;
/// How long answers under way may take when we stop.
const GRACE: Duration = Duration::from_secs(3);

/// What one server does at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Viewers of live events.
    pub viewers: usize,
    /// Connections besides theirs.
    pub others: usize,
    /// Threads that read the database, and so of LMDB's slots.
    pub readers: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { viewers: 4000, others: 500, readers: 4 }
    }
}

/// Serves until SIGTERM or SIGINT.
pub async fn serve(layout: &Layout, listeners: Vec<Listener>, hosts: Hosts, access: Access, limits: Limits) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, stopping) = watch::channel(false);
    let hub = Arc::new(Hub::new());
    let app = Arc::new(App {
        source: Arc::new(Source::new(layout.db())),
        hub: Arc::clone(&hub),
        control: layout.control_socket(),
        hosts,
        installed: layout.is_installed(),
        access,
        outcomes: Outcomes::default(),
        limits,
        viewers: Arc::new(Semaphore::new(limits.viewers)),
        questions: Semaphore::new(crate::control::QUESTIONS),
        crowd: Arc::default(),
        deeds: Semaphore::new(crate::control::QUESTIONS),
        readers: Arc::new(Semaphore::new(limits.readers)),
        reading: Arc::new(Reading::new(layout.clone())),
        started: model::Timestamp::now(),
        stopping: stopping.clone(),
    });
    let connections = Arc::new(Semaphore::new(limits.viewers + limits.others));
    let watching = tokio::spawn(Arc::clone(&hub).run(layout.control_socket()));
    let alive = tokio::spawn(Arc::clone(&hub).keep_alive());
    let tidy = tokio::spawn(Arc::clone(&app.reading).keep_tidy());
    let mut accepting = vec![];
    for listener in listeners {
        log::info!("listening at {}", listener.describe());
        let listener = Accepting::new(listener).context("a socket cannot be used")?;
        let (app, connections, stopping) = (Arc::clone(&app), Arc::clone(&connections), stopping.clone());
        accepting.push(tokio::spawn(accept(listener, app, connections, stopping)));
    }
    // The first look at a large database takes a moment: before somebody waits for it.
    let source = Arc::clone(&app.source);
    let warm = tokio::task::spawn_blocking(move || source.read(|_, _, _| Ok(())));
    drop(warm);
    unix::notify::ready()?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    log::info!("stopping");
    unix::notify::stopping()?;
    // Everybody who answers holds a receiver.
    let _ = stop.send(true);
    for task in accepting {
        let _ = task.await;
    }
    drop(stopping);
    let everybody = u32::try_from(limits.viewers + limits.others).unwrap_or(u32::MAX);
    let ended = tokio::time::timeout(GRACE, connections.acquire_many(everybody)).await;
    if ended.is_err() {
        log::info!("not all connections have ended in time");
    }
    watching.abort();
    alive.abort();
    tidy.abort();
    Ok(())
}

/// A listening socket that can be waited for.
enum Accepting {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

enum Accepted {
    Tcp(tokio::net::TcpStream, std::net::IpAddr),
    Unix(tokio::net::UnixStream),
}

impl Accepting {
    fn new(listener: Listener) -> std::io::Result<Accepting> {
        match listener {
            Listener::Tcp(tcp) => {
                tcp.set_nonblocking(true)?;
                Ok(Accepting::Tcp(tokio::net::TcpListener::from_std(tcp)?))
            }
            Listener::Unix(unix) => {
                unix.set_nonblocking(true)?;
                Ok(Accepting::Unix(tokio::net::UnixListener::from_std(unix)?))
            }
        }
    }

    async fn next(&self) -> std::io::Result<Accepted> {
        match self {
            Accepting::Tcp(tcp) => {
                let (stream, address) = tcp.accept().await?;
                // An event is small, and is to be seen at once.
                stream.set_nodelay(true)?;
                Ok(Accepted::Tcp(stream, address.ip()))
            }
            Accepting::Unix(unix) => Ok(Accepted::Unix(unix.accept().await?.0)),
        }
    }
}

/// Connections that one address of another machine may have at once: nobody takes the places of all.
const OF_ONE: usize = 256;

/// How many connections other machines have.
#[derive(Debug, Default)]
pub struct Crowd(Mutex<HashMap<Peer, usize>>);

/// One of them, until it is dropped.
struct Counted(Arc<Crowd>, Peer);

impl Crowd {
    /// None: this peer has enough. This machine's own are not counted: a web server here comes for everybody.
    fn admit(self: &Arc<Crowd>, peer: Peer) -> Option<Option<Counted>> {
        if peer.is_near() {
            return Some(None);
        }
        let mut crowd = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = crowd.entry(peer.key()).or_default();
        (*count < OF_ONE).then(|| {
            *count += 1;
            Some(Counted(Arc::clone(self), peer.key()))
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut crowd = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = crowd.entry(self.1) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

async fn accept(listener: Accepting, app: Arc<App>, connections: Arc<Semaphore>, mut stopping: watch::Receiver<bool>) {
    loop {
        // Who comes when we have enough waits in the kernel's queue.
        let permit = tokio::select! {
            permit = Arc::clone(&connections).acquire_owned() => permit,
            _ = stopping.changed() => return,
        };
        let Ok(permit) = permit else { return };
        let accepted = tokio::select! {
            accepted = listener.next() => accepted,
            _ = stopping.changed() => return,
        };
        let (app, stopping) = (Arc::clone(&app), stopping.clone());
        match accepted {
            Ok(Accepted::Tcp(stream, address)) => {
                let peer = Peer::Address(address);
                // Whoever has too many finds this one closed.
                if let Some(counted) = app.crowd.admit(peer) {
                    drop(tokio::spawn(async move {
                        converse(stream, peer, app, stopping, permit).await;
                        drop(counted);
                    }));
                }
            }
            Ok(Accepted::Unix(stream)) => {
                let peer = Peer::User(stream.peer_cred().ok().map(|credentials| credentials.uid()));
                drop(tokio::spawn(converse(stream, peer, app, stopping, permit)));
            }
            Err(e) => {
                log::warn!("a connection cannot be accepted: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// A place among the connections, for those requests that outlive HTTP.
#[derive(Debug, Clone)]
pub struct Connection(#[expect(dead_code, reason = "held, not looked at")] Arc<OwnedSemaphorePermit>);

async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    peer: Peer,
    app: Arc<App>,
    mut stopping: watch::Receiver<bool>,
    permit: OwnedSemaphorePermit,
) {
    let place = Connection(Arc::new(permit));
    let service = service_fn(move |mut request: Request<Incoming>| {
        let app = Arc::clone(&app);
        request.extensions_mut().insert(place.clone());
        async move { Ok::<_, Infallible>(app.answer(request, peer).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_SIZE)
        .max_headers(64)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = stopping.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = ended {
        log::debug!("a connection ended: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_some_places_and_others_have_their_own() {
        let crowd = Arc::new(Crowd::default());
        let peer = |last| Peer::Address([192, 0, 2, last].into());
        let all: Vec<_> = (0..OF_ONE).map(|_| crowd.admit(peer(1)).expect("a place")).collect();
        assert!(crowd.admit(peer(1)).is_none() && crowd.admit(peer(2)).is_some());
        let near = Peer::Address([127, 0, 0, 1].into());
        assert!((0..OF_ONE * 2).all(|_| crowd.admit(near).is_some_and(|counted| counted.is_none())));
        drop(all);
        assert!(crowd.admit(peer(1)).is_some());
        assert!(crowd.0.lock().unwrap().is_empty(), "who is gone is forgotten");
    }
}
