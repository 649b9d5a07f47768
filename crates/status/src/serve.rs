//! Connections: accepting them, limits on them, and the stop.

use crate::access::{Access, Peer};
use crate::address::Listener;
use crate::browse::Reading;
use crate::guard::Hosts;
use crate::hub::Hub;
use crate::patient::{Patient, STUCK};
use crate::routes::{App, Outcomes};
use crate::sessions::Sessions;
use crate::source::Source;
use crate::viewer::{Place, Viewer};
use anyhow::Context;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
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
        sessions: Sessions::default(),
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
    let sessions = tokio::spawn(Arc::clone(&app).keep_sessions());
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
    sessions.abort();
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
            Listener::Unix(unix, _) => {
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
                    drop(tokio::spawn(converse(stream, peer, app, stopping, (permit, counted))));
                }
            }
            Ok(Accepted::Unix(stream)) => {
                let peer = Peer::User(stream.peer_cred().ok().map(|credentials| credentials.uid()));
                drop(tokio::spawn(converse(stream, peer, app, stopping, (permit, None))));
            }
            Err(e) => {
                log::warn!("a connection cannot be accepted: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// A connection's place among all of them and among those of its peer, for as long as it is one.
type Held = (OwnedSemaphorePermit, Option<Counted>);

/// How HTTP ends on a connection.
enum Ended {
    /// There are no more requests.
    Over(hyper::Result<()>),
    /// Its last request was for live events, and this is how the answer begins.
    Onward(Viewer, Vec<u8>),
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    peer: Peer,
    app: Arc<App>,
    mut stopping: watch::Receiver<bool>,
    held: Held,
) {
    let place = Place::default();
    let left = place.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (app, place) = (Arc::clone(&app), place.clone());
        request.extensions_mut().insert(place.clone());
        // In memory of its own, which is free when the answer is there.
        let answering: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(async move {
            let answer = app.answer(request, peer).await;
            if place.is_left(&answer) {
                // HTTP has nothing more to do here; see below.
                std::future::pending::<()>().await;
            }
            Ok::<_, Infallible>(answer)
        });
        answering
    });
    let io = Patient::new(stream, STUCK);
    let stuffed = io.stuffed();
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_SIZE)
        .max_headers(64)
        .serve_connection(TokioIo::new(io), service);
    let mut is_stopping = *stopping.borrow();
    let ended = loop {
        let served = std::future::poll_fn(|context| match connection.poll_without_shutdown(context) {
            Poll::Ready(ended) => Poll::Ready(Ended::Over(ended)),
            // Answers to earlier requests are sent before: only the other end can keep them waiting.
            Poll::Pending if stuffed.is_so() => Poll::Pending,
            Poll::Pending => left.take().map_or(Poll::Pending, |(viewer, head)| Poll::Ready(Ended::Onward(viewer, head))),
        });
        tokio::select! {
            ended = served => break ended,
            // Once: then the sender is gone, or answers under way are waited for.
            _ = stopping.changed(), if !is_stopping => {
                is_stopping = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    match ended {
        Ended::Onward(..) if is_stopping => {}
        Ended::Onward(viewer, head) => {
            let parts = connection.into_parts();
            // A copy, which is hardly ever of anything: what is there is a part of HTTP's large buffer.
            let (io, heard) = (parts.io.into_inner(), parts.read_buf.to_vec());
            // A task of its own: this one has room for all of HTTP.
            tokio::spawn(async move {
                viewer.look(head, io, heard, stopping).await;
                drop(held);
            });
        }
        Ended::Over(Ok(())) => {
            if let Err(e) = connection.into_parts().io.into_inner().shutdown().await {
                log::debug!("a connection ended: {e}");
            }
        }
        Ended::Over(Err(e)) => log::debug!("a connection ended: {e}"),
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
