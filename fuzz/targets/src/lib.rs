//! Everything of cap that reads foreign bytes, as functions that take any bytes at all and panic when a rule is broken.
//!
//! They are run in two ways: by libFuzzer (`fuzz/fuzz_targets`, with a nightly compiler and cargo-fuzz), and for a bounded
//! time on each test run (`tests/bounded.rs`), both from the same corpus.
//!
//! What an adapter or the macros keep to themselves is taken over as source, so that nothing has to be public for it.

#![allow(clippy::missing_panics_doc, reason = "to panic on a broken rule is all that a target does")]

mod broker;
mod macros;
mod message;
mod options;
mod topics;

pub use broker::{amqp_frames, broker_url, x_death};
pub use macros::attributes;
pub use message::{content, message_headers, message_id};
pub use options::{cap_options, rabbitmq_options, retry_policy};
pub use topics::topics;

/// Declares modules that belong to another crate, and are not wholly used here.
macro_rules! taken_over {
    ($($path:literal $name:ident)+) => {
        $(
            #[allow(dead_code, reason = "only what reads foreign bytes is run here")]
            #[path = $path]
            mod $name;
        )+
    };
}

taken_over! {
    "../../../cap-rabbitmq/src/error.rs" error
    "../../../cap-macros/src/expand/mod.rs" expand
    "../../../cap-macros/src/item.rs" item
    "../../../cap-macros/src/literals.rs" literals
    "../../../cap-macros/src/names.rs" names
    "../../../cap-macros/src/parse.rs" parse
    "../../../cap-macros/src/problems.rs" problems
    "../../../cap-macros/src/retry.rs" retry
    "../../../cap-macros/src/settings.rs" settings
    "../../../cap-macros/src/validate/mod.rs" validate
}

/// Declares modules of one folder of cap-rabbitmq, under the paths that they have there.
macro_rules! taken_over_from {
    ($($folder:literal $room:ident { $($name:ident)+ })+) => {
        $(
            #[path = $folder]
            mod $room {
                $(
                    #[allow(dead_code, reason = "only what reads foreign bytes is run here")]
                    pub(crate) mod $name;
                )+
            }
        )+
    };
}

taken_over_from! {
    "../../../cap-rabbitmq/src/connection" connection { address }
    "../../../cap-rabbitmq/src/consume" consume { incoming_headers }
    "../../../cap-rabbitmq/src/delay" delay { delay_queue }
    "../../../cap-rabbitmq/src/driver_fixes" driver_fixes { broker_version frame_fields sanitize }
}

/// A target's name, as its corpus goes by, and the target.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 11] = [
    ("amqp_frames", amqp_frames),
    ("attributes", attributes),
    ("broker_url", broker_url),
    ("cap_options", cap_options),
    ("content", content),
    ("message_headers", message_headers),
    ("message_id", message_id),
    ("rabbitmq_options", rabbitmq_options),
    ("retry_policy", retry_policy),
    ("topics", topics),
    ("x_death", x_death),
];

/// The bytes as text, or what of them is text.
fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(data).into_owned()
}

/// Two inputs in one, with a zero byte between them.
fn halves(data: &[u8]) -> (&[u8], &[u8]) {
    let cut = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    (&data[..cut], data.get(cut + 1..).unwrap_or_default())
}
