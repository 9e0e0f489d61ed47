//! Reads which file of a crate uses which other file: by its imports, and by the paths in its code.
//!
//! An import through a re-export, as those of a `mod.rs` are, counts as an import from the file that defines the item.
//! Code under `#[cfg(test)]` is left out. Calls of methods are not seen: the type of the receiver is imported somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::module_tree::{Tree, Use};

/// One use of an item that another file defines.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Import {
    /// The file that uses the item, from the crate's `src`.
    pub from: String,
    /// The file that defines the item.
    pub to: String,
    /// Where it is used, from 1.
    pub line: usize,
    /// The path as it is written, such as `crate::error::Fault`.
    pub path: String,
}

/// The imports of a crate's own items, of the whole module tree in a folder below `lib.rs`, or `main.rs` of a program.
#[must_use]
pub fn imports(src: &Path) -> Vec<Import> {
    let mut tree = Tree { modules: Vec::new() };
    let top = if src.join("lib.rs").exists() { "lib.rs" } else { "main.rs" };
    tree.read_file(src, top, "", None);
    let mut found = BTreeSet::new();
    for (id, module) in tree.modules.iter().enumerate() {
        let re_exports = |used: &&Use| used.is_exported && tree.is_below(used, id);
        // What a path begins with may be imported already: then the path says nothing new.
        let is_imported = |path: &[String]| {
            module.uses.iter().any(|used| used.name == path[0] && tree.file_of(id, &used.path).is_some())
        };
        let uses = module.uses.iter().filter(|used| !re_exports(used)).map(|used| (&used.path, used.line));
        let paths = module.paths.iter().filter(|(path, _)| !is_imported(path));
        for (path, line) in uses.chain(paths.map(|(path, line)| (path, *line))) {
            if let Some(to) = tree.file_of(id, path)
                && to != module.file
            {
                found.insert(Import { from: module.file.clone(), to, line, path: path.join("::") });
            }
        }
    }
    found.into_iter().collect()
}

/// The groups of files, or of rooms, that import each other in a circle, each with the imports within it.
///
/// `depth` says what is compared: 1 are the rooms at the top of `src`, 2 those one level below, and so on to the files.
#[must_use]
pub fn circles(imports: &[Import], depth: usize) -> Vec<Vec<Import>> {
    let room = |file: &str| -> String {
        let file = file.trim_end_matches(".rs");
        file.split('/').take(depth).collect::<Vec<_>>().join("/")
    };
    let mut reached: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for import in imports {
        let (from, to) = (room(&import.from), room(&import.to));
        if from != to {
            reached.entry(from).or_default().insert(to);
        }
    }
    // What is reached from each room over others: there are few enough to go on until nothing is added.
    loop {
        let before: usize = reached.values().map(BTreeSet::len).sum();
        for room in reached.keys().cloned().collect::<Vec<_>>() {
            let further: BTreeSet<String> =
                reached[&room].iter().filter_map(|next| reached.get(next)).flatten().cloned().collect();
            reached.entry(room).or_default().extend(further);
        }
        if before == reached.values().map(BTreeSet::len).sum::<usize>() {
            break;
        }
    }
    let leads_to = |from: &str, to: &str| reached.get(from).is_some_and(|rooms| rooms.contains(to));
    let mut groups: BTreeMap<BTreeSet<String>, Vec<Import>> = BTreeMap::new();
    for import in imports {
        let (from, to) = (room(&import.from), room(&import.to));
        if from != to && leads_to(&to, &from) {
            let group = reached.keys().filter(|other| leads_to(&from, other) && leads_to(other, &from));
            groups.entry(group.cloned().collect()).or_default().push(import.clone());
        }
    }
    groups.into_values().collect()
}

/// How deep the folders of a crate are, its files included: the last `depth` that [`circles`] has to look at.
#[must_use]
pub fn deepest(imports: &[Import]) -> usize {
    let files = imports.iter().flat_map(|import| [&import.from, &import.to]);
    files.map(|file| file.split('/').count()).max().unwrap_or(1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod tests {
    use std::fs;

    use super::*;

    /// A crate of these files, in a folder of its own that is removed at the end.
    fn imports_of(name: &str, files: &[(&str, &str)]) -> Vec<(String, String, String)> {
        let src = std::env::temp_dir().join(format!("cap-house-{name}-{}", std::process::id()));
        for (file, text) in files {
            let path = src.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let found = imports(&src);
        fs::remove_dir_all(&src).unwrap();
        found.into_iter().map(|import| (import.from, import.to, import.path)).collect()
    }

    fn import(from: &str, to: &str, path: &str) -> (String, String, String) {
        (from.into(), to.into(), path.into())
    }

    #[test]
    fn an_import_through_a_mod_file_counts_for_the_item() {
        let found = imports_of(
            "mod",
            &[
                ("lib.rs", "mod a; mod user;"),
                ("a/mod.rs", "mod b; pub(crate) use b::Thing; pub(crate) use self::b::Other as Renamed;"),
                ("a/b.rs", "pub(crate) struct Thing; pub(crate) struct Other;"),
                ("user.rs", "use crate::a::{self, Renamed}; fn f(_: a::Thing) { vec![crate::a::b::made()] }"),
            ],
        );
        let to_b = |path| import("user.rs", "a/b.rs", path);
        assert_eq!(found, [to_b("a::Thing"), to_b("crate::a::Renamed"), to_b("crate::a::b::made")]);
    }

    #[test]
    fn tests_and_other_crates_are_left_out() {
        let found = imports_of(
            "tests",
            &[
                ("lib.rs", "mod a; mod b; #[cfg(test)] mod c;"),
                (
                    "a.rs",
                    "use std::a::b; #[cfg(test)] #[allow(x)] mod tests { use crate::b::B; } fn f() { other::b() }",
                ),
                ("b.rs", "pub struct B; fn f() { #[cfg(test)] { crate::a::f() } }"),
                ("c.rs", "use crate::a::f;"),
            ],
        );
        assert_eq!(found, []);
    }

    #[test]
    fn parents_and_modules_within_a_file_are_resolved() {
        let found = imports_of(
            "parents",
            &[
                ("lib.rs", "mod a; mod b;"),
                ("a.rs", "mod inside { use super::super::b::B; use super::Own; } struct Own; mod c;"),
                ("a/c.rs", "use super::Own; fn f() { use crate::b::{B as Other}; }"),
                ("b.rs", "pub struct B;"),
            ],
        );
        assert_eq!(
            found,
            [
                import("a.rs", "b.rs", "super::super::b::B"),
                import("a/c.rs", "a.rs", "super::Own"),
                import("a/c.rs", "b.rs", "crate::b::B"),
            ]
        );
    }

    #[test]
    fn circles_are_found_between_files_and_between_rooms() {
        let import =
            |from: &str, to: &str| Import { from: from.into(), to: to.into(), line: 1, path: "p".into() };
        let imports = [import("a/x.rs", "b/x.rs"), import("b/y.rs", "a/y.rs"), import("a/x.rs", "c.rs")];
        assert_eq!(circles(&imports, 1), [imports[..2].to_vec()]);
        assert!(circles(&imports, deepest(&imports)).is_empty());
        let imports = [import("a.rs", "b.rs"), import("b.rs", "c.rs"), import("c.rs", "a.rs")];
        assert_eq!(circles(&imports, 1), [imports.to_vec()]);
    }
}
