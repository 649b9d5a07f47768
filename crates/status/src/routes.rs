//! Which request gets which answer: one table on one screen.

use crate::access::{self, Access, Known as KnownUser, Peer, Recognized, Shown, Viewer};
use crate::acts::{self, Fields, Outcome};
use crate::control::{self, Told, Trouble, about_job};
use crate::forms::{self, Known, Prepared, Target, Typed};
use crate::guard::{self, Hosts, Refused};
use crate::hub::Hub;
use crate::query::{Query, Unanswered, named};
use crate::render::{self, Answer, Form, HTML, JSON, Manner};
use crate::serve::{Crowd, Limits};
use crate::sessions::Sessions;
use crate::source::Source;
use crate::view::{
    About, ArchivePage, ArchivesPage, CheckConfigsPage, ClientPage, ClientsPage, Context, Dashboard, Health, JobPage, JobsPage, LogPage,
    PoliciesPage, PolicyPage, RepositoriesPage, RepositoryPage, SchedulesPage, Visit,
};
use crate::viewer::How;
use crate::{api, browse, metrics};
use askama::Template;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, StatusCode};
use model::Timestamp;
use model::web_user::{Credential, Role};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use wire::control::ErrorKind;

/// Files that do not change while we run.
const STATIC: [(&str, &str, &str); 3] = [
    ("style.css", "text/css; charset=utf-8", include_str!("../static/style.css")),
    ("live.js", "text/javascript; charset=utf-8", include_str!("../static/live.js")),
    ("icon.svg", "image/svg+xml", include_str!("../static/icon.svg")),
];

/// The longest body, and the longest time that it may take.
const BODY_SIZE: usize = 512 * 1024;
const BODY_TIME: Duration = Duration::from_secs(20);
/// The field that tells a form of ours from one of somebody else.
const CSRF: &str = "csrf";
/// What programs read that want no pages.
const PLAIN: [&str; 2] = ["/metrics", "/healthz"];
/// The parameter by which a page finds what came of an act.
const DID: &str = "did";

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
    /// Whether it is an installed server.
    pub installed: bool,
    /// Who may look, and who is who.
    pub access: Access,
    /// What came of acts.
    pub outcomes: Outcomes,
    /// What we do at most.
    pub limits: Limits,
    /// Places for viewers.
    pub viewers: Arc<Semaphore>,
    /// By which credentials they look.
    pub sessions: Sessions,
    /// Places for questions to borgcubed.
    pub questions: Semaphore,
    /// Connections of other machines.
    pub crowd: Arc<Crowd>,
    /// The same for who has signed in and wants something done: those who only look do not stand before them.
    pub deeds: Semaphore,
    /// Places for readers of the database.
    pub readers: Arc<Semaphore>,
    /// What is in archives.
    pub reading: Arc<browse::Reading>,
    /// Since when we run.
    pub started: Timestamp,
    /// Whether we stop.
    pub stopping: watch::Receiver<bool>,
}

/// What came of acts, for the page that a browser is sent on to.
#[derive(Debug, Default)]
pub struct Outcomes(Mutex<VecDeque<(String, String, Outcome)>>);

impl Outcomes {
    const KEPT: usize = 200;

    /// Keeps it for this user; gives the word to find it by.
    fn keep(&self, user: &str, outcome: Outcome) -> Result<String, Unanswered> {
        let word = unix::random::hex(8).map_err(|e| Unanswered::Internal(e.to_string()))?;
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((word.clone(), user.to_owned(), outcome));
        let surplus = kept.len().saturating_sub(Outcomes::KEPT);
        kept.drain(..surplus);
        Ok(word)
    }

    fn find(&self, user: &str, word: &str) -> Option<Outcome> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(known, whose, _)| known == word && whose == user).map(|(_, _, outcome)| outcome.clone())
    }
}

/// A request without its body.
pub(crate) struct Asked<'r> {
    pub(crate) form: Form,
    pub(crate) head: &'r Parts,
    peer: Peer,
    segments: Vec<&'r str>,
    pub(crate) query: Query,
    /// Who asks, as soon as that is known.
    who: &'r OnceLock<Viewer>,
}

