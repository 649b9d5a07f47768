//! BorgCube beside stock borg, doing the same work over the same two SSH connections: the server logs in to the
//! client and starts `borg create` there, which logs in to the server. `scripts/bench` builds and starts it.
//!
//! Processor time is that of everything below the client's sshd (borg and its ssh), and of everything below the
//! server's sshd and, for BorgCube, below `borgcube up` (which includes the ssh that it starts).

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use testkit::tree::Random;
use testkit::{Borg, BorgWorld, Sshd, TestSystem, process};

const MODE: &str = "repokey-blake2";
const PASSPHRASE: &str = "a passphrase for measuring";

struct Figures {
    wall: Duration,
    client: Duration,
    server: Duration,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| match arguments.next() {
        Some(word) => word.parse().ok(),
        None => Some(default),
    };
    let (Some(bytes), Some(files)) = (number(1 << 30), number(50_000)) else {
        eprintln!("usage: scripts/bench [BYTES [FILES]]");
        return ExitCode::from(2);
    };
    let Some(borg) = Borg::v1_4_5().or_else(Borg::debian) else {
        eprintln!("there is no borg on this machine: run scripts/setup test");
        return ExitCode::FAILURE;
    };
    let place = tempfile::Builder::new().prefix("bench-").tempdir().expect("a temporary directory can be made");
    let big = place.path().join("big");
    fs::create_dir(&big).expect("a directory can be made");
    make_big(&big.join("file"), bytes);
    // Borg never trusts the newest file of a run; without a newer one beside it the big file would be read again each time.
    std::thread::sleep(Duration::from_millis(1100));
    fs::write(big.join("newest"), "x").expect("it can be written");
    compare(&borg, &format!("one file of {bytes} bytes, half of it compressible"), &big);
    fs::remove_dir_all(&big).expect("it can be removed");
    let many = place.path().join("many");
    make_many(&many, files);
    compare(&borg, &format!("{files} files of up to 4 KiB"), &many);
    ExitCode::SUCCESS
}

/// Alternating MiB of noise and of text.
fn make_big(path: &Path, bytes: usize) {
    use std::io::Write;
    let mut file = fs::File::create(path).expect("a file can be made");
    let mut random = Random::new(1);
    let mut left = bytes;
    let mut noise = true;
    while left > 0 {
        let length = left.min(1 << 20);
        let block = if noise { random.bytes(length) } else { random.text(length) };
        file.write_all(&block).expect("it can be written");
        left -= length;
        noise = !noise;
    }
}

fn make_many(root: &Path, files: usize) {
    let mut random = Random::new(2);
    for number in 0..files {
        let directory = root.join(format!("{:04}", number / 100));
        if number % 100 == 0 {
            fs::create_dir_all(&directory).expect("a directory can be made");
        }
        let length = random.below(4096) as usize;
        fs::write(directory.join(format!("{number}")), random.bytes(length)).expect("a file can be made");
    }
}

fn compare(borg: &Borg, what: &str, source: &Path) {
    println!("\n{what}; borg {}, {MODE}, lz4", borg.version);
    println!("{:<22} {:>9} {:>12} {:>12}", "", "wall", "client CPU", "server CPU");
    let stock = stock(borg, source);
    let ours = borgcube(borg, source);
    for (run, (stock, ours)) in ["first", "unchanged"].iter().zip(stock.iter().zip(&ours)) {
        row(&format!("{run}: stock borg"), stock);
        row(&format!("{run}: BorgCube"), ours);
        let ratio = |a: Duration, b: Duration| format!("{:.2}", a.as_secs_f64() / b.as_secs_f64().max(0.01));
        println!(
            "{:<22} {:>9} {:>12} {:>12}",
            "  ratio",
            ratio(ours.wall, stock.wall),
            ratio(ours.client, stock.client),
            ratio(ours.server, stock.server)
        );
    }
}

fn row(name: &str, figures: &Figures) {
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    println!("{name:<22} {:>9} {:>12} {:>12}", seconds(figures.wall), seconds(figures.client), seconds(figures.server));
}

/// Measures one piece of work against the processes on both sides.
fn measured(client: &[i32], server: &[i32], work: impl FnOnce()) -> Figures {
    let used = |pids: &[i32]| pids.iter().map(|pid| process::processor_time(*pid)).sum::<Duration>();
    let (client_before, server_before, begin) = (used(client), used(server), Instant::now());
    work();
    let wall = begin.elapsed();
    // sshd reaps a connection a moment after its client has gone; only then is its time counted.
    std::thread::sleep(Duration::from_millis(500));
    Figures { wall, client: used(client) - client_before, server: used(server) - server_before }
}

fn stock(borg: &Borg, source: &Path) -> Vec<Figures> {
    let (mut there, mut here) = (Sshd::start(), Sshd::start());
    let world = BorgWorld::with_passphrase(PASSPHRASE);
    let repository = world.join("repository");
    borg.init(&world, &repository, MODE).expect("init");
    let program = borg.program.display();
    let forced = format!("command=\"env BORG_SELFTEST=disabled {program} serve\",restrict");
    let (out, back) = (there.authorize(""), here.authorize(&forced));
    let base = world.join("client");
    fs::create_dir(&base).expect("a directory can be made");
    let run = |archive: &str| {
        let script = format!(
            "BORG_BASE_DIR={base} BORG_PASSPHRASE='{PASSPHRASE}' BORG_SELFTEST=disabled BORG_RSH='{rsh}' \
             BORG_RELOCATED_REPO_ACCESS_IS_OK=yes {program} create --compression lz4 \
             'ssh://{destination}:{port}{repository}::{archive}' {source}",
            base = base.display(),
            rsh = here.rsh(&back),
            destination = here.destination(),
            port = here.port(),
            repository = repository.display(),
            source = source.display(),
        );
        measured(&[there.pid()], &[here.pid()], || succeed(there.ssh(&out).arg(script)))
    };
    vec![run("first"), run("second")]
}

fn borgcube(borg: &Borg, source: &Path) -> Vec<Figures> {
    let (mut there, mut here) = (Sshd::start(), Sshd::start());
    let program = borg.program.display().to_string();
    let system = TestSystem::start_with(&[("BORGCUBE_BORG", &program)]);
    system.add_repository("bench", MODE, Some(PASSPHRASE));
    let cache = system.join("client");
    let options = [format!("--remote-borg={program}"), format!("--remote-cache-dir={}", cache.display())];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    system.add_ssh_client("client", &mut there, &mut here, &options);
    system.add_config("client", "bench", "bench", &["--compression", "lz4"], &[source]);
    let run = || {
        measured(&[there.pid()], &[here.pid(), system.up_pid()], || {
            system.run_ok("client/bench");
        })
    };
    vec![run(), run()]
}

fn succeed(command: &mut Command) {
    let output = command.output().expect("ssh starts");
    assert!(output.status.success(), "borg create failed:\n{}", String::from_utf8_lossy(&output.stderr));
}
