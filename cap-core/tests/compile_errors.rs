//! What the attributes accept and refuse, and the words in which they refuse it.
//!
//! `TRYBUILD=overwrite cargo test -p cap-core --test compile_errors` writes the snapshots anew: read the difference
//! with the eyes of somebody who made that mistake.

#[test]
fn attributes_accept_and_refuse() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    cases.compile_fail("tests/ui/fail/*.rs");
}
