//! The key that signs sessions and form tokens.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::SetupError;

/// The fewest bytes of a key.
const SHORTEST: usize = 32;

/// The secret key that signs session cookies and form tokens. Give every node the same one, so that a session of one is
/// valid at the others. A new key ends all sessions.
#[derive(Clone)]
pub struct SigningKey(Vec<u8>);

impl SigningKey {
    /// Takes at least 32 random bytes, for example from a secret of the deployment: `openssl rand -base64 48`.
    ///
    /// # Errors
    ///
    /// [`SetupError::ShortKey`].
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, SetupError> {
        let bytes = bytes.as_ref();
        if bytes.len() < SHORTEST {
            return Err(SetupError::ShortKey { bytes: bytes.len(), needed: SHORTEST });
        }
        Ok(Self(bytes.to_vec()))
    }

    /// A key from the operating system's random numbers. Sessions end when the process does, and no other node takes them.
    ///
    /// # Errors
    ///
    /// [`SetupError::NoRandomness`] if the operating system gives none.
    pub fn random() -> Result<Self, SetupError> {
        let mut bytes = vec![0; SHORTEST];
        getrandom::fill(&mut bytes).map_err(|error| SetupError::NoRandomness(error.to_string()))?;
        Ok(Self(bytes))
    }

    /// The signature of these parts for one purpose. Parts cannot be shifted into each other, as their lengths are signed.
    pub(crate) fn sign(&self, purpose: &str, parts: &[&[u8]]) -> String {
        URL_SAFE_NO_PAD.encode(self.mac(purpose, parts).finalize().into_bytes())
    }

    /// Whether a signature is right. Takes the same time wherever it is wrong.
    pub(crate) fn verify(&self, purpose: &str, parts: &[&[u8]], signature: &str) -> bool {
        let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
        self.mac(purpose, parts).verify_slice(&signature).is_ok()
    }

    #[allow(clippy::expect_used, reason = "HMAC takes a key of any length")]
    fn mac(&self, purpose: &str, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes any key");
        for part in [purpose.as_bytes()].iter().chain(parts) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_of_one_key_purpose_and_split() {
        let key = SigningKey::new([7; 32]).unwrap();
        let signature = key.sign("a", &[b"bc", b"d"]);
        assert!(key.verify("a", &[b"bc", b"d"], &signature));
        assert!(!key.verify("a", &[b"b", b"cd"], &signature));
        assert!(!key.verify("ab", &[b"c", b"d"], &signature));
        assert!(!SigningKey::new([8; 32]).unwrap().verify("a", &[b"bc", b"d"], &signature));
        assert!(!key.verify("a", &[b"bc", b"d"], ""));
        assert!(SigningKey::new([7; 31]).is_err());
    }
}
