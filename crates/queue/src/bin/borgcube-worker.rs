//! `borgcube-worker`: started by `borgcubed`, one process a job.

fn main() -> anyhow::Result<()> {
    queue::worker::run()
}
