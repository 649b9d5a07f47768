//! Live events for whoever asks for them, as a stream or over a WebSocket, as long as the credential is good by which somebody looks.

use crate::access::Known;
use crate::guard;
use crate::query::Unanswered;
use crate::render::{self, Answer, JSON, Manner};
use crate::routes::{App, Asked};
use crate::socket;
use crate::viewer::{How, Place, Viewer};
use http_body_util::Empty;
use hyper::header::{self, HeaderValue};
use hyper::{Method, StatusCode};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// The type of server-sent events.
const KIND: &str = "text/event-stream";
/// How often it is looked whether credentials are still good of which nobody says that they are not: the end of a user's time is no event.
const REVIEW: Duration = Duration::from_secs(15);

impl App {
    /// Live events from now on; `known`: for somebody who has signed in.
    pub(crate) async fn live(self: Arc<App>, how: How, asked: &Asked<'_>, known: Option<Known>) -> Result<Answer, Unanswered> {
        let head = asked.head;
        let answer = match how {
            How::Stream if head.method == Method::HEAD => return Ok(render::whole(StatusCode::OK, KIND, "")),
            How::Stream => stream(),
            How::Socket => match socket::accept(&head.headers) {
                Some(accept) if head.method == Method::GET => upgrade(accept),
                _ => return Ok(upgrade_required()),
            },
        };
        // Browsers let every page open a WebSocket, and say which page it is; others say nothing.
        if how == How::Socket && !guard::is_own_origin(&self.hosts, &head.headers) {
            return Err(Unanswered::Forbidden("a page of another server may not listen here".into()));
        }
        let place = self.place()?;
        let session = self.sessions.begin(known.as_ref().map(|known| &known.credential));
        // Once more: it may have become void since, and now nobody would say so again.
        if let Some(known) = known
            && self.known(vec![known.shown]).await?.known.is_none()
        {
            return Err(Unanswered::Unauthenticated("the user has just been signed out".into()));
        }
        let joined = self.hub.join(last_seen(how, asked));
        let left = head.extensions.get::<Place>().ok_or_else(|| Unanswered::Internal("there is no connection".into()))?;
        left.leave(Viewer { how, joined, session, place });
        Ok(answer)
    }

    /// A place among the viewers.
    fn place(&self) -> Result<OwnedSemaphorePermit, Unanswered> {
        Arc::clone(&self.viewers).try_acquire_owned().map_err(|_| {
            Unanswered::Unavailable(format!("{} viewers already look at live events; pages work without them", self.limits.viewers))
        })
    }

    /// Ends the events of those whose credentials become void, for ever.
    pub async fn keep_sessions(self: Arc<App>) {
        let mut changed = self.hub.users();
        let mut ticks = tokio::time::interval(REVIEW);
        loop {
            tokio::select! {
                changed = changed.changed() => if changed.is_err() { return },
                _ = ticks.tick() => {}
            }
            // Who looks as nobody in particular has nothing to lose.
            if self.sessions.is_empty() {
                continue;
            }
            let reviewed = Arc::clone(&self).blocking(|app| {
                app.source.read(|read, _, now| {
                    let settings = read.settings()?.map(|settings| settings.web).unwrap_or_default();
                    app.sessions.review(&read.web_users().list()?, settings, now);
                    Ok(())
                })
            });
            if let Err(e) = reviewed.await {
                log::warn!("whether viewers may still look is not known: {e}");
            }
        }
    }
}

/// Which event somebody saw last who comes back.
fn last_seen<'a>(how: How, asked: &'a Asked<'_>) -> Option<&'a str> {
    match how {
        How::Stream => asked.head.headers.get("last-event-id").and_then(|id| id.to_str().ok()),
        How::Socket => asked.query.text("after"),
    }
}

/// Until the connection is closed: an event has its own end, and needs none of HTTP's.
fn stream() -> Answer {
    let mut answer = render::answer(StatusCode::OK, KIND, render::unfailing(Empty::new()));
    let headers = answer.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    // nginx holds back what is not said to be a stream.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    answer
}

fn upgrade(accept: HeaderValue) -> Answer {
    let mut answer = render::answer(StatusCode::SWITCHING_PROTOCOLS, JSON, render::unfailing(Empty::new()));
    let headers = answer.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    answer
}

fn upgrade_required() -> Answer {
    let sentence = "here is a WebSocket (RFC 6455, version 13); /api/v1/events has the same for those who speak HTTP only";
    let mut answer = render::error(Manner::Json, StatusCode::UPGRADE_REQUIRED, sentence);
    answer.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    answer.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    answer
}
