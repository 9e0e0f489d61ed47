//! The name of a test is short enough to be read in a list: subject and expectation.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use std::fs;

use cap_house_tests::test_names::tests_of;
use cap_house_tests::{root, sources};

/// The longest name of a test in characters, with the modules within its file.
const LONGEST: usize = 60;

#[test]
fn names_of_tests_have_at_most_60_characters() {
    let (mut long, mut count) = (Vec::new(), 0);
    for path in sources() {
        let file = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        let is_suite = file.starts_with("cap-conformance/src/");
        for test in tests_of(&fs::read_to_string(&path).unwrap(), is_suite) {
            count += 1;
            let length = test.name.chars().count();
            if length > LONGEST {
                long.push(format!("{file}:{}: {} ({length})", test.line, test.name));
            }
        }
    }
    assert!(count > 1000, "{count} tests: where are the others?");
    assert!(long.is_empty(), "{} names of tests are longer than {LONGEST}:\n{}", long.len(), long.join("\n"));
}
