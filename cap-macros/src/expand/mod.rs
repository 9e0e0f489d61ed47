//! Writes what the compiler gets to see.
//!
//! Every path is absolute and every local name is the macros' own, so that nothing in the user's scope changes what
//! is meant. Tokens that may be wrong in a way that only the compiler can tell (the types of arguments and results)
//! keep their place, so that its error points at them.

mod handler;
mod subscription;

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::{Attribute, Ident, Path, Type};

use crate::item::{Function, ImplBlock};
use crate::validate::{Handler, Subscriber};

/// An item that is refused. It stays, so that whatever uses it brings no second error.
pub(crate) fn refused(item: impl ToTokens, error: &syn::Error) -> TokenStream {
    let error = error.to_compile_error();
    quote! { #item #error }
}

/// A function, and beside it a type of the same name that holds its subscriptions: one `use` brings both.
pub(crate) fn function(function: &Function, handler: &Handler, krate: &Path) -> TokenStream {
    let name = own_ident(&handler.name);
    let owner = Owner {
        cap: support(krate),
        ty: name.to_token_stream(),
        name: name.unraw().to_string(),
        conditions: &handler.conditions,
        methods: false,
    };
    let visibility = &function.visibility;
    let conditions = &handler.conditions;
    let implementations = owner.implementations(std::slice::from_ref(handler));
    let marker = quote_spanned! {name.span()=>
        #(#conditions)*
        #[doc(hidden)]
        #[allow(non_camel_case_types)]
        #visibility struct #name {}
    };
    quote! { #function #marker #implementations }
}

/// An impl block, and beside it the subscriptions of its methods.
pub(crate) fn subscriber(block: &ImplBlock, subscriber: &Subscriber, krate: &Path) -> TokenStream {
    let instance = &subscriber.instance;
    let owner = Owner {
        cap: support(krate),
        ty: instance.to_token_stream(),
        name: last_name(instance),
        conditions: &subscriber.conditions,
        methods: true,
    };
    let implementations = owner.implementations(&subscriber.methods);
    quote! { #block #implementations }
}

/// Uses attributes that have been taken away: they must be known, and an import of them is not unused.
pub(crate) fn uses<'a>(attributes: impl IntoIterator<Item = &'a Attribute>) -> TokenStream {
    let paths = attributes.into_iter().map(Attribute::path);
    let taken = taken();
    quote!(#(#[#paths(#taken)] const _: () = ();)*)
}

/// What an attribute says that has been taken away, so that nothing comes of it.
pub(crate) fn taken() -> TokenStream {
    quote!(__taken)
}

/// What holds the subscriptions of handlers.
struct Owner<'a> {
    /// The module of cap-core that is there for the macros.
    cap: TokenStream,
    /// A type of the function's own name, or the type whose methods are the handlers.
    ty: TokenStream,
    /// Its name in the path of a handler.
    name: String,
    /// When it is there at all.
    conditions: &'a [Attribute],
    methods: bool,
}

impl Owner<'_> {
    fn implementations(&self, handlers: &[Handler]) -> TokenStream {
        let Self { cap, ty, conditions, .. } = self;
        let implementations = handlers.iter().enumerate().map(|(n, handler)| self.handler(n, handler));
        let subscriptions = handlers.iter().enumerate().map(|(n, handler)| self.subscriptions(n, handler));
        quote! {
            #(#implementations)*

            #(#conditions)*
            impl #ty {
                #[doc(hidden)]
                pub const SUBSCRIPTIONS: &'static [#cap::Subscription] = &[#(#subscriptions)*];
            }

            #(#conditions)*
            #cap::inventory::submit! { #cap::Submission(<#ty>::SUBSCRIPTIONS) }
        }
    }

    /// The conditions on a handler, those on its impl block included.
    fn conditions(&self, handler: &Handler) -> Vec<Attribute> {
        let own = if self.methods { handler.conditions.as_slice() } else { &[] };
        [self.conditions, own].concat()
    }
}

fn support(krate: &Path) -> TokenStream {
    quote!(#krate::__private)
}

/// The place of a user's token for a token of ours: errors point there, but names and lints are the macros'.
fn own(span: Span) -> Span {
    span.resolved_at(Span::mixed_site())
}

/// Tokens moved to another place; they mean what they meant.
fn placed(tokens: TokenStream, place: Span) -> TokenStream {
    let moved = tokens.into_iter().map(|mut token| {
        token.set_span(place.resolved_at(token.span()));
        token
    });
    moved.collect()
}

fn own_ident(ident: &Ident) -> Ident {
    let mut ident = ident.clone();
    ident.set_span(own(ident.span()));
    ident
}

/// `OrderHandlers` of `crate::orders::OrderHandlers`.
fn last_name(ty: &Type) -> String {
    match ty {
        Type::Path(path) => path.path.segments.last().map(|segment| segment.ident.unraw().to_string()),
        _ => None,
    }
    .unwrap_or_else(|| ty.to_token_stream().to_string())
}
