//! Expands the attributes to cap-core's constants.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;

use super::{Owner, own};
use crate::settings::Settings;
use crate::validate::{Handler, Subscription};

impl Owner<'_> {
    /// An element for each attribute on handler `n`.
    pub(super) fn subscriptions(&self, n: usize, handler: &Handler) -> TokenStream {
        let Self { cap, ty, .. } = self;
        let conditions = &handler.conditions;
        let path = if self.methods {
            format!("::{}::{}", self.name, handler.name.unraw())
        } else {
            format!("::{}", self.name)
        };
        let write = |Subscription { topic, settings }: &Subscription| {
            let options = self.options(settings);
            quote! {
                #(#conditions)*
                #cap::Subscription {
                    topic: #topic,
                    options: #options,
                    function: ::core::concat!(::core::module_path!(), #path),
                    package: ::core::env!("CARGO_PKG_NAME"),
                    handler: #cap::pointers::<#ty, #n>(),
                },
            }
        };
        handler.subscriptions.iter().map(write).collect()
    }

    fn options(&self, settings: &Settings) -> TokenStream {
        let cap = &self.cap;
        let timeout = settings.timeout.map(|timeout| {
            let (seconds, nanoseconds) = (timeout.as_secs(), timeout.subsec_nanos());
            quote!(::core::time::Duration::new(#seconds, #nanoseconds))
        });
        let retry = settings.retry.as_ref().map(|retry| {
            let policy = retry.write(&cap.to_token_stream());
            quote_spanned! {own(Span::call_site())=> {
                let policy: fn() -> #cap::RetryPolicy = || #policy;
                policy
            }}
        });
        let circuit = settings.circuit.as_ref().map(|circuit| {
            quote_spanned! {own(Span::call_site())=> {
                let circuit: fn() -> #cap::CircuitBreaker = || #circuit;
                circuit
            }}
        });
        let classify = settings.classify.as_ref().map(|classify| {
            quote_spanned! {own(Span::call_site())=> {
                let classify: #cap::Classify = #classify;
                classify
            }}
        });
        let group = option(settings.group.as_ref());
        let queue = option(settings.queue.as_ref());
        let circuit = option(circuit);
        let classify = option(classify);
        let concurrency = option(settings.concurrency);
        let timeout = option(timeout);
        let retry = option(retry);
        let order_by = option(settings.order_by.as_ref());
        let callbacks_to = option(settings.callbacks_to.as_ref().map(|patterns| quote!(&[#(#patterns),*])));
        let callback_not_allowed = option(settings.callback_not_allowed.as_ref().map(|what| {
            quote_spanned! {own(Span::call_site())=> {
                let what: #cap::CallbackNotAllowed = #what;
                what
            }}
        }));
        let reply_to_unit = option(settings.reply_to_unit.as_ref());
        quote! {
            #cap::SubscriptionOptions {
                group: #group,
                concurrency: #concurrency,
                timeout: #timeout,
                retry: #retry,
                order_by: #order_by,
                circuit: #circuit,
                classify: #classify,
                queue: #queue,
                callbacks_to: #callbacks_to,
                callback_not_allowed: #callback_not_allowed,
                reply_to_unit: #reply_to_unit,
            }
        }
    }
}

fn option(value: Option<impl ToTokens>) -> TokenStream {
    let none = quote!(::core::option::Option::None);
    value.map_or(none, |value| quote!(::core::option::Option::Some(#value)))
}
