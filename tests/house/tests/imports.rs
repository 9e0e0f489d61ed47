//! No circle among the files of a crate, nor among the folders of its `src`, which we call rooms.

#![allow(clippy::expect_used, reason = "a test says what went wrong by failing")]

use std::collections::{BTreeMap, BTreeSet};

use cap_house_tests::imports::{Import, circles, deepest, imports};
use cap_house_tests::root;

/// The crates that have no circle. Every crate is to be here in the end.
const CRATES: &[&str] = &[
    "cap-adapter",
    "cap-macros",
    "cap-bus",
    "cap-cli",
    "cap-conformance",
    "cap-core",
    "cap-dashboard",
    "cap-memory",
    "cap-postgres",
    "cap-rabbitmq",
    "cap-sql",
    "cap-sqlite",
    "cap-test",
];

#[test]
fn files_and_rooms_do_not_import_in_circles() {
    let mut found = Vec::new();
    for name in CRATES {
        let imports = imports(&root().join(name).join("src"));
        assert!(imports.len() > 1 || *name == "cap-bus", "{name}: where are its imports?");
        let circles: BTreeSet<_> =
            (1..=deepest(&imports)).flat_map(|depth| circles(&imports, depth)).collect();
        for circle in circles {
            found.push(format!("{name}, {}", described(&circle)));
        }
    }
    assert!(found.is_empty(), "imports in a circle:\n{}", found.join("\n"));
}

#[test]
fn rooms_use_only_those_below_them_in_architecture_md() {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("the page is there");
    let table = page.split("## Rooms of the engine").nth(1).expect("it has the table");
    let rooms: Vec<&str> = table
        .lines()
        .skip_while(|line| !line.starts_with("| `"))
        .map_while(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    let place = |file: &str| {
        let room = file.split('/').next().unwrap_or_default();
        let place = rooms.iter().position(|name| *name == room);
        place.unwrap_or_else(|| panic!("{file}: the room {room} is not in the table"))
    };
    let is_in_room = |file: &str| file.contains('/');
    let upward: Vec<String> = imports(&root().join("cap-core/src"))
        .iter()
        .filter(|import| is_in_room(&import.from) && is_in_room(&import.to))
        .filter(|import| place(&import.from) > place(&import.to))
        .map(|import| format!("{}:{} uses {} ({})", import.from, import.line, import.to, import.path))
        .collect();
    assert!(rooms.len() > 5, "{rooms:?}");
    assert!(upward.is_empty(), "upward imports:\n{}", upward.join("\n"));
}

#[test]
fn diagrams_name_types_that_exist() {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("the page is there");
    let sources: String =
        ["cap-core/src", "cap-adapter/src"].map(|src| all_sources(&root().join(src))).concat();
    let is_type = |word: &&str| {
        word.len() > 3
            && word.starts_with(char::is_uppercase)
            && word.contains(char::is_lowercase)
            && word.chars().all(char::is_alphanumeric)
    };
    let diagrams = page.split("```mermaid").skip(1).filter_map(|rest| rest.split("```").next());
    let mut count = 0;
    for word in diagrams.flat_map(|text| text.split(|c: char| !c.is_alphanumeric())).filter(is_type) {
        let defined = ["struct", "enum", "trait"].map(|kind| format!("{kind} {word}"));
        let is_defined = |text: &String| {
            sources.match_indices(text.as_str()).any(|(at, _)| {
                !sources[at + text.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_')
            })
        };
        assert!(defined.iter().any(is_defined), "ARCHITECTURE.md names {word}, which is no type");
        count += 1;
    }
    assert!(count > 15, "{count} types");
}

fn all_sources(folder: &std::path::Path) -> String {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let paths = entries.map(|entry| entry.expect("it is readable").path());
    let read = |path: std::path::PathBuf| {
        if path.is_dir() { all_sources(&path) } else { std::fs::read_to_string(path).unwrap_or_default() }
    };
    paths.map(read).collect()
}

/// A line for each file and what it imports from another one.
fn described(circle: &[Import]) -> String {
    let mut pairs: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for import in circle {
        let written = format!("{} (line {})", import.path, import.line);
        pairs.entry((&import.from, &import.to)).or_default().push(written);
    }
    let lines = pairs.iter().map(|((from, to), paths)| format!("  {from} uses {to}: {}", paths.join(", ")));
    format!("{} files use each other:\n{}", files(circle), lines.collect::<Vec<_>>().join("\n"))
}

fn files(circle: &[Import]) -> usize {
    circle.iter().flat_map(|import| [&import.from, &import.to]).collect::<BTreeSet<_>>().len()
}
