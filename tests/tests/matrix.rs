//! Three client versions x seven encryption modes, over two real sshds, judged by borg 1.2.4 and 1.4.5.

use testkit::borgs::{Borg, MODES};
use testkit::sshd::Sshd;
use testkit::system::TestSystem;
use testkit::tree::{Spec, make, modify};
use testkit::world::BorgWorld;
use tests::{newest_archive, text};

fn row(client: Option<Borg>, version: &str) {
    let Some(client) = client else {
        testkit::borgs::not_run(&format!("matrix of client {version}"), "that borg is not installed");
        return;
    };
    let system = TestSystem::start();
    let (mut there, mut here) = (Sshd::start(), Sshd::start());
    let borg = format!("--remote-borg={}", client.program.display());
    let cache = format!("--remote-cache-dir={}", system.join("client-cache").display());
    system.add_ssh_client("web1", &mut there, &mut here, &[&borg, &cache]);
    let source = system.join("source");
    make(&source, Spec::default());
    for (n, mode) in MODES.iter().enumerate() {
        let passphrase = (*mode != "none").then_some("pass phrase with 'quotes' and ä");
        let repository = system.add_repository(mode, mode, passphrase);
        system.add_config("web1", mode, mode, &[], &[&source]);
        let config = format!("web1/{mode}");
        let mut world = BorgWorld::with_passphrase(passphrase.unwrap_or(""));
        if mode.starts_with("keyfile") {
            world.set("BORG_KEY_FILE", system.state().join("credentials").join(mode).join("key"));
        }
        // The second run meets caches, and a tree that has changed.
        for run in 0..2 {
            if run > 0 {
                modify(&source, n as u64 + 1);
            }
            system.run_ok(&config);
            let archive = newest_archive(&system);
            system.settle();
            for judge in Borg::judges() {
                if let Err(e) = judge.judge(&world, &repository, text(&archive, "name"), &source) {
                    panic!("client {version}, {mode}, run {run}, judge {}: {e:#}\n{}", judge.version, system.log());
                }
            }
        }
        println!("matrix: client {version}, {mode}: two archives, verified by both judges");
    }
}

#[test]
fn matrix_of_client_1_1_18() {
    row(Borg::v1_1_18(), "1.1.18");
}

#[test]
fn matrix_of_client_1_2_4() {
    // On Debian 13 the distribution's own borg takes this row.
    row(Borg::v1_2_4().or_else(Borg::debian), "1.2.4");
}

#[test]
fn matrix_of_client_1_4_5() {
    row(Borg::v1_4_5(), "1.4.5");
}
