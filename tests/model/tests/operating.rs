//! The table of counters in `docs/operating.md` has each that the source counts, and no other.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The names of the counters in the sources of a folder.
fn counted(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            counted(&path, found);
        } else {
            let text = std::fs::read_to_string(&path).unwrap();
            let names =
                text.split("metrics::counter!(\"").skip(1).map(|rest| rest.split('"').next().unwrap());
            found.extend(names.map(str::to_owned));
        }
    }
}

#[test]
fn the_page_has_every_counter() {
    let mut source = BTreeSet::new();
    for adapter in ["cap-core", "cap-postgres", "cap-sqlite", "cap-rabbitmq"] {
        counted(&root().join(adapter).join("src"), &mut source);
    }
    let page = std::fs::read_to_string(root().join("docs/operating.md")).unwrap();
    let page: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `cap_"))
        .map(|rest| format!("cap_{}", rest.split('`').next().unwrap()))
        .collect();
    assert!(source.len() > 8, "{source:?}");
    assert_eq!(source, page);
}
