//! Restores to clients: what becomes a job, and what the transaction log says of it.

use super::Daemon;
use super::errors::{from_store, refuse, refuse_in};
use model::restore::{Restore, Target};
use model::{ClientName, Job, RepositoryName, Timestamp, Work};
use store::ArchiveKey;
use wire::control::{ControlError, ErrorKind, JobNumber};

impl Daemon {
    /// A job that restores an archive. Who asks for it stands in the transaction log, and so does that it writes over files.
    pub(super) fn restore(
        &mut self,
        repository: &RepositoryName,
        client: &ClientName,
        restore: Restore,
        actor: &str,
    ) -> Result<JobNumber, ControlError> {
        self.takes_jobs()?;
        restore.check().map_err(|why| refuse(ErrorKind::InvalidArgument, why))?;
        let now = Timestamp::now();
        let note = note(client, &restore);
        let written = self.store.write_at(now, &note, actor, |w| {
            let r = w.view();
            if !r.clients().exists(client)? {
                return Err(refuse_in(
                    ErrorKind::NotFound,
                    format!("there is no client {client}; `borgcube client list` shows the clients"),
                ));
            }
            let key = ArchiveKey { repository: repository.clone(), id: restore.id.clone() };
            let archive = r.archives().get(&key)?;
            if !archive.is_some_and(|archive| archive.name == restore.archive && archive.client == restore.of) {
                let message = format!(
                    "repository {repository} has no archive {} of client {} with the id {}; `borgcube archive list` shows the archives",
                    restore.archive, restore.of, restore.id
                );
                return Err(refuse_in(ErrorKind::NotFound, message));
            }
            let work = Work::Restore { client: client.clone(), restore: Box::new(restore.clone()) };
            w.jobs().create(|number| Job::new(number, work, repository.clone(), actor, now))
        });
        let (job, _) = written.map_err(from_store)?;
        let number = job.number;
        log::info!(job = number, client = client.as_str(), repository = repository.as_str(); "job {number}: {note}, asked for by {actor}");
        self.job_changed(job);
        Ok(JobNumber { job: number, warnings: vec![] })
    }
}

fn note(client: &ClientName, restore: &Restore) -> String {
    let Restore { archive, of, target, .. } = restore;
    let whose = if of == client { String::new() } else { format!(" of client {of}") };
    match target {
        Target::InPlace => format!("restore archive {archive}{whose} IN PLACE on {client}, over what is there"),
        Target::Directory(path) => format!("restore archive {archive}{whose} to {client}, into {path}"),
        Target::New => format!("restore archive {archive}{whose} to {client}, into a new directory"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_says_what_was_asked_for() {
        let restore = |target| Restore {
            archive: "a".into(),
            id: "0f".repeat(32),
            of: "web1".parse().unwrap(),
            paths: vec![],
            patterns: vec![],
            excludes: vec![],
            target,
            sparse: false,
            ignore_space: false,
        };
        let (same, other) = ("web1".parse().unwrap(), "web2".parse().unwrap());
        assert_eq!(note(&same, &restore(Target::InPlace)), "restore archive a IN PLACE on web1, over what is there");
        assert_eq!(note(&other, &restore(Target::Directory("/x".into()))), "restore archive a of client web1 to web2, into /x");
        assert_eq!(note(&same, &restore(Target::New)), "restore archive a to web1, into a new directory");
    }
}
