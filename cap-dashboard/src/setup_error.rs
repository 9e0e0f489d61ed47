//! Why a router cannot be built.

/// Why a [`Dashboard`](crate::Dashboard) cannot be set up. None of the texts contains a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// [`Auth::tokens`](crate::Auth::tokens) or [`Auth::login`](crate::Auth::login) without a token: nobody could get in.
    #[error("no access token is given, so nobody could log in")]
    NoTokens,
    /// An access token that could be guessed.
    #[error("the secret of the access token {name:?} is too short: take at least {needed} characters")]
    ShortToken {
        /// The token.
        name: String,
        /// The fewest characters.
        needed: usize,
    },
    /// Two access tokens of one name, which the audit could not tell apart.
    #[error("two access tokens have the name {name:?}")]
    TwoTokens {
        /// The name.
        name: String,
    },
    /// A signing key that could be guessed.
    #[error("the signing key has {bytes} bytes: take at least {needed} random ones")]
    ShortKey {
        /// How many there are.
        bytes: usize,
        /// The fewest.
        needed: usize,
    },
    /// An invalid pattern in a mask.
    #[error("invalid topic pattern of a mask: {0}")]
    Mask(String),
    /// The operating system gave no random numbers.
    #[error("the operating system gives no random numbers: {0}")]
    NoRandomness(String),
    /// A public path that does not start with a slash, or has characters that a path cannot have.
    #[error("invalid public path {0:?}: take one such as \"/ops/cap\"")]
    PublicPath(String),
}
