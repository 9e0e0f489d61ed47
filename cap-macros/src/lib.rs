//! The attributes of cap: `#[cap_subscribe]` and `#[cap_subscriber]`.
//!
//! Use them through `cap-bus` or `cap-core`, which re-export both and have the items that the expansion refers to. An
//! attribute is parsed (`parse`, `item`), validated in a separate pass (`settings`, `validate`), and expanded
//! (`expand`).

mod expand;
mod item;
mod literals;
mod names;
mod parse;
mod problems;
mod retry;
mod settings;
mod validate;

use proc_macro2::{Span, TokenStream};
use syn::{Error, Path, parse_quote};

use crate::item::{Function, ImplBlock};
use crate::parse::Arguments;

/// Makes an async function the handler of a topic.
///
/// ```
/// use cap_core::prelude::*;
///
/// # struct Stock;
/// # impl Stock { async fn deduct(&self, _: i64, _: i32) -> Result<(), std::io::Error> { Ok(()) } }
/// #[derive(Serialize, Deserialize)]
/// struct DeductQty { product_id: i64, qty: i32 }
///
/// #[derive(Serialize, Deserialize)]
/// struct QtyDeducted { is_success: bool }
///
/// #[cap_subscribe("place.order.qty.deducted", group = "inventory", concurrency = 4, timeout = "30s")]
/// async fn deduct(cmd: DeductQty, State(stock): State<Stock>) -> Result<Reply<QtyDeducted>, std::io::Error> {
///     stock.deduct(cmd.product_id, cmd.qty).await?;
///     Ok(Reply(QtyDeducted { is_success: true }))
/// }
/// ```
///
/// The function is unchanged and can be called like any other. It is subscribed in every program that its crate is
/// linked into; see `cap_core::link_handlers!` for crates that are not referred to elsewhere.
///
/// # The function
///
/// It must be a free function (for methods there is [`cap_subscriber`](macro@cap_subscriber)), `async` and not
/// generic, and it owns its arguments, which can be in any order and number. At most one argument is the payload, a
/// type that implements `Deserialize`, bare or as `Payload<T>`. The others are extractors: `CapHeaders`, `State<T>`, `RawBody`, `MessageId`,
/// `Topic`, `Attempt`, `Cancelled`, `Publisher`, `Cap`, `Delivery`, and any other type that implements
/// `FromDelivery`. It returns `()`, `Reply<T>`, or a `Result` of either with any error. Its future must be `Send`,
/// since it can run on any thread.
///
/// All of that is checked at compile time, with one exception: the bus checks at its start that each `State<T>` was
/// given to the builder.
///
/// # The topic
///
/// It is the first argument, a string literal: words separated by dots, where `*` matches exactly one word and `#`
/// any number of words, including none. For a topic that is only known at run time use
/// `Cap::builder().subscribe(topic, handler)`.
///
/// # Options
///
/// | option | meaning | default |
/// | --- | --- | --- |
/// | `group = "billing"` | The group of the handler. Every group gets every message; within a group one handler in one process gets it. | `default_group` of the bus |
/// | `queue = "orders.dead"` | Instead of a group: the full name of an existing queue of the broker. It is consumed as it is; the topic selects which of its messages this handler takes. | the group's own queue |
/// | `concurrency = 4` | How many messages the group handles concurrently, from 1 to 65535. If several handlers of a group set it, the sum applies. | `group_concurrency` of the bus |
/// | `timeout = "1m 30s"` | How long the handler may take; exceeding it is a failure like any other. | `handler_timeout` of the bus |
/// | `retry = RetryPolicy::never()` | When a failed attempt is retried: any expression of the type `RetryPolicy`, evaluated when the bus starts. | `retry` of the bus |
/// | `retry = broker("5s, 30s, 2m")` | A short form: these pauses, spent in delay queues of the broker. So are `delays("5s, 30s")`, `fixed("10s", 5)` and `exponential("1s", "10m", 20)`, whose last number counts all attempts. | |
/// | `classify = function` | Classifies the handler's errors: a function from `HandlerError` to `HandlerError`. | `CapBuilder::classify_errors` |
/// | `circuit = CircuitBreaker::after(5)` | When the handler pauses because a dependency is down: any expression of the type `CircuitBreaker`. | `circuit_breaker` of the bus |
/// | `order_by = "customer"` | The name of a header: messages with the same value are handled one after the other, in the order of delivery. | delivery order where the concurrency is 1, else none |
/// | `callbacks_to = ["shop.replies.#"]` | The topics that replies may go to. An empty list allows no replies. | `callbacks_to` of the bus |
/// | `callback_not_allowed = CallbackNotAllowed::Drop` | What happens to a message that asks for a reply to another topic. | `callback_not_allowed` of the bus |
/// | `reply_to_unit = false` | Whether `()` is sent as a reply with an empty body. | `reply_to_unit` of the bus |
/// | `crate = path::to::cap_core` | The path of `cap-bus` or `cap-core`, for a program that knows it under another name. | `::cap_bus`, or `::cap_core` where the attribute is that crate's |
///
/// # Several topics
///
/// A function can have the attribute several times, each with its own options:
///
/// ```
/// use cap_core::prelude::*;
///
/// #[cap_subscribe("order.paid")]
/// #[cap_subscribe("order.refunded", group = "refunds")]
/// async fn balance(order: u64, Topic(topic): Topic) {
///     println!("{topic}: {order}");
/// }
///
/// assert_eq!(balance::SUBSCRIPTIONS.len(), 2);
/// ```
///
/// # Without the linker
///
/// The attribute adds a type with the function's name and one constant: `balance::SUBSCRIPTIONS`. It can be passed to
/// `CapBuilder::subscriptions`, for instance in tests, or where link-time registration does not work. So no other
/// type or module with the function's name can be in the same scope.
#[proc_macro_attribute]
pub fn cap_subscribe(
    arguments: proc_macro::TokenStream,
    item: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    subscribe(arguments.into(), item.into(), &parse_quote!(::cap_core)).into()
}

