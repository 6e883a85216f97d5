//! A client's socket. Reading and writing take turns, and a client that is quiet holds no buffer.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is read at a time, bytes.
const READ: usize = 32 * 1024;

/// What a socket did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Everything was written and flushed.
    Written,
    /// So many bytes came; 0 is the end.
    Read(usize),
}

/// A stream with what came and was not handled.
pub(crate) struct Socket<S> {
    stream: S,
    pub(super) input: BytesMut,
    pub(super) peer: SocketAddr,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// Nothing came yet.
    pub(crate) fn new(stream: S, peer: SocketAddr) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            peer,
        }
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // On the stack, so that nothing is held while nothing comes.
        let mut read = [const { MaybeUninit::uninit() }; READ];
        let mut read = ReadBuf::uninit(&mut read);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut read))?;
        self.input.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }

    fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        output: &mut BytesMut,
    ) -> Poll<io::Result<()>> {
        while !output.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(context, output))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => output.advance(count),
            }
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Reads once; gives how many bytes came, and 0 at the end. Cancel safe.
    pub(super) async fn read(&mut self) -> io::Result<usize> {
        poll_fn(|context| self.poll_read(context)).await
    }

    /// Writes what there is, if it is given, or else reads, if it may: whatever is possible first.
    ///
    /// Cancel safe: what was written is gone from the output, and what came is in the input.
    pub(super) async fn turn(
        &mut self,
        mut output: Option<&mut BytesMut>,
        may_read: bool,
    ) -> io::Result<Turn> {
        poll_fn(|context| {
            if let Some(output) = &mut output
                && let Poll::Ready(written) = self.poll_write(context, output)
            {
                return Poll::Ready(written.map(|()| Turn::Written));
            }
            if may_read {
                return self.poll_read(context).map_ok(Turn::Read);
            }
            Poll::Pending
        })
        .await
    }

    /// Writes the last words and closes.
    pub(super) async fn close(&mut self, output: &mut BytesMut) -> io::Result<()> {
        poll_fn(|context| self.poll_write(context, output)).await?;
        poll_fn(|context| Pin::new(&mut self.stream).poll_shutdown(context)).await
    }
}
