//! The certificate that this program shows to the broker.

use std::fmt;

use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use serde::{Deserialize, Serialize};

use crate::driver_fixes::identity_check::check_identity;

/// A client certificate with its private key, for brokers that ask for one (mutual TLS).
///
/// ```
/// use cap_rabbitmq::ClientIdentity;
///
/// let identity: ClientIdentity = serde_json::from_str(
///     r#"{ "pem": { "certificates": "-----BEGIN CERTIFICATE-----..", "key": "-----BEGIN PRIVATE KEY-----.." } }"#,
/// )?;
/// assert!(!format!("{identity:?}").contains("PRIVATE"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum ClientIdentity {
    /// As PEM text.
    Pem {
        /// The certificate, followed by those of the authorities between it and the one that the broker trusts.
        certificates: String,
        /// The private key, not encrypted: PKCS#8, PKCS#1 or SEC1.
        key: String,
    },
    /// As PKCS#12, the content of a `.p12` or `.pfx` file. In a configuration file the bytes are numbers: give PEM there.
    Pkcs12 {
        /// The bytes of the file.
        der: Vec<u8>,
        /// The password that the file is encrypted with.
        password: String,
    },
}

impl ClientIdentity {
    /// An identity as PEM text: the certificate with those of the authorities between, and its private key.
    pub fn pem(certificates: impl Into<String>, key: impl Into<String>) -> Self {
        Self::Pem { certificates: certificates.into(), key: key.into() }
    }

    /// An identity as PKCS#12: the bytes of the file and its password.
    pub fn pkcs12(der: impl Into<Vec<u8>>, password: impl Into<String>) -> Self {
        Self::Pkcs12 { der: der.into(), password: password.into() }
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pem { .. } => "Pem(..)",
            Self::Pkcs12 { .. } => "Pkcs12(..)",
        })
    }
}

/// What lapin needs for TLS.
pub(crate) fn tls(authorities: Option<&String>, identity: Option<&ClientIdentity>) -> OwnedTLSConfig {
    let identity = identity.map(|identity| match identity {
        ClientIdentity::Pem { certificates, key } => {
            OwnedIdentity::PKCS8 { pem: certificates.clone().into_bytes(), key: key.clone().into_bytes() }
        }
        ClientIdentity::Pkcs12 { der, password } => {
            OwnedIdentity::PKCS12 { der: der.clone(), password: password.clone() }
        }
    });
    OwnedTLSConfig { cert_chain: authorities.cloned(), identity }
}

/// Whether an identity can be read, and its key belongs to its certificate.
///
/// # Errors
///
/// What is wrong with it, without any secret.
pub(crate) fn check(identity: &ClientIdentity) -> Result<(), String> {
    if let ClientIdentity::Pem { certificates, key } = identity {
        if !certificates.contains("-----BEGIN CERTIFICATE-----") {
            return Err("it holds no certificate in PEM form; it takes the text, not a path".to_owned());
        }
        if key.contains("ENCRYPTED") {
            return Err(
                "its private key is encrypted; decrypt it, or give both as PKCS#12 with the password"
                    .to_owned(),
            );
        }
        if !key.contains("PRIVATE KEY-----") {
            return Err("its key is no private key in PEM form; it takes the text, not a path".to_owned());
        }
    }
    check_identity(&tls(None, Some(identity)))
}