/// [`cap_subscribe`](macro@cap_subscribe) for a service that depends on `cap-bus`.
///
/// It differs only in the crate that it refers to. `cap-bus` re-exports it as `cap_subscribe`.
#[doc(hidden)]
#[proc_macro_attribute]
pub fn cap_subscribe_bus(
    arguments: proc_macro::TokenStream,
    item: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    subscribe(arguments.into(), item.into(), &parse_quote!(::cap_bus)).into()
}

/// Makes methods of one instance the handlers of topics.
///
/// ```
/// use cap_core::prelude::*;
///
/// struct OrderHandlers { shop: String }
///
/// #[cap_subscriber("orders", group = "shop")]
/// impl OrderHandlers {
///     /// Subscribed to `orders.paid`.
///     #[cap_subscribe("paid", timeout = "30s")]
///     async fn paid(&self, order: u64) {
///         println!("{}: order {order} is paid", self.shop);
///     }
///
///     /// Subscribed to `invoices.#`, in a group of its own.
///     #[cap_subscribe("invoices.#", partial = false, group = "audit")]
///     async fn audit(&self, Topic(topic): Topic) -> Result<(), HandlerError> {
///         println!("{}: {topic}", self.shop);
///         Ok(())
///     }
/// }
///
/// let builder = Cap::builder().state(OrderHandlers { shop: "corner".into() });
/// ```
///
/// The instance is passed to `CapBuilder::subscriber`. All executions share it, and a bus without it does not start.
/// The methods take `&self` and the same arguments and options as functions, except `crate`: see
/// [`cap_subscribe`](macro@cap_subscribe). Methods without the attribute are unchanged.
///
/// The block must be an inherent impl and not generic, and a type can have one such block.
/// `OrderHandlers::SUBSCRIPTIONS` has the subscriptions of all its methods.
///
/// # Arguments, each of which may be left out
///
/// | argument | meaning | default |
/// | --- | --- | --- |
/// | `"orders"` | A prefix for the topics of all methods, separated by a dot. The topic of a method with `partial = false` gets no prefix. | topics stay as they are written |
/// | `group = "shop"` | The group of methods without their own group or queue. | `default_group` of the bus |
/// | `callbacks_to = ["shop.replies.#"]` | The topics that replies may go to. An empty list allows no replies. | `callbacks_to` of the bus |
/// | `callback_not_allowed = CallbackNotAllowed::Drop` | What happens to a message that asks for a reply to another topic. | `callback_not_allowed` of the bus |
/// | `reply_to_unit = false` | Whether `()` is sent as a reply with an empty body. | `reply_to_unit` of the bus |
/// | `crate = path::to::cap_core` | The path of `cap-bus` or `cap-core`, for a program that knows it under another name. | `::cap_bus`, or `::cap_core` where the attribute is that crate's |
#[proc_macro_attribute]
pub fn cap_subscriber(
    arguments: proc_macro::TokenStream,
    item: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    subscriber(arguments.into(), item.into(), &parse_quote!(::cap_core)).into()
}

/// [`cap_subscriber`](macro@cap_subscriber) for a service that depends on `cap-bus`.
///
/// It differs only in the crate that it refers to. `cap-bus` re-exports it as `cap_subscriber`.
#[doc(hidden)]
#[proc_macro_attribute]
pub fn cap_subscriber_bus(
    arguments: proc_macro::TokenStream,
    item: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    subscriber(arguments.into(), item.into(), &parse_quote!(::cap_bus)).into()
}

/// `default` is the crate that the code refers to unless `crate = ..` names another.
fn subscribe(arguments: TokenStream, item: TokenStream, default: &Path) -> TokenStream {
    if arguments.to_string() == expand::taken().to_string() {
        return TokenStream::new();
    }
    let Ok(mut function) = syn::parse2::<Function>(item.clone()) else {
        let wanted =
            "`#[cap_subscribe]` stands on an async function; on an impl block write `#[cap_subscriber]`";
        return expand::refused(item, &Error::new(Span::call_site(), wanted));
    };
    let mut attributes = vec![Arguments::from_tokens(arguments)];
    function.allow_handler();
    attributes.extend(function.take_subscriptions().iter().map(Arguments::from_attribute));
    match validate::function(attributes, &function) {
        Ok((handler, krate)) => expand::function(&function, &handler, krate.as_ref().unwrap_or(default)),
        Err(error) => expand::refused(function, &error),
    }
}

fn subscriber(arguments: TokenStream, item: TokenStream, default: &Path) -> TokenStream {
    let Ok(mut block) = syn::parse2::<ImplBlock>(item.clone()) else {
        let wanted =
            "`#[cap_subscriber]` stands on an impl block; on a function write `#[cap_subscribe(\"topic\")]`";
        return expand::refused(item, &Error::new(Span::call_site(), wanted));
    };
    let attributes = block.take_subscriptions();
    let mut written = match validate::subscriber(Arguments::from_tokens(arguments), &block, &attributes) {
        Ok(subscriber) => {
            expand::subscriber(&block, &subscriber, subscriber.krate.as_ref().unwrap_or(default))
        }
        Err(error) => expand::refused(block, &error),
    };
    written.extend(expand::uses(attributes.iter().flatten()));
    written
}
