//! The machine of a connection on a stream of bytes.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::connection::Connection;
use super::error::{ConnectionError, lost};
use super::transport::Stream;
use crate::time::now;

/// Bytes read at once: what one TLS record holds.
const READ: usize = 16 * 1024;

/// One connection to the broker.
pub(super) struct Link {
    pub(super) connection: Connection,
    stream: Box<dyn Stream>,
    read: Box<[u8]>,
    /// What was written has left for the network.
    is_flushed: bool,
    /// Nothing can be written any more; what was received before may tell why.
    broken: Option<io::Error>,
}

impl Link {
    pub(super) fn new(connection: Connection, stream: Box<dyn Stream>) -> Self {
        Self {
            connection,
            stream,
            read: vec![0; READ].into_boxed_slice(),
            is_flushed: true,
            broken: None,
        }
    }

    /// Completes when something was read, where that is wanted, or written. Cancel safe.
    pub(super) async fn exchange(&mut self, is_reading: bool) -> Result<(), ConnectionError> {
        poll_fn(|context| {
            let wrote = self.poll_write(context);
            // What there is to read may tell more of what went wrong with writing.
            let read = match self.broken.take_if(|_| !is_reading) {
                Some(error) => return Poll::Ready(Err(lost(error))),
                None => is_reading && self.poll_read(context)?,
            };
            if wrote || read {
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            }
        })
        .await
    }

    /// Writes as much as the stream takes; gives whether something was written.
    fn poll_write(&mut self, context: &mut Context<'_>) -> bool {
        let mut wrote = false;
        while self.broken.is_none() && !self.connection.transmit().is_empty() {
            let bytes = self.connection.transmit();
            match Pin::new(&mut self.stream).poll_write(context, bytes) {
                Poll::Ready(Ok(0)) => self.broken = Some(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    self.connection.handle_transmitted(count, now().mono);
                    self.is_flushed = false;
                    wrote = true;
                }
                Poll::Ready(Err(error)) => self.broken = Some(error),
                Poll::Pending => break,
            }
        }
        if self.broken.is_none() && !self.is_flushed {
            match Pin::new(&mut self.stream).poll_flush(context) {
                Poll::Ready(Ok(())) => self.is_flushed = true,
                Poll::Ready(Err(error)) => self.broken = Some(error),
                Poll::Pending => {}
            }
        }
        wrote
    }

    /// Gives whether something was read.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Result<bool, ConnectionError> {
        let mut buffer = ReadBuf::new(&mut self.read);
        match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => match self.broken.take() {
                Some(error) => Err(lost(error)),
                None => Err(ConnectionError::Closed),
            },
            Poll::Ready(Ok(())) => {
                self.connection.handle_data(buffer.filled(), now().mono);
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(lost(error)),
            Poll::Pending => Ok(false),
        }
    }

    /// Closes the stream once all is written.
    pub(super) async fn close(mut self) {
        let closed = self.stream.shutdown().await;
        if let Err(error) = closed {
            tracing::debug!(%error, "the connection was closed from the other side");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;
    use crate::session::error::in_words;
    use crate::session::outbox::Outbox;
    use crate::session::{BusUrl, Publication, SessionConfig};

    /// Gives what it was told to, and notes how much each write brings.
    #[derive(Default)]
    struct Script {
        input: VecDeque<Vec<u8>>,
        writes: Arc<Mutex<Vec<usize>>>,
        broken: bool,
    }

    impl AsyncRead for Script {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            match self.input.pop_front() {
                Some(bytes) => {
                    buffer.put_slice(&bytes);
                    Poll::Ready(Ok(()))
                }
                None => Poll::Pending,
            }
        }
    }

    impl AsyncWrite for Script {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            if self.broken {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            self.writes.lock().unwrap().push(bytes.len());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn link(script: Script) -> Link {
        let config = SessionConfig::new(BusUrl::default(), "pki".into(), "s".to_owned());
        let now = now().mono;
        let connection = Connection::new(&config, now + Duration::from_secs(10), now);
        Link::new(connection, Box::new(script))
    }

    #[tokio::test]
    async fn many_publications_share_one_write() {
        let writes = Arc::default();
        let mut link = link(Script {
            input: [vec![0x20, 3, 0, 0, 0]].into(),
            writes: Arc::clone(&writes),
            broken: false,
        });
        link.exchange(true).await.unwrap();
        assert!(link.connection.poll_event().unwrap().is_some());
        let mut outbox = Outbox::default();
        for n in 0..1000 {
            let publication = Publication::passing("topic".to_owned(), format!("{n:0>50}"));
            outbox.push(publication).unwrap();
            link.connection.publish(&mut outbox, 1000);
        }
        assert!(outbox.is_sent());
        link.exchange(true).await.unwrap();
        let writes = writes.lock().unwrap();
        assert_eq!(writes.len(), 2, "CONNECT and all publications: {writes:?}");
        assert!(writes[1] > 60_000);
    }

    #[tokio::test]
    async fn what_the_broker_said_last_is_heard_though_nothing_can_be_written() {
        let script = || Script {
            input: [vec![0x20, 3, 0, 0x87, 0], Vec::new()].into(),
            broken: true,
            ..Script::default()
        };
        let mut heard = link(script());
        heard.exchange(true).await.unwrap();
        let refused = in_words(&heard.connection.poll_event().unwrap_err());
        assert!(refused.contains("not authorized"), "{refused}");
        let broken = in_words(&heard.exchange(true).await.unwrap_err());
        assert_eq!(broken, "the connection was lost: broken pipe");
        let broken = in_words(&link(script()).exchange(false).await.unwrap_err());
        assert_eq!(broken, "the connection was lost: broken pipe");
    }
}