impl App {
    /// The answer to any request.
    pub async fn answer(self: Arc<App>, request: Request<Incoming>, peer: Peer) -> Answer {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let form = if path.starts_with("/api/") || path.starts_with(guard::TRIGGER) { Form::Json } else { Form::Html };
        let who = OnceLock::new();
        let answered = match guard::check(&self.hosts, &head.method, &head.uri, &head.headers) {
            Ok(()) => {
                let segments = path.split('/').skip(1).filter(|segment| !segment.is_empty()).collect();
                let query = Query::parse(head.uri.query().unwrap_or_default());
                Arc::clone(&self).route(Asked { form, head: &head, peer, segments, query, who: &who }, body).await
            }
            Err(refused) => Ok(refuse(Manner::of(form, Visit::default()), refused)),
        };
        let mut answer = answered.unwrap_or_else(|why| {
            let here = head.uri.path_and_query().filter(|_| head.method == Method::GET).map_or("/", |here| here.as_str());
            let visit = Visit { viewer: who.get().cloned(), here: here.to_owned(), outcome: None };
            // Programs ask for those, whatever their addresses look like.
            let manner = if PLAIN.contains(&path) { Manner::Plain } else { Manner::of(form, visit) };
            render::unanswered(manner, &why)
        });
        let is_told = answer.headers().contains_key(header::CONTENT_LENGTH);
        let length = hyper::body::Body::size_hint(answer.body()).exact();
        if let Some(length) = length.filter(|_| head.method == Method::HEAD && !is_told) {
            answer.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            *answer.body_mut() = render::unfailing(http_body_util::Empty::new());
        }
        answer
    }

    async fn route(self: Arc<App>, asked: Asked<'_>, body: Incoming) -> Result<Answer, Unanswered> {
        if !self.access.admits(asked.peer) {
            return Err(Unanswered::TooOften("these are too many requests; slow down".into(), 1));
        }
        // What needs nobody to sign in.
        match (asked.form, asked.segments.as_slice()) {
            (Form::Html, ["static", name]) => return file(name),
            (Form::Html, ["healthz"]) => return Ok(self.healthz().await),
            (Form::Html, ["sign-in"]) => return self.sign_in(&asked, body).await,
            (Form::Json, ["trigger", id]) => return self.trigger(id).await,
            _ => {}
        }
        let known = self.recognize(&asked).await?;
        if let Some(known) = &known {
            // Once for each request.
            let _ = asked.who.set(known.viewer.clone());
        }
        if let (Form::Html, ["sign-out"]) = (asked.form, asked.segments.as_slice()) {
            return self.sign_out(&asked, known, body).await;
        }
        let act = match (asked.form, asked.segments.as_slice()) {
            (Form::Json, ["api", "v1", "do", name]) | (Form::Html, ["do", name]) => Some(*name),
            _ => None,
        };
        let inside = browse::answer::Place::of(&asked.segments);
        if known.is_none() && (self.access.required || act.is_some() || inside.is_some()) {
            return self.nobody(&asked);
        }
        match (asked.form, asked.segments.as_slice()) {
            (Form::Json, ["api", "v1", "events"]) => return self.live(How::Stream, &asked, known).await,
            (Form::Json, ["api", "v1", "socket"]) => return self.live(How::Socket, &asked, known).await,
            _ => {}
        }
        match (known, inside, act) {
            (Some(known), Some(place), _) => self.read_archive(&asked, place, known.viewer, known.credential).await,
            (Some(known), None, Some(name)) => self.act(name, &asked, known, body).await,
            (known, ..) => self.look(&asked, known.map(|known| known.viewer)).await,
        }
    }

    /// Who asks, if it is somebody. The error: a program shows what is nobody's.
    async fn recognize(self: &Arc<App>, asked: &Asked<'_>) -> Result<Option<KnownUser>, Unanswered> {
        let mut shown = self.access.shown(&asked.head.headers, asked.peer)?;
        let is_bearer = matches!(shown.as_slice(), [Shown::Bearer(_)]);
        if let Some(seconds) = self.access.barred(asked.peer) {
            let all = shown.len();
            shown.retain(|one| self.access.is_familiar(one));
            // Whoever shows something else as well is looked up by that.
            if shown.is_empty() && all > 0 && (is_bearer || self.access.required) {
                let sentence = format!("too many wrong tokens have come from there; try it again in {seconds} s");
                return Err(Unanswered::TooOften(sentence, seconds));
            }
        }
        if shown.is_empty() {
            return Ok(None);
        }
        let Recognized { known, refused } = self.known(shown).await?;
        // An old cookie beside something good is nobody's guess.
        for (shown, refusal) in refused.iter().filter(|_| known.is_none()) {
            self.access.refused(asked.peer, shown, refusal);
        }
        match (refused.first(), known) {
            (Some((Shown::Bearer(_), refusal)), None) => Err(Unanswered::Unauthenticated(refusal.to_string())),
            (_, known) => Ok(known),
        }
    }

