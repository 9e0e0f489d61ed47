//! Settings are judged when the bus starts, without the network, and the password is shown nowhere.

use std::time::Duration;

use crate::support;
use crate::support::log::Log;
use cap_core::UnverifiedTransport;
use cap_core::error::{TransportError, TransportErrorKind};
use cap_core::transport::{Transport, TransportContext};
use cap_rabbitmq::{ClientIdentity, QueueType, RabbitMq, RabbitMqOptions};
use rcgen::KeyPair;

fn start(transport: &RabbitMq) -> Result<(), TransportError> {
    transport.start(&TransportContext::new("node", "v1"))
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
    check_unusable(&plain().message_ttl(Duration::from_secs(1)).dotnet_queues(), "remove one of the two");
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
    options.identity = Some(ClientIdentity::pem("certificate", "s3cret"));
    options.certificate_login = true;
    options.unverified_transport = UnverifiedTransport::Accept;
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
        .identity(ClientIdentity::pem("certificate", "s3cret"))
        .certificate_login()
        .unverified_transport(UnverifiedTransport::Accept)
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

/// Issue 9, row 16.
#[test]
fn plain_connections_to_other_hosts_follow_the_option() {
    use UnverifiedTransport::{Accept, Error, Warn};
    for (url, hosts, foreign) in [
        ("amqp://u:s3cret@localhost,127.0.0.1,[::1]:7", vec![], false),
        ("amqp://u:s3cret@rabbit-1", vec![], true),
        ("amqp://u:s3cret@localhost", vec!["10.0.0.7:5672"], true),
        ("amqps://u:s3cret@rabbit-1", vec!["rabbit-2"], false),
    ] {
        for treatment in [Warn, Error, Accept] {
            let (log, _guard) = Log::here("info");
            let transport = RabbitMq::new(url).hosts(hosts.clone()).unverified_transport(treatment);
            if foreign && treatment == Error {
                check_unusable(&transport, "would not be encrypted");
            } else {
                start(&transport).unwrap();
            }
            let warned = log.troubles();
            assert_eq!(
                warned.len(),
                usize::from(foreign && treatment == Warn),
                "{url} {treatment:?}: {warned:?}"
            );
            assert!(warned.iter().all(|line| line.contains("not encrypted") && !line.contains("s3cret")));
        }
    }
}

/// Issue 8, row 8: what is wrong with an identity is found without the network.
#[test]
fn an_identity_that_cannot_be_used_is_found_at_the_start() {
    let key = KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["client".to_owned()]).unwrap().self_signed(&key).unwrap();
    let (certificate, key) = (certificate.pem(), key.serialize_pem());
    let plain = |identity| RabbitMq::new("amqps://u:s3cret@host").identity(identity);
    start(&plain(ClientIdentity::pem(&certificate, &key))).unwrap();
    let other = KeyPair::generate().unwrap().serialize_pem();
    for (identity, reason) in [
        (ClientIdentity::pem("/etc/cap/client.pem", &key), "the text, not a path"),
        (ClientIdentity::pem(&certificate, "/etc/cap/client.key"), "the text, not a path"),
        (ClientIdentity::pem(&certificate, key.replace("PRIVATE", "ENCRYPTED PRIVATE")), "is encrypted"),
        (ClientIdentity::pem(&certificate, key.replace("MIG", "xxx")), "identity cannot be used"),
        (ClientIdentity::pem(&certificate, other), "identity cannot be used"),
        (ClientIdentity::pkcs12("s3cret", "s3cret"), "identity cannot be used"),
    ] {
        check_unusable(&plain(identity), reason);
    }
    let identity = ClientIdentity::pem(certificate, key);
    check_unusable(&RabbitMq::new("amqp://u:s3cret@localhost").identity(identity), "not amqps://");
    check_unusable(&RabbitMq::new("amqps://u:s3cret@host").certificate_login(), "no identity");
}
