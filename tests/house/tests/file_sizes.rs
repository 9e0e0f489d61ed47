//! A file holds one thing, in at most 400 lines. `tests/house/long_files.txt` lists the longer ones, each with the reason.

#![allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]

use std::collections::BTreeMap;
use std::fs;

use cap_house_tests::{root, sources};

/// The most lines of a source file.
const LONGEST: usize = 400;

/// The allowed files with their reasons.
fn allowed() -> BTreeMap<String, String> {
    let list = fs::read_to_string(root().join("tests/house/long_files.txt")).unwrap();
    list.lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (file, reason) = line.split_once('|').unwrap_or((line, ""));
            (file.trim().to_owned(), reason.trim().to_owned())
        })
        .collect()
}

#[test]
fn files_have_at_most_400_lines() {
    let allowed = allowed();
    let (mut long, mut needed) = (Vec::new(), Vec::new());
    for path in sources() {
        let file = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        if lines > LONGEST && allowed.contains_key(&file) {
            needed.push(file);
        } else if lines > LONGEST {
            long.push(format!("{file}: {lines}"));
        }
    }
    assert!(long.is_empty(), "longer than {LONGEST} lines, split by subject:\n{}", long.join("\n"));
    for (file, reason) in &allowed {
        assert!(!reason.is_empty(), "{file} is listed in long_files.txt without a reason");
        assert!(needed.contains(file), "{file} is short enough: remove it from long_files.txt");
    }
}
