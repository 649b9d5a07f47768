//! Files of a restore that cannot be read: which they are, and what is said of them.
//!
//! borg 1.x ends at the first chunk that it does not get, wherever that is, and has no word that would make it go on. So it is not asked for such files.

use super::super::{Stop, Worker};
use archive::damaged::Unreadable;
use archive::source::Connect;
use archive::{Selection, Source};
use model::restore::{Restore, Target};
use model::{Cause, Failure};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use unix::logging::escape_bytes;
use unix::paths::Layout;
use wire::worker::Task;

/// Paths that a sentence has.
const NAMED: usize = 5;

/// Paths that the log has.
const LOGGED: usize = 50;

/// How often it is asked whether the look is to go on, whatever the owner and the archive are at.
const GLANCE: Duration = Duration::from_millis(250);

/// Characters of a path in a sentence.
const LONG: usize = 300;

/// What is damaged of what was asked for.
#[derive(Debug)]
pub struct Found {
    /// The files.
    pub paths: Vec<Vec<u8>>,
    more: u64,
    whole: u64,
    incomplete: Option<String>,
    /// Nothing among them was not asked for.
    is_exact: bool,
}

/// What is to be restored as far as it is known here, and whether that is exactly what the client's borg will restore. Else it is more than that:
/// `--pattern` lines are borg's affair, and so are excludes that are not understood here.
fn selected(restore: &Restore) -> Result<(Selection, bool), archive::Error> {
    let none: &[&str] = &[];
    let is_understood = |exclude: &&String| Selection::new(none, &[exclude], 0).is_ok();
    let understood: Vec<&String> = restore.excludes.iter().filter(is_understood).collect();
    let is_exact = restore.patterns.is_empty() && understood.len() == restore.excludes.len();
    Ok((Selection::new(&restore.path_patterns(), &understood, 0)?, is_exact))
}

/// Whether reading everything before the client does tells what it will run into, and nothing else.
pub fn is_exact(restore: &Restore) -> bool {
    selected(restore).is_ok_and(|(_, is_exact)| is_exact)
}

/// Whether a client fails like this for whom a chunk cannot be read.
pub fn may_be(failure: &Failure) -> bool {
    match &failure.cause {
        Cause::RepositoryIntegrity | Cause::RepositoryError => true,
        // Without a MAC it is the client's borg that sees that a chunk is not what its id says. A client that lies about it has us read in vain.
        Cause::ClientBorgFailed { msgid, .. } => msgid.rsplit('.').next().is_some_and(|name| name.ends_with("IntegrityError")),
        _ => false,
    }
}

/// Reads everything that is to be restored, as the client would, until the time of the whole job is over. None: all of it is there now.
pub fn look(worker: &mut Worker, layout: &Layout, task: &Task, restore: &Restore) -> Result<Option<Found>, Stop> {
    worker.flush()?;
    let socket = layout.repository_socket(task.repository.name.as_str());
    let connect: Arc<Connect> = Arc::new(move || unix::socket::connect(&socket));
    let (mut selection, is_exact) = selected(restore).map_err(failed)?;
    // In a thread: it may wait for the owner, or be long between two files that are to be restored. One that nobody waits for any more ends with the
    // next chunk or file, and with this process, which has nothing else to do then.
    let (stop, (sender, looked)) = (Arc::new(AtomicBool::new(false)), channel());
    let (id, is_stopped) = (restore.id.clone(), Arc::clone(&stop));
    std::thread::spawn(move || {
        let mut go_on = || !is_stopped.load(Ordering::Relaxed);
        let looked = Source::open(connect, &id).and_then(|source| archive::damaged::unreadable(&source, &mut selection, &mut go_on));
        // Nobody waits for it if it was stopped.
        let _ = sender.send(looked);
    });
    let until = worker.patience.end();
    let found = loop {
        match looked.recv_timeout(GLANCE) {
            Ok(found) => break found.map_err(failed)?,
            Err(RecvTimeoutError::Timeout) if worker.goes_on() && Instant::now() < until => {}
            Err(RecvTimeoutError::Timeout) => {
                stop.store(true, Ordering::Relaxed);
                break None;
            }
            Err(RecvTimeoutError::Disconnected) => return Err(anyhow::anyhow!("the thread that looks for damage is gone").into()),
        }
    };
    let Some(Unreadable { paths, more, whole, incomplete, forgotten }) = found else { return Err(stopped(worker, task, restore)) };
    if forgotten > 0 {
        worker.note(&format!("there was no memory for {forgotten} files that are not to be restored; hard links to them were not read"));
    }
    paths.iter().take(LOGGED).for_each(|path| worker.note(&format!("damaged: {}", escape_bytes(path))));
    if paths.is_empty() && incomplete.is_none() {
        worker.note("everything that is to be restored can be read");
        return Ok(None);
    }
    Ok(Some(Found { paths, more, whole, incomplete, is_exact }))
}

