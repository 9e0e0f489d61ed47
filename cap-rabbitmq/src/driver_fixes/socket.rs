//! The socket under a lapin connection. It can be cut from outside, and what it reads is sanitized.
//!
//! **Works around:** lapin's own socket offers neither. A connection can only be ended by asking the peer, which may be the
//! one that does not answer; and an attempt to connect that is given up leaves its thread waiting for ever.
//! **Can go when** a lapin connection can be aborted, and [`sanitize`](super::sanitize) is not needed any more.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_util::Stream;
use futures_util::io::{AsyncRead, AsyncWrite};
use lapin::AsyncTcpStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::driver_fixes::broker_version::BrokerVersion;
use crate::driver_fixes::executor::Filtered;
use crate::driver_fixes::expected_closes::ExpectedCloses;
use crate::driver_fixes::log_filter::LogFilter;
use crate::driver_fixes::sanitize::Sanitizer;

/// How many bytes are read at once.
const CHUNK: usize = 64 * 1024;

/// tokio, with our socket in the place of its own.
pub(crate) type Kit = RuntimeParts<Filtered, Sockets>;

/// The runtime to open a connection with. Must be called within tokio.
pub(crate) fn runtime(log_filter: LogFilter) -> Runtime<Kit> {
    let executor = Filtered { tokio: Tokio::current(), log_filter };
    Runtime::new(RuntimeParts::new(executor, Sockets(Tokio::current())))
}

/// The reactor that gives a connection its kind of socket. It opens none itself: the code that opens the connection does.
#[derive(Clone, Debug)]
pub(crate) struct Sockets(Tokio);

impl Reactor for Sockets {
    type TcpStream = Socket;
    type Sleep = <Tokio as Reactor>::Sleep;

    #[allow(refining_impl_trait, reason = "nothing is ever registered")]
    fn register<H: Send + 'static>(&self, _: H) -> io::Result<Socket> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(&self, _: SocketAddr) -> impl Future<Output = io::Result<Socket>> + Send + 'static {
        std::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

/// What both ends of a connection share: lapin's thread, which reads and writes, and ours, which may cut it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Control {
    cut: CancellationToken,
    /// The longest frame that was agreed; 0 as long as it is not.
    max_frame: Arc<AtomicUsize>,
    /// Known as soon as the broker has spoken.
    broker: Arc<OnceLock<BrokerVersion>>,
    expected_closes: ExpectedCloses,
}

impl Control {
    /// Ends the connection at once. All calls that wait for it fail.
    pub(crate) fn cut(&self) {
        self.cut.cancel();
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.is_cancelled()
    }

    pub(crate) fn expected_closes(&self) -> &ExpectedCloses {
        &self.expected_closes
    }

    pub(crate) fn broker(&self) -> Option<&BrokerVersion> {
        self.broker.get()
    }

    pub(crate) fn set_max_frame(&self, bytes: usize) {
        self.max_frame.store(bytes, Ordering::Relaxed);
    }

    /// Waits for the socket to be opened, unless it is cut first.
    pub(crate) async fn unless_cut<T>(&self, opening: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        tokio::select! {
            biased;
            () = self.cut.cancelled() => Err(io::ErrorKind::ConnectionAborted.into()),
            opened = opening => opened,
        }
    }

    pub(crate) fn socket(&self, stream: AsyncTcpStream<<Tokio as Reactor>::TcpStream>) -> Socket {
        Socket {
            stream,
            cut: Box::pin(self.cut.clone().cancelled_owned()),
            control: self.clone(),
            sanitizer: Sanitizer::default(),
            raw: vec![0; CHUNK],
            clean: Vec::new(),
            taken: 0,
        }
    }
}

/// A socket, with TLS or without, that can be cut and sanitizes what it reads.
pub(crate) struct Socket {
    stream: AsyncTcpStream<<Tokio as Reactor>::TcpStream>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    control: Control,
    sanitizer: Sanitizer,
    raw: Vec<u8>,
    /// Sanitized bytes; the first `taken` of them have been handed on.
    clean: Vec<u8>,
    taken: usize,
}

impl Socket {
    /// In the form that lapin takes.
    pub(crate) fn into_stream(self) -> AsyncTcpStream<Self> {
        AsyncTcpStream::Plain(self)
    }

    fn check_cut(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(context) {
            Poll::Ready(()) => {
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection was cut"))
            }
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // Only the reading side waits for the cut: a cancellation knows one waker.
        this.check_cut(context)?;
        while this.taken == this.clean.len() {
            let length = match Pin::new(&mut this.stream).poll_read(context, &mut this.raw) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(0)),
                Poll::Ready(Ok(length)) => length,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            };
            this.clean.clear();
            this.taken = 0;
            let max_frame = match this.control.max_frame.load(Ordering::Relaxed) {
                0 => usize::MAX,
                agreed => agreed,
            };
            this.sanitizer.push(&this.raw[..length], max_frame, &mut this.clean);
            if let Some(broker) = this.sanitizer.broker.take() {
                // Only the first greeting counts.
                drop(this.control.broker.set(broker));
            }
        }
        let rest = &this.clean[this.taken..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        this.taken += length;
        Poll::Ready(Ok(length))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.control.is_cut() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut this.stream).poll_write(context, buffer)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_close(context)
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("cut", &self.control.is_cut()).finish_non_exhaustive()
    }
}
