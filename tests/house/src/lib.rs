//! Reads the source as text: where its sentences are, and which file uses which.

pub mod imports;
mod module_tree;
pub mod test_names;

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};

/// One text in a file: a paragraph of a page, a line of a doc comment, a string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The file, from the root of the repository.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// What it says.
    pub text: String,
    /// Whether it is the text of a log line.
    pub is_log_line: bool,
}

/// The root of the repository.
///
/// # Panics
///
/// If this package is not two folders below it.
#[must_use]
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).map(Path::to_path_buf).unwrap_or_default()
}

/// All texts of the files with one of these extensions below a folder, in order.
#[must_use]
pub fn texts(folder: &str, extensions: &[&str]) -> Vec<Text> {
    let mut found = Vec::new();
    for path in files(&root().join(folder), extensions) {
        let Ok(content) = fs::read_to_string(&path) else { continue };
        let file = path.strip_prefix(root()).unwrap_or(&path).to_string_lossy().into_owned();
        if path.extension().is_some_and(|extension| extension == "rs") {
            found.extend(texts_of_source(&file, &content));
        } else {
            found.extend(texts_of_page(&file, &content));
        }
    }
    found
}

/// All Rust sources of the repository, those of every package.
#[must_use]
pub fn sources() -> Vec<PathBuf> {
    files(&root(), &["rs"])
}

fn files(path: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    if path.is_file() {
        let wanted = path.extension().is_some_and(|own| extensions.iter().any(|wanted| own == *wanted));
        return if wanted { vec![path.to_path_buf()] } else { Vec::new() };
    }
    let is_ours = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name != "target" && !name.to_string_lossy().starts_with('.'))
    };
    let mut inside: Vec<PathBuf> = fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(is_ours)
        .collect();
    inside.sort();
    inside.iter().flat_map(|path| files(path, extensions)).collect()
}

/// The lines of a page, without those of its programs.
fn texts_of_page(file: &str, content: &str) -> Vec<Text> {
    let mut in_program = false;
    let mut found = Vec::new();
    for (index, line) in content.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_program = !in_program;
        } else if !in_program {
            found.push(Text { file: file.into(), line: index + 1, text: line.into(), is_log_line: false });
        }
    }
    found
}

/// The strings and the doc comments of a source file.
fn texts_of_source(file: &str, content: &str) -> Vec<Text> {
    let Ok(tokens) = content.parse::<TokenStream>() else { return Vec::new() };
    let mut found = Vec::new();
    strings(tokens, false, &mut |line, text, is_log_line| {
        found.push(Text { file: file.into(), line, text, is_log_line });
    });
    found
}

fn strings(tokens: TokenStream, in_log_line: bool, found: &mut impl FnMut(usize, String, bool)) {
    let mut before = [String::new(), String::new()];
    for token in tokens {
        match &token {
            TokenTree::Group(group) => {
                let is_log = before[1] == "!"
                    && ["trace", "debug", "info", "warn", "error"].contains(&before[0].as_str());
                strings(group.stream(), is_log, found);
            }
            TokenTree::Literal(literal) => {
                if let Some(text) = unquoted(&literal.to_string()) {
                    found(literal.span().start().line, text, in_log_line);
                }
            }
            _ => {}
        }
        before = [std::mem::take(&mut before[1]), token.to_string()];
    }
}

/// What stands in a string literal; `None` for other literals.
fn unquoted(literal: &str) -> Option<String> {
    let start = literal.find('"')?;
    let end = literal.rfind('"')?;
    let is_string = literal[..start].chars().all(|c| "rbc#".contains(c));
    // A line that goes on in the next one.
    let text = literal.get(start + 1..end)?.replace("\\\n", "\n");
    is_string.then(|| text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Whether a phrase stands in a text as whole words, in whichever case.
#[must_use]
pub fn has_phrase(text: &str, phrase: &str) -> bool {
    let text = text.to_lowercase();
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let mut from = 0;
    while let Some(at) = text[from..].find(phrase).map(|at| from + at) {
        let end = at + phrase.len();
        let starts = !text[..at].ends_with(is_word);
        let ends = !text[end..].starts_with(is_word);
        if starts && ends {
            return true;
        }
        from = end;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_words_only() {
        assert!(has_phrase("Waits for a person.", "a person"));
        assert!(has_phrase("The LANE", "lane"));
        assert!(!has_phrase("planes", "lane"));
        assert!(!has_phrase("lane_of", "lane"));
    }

    #[test]
    fn strings_and_doc_comments_are_found() {
        let source = "/// Says it.\nfn f() { tracing::warn!(a = 1, \"lost\"); let _ = \"x\"; }\n";
        let found: Vec<_> = texts_of_source("f.rs", source)
            .into_iter()
            .map(|text| (text.line, text.text, text.is_log_line))
            .collect();
        assert_eq!(found, [(1, "Says it.".into(), false), (2, "lost".into(), true), (2, "x".into(), false)]);
    }

    #[test]
    fn programs_of_a_page_are_left_out() {
        let found = texts_of_page("p.md", "a\n```rust\nb\n```\nc\n");
        assert_eq!(found.iter().map(|text| text.text.as_str()).collect::<Vec<_>>(), ["a", "c"]);
    }
}