/// Why the look was not taken to its end.
fn stopped(worker: &mut Worker, task: &Task, restore: &Restore) -> Stop {
    if worker.is_control_lost() {
        if !worker.outlives {
            return anyhow::anyhow!("borgcubed is gone").into();
        }
        log::warn!("borgcubed was stopped; the restore ends");
        worker.lost = true;
        return Failure::new(Cause::BorgcubedRestart, "borgcubed was stopped").into();
    }
    if let Some(by) = &worker.cancelled {
        return Failure::new(Cause::Cancelled { by: by.clone() }, format!("cancelled by {by}")).into();
    }
    let message = format!(
        "archive {} is damaged, and restoring it past that takes longer than {} seconds in all (total-seconds)",
        restore.archive, task.total_seconds
    );
    Failure::new(Cause::TooSlow, message).into()
}

fn failed(error: archive::Error) -> Failure {
    match error {
        archive::Error::Owner(failure) => failure,
        other => Failure::new(Cause::RepositoryIntegrity, unix::logging::escape(&other.to_string())),
    }
}

impl Found {
    /// What can be restored without them, or why a stock borg restores nothing.
    pub fn rest(&self, restore: &Restore) -> Result<Restore, String> {
        if let Some(why) = &self.incomplete {
            return Err(format!("the archive's list of files is damaged ({why}), and no borg on a client reads on behind that"));
        }
        if self.whole == 0 {
            return Err("nothing of what is to be restored is whole".into());
        }
        if self.more > 0 {
            return Err(format!("{} files are damaged, too many to be left out one by one", self.paths.len() as u64 + self.more));
        }
        restore.without(&self.paths).map_err(|_| format!("{} files are damaged, too many to be left out one by one", self.paths.len()))
    }

    /// Some of them.
    pub fn names(&self) -> String {
        let short = |path: &Vec<u8>| escape_bytes(path).chars().take(LONG).collect::<String>();
        let named: Vec<String> = self.paths.iter().take(NAMED).map(short).collect();
        let more = self.paths.len().saturating_sub(NAMED) as u64 + self.more;
        if more > 0 { format!("{} and {more} more", named.join(", ")) } else { named.join(", ") }
    }

