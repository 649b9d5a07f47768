//! Borg binaries of this server, for clients that have no borg of their own or one that is too old.
//!
//! The script (`binary.sh`) says what the client is and which binary it has kept; we say which one it is to use, and send it unless it has
//! that already. What a client keeps or runs is its own affair: nothing of what it says about it is believed later.

use model::binary::{Binary, Host, Index, Libc, Platform};
use model::{Cause, Failure};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;
use unix::paths::Layout;

/// More than an index of a hundred binaries has.
const LARGEST_INDEX: u64 = 1024 * 1024;

/// What a client's script says when it wants a binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// None: its words make no sense.
    host: Option<Host>,
    /// The checksum of what it has kept.
    kept: String,
    why: Why,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Why {
    Missing,
    Outdated(String),
    Always,
}

impl Wanted {
    /// From `SYSTEM MACHINE BITS LIBC CHECKSUM WHY [WHAT THERE IS]`; escaped already.
    pub fn parse(line: &str) -> Wanted {
        let mut words = line.splitn(7, ' ');
        let mut word = || words.next().unwrap_or_default();
        let (system, machine, bits, libc, kept, why, told) = (word(), word(), word(), word(), word(), word(), word());
        let host = Platform::of_host(system, machine, bits).ok().map(|platform| Host { platform, libc: Libc::said(libc) });
        let why = match why {
            "always" => Why::Always,
            "client-borg-outdated" => Why::Outdated(told.to_owned()),
            _ => Why::Missing,
        };
        Wanted { host, kept: kept.to_owned(), why }
    }
}

/// What the script is told.
#[derive(Debug)]
pub enum Reply {
    /// To use the one that it has kept.
    Keep,
    /// That there are none.
    None,
    /// To take this one.
    Send {
        /// Open, and verified.
        file: File,
        /// What the index says of it.
        binary: Binary,
    },
}

impl Reply {
    /// Writes it as the script reads it.
    pub fn write(self, to: &mut impl Write) -> io::Result<()> {
        match self {
            Reply::Keep => to.write_all(&super::client::answer_line("keep"))?,
            Reply::None => to.write_all(&super::client::answer_line("none"))?,
            Reply::Send { mut file, binary } => {
                to.write_all(&super::client::answer_line(&binary.size.to_string()))?;
                to.write_all(format!("{}\n", binary.sha256).as_bytes())?;
                file.rewind()?;
                io::copy(&mut file.take(binary.size), to)?;
            }
        }
        to.flush()
    }
}

/// The directory of binaries, as long as the client of a job may ask for one: once.
#[derive(Debug)]
pub struct Shelf {
    directory: PathBuf,
    index: PathBuf,
}

impl Shelf {
    /// That of this server.
    pub fn of(layout: &Layout) -> Shelf {
        Shelf { directory: layout.binaries(), index: layout.binaries_index() }
    }

    /// What a client is told, and the sentence for the job's log; or why it cannot have one.
    pub fn answer(&self, wanted: &Wanted) -> Result<(Reply, String), Failure> {
        let index = self.index()?;
        if index.binaries.is_empty() {
            return match wanted.why {
                Why::Always => Err(failure("the client is to use a Borg binary of this server, and there is none")),
                // Its own trouble is the cause then.
                Why::Missing | Why::Outdated(_) => Ok((Reply::None, "this server has no Borg binary for the client".to_owned())),
            };
        }
        let has = match &wanted.why {
            Why::Missing => "the client has no borg of its own, and ".to_owned(),
            Why::Outdated(version) => format!("the client has {version}, which is too old, and "),
            Why::Always => String::new(),
        };
        let Some(host) = &wanted.host else {
            return Err(failure(format!("{has}does not tell its platform")));
        };
        let Some(binary) = index.choose(host) else {
            return Err(failure(format!("{has}{}", index.none_for(host))));
        };
        if wanted.kept == binary.sha256 {
            return Ok((Reply::Keep, format!("the client ({host}) uses {} again, which it has kept", binary.name)));
        }
        let note = format!("the client ({host}) gets {}, {} bytes", binary.name, binary.size);
        Ok((Reply::Send { file: self.open(binary)?, binary: binary.clone() }, note))
    }

    fn index(&self) -> Result<Index, Failure> {
        let damaged =
            |why: String| failure(format!("the index of this server's Borg binaries, {}, cannot be used: {why}", self.index.display()));
        match unix::files::read_small(&self.index, LARGEST_INDEX) {
            Ok(Some(bytes)) => Index::parse(&bytes).map_err(damaged),
            Ok(None) => Ok(Index::default()),
            Err(e) => Err(damaged(e.to_string())),
        }
    }

