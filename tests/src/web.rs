//! Asking the status daemon of a system, as a browser or a program would.

use crate::PATIENCE;
use serde_json::Value;
use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use testkit::retry::retry_until;
use testkit::system::TestSystem;

/// Where the pages of a system are, as it says itself: `HOST:PORT`.
///
/// # Panics
/// When it does not say so in time.
pub fn address(system: &TestSystem) -> String {
    let url =
        retry_until(PATIENCE, || fs::read_to_string(system.state().join("run/status.url")).ok()).expect("the address is written down");
    url.trim().trim_start_matches("http://").trim_end_matches('/').to_owned()
}

/// An answer as it comes, without an end for live events.
///
/// # Panics
/// When nobody listens.
pub fn connect(system: &TestSystem, path: &str) -> BufReader<TcpStream> {
    let address = address(system);
    let mut stream = TcpStream::connect(&address).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit can be set");
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").expect("a request can be sent");
    BufReader::new(stream)
}

/// Status and body of an answer (HTTP/1.0: until the connection is closed).
///
/// # Panics
/// When there is none.
pub fn get(system: &TestSystem, path: &str) -> (u16, String) {
    let mut whole = String::new();
    connect(system, path).read_to_string(&mut whole).expect("an answer");
    let (head, body) = whole.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer for {path}: {whole}\n{}", system.log()));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no status in {head}")), body.to_owned())
}

/// A page that is there.
///
/// # Panics
/// When it is not.
#[track_caller]
pub fn page(system: &TestSystem, path: &str) -> String {
    let (status, body) = get(system, path);
    assert_eq!(status, 200, "{path}: {body}");
    body
}

/// An answer of the API.
///
/// # Panics
/// When it is an error, or no JSON.
#[track_caller]
pub fn api(system: &TestSystem, path: &str) -> Value {
    let (status, body) = get(system, &format!("/api/v1{path}"));
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap_or_else(|e| panic!("{path}: {e}: {body}"))
}
