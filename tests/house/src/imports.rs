//! Reads which file of a crate uses which other file: by its imports, and by the paths in its code.
//!
//! An import through a re-export, as those of a `mod.rs` are, counts as an import from the file that defines the item.
//! Code under `#[cfg(test)]` is left out. Calls of methods are not seen: the type of the receiver is imported somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

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

struct Tree {
    modules: Vec<Module>,
}

#[derive(Default)]
struct Module {
    /// From the crate's `src`. Modules that are written within a file have the same.
    file: String,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    items: BTreeSet<String>,
    uses: Vec<Use>,
    /// Paths in the code, each with its line.
    paths: Vec<(Vec<String>, usize)>,
}

/// One name that a `use` brings in.
struct Use {
    path: Vec<String>,
    /// Under which name; `*` for all names of a module.
    name: String,
    is_exported: bool,
    line: usize,
}

enum Found {
    Module(usize),
    Item(String),
}

impl Tree {
    /// Reads a module's file, and those of its children, which are in `folder`. One that is missing has no items.
    fn read_file(&mut self, src: &Path, file: &str, folder: &str, parent: Option<usize>) -> usize {
        let text = fs::read_to_string(src.join(file)).unwrap_or_default();
        self.read(src, (file, folder), text.parse().unwrap_or_default(), parent)
    }

