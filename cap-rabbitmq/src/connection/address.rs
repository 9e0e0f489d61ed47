//! The broker's address: parses the URL and the hosts, and never shows the password.

use lapin::uri::{AMQPScheme, AMQPUri, SASLMechanism};

/// Replaces a URL, or its secrets, in errors and logs.
const HIDDEN: &str = "<hidden>";

/// The longest frame to agree on if the url says nothing: RabbitMQ's own default.
const FRAME_MAX: u32 = 131_072;
/// The longest frame that a url may ask for. lapin holds 64 of them in memory for each connection. Without
/// this limit it would accept the broker's, which may be unlimited.
const LARGEST_FRAME_MAX: u32 = 1024 * 1024;

/// Why a URL or a host could not be parsed; contains no part of either.
type Reason = &'static str;

/// A broker's hosts, and all else that is needed to log in.
#[derive(Clone)]
pub(crate) struct Address {
    /// Everything but host and port.
    login: AMQPUri,
    /// Never empty.
    hosts: Vec<Host>,
}

/// A host and its port; may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) port: u16,
}

impl Address {
    pub(crate) fn parse(url: &str, more_hosts: &[String]) -> Result<Self, Reason> {
        let parts = Parts::of(url)?;
        // The hosts are read here, since a url may hold one only, and lapin takes an IPv6 address for "localhost".
        let bare = format!("{}://{}localhost{}", parts.scheme, parts.user, parts.rest);
        let mut login: AMQPUri =
            bare.parse().map_err(|_| "the user, the vhost or a parameter after '?' cannot be read")?;
        if login.vhost.is_empty() {
            "/".clone_into(&mut login.vhost);
        }
        let default_port = login.scheme.default_port();
        let hosts = parts
            .hosts
            .split(',')
            .chain(more_hosts.iter().map(String::as_str))
            .map(|host| Host::parse(host, default_port))
            .collect::<Result<_, _>>()?;
        Ok(Self { login, hosts })
    }

    pub(crate) fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Logs in by the client's certificate.
    pub(crate) fn log_in_by_certificate(&mut self) {
        self.login.query.auth_mechanism = Some(SASLMechanism::External);
    }

    pub(crate) fn logs_in_by_certificate(&self) -> bool {
        self.login.query.auth_mechanism == Some(SASLMechanism::External)
    }

    /// The same with other credentials.
    pub(crate) fn with_credentials(&self, user: &str, password: &str) -> Self {
        let mut address = self.clone();
        user.clone_into(&mut address.login.authority.userinfo.username);
        password.clone_into(&mut address.login.authority.userinfo.password);
        address
    }

    /// What lapin needs to connect to one of the hosts.
    pub(crate) fn uri(&self, host: &Host, heartbeat_seconds: u16) -> AMQPUri {
        let mut uri = self.login.clone();
        uri.authority.host.clone_from(&host.name);
        uri.authority.port = host.port;
        uri.query.heartbeat.get_or_insert(heartbeat_seconds);
        uri.query.frame_max = Some(self.frame_max());
        uri
    }

    fn frame_max(&self) -> u32 {
        match self.login.query.frame_max {
            None => FRAME_MAX,
            // To AMQP this is "no limit".
            Some(0) => LARGEST_FRAME_MAX,
            Some(asked) => asked.min(LARGEST_FRAME_MAX),
        }
    }

    /// The longest frame that is asked for, in bytes; the broker may agree to less.
    pub(crate) fn max_frame(&self) -> usize {
        usize::try_from(self.frame_max()).unwrap_or(usize::MAX)
    }

    pub(crate) fn user(&self) -> &str {
        &self.login.authority.userinfo.username
    }

    pub(crate) fn vhost(&self) -> &str {
        &self.login.vhost
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.login.scheme == AMQPScheme::AMQPS
    }
}

impl Host {
    fn parse(text: &str, default_port: u16) -> Result<Self, Reason> {
        let text = text.trim();
        let (name, port) = match text.strip_prefix('[') {
            Some(bracketed) => {
                let (name, port) =
                    bracketed.split_once(']').ok_or("an IPv6 host lacks its closing bracket")?;
                (name, port.strip_prefix(':').or(if port.is_empty() { None } else { Some("?") }))
            }
            None => match text.split_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (text, None),
            },
        };
        if name.is_empty()
            || name.contains(|c: char| c.is_whitespace() || c.is_control() || "@/?#".contains(c))
        {
            return Err("a host name is missing or malformed");
        }
        let port = match port {
            Some(port) => port.parse().map_err(|_| "a port is not a number from 1 to 65535")?,
            None => default_port,
        };
        if port == 0 {
            return Err("a port is not a number from 1 to 65535");
        }
        Ok(Self { name: name.to_owned(), port })
    }
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

/// The parts of a URL.
struct Parts<'a> {
    scheme: &'a str,
    /// With its `@`, or empty.
    user: &'a str,
    hosts: &'a str,
    /// The vhost and the query, with their `/` and `?`, or empty.
    rest: &'a str,
}

