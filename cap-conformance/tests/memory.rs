//! The embedded pair passes the suite of which it is the model.

use bytes::Bytes;
use cap_adapter::message::Headers;
use cap_adapter::transport::Sent;
use cap_conformance::storage::StorageFixture;
use cap_conformance::transport::TransportFixture;
use cap_memory::{MemoryStorage, MemoryTransport};

struct Store(MemoryStorage);

impl StorageFixture for Store {
    type Storage = MemoryStorage;

    async fn open(&self) -> MemoryStorage {
        self.0.clone()
    }
}

async fn store() -> Store {
    Store(MemoryStorage::new())
}

struct Broker(MemoryTransport);

impl TransportFixture for Broker {
    type Transport = MemoryTransport;

    async fn open(&self) -> MemoryTransport {
        self.0.clone()
    }

    async fn publish_raw(&self, routing_key: &str, headers: &Headers, body: Bytes) {
        let sent = self.0.publish_raw(routing_key, headers.clone(), Headers::new(), body).await;
        assert!(matches!(sent, Ok(Sent::Routed)), "{sent:?}");
    }

    async fn interrupt(&self) -> bool {
        self.0.set_available(false);
        self.0.set_available(true);
        true
    }
}

async fn broker() -> Broker {
    Broker(MemoryTransport::new())
}

cap_conformance::storage_suite!(store);
cap_conformance::transport_suite!(broker);