    /// Whose it is that is shown.
    pub(crate) async fn known(self: &Arc<App>, shown: Vec<Shown>) -> Result<Recognized, Unanswered> {
        let app = Arc::clone(self);
        app.blocking(move |app| app.source.read(|read, _, now| app.access.viewer(read, &shown, now))).await
    }

    /// Who has to sign in first.
    fn nobody(&self, asked: &Asked<'_>) -> Result<Answer, Unanswered> {
        let is_page = asked.form == Form::Html && asked.head.method != Method::HEAD && asked.segments != ["metrics"];
        if is_page {
            // What is done cannot be looked at.
            let looked = Some(asked.head).filter(|head| head.method == Method::GET).and_then(|head| head.uri.path_and_query());
            let here = looked.map_or("/", |here| here.as_str());
            return render::see(&guard::sign_in(here));
        }
        Err(Unanswered::Unauthenticated("sign in first, at /sign-in; programs send the header 'Authorization: Bearer TOKEN'".into()))
    }

    /// Everything that only shows something.
    async fn look(self: Arc<App>, asked: &Asked<'_>, viewer: Option<Viewer>) -> Result<Answer, Unanswered> {
        // Pages and API have the same names for the same things.
        let segments = match (asked.form, asked.segments.as_slice()) {
            (Form::Json, ["api", "v1", "openapi.json"]) => return Ok(render::whole(StatusCode::OK, JSON, api::document())),
            (Form::Json, ["api", "v1", "me"]) => return Ok(me(viewer.as_ref())),
            (Form::Json, ["api", "v1", rest @ ..]) => rest.to_vec(),
            (Form::Html, ["metrics"]) => return self.metrics().await,
            (Form::Html, []) => vec!["dashboard"],
            (Form::Html, rest) => rest.to_vec(),
            (Form::Json, _) => return Err(nothing_there()),
        };
        if let Some(target) = Target::of_path(&segments)
            && !(target.may_be_a_name() && self.is_shown(&target, &asked.query).await?)
        {
            return match viewer {
                Some(viewer) => self.first_form(asked.form, target, viewer).await,
                None => self.nobody(asked),
            };
        }
        let told = match segments.as_slice() {
            ["jobs", number] => {
                let number = number.parse().map_err(|_| nothing_there())?;
                about_job(&self.control, &self.questions, number).await
            }
            _ => Told::default(),
        };
        let user = viewer.as_ref().map(|viewer| viewer.name.as_str());
        let mut query = asked.query.clone();
        let outcome = query.take(DID).zip(user).and_then(|(word, user)| self.outcomes.find(user, &word));
        let here = format!("{}{}", asked.head.uri.path(), query.tail());
        let visit = Visit { viewer, here, outcome };
        let segments: Vec<String> = segments.iter().map(|segment| (*segment).to_owned()).collect();
        let form = asked.form;
        self.blocking(move |app| app.page(form, &segments, &query, told, &visit)).await
    }

