//! The modules of a crate with what each defines and uses, as far as the tokens of its source say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

pub(crate) struct Tree {
    pub(crate) modules: Vec<Module>,
}

#[derive(Default)]
pub(crate) struct Module {
    /// From the crate's `src`. Modules that are written within a file have the same.
    pub(crate) file: String,
    pub(crate) parent: Option<usize>,
    pub(crate) children: BTreeMap<String, usize>,
    pub(crate) items: BTreeSet<String>,
    pub(crate) uses: Vec<Use>,
    /// Paths in the code, each with its line.
    pub(crate) paths: Vec<(Vec<String>, usize)>,
}

/// One name that a `use` brings in.
pub(crate) struct Use {
    pub(crate) path: Vec<String>,
    /// Under which name; `*` for all names of a module.
    pub(crate) name: String,
    pub(crate) is_exported: bool,
    pub(crate) line: usize,
}

pub(crate) enum Found {
    Module(usize),
    Item(String),
}

impl Tree {
    /// Reads a module's file, and those of its children, which are in `folder`. One that is missing has no items.
    pub(crate) fn read_file(&mut self, src: &Path, file: &str, folder: &str, parent: Option<usize>) -> usize {
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
    pub(crate) fn is_below(&self, used: &Use, module: usize) -> bool {
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
    pub(crate) fn file_of(&self, module: usize, path: &[String]) -> Option<String> {
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
