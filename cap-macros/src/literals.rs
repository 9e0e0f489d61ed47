//! Literals among the values of an attribute.

use syn::{Error, Expr, ExprLit, Lit, LitStr, Result};

/// Expects a string literal; `wanted` is the error for anything else.
pub(crate) fn text(value: &Expr, wanted: &str) -> Result<LitStr> {
    match literal(value) {
        Some(Lit::Str(text)) => Ok(text.clone()),
        _ => Err(Error::new_spanned(value, wanted)),
    }
}

/// A literal, also if passed through a `macro_rules!` macro.
pub(crate) fn literal(value: &Expr) -> Option<&Lit> {
    match value {
        Expr::Lit(ExprLit { lit, .. }) => Some(lit),
        Expr::Group(group) => literal(&group.expr),
        _ => None,
    }
}
