//! The expansion of the attributes.
//!
//! Every path is absolute and every local name belongs to the macros, so that nothing in the user's scope changes the
//! meaning. Tokens that only the compiler can check (the types of arguments and results) keep their span, so that its
//! errors point at them.

mod handler;
mod subscription;

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::{Attribute, Ident, Path, Type};

use crate::item::{Function, ImplBlock};
use crate::validate::{Handler, Subscriber};

/// Emits a rejected item unchanged, so that uses of it cause no second error.
pub(crate) fn refused(item: impl ToTokens, error: &syn::Error) -> TokenStream {
    let error = error.to_compile_error();
    quote! { #item #error }
}

/// Emits a function and a type of the same name with its subscriptions: one `use` imports both.
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

/// Emits an impl block and the subscriptions of its methods.
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

/// Emits uses of the removed attributes, so that they must be in scope and their imports are not unused.
pub(crate) fn uses<'a>(attributes: impl IntoIterator<Item = &'a Attribute>) -> TokenStream {
    let paths = attributes.into_iter().map(Attribute::path);
    let taken = taken();
    quote!(#(#[#paths(#taken)] const _: () = ();)*)
}

/// A removed attribute in a form without effect.
pub(crate) fn taken() -> TokenStream {
    quote!(__taken)
}

/// The type that has the subscriptions of handlers.
struct Owner<'a> {
    /// The module of cap-core for the macros.
    cap: TokenStream,
    /// A type with the function's name, or the type whose methods are the handlers.
    ty: TokenStream,
    /// Its name in the handler's path.
    name: String,
    /// Its `cfg` conditions.
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

    /// The `cfg` conditions of a handler, including those of its impl block.
    fn conditions(&self, handler: &Handler) -> Vec<Attribute> {
        let own = if self.methods { handler.conditions.as_slice() } else { &[] };
        [self.conditions, own].concat()
    }
}

fn support(krate: &Path) -> TokenStream {
    quote!(#krate::__private)
}

/// A span at the position of a user's token: errors point there, but names and lints resolve as the macro's.
fn own(span: Span) -> Span {
    span.resolved_at(Span::mixed_site())
}

/// Tokens with another span and the same meaning.
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
