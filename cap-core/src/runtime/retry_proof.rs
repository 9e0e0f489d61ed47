//! Proofs that a retry copy received from the broker was sent by a node of this storage, for one attempt of one row of
//! one group: an HMAC under the key that these nodes share.

use std::sync::OnceLock;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::storage::{Lease, SharedKey};

/// Separates these proofs from any other use of the key: nothing else authenticated with it begins like this.
const PURPOSE: &str = "cap retry at the broker, 1";
/// The length of a proof in bytes: the first 128 of the 256 bits of HMAC-SHA256.
const LENGTH: usize = 16;

/// Creates and verifies proofs, once the key has been read from the storage.
#[derive(Debug, Default)]
pub(crate) struct RetryProofs {
    /// Unset until the storage has been asked; `None` if the storage cannot store a key.
    keyed: OnceLock<Option<Hmac<Sha256>>>,
}

impl RetryProofs {
    /// Sets the key. Only the first call has an effect.
    pub(crate) fn set(&self, key: Option<SharedKey>) {
        let keyed = key.and_then(|key| Hmac::new_from_slice(key.as_bytes()).ok());
        let _ = self.keyed.set(keyed);
    }

    /// Whether there is a key. Without one, no retry may be delayed at the broker.
    pub(crate) fn are_possible(&self) -> bool {
        matches!(self.keyed.get(), Some(Some(_)))
    }

    /// Returns the proof for the retry that follows the attempt under this lease, in hexadecimal.
    pub(crate) fn prove(&self, lease: Lease, group: &str) -> Option<String> {
        let full = self.mac(lease, group)?.finalize().into_bytes();
        let sent = full.first_chunk::<LENGTH>()?;
        Some(format!("{:032x}", u128::from_be_bytes(*sent)))
    }

    /// Verifies a proof in constant time, so that the time taken reveals nothing about the right one.
    pub(crate) fn is_proof(&self, proof: &str, lease: Lease, group: &str) -> bool {
        let (Some(mac), Some(proof)) = (self.mac(lease, group), decode(proof)) else { return false };
        mac.verify_truncated_left(&proof).is_ok()
    }

    fn mac(&self, lease: Lease, group: &str) -> Option<Hmac<Sha256>> {
        let mut mac = self.keyed.get()?.clone()?;
        let (id, epoch) = (lease.id.to_be_bytes(), lease.epoch.to_be_bytes());
        for field in [PURPOSE.as_bytes(), &id, &epoch, group.as_bytes()] {
            // Each field is preceded by its length, so that no bytes can move from one field to another.
            mac.update(&u64::try_from(field.len()).unwrap_or(u64::MAX).to_be_bytes());
            mac.update(field);
        }
        Some(mac)
    }
}

/// Decodes a proof of the full length only; a shorter one would be easier to guess.
fn decode(proof: &str) -> Option<[u8; LENGTH]> {
    let is_whole = proof.len() == 2 * LENGTH && proof.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_whole.then(|| u128::from_str_radix(proof, 16).ok()).flatten().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Lease = Lease { id: 7, epoch: 2 };

    fn proofs(byte: u8) -> RetryProofs {
        let proofs = RetryProofs::default();
        proofs.set(SharedKey::from_stored(&[byte; SharedKey::LENGTH]));
        proofs
    }

    #[test]
    fn a_proof_is_valid_only_for_its_row_epoch_and_group() {
        let proofs = proofs(1);
        let proof = proofs.prove(LEASE, "shop.v1").unwrap();
        assert!(proofs.is_proof(&proof, LEASE, "shop.v1"));
        assert!(!proofs.is_proof(&proof, Lease { id: 8, ..LEASE }, "shop.v1"));
        assert!(!proofs.is_proof(&proof, Lease { epoch: 3, ..LEASE }, "shop.v1"));
        assert!(!proofs.is_proof(&proof, LEASE, "shop.v"));
        assert!(!self::proofs(2).is_proof(&proof, LEASE, "shop.v1"), "another key");
    }

    /// Proofs must be the same in every version, or nodes would reject each other's copies. The expected value was
    /// computed with Python's `hmac`.
    #[test]
    fn a_proof_is_the_first_half_of_an_hmac() {
        assert_eq!(proofs(1).prove(LEASE, "shop.v1").as_deref(), Some("9f3e68ee112e76073b67550008024794"));
    }

    #[test]
    fn a_truncated_proof_is_invalid() {
        let proofs = proofs(1);
        let proof = proofs.prove(LEASE, "shop.v1").unwrap();
        for part in ["", "0", &proof[..2], &proof[..30], &format!("+{}", &proof[1..]), &format!("{proof}00")]
        {
            assert!(!proofs.is_proof(part, LEASE, "shop.v1"), "{part}");
        }
    }

    #[test]
    fn without_a_key_there_are_no_proofs() {
        let (unset, none) = (RetryProofs::default(), RetryProofs::default());
        none.set(None);
        for proofs in [unset, none] {
            assert!(!proofs.are_possible());
            assert_eq!(proofs.prove(LEASE, "shop.v1"), None);
            assert!(!proofs.is_proof(&"0".repeat(32), LEASE, "shop.v1"));
        }
    }
}
