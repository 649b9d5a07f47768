//! Which request gets which answer: one table on one screen.

use crate::control::{Told, Trouble, about_job, fire};
use crate::guard::{self, Hosts, Refused};
use crate::hub::{Hub, resync};
use crate::query::{Query, Unanswered, named};
use crate::render::{self, Answer, Form, JSON};
use crate::serve::{Connection, Limits};
use crate::source::Source;
use crate::view::{
    About, ArchivePage, ArchivesPage, ClientPage, ClientsPage, Context, Dashboard, Health, JobPage, JobsPage, LogPage, PoliciesPage,
    PolicyPage, RepositoriesPage, RepositoryPage, SchedulesPage,
};
use crate::{api, metrics, socket};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode};
use model::Timestamp;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use wire::control::ErrorKind;

/// Files that do not change while we run.
const STATIC: [(&str, &str, &str); 3] = [
    ("style.css", "text/css; charset=utf-8", include_str!("../static/style.css")),
    ("live.js", "text/javascript; charset=utf-8", include_str!("../static/live.js")),
    ("icon.svg", "image/svg+xml", include_str!("../static/icon.svg")),
];

/// Where live events come over a WebSocket.
const SOCKET: &str = "/api/v1/socket";

/// Everything that answers need.
pub struct App {
    /// The database.
    pub source: Arc<Source>,
    /// What happens.
    pub hub: Arc<Hub>,
    /// Where borgcubed listens.
    pub control: PathBuf,
    /// Names we answer to.
    pub hosts: Hosts,
    /// What we do at most.
    pub limits: Limits,
    /// Places for viewers.
    pub viewers: Arc<Semaphore>,
    /// Places for questions to borgcubed.
    pub questions: Semaphore,
    /// Places for readers of the database.
    pub readers: Arc<Semaphore>,
    /// Since when we run.
    pub started: Timestamp,
    /// Whether we stop.
    pub stopping: watch::Receiver<bool>,
}

impl App {
    /// The answer to any request.
    pub async fn answer(self: Arc<App>, mut request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        let form = if path.starts_with("/api/") || path.starts_with(guard::TRIGGER) { Form::Json } else { Form::Html };
        let head = request.method() == Method::HEAD;
        let mut answer = match guard::check(&self.hosts, request.method(), request.uri(), request.headers()) {
            Ok(()) if path == SOCKET => self.socket(&mut request),
            Ok(()) => match Arc::clone(&self).route(&path, form, &request, head).await {
                Ok(answer) => answer,
                Err(why) => render::unanswered(form, &why),
            },
            Err(refused) => refuse(form, refused),
        };
        if let Some(length) =
            hyper::body::Body::size_hint(answer.body()).exact().filter(|_| head && !answer.headers().contains_key(header::CONTENT_LENGTH))
        {
            answer.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            *answer.body_mut() = render::unfailing(http_body_util::Empty::new());
        }
        answer
    }

    async fn route(self: Arc<App>, path: &str, form: Form, request: &Request<Incoming>, head: bool) -> Result<Answer, Unanswered> {
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let segments: Vec<&str> = path.split('/').skip(1).filter(|segment| !segment.is_empty()).collect();
        // Pages and API have the same names for the same things.
        let segments = match (form, segments.as_slice()) {
            (Form::Json, ["api", "v1", "events"]) => return self.events(request, head),
            (Form::Json, ["api", "v1", "openapi.json"]) => return Ok(render::whole(StatusCode::OK, JSON, api::document())),
            (Form::Json, ["trigger", id]) => return self.trigger(id).await,
            (Form::Json, ["api", "v1", rest @ ..]) => rest.to_vec(),
            (Form::Html, ["static", name]) => return file(name),
            (Form::Html, ["healthz"]) => return Ok(self.healthz().await),
            (Form::Html, ["metrics"]) => return self.metrics().await,
            (Form::Html, []) => vec!["dashboard"],
            (Form::Html, rest) => rest.to_vec(),
            (Form::Json, _) => return Err(nothing_there()),
        };
        let told = match segments.as_slice() {
            ["jobs", number] => {
                let number = number.parse().map_err(|_| nothing_there())?;
                about_job(&self.control, &self.questions, number).await
            }
            _ => Told::default(),
        };
        let segments: Vec<String> = segments.iter().map(|segment| (*segment).to_owned()).collect();
        self.blocking(move |app| app.page(form, &segments, &query, told)).await
    }

