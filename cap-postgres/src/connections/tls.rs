//! Whether the password and the messages can be read on the way to the server.

use std::fmt;

use cap_adapter::UnverifiedTransport;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::database::error::Fault;

/// Warns of a connection to another host that need not be encrypted, or refuses it.
pub(crate) fn check(
    options: &PgConnectOptions,
    treatment: UnverifiedTransport,
    target: &impl fmt::Display,
) -> Result<(), Fault> {
    let mode = match options.get_ssl_mode() {
        PgSslMode::Disable => "disable",
        PgSslMode::Allow => "allow",
        PgSslMode::Prefer => "prefer",
        PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull => return Ok(()),
    };
    if options.get_socket().is_some() || UnverifiedTransport::is_local(options.get_host()) {
        return Ok(());
    }
    match treatment {
        UnverifiedTransport::Accept => {}
        UnverifiedTransport::Warn => tracing::warn!(
            %target,
            sslmode = mode,
            "database connection may be unencrypted: set sslmode=verify-full, or unverified_transport"
        ),
        UnverifiedTransport::Error => {
            return Err(Fault::Unusable(format!(
                "the connection to {target} may be unencrypted (sslmode={mode}): set sslmode=verify-full and \
                 sslrootcert in the URL, or accept it with unverified_transport(UnverifiedTransport::Accept)"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Issue 9, row 16.
    #[test]
    fn only_other_hosts_without_tls_are_refused() {
        for (url, is_refused) in [
            ("postgres://u:secret@db.example/shop", true),
            ("postgres://u:secret@10.0.0.1/shop?sslmode=prefer", true),
            ("postgres://u:secret@db.example/shop?sslmode=allow", true),
            ("postgres://u:secret@db.example/shop?sslmode=disable", true),
            ("postgres://u:secret@db.example/shop?sslmode=require", false),
            ("postgres://u:secret@db.example/shop?sslmode=verify-ca", false),
            ("postgres://u:secret@db.example/shop?sslmode=verify-full", false),
            ("postgres://u:secret@localhost/shop", false),
            ("postgres://u:secret@127.0.0.1/shop?sslmode=disable", false),
            ("postgres://u:secret@[::1]/shop", false),
            ("postgres:///shop?host=/var/run/postgresql", false),
        ] {
            let options: Option<PgConnectOptions> = url.parse().ok();
            let result = options.map(|options| check(&options, UnverifiedTransport::Error, &"target"));
            assert_eq!(result.as_ref().map(Result::is_err), Some(is_refused), "{url}");
            assert!(!format!("{result:?}").contains("secret"));
        }
        let options = PgConnectOptions::new_without_pgpass().host("db.example").ssl_mode(PgSslMode::Prefer);
        assert!(check(&options, UnverifiedTransport::Accept, &"target").is_ok());
        assert!(check(&options, UnverifiedTransport::Warn, &"target").is_ok());
    }
}
