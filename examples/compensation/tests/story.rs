//! The example, from its beginning to its end.

use std::process::ExitCode;

#[path = "../src/main.rs"]
mod story;

#[test]
fn the_story_happens() {
    assert_eq!(story::main(), ExitCode::SUCCESS);
}
