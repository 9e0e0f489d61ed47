//! The texts of an error and its causes in one.

use std::error::Error;

use super::serde_text::{json_error_text, without_excerpts};
use super::text::{LONGEST_ERROR, error_text};

/// An error chain as one line: each cause after a colon, unless the text before it already contains it. Bounded and
/// escaped by [`error_text`].
#[must_use]
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    chain_of(error, |error| error_text(error))
}

/// Like [`error_chain`], without the message contents that errors of serde quote: see [`json_error_text`].
pub(crate) fn error_chain_without_payload(error: &(dyn Error + 'static)) -> String {
    let quoting: Vec<&serde_json::Error> = causes(error).filter_map(|cause| cause.downcast_ref()).collect();
    chain_of(error, |error| {
        let text = error.to_string();
        let mut hidden = text.clone();
        for json in &quoting {
            hidden = hidden.replace(&json.to_string(), &json_error_text(json));
        }
        // One that no cause of its own type stands for may be known by its words.
        error_text(if hidden == text { without_excerpts(&text) } else { hidden })
    })
}

fn chain_of(error: &(dyn Error + 'static), text_of: impl Fn(&(dyn Error + 'static)) -> String) -> String {
    let mut text = text_of(error);
    for cause in causes(error).skip(1) {
        let part = text_of(cause);
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        if text.len() > LONGEST_ERROR {
            break;
        }
    }
    error_text(text)
}

/// The error and its causes.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let next = |error: &&'a (dyn Error + 'static)| -> Option<&'a (dyn Error + 'static)> { (*error).source() };
    std::iter::successors(Some(error), next)
}