    /// The table. Everything here is one short read of the database.
    fn page(&self, form: Form, segments: &[String], query: &Query, told: Told) -> Result<Answer, Unanswered> {
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let live = self.hub.live();
        let stat = if segments == ["about"] { Some(self.source.stat()?) } else { None };
        self.source.read(|read, figures, now| {
            let c = &Context { read, figures, live: &live, now };
            match segments.as_slice() {
                ["dashboard"] => render::view(form, &Dashboard::new(c)?),
                ["clients"] => render::view(form, &ClientsPage::new(c)?),
                ["clients", name] => render::view(form, &ClientPage::new(c, &named("client", name)?, query)?),
                ["repositories"] => render::view(form, &RepositoriesPage::new(c)?),
                ["repositories", name] => render::view(form, &RepositoryPage::new(c, &named("repository", name)?)?),
                ["jobs"] => render::view(form, &JobsPage::new(c, query)?),
                ["jobs", number] => render::view(form, &JobPage::new(c, named("job", number)?, told)?),
                ["archives"] => render::view(form, &ArchivesPage::new(c, query)?),
                ["archives", repository, id] => render::view(form, &ArchivePage::new(c, named("repository", repository)?, id)?),
                ["schedules"] => render::view(form, &SchedulesPage::new(c, query)?),
                ["policies"] => render::view(form, &PoliciesPage::new(c)?),
                ["policies", name] => render::view(form, &PolicyPage::new(c, &named("policy", name)?, query)?),
                ["log"] => render::view(form, &LogPage::new(c, query)?),
                ["about"] => {
                    let stat = stat.as_ref().ok_or_else(nothing_there)?;
                    render::view(form, &About::new(c, stat, self.started, self.watching()))
                }
                _ => Err(nothing_there()),
            }
        })
    }

    /// Viewers of live events at present.
    fn watching(&self) -> usize {
        self.limits.viewers.saturating_sub(self.viewers.available_permits())
    }

