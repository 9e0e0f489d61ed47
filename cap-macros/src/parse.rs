//! Parses the arguments of the attributes. Only their form is checked here; `validate` checks their meaning.

use proc_macro2::{Span, TokenStream};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream, Parser};
use syn::spanned::Spanned;
use syn::{Attribute, Error, Expr, Ident, Meta, Path, Result, Token};

/// The arguments in the parentheses of an attribute.
pub(crate) struct Arguments {
    /// The attribute itself, for errors about missing arguments.
    pub(crate) span: Span,
    /// The first value, which has no key: a topic or a prefix.
    pub(crate) name: Option<Expr>,
    /// The arguments of the form `key = value`, in order.
    pub(crate) settings: Vec<Setting>,
}

/// One `key = value`.
pub(crate) struct Setting {
    pub(crate) key: Ident,
    pub(crate) value: Value,
}

/// The value of a setting.
pub(crate) enum Value {
    /// Of `crate = ..`.
    Path(Path),
    /// Of everything else.
    Expression(Expr),
}

impl Arguments {
    /// Parses the tokens that the compiler passes to the macro.
    pub(crate) fn from_tokens(tokens: TokenStream) -> Result<Self> {
        Self::read(tokens, Span::call_site())
    }

    /// Parses an attribute of an item that the macro processes.
    pub(crate) fn from_attribute(attribute: &Attribute) -> Result<Self> {
        let span = attribute.path().span();
        match &attribute.meta {
            Meta::Path(_) => Self::read(TokenStream::new(), span),
            Meta::List(list) => Self::read(list.tokens.clone(), span),
            Meta::NameValue(pair) => Err(Error::new(
                pair.eq_token.span,
                "the topic stands in parentheses: `#[cap_subscribe(\"order.paid\")]`",
            )),
        }
    }

    fn read(tokens: TokenStream, span: Span) -> Result<Self> {
        let parser = |input: ParseStream<'_>| {
            let mut arguments = Self { span, name: None, settings: Vec::new() };
            let mut first = true;
            while !input.is_empty() {
                if is_setting(input) {
                    arguments.settings.push(input.parse()?);
                } else if first {
                    arguments.name = Some(input.parse()?);
                } else {
                    return Err(input.error("expected `option = value`: only what comes first has no name"));
                }
                first = false;
                if !input.is_empty() {
                    input.parse::<Token![,]>()?;
                }
            }
            Ok(arguments)
        };
        parser.parse2(tokens)
    }
}

fn is_setting(input: ParseStream<'_>) -> bool {
    input.peek(Ident::peek_any) && input.peek2(Token![=]) && !input.peek2(Token![==])
}

impl Parse for Setting {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let key = input.call(Ident::parse_any)?;
        input.parse::<Token![=]>()?;
        let value = if key == "crate" {
            let path = input.call(Path::parse_mod_style);
            Value::Path(path.map_err(|error| {
                Error::new(error.span(), "`crate` takes a path: `crate = path::to::cap_core`")
            })?)
        } else {
            Value::Expression(input.parse()?)
        };
        Ok(Self { key, value })
    }
}
