//! Whoever does not take what it asked for keeps nobody from the repository.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod harness;

use harness::{Maintenance, System, noise};
use model::EncryptionMode;
use std::time::Duration;
use wire::maintenance::Operation;
use wire::session::{Verdict, kind};

#[test]
fn a_session_that_takes_nothing_keeps_nobody_from_the_repository() {
    let mut system = System::new(EncryptionMode::Repokey);
    let (worker, mut client) = system.backup("a/x", "one");
    let job = client.opened.job;
    let large = client.put(&noise(1, 8_000_000));
    assert!(client.read(large.id).is_some());
    // More than fits into the connection.
    wire::frame::write(&mut client.stream, kind::READ, &[&large.id]).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let mut release = Maintenance::begin(&system, Operation::Release { wait_seconds: 20 });
    release.stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(release.next().expect("the repository is not lent").0, kind::GRANTED);
    drop(release);
    let (found, bytes) = client.next().unwrap();
    assert_eq!((found, &bytes[..32]), (kind::OBJECT, &large.id[..]));
    assert_eq!(client.archive_of("f", &[large], false), Verdict::Accepted);
    client.end();
    assert!(worker.finish(job).archive.is_some());
    system.stop();
}
