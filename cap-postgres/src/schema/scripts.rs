//! The scripts that make the schema.

/// The scripts, in order: each adds one minor version.
pub(crate) const SCRIPTS: [&str; 7] = [
    include_str!("schema.sql"),
    include_str!("search_path.sql"),
    include_str!("retention_of_nodes.sql"),
    include_str!("inbox_digest.sql"),
    include_str!("process_crashes.sql"),
    include_str!("forget.sql"),
    include_str!("audit.sql"),
];

/// The names of all tables, views and functions that the scripts create.
pub(crate) fn objects() -> Vec<&'static str> {
    let name_of = |line: &'static str| {
        let (what, rest) = line.strip_prefix("CREATE ")?.split_once("{schema}.")?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        (!what.contains("INDEX")).then(|| rest.split(|c| !is_name(c)).next()).flatten()
    };
    let mut names: Vec<&str> = SCRIPTS.iter().flat_map(|script| script.lines()).filter_map(name_of).collect();
    names.sort_unstable();
    names.dedup();
    names
}