    /// `GET /sign-in` shows the form, `POST /sign-in` takes it.
    async fn sign_in(self: Arc<App>, asked: &Asked<'_>, body: Incoming) -> Result<Answer, Unanswered> {
        let page = |next: &str, trouble: Option<&str>| {
            let status = if trouble.is_some() { StatusCode::FORBIDDEN } else { StatusCode::OK };
            let html = SignInPage { next, trouble }.render().map_err(|e| Unanswered::Internal(e.to_string()))?;
            Ok(render::whole(status, HTML, html))
        };
        if asked.head.method != Method::POST {
            return page(asked.query.text("next").and_then(access::local).unwrap_or("/"), None);
        }
        access::check_origin(&self.hosts, &asked.head.headers)?;
        if !self.access.admits_sign_in(asked.peer) {
            return Err(Unanswered::TooOften("there were too many sign-ins from there; try it again in a minute".into(), 60));
        }
        let fields = Fields::of_form(&whole_body(body).await?)?;
        let next = fields.text("next").and_then(access::local).unwrap_or("/").to_owned();
        let token = fields.text("token").unwrap_or_default().trim().to_owned();
        match self.known(vec![Shown::Cookie(token.clone())]).await?.known {
            Some(known) => {
                log::info!("{} signed in", known.viewer.name);
                let mut answer = render::see(&next)?;
                set_cookie(&mut answer, &access::remember(&token, &asked.head.headers))?;
                Ok(answer)
            }
            None => {
                log::warn!("a sign-in from {} was refused: no user has that token, or may use it", asked.peer);
                page(&next, Some("No user has that token, or the user is disabled or has expired."))
            }
        }
    }

    async fn sign_out(self: Arc<App>, asked: &Asked<'_>, known: Option<KnownUser>, body: Incoming) -> Result<Answer, Unanswered> {
        access::check_origin(&self.hosts, &asked.head.headers)?;
        if let Some(known) = known {
            access::check_csrf(&known.viewer, Fields::of_form(&whole_body(body).await?)?.text(CSRF))?;
            // Other browsers that are signed in by the same token come back by themselves.
            self.sessions.end(&known.credential);
        }
        let mut answer = render::see("/")?;
        for forget in access::FORGET {
            set_cookie(&mut answer, forget)?;
        }
        Ok(answer)
    }

    /// `POST /do/NAME` and `POST /api/v1/do/NAME`.
    async fn act(self: Arc<App>, name: &str, asked: &Asked<'_>, known: KnownUser, body: Incoming) -> Result<Answer, Unanswered> {
        let KnownUser { viewer, credential, shown } = known;
        let headers = &asked.head.headers;
        access::check_origin(&self.hosts, headers)?;
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        let body = whole_body(body).await?;
        let fields = match asked.form {
            Form::Json if kind.eq_ignore_ascii_case(JSON) => Fields::of_json(&body)?,
            Form::Json => return Err(Unanswered::BadRequest(format!("the body is {JSON}, and the Content-Type header has to say so"))),
            Form::Html => Fields::of_form(&body)?,
        };
        if shown.may_be_forged() {
            access::check_csrf(&viewer, fields.text(CSRF))?;
        }
        let typed = match asked.form {
            Form::Json => Typed::of_json(&body)?,
            Form::Html => Typed::of_form(&body),
        };
        if asked.form == Form::Json
            && let Some(field) = forms::unknown_field(name, &typed)
        {
            return Err(no_field(name, &field));
        }
        if asked.form == Form::Json
            && let Some(sentence) = forms::wrong_switch(name, &typed)
        {
            return Err(Unanswered::BadRequest(sentence));
        }
        if let Some(target) = Target::of_act(name, &typed) {
            let is_missing = |field: &&str| target.verb != forms::Verb::Add && typed.text(field).is_empty();
            if let Some(field) = ["record", "version"].into_iter().find(is_missing).filter(|_| asked.form == Form::Json) {
                return Err(Unanswered::BadRequest(format!("the field {field} is missing; the form of the record has it")));
            }
            return self.form(asked.form, target, typed, viewer, credential).await;
        }
        let act = acts::named(name).ok_or_else(|| Unanswered::NotFound("there is no such act".into()))?;
        let is_known = |field: &str| [CSRF, "back"].contains(&field) || act.fields.iter().any(|known| known.name == field);
        if asked.form == Form::Json
            && let Some(field) = typed.names().find(|field| !is_known(field))
        {
            return Err(no_field(name, field));
        }
        let back = fields.text("back").and_then(access::local).unwrap_or("/").to_owned();
        let app = Arc::clone(&self);
        let call = app.blocking(move |app| app.source.read(|read, _, _| (act.plan)(&fields, read))).await?;
        let reply = control::on_behalf(&self.control, &self.deeds, credential, call).await?;
        log::info!("{}: {name}", viewer.name);
        self.conclude(asked.form, &viewer, &back, Outcome::of(act, &reply), reply)
    }

