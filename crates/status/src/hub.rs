//! What happens, from one connection to `borgcubed` to everybody who looks: server-sent events, and the progress of what runs.
//!
//! A viewer costs one small task and one place in a channel ([`crate::viewer`]). An event is put into words once, whoever is listening.

use crate::control::{Connection, Trouble};
use crate::view::{JobRow, ProgressView};
use hyper::body::Bytes;
use model::progress::Progress;
use model::{JobState, Timestamp};
use serde::Serialize;
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{broadcast, watch};
use wire::control::{Call, Event, EventReply};

/// Events that a viewer may be behind before it is told to look at everything anew.
const BEHIND: usize = 256;
/// Events that are kept for viewers who come back.
const KEPT: usize = 256;
/// A comment at least so often, so that nobody between here and the viewer takes the connection for dead.
const ALIVE: Duration = Duration::from_secs(15);
/// Progress of jobs that is remembered, at most: more do not run.
const MAX_RUNNING: usize = 10_000;

/// One event as it is sent.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Its number; None: a comment or progress, which nobody has to catch up with.
    pub number: Option<u64>,
    /// Its bytes as a server-sent event.
    pub bytes: Bytes,
    /// The same as a message of a WebSocket, in JSON. None: nothing that is of use there.
    pub message: Option<Bytes>,
}

/// What is known of what runs now.
#[derive(Debug, Clone, Default)]
pub struct Live {
    /// borgcubed tells us what happens.
    pub connected: bool,
    /// Since when that is so, or is not.
    pub since: Timestamp,
    /// Why not.
    pub trouble: Option<String>,
    /// Progress by job.
    pub progress: HashMap<u64, Progress>,
}

struct State {
    live: Arc<Live>,
    kept: VecDeque<Frame>,
    last: u64,
}

/// The one place that events come to and go from.
pub struct Hub {
    state: Mutex<State>,
    channel: broadcast::Sender<Frame>,
    /// Who may look may be others now.
    users: watch::Sender<()>,
    /// Tells one run of this program from the next: numbers begin anew.
    epoch: u64,
}

/// What a new viewer gets first.
pub struct Joined {
    /// Frames that were missed.
    pub first: Vec<Frame>,
    /// Everything after them.
    pub rest: broadcast::Receiver<Frame>,
}

#[derive(Serialize)]
struct Connected<'a> {
    connected: bool,
    trouble: Option<&'a str>,
}

#[derive(Serialize)]
struct Moved {
    job: u64,
    progress: ProgressView,
}

