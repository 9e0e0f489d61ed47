//! Expands the call of a handler: the implementations of cap-core's `StaticHandler` and `HandlerArgument`.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;

use super::{Owner, own, placed};
use crate::validate::{Argument, Handler};

impl Owner<'_> {
    /// The expansion of handler `n` without its subscriptions.
    pub(super) fn handler(&self, n: usize, handler: &Handler) -> TokenStream {
        let Self { cap, ty, .. } = self;
        let conditions = self.conditions(handler);
        let arguments = self.arguments(n, handler);
        let one_payload = self.one_payload(n, handler);
        let bodies = each(handler, |i, span| quote_spanned!(span=> #cap::takes_body::<Self, #n, #i>(),));
        let check = self.check(n, handler);
        let deprecated = handler.deprecated.then(|| quote!(#[allow(deprecated)]));
        // A future that is not `Send` is reported on these tokens.
        let at_name = own(handler.name.span());
        let (cap_at_name, outcome) = (placed(cap.clone(), at_name), self.outcome(n, handler));
        let run = quote_spanned!(at_name=>
            async fn handler(delivery: &#cap_at_name::Delivery) -> #cap_at_name::Outcome { #outcome }
        );
        quote_spanned! {own(Span::call_site())=>
            #arguments
            #one_payload

            #(#conditions)*
            #deprecated
            impl #cap::StaticHandler<#n> for #ty {
                const BODIES: &'static [::core::primitive::bool] = &[#(#bodies)*];

                #run

                fn check(context: &#cap::CheckContext<'_>) -> ::core::result::Result<(), ::std::string::String> {
                    #check
                    ::core::result::Result::Ok(())
                }
            }
        }
    }

    fn arguments(&self, n: usize, handler: &Handler) -> TokenStream {
        let Self { cap, ty, .. } = self;
        let outer = self.conditions(handler);
        handler
            .arguments
            .iter()
            .enumerate()
            .map(|(i, Argument { conditions, wanted })| {
                quote_spanned! {own(wanted.span())=>
                    #(#outer)*
                    #(#conditions)*
                    impl #cap::HandlerArgument<#n, #i> for #ty {
                        type Wanted = #wanted;
                    }
                }
            })
            .collect()
    }

    /// A check that no two arguments are decoded from the body.
    fn one_payload(&self, n: usize, handler: &Handler) -> Option<TokenStream> {
        let Self { cap, ty, .. } = self;
        let conditions = self.conditions(handler);
        (handler.arguments.len() > 1).then(|| {
            quote_spanned! {own(handler.arguments_span)=>
                #(#conditions)*
                const _: () = ::core::assert!(
                    #cap::one_body_at_most(<#ty as #cap::StaticHandler<#n>>::BODIES),
                    "a handler takes one payload at most; put what belongs together into one type, and take the rest \
                     as State<T>, RawBody, CapHeaders and the like"
                );
            }
        })
    }

    fn check(&self, n: usize, handler: &Handler) -> TokenStream {
        let cap = &self.cap;
        let instance = self
            .methods
            .then(|| quote_spanned!(own(Span::call_site())=> #cap::check_instance::<Self>(context)?;));
        let checks = each(handler, |i, span| quote_spanned!(span=> #cap::check::<Self, #n, #i>(context)?;));
        quote_spanned!(own(Span::call_site())=> #instance #(#checks)*)
    }

    /// Calls the function and converts its result.
    fn outcome(&self, n: usize, handler: &Handler) -> TokenStream {
        let Self { cap, ty, .. } = self;
        let here = own(Span::call_site());
        let name = &handler.name;
        let arguments =
            each(handler, |i, span| quote_spanned!(span=> #cap::take::<Self, #n, #i>(delivery).await?,));
        let call = if self.methods {
            quote_spanned!(here=> Self::#name(&*#cap::instance::<#ty>(delivery)?, #(#arguments)*).await)
        } else {
            quote_spanned!(here=> #name(#(#arguments)*).await)
        };
        let Some(returned) = &handler.returned else {
            return quote_spanned!(here=> #cap::IntoOutcome::into_outcome(#call));
        };
        quote_spanned!(own(returned.span())=> <#returned as #cap::IntoOutcome>::into_outcome(#call))
    }
}

/// Generates code for each argument, with the argument's `cfg` conditions and span.
fn each(handler: &Handler, write: impl Fn(usize, Span) -> TokenStream) -> impl Iterator<Item = TokenStream> {
    handler.arguments.iter().enumerate().map(move |(i, Argument { conditions, wanted })| {
        let span = own(wanted.span());
        let written = write(i, span);
        quote_spanned!(span=> #(#conditions)* #written)
    })
}