    /// Whether an address that may be a form's is that of a record, which is called so.
    async fn is_shown(self: &Arc<App>, target: &Target, query: &Query) -> Result<bool, Unanswered> {
        if query.text("form").is_some() {
            return Ok(false);
        }
        let (app, kind) = (Arc::clone(self), target.kind);
        app.blocking(move |app| app.source.read(|read, _, _| Ok(forms::is_there(read, kind, "new")?))).await
    }

    /// A form as it is shown first.
    async fn first_form(self: Arc<App>, form: Form, target: Target, viewer: Viewer) -> Result<Answer, Unanswered> {
        let prepared = self.with_form(viewer, target, forms::first).await?;
        show(form, &prepared)
    }

    /// What somebody has filled in: it is done, or shown once more with everything that was typed.
    async fn form(
        self: Arc<App>,
        form: Form,
        target: Target,
        typed: Typed,
        viewer: Viewer,
        credential: Credential,
    ) -> Result<Answer, Unanswered> {
        let (act, sent, is_page) = (target.act(), typed.clone(), form == Form::Html);
        let prepare = move |c: &Context<'_>, target: &Target, known: &Known| forms::prepare(c, target, &sent, known, is_page);
        let prepared = Arc::clone(&self).with_form(viewer.clone(), target.clone(), prepare).await?;
        let Prepared::Call { call, page, done } = prepared else { return show(form, &prepared) };
        let reply = match control::on_behalf(&self.control, &self.deeds, credential, *call).await {
            Ok(reply) => reply,
            Err(trouble) if form == Form::Json => return Err(trouble.into()),
            Err(trouble) => {
                let refused = move |c: &Context<'_>, target: &Target, known: &Known| forms::refused(c, target, &typed, known, &trouble);
                return show(form, &self.with_form(viewer, target, refused).await?);
            }
        };
        log::info!("{}: {act}", viewer.name);
        let warnings = reply.get("warnings").and_then(|warnings| warnings.as_array()).map(Vec::as_slice).unwrap_or_default();
        let warnings = warnings.iter().filter_map(|warning| warning.as_str().map(str::to_owned)).collect();
        self.conclude(form, &viewer, &page, Outcome { act, said: done, jobs: vec![], warnings }, reply)
    }