impl Hub {
    /// Nothing is known yet.
    #[must_use]
    pub fn new() -> Hub {
        let now = Timestamp::now();
        let live = Live { since: now, trouble: Some("the connection is being made".into()), ..Live::default() };
        Hub {
            state: Mutex::new(State { live: Arc::new(live), kept: VecDeque::new(), last: 0 }),
            channel: broadcast::channel(BEHIND).0,
            users: watch::Sender::new(()),
            epoch: now.0.unsigned_abs(),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known now.
    #[must_use]
    pub fn live(&self) -> Arc<Live> {
        Arc::clone(&self.state().live)
    }

    /// Tells whenever users of the status pages may have changed.
    #[must_use]
    pub fn users(&self) -> watch::Receiver<()> {
        self.users.subscribe()
    }

    /// A new viewer, or one that comes back with the id of the last event it saw.
    #[must_use]
    pub fn join(&self, last_seen: Option<&str>) -> Joined {
        let state = self.state();
        // Under the lock: no event falls between what was kept and what comes.
        let rest = self.channel.subscribe();
        let mut first = vec![comment(b"retry: 3000\n\n")];
        let connected = Connected { connected: state.live.connected, trouble: state.live.trouble.as_deref() };
        first.push(frame(None, "borgcubed", &connected));
        if let Some(seen) = last_seen {
            let seen = seen.split_once('-').filter(|(epoch, _)| epoch.parse() == Ok(self.epoch)).and_then(|(_, n)| n.parse::<u64>().ok());
            let oldest = state.kept.front().and_then(|frame| frame.number).unwrap_or(state.last + 1);
            match seen {
                Some(seen) if seen.saturating_add(1) >= oldest && seen <= state.last => {
                    first.extend(state.kept.iter().filter(|frame| frame.number > Some(seen)).cloned());
                }
                _ => first.push(resync()),
            }
        }
        Joined { first, rest }
    }

    /// Listens to `borgcubed` for ever: what it says goes to everybody, and when it is gone it is looked for again.
    pub async fn run(self: Arc<Self>, control: PathBuf) {
        let mut pause = Duration::from_millis(100);
        loop {
            let Err(trouble) = self.watch(&control, &mut pause).await;
            self.lost(&trouble);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(10));
        }
    }

    /// Sends a comment from time to time.
    pub async fn keep_alive(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(ALIVE);
        loop {
            ticks.tick().await;
            // Nobody listens: nobody minds.
            let _ = self.channel.send(comment(b": alive\n\n"));
        }
    }

    async fn watch(&self, control: &std::path::Path, pause: &mut Duration) -> Result<std::convert::Infallible, Trouble> {
        let mut connection = Connection::open(control).await?;
        // Watch says nothing until something happens; that somebody listens is seen by the answer to the question before it.
        connection.send(Call::GetInfo {}, false).await?;
        connection.send(Call::Watch { job: None }, true).await?;
        connection.reply().await?;
        self.found();
        *pause = Duration::from_millis(100);
        loop {
            let reply = connection.reply().await?;
            match serde_json::from_value::<EventReply>(reply.parameters) {
                Ok(told) => self.happened(&told.event),
                Err(e) => log::warn!("an event of borgcubed is not understood, perhaps it is newer: {e}"),
            }
        }
    }

    fn found(&self) {
        log::info!("borgcubed tells what happens");
        self.change(|live| {
            *live = Live { connected: true, since: Timestamp::now(), trouble: None, progress: std::mem::take(&mut live.progress) };
        });
        self.publish("borgcubed", &Connected { connected: true, trouble: None });
        // What happened meanwhile nobody has told.
        let _ = self.channel.send(resync());
        self.users.send_replace(());
    }

    fn lost(&self, trouble: &Trouble) {
        let was = self.live();
        let trouble = trouble.to_string();
        if was.connected || was.trouble.as_deref() != Some(&trouble) {
            log::warn!("{trouble}; events go on when it is back");
        }
        self.change(|live| {
            let since = if live.connected { Timestamp::now() } else { live.since };
            *live = Live { connected: false, since, trouble: Some(trouble.clone()), progress: HashMap::new() };
        });
        if was.connected {
            self.publish("borgcubed", &Connected { connected: false, trouble: Some(&trouble) });
        }
    }

    fn change(&self, change: impl FnOnce(&mut Live)) {
        change(Arc::make_mut(&mut self.state().live));
    }

    fn happened(&self, event: &Event) {
        match event {
            Event::Progress { job, progress } => {
                self.change(|live| {
                    if live.progress.len() < MAX_RUNNING || live.progress.contains_key(job) {
                        live.progress.insert(*job, progress.clone());
                    }
                });
                let moved = Moved { job: *job, progress: ProgressView::of(progress) };
                let _ = self.channel.send(frame(None, "progress", &moved));
            }
            Event::Job(job) => {
                if job.state.is_final() || job.state == JobState::JobCreated {
                    self.change(|live| drop(live.progress.remove(&job.number)));
                }
                let live = self.live();
                self.publish("job", &JobRow::of(job, live.progress.get(&job.number)));
            }
            Event::Repository(repository) => self.publish("repository", &repository.name),
            Event::RepositoryRemoved(name) => self.publish("repository", name),
            Event::SchedulesChanged => self.publish("schedules", &()),
            Event::UsersChanged => self.users.send_replace(()),
        }
    }

    fn publish(&self, name: &str, data: &impl Serialize) {
        let mut state = self.state();
        state.last += 1;
        let number = state.last;
        let sent = frame(Some((self.epoch, number)), name, data);
        if state.kept.len() == KEPT {
            state.kept.pop_front();
        }
        state.kept.push_back(sent.clone());
        let _ = self.channel.send(sent);
    }
}

impl Default for Hub {
    fn default() -> Hub {
        Hub::new()
    }
}

/// Look at everything anew: some events were missed.
#[must_use]
pub fn resync() -> Frame {
    let message = Bytes::from_static(br#"{"event":"resync","data":{}}"#);
    Frame { number: None, bytes: Bytes::from_static(b"event: resync\ndata: {}\n\n"), message: Some(message) }
}

/// Of use to those who read the stream of events only.
fn comment(bytes: &'static [u8]) -> Frame {
    Frame { number: None, bytes: Bytes::from_static(bytes), message: None }
}

/// An event in the form of server-sent events (WHATWG HTML, 9.2), and as one JSON object. JSON has no line breaks of its own.
fn frame(id: Option<(u64, u64)>, name: &str, data: &impl Serialize) -> Frame {
    let data = serde_json::to_string(data).unwrap_or_else(|_| "null".to_owned());
    let line = id.map_or_else(String::new, |(epoch, number)| format!("id: {epoch}-{number}\n"));
    let field = id.map_or_else(String::new, |(epoch, number)| format!("\"id\":\"{epoch}-{number}\","));
    Frame {
        number: id.map(|(_, number)| number),
        bytes: Bytes::from(format!("{line}event: {name}\ndata: {data}\n\n")),
        message: Some(Bytes::from(format!("{{{field}\"event\":\"{name}\",\"data\":{data}}}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(number: u64) -> Event {
        let job = model::Job::backup(number, &"web1/etc".parse().unwrap(), "main".parse().unwrap(), "root", Timestamp(1));
        Event::Job(Box::new(job))
    }

    fn texts(first: &[Frame]) -> Vec<String> {
        first.iter().map(|frame| String::from_utf8(frame.bytes.to_vec()).unwrap()).collect()
    }

    #[test]
    fn who_comes_back_gets_what_was_missed() {
        let hub = Hub::new();
        for number in 1..=3 {
            hub.happened(&job(number));
        }
        let joined = hub.join(Some(&format!("{}-1", hub.epoch)));
        let missed: Vec<_> = texts(&joined.first).into_iter().filter(|text| text.contains("event: job")).collect();
        assert_eq!(missed.len(), 2);
        assert!(missed[0].starts_with(&format!("id: {}-2\nevent: job\ndata: {{\"number\":2,", hub.epoch)), "{missed:?}");
        assert!(texts(&hub.join(None).first).iter().all(|text| !text.contains("event: job") && !text.contains("resync")));
        // Of an earlier run of this program, from the future, or nonsense.
        for strange in ["1-1", &format!("{}-9", hub.epoch), &format!("{}-{}", hub.epoch, u64::MAX), "x", ""] {
            assert!(texts(&hub.join(Some(strange)).first).iter().any(|text| text.contains("resync")), "{strange}");
        }
        for number in 0..KEPT as u64 + 5 {
            hub.happened(&job(number));
        }
        assert!(texts(&hub.join(Some(&format!("{}-1", hub.epoch))).first).iter().any(|text| text.contains("resync")));
    }

    #[test]
    fn what_is_sent_is_one_event_whatever_is_in_it() {
        let hub = Hub::new();
        let mut joined = hub.join(None);
        let path = "a\nevent: job\ndata: {}\n\n</script>".to_owned();
        hub.happened(&Event::Progress { job: 1, progress: Progress { path, ..Progress::default() } });
        let sent = joined.rest.try_recv().unwrap();
        assert_eq!(sent.bytes.iter().filter(|b| **b == b'\n').count(), 3);
        // The same is told to everybody.
        let message: serde_json::Value = serde_json::from_slice(&sent.message.unwrap()).unwrap();
        let data = String::from_utf8(sent.bytes.to_vec()).unwrap().lines().nth(1).unwrap()["data: ".len()..].to_owned();
        assert_eq!(
            (message["event"].as_str(), message["data"].to_string()),
            (Some("progress"), data.parse::<serde_json::Value>().unwrap().to_string())
        );
        assert_eq!(hub.live().progress.len(), 1);
    }
}
