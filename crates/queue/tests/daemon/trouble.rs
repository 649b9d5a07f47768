//! A full disk.

use crate::harness::{Daemon, wait};
use model::JobState;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use wire::control::ErrorKind;

/// A small file system of its own; gone with the value.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn new(at: &Path, size: &str) -> Option<SmallDisk> {
        std::fs::create_dir_all(at).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size},mode=0755"), "tmpfs"]).arg(at).output().ok()?;
        mounted.status.success().then(|| SmallDisk(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Fills the disk to the last byte.
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).unwrap();
    for size in [65536, 4096, 1] {
        while file.write_all(&vec![b'x'; size]).is_ok() {}
    }
}

#[test]
fn a_full_disk_loses_no_job_and_no_daemon() {
    let directory = tempfile::Builder::new().prefix("bcq-").tempdir().unwrap();
    let state = directory.path().join("state");
    let Some(disk) = SmallDisk::new(&state, "8m") else {
        eprintln!("\n!!!!! NOT RUN: the full disk: no file system can be mounted here\n");
        return;
    };
    let mut daemon = Daemon::start_in(directory, state.clone(), &[]);
    daemon.inside = Some(Box::new(disk));
    daemon.with(&[("a/x", "hold"), ("b/x", "hold"), ("c/x", "deaf")]);
    let (a, b) = (daemon.run("a/x"), daemon.run("b/x"));
    daemon.reaches(a, JobState::ClientInProgress);
    daemon.reaches(b, JobState::ClientInProgress);
    // The files that let the workers go on must exist before there is no room for them.
    let filler = state.join("filler");
    fill(&filler);
    let mut said = None;
    for n in 0..2000 {
        if let Err(e) = daemon.call::<Value>("AddClient", json!({"client": crate::harness::client(&format!("more-{n}"))})) {
            said = Some(e);
            break;
        }
    }
    let error = said.expect("two thousand clients fitted into a full disk");
    assert_eq!(error.kind, ErrorKind::Internal);
    assert!(error.message.contains("database-enospc") && error.message.contains("Make room"), "{}", error.message);
    assert!(daemon.has_ended().is_none());
    // Reading goes on, and so do the jobs: one ends well, one is cancelled.
    assert_eq!(daemon.ok("GetStatus", json!({}))["running"].as_array().unwrap().len(), 2);
    daemon.ok("CancelJob", json!({"job": b}));
    wait("the worker's end", || daemon.log().contains("cannot be recorded").then_some(()));
    let (kind, message) = daemon.fails("CancelJob", json!({"job": b}));
    assert_eq!(kind, ErrorKind::Conflict);
    assert!(message.contains("make room") || message.contains("room on its file system"), "{message}");
    assert_eq!(daemon.job(b).state, JobState::ClientInProgress);
    std::fs::remove_file(&filler).unwrap();
    daemon.reaches(b, JobState::Cancelled);
    daemon.go(a);
    daemon.reaches(a, JobState::Done);
    daemon.client("room");
}
