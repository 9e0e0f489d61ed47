//! The suite that every transport must pass, on both kinds of queue.

use std::sync::Arc;

use crate::support;
use crate::support::Place;
use crate::support::proxy::Proxy;
use bytes::Bytes;
use cap_conformance::transport::TransportFixture;
use cap_core::message::Headers;
use cap_rabbitmq::{QueueType, RabbitMq};
use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};

struct Corner {
    place: Place,
    proxy: Proxy,
    queue_type: QueueType,
}

async fn corner(queue_type: QueueType) -> Corner {
    Corner { place: Place::new(), proxy: Proxy::start().await, queue_type }
}

impl TransportFixture for Corner {
    type Transport = RabbitMq;

    async fn open(&self) -> RabbitMq {
        self.place.transport_at(&self.proxy.url()).queue_type(self.queue_type)
    }

    fn group(&self, name: &str) -> Arc<str> {
        self.place.queue(name).into()
    }

    async fn publish_raw(&self, routing_key: &str, headers: &Headers, body: Bytes) {
        let mut table = FieldTable::default();
        for (name, value) in headers.iter() {
            let value = value.map_or(AMQPValue::Void, |value| AMQPValue::LongString(value.into()));
            table.insert(name.into(), value);
        }
        let channel = support::plain_channel().await;
        self.place.declare_exchange(&channel).await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        channel
            .basic_publish(
                self.place.exchange.as_str().into(),
                routing_key.into(),
                BasicPublishOptions::default(),
                &body,
                BasicProperties::default().with_headers(table),
            )
            .await
            .unwrap()
            .await
            .unwrap();
    }

    async fn interrupt(&self) -> bool {
        self.proxy.close_connections();
        true
    }
}

mod quorum {
    async fn corner() -> super::Corner {
        super::corner(cap_rabbitmq::QueueType::Quorum).await
    }

    cap_conformance::transport_suite!(corner);
}

mod classic {
    async fn corner() -> super::Corner {
        super::corner(cap_rabbitmq::QueueType::Classic).await
    }

    cap_conformance::transport_suite!(corner);
}
