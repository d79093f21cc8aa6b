//! A client's TLS or plain stream as hyper wants it, showing what it reads to the connection's `Progress`.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;

use super::progress::Progress;

/// Reads pass by `Progress`; writes go straight through.
pub(crate) struct ClientIo<S> {
    stream: TokioIo<S>,
    progress: Rc<Progress>,
}

impl<S> ClientIo<S> {
    /// Wraps a stream.
    pub(crate) fn new(stream: S, progress: Rc<Progress>) -> Self {
        Self { stream: TokioIo::new(stream), progress }
    }
}

impl<S: tokio::io::AsyncRead + Unpin> Read for ClientIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = {
            // SAFETY: the spare memory is only lent to `ReadBuf::uninit`, which never reads what was not written.
            let mut buffer = hyper::rt::ReadBuf::uninit(unsafe { cursor.as_mut() });
            ready!(Pin::new(&mut self.stream).poll_read(cx, buffer.unfilled()))?;
            self.progress.received(buffer.filled());
            buffer.filled().len()
        };
        // SAFETY: `buffer` covered the start of the cursor's memory, and reported that many bytes as written.
        unsafe { cursor.advance(filled) };
        Poll::Ready(Ok(()))
    }
}

impl<S: tokio::io::AsyncWrite + Unpin> Write for ClientIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }
}
