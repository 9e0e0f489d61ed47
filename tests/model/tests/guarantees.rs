//! Every test that `docs/guarantees.md` names exists, and every row names one or says why it cannot.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The defects of .NET CAP: letter, and how many have it.
const DEFECTS: [(char, u32); 7] = [('L', 10), ('D', 7), ('B', 11), ('T', 2), ('R', 5), ('M', 5), ('S', 2)];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The rows of all tables, as cells.
fn rows() -> Vec<Vec<String>> {
    let page = std::fs::read_to_string(root().join("docs/guarantees.md")).unwrap();
    page.lines()
        .filter(|line| line.starts_with('|') && !line.starts_with("|-"))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .filter(|cells: &Vec<String>| cells.last().is_some_and(|last| last != "Tests"))
        .collect()
}

/// What stands in backticks in the last cell: files, each followed by the names of its tests.
fn named(cells: &[String]) -> Vec<(String, String)> {
    let mut file = None;
    let mut tests = Vec::new();
    for word in cells.last().unwrap().split('`').skip(1).step_by(2) {
        if word.contains('/') {
            file = Some(word.to_owned());
        } else {
            let file = file.clone().unwrap_or_else(|| panic!("{word} stands behind no file"));
            tests.push((file, word.to_owned()));
        }
    }
    tests
}

/// The functions of a file that are run as tests: those with the attribute, those that a conformance suite or a macro runs.
fn tests_of(file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let is_suite = file.starts_with("cap-conformance/src/");
    let mut tests = Vec::new();
    let (mut is_test, mut is_list) = (false, false);
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if line == "targets! {" || line == "}" {
            is_list = line != "}";
        } else if is_list {
            tests.push(line.to_owned());
        } else if let Some((before, after)) = line.split_once("fn ") {
            if is_test || is_suite && before == "pub async " {
                tests.push(after.split(['(', '<']).next().unwrap().to_owned());
            }
            is_test = false;
        }
    }
    tests
}

#[test]
fn every_test_that_is_named_exists() {
    let mut files = BTreeMap::new();
    let mut missing = Vec::new();
    let mut count = 0;
    for (file, test) in rows().iter().flat_map(|cells| named(cells)) {
        let tests = files.entry(file.clone()).or_insert_with(|| tests_of(&file));
        if !tests.contains(&test) {
            missing.push(format!("{file}: {test}"));
        }
        count += 1;
    }
    assert!(missing.is_empty(), "docs/guarantees.md names tests that do not exist:\n{}", missing.join("\n"));
    assert!(count > 150, "{count} tests are named: where are the others?");
}

#[test]
fn every_promise_names_a_test_or_says_why_it_has_none() {
    for cells in rows() {
        let excused = cells.iter().any(|cell| cell.starts_with("Does not apply"));
        assert_eq!(named(&cells).is_empty(), excused, "{cells:?}");
    }
}

#[test]
fn every_defect_of_dot_net_cap_has_its_row() {
    let ids =
        DEFECTS.iter().flat_map(|(letter, last)| (1..=*last).map(move |number| format!("{letter}{number}")));
    let first: Vec<String> = rows().into_iter().map(|cells| cells[0].clone()).collect();
    for id in ids {
        assert_eq!(first.iter().filter(|cell| **cell == id).count(), 1, "{id} has one row");
    }
}

#[test]
fn every_invariant_has_its_row() {
    let first: Vec<String> = rows().into_iter().map(|cells| cells[0].clone()).collect();
    assert!((1..=10).all(|number: u32| first.contains(&number.to_string())));
}
