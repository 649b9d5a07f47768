//! The query string of a request: filters and cursors, each checked.

use crate::control::Trouble;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use wire::control::ErrorKind;

/// Why something is not answered as asked.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// There is no such page or record.
    #[error("{0}")]
    NotFound(String),
    /// A parameter makes no sense; the sentence says which and why.
    #[error("{0}")]
    BadRequest(String),
    /// Nobody has signed in, or what was shown is wrong.
    #[error("{0}")]
    Unauthenticated(String),
    /// The sentence says why not.
    #[error("{0}")]
    Forbidden(String),
    /// Something else stands in the way; the sentence says what.
    #[error("{0}")]
    Conflict(String),
    /// What came is too long.
    #[error("{0}")]
    TooLarge(String),
    /// It is asked for too often.
    #[error("{0}")]
    TooOften(String),
    /// The database cannot be read.
    #[error("{0}")]
    Unavailable(String),
    /// Our own trouble.
    #[error("{0}")]
    Internal(String),
}

impl From<store::Error> for Unanswered {
    fn from(e: store::Error) -> Unanswered {
        match e {
            store::Error::NotFound(what) => Unanswered::NotFound(format!("there is no {what}")),
            other => Unanswered::Unavailable(format!("the database cannot be read: {other}")),
        }
    }
}

impl From<Trouble> for Unanswered {
    fn from(trouble: Trouble) -> Unanswered {
        let sentence = trouble.to_string();
        match trouble {
            Trouble::Unreachable(_) => Unanswered::Unavailable(sentence),
            Trouble::Refused(error) => match error.kind {
                ErrorKind::NotFound => Unanswered::NotFound(sentence),
                ErrorKind::InvalidArgument => Unanswered::BadRequest(sentence),
                ErrorKind::AlreadyExists | ErrorKind::Conflict => Unanswered::Conflict(sentence),
                ErrorKind::PermissionDenied => Unanswered::Forbidden(sentence),
                ErrorKind::Unauthenticated => Unanswered::Unauthenticated(sentence),
                ErrorKind::Stopping => Unanswered::Unavailable(sentence),
                ErrorKind::Internal => Unanswered::Internal(sentence),
            },
        }
    }
}

/// Parameters by name; what is empty is not there (a form sends empty fields, too).
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads a query string. Of a name that comes twice the last one counts.
    #[must_use]
    pub fn parse(query: &str) -> Query {
        let pairs = form_urlencoded::parse(query.as_bytes()).filter(|(_, value)| !value.is_empty());
        Query(pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
    }

    /// A parameter as it came.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A parameter as what it should be.
    pub fn get<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, Unanswered> {
        self.text(name).map(|text| text.parse().map_err(|e| Unanswered::BadRequest(format!("parameter {name}: {e}")))).transpose()
    }

    /// A parameter that is a whole number.
    pub fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, Unanswered> {
        self.text(name).map(|text| whole_number(&format!("parameter {name}"), text)).transpose()
    }

    /// How much of a list: `limit`, from 1 to `most`.
    pub fn limit(&self, default: usize, most: usize) -> Result<usize, Unanswered> {
        match self.text("limit").map(str::parse) {
            None => Ok(default),
            Some(Ok(limit)) if (1..=most).contains(&limit) => Ok(limit),
            Some(_) => Err(Unanswered::BadRequest(format!("parameter limit: it is a whole number from 1 to {most}"))),
        }
    }

    /// A parameter, which is not there any more then.
    pub fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// As the end of an address.
    #[must_use]
    pub fn tail(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.0).finish();
        format!("?{query}")
    }

    /// The same query with another value of one parameter: the address of the next page.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> String {
        let others = self.0.iter().filter(|(known, _)| *known != name);
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(others).append_pair(name, value);
        format!("?{}", query.finish())
    }
}

impl Query {
    /// The same query without one parameter: the address of the first page.
    #[must_use]
    pub fn without(&self, name: &str) -> String {
        let others = self.0.iter().filter(|(known, _)| *known != name);
        format!("?{}", form_urlencoded::Serializer::new(String::new()).extend_pairs(others).finish())
    }
}

/// A whole number; what Rust says of a wrong one helps nobody.
pub fn whole_number<T: FromStr>(what: &str, text: &str) -> Result<T, Unanswered> {
    let shown: String = text.chars().take(80).collect();
    text.parse().map_err(|_| Unanswered::BadRequest(format!("{what}: {shown:?} is no whole number, or far too great a one")))
}

/// A name in a path as what it should be: what is no valid name does not exist.
pub fn named<T: FromStr>(what: &str, text: &str) -> Result<T, Unanswered> {
    text.parse().map_err(|_| Unanswered::NotFound(format!("there is no {what} of that name")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters() {
        let query = Query::parse("client=web1&state=&before=12&x=%3Cb%3E+1");
        assert_eq!(query.text("client"), Some("web1"));
        assert_eq!(query.text("state"), None);
        assert_eq!(query.number::<u64>("before").unwrap(), Some(12));
        assert_eq!(
            query.number::<u64>("client").unwrap_err().to_string(),
            "parameter client: \"web1\" is no whole number, or far too great a one"
        );
        for bad in ["limit=0", "limit=x", "limit=-1"] {
            assert_eq!(Query::parse(bad).limit(50, 500).unwrap_err().to_string(), "parameter limit: it is a whole number from 1 to 500");
        }
        assert_eq!(query.text("x"), Some("<b> 1"));
        assert_eq!(query.with("before", "3&4"), "?client=web1&x=%3Cb%3E+1&before=3%264");
        let paged = Query::parse("before=3&client=a%26b");
        assert_eq!((paged.without("before").as_str(), Query::parse("before=3").without("before").as_str()), ("?client=a%26b", "?"));
        assert_eq!(Query::parse("limit=7").limit(50, 500).unwrap(), 7);
    }
}
