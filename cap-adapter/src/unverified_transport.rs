//! How an adapter treats connections to servers that are not verified.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// How an adapter treats a connection to another host that is not encrypted, or whose server is not verified. Anyone
/// on the network path of such a connection can read the password and every message, and can impersonate the server.
///
/// Connections to the local machine are not affected; see [`is_local`](Self::is_local).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnverifiedTransport {
    /// Logs one WARN at the start of the bus. The default.
    #[default]
    Warn,
    /// The bus does not start.
    Error,
    /// Logs nothing: the network is trusted, such as a service mesh with its own encryption.
    Accept,
}

impl UnverifiedTransport {
    /// Whether a host in a connection string is the local machine: a loopback address, `localhost` or a name that
    /// ends in `.localhost`, or the folder of a Unix socket. Names are not resolved, since DNS replies can be forged.
    #[must_use]
    pub fn is_local(host: &str) -> bool {
        let host = host.trim();
        if host.starts_with('/') || host.starts_with('@') {
            return true;
        }
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return address.to_canonical().is_loopback();
        }
        let name = bare.strip_suffix('.').unwrap_or(bare).to_ascii_lowercase();
        name == "localhost" || name.ends_with(".localhost")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Issue 9, row 16.
    #[test]
    fn only_this_machine_is_local() {
        for host in [
            "localhost",
            "LocalHost",
            "localhost.",
            "broker.localhost",
            "127.0.0.1",
            "127.8.9.10",
            "::1",
            "[::1]",
            "::ffff:127.0.0.1",
            "/var/run/postgresql",
            "@socket",
        ] {
            assert!(UnverifiedTransport::is_local(host), "{host}");
        }
        for host in [
            "",
            "rabbit-1",
            "localhost.example",
            "notlocalhost",
            "127.0.0.1.example",
            "10.0.0.1",
            "::ffff:10.0.0.1",
            "0.0.0.0",
            "2001:db8::1",
            "128.0.0.1",
        ] {
            assert!(!UnverifiedTransport::is_local(host), "{host}");
        }
    }

    #[test]
    fn its_names_are_those_of_the_options() {
        for (value, name) in [
            (UnverifiedTransport::Warn, "\"warn\""),
            (UnverifiedTransport::Error, "\"error\""),
            (UnverifiedTransport::Accept, "\"accept\""),
        ] {
            assert_eq!(serde_json::to_string(&value).unwrap(), name);
            assert_eq!(serde_json::from_str::<UnverifiedTransport>(name).unwrap(), value);
        }
        assert_eq!(UnverifiedTransport::default(), UnverifiedTransport::Warn);
    }
}
