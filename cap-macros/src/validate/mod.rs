//! Validates the parsed items, reports each mistake on the wrong token, and returns what `expand` needs.

mod signature;
mod subscription;

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{
    Attribute, Error, FnArg, GenericArgument, Ident, Lifetime, Path, PathArguments, Result, ReturnType, Type,
};

use self::signature::{check_argument, check_receiver, check_signature};
pub(crate) use self::subscription::Subscription;
use self::subscription::{defaults, subscriptions};
use crate::item::{Function, ImplBlock, Member, conditions};
use crate::parse::Arguments;
use crate::problems::Problems;
use crate::settings::{OF_A_FUNCTION, OF_A_METHOD};

/// A validated handler function.
pub(crate) struct Handler {
    pub(crate) name: Ident,
    pub(crate) conditions: Vec<Attribute>,
    /// Whether the function is deprecated, so that the macro's call would cause a warning.
    pub(crate) deprecated: bool,
    pub(crate) arguments: Vec<Argument>,
    /// The parentheses around the arguments.
    pub(crate) arguments_span: Span,
    /// The declared return type, if it has a name.
    pub(crate) returned: Option<Type>,
    pub(crate) subscriptions: Vec<Subscription>,
}

/// An argument of a handler.
pub(crate) struct Argument {
    pub(crate) conditions: Vec<Attribute>,
    pub(crate) wanted: Type,
}

/// The handlers of an impl block.
pub(crate) struct Subscriber {
    pub(crate) instance: Type,
    pub(crate) conditions: Vec<Attribute>,
    pub(crate) methods: Vec<Handler>,
    pub(crate) krate: Option<Path>,
}

/// Validates a function and its attributes.
pub(crate) fn function(
    attributes: Vec<Result<Arguments>>,
    function: &Function,
) -> Result<(Handler, Option<Path>)> {
    let mut problems = Problems::default();
    if let Some(receiver) = function.signature.receiver() {
        problems.at(
            receiver,
            "a method is a handler only in an impl block that has `#[cap_subscriber]`: put that on the block, so that \
             the bus knows of the instance",
        );
    }
    let subscriptions = subscriptions(attributes, OF_A_FUNCTION, None, &mut problems);
    let krate = subscriptions.iter().find_map(|subscription| subscription.settings.krate.clone());
    let handler = handler(function, subscriptions, &mut problems);
    problems.or((handler, krate))
}

/// Validates an impl block. The attributes of its methods have been removed and are passed separately.
pub(crate) fn subscriber(
    arguments: Result<Arguments>,
    block: &ImplBlock,
    attributes: &[Vec<Attribute>],
) -> Result<Subscriber> {
    check_block(block)?;
    let mut problems = Problems::default();
    let (defaults, krate) = defaults(arguments, &mut problems);
    let mut methods = Vec::new();
    for (member, attributes) in block.members.iter().zip(attributes) {
        if let Member::Method(function) = member
            && !attributes.is_empty()
        {
            check_receiver(&function.signature, &mut problems);
            let attributes = attributes.iter().map(Arguments::from_attribute).collect();
            let subscriptions = subscriptions(attributes, OF_A_METHOD, Some(&defaults), &mut problems);
            methods.push(handler(function, subscriptions, &mut problems));
        }
    }
    if methods.is_empty() {
        problems.at(block.shape.impl_token, "no method in this impl block has `#[cap_subscribe(\"topic\")]`");
    }
    problems.or(Subscriber {
        instance: (*block.shape.self_ty).clone(),
        conditions: conditions(&block.shape.attrs),
        methods,
        krate,
    })
}

fn handler(function: &Function, subscriptions: Vec<Subscription>, problems: &mut Problems) -> Handler {
    let signature = &function.signature;
    check_signature(signature, problems);
    let typed = signature.inputs.iter().filter_map(|argument| match argument {
        FnArg::Typed(argument) => Some(argument),
        FnArg::Receiver(_) => None,
    });
    let arguments = typed
        .map(|argument| {
            check_argument(&argument.ty, problems);
            Argument { conditions: conditions(&argument.attrs), wanted: (*argument.ty).clone() }
        })
        .collect();
    Handler {
        name: signature.ident.clone(),
        conditions: conditions(&function.attributes),
        deprecated: function.attributes.iter().any(|attribute| attribute.path().is_ident("deprecated")),
        arguments,
        arguments_span: signature.paren_token.span.join(),
        returned: match &signature.output {
            ReturnType::Default => None,
            ReturnType::Type(_, returned) if has_impl(returned.to_token_stream()) => None,
            ReturnType::Type(_, returned) => Some((**returned).clone()),
        },
        subscriptions,
    }
}

/// Whether a type contains `impl Trait`.
fn has_impl(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == "impl",
        TokenTree::Group(group) => has_impl(group.stream()),
        _ => false,
    })
}

/// Checks the block itself first: errors in the methods of an invalid block would only confuse.
fn check_block(block: &ImplBlock) -> Result<()> {
    let shape = &block.shape;
    if let Some((of, _)) = &shape.trait_ {
        return Err(Error::new_spanned(of, "handlers are methods of the type itself: leave the trait out"));
    }
    if !shape.generics.params.is_empty() {
        return Err(Error::new_spanned(
            &shape.generics,
            "handlers cannot be generic: the bus must know every type before the first message comes",
        ));
    }
    if let Some(lifetime) = lifetime(&shape.self_ty) {
        return Err(Error::new_spanned(lifetime, "the instance lives as long as the bus: it cannot borrow"));
    }
    Ok(())
}

/// The `'_` of `OrderHandlers<'_>`.
fn lifetime(ty: &Type) -> Option<&Lifetime> {
    let Type::Path(path) = ty else { return None };
    let PathArguments::AngleBracketed(arguments) = &path.path.segments.last()?.arguments else { return None };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Lifetime(lifetime) if lifetime.ident != "static" => Some(lifetime),
        _ => None,
    })
}
