//! Thousands of seeds, and that each does the same every time.
//!
//! `CAP_SIM_SEED=17` runs that seed alone; `CAP_SIM_SEEDS=50000` runs so many instead of the usual number.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use cap_simulation::run;

/// The seeds are shared out among so many tests, which run at the same time.
const PARTS: u64 = 4;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn seeds(part: u64) {
    if let Some(seed) = number("CAP_SIM_SEED") {
        if part == 0 {
            run(seed).unwrap().assert_clean(seed);
        }
        return;
    }
    let count = number("CAP_SIM_SEEDS").unwrap_or(1600);
    for seed in (0..count).filter(|seed| seed % PARTS == part) {
        run(seed).unwrap().assert_clean(seed);
    }
}

#[test]
fn no_seed_breaks_a_promise_1() {
    seeds(0);
}

#[test]
fn no_seed_breaks_a_promise_2() {
    seeds(1);
}

#[test]
fn no_seed_breaks_a_promise_3() {
    seeds(2);
}

#[test]
fn no_seed_breaks_a_promise_4() {
    seeds(3);
}

#[test]
fn a_seed_does_the_same_every_time() {
    for seed in 0..40 {
        let [one, two] = [(); 2].map(|()| run(seed).unwrap().ledger);
        assert_eq!(one.entries(), two.entries(), "seed {seed}");
    }
}

/// A simulation in which nothing happens would find nothing.
#[test]
fn every_kind_of_story_is_told() {
    use cap_ledger::{Class, End, Event, Told};
    let mut seen = [false; 11];
    for seed in 0..60 {
        let outcome = run(seed).unwrap();
        let classes = outcome.report.counts();
        for (index, class) in
            [Class::Delivered, Class::GivenUp, Class::NeverStored, Class::Unseen].into_iter().enumerate()
        {
            seen[index] |= classes.contains_key(&class);
        }
        for entry in outcome.ledger.entries() {
            match &entry.event {
                Event::Died { .. } => seen[4] = true,
                Event::Trouble { .. } => seen[5] = true,
                Event::CalledOff { sure: true, .. } => seen[6] = true,
                Event::StoreRefused { .. } => seen[7] = true,
                Event::SendRefused { .. } => seen[8] = true,
                Event::Told { told: Told::Unknown, .. } => seen[9] = true,
                Event::Ended { how: End::Dropped, .. } => seen[10] = true,
                _ => {}
            }
        }
    }
    assert_eq!(seen, [true; 11]);
}
