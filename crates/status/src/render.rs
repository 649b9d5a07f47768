//! Answers: pages, JSON, files, errors.

use crate::guard;
use crate::query::Unanswered;
use crate::text;
use crate::view::{Frame, Visit};
use askama::Template;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use model::Timestamp;
use serde::Serialize;
use std::convert::Infallible;

/// Seconds after which it is worth a try again, when something is not available.
const SOON: u32 = 5;

/// What answers consist of.
pub type Body = BoxBody<Bytes, std::io::Error>;
/// An answer.
pub type Answer = Response<Body>;

/// In which form somebody wants an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A page.
    Html,
    /// The API.
    Json,
}

/// In which manner somebody is told that there is no answer.
#[derive(Debug, Clone)]
pub enum Manner {
    /// By a page, from which a person can go on.
    Page(Box<Visit>),
    /// As the API does.
    Json,
    /// By a line of text.
    Plain,
}

impl Manner {
    /// Where answers have this form.
    #[must_use]
    pub fn of(form: Form, visit: Visit) -> Manner {
        match form {
            Form::Html => Manner::Page(Box::new(visit)),
            Form::Json => Manner::Json,
        }
    }
}

/// Text.
pub const PLAIN: &str = "text/plain; charset=utf-8";
/// JSON.
pub const JSON: &str = "application/json";
/// A page.
pub const HTML: &str = "text/html; charset=utf-8";

/// An answer of bytes that are there.
#[must_use]
pub fn whole(status: StatusCode, kind: &'static str, bytes: impl Into<Bytes>) -> Answer {
    answer(status, kind, unfailing(Full::new(bytes.into())))
}

/// A body that does not break off.
#[must_use]
pub fn unfailing(body: impl hyper::body::Body<Data = Bytes, Error = Infallible> + Send + Sync + 'static) -> Body {
    body.map_err(|never| match never {}).boxed()
}

/// An answer with any body.
#[must_use]
pub fn answer(status: StatusCode, kind: &'static str, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(SOON));
    }
    guard::harden(answer.headers_mut());
    answer
}

/// A struct of the read model, in either form.
pub fn view<T: Template + Serialize>(form: Form, view: &T) -> Result<Answer, Unanswered> {
    page(form, StatusCode::OK, view)
}

/// The same with another status.
pub fn page<T: Template + Serialize>(form: Form, status: StatusCode, view: &T) -> Result<Answer, Unanswered> {
    let failed = |e: &dyn std::fmt::Display| Unanswered::Internal(format!("the page cannot be made: {e}"));
    match form {
        Form::Html => Ok(whole(status, HTML, view.render().map_err(|e| failed(&e))?)),
        Form::Json => Ok(whole(status, JSON, serde_json::to_vec(view).map_err(|e| failed(&e))?)),
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    frame: Frame,
    title: &'a str,
    sentence: &'a str,
    /// Where what was asked for is instead, and what that is.
    elsewhere: Option<(&'a str, &'a str)>,
}

/// An error.
#[must_use]
pub fn error(manner: Manner, status: StatusCode, sentence: &str) -> Answer {
    told(manner, status, sentence, None)
}

fn told(manner: Manner, status: StatusCode, sentence: &str, elsewhere: Option<(&str, &str)>) -> Answer {
    let title = status.canonical_reason().unwrap_or("Error");
    let text = elsewhere.map_or_else(|| sentence.to_owned(), |(address, _)| format!("{sentence}: {address}"));
    match manner {
        Manner::Json => {
            let body = serde_json::json!({ "error": { "status": status.as_u16(), "message": text } });
            whole(status, JSON, body.to_string())
        }
        Manner::Plain => whole(status, PLAIN, format!("{text}\n")),
        Manner::Page(visit) => {
            let frame = Frame { section: "", now: Timestamp::now(), trouble: None, visit: *visit };
            let page = ErrorPage { frame, title, sentence, elsewhere }.render().unwrap_or_else(|_| title.to_owned());
            whole(status, HTML, page)
        }
    }
}

/// Why something is not answered as asked.
#[must_use]
pub fn unanswered(manner: Manner, why: &Unanswered) -> Answer {
    let status = match why {
        Unanswered::NotFound(_) | Unanswered::Elsewhere { .. } => StatusCode::NOT_FOUND,
        Unanswered::BadRequest(_) => StatusCode::BAD_REQUEST,
        Unanswered::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
        Unanswered::Forbidden(_) => StatusCode::FORBIDDEN,
        Unanswered::Conflict(_) => StatusCode::CONFLICT,
        Unanswered::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        Unanswered::TooOften(..) => StatusCode::TOO_MANY_REQUESTS,
        Unanswered::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        Unanswered::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    if status.is_server_error() {
        log::warn!("{why}");
    }
    let elsewhere = match why {
        Unanswered::Elsewhere { address, what, .. } => Some((address.as_str(), *what)),
        _ => None,
    };
    let mut answer = told(manner, status, &why.to_string(), elsewhere);
    if status == StatusCode::UNAUTHORIZED {
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Unanswered::TooOften(_, seconds) = why {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(*seconds));
    }
    answer
}

/// Sends a browser on to an address within our pages.
pub fn see(address: &str) -> Result<Answer, Unanswered> {
    let value = HeaderValue::from_str(address).map_err(|_| Unanswered::BadRequest("that is no address within these pages".into()))?;
    let mut answer = whole(StatusCode::SEE_OTHER, HTML, "");
    answer.headers_mut().insert(header::LOCATION, value);
    Ok(answer)
}
