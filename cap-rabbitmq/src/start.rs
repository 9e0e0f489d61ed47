//! Starts a transport: checks every option, and makes the parts that work by them.

use std::sync::Arc;
use std::time::Duration;

use cap_adapter::UnverifiedTransport;
use cap_adapter::error::TransportError;
use cap_adapter::transport::TransportContext;
use lapin::types::ShortString;
use tracing::warn;

use crate::connection::address::Address;
use crate::connection::connector::{ConnectSettings, Connector};
use crate::connection::credentials::Provider;
use crate::connection::identity;
use crate::declare::topology::{FoundExchange, OwnQueues, Topology};
use crate::delay::delayer::Delayer;
use crate::error::unusable;
use crate::options::RabbitMqOptions;
use crate::publish::publisher::Publisher;

/// The longest time limit: a longer one makes no sense, and could overflow the clock.
const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// The longest time to live that RabbitMQ takes: 2^32 - 1 milliseconds, almost 50 days.
const LONGEST_TTL: Duration = Duration::from_millis(u32::MAX as u64);

/// What exists once the bus has started.
pub(crate) struct Started {
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) delayer: Delayer,
    pub(crate) consumers: Connector,
    pub(crate) topology: Topology,
}

impl Started {
    pub(crate) fn new(
        options: &RabbitMqOptions,
        provider: Option<&Provider>,
        context: &TransportContext,
    ) -> Result<Self, TransportError> {
        check(options)?;
        let mut address = Address::parse(&options.url, &options.hosts).map_err(|reason| {
            unusable(format!("the url is not of the form amqp://user:password@host:5672/vhost: {reason}"))
        })?;
        check_tls(options, &address)?;
        check_unverified(options, &address)?;
        if options.certificate_login {
            address.log_in_by_certificate();
        }
        let tls = identity::tls(options.ca_certificates.as_ref(), options.identity.as_ref());
        let topology = Topology {
            exchange: exchange_name(&options.exchange, &context.version)?,
            queue_type: options.queue_type,
            dotnet_queues: options.dotnet_queues,
            message_ttl: options.message_ttl,
            silence: options.confirm_timeout / 2,
            found_exchange: FoundExchange::default(),
            own_queues: OwnQueues::default(),
        };
        let settings = |purpose: &str| ConnectSettings {
            address: address.clone(),
            provider: provider.cloned(),
            tls: tls.clone(),
            timeout: options.connect_timeout,
            heartbeat_seconds: u16::try_from(options.heartbeat.as_secs()).unwrap_or(u16::MAX),
            name: format!("{} ({purpose})", context.node),
        };
        let publisher = Publisher::new(settings("publisher"), topology.clone(), options.confirm_timeout);
        let publisher = Arc::new(publisher);
        Ok(Self {
            delayer: Delayer::new(Arc::clone(&publisher)),
            publisher,
            consumers: Connector::new(settings("consumers")),
            topology,
        })
    }
}

/// Finds what is out of bounds in the settings.
fn check(options: &RabbitMqOptions) -> Result<(), TransportError> {
    for (name, value) in
        [("confirm_timeout", options.confirm_timeout), ("connect_timeout", options.connect_timeout)]
    {
        if value.is_zero() {
            return Err(unusable(format!("option {name} is 0; every call would time out")));
        }
        if value > LONGEST_WAIT {
            return Err(unusable(format!("option {name} is more than a day; use a few seconds")));
        }
    }
    match options.message_ttl {
        Some(_) if options.dotnet_queues => Err(unusable(
            "the options message_ttl and dotnet_queues contradict each other: queues that are declared as .NET CAP \
             declares them have its time to live; remove one of the two",
        )),
        Some(ttl) if ttl > LONGEST_TTL || ttl.as_millis() == 0 => Err(unusable(
            "option message_ttl is not between 1 ms and 49 days, the range that RabbitMQ allows",
        )),
        _ => Ok(()),
    }
}

/// Finds certificates that would have no effect, before somebody relies on them.
fn check_tls(options: &RabbitMqOptions, address: &Address) -> Result<(), TransportError> {
    match &options.ca_certificates {
        Some(_) if !address.is_tls() => Err(unusable(
            "option ca_certificates is given, but the url is not amqps://: nothing would be encrypted",
        )),
        Some(pem) if !pem.contains("-----BEGIN CERTIFICATE-----") => Err(unusable(
            "option ca_certificates holds no certificate in PEM form; it takes the text, not a path",
        )),
        _ => Ok(()),
    }?;
    match &options.identity {
        None if options.certificate_login => {
            Err(unusable("option certificate_login is set, but no identity is given to log in by"))
        }
        Some(_) if !address.is_tls() => Err(unusable(
            "option identity is given, but the url is not amqps://: the broker would never ask for it",
        )),
        Some(identity) => identity::check(identity)
            .map_err(|reason| unusable(format!("option identity cannot be used: {reason}"))),
        None => Ok(()),
    }
}

/// Without TLS everyone on the way to another host reads the password and the messages, and may change them.
fn check_unverified(options: &RabbitMqOptions, address: &Address) -> Result<(), TransportError> {
    if address.is_tls() || options.unverified_transport == UnverifiedTransport::Accept {
        return Ok(());
    }
    let Some(host) = address.hosts().iter().find(|host| !UnverifiedTransport::is_local(&host.name)) else {
        return Ok(());
    };
    if options.unverified_transport == UnverifiedTransport::Error {
        return Err(unusable(format!(
            "the connection to {host} would not be encrypted, and option unverified_transport is \"error\"; use amqps://"
        )));
    }
    warn!(%host, "RabbitMQ connection to another host is not encrypted; use amqps://, or set unverified_transport");
    Ok(())
}

/// The exchange of one version of the bus, as .NET CAP names it.
fn exchange_name(exchange: &str, version: &str) -> Result<ShortString, TransportError> {
    if exchange.is_empty() {
        return Err(unusable("option exchange is empty"));
    }
    let name = if version == "v1" { exchange.to_owned() } else { format!("{exchange}.{version}") };
    ShortString::try_new(name)
        .map_err(|_| unusable("option exchange is longer, with the version, than the 255 bytes AMQP allows"))
}