    /// The job's failure: what is not there, and how to come by what is left of it. `other` is what else went wrong.
    pub fn failure(&self, repository: &str, restore: &Restore, target: &str, other: Option<Failure>) -> Failure {
        let archive = &restore.archive;
        let road = format!(
            "`borgcube archive extract {archive} --to DIR` on the server goes on behind damage and puts zeros in its place; `borgcube repository check {repository} --verify-data` finds all that is damaged"
        );
        let more = if self.is_exact { "" } else { " (this may include files that were not asked for)" };
        let of = if self.paths.is_empty() { String::new() } else { format!(": {}{more}", self.names()) };
        match (self.rest(restore), other) {
            (Err(why), _) => {
                let message =
                    format!("archive {archive} is damaged in repository {repository}{of}; {why}, so a client cannot restore it; {road}");
                Failure::new(Cause::RepositoryIntegrity, message)
            }
            (Ok(_), None) => {
                let place = if restore.target == Target::InPlace {
                    "everything else was restored; what is in place of those may be incomplete now".to_owned()
                } else {
                    format!("everything else was restored into {target}")
                };
                let message =
                    format!("of archive {archive} these are damaged in repository {repository}, and were left out{of}; {place}; {road}");
                Failure::new(Cause::RepositoryIntegrity, message)
            }
            (Ok(_), Some(other)) => {
                Failure::new(other.cause, format!("{}; besides, these are damaged in repository {repository}{of}; {road}", other.message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Event;
    use super::*;

    fn found(paths: &[&str]) -> Found {
        Found { paths: paths.iter().map(|path| path.as_bytes().to_vec()).collect(), more: 0, whole: 7, incomplete: None, is_exact: true }
    }

    fn restore() -> Restore {
        Restore {
            archive: "web1-etc-1".into(),
            id: "0f".repeat(32),
            of: "web1".parse().unwrap(),
            paths: vec![],
            patterns: vec![],
            excludes: vec![],
            target: Target::New,
            sparse: false,
            ignore_space: false,
        }
    }

    #[test]
    fn what_is_damaged_is_left_out_and_named() {
        let some = found(&["etc/a", "etc/\u{1b}"]);
        assert_eq!(some.rest(&restore()).unwrap().excludes, ["pf:etc/a", "pf:etc/\u{1b}"]);
        let failure = some.failure("main", &restore(), "/root/x", None);
        assert_eq!(failure.cause, Cause::RepositoryIntegrity);
        let begin = "of archive web1-etc-1 these are damaged in repository main, and were left out: etc/a, etc/\\u{1b}; everything else was restored into /root/x; `borgcube archive extract web1-etc-1 --to DIR`";
        assert!(failure.message.starts_with(begin), "{}", failure.message);
        let full = Failure::new(Cause::ClientEnospc, "the client has no room");
        let failure = some.failure("main", &restore(), "/root/x", Some(full));
        assert!(failure.cause == Cause::ClientEnospc && failure.message.contains("no room; besides, these are damaged"), "{failure:?}");
        assert!(found(&["x"; 9]).names().ends_with("and 4 more"));
    }

    #[test]
    fn what_is_not_understood_leaves_the_rest_in_force() {
        let exact = Restore { paths: vec!["etc".into()], excludes: vec!["*.o".into()], ..restore() };
        assert!(is_exact(&exact) && is_exact(&restore()));
        assert!(!is_exact(&Restore { patterns: vec!["- *.c".into()], ..exact.clone() }));
        // Python has it, we have not.
        let odd = Restore { excludes: vec!["re:(?=a)".into(), "*.o".into()], ..exact };
        let (mut selection, is_exact) = selected(&odd).unwrap();
        assert!(!is_exact);
        let taken = ["etc/a.o", "etc/a.c", "var/a.c"].map(|path| selection.choose(path.as_bytes()).is_some());
        assert_eq!(taken, [false, true, false]);
        let found = Found { is_exact: false, ..found(&["etc/a.c"]) };
        let message = found.failure("main", &odd, "/root/x", None).message;
        assert!(message.contains("left out: etc/a.c (this may include files that were not asked for); everything else"), "{message}");
    }

    #[test]
    fn a_look_that_is_stopped_says_by_whom() {
        let cause = |outlives: bool, cancelled: Option<&str>, is_lost: bool| {
            let (mut worker, mut task, end, _) = Worker::of_test();
            worker.outlives = outlives;
            task.total_seconds = 77;
            if is_lost {
                drop(end);
                let event = worker.events.recv_timeout(Duration::from_secs(60)).unwrap();
                worker.waiting.push_back(event);
            }
            worker.cancelled = cancelled.map(Into::into);
            assert_eq!(worker.goes_on(), !is_lost && cancelled.is_none());
            let stop = stopped(&mut worker, &task, &restore());
            (matches!(stop, Stop::Broken(_)), if let Stop::Failed(failure) = stop { failure.line() } else { String::new() }, worker.lost)
        };
        let (is_broken, line, lost) = cause(true, None, true);
        assert!(!is_broken && lost && line.starts_with("borgcubed-restart"), "{line}");
        assert!(cause(false, None, true).0);
        let (_, line, lost) = cause(true, Some("anna"), false);
        assert!(!lost && line.contains("cancelled by anna"), "{line}");
        let (_, line, _) = cause(true, None, false);
        assert!(line.contains("longer than 77 seconds"), "{line}");
    }

    /// A worker that looks for damage and has an owner that takes connections and says nothing; how that ends.
    fn look_in_vain(of: impl FnOnce(&mut Worker, &mut Task, &std::sync::mpsc::Sender<Event>) + Send + 'static) -> String {
        let (sender, ended) = channel();
        std::thread::spawn(move || {
            let directory = tempfile::tempdir().unwrap();
            let layout = Layout::new(directory.path());
            let socket = layout.repository_socket("main");
            std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
            let _silent = std::os::unix::net::UnixListener::bind(socket).unwrap();
            let (mut worker, mut task, _end, events) = Worker::of_test();
            task.repository.name = "main".parse().unwrap();
            of(&mut worker, &mut task, &events);
            let stop = look(&mut worker, &layout, &task, &restore()).err();
            sender.send(if let Some(Stop::Failed(failure)) = stop { failure.line() } else { "otherwise".into() }).unwrap();
        });
        ended.recv_timeout(Duration::from_secs(60)).expect("it ends")
    }

    #[test]
    fn whoever_cancels_waits_for_no_owner() {
        let line = look_in_vain(|_, _, events| {
            let events = events.clone();
            std::thread::spawn(move || events.send(Event::Control(wire::worker::ToWorker::Cancel { by: "anna".into() })).unwrap());
        });
        assert!(line.contains("cancelled by anna"), "{line}");
    }

    #[test]
    fn what_the_client_has_taken_counts() {
        let line = look_in_vain(|worker, task, _| {
            // The client has taken all the time that there was; the task's own says nothing more.
            worker.patience = super::super::super::patience::Patience::new(60, 0, Instant::now());
            worker.begin_again(task, &Layout::new(std::path::Path::new("/nonexistent")));
            assert!(task.total_seconds >= 60);
        });
        assert!(line.contains("too-slow") && line.contains("seconds in all (total-seconds)"), "{line}");
    }

    #[test]
    fn what_no_client_can_restore_says_what_can() {
        let nothing = Found { whole: 0, ..found(&["a"]) };
        let many = Found { more: 1, ..found(&["a"]) };
        let list = Found { incomplete: Some("a hole".into()), ..found(&[]) };
        for (found, why) in [(nothing, "nothing of what"), (many, "too many"), (list, "list of files is damaged (a hole)")] {
            let failure = found.failure("main", &restore(), "", None);
            assert!(failure.message.contains(why) && failure.message.contains("archive extract web1-etc-1 --to DIR"), "{failure:?}");
        }
    }

    #[test]
    fn a_client_that_could_not_read_is_told_from_one_that_could_not_write() {
        let borg = |msgid: &str| Failure::new(Cause::ClientBorgFailed { code: 2, msgid: msgid.into() }, "x");
        assert!(may_be(&borg("IntegrityError")) && may_be(&borg("borg.crypto.low_level.IntegrityError")) && !may_be(&borg("")));
        assert!(may_be(&Failure::new(Cause::RepositoryIntegrity, "x")) && !may_be(&Failure::new(Cause::ClientEnospc, "x")));
    }
}
