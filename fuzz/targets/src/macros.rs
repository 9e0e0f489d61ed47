//! The attributes, as the compiler hands them to the macros: any tokens.

use std::str::FromStr;

use proc_macro2::{Span, TokenStream};
use syn::Error;

use crate::item::{Function, ImplBlock};
use crate::parse::Arguments;
use crate::{expand, halves, text, validate};

/// The compiler's own limit for nesting is 128; what lies deeper never comes to a macro.
const DEEPEST: usize = 64;
const LONGEST: usize = 4096;

/// The arguments of an attribute and the item that it stands on, with a zero byte between them. Whatever they are, the
/// macros write Rust: the handler, or errors in the user's words.
pub fn attributes(data: &[u8]) {
    let (arguments, item) = halves(data);
    let (arguments, item) = (text(arguments), text(item));
    if arguments.len() + item.len() > LONGEST || depth(&arguments).max(depth(&item)) > DEEPEST {
        return;
    }
    let (Ok(arguments), Ok(item)) = (TokenStream::from_str(&arguments), TokenStream::from_str(&item)) else {
        return;
    };
    let function = subscribe(arguments.clone(), item.clone());
    let is_rust =
        syn::parse2::<syn::File>(function.clone()).is_ok() || syn::parse2::<syn::File>(item.clone()).is_err();
    assert!(is_rust, "#[cap_subscribe] wrote no Rust: {function}");
    let block = subscriber(arguments, item.clone());
    let is_rust = syn::parse2::<syn::File>(block.clone()).is_ok() || syn::parse2::<syn::File>(item).is_err();
    assert!(is_rust, "#[cap_subscriber] wrote no Rust: {block}");
}

fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for letter in text.chars() {
        match letter {
            '(' | '[' | '{' | '<' | '&' | '!' | '-' | '*' | '|' => depth += 1,
            ')' | ']' | '}' | '>' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

// The two functions below are what stands in the crate of the macros, which can only be called by a compiler.

fn subscribe(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let Ok(mut function) = syn::parse2::<Function>(item.clone()) else {
        return expand::refused(item, &Error::new(Span::call_site(), "it stands on an async function"));
    };
    let mut attributes = vec![Arguments::from_tokens(arguments)];
    function.allow_handler();
    attributes.extend(function.take_subscriptions().iter().map(Arguments::from_attribute));
    match validate::function(attributes, &function) {
        Ok((handler, krate)) => expand::function(&function, &handler, &krate.unwrap_or_else(default)),
        Err(error) => expand::refused(function, &error),
    }
}

fn default() -> syn::Path {
    syn::parse_quote!(::cap_core)
}

fn subscriber(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let Ok(mut block) = syn::parse2::<ImplBlock>(item.clone()) else {
        return expand::refused(item, &Error::new(Span::call_site(), "it stands on an impl block"));
    };
    let attributes = block.take_subscriptions();
    let mut written = match validate::subscriber(Arguments::from_tokens(arguments), &block, &attributes) {
        Ok(subscriber) => {
            expand::subscriber(&block, &subscriber, &subscriber.krate.clone().unwrap_or_else(default))
        }
        Err(error) => expand::refused(block, &error),
    };
    written.extend(expand::uses(attributes.iter().flatten()));
    written
}
