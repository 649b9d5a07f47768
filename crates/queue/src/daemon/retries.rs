//! Jobs that wait for a moment: the next try of one that failed, and scheduled ones whose client is in a blackout.

use super::Daemon;
use model::queue::Brief;
use model::{Cause, Job, JobState, Origin, Timestamp};
use std::time::{Duration, Instant};
use store::{JobFilter, Read, Result, Write};

/// While jobs wait for a moment, the clock is looked at so often at least: people and time servers put it forward and back.
const GLANCE: Duration = Duration::from_secs(60);

/// The job that tries once more what `job` failed to do, if the cause deserves it. A stale view is nobody's fault: that is tried again
/// whether it was asked for or not.
pub(super) fn after(w: &mut Write<'_>, job: &Job, now: Timestamp) -> Result<Option<Job>> {
    let Some(failure) = job.failure.as_ref().filter(|_| job.state == JobState::Failed) else { return Ok(None) };
    let before = job.retry_of.map(|number| w.view().jobs().get(&number)).transpose()?.flatten();
    let not_before = match failure.cause {
        Cause::ViewStale if before.is_some_and(|before| is_stale(&before)) => return Ok(None),
        Cause::ViewStale => now,
        _ if !job.retry => return Ok(None),
        _ => match model::retry::next_attempt(&failure.cause, job.attempts, now, job.number) {
            Some(at) => at,
            None => return Ok(None),
        },
    };
    // Unless somebody has asked for it already.
    let queued =
        JobFilter { states: vec![JobState::JobCreated], config: job.config(), repository: job.repository.clone(), ..Default::default() };
    if w.view().jobs().page(&queued, usize::MAX)?.iter().any(|other| other.kind() == job.kind()) {
        return Ok(None);
    }
    let repository = match job.config() {
        Some(config) => w.view().configs().get(&config)?.map(|config| config.repository),
        None => job.repository.clone(),
    };
    let Some(repository) = repository else { return Ok(None) };
    let not_before = Some(not_before).filter(|at| *at > now);
    w.jobs().create(|number| job.again(number, repository, now, not_before)).map(Some)
}

fn is_stale(job: &Job) -> bool {
    job.failure.as_ref().is_some_and(|failure| failure.cause == Cause::ViewStale)
}

/// Why a queued job may not start at `now` even if nothing else runs, and until when, where that is known.
fn held(r: &Read<'_>, job: &Job, now: Timestamp) -> Result<Option<(String, Option<Timestamp>)>> {
    if let Some(at) = job.not_before.filter(|at| *at > now) {
        let before = job.retry_of.map(|number| r.jobs().get(&number)).transpose()?.flatten();
        let tries = before.and_then(|before| Some(1 + model::retry::attempts(&before.failure?.cause)));
        let attempt = match tries {
            Some(tries) => format!(" (attempt {} of {})", job.attempts + 1, tries.max(job.attempts + 1)),
            None => String::new(),
        };
        return Ok(Some((format!("waits until {}{attempt}", at.to_local()), Some(at))));
    }
    if job.origin == Origin::Manual {
        return Ok(None);
    }
    let client = job.client().map(|name| r.clients().get(name)).transpose()?.flatten();
    let blackout = client.and_then(|client| client.blackout(now).map(ToString::to_string));
    Ok(blackout.map(|window| (format!("waits for the end of the client's blackout {window}"), None)))
}

impl Daemon {
    /// The queued jobs that wait for nothing but others. Sets when to look at the rest again.
    pub(super) fn ripe(&mut self, now: Timestamp) -> Result<Vec<Brief>> {
        let mut next: Option<Duration> = None;
        let ripe = self.store.read(|r| {
            let mut ripe = vec![];
            for job in r.jobs().in_state(JobState::JobCreated)? {
                match held(r, &job, now)? {
                    None => ripe.push(Brief::from(&job)),
                    Some((_, until)) => {
                        let seconds = until.map_or(GLANCE.as_secs_f64(), |until| until.seconds_since(now));
                        let wait = Duration::try_from_secs_f64(seconds.max(0.01)).unwrap_or(GLANCE).min(GLANCE);
                        next = Some(next.map_or(wait, |next| next.min(wait)));
                    }
                }
            }
            Ok(ripe)
        })?;
        self.look_again_at = next.map(|wait| Instant::now() + wait);
        Ok(ripe)
    }

    /// Which moment a queued job waits for.
    pub(super) fn held(&self, job: &Job) -> Option<String> {
        if job.not_before.is_none() && job.origin == Origin::Manual {
            return None;
        }
        match self.store.read(|r| held(r, job, Timestamp::now())) {
            Ok(held) => held.map(|(why, _)| why),
            Err(e) => Some(format!("waits: the database cannot be read: {e}")),
        }
    }
}
