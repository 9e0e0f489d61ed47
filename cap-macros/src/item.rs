//! The annotated items, parsed only as far as the macros need: the body of a function is kept as tokens, so that only
//! the compiler checks it.

use proc_macro2::{Group, TokenStream, TokenTree};
use quote::{ToTokens, TokenStreamExt};
use syn::parse::discouraged::Speculative;
use syn::parse::{Parse, ParseStream, Parser};
use syn::{Attribute, ImplItem, ItemImpl, Result, Signature, Visibility, parse_quote};

/// A function or a method.
#[derive(Clone)]
pub(crate) struct Function {
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) visibility: Visibility,
    pub(crate) signature: Signature,
    pub(crate) body: Group,
}

/// An `impl` block.
pub(crate) struct ImplBlock {
    /// The block without its members.
    pub(crate) shape: ItemImpl,
    pub(crate) members: Vec<Member>,
    header: TokenStream,
    inner_attributes: Vec<Attribute>,
}

/// A member of an `impl` block.
pub(crate) enum Member {
    Method(Box<Function>),
    Other(TokenStream),
}

impl Function {
    /// Allows lints that a handler's required form may trigger. The user's own settings of these lints come later and
    /// take precedence.
    pub(crate) fn allow_handler(&mut self) {
        self.attributes.insert(0, parse_quote!(#[allow(clippy::unused_async, clippy::unused_self)]));
    }

    /// Removes the `#[cap_subscribe]` attributes, with any path.
    pub(crate) fn take_subscriptions(&mut self) -> Vec<Attribute> {
        self.attributes
            .extract_if(.., |attribute| {
                attribute.path().segments.last().is_some_and(|segment| segment.ident == "cap_subscribe")
            })
            .collect()
    }
}

/// The `cfg` conditions of an item.
pub(crate) fn conditions(attributes: &[Attribute]) -> Vec<Attribute> {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).cloned().collect()
}

impl ImplBlock {
    /// Removes the `#[cap_subscribe]` attributes of the methods and returns a list for each member.
    pub(crate) fn take_subscriptions(&mut self) -> Vec<Vec<Attribute>> {
        let take = |member: &mut Member| match member {
            Member::Method(method) => {
                let taken = method.take_subscriptions();
                if !taken.is_empty() {
                    method.allow_handler();
                }
                taken
            }
            Member::Other(_) => Vec::new(),
        };
        self.members.iter_mut().map(take).collect()
    }
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        Ok(Self {
            attributes: input.call(Attribute::parse_outer)?,
            visibility: input.parse()?,
            signature: input.parse()?,
            body: input.parse()?,
        })
    }
}

impl ToTokens for Function {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        tokens.append_all(&self.attributes);
        self.visibility.to_tokens(tokens);
        self.signature.to_tokens(tokens);
        self.body.to_tokens(tokens);
    }
}

impl Parse for ImplBlock {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut header: Vec<TokenTree> = input.parse::<TokenStream>()?.into_iter().collect();
        let Some(TokenTree::Group(body)) = header.pop() else {
            return Err(input.error("expected an `impl` block"));
        };
        let mut empty = Group::new(body.delimiter(), TokenStream::new());
        empty.set_span(body.span());
        let header: TokenStream = header.into_iter().collect();
        let shape = syn::parse2({
            let mut tokens = header.clone();
            tokens.append(empty);
            tokens
        })?;
        let (inner_attributes, members) = read_body.parse2(body.stream())?;
        Ok(Self { shape, members, header, inner_attributes })
    }
}

fn read_body(input: ParseStream<'_>) -> Result<(Vec<Attribute>, Vec<Member>)> {
    let inner_attributes = input.call(Attribute::parse_inner)?;
    let mut members = Vec::new();
    while !input.is_empty() {
        let ahead = input.fork();
        members.push(if let Ok(method) = ahead.parse() {
            input.advance_to(&ahead);
            Member::Method(Box::new(method))
        } else {
            Member::Other(input.parse::<ImplItem>()?.into_token_stream())
        });
    }
    Ok((inner_attributes, members))
}

impl ToTokens for ImplBlock {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        self.header.to_tokens(tokens);
        self.shape.brace_token.surround(tokens, |tokens| {
            tokens.append_all(&self.inner_attributes);
            for member in &self.members {
                match member {
                    Member::Method(method) => method.to_tokens(tokens),
                    Member::Other(other) => other.to_tokens(tokens),
                }
            }
        });
    }
}
