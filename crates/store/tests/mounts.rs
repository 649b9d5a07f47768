//! File systems that refuse: read-only ones and full ones. The test runs itself again in a mount namespace of its own; where that is
//! not allowed, it says so and checks nothing.
#![allow(clippy::unwrap_used, reason = "tests, their helper functions included")]

mod common;

use std::path::Path;
use std::process::Command;

use common::*;
use store::{Error, Options, Store};

/// Runs the role with `script` before it, in which `$DIR` is a directory for mounts.
fn in_a_namespace(role: &str, script: &str) {
    let dir = tempfile::tempdir().unwrap();
    let probe = Command::new("unshare").args(["-rm", "sh", "-c", "mount -t tmpfs none \"$DIR\""]).env("DIR", dir.path()).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        eprintln!("NOT RUN: {role}: this machine allows no mount namespaces");
        return;
    }
    let output = Command::new("unshare")
        .args(["-rm", "sh", "-e", "-c", &format!("{script}\nexec \"$EXE\" --ignored --exact child --nocapture")])
        .env("DIR", dir.path())
        .env("EXE", std::env::current_exe().unwrap())
        .env("STORE_TEST_ROLE", role)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains(&format!("reached the end of: {role}")), "{text}");
}

#[test]
#[ignore = "not a test: what runs inside the namespaces"]
fn child() {
    let Ok(role) = std::env::var("STORE_TEST_ROLE") else { return };
    let dir = std::env::var("DIR").unwrap();
    let dir = Path::new(&dir);
    match role.as_str() {
        "read-only" => {
            for open in [Options::new(), Options::new().read_only()] {
                match open.open(dir.join("db")) {
                    Err(Error::LockFile(text)) => assert!(text.contains("ReadWritePaths="), "{text}"),
                    Err(other) => panic!("{other}"),
                    Ok(_) => panic!("a lockless reader was opened"),
                }
            }
        }
        "full" => full(dir),
        other => panic!("no such role: {other}"),
    }
    println!("reached the end of: {role}");
}

fn full(dir: &Path) {
    let store = Store::open(dir.join("db")).unwrap();
    let add = |n: usize| {
        let mut client = client(&format!("web{n}"));
        client.description = "x".repeat(2000);
        store.write_at(T0, "add", "root", |w| w.clients().insert(&client))
    };
    let mut count = 0;
    let error = loop {
        match add(count) {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
        assert!(count < 10_000);
    };
    assert!(matches!(error, Error::DiskFull), "{error:?}");
    assert_eq!(store.read(|r| r.clients().count()).unwrap(), count as u64, "what was committed is there, what was not is not");
    verify(&store);
    std::fs::remove_file(dir.join("ballast")).unwrap();
    add(count).unwrap();
    verify(&store);
    drop(store);
    let store = Store::open(dir.join("db")).unwrap();
    assert_eq!(store.read(|r| r.clients().count()).unwrap(), count as u64 + 1);
    verify(&store);
}

#[test]
fn a_read_only_mount_is_refused_by_name() {
    // The database exists and its file modes would allow writing: just what makes LMDB go lockless.
    in_a_namespace(
        "read-only",
        "mount -t tmpfs none \"$DIR\"; mkdir \"$DIR/db\"; : > \"$DIR/db/data.mdb\"; : > \"$DIR/db/lock.mdb\"; mount -o remount,ro \"$DIR\"",
    );
}

#[test]
fn a_full_file_system_loses_nothing_and_room_helps() {
    in_a_namespace("full", "mount -t tmpfs -o size=2m none \"$DIR\"; dd if=/dev/zero of=\"$DIR/ballast\" bs=1024 count=1024 2>/dev/null");
}