    /// Verified before anything of it is sent: the client would notice a wrong one, but not whose fault it is.
    fn open(&self, binary: &Binary) -> Result<File, Failure> {
        let path = self.directory.join(&binary.name);
        let unreadable = |e: io::Error| failure(format!("this server's {} cannot be read: {e}", path.display()));
        let file = File::open(&path).map_err(unreadable)?;
        if file.metadata().map_err(unreadable)?.len() != binary.size || sha256(&file).map_err(unreadable)? != binary.sha256 {
            return Err(failure(format!("this server's {} is not what was added (borgcube binary verify)", path.display())));
        }
        Ok(file)
    }
}

fn sha256(mut file: &File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hash.update(&buffer[..read]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn failure(message: impl Into<String>) -> Failure {
    Failure::new(Cause::ClientBorgBinary, message)
}

#[cfg(test)]
mod tests {
    use super::super::client::answer_line;
    use super::super::keys::JobKey;
    use super::super::script::{self, Way};
    use super::*;
    use model::Timestamp;
    use model::client::{BinaryUse, Connection};
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process::{Command, Stdio};

    const PROGRAM: &str = "#!/bin/sh\n[ \"$1\" != --version ] || { echo \"${0##*/} 1.4.5\"; exit; }\necho \"in $TMPDIR\" >&2\n";

    /// What the script needs, and no borg.
    const TOOLS: &str = "sh dd mkdir mv rm cat sleep stat flock uname wc chmod sha256sum getconf ldd tr ls";

    /// A client's home, and a `PATH` in which there is no borg but the one that a test makes.
    struct There {
        home: tempfile::TempDir,
    }

    impl There {
        fn new() -> There {
            let home = tempfile::tempdir().unwrap();
            let bin = home.path().join("bin");
            fs::create_dir(&bin).unwrap();
            let path = std::env::var_os("PATH").unwrap();
            for name in TOOLS.split(' ') {
                let found = std::env::split_paths(&path).map(|directory| directory.join(name)).find(|path| path.exists());
                found.into_iter().for_each(|path| symlink(path, bin.join(name)).unwrap());
            }
            There { home }
        }

        fn borg(&self, says: &str) {
            let path = self.home.path().join("bin/borg");
            fs::write(&path, format!("#!/bin/sh\necho {says}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }

        fn base(&self) -> PathBuf {
            self.home.path().join(".cache/borgcube/sid")
        }

        fn kept(&self) -> PathBuf {
            self.base().join("binary/borg")
        }

        /// Runs the script; gives what it said to the worker and to standard error.
        fn run(&self, when: BinaryUse, answers: &[u8]) -> (String, String) {
            self.run_by(&Way::Command("shim".into()), when, answers)
        }

        fn run_by(&self, way: &Way, when: BinaryUse, answers: &[u8]) -> (String, String) {
            let (task, mut backup) = script::tests::task(Connection::Local { remote_borg: None, remote_cache_dir: None });
            backup.client.borg_binary = when;
            let arguments = backup.config.borg_arguments("a");
            let input = script::build(&task, &backup, &script::tests::prepared(), &arguments, way);
            let mut child = Command::new("/bin/sh")
                .args(["-c", &input.command])
                .env_clear()
                .env("PATH", self.home.path().join("bin"))
                .env("HOME", self.home.path())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            // What is written here fits into a pipe.
            let mut stdin = child.stdin.take().unwrap();
            let _ = stdin.write_all(&input.head).and_then(|()| stdin.write_all(answers));
            // Where there are all answers, borg's end is the end, and otherwise that of the input.
            let stdin = answers.ends_with(&cache()).then_some(stdin);
            let (mut out, mut err) = (String::new(), String::new());
            child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
            child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
            child.wait().unwrap();
            drop(stdin);
            let left: Vec<_> = fs::read_dir(self.base()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            assert!(!left.iter().any(|name| name.starts_with("unpacked-") || name.starts_with("job-")), "{left:?}");
            (out, err)
        }
    }

    /// An empty chunks cache.
    fn cache() -> Vec<u8> {
        answer_line("0")
    }

    fn sum(bytes: &[u8]) -> String {
        Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn sent(bytes: &[u8], sha256: &str) -> Vec<u8> {
        [answer_line(&bytes.len().to_string()), format!("{sha256}\n").into_bytes(), bytes.to_vec()].concat()
    }

    fn asked(out: &str) -> Option<Wanted> {
        out.lines().find_map(|line| line.strip_prefix("borgcube binary ")).map(Wanted::parse)
    }

    #[test]
    fn a_binary_is_taken_kept_and_replaced_when_it_has_changed() {
        let there = There::new();
        let program = PROGRAM.as_bytes();
        let whole = [sent(program, &sum(program)), cache()].concat();
        let (out, err) = there.run(BinaryUse::IfNeeded, &whole);
        let wanted = asked(&out).unwrap();
        let host = wanted.host.unwrap();
        assert_eq!((wanted.kept.as_str(), wanted.why), ("-", Why::Missing), "{out}");
        let (system, machine) = (std::env::consts::OS, std::env::consts::ARCH);
        assert_eq!(host.platform, Platform::new(system, machine).unwrap(), "{out}");
        assert!(matches!(host.libc, Libc::Glibc(glibc) if glibc.major == 2) || !cfg!(target_env = "gnu"), "{out}");
        assert!(out.contains("borgcube version borg 1.4.5\n") && out.contains("borgcube exit 0\nborgcube clean"), "{out}{err}");
        assert!(err.contains(&format!("in {}/unpacked-", there.base().display())), "{err}");
        assert_eq!(fs::metadata(there.kept()).unwrap().permissions().mode() & 0o7777, 0o700);

        // The next time nothing is sent.
        let again = [answer_line("keep"), cache()].concat();
        let (out, err) = there.run(BinaryUse::IfNeeded, &again);
        assert_eq!(asked(&out).unwrap().kept, sum(program));
        assert!(out.contains("borgcube exit 0"), "{out}{err}");

        fs::write(there.kept(), "#!/bin/sh\n").unwrap();
        let (out, err) = there.run(BinaryUse::IfNeeded, &whole);
        assert_eq!(asked(&out).unwrap().kept, sum(b"#!/bin/sh\n"));
        assert!(out.contains("borgcube exit 0"), "{out}{err}");
        assert_eq!(fs::read(there.kept()).unwrap(), program);
    }

    /// On an installed server a key comes with each job: it is before everything that is answered.
    #[test]
    fn a_binary_comes_behind_the_key_of_the_job() {
        let there = There::new();
        let program = b"#!/bin/sh\n[ \"$1\" != --version ] || { echo borg 1.4.5; exit; }\ncat \"$borgcube_job_dir/key\" \"$borgcube_job_dir/known_hosts\" >&2\n";
        let file = there.home.path().join("of the server");
        fs::write(&file, "").unwrap();
        let (private, known_hosts) = ("-----BEGIN\n$(x) `y` \\z\n-----END\n", "backup ssh-ed25519 AAAA\nbackup ssh-rsa AAAA\n");
        let way = Way::Key(JobKey::sample(file, private, known_hosts));
        let (out, err) = there.run_by(&way, BinaryUse::IfNeeded, &[sent(program, &sum(program)), cache()].concat());
        assert!(out.contains("borgcube exit 0"), "{out}{err}");
        assert_eq!(err, format!("{private}{known_hosts}"));
    }

    #[test]
    fn what_is_cut_off_or_changed_on_the_way_is_not_used() {
        let there = There::new();
        let program = PROGRAM.as_bytes();
        let whole = sent(program, &sum(program));
        for end in [0, 10, 20, 50, 85, whole.len() - 1] {
            let (out, _) = there.run(BinaryUse::Always, &whole[..end]);
            assert!(asked(&out).is_some() && !out.contains("version") && !there.kept().exists(), "{end}: {out}");
        }
        let (out, _) = there.run(BinaryUse::Always, &sent(program, &sum(b"")));
        assert!(out.contains("borgcube failed client-borg-binary the binary that arrived"), "{out}");
        assert!(!there.kept().exists());
        // What was good before stays.
        there.run(BinaryUse::Always, &[whole, cache()].concat());
        there.run(BinaryUse::Always, &sent(b"x", &sum(b"")));
        assert_eq!(fs::read(there.kept()).unwrap(), program);
    }

    #[test]
    fn one_that_cannot_run_there_is_a_cause_of_its_own() {
        let there = There::new();
        for (program, why) in [
            ("#!/no/interpreter\n", "not found"),
            ("#!/bin/sh\necho \"libc.so.6: version GLIBC_2.99 not found\" >&2; exit 1\n", "GLIBC_2.99 not found"),
            ("#!/bin/sh\necho borg 2.0.0\n", "borg 2.0.0"),
        ] {
            let (out, err) = there.run(BinaryUse::Always, &[sent(program.as_bytes(), &sum(program.as_bytes())), cache()].concat());
            let said =
                out.lines().find(|line| line.starts_with("borgcube failed client-borg-binary")).unwrap_or_else(|| panic!("{out}{err}"));
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn who_has_a_good_borg_does_not_ask_unless_he_shall() {
        let there = There::new();
        let none = answer_line("none");
        let (out, _) = there.run(BinaryUse::IfNeeded, &none);
        assert!(out.contains("borgcube failed client-borg-missing borg was not found"), "{out}");
        let (out, _) = there.run(BinaryUse::Never, b"");
        assert!(asked(&out).is_none() && out.contains("borgcube failed client-borg-missing"), "{out}");

        there.borg("borg 1.1.9");
        let (out, _) = there.run(BinaryUse::IfNeeded, &none);
        assert_eq!(asked(&out).unwrap().why, Why::Outdated("borg 1.1.9".into()));
        assert!(out.contains("borgcube version borg 1.1.9\n") && out.contains("failed client-borg-outdated borg 1.1.9"), "{out}");
        let (out, _) = there.run(BinaryUse::Never, b"");
        assert!(asked(&out).is_none() && out.contains("failed client-borg-outdated borg 1.1.9"), "{out}");

        there.borg("borg 1.1.10");
        let (out, _) = there.run(BinaryUse::IfNeeded, &cache());
        assert!(asked(&out).is_none() && out.contains("borgcube version borg 1.1.10") && out.contains("exit 0"), "{out}");
        let (out, _) = there.run(BinaryUse::Always, b"");
        assert_eq!(asked(&out).unwrap().why, Why::Always);
    }

    /// A directory with one binary.
    fn shelf(glibc: &str) -> (tempfile::TempDir, Shelf, Binary) {
        let state = tempfile::tempdir().unwrap();
        let shelf = Shelf::of(&Layout::new(state.path()));
        fs::create_dir(&shelf.directory).unwrap();
        let (borg, platform) = ("1.4.5".parse().unwrap(), "linux-x86_64".parse().unwrap());
        let glibc = Some(glibc.parse().unwrap());
        let name = Binary::name_of(borg, &platform, glibc);
        let size = PROGRAM.len() as u64;
        let binary = Binary { name, borg, platform, glibc, size, sha256: sum(PROGRAM.as_bytes()), added: Timestamp(0) };
        let index = Index::of(vec![binary.clone()]);
        fs::write(&shelf.index, index.to_json().unwrap()).unwrap();
        fs::write(shelf.directory.join(&binary.name), PROGRAM).unwrap();
        (state, shelf, binary)
    }

    fn wanted(kept: &str, why: &str) -> Wanted {
        Wanted::parse(&format!("Linux x86_64 64 glibc-2.36 {kept} {why}"))
    }

    #[test]
    fn what_a_client_is_told() {
        let (_state, shelf, binary) = shelf("2.35");
        let (reply, note) = shelf.answer(&wanted("-", "client-borg-missing")).unwrap();
        assert!(note.contains("gets borg-1.4.5-linux-x86_64-glibc2.35"), "{note}");
        let mut bytes = vec![];
        reply.write(&mut bytes).unwrap();
        assert_eq!(bytes, sent(PROGRAM.as_bytes(), &binary.sha256));
        let (reply, note) = shelf.answer(&wanted(&binary.sha256, "always")).unwrap();
        assert!(matches!(reply, Reply::Keep) && note.contains("again"), "{note}");

        fs::write(shelf.directory.join(&binary.name), PROGRAM.replace("1.4.5", "1.4.6")).unwrap();
        let failure = shelf.answer(&wanted("-", "always")).unwrap_err();
        assert!(failure.cause == Cause::ClientBorgBinary && failure.message.contains("borgcube binary verify"), "{failure:?}");
        fs::remove_file(shelf.directory.join(&binary.name)).unwrap();
        assert!(shelf.answer(&wanted("-", "always")).unwrap_err().message.contains("cannot be read"));
        fs::write(&shelf.index, "{").unwrap();
        assert!(shelf.answer(&wanted("-", "always")).unwrap_err().message.contains("index.json"));
    }

    #[test]
    fn where_none_fits_the_sentence_says_what_there_is() {
        let (_state, there, _) = shelf("2.41");
        let failure = there.answer(&wanted("-", "client-borg-outdated borg 1.0.9")).unwrap_err();
        assert_eq!(
            failure.line(),
            "client-borg-binary: the client has borg 1.0.9, which is too old, and no Borg binary of this server fits linux-x86_64 with glibc 2.36: there is borg-1.4.5-linux-x86_64-glibc2.41"
        );
        let failure = there.answer(&Wanted::parse("Linux x86_64 64 musl - client-borg-missing borg was not found")).unwrap_err();
        assert!(failure.message.starts_with("the client has no borg of its own, and no Borg binary"), "{failure:?}");
        for nonsense in ["", "x", "  ", "$(x) ; 64 glibc-2.36 - always", "Linux ../.. 64 glibc-2.36 - always"] {
            let failure = there.answer(&Wanted::parse(nonsense)).unwrap_err();
            assert!(failure.message.ends_with("does not tell its platform"), "{nonsense}: {failure:?}");
        }

        let (_state, none, _) = shelf("2.31");
        fs::remove_file(&none.index).unwrap();
        assert!(matches!(none.answer(&wanted("-", "client-borg-missing")), Ok((Reply::None, _))));
        assert!(none.answer(&wanted("-", "always")).unwrap_err().message.contains("there is none"));
    }
}
