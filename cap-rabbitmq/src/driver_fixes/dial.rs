//! Opens a socket to a host, past addresses of it that do not answer.
//!
//! **Works around:** lapin tries the addresses of a host one after another, without a time limit for each: one that does not
//! answer uses up all the time.
//! **Can go when** lapin limits the time for each address.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// Opens a socket to a host. Addresses that do not accept it are skipped. `turn` decides which is tried first, so that an
/// address that accepts a connection and then stays silent is not always the first.
pub(crate) async fn dial<T, F: Future<Output = io::Result<T>>>(
    host: &str,
    port: u16,
    turn: usize,
    limit: Duration,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T> {
    let deadline = Instant::now() + limit;
    let mut addresses: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
    let first = turn % addresses.len().max(1);
    addresses.rotate_left(first);
    first_that_answers(&addresses, deadline, connect).await
}

/// A dead address may not even refuse, so that each gets only its share of the time that is left.
async fn first_that_answers<T, F: Future<Output = io::Result<T>>>(
    addresses: &[SocketAddr],
    deadline: Instant,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T> {
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the host has no address");
    for (address, left) in addresses.iter().zip((1..=addresses.len()).rev()) {
        let now = Instant::now();
        let share = deadline.saturating_duration_since(now) / u32::try_from(left).unwrap_or(u32::MAX);
        match timeout_at(now + share, connect(*address)).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{address} does not answer")),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(4);

    fn addresses<const N: usize>(ports: [u16; N]) -> [SocketAddr; N] {
        ports.map(|port| ([127, 0, 0, 1], port).into())
    }

    /// By its port an address is dead (0), refuses (1), or takes the connection.
    async fn connect(address: SocketAddr) -> io::Result<u16> {
        match address.port() {
            0 => std::future::pending().await,
            1 => Err(io::ErrorKind::ConnectionRefused.into()),
            port => Ok(port),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn dead_addresses_are_skipped_within_the_limit() {
        for (ports, seconds) in [([7, 0, 0, 0], 0), ([0, 7, 0, 0], 1), ([0, 0, 0, 7], 3), ([1, 0, 1, 7], 1)] {
            let start = Instant::now();
            let found = first_that_answers(&addresses(ports), start + LIMIT, connect).await;
            assert_eq!(found.unwrap(), 7);
            assert!(start.elapsed() < LIMIT);
            assert_eq!(start.elapsed().as_secs(), seconds, "{ports:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn last_reason_is_reported() {
        let failed = async |ports: &[SocketAddr]| {
            first_that_answers(ports, Instant::now() + LIMIT, connect).await.unwrap_err().to_string()
        };
        assert!(failed(&addresses([1, 0])).await.contains("127.0.0.1:0 does not answer"));
        assert!(failed(&addresses([0, 1])).await.contains("refused"));
        assert!(failed(&[]).await.contains("no address"));
    }

    #[tokio::test]
    async fn addresses_of_a_host_take_turns() {
        for turn in 0..3 {
            let found = dial("localhost", 7, turn, LIMIT, connect).await;
            assert_eq!(found.unwrap(), 7);
        }
    }
}
