//! The live events over a WebSocket (RFC 6455), for those who want one. The same events as the stream's, counted among the same viewers.
//!
//! A message is `{"id": …, "event": NAME, "data": …}`; `?after=ID` goes on behind an event, as `Last-Event-ID` does. What a viewer says is of no
//! meaning, and bounded.

use crate::hub::{Frame, Joined, resync};
use crate::patient::Patient;
use crate::sessions::Session;
use futures_util::{SinkExt, StreamExt};
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

/// Whoever has not answered to a ping when the next one is due is gone.
const PING: Duration = Duration::from_secs(30);
/// A viewer that takes nothing for so long is gone as well.
const STUCK: Duration = Duration::from_secs(30);
/// The longest message of a viewer. None is expected.
const MAX_MESSAGE: usize = 4096;
/// What is read at once of what a viewer says, which is hardly ever anything: each viewer has that much memory for it.
const READ: usize = 256;
/// Messages of a viewer from one ping to the next.
const MAX_MESSAGES: u32 = 64;

/// What Sec-WebSocket-Accept says to a handshake; None: it is none of a version that anybody knows.
#[must_use]
pub fn accept(headers: &HeaderMap) -> Option<HeaderValue> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let has = |name, token: &str| text(name).is_some_and(|text| text.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)));
    let is_handshake = has(header::UPGRADE, "websocket") && has(header::CONNECTION, "upgrade");
    let key = text(header::SEC_WEBSOCKET_KEY).filter(|key| key.len() == 24)?;
    let is_known = text(header::SEC_WEBSOCKET_VERSION) == Some("13");
    (is_handshake && is_known).then(|| HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok()).flatten()
}

/// Tells a viewer what happens until it is gone, may not look any more, or we stop. `heard`: what it said behind its request.
pub async fn converse<S>(
    head: Vec<u8>,
    mut io: Patient<S>,
    heard: Vec<u8>,
    joined: Joined,
    session: Session,
    stopping: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if let Err(e) = io.write_all(&head).await {
        return log::debug!("a viewer is gone before it was one: {e}");
    }
    drop(head);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ)
        .write_buffer_size(0)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let mut stream = WebSocketStream::from_partially_read(io, heard, Role::Server, Some(config)).await;
    let why = tell(&mut stream, joined, session, stopping).await;
    let close = CloseFrame { code: why.0, reason: Utf8Bytes::from_static(why.1) };
    if let Ok(Err(e)) = tokio::time::timeout(Duration::from_secs(1), stream.close(Some(close))).await {
        log::debug!("a viewer is gone already: {e}");
    }
}

/// Why it ends: a code and a word for the viewer.
type Ending = (CloseCode, &'static str);

const GONE: Ending = (CloseCode::Normal, "");

async fn tell<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut WebSocketStream<Patient<S>>,
    joined: Joined,
    mut session: Session,
    mut stopping: watch::Receiver<bool>,
) -> Ending {
    let Joined { first, mut rest } = joined;
    for frame in first {
        if !sent(stream, frame).await {
            return GONE;
        }
    }
    let mut pings = tokio::time::interval_at(tokio::time::Instant::now() + PING, PING);
    let (mut is_heard, mut messages) = (true, 0);
    loop {
        tokio::select! {
            received = rest.recv() => {
                let frame = match received {
                    Ok(frame) => frame,
                    // Too slow for all of it; the present state is what matters.
                    Err(RecvError::Lagged(_)) => resync(),
                    Err(RecvError::Closed) => return (CloseCode::Away, "stopping"),
                };
                if !sent(stream, frame).await {
                    return GONE;
                }
            }
            said = stream.next() => {
                match said {
                    Some(Ok(Message::Close(_))) => {
                        // The answer to it is waiting already.
                        let _ = tokio::time::timeout(Duration::from_secs(1), stream.flush()).await;
                        return GONE;
                    }
                    None => return GONE,
                    Some(Ok(_)) => is_heard = true,
                    Some(Err(e)) => {
                        log::debug!("a viewer is not understood: {e}");
                        return (CloseCode::Policy, "nothing of that size or kind is expected");
                    }
                }
                messages += 1;
                if messages > MAX_MESSAGES {
                    return (CloseCode::Policy, "nobody listens here");
                }
            }
            _ = pings.tick() => {
                if !is_heard || !put(stream, Message::Ping(Bytes::new())).await {
                    return GONE;
                }
                (is_heard, messages) = (false, 0);
            }
            () = session.ended() => return (CloseCode::Policy, "signed out"),
            _ = stopping.changed() => return (CloseCode::Away, "stopping"),
        }
    }
}

async fn sent<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut WebSocketStream<Patient<S>>, frame: Frame) -> bool {
    match frame.message.map(Utf8Bytes::try_from) {
        Some(Ok(text)) => put(stream, Message::Text(text)).await,
        // A comment.
        _ => true,
    }
}

async fn put<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut WebSocketStream<Patient<S>>, message: Message) -> bool {
    matches!(tokio::time::timeout(STUCK, stream.send(message)).await, Ok(Ok(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (header::UPGRADE, "WebSocket"),
            (header::CONNECTION, "keep-alive, Upgrade"),
            (header::SEC_WEBSOCKET_VERSION, "13"),
            // The example of RFC 6455, 1.3.
            (header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            assert_eq!(accept(&headers), None);
            headers.insert(name, HeaderValue::from_static(value));
        }
        assert_eq!(accept(&headers).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("8"));
        assert_eq!(accept(&headers), None);
    }
}
