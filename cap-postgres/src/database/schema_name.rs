//! The name of the schema.

use cap_sql::templates::Templates;

use crate::database::error::Fault;

/// The longest identifier of PostgreSQL, which cuts off the rest silently.
const LONGEST: usize = 63;

/// The name of the schema, in the forms in which it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SchemaName {
    name: String,
    quoted: String,
}

impl SchemaName {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), quoted: format!("\"{}\"", name.replace('"', "\"\"")) }
    }

    /// The name as an identifier in SQL. A quote within it is doubled, so that nothing gets out of it.
    pub(crate) fn quoted(&self) -> &str {
        &self.quoted
    }

    /// The name as it is in the catalog.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The schema, as errors name it.
    pub(crate) fn described(&self) -> String {
        format!("the schema {}", self.quoted)
    }

    /// Checks that PostgreSQL can have a schema of this name.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        let name = &self.name;
        let reason = if name.is_empty() {
            "is empty"
        } else if name.len() > LONGEST {
            "is longer than the 63 bytes that PostgreSQL looks at"
        } else if name.contains(|c: char| c.is_control()) {
            "has a control character"
        } else if name.starts_with("pg_") || name == "information_schema" {
            "belongs to PostgreSQL itself"
        } else {
            return Ok(());
        };
        let shown: String = name.chars().take(LONGEST + 1).collect();
        Err(Fault::Unusable(format!("the schema's name {shown:?} {reason}: choose another")))
    }

    /// The channel on which work is announced. In the rarest of cases two schemas of one database share a channel, and then
    /// wake each other without need.
    pub(crate) fn channel(&self) -> String {
        format!("cap_{:016x}", self.hash("channel"))
    }

    /// FNV-1a: short, and the same in every version of every node.
    fn hash(&self, purpose: &str) -> u64 {
        let bytes = ["cap", purpose, &self.name].into_iter().flat_map(|part| part.bytes().chain([0]));
        bytes
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }

    /// Returns the templates for tables in this schema.
    pub(crate) fn templates(&self) -> Templates {
        Templates::in_schema(&self.quoted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_schema_can_have_are_refused_with_a_reason() {
        for (name, reason) in [
            ("", "empty"),
            ("a\0b", "control character"),
            ("pg_catalog", "PostgreSQL itself"),
            (&*"x".repeat(64), "63 bytes"),
        ] {
            let error = SchemaName::new(name).check().unwrap_err();
            let Fault::Unusable(text) = error else { panic!("{error:?}") };
            assert!(text.contains(reason), "{text}");
        }
    }

    #[test]
    fn a_quote_in_a_name_is_doubled() {
        let name = SchemaName::new("a\"; DROP TABLE x; --");
        assert_eq!(name.quoted(), "\"a\"\"; DROP TABLE x; --\"");
        assert!(name.check().is_ok());
    }

    #[test]
    fn channels_differ_by_schema() {
        let (one, two) = (SchemaName::new("cap"), SchemaName::new("cap2"));
        assert_ne!(one.channel(), two.channel());
        assert!(one.channel().len() <= LONGEST);
    }
}
