//! Names of types in errors.

use std::fmt;

/// Shows a type's name in errors without its path: `Vec<Order>` for `alloc::vec::Vec<shop::Order>`.
#[derive(Debug)]
pub struct ShortTypeName(pub &'static str);

impl fmt::Display for ShortTypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut word_start = 0;
        let bytes = self.0.as_bytes();
        for (index, byte) in bytes.iter().enumerate() {
            // Types inside of a function have it in their path, closures as `{{closure}}`.
            let in_path = byte.is_ascii_alphanumeric() || b"_:{}#".contains(byte);
            if !in_path {
                let word = &self.0[word_start..index];
                f.write_str(word.rsplit("::").next().unwrap_or(word))?;
                // A multi-byte character is written with its first byte's word; identifiers here are ASCII.
                f.write_str(self.0.get(index..=index).unwrap_or(""))?;
                word_start = index + 1;
            }
        }
        let word = &self.0[word_start..];
        f.write_str(word.rsplit("::").next().unwrap_or(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_names_lose_their_paths() {
        for (full, short) in [
            ("shop::Order", "Order"),
            ("alloc::vec::Vec<shop::Order>", "Vec<Order>"),
            ("(shop::a::B, &[core::option::Option<i32>])", "(B, &[Option<i32>])"),
            ("i32", "i32"),
            ("shop::tests::it::{{closure}}::Stock", "Stock"),
        ] {
            assert_eq!(ShortTypeName(full).to_string(), short);
        }
    }
}