impl<'a> Parts<'a> {
    fn of(url: &'a str) -> Result<Self, Reason> {
        let (scheme, after) = url.split_once("://").ok_or("it does not begin with amqp:// or amqps://")?;
        if scheme != "amqp" && scheme != "amqps" {
            return Err("it does not begin with amqp:// or amqps://");
        }
        let end = after.find(['/', '?', '#']).unwrap_or(after.len());
        let (authority, rest) = after.split_at(end);
        // Otherwise the first half of such a password would pass for a host or a port, and be shown as one.
        if rest.contains('@') {
            return Err(
                "there is an '@' after the host: in a password write '/' as %2F, '?' as %3F, '#' as %23, \
                        '@' as %40",
            );
        }
        let user = authority.rfind('@').map_or(0, |at| at + 1);
        Ok(Self { scheme, user: &authority[..user], hosts: &authority[user..], rest })
    }
}

/// The URL without user, password and query. Nothing of it if it cannot be parsed, since any part might be the secret.
pub(crate) fn redacted(url: &str) -> String {
    match Parts::of(url) {
        Ok(Parts { scheme, user, hosts, rest }) if Address::parse(url, &[]).is_ok() => {
            let user = if user.is_empty() { String::new() } else { format!("{HIDDEN}@") };
            let vhost = rest.split(['?', '#']).next().unwrap_or_default();
            format!("{scheme}://{user}{hosts}{vhost}")
        }
        _ => HIDDEN.to_owned(),
    }
}

/// A host as it was written. Nothing of it if it cannot be parsed.
pub(crate) fn redacted_host(host: &str) -> &str {
    if Host::parse(host, 1).is_ok() { host } else { HIDDEN }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, user: &str, hosts: &[(&str, u16)], vhost: &str) {
        let address = Address::parse(url, &[]).unwrap();
        let found: Vec<_> = address.hosts().iter().map(|host| (host.name.as_str(), host.port)).collect();
        assert_eq!((address.user(), found.as_slice(), address.vhost()), (user, hosts, vhost), "{url}");
    }

    #[test]
    fn urls_of_all_forms_are_read() {
        check("amqp://localhost", "guest", &[("localhost", 5672)], "/");
        check("amqp://localhost/", "guest", &[("localhost", 5672)], "/");
        check("amqps://u:p@rabbit/shop", "u", &[("rabbit", 5671)], "shop");
        check("amqp://u:p%40%2F@rabbit:1/%2f?heartbeat=7", "u", &[("rabbit", 1)], "/");
        check("amqp://u:p@a:1,b,[::1]:3/x", "u", &[("a", 1), ("b", 5672), ("::1", 3)], "x");
        check("amqp://[fe80::2]", "guest", &[("fe80::2", 5672)], "/");
    }

    #[test]
    fn hosts_are_added_and_the_password_is_decoded() {
        let address = Address::parse("amqp://u:p%40@a", &["b:7".into()]).unwrap();
        let uri = address.uri(&address.hosts()[1], 9);
        assert_eq!((uri.authority.host.as_str(), uri.authority.port), ("b", 7));
        assert_eq!(uri.authority.userinfo.password, "p@");
        assert_eq!(uri.query.heartbeat, Some(9));
    }

    #[test]
    fn heartbeat_of_the_url_comes_first() {
        let address = Address::parse("amqp://a?heartbeat=7", &[]).unwrap();
        assert_eq!(address.uri(&address.hosts()[0], 9).query.heartbeat, Some(7));
    }

    #[test]
    fn longest_frame_has_a_limit() {
        for (url, expected) in [
            ("amqp://a", 131_072),
            ("amqp://a?frame_max=65536", 65_536),
            ("amqp://a?frame_max=262144", 262_144),
            ("amqp://a?frame_max=0", 1_048_576),
            ("amqp://a?frame_max=4294967295", 1_048_576),
        ] {
            let address = Address::parse(url, &[]).unwrap();
            assert_eq!(address.uri(&address.hosts()[0], 9).query.frame_max, Some(expected), "{url}");
        }
    }

    #[test]
    fn bad_urls_are_rejected_without_showing_them() {
        for url in [
            "",
            "s3cret",
            "amqp:s3cret",
            "http://s3cret@x",
            "amqp://u:s3cret@",
            "amqp://u:s3cret",
            "amqp://u:12/s3cret@host/v",
            "amqp://u:s3cret@host:port",
            "amqp://u:s3cret@host:0",
            "amqp://u:s3cret@host:5672,",
            "amqp://u:s3cret@[::1",
            "amqp://u:s3cret@[::1]5",
            "amqp://u:s3cret@host/%ff",
            "amqp://u:s3cret@host?heartbeat=s3cret",
            "amqp://u:s3 cret@ho st",
        ] {
            let Err(reason) = Address::parse(url, &[]) else { panic!("{url} was accepted") };
            assert!(!reason.contains("s3cret"));
            assert_eq!(redacted(url), HIDDEN, "{url}");
        }
    }

    #[test]
    fn redacted_url_shows_host_and_vhost_only() {
        assert_eq!(redacted("amqps://u:p@a:1,b/shop?heartbeat=1"), "amqps://<hidden>@a:1,b/shop");
        assert_eq!(redacted("amqp://localhost"), "amqp://localhost");
        assert_eq!(redacted_host("b:7"), "b:7");
        assert_eq!(redacted_host("u:p@b:7"), HIDDEN);
    }
}
