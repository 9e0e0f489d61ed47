//! Values that the application shares with its handlers.

use std::any::{Any, TypeId, type_name};
use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::error::ShortTypeName;

/// A shared value of the application, extracted by its type.
///
/// All handlers share the same value. The bus does not start if a handler needs a state that was not passed to
/// `CapBuilder::state`.
///
/// ```
/// use cap_core::prelude::*;
///
/// struct Stock { left: i64 }
///
/// #[cap_subscribe("stock.asked")]
/// async fn asked(State(stock): State<Stock>) -> Reply<i64> {
///     Reply(stock.left)
/// }
/// ```
#[derive(Debug)]
pub struct State<T: ?Sized>(pub Arc<T>);

impl<T: ?Sized> Clone for State<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: ?Sized> Deref for State<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// The application's shared values by type.
#[derive(Default)]
pub struct States(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl States {
    /// Adds a value, or replaces the one of the same type.
    pub fn insert<T: Send + Sync + 'static>(&mut self, value: Arc<T>) {
        self.0.insert(TypeId::of::<T>(), value);
    }

    /// Returns the value of a type.
    #[must_use]
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.0.get(&TypeId::of::<T>()).cloned().and_then(|value| value.downcast().ok())
    }
}

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "States({})", self.0.len())
    }
}

/// What arguments can check when the bus starts, so that an unavailable argument fails the start and not the first
/// message.
#[derive(Debug, Clone, Copy)]
pub struct CheckContext<'a> {
    states: &'a States,
    storage: StorageView<'a>,
}

/// The storage of the bus, by its own type.
#[derive(Clone, Copy)]
pub struct StorageView<'a> {
    /// Its name for errors.
    pub name: &'static str,
    /// The storage.
    pub any: &'a dyn Any,
}

impl fmt::Debug for StorageView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl<'a> CheckContext<'a> {
    /// For the engine.
    #[doc(hidden)]
    #[must_use]
    pub fn new(states: &'a States, storage: StorageView<'a>) -> Self {
        Self { states, storage }
    }

    /// Checks that a state of this type was given to the builder.
    ///
    /// # Errors
    ///
    /// The text to show if it was not.
    pub fn require_state<T: Send + Sync + 'static>(&self) -> Result<(), String> {
        if self.states.get::<T>().is_some() {
            return Ok(());
        }
        let name = ShortTypeName(type_name::<T>());
        Err(if self.states.get::<Arc<T>>().is_some() {
            format!(
                "needs State<{name}>, but .state(..) was given an Arc<{name}>: give it with .shared_state(..)"
            )
        } else {
            format!("needs State<{name}>, which was not given: call .state(..) with a {name}")
        })
    }

    /// Checks that the instance whose methods are handlers was given to the builder. For the macros.
    ///
    /// # Errors
    ///
    /// The text to show if it was not.
    #[doc(hidden)]
    pub fn require_instance<T: 'static>(&self) -> Result<(), String> {
        // The bounds are minimal here, so that a type that is not `Sync` is reported once, where it is used.
        if self.states.0.contains_key(&TypeId::of::<T>()) {
            return Ok(());
        }
        let name = ShortTypeName(type_name::<T>());
        Err(if self.states.0.contains_key(&TypeId::of::<Arc<T>>()) {
            format!(
                "is a method of {name}, but .state(..) was given an Arc<{name}>: give it with .shared_state(..)"
            )
        } else {
            format!("is a method of {name}, but no instance was given: call .state(..) with one")
        })
    }

    /// Checks that the bus's storage is of this type, for an argument that needs it.
    ///
    /// # Errors
    ///
    /// The text to show if it is another.
    pub fn require_storage<S: 'static>(&self, argument: &str, wanted: &str) -> Result<(), String> {
        if self.storage.any.is::<S>() {
            return Ok(());
        }
        Err(format!("takes {argument}, which needs {wanted} as storage; this bus uses {}", self.storage.name))
    }
}
