//! One connection through the proxy.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::sleep;

use crate::network::{Direction, Network, State};
use crate::{Counts, Rewrite};

/// At most so many bytes are passed on at once.
const CHUNK: usize = 64 * 1024;

pub(crate) struct Connection<R> {
    number: usize,
    counts: Arc<Counts>,
    rewrite: Arc<R>,
    state: watch::Receiver<State>,
    /// The generation that the connection was made in.
    generation: usize,
    /// The client has sent something.
    client_sent: Notify,
}

impl<R: Rewrite> Connection<R> {
    pub(crate) fn new(
        number: usize,
        counts: Arc<Counts>,
        rewrite: Arc<R>,
        state: watch::Receiver<State>,
    ) -> Self {
        let generation = state.borrow().generation;
        Self { number, counts, rewrite, state, generation, client_sent: Notify::new() }
    }

    /// Passes bytes on, in both directions, until either side ends or the connection is closed.
    pub(crate) async fn pass(self, client: TcpStream, server: TcpStream) {
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (client_in, client_out) = client.into_split();
        let (server_in, server_out) = server.into_split();
        let (to_server, to_client) = (Mutex::new(server_out), Mutex::new(client_out));
        tokio::select! {
            () = self.pass_on(client_in, &to_server, Direction::ToServer) => {}
            () = self.pass_on(server_in, &to_client, Direction::ToClient) => {}
            () = self.inject(&to_client) => {}
            () = self.closed() => {}
        }
    }

    /// Returns when the connection is to be closed.
    async fn closed(&self) {
        let is_over = |state: &State| state.network == Network::Down || state.generation != self.generation;
        // An error means that the proxy is gone.
        let _ = self.state.clone().wait_for(is_over).await;
    }

    /// Writes to the client what a test says in the server's name.
    async fn inject(&self, to: &Mutex<OwnedWriteHalf>) {
        let mut state = self.state.clone();
        let mut last = state.borrow_and_update().injection;
        while state.changed().await.is_ok() {
            let (injection, bytes) = {
                let state = state.borrow_and_update();
                (state.injection, Arc::clone(&state.injected))
            };
            if std::mem::replace(&mut last, injection) != injection
                && to.lock().await.write_all(&bytes).await.is_err()
            {
                return;
            }
        }
    }

    async fn pass_on(&self, mut from: OwnedReadHalf, to: &Mutex<OwnedWriteHalf>, direction: Direction) {
        let mut state = self.state.clone();
        let mut buffer = vec![0; CHUNK];
        // How many bytes may still pass before the connection is closed.
        let mut left = None;
        loop {
            let Ok(length @ 1..) = from.read(&mut buffer).await else { return };
            let bytes = self.rewritten(direction, &buffer[..length]).await;
            if state.wait_for(|state| !state.network.holds(direction)).await.is_err() {
                return;
            }
            let network = state.borrow_and_update().network;
            let mut passed = bytes.len();
            match network {
                Network::Slow(time) => sleep(time).await,
                Network::CloseAfter(bytes) => passed = passed.min(*left.get_or_insert(bytes)),
                _ => left = None,
            }
            if to.lock().await.write_all(&bytes[..passed]).await.is_err() {
                return;
            }
            if direction == Direction::ToServer {
                self.counts.client_writes.fetch_add(1, Ordering::SeqCst);
            }
            if let Some(left) = &mut left {
                *left -= passed;
                if *left == 0 {
                    return;
                }
            }
        }
    }

    /// What is to be passed on in the place of these bytes. Those of the server wait as long as they are held back.
    async fn rewritten(&self, direction: Direction, bytes: &[u8]) -> Vec<u8> {
        match direction {
            Direction::ToServer => {
                let bytes = self.rewrite.to_server(self.number, bytes);
                self.client_sent.notify_one();
                bytes
            }
            Direction::ToClient => {
                while self.rewrite.holds_server(self.number) {
                    self.client_sent.notified().await;
                }
                self.rewrite.to_client(self.number, bytes)
            }
        }
    }
}
