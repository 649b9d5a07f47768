//! Small objects through a real session and a real owner, sent by a client that does nothing else: `putter`, which stands in for borg.

use crate::Sizes;
use crate::figures::{measured, processes};
use crate::scenes::{MODE, PASSPHRASE};
use std::fs;
use testkit::TestSystem;
use testkit::system::programs;

pub fn run(sizes: &Sizes) {
    // target/PROFILE/examples, beside this program.
    let putter = programs().join("examples/putter");
    assert!(putter.exists(), "{} is missing: run scripts/bench", putter.display());
    let system = TestSystem::start();
    system.add_repository("bench", MODE, Some(PASSPHRASE));
    let cache = system.join("cache");
    fs::create_dir(&cache).expect("a directory can be made");
    fs::write(cache.join("puts"), sizes.puts.to_string()).expect("a file can be made");
    system.cli_ok(&[
        "client",
        "add",
        "host",
        "--local",
        &format!("--remote-borg={}", putter.display()),
        &format!("--remote-cache-dir={}", cache.display()),
    ]);
    system.add_config("host", "bench", "bench", &[], &[&system.home()]);
    let mut said = None;
    let figures = measured(&[], &[system.up_pid()], || said = Some(system.run("host/bench")));
    let Ok(rate) = fs::read_to_string(cache.join("rate")) else {
        let said = said.map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
        let log = system.cli_ok(&["job", "log", "1"]);
        panic!("putter did not come to its end: {}\n{log}\n{}", said.unwrap_or_default(), system.log());
    };
    println!("\n### {} objects of 600 bytes through session and owner: {rate} puts a second", sizes.puts);
    processes(&[("BorgCube", &figures)]);
}
