//! Turns panics of application code that runs outside of a handler's future into texts.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs application code and turns a panic into a text that names the code.
///
/// # Errors
///
/// The text of the panic.
pub fn caught<T>(whose: &str, run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| panic_text(whose, &*panic))
}

/// The text of a panic, with the name of the code.
pub fn panic_text(whose: &str, panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    match text {
        Some(text) => format!("{whose} panicked: {text}"),
        None => format!("{whose} panicked"),
    }
}
