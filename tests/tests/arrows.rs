//! Who may use whom: the arrows of ARCHITECTURE.md, checked against what cargo knows.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Our crates, and which of ours each may use. Programs never link programs; the pure crates know neither each other nor the world.
const OURS: &[(&str, &[&str])] = &[
    ("borg", &[]),
    ("model", &[]),
    ("unix", &[]),
    ("wire", &["model"]),
    ("store", &["model"]),
    ("repository", &["borg", "unix"]),
    ("archive", &["borg", "model", "unix", "wire"]),
    ("queue", &["archive", "borg", "model", "store", "unix", "wire"]),
    ("proxy", &["borg", "model", "unix", "wire"]),
    ("repositoryd", &["borg", "model", "repository", "store", "unix", "wire"]),
    ("scheduler", &["model", "store", "unix", "wire"]),
    ("status", &["archive", "borg", "model", "store", "unix", "wire"]),
    ("cli", &["archive", "model", "unix", "wire"]),
    ("testkit", &["unix"]),
    // Not shipped: it reaches into programs to test what parses.
    ("fuzz-targets", &["borg", "model", "proxy", "queue", "repositoryd", "wire"]),
    ("tests", &["model", "store", "testkit"]),
];

/// Foreign crates that one crate of ours keeps to itself, and who may use them in tests.
const KEPT: &[(&str, &[&str])] = &[
    ("heed", &["store"]),
    ("rustix", &["unix", "testkit"]),
    ("sd-notify", &["unix"]),
    ("signal-hook", &["unix"]),
    ("nix", &["unix", "testkit", "tests"]),
    ("aes", &["borg"]),
    ("fuser", &["archive"]),
    ("tokio", &["status"]),
    ("hyper", &["status"]),
    ("hyper-util", &["status"]),
    ("askama", &["status"]),
    ("schemars", &["status"]),
];

fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version=1", "--manifest-path", manifest])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let uses = |package: &Value| {
        let all = package["dependencies"].as_array().unwrap().iter();
        // What only tests need points nowhere.
        all.filter(|d| d["kind"] != "dev").map(|d| d["name"].as_str().unwrap().to_owned()).collect()
    };
    packages.map(|p| (p["name"].as_str().unwrap().to_owned(), uses(p))).collect()
}

#[test]
fn dependencies_point_downwards_only() {
    let all = dependencies();
    let ours: BTreeSet<&str> = OURS.iter().map(|(name, _)| *name).collect();
    assert_eq!(all.keys().map(String::as_str).collect::<BTreeSet<_>>(), ours, "a crate is missing from the table of arrows");
    for (name, allowed) in OURS {
        for used in &all[*name] {
            assert!(!ours.contains(used.as_str()) || allowed.contains(&used.as_str()), "{name} must not use {used}");
        }
    }
}

#[test]
fn some_foreign_crates_have_one_user() {
    for (name, uses) in dependencies() {
        for (foreign, users) in KEPT {
            assert!(!uses.contains(*foreign) || users.contains(&name.as_str()), "{name} must not use {foreign}: {users:?} do");
        }
    }
}

/// heed marks opening and resizing a memory map as unsafe; the store has that in one file, and its test of a damaged file in another.
const UNSAFE_BY_HEED: [&str; 2] = ["crates/store/src/env.rs", "crates/store/src/tamper.rs"];

#[test]
fn unsafe_lives_in_one_crate() {
    let crates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    let mut searched = 0;
    let mut stack = vec![crates];
    while let Some(directory) = stack.pop() {
        for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("crates/unix") {
                stack.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && !UNSAFE_BY_HEED.iter().any(|known| path.ends_with(known)) {
                searched += 1;
                let text = std::fs::read_to_string(&path).unwrap();
                let word = ["unsafe ", "{"].concat();
                assert!(!text.contains(&word) && !text.contains("allow(unsafe_code)"), "{} has unsafe code", path.display());
            }
        }
    }
    assert!(searched > 50, "only {searched} files were searched");
}
