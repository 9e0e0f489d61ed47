//! Reads the names of the tests in a source file.

use proc_macro2::{TokenStream, TokenTree};

/// A test, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// Its line, from 1.
    pub line: usize,
    /// Its name, after the modules within the file that group the tests by subject: `unrouted::fail_counts_an_attempt`.
    /// The usual module `tests` is left out.
    pub name: String,
}

/// The tests of a source file: the functions with an attribute `test` of any crate, those of `proptest!`, and if it is a
/// file of a conformance suite, its public async functions.
#[must_use]
pub fn tests_of(source: &str, is_suite: bool) -> Vec<Test> {
    let mut found = Vec::new();
    read(source.parse().unwrap_or_default(), "", is_suite, &mut found);
    found
}

fn read(tokens: TokenStream, modules: &str, is_suite: bool, found: &mut Vec<Test>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let is = |at: usize, text: &str| tokens.get(at).is_some_and(|token| token.to_string() == text);
    let mut is_test = false;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(attribute) if at > 0 && is(at - 1, "#") => {
                is_test |= is_test_attribute(attribute.stream());
            }
            TokenTree::Group(group) => {
                let is_module = at > 1 && is(at - 2, "mod");
                let name = if is_module { tokens[at - 1].to_string() } else { "tests".to_owned() };
                let inside = if name == "tests" { modules.to_owned() } else { format!("{modules}{name}::") };
                read(group.stream(), &inside, is_suite, found);
            }
            TokenTree::Ident(word) if word == "fn" => {
                let is_case = is_suite && at > 1 && is(at - 1, "async") && is(at - 2, "pub");
                if let Some(TokenTree::Ident(name)) = tokens.get(at + 1)
                    && (is_test || is_case)
                {
                    let line = name.span().start().line;
                    found.push(Test { line, name: format!("{modules}{name}") });
                }
                is_test = false;
            }
            _ => {}
        }
    }
}

/// `test`, or a path that ends so, such as `tokio::test(start_paused = true)`.
fn is_test_attribute(attribute: TokenStream) -> bool {
    let path = attribute.into_iter().take_while(|token| !matches!(token, TokenTree::Group(_)));
    path.last().is_some_and(|token| token.to_string() == "test")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_begin_with_the_modules_within_the_file() {
        let source = r"
            #[test] fn plain() {}
            fn helper() {}
            #[cfg(test)]
            mod tests {
                #[tokio::test(start_paused = true)] #[should_panic] async fn timed() { fn inside() {} }
                mod lease { #[test]
                    fn expires() {} }
            }
            proptest! { #[test] fn any_input(n in 0..9) {} }
        ";
        let names: Vec<_> = tests_of(source, false).into_iter().map(|test| (test.line, test.name)).collect();
        let expected = [(2, "plain"), (6, "timed"), (8, "lease::expires"), (10, "any_input")];
        assert_eq!(names, expected.map(|(line, name)| (line, name.to_owned())));
    }

    #[test]
    fn cases_of_a_suite_are_its_public_async_functions() {
        let source = "pub async fn case<F: Fixture>(f: F) {} async fn helper() {} pub fn other() {}";
        let names: Vec<_> = tests_of(source, true).into_iter().map(|test| test.name).collect();
        assert_eq!(names, ["case"]);
        assert_eq!(tests_of(source, false), []);
    }
}