    /// Off this thread, with one snapshot of the database. Forms are for administrators.
    async fn with_form(
        self: Arc<App>,
        viewer: Viewer,
        target: Target,
        f: impl FnOnce(&Context<'_>, &Target, &Known) -> Result<Prepared, Unanswered> + Send + 'static,
    ) -> Result<Prepared, Unanswered> {
        if viewer.role < Role::Administrator {
            return Err(Unanswered::Forbidden(format!(
                "{} is {}; this takes the role {}",
                viewer.name,
                viewer.role.with_article(),
                Role::Administrator
            )));
        }
        let visit = Visit { viewer: Some(viewer), here: target.path(), outcome: None };
        self.blocking(move |app| {
            let live = app.hub.live();
            app.source.read(|read, figures, now| {
                let known = Known::of(read, app.installed, now)?;
                f(&Context { read, figures, live: &live, now, visit: &visit }, &target, &known)
            })
        })
        .await
    }

    /// What was done, for a program or for the page that is shown next.
    fn conclude(&self, form: Form, viewer: &Viewer, page: &str, outcome: Outcome, reply: serde_json::Value) -> Result<Answer, Unanswered> {
        match form {
            Form::Json => Ok(render::whole(StatusCode::OK, JSON, serde_json::json!({ "outcome": outcome, "reply": reply }).to_string())),
            Form::Html => {
                let word = self.outcomes.keep(&viewer.name, outcome)?;
                let join = if page.contains('?') { '&' } else { '?' };
                render::see(&format!("{page}{join}{DID}={word}"))
            }
        }
    }

    /// The table. Everything here is one short read of the database.
    fn page(&self, form: Form, segments: &[String], query: &Query, told: Told, visit: &Visit) -> Result<Answer, Unanswered> {
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let live = self.hub.live();
        let stat = if segments == ["about"] { Some(self.source.stat()?) } else { None };
        self.source.read(|read, figures, now| {
            let c = &Context { read, figures, live: &live, now, visit };
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
                ["check-configs"] => render::view(form, &CheckConfigsPage::new(c)?),
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
    pub(crate) async fn blocking<T: Send + 'static>(
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
            app.source.read(|read, figures, now| {
                metrics::text(&Context { read, figures, live: &live, now, visit: &Visit::default() }, &stat, viewers)
            })
        });
        Ok(render::whole(StatusCode::OK, metrics::KIND, text.await?))
    }

    /// `POST /trigger/ID`: whoever knows the id of a trigger for `anonymous-web` may use it. Which ids there are nobody is told, and borgcubed
    /// bears only so many attempts.
    async fn trigger(self: Arc<App>, id: &str) -> Result<Answer, Unanswered> {
        let unknown = || Unanswered::NotFound("there is no such trigger, or it cannot be used from here".into());
        // Whatever it is: that somebody tries is borgcubed's to tell.
        let id: String = id.chars().take(64).collect();
        match control::fire(&self.control, &self.questions, &id).await {
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
}

/// A form or a question; programs are told what is wrong as everywhere, and besides get the form with it.
fn show(form: Form, prepared: &Prepared) -> Result<Answer, Unanswered> {
    let status = if prepared.is_refusal() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    if form == Form::Json
        && let Some(sentence) = prepared.refusal()
    {
        let error = serde_json::json!({ "status": status.as_u16(), "message": sentence });
        return Ok(render::whole(status, JSON, serde_json::json!({ "error": error, "form": prepared.json() }).to_string()));
    }
    match prepared {
        Prepared::Form(page) => render::page(form, status, page.as_ref()),
        Prepared::Question(question) => render::page(form, status, question.as_ref()),
        Prepared::Call { .. } => Err(Unanswered::Internal("there is nothing to show".into())),
    }
}

#[derive(Template)]
#[template(path = "sign-in.html")]
struct SignInPage<'a> {
    next: &'a str,
    trouble: Option<&'a str>,
}

/// The whole body of a request, if it is not too long and comes in time.
async fn whole_body(body: Incoming) -> Result<Bytes, Unanswered> {
    let collected = tokio::time::timeout(BODY_TIME, Limited::new(body, BODY_SIZE).collect()).await;
    let slow = |_| Unanswered::BadRequest("the body did not come in time".into());
    let broken = |_| Unanswered::TooLarge(format!("what came is longer than {} KiB, or broke off", BODY_SIZE / 1024));
    Ok(collected.map_err(slow)?.map_err(broken)?.to_bytes())
}

/// A mistake in writing is no value left out.
fn no_field(act: &str, field: &str) -> Unanswered {
    Unanswered::BadRequest(format!("{act} has no field {field:?}; /api/v1/openapi.json has those that it has"))
}

fn set_cookie(answer: &mut Answer, cookie: &str) -> Result<(), Unanswered> {
    let mut value = HeaderValue::from_str(cookie).map_err(|_| Unanswered::BadRequest("that is no token".into()))?;
    value.set_sensitive(true);
    answer.headers_mut().append(header::SET_COOKIE, value);
    Ok(())
}

/// Who is asking, and what a form of theirs has to bring along.
fn me(viewer: Option<&Viewer>) -> Answer {
    let me = viewer.map(|viewer| serde_json::json!({ "name": viewer.name, "role": viewer.role, "csrf": viewer.csrf }));
    render::whole(StatusCode::OK, JSON, serde_json::json!({ "user": me }).to_string())
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

fn refuse(manner: Manner, refused: Refused) -> Answer {
    match refused {
        Refused::Method { allowed, sentence } => {
            let mut answer = render::error(manner, StatusCode::METHOD_NOT_ALLOWED, sentence);
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
            answer
        }
        Refused::Host => {
            let sentence = "this server is not called by that name; borgcube-statusd --host NAME allows another one";
            render::error(manner, StatusCode::MISDIRECTED_REQUEST, sentence)
        }
        Refused::Path => render::error(manner, StatusCode::NOT_FOUND, "there is no such page: the address has empty parts"),
        Refused::Uri => render::error(manner, StatusCode::URI_TOO_LONG, "the address is too long"),
    }
}
