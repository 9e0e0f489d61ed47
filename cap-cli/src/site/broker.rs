//! The broker of a call.

use cap_core::UnverifiedTransport;
use cap_core::transport::{Transport as _, TransportContext};
use cap_rabbitmq::RabbitMq;

use super::settings::Settings;
use crate::failure::Failure;

/// The broker, ready to be asked. Nothing is connected to yet.
pub(crate) fn open_broker(settings: &Settings) -> Result<RabbitMq, Failure> {
    let mut broker = RabbitMq::new(settings.broker()?).unverified_transport(UnverifiedTransport::Accept);
    if let Some(exchange) = &settings.exchange {
        broker = broker.exchange(exchange);
    }
    let node = format!("cap command line, process {}", std::process::id());
    broker
        .start(&TransportContext::new(node, settings.version.as_str()))
        .map_err(|error| Failure::Usage(crate::failure::redacted(&error.to_string())))?;
    Ok(broker)
}