    fn read(
        &mut self,
        src: &Path,
        (file, folder): (&str, &str),
        tokens: TokenStream,
        parent: Option<usize>,
    ) -> usize {
        let id = self.modules.len();
        self.modules.push(Module { file: file.into(), parent, ..Module::default() });
        let tokens: Vec<TokenTree> = without_tests(tokens);
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            let name = tokens.get(at + 1).map(ToString::to_string).unwrap_or_default();
            match token.to_string().as_str() {
                "mod" => {
                    let inside = format!("{folder}{name}/");
                    let child = if let Some(TokenTree::Group(group)) = tokens.get(at + 2) {
                        self.read(src, (file, &inside), group.stream(), Some(id))
                    } else {
                        let beside = format!("{folder}{name}.rs");
                        let own =
                            if src.join(&beside).is_file() { beside } else { format!("{inside}mod.rs") };
                        self.read_file(src, &own, &inside, Some(id))
                    };
                    self.modules[id].children.insert(name, child);
                    at += 2;
                }
                "struct" | "enum" | "union" | "trait" | "type" | "fn" | "const" | "static" => {
                    self.modules[id].items.insert(name);
                }
                "macro_rules" => {
                    self.modules[id].items.extend(tokens.get(at + 2).map(ToString::to_string));
                }
                _ => {}
            }
            at += 1;
        }
        self.read_paths(id, &tokens);
        id
    }

    /// Finds what the code of a module uses, within its functions too, but not within the modules written in it.
    fn read_paths(&mut self, id: usize, tokens: &[TokenTree]) {
        let mut at = 0;
        let is = |at: usize, text: &str| tokens.get(at).is_some_and(|token| token.to_string() == text);
        while let Some(token) = tokens.get(at) {
            match token {
                TokenTree::Ident(word) if word == "use" => {
                    let end = (at..tokens.len()).find(|end| is(*end, ";")).unwrap_or(tokens.len());
                    let before =
                        at.checked_sub(1).map(|before| tokens[before].to_string()).unwrap_or_default();
                    let is_exported = before == "pub" || before.starts_with('(');
                    let line = word.span().start().line;
                    read_use(&tokens[at + 1..end], &[], &mut |path, name| {
                        self.modules[id].uses.push(Use { path, name, is_exported, line });
                    });
                    at = end;
                }
                TokenTree::Ident(word)
                    if word == "mod" && matches!(tokens.get(at + 2), Some(TokenTree::Group(_))) =>
                {
                    at += 2;
                }
                TokenTree::Ident(word) => {
                    let line = word.span().start().line;
                    let mut path = vec![word.to_string()];
                    while is(at + 1, ":") && is(at + 2, ":") {
                        let Some(TokenTree::Ident(next)) = tokens.get(at + 3) else { break };
                        path.push(next.to_string());
                        at += 3;
                    }
                    if path.len() > 1 {
                        self.modules[id].paths.push((path, line));
                    }
                }
                TokenTree::Group(group) => {
                    self.read_paths(id, &without_tests(group.stream()));
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// Whether a `use` names an item below the module itself.
    fn is_below(&self, used: &Use, module: usize) -> bool {
        let first = used.path.iter().find(|name| *name != "self");
        first.is_some_and(|name| self.modules[module].children.contains_key(name))
            || match self.file_of(module, &used.path) {
                Some(file) => {
                    let own = self.modules[module]
                        .file
                        .trim_end_matches("mod.rs")
                        .trim_end_matches("lib.rs")
                        .trim_end_matches("main.rs");
                    own.is_empty() || own.ends_with('/') && file.starts_with(own)
                }
                None => false,
            }
    }

    /// The file that defines the item of a path; none for a module, or for another crate's.
    fn file_of(&self, module: usize, path: &[String]) -> Option<String> {
        match self.resolve(module, path, 0)? {
            Found::Item(file) => Some(file),
            Found::Module(id) if path.last().is_some_and(|last| last == "*") => {
                Some(self.modules[id].file.clone())
            }
            Found::Module(_) => None,
        }
    }

    fn resolve(&self, module: usize, path: &[String], depth: usize) -> Option<Found> {
        // Re-exports of each other's names by `*` go in circles.
        if depth > 8 {
            return None;
        }
        let mut module = module;
        let mut is_ours = false;
        for (place, name) in path.iter().enumerate() {
            match name.as_str() {
                "crate" => (module, is_ours) = (0, true),
                "super" => (module, is_ours) = (self.modules[module].parent?, true),
                "self" => is_ours = true,
                "*" => return Some(Found::Module(module)),
                name => match self.look_up(module, name, place + 1 == path.len(), depth) {
                    Some(Found::Module(child)) => (module, is_ours) = (child, true),
                    Some(item) => return Some(item),
                    // What a macro has defined.
                    None if is_ours => return Some(Found::Item(self.modules[module].file.clone())),
                    None => return None,
                },
            }
        }
        Some(Found::Module(module))
    }

    /// What a name stands for in a module. A module may have the name of a function; it is meant where the path goes on.
    fn look_up(&self, id: usize, name: &str, is_last: bool, depth: usize) -> Option<Found> {
        let module = &self.modules[id];
        let child = module.children.get(name).copied().map(Found::Module);
        if child.is_some() && !is_last {
            return child;
        }
        if module.items.contains(name) {
            return Some(Found::Item(module.file.clone()));
        }
        let named = module.uses.iter().filter(|used| used.name == name && used.path.last().is_some());
        for used in named {
            // `use x::y` in `x`'s own module would ask for itself.
            if let Some(found) = self.resolve(id, &used.path, depth + 1) {
                return Some(found);
            }
        }
        if child.is_some() {
            return child;
        }
        module.uses.iter().filter(|used| used.name == "*").find_map(|used| {
            match self.resolve(id, &used.path, depth + 1)? {
                Found::Module(other) if other != id => self.look_up(other, name, is_last, depth + 1),
                _ => None,
            }
        })
    }
}

/// Without what is compiled for tests only: each `#[cfg(test)]` and what follows it, up to its `;` or its braces.
fn without_tests(tokens: TokenStream) -> Vec<TokenTree> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut left = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let is_attribute = token.to_string() == "#";
        let next = tokens.get(at + 1).map(|next| next.to_string().replace(' ', "")).unwrap_or_default();
        if is_attribute && next == "[cfg(test)]" {
            let ends = |token: &TokenTree| match token {
                TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
                other => other.to_string() == ";",
            };
            at = (at..tokens.len()).find(|end| ends(&tokens[*end])).unwrap_or(tokens.len());
        } else {
            left.push(token.clone());
        }
        at += 1;
    }
    left
}

/// Takes the tree of a `use` apart into paths and the names that they get.
fn read_use(tokens: &[TokenTree], before: &[String], found: &mut impl FnMut(Vec<String>, String)) {
    let mut path = before.to_vec();
    let mut rename = None;
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match token {
            TokenTree::Ident(word) if word == "as" => {
                rename = tokens.get(at + 1).map(ToString::to_string);
                at += 1;
            }
            TokenTree::Ident(word) => path.push(word.to_string()),
            TokenTree::Group(group) => {
                let inside: Vec<TokenTree> = group.stream().into_iter().collect();
                inside
                    .split(|token| token.to_string() == ",")
                    .filter(|part| !part.is_empty())
                    .for_each(|part| read_use(part, &path, found));
                return;
            }
            TokenTree::Punct(punct) if punct.as_char() == '*' => path.push("*".into()),
            _ => {}
        }
        at += 1;
    }
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    let name = rename.or_else(|| path.last().cloned()).unwrap_or_default();
    found(path, name);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test says what went wrong by failing")]
mod tests {
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