    /// Off the one thread that serves everybody, and not too many at a time.
    async fn blocking<T: Send + 'static>(
        self: Arc<App>,
        f: impl FnOnce(&App) -> Result<T, Unanswered> + Send + 'static,
    ) -> Result<T, Unanswered> {
        let place = Arc::clone(&self.readers).acquire_owned().await;
        let worked = tokio::task::spawn_blocking(move || {
            let outcome = f(&self);
            drop(place);
            outcome
        });
        worked.await.unwrap_or_else(|e| Err(Unanswered::Internal(format!("the page cannot be made: {e}"))))
    }

    async fn metrics(self: Arc<App>) -> Result<Answer, Unanswered> {
        let text = self.blocking(|app| {
            let live = app.hub.live();
            let viewers = app.watching();
            let stat = app.source.stat()?;
            app.source.read(|read, figures, now| metrics::text(&Context { read, figures, live: &live, now }, &stat, viewers))
        });
        Ok(render::whole(StatusCode::OK, metrics::KIND, text.await?))
    }

    /// `POST /trigger/ID`: whoever knows the id of a trigger for `anonymous-web` may use it. Which ids there are nobody is told, and borgcubed
    /// bears only so many attempts.
    async fn trigger(self: Arc<App>, id: &str) -> Result<Answer, Unanswered> {
        let unknown = || Unanswered::NotFound("there is no such trigger, or it cannot be used from here".into());
        let id = id.parse().map_err(|_| unknown())?;
        match fire(&self.control, &self.questions, &id).await {
            Ok(jobs) => Ok(render::whole(StatusCode::OK, JSON, serde_json::json!({ "jobs": jobs }).to_string())),
            Err(Trouble::Refused(error)) if error.kind == ErrorKind::NotFound => Err(unknown()),
            Err(trouble) => Err(Unanswered::Unavailable(trouble.to_string())),
        }
    }

    /// For whoever watches us: 200 when everything is well, 503 otherwise, with what is wrong.
    async fn healthz(self: Arc<App>) -> Answer {
        let live = self.hub.live();
        let database = self.blocking(|app| app.source.read(|_, _, _| Ok(()))).await;
        let trouble: Vec<String> = database.as_ref().err().map(ToString::to_string).into_iter().chain(live.trouble.clone()).collect();
        let healthy = database.is_ok() && live.connected;
        let health = Health { healthy, database: database.is_ok(), borgcubed: live.connected, trouble };
        let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        render::whole(status, JSON, serde_json::to_vec(&health).unwrap_or_default())
    }

    /// The same events over a WebSocket.
    fn socket(&self, request: &mut Request<Incoming>) -> Answer {
        let accept = match socket::check(&self.hosts, request.headers()) {
            Ok(accept) => accept,
            Err(socket::Refused::Origin) => {
                return render::error(Form::Json, StatusCode::FORBIDDEN, "a page of another server may not listen here");
            }
            Err(socket::Refused::NoHandshake) => {
                let sentence = "here is a WebSocket (RFC 6455, version 13); /api/v1/events has the same for those who speak HTTP only";
                let mut answer = render::error(Form::Json, StatusCode::UPGRADE_REQUIRED, sentence);
                answer.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                answer.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
                return answer;
            }
        };
        let (place, accept) = match (self.viewer(), HeaderValue::try_from(accept)) {
            (Ok(place), Ok(accept)) => (place, accept),
            (Err(why), _) => return render::unanswered(Form::Json, &why),
            (_, Err(e)) => return render::unanswered(Form::Json, &Unanswered::Internal(e.to_string())),
        };
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let joined = self.hub.join(query.text("after"));
        // The connection counts for as long as it is one.
        let connection = request.extensions_mut().remove::<Connection>();
        let upgrade = hyper::upgrade::on(request);
        tokio::spawn(socket::converse(upgrade, joined, self.stopping.clone(), (place, connection)));
        let mut answer = render::answer(StatusCode::SWITCHING_PROTOCOLS, JSON, render::unfailing(http_body_util::Empty::new()));
        let headers = answer.headers_mut();
        headers.remove(header::CONTENT_TYPE);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        answer
    }

    /// A place among the viewers.
    fn viewer(&self) -> Result<OwnedSemaphorePermit, Unanswered> {
        Arc::clone(&self.viewers).try_acquire_owned().map_err(|_| {
            Unanswered::Unavailable(format!("{} viewers already look at live events; pages work without them", self.limits.viewers))
        })
    }

    /// Server-sent events, for as long as somebody looks.
    fn events(self: Arc<App>, request: &Request<Incoming>, head: bool) -> Result<Answer, Unanswered> {
        const KIND: &str = "text/event-stream";
        if head {
            return Ok(render::whole(StatusCode::OK, KIND, Bytes::new()));
        }
        let place = self.viewer()?;
        let last_seen = request.headers().get("last-event-id").and_then(|id| id.to_str().ok());
        let mut joined = self.hub.join(last_seen);
        let (mut sender, body) = Channel::<Bytes, std::convert::Infallible>::new(2);
        let mut stopping = self.stopping.clone();
        tokio::spawn(async move {
            for frame in joined.first {
                if sender.send_data(frame.bytes).await.is_err() {
                    return;
                }
            }
            loop {
                let received = tokio::select! {
                    received = joined.rest.recv() => received,
                    _ = stopping.changed() => return,
                };
                let bytes = match received {
                    Ok(frame) => frame.bytes,
                    // Too slow for all of it; the present state is what matters.
                    Err(RecvError::Lagged(_)) => resync().bytes,
                    Err(RecvError::Closed) => return,
                };
                let sent = tokio::select! {
                    sent = sender.send_data(bytes) => sent.is_ok(),
                    _ = stopping.changed() => return,
                };
                if !sent {
                    return;
                }
            }
        });
        // The place is free when the connection is gone, not when the next event finds that out.
        let body = body.map_frame(move |frame| {
            let _held = &place;
            frame
        });
        let mut answer = render::answer(StatusCode::OK, KIND, render::unfailing(body));
        // nginx holds back what is not said to be a stream.
        answer.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
        answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        Ok(answer)
    }
}

fn nothing_there() -> Unanswered {
    Unanswered::NotFound("there is no such page".into())
}

fn file(name: &str) -> Result<Answer, Unanswered> {
    let (_, kind, text) = STATIC.iter().find(|(known, _, _)| *known == name).ok_or_else(nothing_there)?;
    let mut answer = render::whole(StatusCode::OK, kind, Bytes::from_static(text.as_bytes()));
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=300"));
    Ok(answer)
}

fn refuse(form: Form, refused: Refused) -> Answer {
    match refused {
        Refused::Method { allowed, sentence } => {
            let mut answer = render::error(form, StatusCode::METHOD_NOT_ALLOWED, sentence);
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
            answer
        }
        Refused::Host => {
            let sentence = "this server is not called by that name; borgcube-statusd --host NAME allows another one";
            render::error(form, StatusCode::MISDIRECTED_REQUEST, sentence)
        }
        Refused::Uri => render::error(form, StatusCode::URI_TOO_LONG, "the address is too long"),
    }
}
