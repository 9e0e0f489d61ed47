//! The short forms of `retry`: `broker("5s, 30s")`, `delays("5s, 30s")`, `fixed("10s", 5)`, `exponential("1s", "10m", 20)`.

use std::time::Duration;

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Error, Expr, ExprCall, LitStr, Result};

use crate::literals::{literal, text};

const SHORT_FORMS: &str = "the short forms are `broker(\"5s, 30s, 2m\")`, `delays(\"5s, 30s\")`, `fixed(\"10s\", 5)` and \
                           `exponential(\"1s\", \"10m\", 20)`, the last number counting all attempts";

/// The value of `retry`.
pub(crate) enum Retry {
    /// Any expression of the type `RetryPolicy`.
    Expression(Expr),
    /// These pauses in order; `true` if they are spent at the broker.
    Delays(Vec<Duration>, bool),
    /// The same pause, and how many attempts in all.
    Fixed(Duration, u32),
    /// The first and the longest pause, and how many attempts in all.
    Exponential(Duration, Duration, u32),
}

impl Retry {
    /// Parses the value. A call of a short form's name with a string as its first argument is a short form; a literal
    /// is a mistake, and anything else is the user's expression.
    pub(crate) fn read(value: Expr) -> Result<Self> {
        if literal(&value).is_some() {
            return Err(Error::new_spanned(value, format!("`retry` is a policy; {SHORT_FORMS}")));
        }
        let Some((name, call)) = short_form(&value) else { return Ok(Self::Expression(value)) };
        let arguments: Vec<&Expr> = call.args.iter().collect();
        match (name.as_str(), &arguments[..]) {
            ("broker", [list]) => Ok(Self::Delays(durations(list)?, true)),
            ("delays", [list]) => Ok(Self::Delays(durations(list)?, false)),
            ("fixed", [every, attempts]) => Ok(Self::Fixed(duration(every)?, count(attempts)?)),
            ("exponential", [first, limit, attempts]) => {
                Ok(Self::Exponential(duration(first)?, duration(limit)?, count(attempts)?))
            }
            _ => Err(Error::new_spanned(call, SHORT_FORMS)),
        }
    }

    /// The policy as code.
    pub(crate) fn write(&self, cap: &TokenStream) -> TokenStream {
        let spell = |duration: &Duration| {
            let (seconds, nanoseconds) = (duration.as_secs(), duration.subsec_nanos());
            quote!(::core::time::Duration::new(#seconds, #nanoseconds))
        };
        match self {
            Self::Expression(policy) => policy.to_token_stream(),
            Self::Delays(delays, at_broker) => {
                let delays = delays.iter().map(spell);
                if *at_broker {
                    quote!(#cap::RetryPolicy::broker([#(#delays),*]))
                } else {
                    quote!(#cap::RetryPolicy::delays([#(#delays),*]))
                }
            }
            Self::Fixed(every, attempts) => {
                let every = spell(every);
                quote!(#cap::RetryPolicy::fixed(#every, #attempts))
            }
            Self::Exponential(first, limit, attempts) => {
                let (first, limit) = (spell(first), spell(limit));
                quote!(#cap::RetryPolicy::exponential(#first, #limit, #attempts))
            }
        }
    }
}

fn short_form(value: &Expr) -> Option<(String, &ExprCall)> {
    let Expr::Call(call) = value else { return None };
    let Expr::Path(path) = &*call.func else { return None };
    let name = path.path.get_ident()?.to_string();
    let known = ["broker", "delays", "fixed", "exponential"].contains(&name.as_str());
    let text_first = matches!(call.args.first().and_then(literal), Some(syn::Lit::Str(_)));
    (known && text_first).then_some((name, call))
}

fn durations(list: &Expr) -> Result<Vec<Duration>> {
    let list = text(list, "the pauses are one string: `\"5s, 30s, 2m\"`")?;
    list.value().split(',').map(|part| parse(&list, part.trim())).collect()
}

fn duration(value: &Expr) -> Result<Duration> {
    let value = text(value, "a pause is a string with units: `\"30s\"`")?;
    parse(&value, value.value().trim())
}

fn parse(literal: &LitStr, part: &str) -> Result<Duration> {
    humantime::parse_duration(part).map_err(|error| {
        Error::new(
            literal.span(),
            format!("a pause has units, as in `30s`, `2m`, `1h 30m`; {part:?} cannot be read: {error}"),
        )
    })
}

fn count(value: &Expr) -> Result<u32> {
    match literal(value) {
        Some(syn::Lit::Int(number)) => number.base10_parse(),
        _ => Err(Error::new_spanned(value, "the number of all attempts, the first one included: `5`")),
    }
}
