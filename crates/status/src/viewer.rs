//! Viewers of live events: what is left of a connection once its request is answered and only events follow.
//!
//! HTTP needs buffers of many kilobytes and knows nothing to do with them while nothing happens. So the connection is taken from it
//! ([`Place`]) when the request has been understood, and what remains is a socket, a place in the hub's channel and a small task.

use crate::hub::{Joined, resync};
use crate::patient::Patient;
use crate::render::Answer;
use crate::sessions::Session;
use crate::socket;
use hyper::body::Bytes;
use model::Timestamp;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, watch};

/// Bytes of a viewer that are heard and thrown away; whoever says more is no viewer.
const MAX_HEARD: usize = 64 << 10;

/// How events are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Server-sent events, until the connection is closed.
    Stream,
    /// A WebSocket.
    Socket,
}

/// Somebody who gets live events from now on.
pub struct Viewer {
    /// How.
    pub how: How,
    /// What comes first, and everything after it.
    pub joined: Joined,
    /// As long as the viewer may look.
    pub session: Session,
    /// Among the viewers; free when this one is gone.
    pub place: OwnedSemaphorePermit,
}

/// Where an answer leaves word that its connection is a viewer's from now on.
#[derive(Clone, Default)]
pub struct Place(Arc<Mutex<Option<Left>>>);

/// A viewer, and how its answer begins as soon as that is known.
type Left = (Viewer, Option<Vec<u8>>);

impl Place {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Left>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer that is about to be given is this viewer's.
    pub fn leave(&self, viewer: Viewer) {
        *self.lock() = Some((viewer, None));
    }

    /// The answer is there. Whether somebody takes the connection over, and HTTP has nothing more to say on it.
    #[must_use]
    pub fn is_left(&self, answer: &Answer) -> bool {
        match &mut *self.lock() {
            Some((_, head)) => {
                *head = Some(head_of(answer));
                true
            }
            None => false,
        }
    }

    /// The viewer, and what the answer begins with.
    #[must_use]
    pub fn take(&self) -> Option<(Viewer, Vec<u8>)> {
        let mut left = self.lock();
        match left.take() {
            Some((viewer, Some(head))) => Some((viewer, head)),
            other => {
                *left = other;
                None
            }
        }
    }
}

/// An answer's head as it is sent.
fn head_of(answer: &Answer) -> Vec<u8> {
    let status = answer.status();
    let mut head = format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or_default()).into_bytes();
    for (name, value) in answer.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    let now = jiff::Timestamp::from_microsecond(Timestamp::now().0).unwrap_or_default();
    if let Ok(date) = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&now) {
        head.extend_from_slice(format!("date: {date}\r\n").as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    head
}

impl Viewer {
    /// Tells it what happens until it is gone, may not look any more, or we stop. `heard`: what it said behind its request.
    pub async fn look<S>(self, head: Vec<u8>, mut io: Patient<S>, heard: Vec<u8>, stopping: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Viewer { how, joined, session, place } = self;
        match how {
            How::Stream => stream(head, &mut io, joined, session, stopping).await,
            // Much larger than the other one, which is the usual one.
            How::Socket => Box::pin(socket::converse(head, io, heard, joined, session, stopping)).await,
        }
        drop(place);
    }
}

async fn stream<S>(head: Vec<u8>, io: &mut Patient<S>, joined: Joined, mut session: Session, mut stopping: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Joined { first, mut rest } = joined;
    // One after the other: they are everybody's, a copy would be this viewer's.
    let mut missed = first.into_iter();
    let mut bytes = Bytes::from(head);
    let mut heard = 0;
    loop {
        tokio::select! {
            written = io.write_all(&bytes) => if let Err(e) = written {
                return log::debug!("a viewer is gone: {e}");
            },
            () = session.ended() => return,
            _ = stopping.changed() => return,
        }
        // Not kept while nothing happens.
        bytes = missed.next().map_or_else(Bytes::new, |frame| frame.bytes);
        if bytes.is_empty() {
            missed = vec![].into_iter();
        }
        while bytes.is_empty() {
            tokio::select! {
                received = rest.recv() => bytes = match received {
                    Ok(frame) => frame.bytes,
                    // Too slow for all of it; the present state is what matters.
                    Err(RecvError::Lagged(_)) => resync().bytes,
                    Err(RecvError::Closed) => return,
                },
                said = hear(io) => match said {
                    0 => return,
                    more => {
                        heard += more;
                        if heard > MAX_HEARD {
                            return log::debug!("a viewer talks");
                        }
                    }
                },
                () = session.ended() => return,
                _ = stopping.changed() => break,
            }
        }
        if bytes.is_empty() {
            break;
        }
    }
    // So that what was sent is not lost with what nobody read.
    if let Err(e) = io.shutdown().await {
        log::debug!("a viewer is gone already: {e}");
    }
}

/// How much the other end has said, of no meaning; 0: it is gone. There is no buffer while it says nothing.
async fn hear<S: AsyncRead + Unpin>(io: &mut S) -> usize {
    std::future::poll_fn(|context| {
        let mut space = [0; 256];
        let mut buffer = ReadBuf::new(&mut space);
        let read = Pin::new(&mut *io).poll_read(context, &mut buffer);
        read.map(|read| if read.is_ok() { buffer.filled().len() } else { 0 })
    })
    .await
}

/// How large a viewer is while nothing happens, in bytes: for tests.
#[cfg(test)]
fn size() -> usize {
    let size_of = |task: fn(Viewer, Patient<tokio::net::TcpStream>, watch::Receiver<bool>) -> _| returned_size(task);
    size_of(|viewer, io, stopping| viewer.look(vec![], io, vec![], stopping))
}

#[cfg(test)]
fn returned_size<A, B, C, F>(_: fn(A, B, C) -> F) -> usize {
    size_of::<F>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Hub;
    use crate::patient::STUCK;
    use crate::sessions::Sessions;
    use tokio::io::AsyncReadExt;
    use tokio::sync::Semaphore;

    #[test]
    fn an_idle_viewer_is_small() {
        // Of thousands of them: a few kilobytes of such tasks would be a few megabytes too many.
        assert!(size() < 1500, "{} bytes", size());
    }

    #[tokio::test]
    async fn events_end_with_the_session_and_with_the_viewer() {
        let (hub, sessions, places) = (Hub::new(), Sessions::default(), Arc::new(Semaphore::new(9)));
        let credential = model::web_user::Credential::Proxy { name: "bob".into() };
        let (_stop, stopping) = watch::channel(false);
        let begin = |theirs: &mut Option<tokio::io::DuplexStream>| {
            let (ours, other) = tokio::io::duplex(4096);
            *theirs = Some(other);
            let place = Arc::clone(&places).try_acquire_owned().unwrap();
            let viewer = Viewer { how: How::Stream, joined: hub.join(None), session: sessions.begin(Some(&credential)), place };
            viewer.look(b"HEAD\r\n\r\n".to_vec(), Patient::new(ours, STUCK), vec![], stopping.clone())
        };
        let (mut first, mut second) = (None, None);
        let one = tokio::spawn(begin(&mut first));
        let two = tokio::spawn(begin(&mut second));
        let mut told = [0; 24];
        first.as_mut().unwrap().read_exact(&mut told).await.unwrap();
        assert!(told.starts_with(b"HEAD\r\n\r\nretry: "), "{}", String::from_utf8_lossy(&told));
        drop(second);
        two.await.unwrap();
        assert_eq!(places.available_permits(), 8, "whoever is gone has no place");
        sessions.end(&credential);
        one.await.unwrap();
        assert_eq!(places.available_permits(), 9);
    }
}
