//! The exchange: declared, or joined as an operator declared it.

use cap_adapter::error::TransportError;
use lapin::options::ExchangeDeclareOptions;
use lapin::protocol::AMQPSoftError;
use lapin::types::FieldTable;
use lapin::{Channel, ExchangeKind};
use tokio::time::Instant;
use tracing::warn;

use crate::connection::link::Link;
use crate::declare::topology::Topology;
use crate::error::{inequivalent, refused, soft, text, unavailable, unusable};

/// The properties in which an exchange must not differ: a bus that used it would lose messages or reach no group.
const ESSENTIAL: [&str; 4] = ["type", "durable", "auto_delete", "internal"];

impl Topology {
    /// A fresh channel on which the exchange is known to be there.
    ///
    /// # Errors
    ///
    /// Unusable, when the exchange is of another kind.
    pub(crate) async fn open_channel(
        &self,
        link: &Link,
        deadline: Instant,
    ) -> Result<Channel, TransportError> {
        let channel = self.new_channel(link, deadline).await?;
        if self.found_exchange.as_found() {
            match self.declare_exchange(link, &channel, true).await {
                Ok(()) => return Ok(channel),
                // Deleted meanwhile, or the connection broke: from the beginning, at the next call.
                Err(error) => {
                    self.found_exchange.set_as_found(false);
                    return Err(self.exchange_error(&error));
                }
            }
        }
        let Err(error) = self.declare_exchange(link, &channel, false).await else { return Ok(channel) };
        match soft(&error) {
            Some(AMQPSoftError::PRECONDITIONFAILED) if !is_essential(&text(&error)) => {}
            // A user without the right to configure may still use what an operator has declared.
            Some(AMQPSoftError::ACCESSREFUSED) => {}
            _ => return Err(self.exchange_error(&error)),
        }
        let channel = self.new_channel(link, deadline).await?;
        if self.declare_exchange(link, &channel, true).await.is_err() {
            return Err(self.exchange_error(&error));
        }
        self.found_exchange.set_as_found(true);
        if self.found_exchange.warns() {
            self.warn_of(&error);
        }
        Ok(channel)
    }

    async fn declare_exchange(&self, link: &Link, channel: &Channel, passive: bool) -> lapin::Result<()> {
        let options = ExchangeDeclareOptions { passive, durable: true, ..ExchangeDeclareOptions::default() };
        let (exchange, arguments) = (self.exchange.clone(), FieldTable::default());
        let declared = channel.exchange_declare(exchange, ExchangeKind::Topic, options, arguments);
        link.expected_closes().during(channel, declared).await
    }

    fn warn_of(&self, error: &lapin::Error) {
        let (exchange, error_text) = (self.exchange.as_str(), text(error));
        if soft(error) == Some(&AMQPSoftError::ACCESSREFUSED) {
            warn!(
                exchange,
                error = error_text,
                "joined an exchange without the right to declare it: its kind could not be checked, it must be topic"
            );
        } else if inequivalent(&error_text) == Some("alternate-exchange") {
            warn!(
                exchange,
                error = error_text,
                "joined an exchange with an alternate exchange: unroutable messages go there and are not reported"
            );
        } else {
            warn!(exchange, error = error_text, "joined an exchange that was declared with other arguments");
        }
    }

    fn exchange_error(&self, error: &lapin::Error) -> TransportError {
        let (exchange, what) = (self.exchange.as_str(), text(error));
        match soft(error) {
            Some(AMQPSoftError::PRECONDITIONFAILED) => {
                let property = inequivalent(&what).unwrap_or("definition");
                unusable(format!(
                    "exchange {exchange:?} exists with another {property} than a durable topic exchange; set the \
                     option `exchange` to another name, or delete this one and let the bus declare it: {what}"
                ))
            }
            Some(AMQPSoftError::ACCESSREFUSED) => refused(format!(
                "exchange {exchange:?} is not there and this user may not declare it; grant the right, or have it \
                 declared as a durable topic exchange: {what}"
            )),
            _ => unavailable(format!("exchange {exchange:?} could not be declared: {what}")),
        }
    }
}

/// Whether a rejected declaration differs in a property that a bus depends on. If the broker names none, it may.
fn is_essential(said: &str) -> bool {
    inequivalent(said).is_none_or(|property| ESSENTIAL.contains(&property))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exchange_may_differ_in_arguments_only() {
        let said = |property: &str| {
            format!(
                "PRECONDITION_FAILED - inequivalent arg '{property}' for exchange 'x' in vhost '/': received .."
            )
        };
        for property in ["type", "durable", "auto_delete", "internal"] {
            assert!(is_essential(&said(property)), "{property}");
        }
        for property in ["alternate-exchange", "x-delayed-type", "hash-header"] {
            assert!(!is_essential(&said(property)), "{property}");
        }
        assert!(is_essential("PRECONDITION_FAILED - something else"));
        assert!(is_essential(""));
    }
}
