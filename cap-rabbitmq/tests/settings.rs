//! Settings are judged when the bus starts, without the network, and the password is shown nowhere.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::time::Duration;

use cap_core::error::{TransportError, TransportErrorKind};
use cap_core::transport::{Transport, TransportContext};
use cap_rabbitmq::{QueueType, RabbitMq, RabbitMqOptions};

fn start(transport: &RabbitMq) -> Result<(), TransportError> {
    transport.start(&TransportContext { node: "node".into(), version: "v1".into() })
}

#[track_caller]
fn check_unusable(transport: &RabbitMq, reason: &str) {
    let error = start(transport).unwrap_err();
    assert_eq!(error.kind(), TransportErrorKind::Unusable);
    assert!(error.to_string().contains(reason), "{error}");
    assert!(!format!("{error} {error:?} {transport:?}").contains("s3cret"), "{error:?} {transport:?}");
}

#[test]
fn a_bad_url_is_found_at_the_start_and_not_shown() {
    for (url, reason) in [
        ("", "does not begin with amqp://"),
        ("rabbit://u:s3cret@host", "does not begin with amqp://"),
        ("amqp://u:s3cret", "a port is not a number"),
        ("amqp://u:s3cret@", "a host name is missing"),
        ("amqp://u:s3cret/1@host", "in a password write '/' as %2F"),
        ("amqp://u:s3cret@host/?heartbeat=s3cret", "a parameter after '?'"),
    ] {
        check_unusable(&RabbitMq::new(url), reason);
    }
    check_unusable(&RabbitMq::new("amqp://host").hosts(["u:s3cret@host"]), "a port is not a number");
}

#[test]
fn settings_out_of_bounds_are_found_at_the_start() {
    let plain = || RabbitMq::new("amqp://u:s3cret@host");
    check_unusable(&plain().confirm_timeout(Duration::ZERO), "confirm_timeout is 0");
    check_unusable(&plain().connect_timeout(Duration::ZERO), "connect_timeout is 0");
    let two_days = Duration::from_hours(48);
    for longest in [two_days, Duration::MAX] {
        check_unusable(&plain().confirm_timeout(longest), "confirm_timeout is more than a day");
        check_unusable(&plain().connect_timeout(longest), "connect_timeout is more than a day");
    }
    check_unusable(&plain().exchange(""), "exchange is empty");
    check_unusable(&plain().exchange("x".repeat(256)), "255 bytes");
    check_unusable(&plain().ca_certificates("-----BEGIN CERTIFICATE-----"), "the url is not amqps://");
    check_unusable(
        &RabbitMq::new("amqps://host").ca_certificates("/etc/ca.pem"),
        "takes the text, not a path",
    );
    check_unusable(&plain().message_ttl(Duration::ZERO), "message_ttl");
    check_unusable(&plain().message_ttl(Duration::from_hours(50 * 24)), "49 days");
    check_unusable(&plain().message_ttl(Duration::from_secs(1)).dotnet_queues(), "leave one of the two out");
}

/// A .NET member of the group would handle the copy that comes back, and the row would be handled besides.
#[test]
fn retries_of_groups_shared_with_dotnet_are_not_for_the_broker() {
    assert!(RabbitMq::new("amqp://host").can_delay_retries());
    let shared = RabbitMq::new("amqp://host").dotnet_queues();
    assert!(!shared.can_delay_retries() && shared.can_delay());
}

#[test]
fn a_transport_serves_one_bus() {
    let transport = RabbitMq::new("amqp://u:s3cret@host");
    start(&transport).unwrap();
    check_unusable(&transport, "another bus");
    assert_eq!(transport.name(), "RabbitMQ");
}

#[tokio::test]
async fn a_transport_that_was_not_started_says_so() {
    let transport = RabbitMq::new("amqp://u:s3cret@host");
    let error = transport.send(&[support::message("1", "t", "")]).await.remove(0).unwrap_err();
    assert!(error.to_string().contains("before a bus started it"), "{error}");
    transport.close().await;
}

#[test]
fn options_and_builder_say_the_same() {
    let mut options = RabbitMqOptions::default();
    options.url = "amqp://u:s3cret@host".to_owned();
    options.hosts = vec!["other".to_owned()];
    options.ca_certificates = Some("pem".to_owned());
    options.exchange = "x".to_owned();
    options.queue_type = QueueType::Classic;
    options.dotnet_queues = true;
    options.message_ttl = Some(Duration::from_secs(1));
    options.confirm_timeout = Duration::from_secs(2);
    options.connect_timeout = Duration::from_secs(3);
    options.heartbeat = Duration::from_secs(4);
    let built = RabbitMq::new("amqp://u:s3cret@host")
        .hosts(["other"])
        .ca_certificates("pem")
        .exchange("x")
        .queue_type(QueueType::Classic)
        .dotnet_queues()
        .message_ttl(Duration::from_secs(1))
        .confirm_timeout(Duration::from_secs(2))
        .connect_timeout(Duration::from_secs(3))
        .heartbeat(Duration::from_secs(4));
    assert_eq!(format!("{built:?}"), format!("{:?}", RabbitMq::with_options(options)));
    assert!(!format!("{built:?}").contains("s3cret"));
}
