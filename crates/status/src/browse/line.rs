//! Connections to a repository's owner, which somebody else can end.

use archive::{Error, Result};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The connections of one piece of work.
#[derive(Debug, Default)]
pub struct Line(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    streams: Vec<UnixStream>,
    cancelled: Option<&'static str>,
}

impl Line {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A further connection, as `make` makes it; none once the work was ended.
    pub fn connect(&self, make: impl FnOnce() -> Result<UnixStream>) -> Result<UnixStream> {
        self.go_on()?;
        let stream = make()?;
        let same = stream.try_clone().map_err(Error::System)?;
        let mut state = self.state();
        if let Some(why) = state.cancelled {
            return Err(ended(why));
        }
        state.streams.push(same);
        Ok(stream)
    }

    /// Whether the work is still wanted; otherwise an error that says why not.
    pub fn go_on(&self) -> Result<()> {
        self.state().cancelled.map_or(Ok(()), |why| Err(ended(why)))
    }

    /// Ends the work, wherever it waits: reads end at once, and there are no further connections.
    pub fn cancel(&self, why: &'static str) {
        let mut state = self.state();
        state.cancelled.get_or_insert(why);
        for stream in state.streams.drain(..) {
            if let Err(e) = stream.shutdown(Shutdown::Both) {
                log::debug!("a connection had ended already: {e}");
            }
        }
    }
}

/// Nothing that reading would try again.
fn ended(why: &str) -> Error {
    Error::Incomplete(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn what_was_ended_reads_no_more() {
        let line = Line::default();
        let (one, _other) = UnixStream::pair().unwrap();
        let mut stream = line.connect(|| Ok(one)).unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(move || stream.read(&mut [0]).unwrap());
            line.cancel("the viewer is gone");
            assert_eq!(reader.join().unwrap(), 0);
        });
        let why = line.connect(|| panic!("it connects")).unwrap_err();
        assert_eq!(why.to_string(), "the viewer is gone");
    }
}
