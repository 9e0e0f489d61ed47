//! The words of logs, errors and docs: `tests/house/words.txt` lists phrases that are not used, and what to say instead.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use std::fs;

use cap_house_tests::{Text, has_phrase, root, texts};

/// The longest text of a log line, in characters. What is longer goes into fields.
const LONGEST_LOG_LINE: usize = 100;

/// The lines of a list, cut at `|`; comments and empty lines are left out.
fn list(name: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join("tests/house").join(name)).unwrap();
    text.lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
        .map(|line| line.split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

fn all_texts() -> Vec<Text> {
    let mut all = texts("", &["md"]);
    for folder in fs::read_dir(root()).unwrap().flatten() {
        let name = folder.file_name().to_string_lossy().into_owned();
        if name.starts_with("cap-") {
            all.extend(texts(&format!("{name}/src"), &["rs"]));
        }
    }
    all.extend(texts("examples", &["rs"]));
    all
}

#[test]
fn banned_phrases_are_not_used() {
    let banned = list("words.txt");
    let allowed = list("allowed.txt");
    let mut found = Vec::new();
    for text in all_texts() {
        for entry in &banned {
            let is_allowed =
                allowed.iter().any(|allowed| text.file.starts_with(&allowed[0]) && allowed[1] == entry[0]);
            if has_phrase(&text.text, &entry[0]) && !is_allowed {
                found.push(format!("{}:{}: \"{}\"; say {}", text.file, text.line, entry[0], entry[1]));
            }
        }
    }
    assert!(found.is_empty(), "{} times:\n{}", found.len(), found.join("\n"));
}

#[test]
fn every_exception_has_a_reason_and_is_needed() {
    let texts = all_texts();
    for entry in list("allowed.txt") {
        let [file, phrase, reason] = &*entry else { panic!("not `file | phrase | reason`: {entry:?}") };
        assert!(!reason.is_empty(), "{file}: {phrase}");
        let is_needed =
            texts.iter().any(|text| text.file.starts_with(file) && has_phrase(&text.text, phrase));
        assert!(is_needed, "{file} does not say \"{phrase}\" any more");
    }
}

#[test]
fn log_lines_are_short() {
    let long: Vec<String> = all_texts()
        .into_iter()
        .filter(|text| text.is_log_line && text.text.chars().count() > LONGEST_LOG_LINE)
        .map(|text| format!("{}:{}: {}", text.file, text.line, text.text))
        .collect();
    assert!(long.is_empty(), "longer than {LONGEST_LOG_LINE} characters:\n{}", long.join("\n"));
}
