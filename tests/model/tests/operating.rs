//! `docs/operating.md` and the files beside it name the metrics that exist, and no other.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cap_core::metric_names::{ALL, Kind};

fn docs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The metrics that a text names, without what Prometheus adds to a histogram's name.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    let names = words.filter(|word| word.starts_with("cap_") && *word != "cap_");
    let base = |name: &str| {
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let is_histogram = |base: &&str| ALL.iter().any(|m| m.name == *base && m.kind == Kind::Histogram);
        of_histogram.filter(is_histogram).unwrap_or(name).to_owned()
    };
    names.map(base).collect()
}

#[test]
fn the_page_lists_every_metric_with_its_labels() {
    let mut page = BTreeSet::new();
    for line in read(&docs().join("operating.md")).lines().filter(|line| line.starts_with("| `cap_")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let labels = cells[2].replace(['`', ' '], "");
        page.insert((cells[1].trim_matches('`').to_owned(), labels));
    }
    let listed = |metric: &cap_core::metric_names::Metric| (metric.name.to_owned(), metric.labels.join(","));
    assert_eq!(ALL.iter().map(listed).collect::<BTreeSet<_>>(), page);
}

#[test]
fn dashboard_and_alerts_name_only_metrics_that_exist() {
    let all: BTreeSet<String> = ALL.iter().map(|metric| metric.name.to_owned()).collect();
    for file in ["operating/grafana.json", "operating/alerts.yml"] {
        let named = named(&read(&docs().join(file)));
        let unknown: Vec<_> = named.difference(&all).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
        assert!(named.len() > 5, "{file}: {named:?}");
    }
}
