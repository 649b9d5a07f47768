//! The control socket of `borgcubed`, of which this program may hear what happens, how one job is, and what it wrote; and to which it hands on
//! the ids of triggers.

use model::trigger::AccessContext;
use model::web_user::Credential;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use wire::control::{Call, ControlError, JobDetail, JobLog, Ran, Reply, Request};
use wire::json::{self, Decoder};
use wire::worker::LogLine;

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Questions at a time: `borgcubed` gives the status daemon so many connections and no more, and one of them is for what happens.
pub const QUESTIONS: usize = 16;
/// Lines of a job's log that are shown: its newest.
pub const LOG_LINES: usize = 1_000;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// borgcubed cannot be reached.
    #[error("borgcubed does not answer: {0}")]
    Unreachable(String),
    /// It says no.
    #[error("{0}")]
    Refused(#[from] ControlError),
}

fn unreachable(e: impl std::fmt::Display) -> Trouble {
    Trouble::Unreachable(e.to_string())
}

/// A connection.
pub struct Connection {
    stream: UnixStream,
    decoder: Decoder,
}

impl Connection {
    /// Connects.
    pub async fn open(socket: &Path) -> Result<Connection, Trouble> {
        let path = socket.to_owned();
        // A path that is too long for an address takes a way around it; borgcubed may just be started by us.
        let connected = tokio::task::spawn_blocking(move || unix::socket::connect(&path)).await;
        let stream = connected.map_err(unreachable)?.map_err(unreachable)?;
        stream.set_nonblocking(true).map_err(unreachable)?;
        Ok(Connection { stream: UnixStream::from_std(stream).map_err(unreachable)?, decoder: Decoder::default() })
    }

    /// Sends a call.
    pub async fn send(&mut self, call: Call, more: bool) -> Result<(), Trouble> {
        let bytes = json::encode(&Request { call, more }).map_err(unreachable)?;
        self.stream.write_all(&bytes).await.map_err(unreachable)
    }

    /// The next reply.
    pub async fn reply(&mut self) -> Result<Reply, Trouble> {
        let mut buffer = [0; 16 * 1024];
        loop {
            if let Some(document) = self.decoder.next_document().map_err(unreachable)? {
                let reply: Reply = json::decode(&document).map_err(unreachable)?;
                return match ControlError::from_reply(&reply) {
                    Some(error) => Err(error.into()),
                    None => Ok(reply),
                };
            }
            let got = self.stream.read(&mut buffer).await.map_err(unreachable)?;
            if got == 0 {
                return Err(unreachable("it closed the connection"));
            }
            self.decoder.push(&buffer[..got]);
        }
    }
}

/// What borgcubed knows of one job and the database does not.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// Why it waits.
    pub waits: Option<String>,
    /// Who is having it cancelled.
    pub cancelled_by: Option<String>,
    /// The newest lines of its log, in order.
    pub log: Vec<LogLine>,
    /// Older lines that are left out.
    pub left_out: usize,
    /// Why some of this is missing.
    pub trouble: Option<String>,
}

/// Uses a trigger, for somebody who knows its id. Gives the jobs that were created.
pub async fn fire(socket: &Path, questions: &Semaphore, id: &str) -> Result<Vec<u64>, Trouble> {
    let call = Call::FireTrigger { id: id.to_owned(), context: AccessContext::AnonymousWeb };
    let ran: Ran = serde_json::from_value(ask(socket, questions, call).await?).map_err(unreachable)?;
    Ok(ran.jobs)
}

/// Has something done for the user whose credential this is, if borgcubed finds that the user may. Gives its answer.
pub async fn on_behalf(socket: &Path, questions: &Semaphore, credential: Credential, call: Call) -> Result<serde_json::Value, Trouble> {
    ask(socket, questions, Call::OnBehalf { credential, call: Box::new(call) }).await
}

/// One call that may start something.
async fn ask(socket: &Path, questions: &Semaphore, call: Call) -> Result<serde_json::Value, Trouble> {
    let asked = async {
        let _place = questions.acquire().await.map_err(unreachable)?;
        let mut connection = Connection::open(socket).await?;
        connection.send(call, false).await?;
        Ok(connection.reply().await?.parameters)
    };
    let in_time = tokio::time::timeout(PATIENCE, asked).await;
    in_time.unwrap_or_else(|_| Err(unreachable("it took too long, and may have done something all the same")))
}

/// Asks about one job. Trouble is part of the answer: the rest of a page does not depend on it.
pub async fn about_job(socket: &Path, questions: &Semaphore, job: u64) -> Told {
    let mut told = Told::default();
    let asked = async {
        let _place = questions.acquire().await.map_err(unreachable)?;
        let mut connection = Connection::open(socket).await?;
        connection.send(Call::GetJob { job }, false).await?;
        let reply = connection.reply().await?;
        let detail: JobDetail = serde_json::from_value(reply.parameters).map_err(unreachable)?;
        (told.waits, told.cancelled_by) = (detail.waits, detail.cancelled_by);
        connection.send(Call::GetJobLog { job, follow: false }, true).await?;
        loop {
            let reply = connection.reply().await?;
            let part: JobLog = serde_json::from_value(reply.parameters).map_err(unreachable)?;
            told.log.extend(part.lines);
            let surplus = told.log.len().saturating_sub(LOG_LINES);
            told.log.drain(..surplus);
            told.left_out += surplus;
            if !reply.continues {
                return Ok::<(), Trouble>(());
            }
        }
    };
    let answer = tokio::time::timeout(PATIENCE, asked).await;
    told.trouble = match answer {
        Ok(Ok(())) => None,
        Ok(Err(trouble)) => Some(trouble.to_string()),
        Err(_) => Some("borgcubed does not answer in time".to_owned()),
    };
    told
}
