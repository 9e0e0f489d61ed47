//! No circle among the files of a crate, nor among the folders of its `src`, which we call rooms.

use std::collections::{BTreeMap, BTreeSet};

use cap_house_tests::imports::{Import, circles, deepest, imports};
use cap_house_tests::root;

/// The crates that have no circle. Every crate is to be here in the end.
const CRATES: &[&str] = &["cap-core", "cap-bus", "cap-conformance", "cap-memory"];

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
