//! Which functions can be handlers.

use quote::ToTokens;
use syn::{
    GenericArgument, PathArguments, PathSegment, ReceiverKind, Safety, Signature, Type, TypeReference,
};

use crate::problems::Problems;

pub(super) fn check_signature(signature: &Signature, problems: &mut Problems) {
    if signature.asyncness.is_none() {
        problems.at(signature.fn_token, "a handler is asynchronous: write `async fn`");
    }
    if let Safety::Unsafe(token) = &signature.safety {
        problems.at(token, "a handler cannot be `unsafe`: the bus could not keep its promise");
    }
    if let Some(abi) = &signature.abi {
        problems.at(abi, "a handler is an ordinary Rust function: leave `extern` out");
    }
    if !signature.generics.params.is_empty() {
        problems.at(
            &signature.generics,
            "a handler cannot be generic: the bus must know every type before the first message comes",
        );
    }
}

pub(super) fn check_argument(wanted: &Type, problems: &mut Problems) {
    match wanted {
        Type::Reference(reference) => {
            let owned = owned(&reference.elem);
            problems
                .at(reference, format!("a handler owns its arguments: take {owned} instead of a reference"));
        }
        Type::ImplTrait(any) => {
            problems.at(any, "a handler's argument needs a type with a name; `impl Trait` could be any");
        }
        Type::Group(group) => check_argument(&group.elem, problems),
        Type::Paren(paren) => check_argument(&paren.elem, problems),
        Type::Array(array) => check_inner(&array.elem, problems),
        Type::Tuple(tuple) => tuple.elems.iter().for_each(|inner| check_inner(inner, problems)),
        Type::Path(path) => path.path.segments.iter().for_each(|segment| check_segment(segment, problems)),
        // The compiler reports all other problems.
        _ => {}
    }
}

fn check_segment(segment: &PathSegment, problems: &mut Problems) {
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else { return };
    for argument in &arguments.args {
        match argument {
            GenericArgument::Type(inner) => check_inner(inner, problems),
            GenericArgument::Lifetime(lifetime) if lifetime.ident == "_" => {
                problems.at(lifetime, "a handler owns its arguments: take a type that borrows nothing");
            }
            _ => {}
        }
    }
}

/// A type inside another type, as in `State<&'static str>`.
fn check_inner(inner: &Type, problems: &mut Problems) {
    let lives_on = matches!(inner, Type::Reference(TypeReference { lifetime: Some(lifetime), .. }) if lifetime.ident == "static");
    if !lives_on {
        check_argument(inner, problems);
    }
}

/// The type to use instead of a reference to this one.
fn owned(borrowed: &Type) -> String {
    match borrowed {
        Type::Path(path) if path.path.is_ident("str") => "`String`".to_owned(),
        Type::Path(path) if path.path.get_ident().is_some() => format!("`{}`", path.to_token_stream()),
        Type::Slice(_) => "a `Vec`".to_owned(),
        _ => "the type itself".to_owned(),
    }
}

pub(super) fn check_receiver(signature: &Signature, problems: &mut Problems) {
    match signature.receiver() {
        None => problems.at(
            &signature.ident,
            "a handler in an impl block takes `&self`; one without it is a function outside of the block",
        ),
        Some(receiver) => {
            if !matches!(receiver.kind, ReceiverKind::Reference(_, _, None)) {
                problems.at(receiver, "a handler takes `&self`: all of its executions share one instance");
            }
        }
    }
}
