//! Panics in the application's code, as text: wherever the engine calls it outside of a handler's future.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs code of the application; a panic in it becomes a text that says whose it was.
///
/// # Errors
///
/// That text.
pub fn caught<T>(whose: &str, run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| panic_text(whose, &*panic))
}

/// What a panic said, and whose it was.
pub fn panic_text(whose: &str, panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    match text {
        Some(text) => format!("{whose} panicked: {text}"),
        None => format!("{whose} panicked"),
    }
}
