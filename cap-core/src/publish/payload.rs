//! Serializes a payload as the body of a message.

use bytes::Bytes;
use serde::Serialize;

/// Serializes a payload as JSON; null becomes an empty body.
pub(crate) fn serialize<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, serde_json::Error> {
    let json = serde_json::to_vec(value)?;
    Ok(if json == b"null" { Bytes::new() } else { json.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_an_empty_body() {
        assert!(serialize(&()).unwrap().is_empty());
        assert!(serialize(&None::<i32>).unwrap().is_empty());
        assert_eq!(serialize("null").unwrap(), &b"\"null\""[..]);
    }
}
