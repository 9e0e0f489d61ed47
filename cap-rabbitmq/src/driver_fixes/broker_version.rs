//! The broker's name and version, from its greeting (`connection.start`).
//!
//! **Works around:** lapin reads the greeting and does not make it available.
//! **Can go when** lapin gives the broker's properties.

use crate::driver_fixes::frame_fields::Cursor;

/// Name and version of a broker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct BrokerVersion {
    product: String,
    version: String,
}

impl BrokerVersion {
    /// Reads the arguments of `connection.start`.
    pub(crate) fn read(arguments: &[u8]) -> Option<Self> {
        let mut arguments = arguments.to_vec();
        let mut cursor = Cursor { bytes: &mut arguments, at: 0 };
        // Two bytes for the version of the protocol.
        cursor.skip(2)?;
        let end = cursor.long_length()?;
        let mut broker = Self::default();
        while cursor.at < end {
            let name = cursor.at + 1;
            cursor.short_text()?;
            let name = name..cursor.at;
            let [kind] = cursor.take()?;
            let value = cursor.at;
            cursor.skip_value(kind)?;
            if kind != b'S' {
                continue;
            }
            // The text begins behind its length.
            let text = String::from_utf8_lossy(cursor.bytes.get(value + 4..cursor.at)?).into_owned();
            match cursor.bytes.get(name)? {
                b"product" => broker.product = text,
                b"version" => broker.version = text,
                _ => {}
            }
        }
        Some(broker)
    }

    /// Whether its quorum queues drop a message that was delivered often unless a queue says -1, which RabbitMQ does
    /// from version 4 on. Older ones have no such limit, and would read -1 as "not even once".
    pub(crate) fn limits_deliveries(&self) -> bool {
        let major = self.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        self.product == "RabbitMQ" && major.is_some_and(|major| major >= 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str, value: &str) -> Vec<u8> {
        let (name, value) = (name.as_bytes(), value.as_bytes());
        let lengths = (u8::try_from(name.len()).unwrap(), u32::try_from(value.len()).unwrap());
        [&[lengths.0][..], name, b"S", &lengths.1.to_be_bytes(), value].concat()
    }

    fn start(product: &str, version: &str) -> Vec<u8> {
        let table = [
            text("cluster_name", "x"),
            text("product", product),
            b"\x01tt\x01".to_vec(),
            text("version", version),
        ]
        .concat();
        let length = u32::try_from(table.len()).unwrap().to_be_bytes();
        [&[0, 9][..], &length, &table, b"\0\0\0\x05PLAIN\0\0\0\x05en_US"].concat()
    }

    #[test]
    fn only_rabbitmq_4_and_later_limits_deliveries() {
        for (product, version, expected) in [
            ("RabbitMQ", "3.10.8", false),
            ("RabbitMQ", "3.13.7", false),
            ("RabbitMQ", "4.0.1", true),
            ("RabbitMQ", "10.2.0", true),
            ("RabbitMQ", "4", true),
            ("RabbitMQ", "", false),
            ("LavinMQ", "4.0.0", false),
        ] {
            let broker = BrokerVersion::read(&start(product, version)).unwrap();
            assert_eq!(broker.limits_deliveries(), expected, "{broker:?}");
        }
    }

    #[test]
    fn greeting_that_is_cut_short_is_ignored() {
        let whole = start("RabbitMQ", "4.0.1");
        let table_ends = whole.len() - 18;
        for length in 0..table_ends {
            assert_eq!(BrokerVersion::read(&whole[..length]), None);
        }
        assert!(BrokerVersion::read(&whole[..table_ends]).is_some());
    }
}
