//! The two sides that are compared: stock borg over SSH, and BorgCube over the same SSH.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use testkit::{Borg, BorgWorld, Sshd, TestSystem};

pub const MODE: &str = "repokey-blake2";
pub const PASSPHRASE: &str = "a passphrase for measuring";

/// Stock borg: `borg create` on the client, `borg serve` as forced command on the server.
pub struct Stock {
    pub there: Sshd,
    pub here: Sshd,
    pub world: BorgWorld,
    program: PathBuf,
    out: PathBuf,
    back: PathBuf,
}

impl Stock {
    pub fn new(borg: &Borg) -> Stock {
        let (mut there, mut here) = (Sshd::start(), Sshd::start());
        let world = BorgWorld::with_passphrase(PASSPHRASE);
        borg.init(&world, &world.join("repository"), MODE).expect("init");
        let forced = format!("command=\"env BORG_SELFTEST=disabled {} serve\",restrict", borg.program.display());
        let (out, back) = (there.authorize(""), here.authorize(&forced));
        Stock { there, here, world, program: borg.program.clone(), out, back }
    }

    /// `borg create` of one client, which has a home of its own; not started yet.
    pub fn create(&self, client: usize, archive: &str, options: &str, source: &Path) -> Command {
        self.borg(client, "", &format!("{options} create --compression lz4"), archive, &source.display().to_string())
    }

    /// `borg extract` on one client, into a new directory; not started yet.
    pub fn extract(&self, client: usize, archive: &str, target: &Path) -> Command {
        let begin = format!("mkdir -p {target} && cd {target} && ", target = target.display());
        self.borg(client, &begin, "extract", archive, "")
    }

    fn borg(&self, client: usize, begin: &str, words: &str, archive: &str, rest: &str) -> Command {
        let base = self.world.join(format!("client-{client}"));
        fs::create_dir_all(&base).expect("a directory can be made");
        let script = format!(
            "{begin}BORG_BASE_DIR={base} BORG_PASSPHRASE='{PASSPHRASE}' BORG_SELFTEST=disabled BORG_RSH='{rsh}' \
             BORG_RELOCATED_REPO_ACCESS_IS_OK=yes {program} {words} \
             'ssh://{destination}:{port}{repository}::{archive}' {rest}",
            base = base.display(),
            rsh = self.here.rsh(&self.back),
            program = self.program.display(),
            destination = self.here.destination(),
            port = self.here.port(),
            repository = self.world.join("repository").display(),
        );
        let mut command = self.there.ssh(&self.out);
        command.arg(script);
        command
    }

    pub fn sides(&self) -> ([i32; 1], [i32; 1]) {
        ([self.there.pid()], [self.here.pid()])
    }
}

/// BorgCube with clients behind SSH.
pub struct Ours {
    pub there: Sshd,
    pub here: Sshd,
    pub system: TestSystem,
    program: String,
}

impl Ours {
    pub fn new(borg: &Borg) -> Ours {
        let program = borg.program.display().to_string();
        let system = TestSystem::start_with(&[("BORGCUBE_BORG", &program)]);
        system.add_repository("bench", MODE, Some(PASSPHRASE));
        Ours { there: Sshd::start(), here: Sshd::start(), system, program }
    }

    /// A client with the config `cN/bench`.
    pub fn add_client(&mut self, client: usize, source: &Path) {
        let name = format!("c{client}");
        let options = [
            format!("--remote-borg={}", self.program),
            format!("--remote-cache-dir={}", self.system.join(format!("cache-{client}")).display()),
        ];
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        self.system.add_ssh_client(&name, &mut self.there, &mut self.here, &options);
        self.system.add_config(&name, "bench", "bench", &["--compression", "lz4"], &[source]);
    }

    pub fn run(&self, client: usize) -> Command {
        self.system.cli_command(&["run", &format!("c{client}/bench"), "--wait"])
    }

    pub fn sides(&self) -> ([i32; 1], [i32; 2]) {
        ([self.there.pid()], [self.here.pid(), self.system.up_pid()])
    }
}

/// Runs commands at the same time; all must succeed.
pub fn all_at_once(commands: impl IntoIterator<Item = Command>) {
    let start = |mut command: Command| command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let children: Vec<Child> = commands.into_iter().map(start).collect();
    for child in children {
        let output = child.wait_with_output().expect("it can be waited for");
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "a backup failed:\n{}", String::from_utf8_lossy(&said));
    }
}

/// Runs a stock borg, which must succeed.
pub fn run_ok(command: &mut Command) {
    let output = command.output().expect("borg starts");
    assert!(output.status.success(), "borg failed:\n{}", String::from_utf8_lossy(&output.stderr));
}

/// A copy that can be changed without the first one.
pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory can be made");
    for entry in fs::read_dir(from).expect("it can be listed").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("it can be copied");
        }
    }
}
