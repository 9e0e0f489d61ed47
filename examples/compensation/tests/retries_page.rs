//! Checks that the table of policies in `docs/retries.md` shows what the policies do.
//!
//! `CAP_WRITE_PAGES=1 cargo test -p compensation --test retries_page` updates it.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use cap_bus::NextAttempt;
use cap_bus::prelude::*;

const BEGIN: &str = "<!-- policies: written by the test, see there -->\n";
const END: &str = "<!-- end of policies -->";
/// More attempts than any policy on the page has.
const ALL: usize = 1000;

/// A policy as written in an attribute, and as the attribute parses it.
macro_rules! policy {
    ($($form:tt)*) => {{
        #[cap_subscribe("table", retry = $($form)*)]
        async fn handler() {}
        (concat!("`", stringify!($($form)*), "`"), (handler::SUBSCRIPTIONS[0].options.retry.unwrap())())
    }};
}

fn policies() -> Vec<(&'static str, RetryPolicy)> {
    vec![
        ("none: CAP's default", CapOptions::default().retry),
        policy!(fixed("10s", 5)),
        policy!(exponential("1s", "10m", 20)),
        policy!(delays("5s, 30s, 2m")),
        policy!(broker("5s, 30s, 2m, 10m")),
        policy!(broker("0s, 5s, 5s, 1h")),
        policy!(RetryPolicy::never()),
    ]
}

#[test]
fn the_table_of_policies_is_what_they_do() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/retries.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let written = format!("{before}{BEGIN}{}{END}{after}", table());
    if std::env::var_os("CAP_WRITE_PAGES").is_some() {
        std::fs::write(&path, &written).unwrap();
    }
    assert!(
        page == written || std::env::var_os("CAP_WRITE_PAGES").is_some(),
        "the table of policies is out of date; run this test with CAP_WRITE_PAGES=1"
    );
}

fn table() -> String {
    let mut table =
        String::from("| `retry =` | kept by | attempts | pauses | given up after |\n|---|---|---|---|---|\n");
    for (form, policy) in policies() {
        let pauses = policy.schedule(ALL);
        assert!(pauses.len() < ALL, "{form}");
        let (attempts, after) = (pauses.len() + 1, until_the_end(&policy, &pauses));
        writeln!(
            table,
            "| {form} | {} | {attempts} | {} | {after} |",
            keeper(&policy, &pauses),
            said(&pauses)
        )
        .unwrap();
    }
    table
}

/// Where the message waits between two attempts.
fn keeper(policy: &RetryPolicy, pauses: &[Duration]) -> &'static str {
    let at_broker = |failed| matches!(policy.next(failed, 0.0), NextAttempt::AtBroker(_));
    match (pauses.is_empty(), (1..).take(pauses.len()).any(at_broker)) {
        (true, _) => "nobody",
        (false, true) => "the broker",
        (false, false) => "the storage",
    }
}

/// The pauses as text, with repeated ones counted.
fn said(pauses: &[Duration]) -> String {
    let same: Vec<String> = pauses
        .chunk_by(|a, b| a == b)
        .map(|run| match (run[0], run.len()) {
            (Duration::ZERO, 1) => "none".to_owned(),
            (Duration::ZERO, times) => format!("none × {times}"),
            (pause, 1) => humantime::format_duration(pause).to_string(),
            (pause, times) => format!("{} × {times}", humantime::format_duration(pause)),
        })
        .collect();
    if same.is_empty() { "–".to_owned() } else { same.join(", ") }
}

/// The sum of the pauses as text, with and without the largest jitter.
fn until_the_end(policy: &RetryPolicy, pauses: &[Duration]) -> String {
    let shortest: Duration = (1..)
        .map_while(|failed| match policy.next(failed, 1.0) {
            NextAttempt::After(pause) | NextAttempt::AtBroker(pause) => Some(pause),
            NextAttempt::GiveUp => None,
        })
        .sum();
    let seconds =
        |time: Duration| humantime::format_duration(Duration::from_secs(time.as_secs())).to_string();
    match pauses.iter().sum() {
        Duration::ZERO => "the first attempt".to_owned(),
        longest if longest == shortest => seconds(longest),
        longest => format!("{} to {}", seconds(shortest), seconds(longest)),
    }
}
