//! Answers about what is in archives.

use super::download::Wanted;
use super::{Reader, names};
use crate::access::Viewer;
use crate::query::{Unanswered, named};
use crate::render::{self, Answer, Form};
use crate::routes::{App, Asked};
use crate::view::{Context, FilesPage, Visit};
use hyper::header::{self, HeaderValue};
use hyper::{Method, StatusCode};
use model::web_user::{Credential, Role};
use model::{Archive, RepositoryName};
use std::sync::Arc;
use store::ArchiveKey;

/// Nothing of a download is shown by a browser, whatever it says about itself.
const DOWNLOAD_POLICY: &str = "sandbox; default-src 'none'; frame-ancestors 'none'";
/// How soon a browser asks again for a page that is not complete.
const AGAIN: &str = "2";

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Files,
    File,
    Tar,
}

/// A place in an archive, as an address names it: `/archives/REPOSITORY/ID/files/PATH`, or `file` or `tar`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    repository: &'a str,
    id: &'a str,
    what: What,
    path: &'a [&'a str],
}

impl<'a> Place<'a> {
    /// If it is one.
    pub(crate) fn of(segments: &'a [&'a str]) -> Option<Place<'a>> {
        let segments = segments.strip_prefix(&["api", "v1"]).unwrap_or(segments);
        let ["archives", repository, id, what, path @ ..] = segments else { return None };
        let what = match *what {
            "files" => What::Files,
            "file" => What::File,
            "tar" => What::Tar,
            _ => return None,
        };
        Some(Place { repository, id, what, path })
    }
}

impl App {
    /// Shows what is in an archive, or gives it away.
    pub(crate) async fn read_archive(
        self: Arc<App>,
        asked: &Asked<'_>,
        place: Place<'_>,
        viewer: Viewer,
        credential: Credential,
    ) -> Result<Answer, Unanswered> {
        if viewer.role < Role::Operator {
            return Err(Unanswered::Forbidden(format!(
                "{} is {}; reading archives takes an operator",
                viewer.name,
                viewer.role.with_article()
            )));
        }
        let repository: RepositoryName = named("repository", place.repository)?;
        let archive = Arc::clone(&self).archive(repository.clone(), place.id).await?;
        let path = names::path(place.path).ok_or_else(|| Unanswered::NotFound("the archive has nothing of that name".into()))?;
        let reader = Reader { name: format!("web:{}", viewer.name), credential };
        let joined = path.join(&b'/');
        match place.what {
            What::Files => self.files(asked, archive, path, viewer, &reader).await,
            What::File if joined.is_empty() => Err(Unanswered::NotFound("a file has a name".into())),
            What::File => self.download(asked, &archive, Wanted::File(joined), &reader).await,
            What::Tar => self.download(asked, &archive, Wanted::Tar((!joined.is_empty()).then_some(joined)), &reader).await,
        }
    }

    /// An archive with a record, if archives may be read here at all.
    async fn archive(self: Arc<App>, repository: RepositoryName, id: &str) -> Result<Archive, Unanswered> {
        let missing = format!("there is no such archive in repository {repository}");
        if id.len() != 64 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Unanswered::NotFound(missing));
        }
        let key = ArchiveKey { repository, id: id.to_ascii_lowercase() };
        let found = self.blocking(move |app| {
            app.source.read(|read, _, _| {
                if !read.settings()?.is_some_and(|settings| settings.web.downloads) {
                    let sentence =
                        "archives are not read through these pages; `borgcube settings edit --web-downloads on` on the server allows it";
                    return Err(Unanswered::Forbidden(sentence.into()));
                }
                Ok(read.archives().get(&key)?)
            })
        });
        found.await?.ok_or(Unanswered::NotFound(missing))
    }

    async fn files(
        self: Arc<App>,
        asked: &Asked<'_>,
        archive: Archive,
        path: Vec<Vec<u8>>,
        viewer: Viewer,
        reader: &Reader,
    ) -> Result<Answer, Unanswered> {
        let (book, stage) = self.reading.look(&archive.repository, &archive.id, &path, reader).await?;
        let here = asked.head.uri.path_and_query().map_or("/", |here| here.as_str()).to_owned();
        let visit = Visit { viewer: Some(viewer), here, outcome: None };
        let (form, query, live) = (asked.form, asked.query.clone(), self.hub.live());
        self.blocking(move |app| {
            app.source.read(|read, figures, now| {
                let c = &Context { read, figures, live: &live, now, visit: &visit };
                let page = FilesPage::new(c, &archive, &book, &stage, &path, &query)?;
                let mut answer = render::view(form, &page)?;
                if form == Form::Html && page.is_growing() {
                    answer.headers_mut().insert("refresh", HeaderValue::from_static(AGAIN));
                }
                Ok(answer)
            })
        })
        .await
    }

    async fn download(self: Arc<App>, asked: &Asked<'_>, archive: &Archive, wanted: Wanted, reader: &Reader) -> Result<Answer, Unanswered> {
        let (head, body) = self.reading.download(&archive.repository, &archive.id, wanted, reader).await?;
        // Nobody takes the body of an answer to HEAD: dropping it ends the reading.
        let body = if asked.head.method == Method::HEAD { render::unfailing(http_body_util::Empty::new()) } else { body };
        let mut answer = render::answer(StatusCode::OK, "application/octet-stream", body);
        let headers = answer.headers_mut();
        let disposition = HeaderValue::try_from(head.disposition).map_err(|e| Unanswered::Internal(e.to_string()))?;
        headers.insert(header::CONTENT_DISPOSITION, disposition);
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(DOWNLOAD_POLICY));
        if let Some(length) = head.length {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let of = |path: &'static str| {
            let segments: Vec<&str> = path.split('/').skip(1).collect();
            Place::of(&segments).map(|place| (place.what, place.path.join("/")))
        };
        assert_eq!(of("/archives/main/ab/files"), Some((What::Files, String::new())));
        assert_eq!(of("/api/v1/archives/main/ab/file/etc/passwd"), Some((What::File, "etc/passwd".into())));
        assert_eq!(of("/archives/main/ab/tar/home"), Some((What::Tar, "home".into())));
        assert_eq!(of("/archives/main/ab"), None);
        assert_eq!(of("/archives/main/ab/other"), None);
        assert_eq!(of("/api/v1/jobs"), None);
    }
}
