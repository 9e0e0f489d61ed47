//! The errors of the bus. Each says what failed, on what, and what to do; none contains a secret.

mod chain;
mod publish_error;
mod serde_text;
mod start_error;
mod storage_error;
mod text;
mod transport_error;
mod type_name;

pub use chain::error_chain;
pub(crate) use chain::error_chain_without_payload;
pub use publish_error::PublishError;
pub use serde_text::json_error_text;
pub use start_error::StartError;
pub use storage_error::{StorageError, StorageErrorKind};
pub use text::{LONGEST_ERROR, error_text};
pub use transport_error::{TransportError, TransportErrorKind};
pub use type_name::ShortTypeName;

pub use crate::message::NameError;

/// Any error, boxed: what a handler may return.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[cfg(test)]
mod tests {
    use super::*;

    /// The error and its sources, as `anyhow` and others print them.
    fn whole(error: &(dyn std::error::Error + 'static)) -> String {
        let causes = std::iter::successors(error.source(), |error| error.source());
        causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
    }

    /// Issue 8, row 16.
    #[test]
    fn whoever_prints_the_whole_chain_reads_nothing_twice() {
        let storage = || {
            let cause = std::io::Error::other("disk full");
            StorageError::new(StorageErrorKind::Refused, "SQLite", "disk full (code 13)").with_source(cause)
        };
        let transport = || TransportError::new(TransportErrorKind::Unusable, "RabbitMQ", "disk full");
        let name = || crate::message::validate_topic("disk full").unwrap_err();
        let errors: [Box<dyn std::error::Error>; 6] = [
            Box::new(storage()),
            Box::new(PublishError::Storage { topic: "t".into(), source: storage() }),
            Box::new(PublishError::Name(name())),
            Box::new(StartError::Storage(storage())),
            Box::new(StartError::Transport(transport())),
            Box::new(crate::HandlerError::failed(PublishError::Storage {
                topic: "t".into(),
                source: storage(),
            })),
        ];
        for error in errors {
            let (whole, chain) = (whole(&*error), error_chain(&*error));
            assert_eq!(whole.matches("disk full").count(), 1, "{whole}");
            assert_eq!(chain, whole);
        }
        assert!(storage().cause().is_some_and(<dyn std::error::Error>::is::<std::io::Error>));
        let handler =
            crate::HandlerError::failed(PublishError::Storage { topic: "t".into(), source: storage() });
        assert!(handler.find::<std::io::Error>().is_some(), "it is found all the same");
        // What the text does not say yet is not left out.
        let silent = StorageError::new(StorageErrorKind::Refused, "SQLite", "no")
            .with_source(std::io::Error::other("why"));
        assert_eq!(whole(&silent), "SQLite: no: why");
    }
}
