//! Each target on its corpus, and then for two seconds on what becomes of the corpus by chance.
//!
//! A failure prints the input; put it into `fuzz/corpus/<target>` to keep it as a test.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cap_fuzz_targets::{TARGETS, Target};
use fastrand::Rng;

const TIME: Duration = Duration::from_secs(2);

/// Pieces that random bytes would seldom hit upon.
const WORDS: [&[u8]; 28] = [
    b"\0",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b":",
    b",",
    b"null",
    b"true",
    b".",
    b"#",
    b"*",
    b"\\u0000",
    b"\\ud800",
    b"cap-msg-id",
    b"18446744073709551615s",
    b"4294967295",
    b"\xff",
    "\u{2603}".as_bytes(),
    b"F\0\0\0\x05",
    b"A\0\0\0\x01",
    b"\x02\0\x01\0\0\0\x10",
    b"\xCE",
    b"group = ",
    b"RetryPolicy::never()",
    b"async fn f() {}",
    b"@",
];

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(target);
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{target} has a corpus");
    files.into_iter().map(|file| std::fs::read(file).unwrap()).collect()
}

fn mutated(random: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = random.choice(corpus).unwrap().clone();
    for _ in 0..random.usize(1..6) {
        let at = random.usize(0..=bytes.len());
        let until = random.usize(at..=bytes.len().min(at + 8));
        match random.u8(0..6) {
            0 => bytes.insert(at, random.u8(..)),
            1 => drop(bytes.drain(at..until)),
            2 if at < bytes.len() => bytes[at] ^= 1 << random.u8(0..8),
            3 => {
                let again = bytes[at..until].repeat(random.usize(1..4));
                drop(bytes.splice(at..at, again));
            }
            4 => {
                let other = random.choice(corpus).unwrap();
                let from = random.usize(0..=other.len());
                drop(bytes.splice(at..until, other[from..].iter().copied()));
            }
            _ => drop(bytes.splice(at..until, random.choice(WORDS).unwrap().iter().copied())),
        }
        bytes.truncate(1 << 16);
    }
    bytes
}

/// Runs a target, and shows the input if a rule is broken.
fn run((name, target): Target, bytes: &[u8]) {
    let kept = catch_unwind(AssertUnwindSafe(|| target(bytes))).is_ok();
    assert!(kept, "{name} fails on b\"{}\"", bytes.escape_ascii());
}

fn check(name: &str) {
    let target = *TARGETS.iter().find(|(known, _)| *known == name).unwrap();
    let corpus = corpus(name);
    for bytes in &corpus {
        run(target, bytes);
    }
    let (mut random, end) = (Rng::new(), Instant::now() + TIME);
    while Instant::now() < end {
        run(target, &mutated(&mut random, &corpus));
    }
}

macro_rules! targets {
    ($($name:ident)+) => {
        $(
            #[test]
            fn $name() {
                check(stringify!($name));
            }
        )+

        #[test]
        fn every_target_is_run() {
            let run = [$(stringify!($name)),+];
            assert_eq!(TARGETS.map(|(name, _)| name).as_slice(), run.as_slice());
        }
    };
}

targets! {
    amqp_frames
    attributes
    broker_url
    cap_options
    content
    message_headers
    message_id
    rabbitmq_options
    retry_policy
    topics
    x_death
}
