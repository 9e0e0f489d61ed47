//! Finds out whether a client certificate can be used, before anything connects.
//!
//! **Works around:** lapin reads the certificate and its key only while it connects, and reports what is wrong with them
//! like an outage. So a handshake is begun with a peer that is not there: it gets as far as the first byte only if the
//! identity can be read and its key belongs to its certificate.
//! **Can go when** lapin checks an identity without a connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::io::{AsyncRead, AsyncWrite};
use lapin::AsyncTcpStream;
use lapin::tcp::OwnedTLSConfig;

/// Checks the identity of this configuration.
///
/// # Errors
///
/// What is wrong with it, without any secret.
pub(crate) fn check_identity(config: &OwnedTLSConfig) -> Result<(), String> {
    let handshake = AsyncTcpStream::Plain(NoPeer).into_tls("localhost", config.as_ref()).now_or_never();
    match handshake {
        Some(Err(error)) if !is_no_peer(&error) => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// A peer that accepts no byte and sends none.
struct NoPeer;

const NO_PEER: &str = "there is no peer";

fn is_no_peer(error: &io::Error) -> bool {
    error.to_string().contains(NO_PEER)
}

fn no_peer<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::Error::other(NO_PEER)))
}

impl AsyncRead for NoPeer {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
        no_peer()
    }
}

impl AsyncWrite for NoPeer {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        no_peer()
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        no_peer()
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        no_peer()
    }
}
