//! A connection whose other end has to take what it is sent: of an answer no byte of which moves for a while nobody is waiting.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// A viewer that takes nothing for so long is gone.
pub const STUCK: Duration = Duration::from_secs(60);

/// Such a connection. Its timer is there only while something waits to be taken.
#[derive(Debug)]
pub struct Patient<S> {
    inner: S,
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    stuffed: Stuffed,
}

/// Tells whether something waits to be taken by the other end.
#[derive(Debug, Clone, Default)]
pub struct Stuffed(Arc<AtomicBool>);

impl Stuffed {
    /// Whether that is so now.
    #[must_use]
    pub fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, is_so: bool) {
        self.0.store(is_so, Ordering::Relaxed);
    }
}

impl<S> Patient<S> {
    /// Nothing waits.
    pub fn new(inner: S, limit: Duration) -> Patient<S> {
        Patient { inner, limit, timer: None, stuffed: Stuffed::default() }
    }

    /// Whether something waits, for others than the one who writes.
    pub fn stuffed(&self) -> Stuffed {
        self.stuffed.clone()
    }

    fn watch<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        self.stuffed.set(written.is_pending());
        if written.is_ready() {
            self.timer = None;
            return written;
        }
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the other end takes nothing any more")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.watch(written, context)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, parts);
        self.watch(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
    }

    #[test]
    fn who_takes_nothing_is_not_waited_for() {
        run(async {
            let (ours, _theirs) = tokio::io::duplex(16);
            let mut ours = Patient::new(ours, Duration::from_millis(50));
            let ended = tokio::time::timeout(STUCK, ours.write_all(&[0; 100])).await.expect("it ends");
            assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
        });
    }

    #[test]
    fn each_byte_that_is_taken_begins_the_wait_anew() {
        run(async {
            let (ours, mut theirs) = tokio::io::duplex(16);
            let mut ours = Patient::new(ours, STUCK);
            let stuffed = ours.stuffed();
            assert_eq!(ours.write(&[0; 100]).await.unwrap(), 16);
            let mut more = std::pin::pin!(async {
                ours.write_all(&[0; 1]).await.unwrap();
                assert!(ours.timer.is_none(), "what was taken is not waited for");
            });
            std::future::poll_fn(|context| {
                assert!(more.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
            assert!(stuffed.is_so());
            theirs.read_exact(&mut [0; 1]).await.unwrap();
            more.await;
            assert!(!stuffed.is_so());
        });
    }
}
