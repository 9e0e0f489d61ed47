//! An AMQP client that writes whatever it is told, as no client library would.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) struct RawClient {
    socket: TcpStream,
}

pub(crate) fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()][..], text].concat()
}

pub(crate) fn long(content: &[u8]) -> Vec<u8> {
    [&u32::try_from(content.len()).unwrap().to_be_bytes()[..], content].concat()
}

/// A value of a table that has a length: `S`, `x`, `F`, `A`.
pub(crate) fn value(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind][..], &long(content)].concat()
}

/// A method frame of a connection, as a proxy may inject it.
pub(crate) fn method(channel: u16, class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    let payload = [&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat();
    frame(1, channel, &payload)
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    [&[kind][..], &channel.to_be_bytes(), &long(payload), &[0xCE]].concat()
}

impl RawClient {
    /// Logs in and opens channel 1.
    pub(crate) async fn connect() -> Self {
        let uri: lapin::uri::AMQPUri = super::amqp_url().parse().unwrap();
        let host = (uri.authority.host.as_str(), uri.authority.port);
        let mut client = Self { socket: TcpStream::connect(host).await.unwrap() };
        client.write(b"AMQP\0\0\x09\x01").await;
        client.expect(10, 10).await;
        let user = &uri.authority.userinfo;
        let login = format!("\0{}\0{}", user.username, user.password);
        let start_ok = [long(b""), short(b"PLAIN"), long(login.as_bytes()), short(b"en_US")].concat();
        client.write(&method(0, 10, 11, &start_ok)).await;
        client.expect(10, 30).await;
        // At most 10 channels, frames of 128 KiB, no heartbeat.
        client.write(&method(0, 10, 31, &[0, 10, 0, 2, 0, 0, 0, 0])).await;
        let vhost = [short(uri.vhost.as_bytes()), vec![0, 0]].concat();
        client.write(&method(0, 10, 40, &vhost)).await;
        client.expect(10, 41).await;
        client.write(&method(1, 20, 10, &[0])).await;
        client.expect(20, 11).await;
        client
    }

    /// Publishes with a content header of raw flags and properties.
    pub(crate) async fn publish(
        &mut self,
        exchange: &str,
        routing_key: &[u8],
        flags: u16,
        properties: &[u8],
        body: &[u8],
    ) {
        let publish = [vec![0, 0], short(exchange.as_bytes()), short(routing_key), vec![0]].concat();
        let size = u64::try_from(body.len()).unwrap().to_be_bytes();
        let header = [&[0, 60, 0, 0][..], &size, &flags.to_be_bytes(), properties].concat();
        let frames = [method(1, 60, 40, &publish), frame(2, 1, &header), frame(3, 1, body)].concat();
        self.write(&frames).await;
    }

    /// Returns when the broker has worked off all that was published.
    pub(crate) async fn finish(mut self) {
        let close = [&200u16.to_be_bytes()[..], &short(b""), &[0, 0, 0, 0]].concat();
        self.write(&method(1, 20, 40, &close)).await;
        self.expect(20, 41).await;
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    async fn expect(&mut self, class: u16, method: u16) {
        let mut head = [0; 7];
        self.socket.read_exact(&mut head).await.unwrap();
        let size = u32::from_be_bytes(head[3..].try_into().unwrap());
        let mut rest = vec![0; usize::try_from(size).unwrap() + 1];
        self.socket.read_exact(&mut rest).await.unwrap();
        let found = (u16::from_be_bytes([rest[0], rest[1]]), u16::from_be_bytes([rest[2], rest[3]]));
        assert_eq!(found, (class, method), "{}", String::from_utf8_lossy(&rest));
    }
}
