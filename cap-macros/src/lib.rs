//! The attributes of cap: `#[cap_subscribe]` and `#[cap_subscriber]`.
//!
//! Use them through `cap-core`, which re-exports both and holds what they write refers to. An attribute is read
//! (`parse`, `item`), judged in a pass of its own (`settings`, `validate`), and written out (`expand`).

mod expand;
mod item;
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
/// The function stays what it is and may be called like any other. It is subscribed in every program that its crate
/// is linked into; see `cap_core::link_handlers!` for crates that are named nowhere else.
///
/// # The function
///
/// It is free (for methods there is [`cap_subscriber`](macro@cap_subscriber)), `async`, not generic, and owns its
/// arguments, which stand in any order and number. A type that deserializes is the payload: one at most. The others
/// say where they come from: `CapHeaders`, `State<T>`, `RawBody`, `MessageId`, `Topic`, `Attempt`, `Cancelled`,
/// `Publisher`, `Cap`, `Delivery`, and whatever else implements `FromDelivery`. It returns `()`, `Reply<T>`, or a `Result` of
/// either with any error. Its future is `Send`, as it runs on whichever thread is free.
///
/// All of that is checked while it compiles, save one thing: that a `State<T>` was given to the builder is checked
/// when the bus starts.
///
/// # The topic
///
/// It comes first, as a string literal: words with dots between them, of which `*` stands for exactly one word and
/// `#` for any number of words, none included. A topic that is only known at run time is subscribed to with
/// `Cap::builder().subscribe(topic, handler)`.
///
/// # Options
///
/// | option | says | without it |
/// | --- | --- | --- |
/// | `group = "billing"` | The group that the handler is in: of all groups each gets every message, within a group one handler of one process gets it. | `default_group` of the bus |
/// | `queue = "orders.dead"` | Instead of a group: a queue of the broker that somebody else made, by its full name. It is consumed as it is; the topic says which of its messages this handler takes. | the group's own queue |
/// | `concurrency = 4` | How many messages the group runs at the same time, from 1 to 65535. Where several handlers of a group say it, the sum holds. | `group_concurrency` of the bus |
/// | `timeout = "1m 30s"` | How long the handler may take; longer is a failure like any other. | `handler_timeout` of the bus |
/// | `retry = RetryPolicy::never()` | When a failed attempt is repeated: any expression of the type `RetryPolicy`, evaluated when the bus starts. | `retry` of the bus |
/// | `retry = broker("5s, 30s, 2m")` | The same in short: these pauses, spent in delay queues of the broker. So are `delays("5s, 30s")`, `fixed("10s", 5)` and `exponential("1s", "10m", 20)`, whose last number counts all attempts. | |
/// | `classify = function` | What says more about its errors than they say themselves: a function from `HandlerError` to `HandlerError`. | `CapBuilder::classify_errors` |
/// | `circuit = CircuitBreaker::after(5)` | When the handler pauses because what it depends on is down: any expression of the type `CircuitBreaker`. | `circuit_breaker` of the bus |
/// | `order_by = "customer"` | A header: messages with the same value in it are handled one after the other, in the order of delivery. | delivery order where the concurrency is 1, else none |
/// | `callbacks_to = ["shop.replies.#"]` | The topics that senders may have replies go to. An empty list allows no replies. | `callbacks_to` of the bus |
/// | `callback_not_allowed = CallbackNotAllowed::Drop` | What happens to a message that asks for a reply to another topic. | `callback_not_allowed` of the bus |
/// | `reply_to_unit = false` | Whether `()` is a reply, with an empty body. | `reply_to_unit` of the bus |
/// | `crate = path::to::cap_core` | The path of `cap-bus` or `cap-core`, for a program that knows it under another name. | `::cap_bus`, or `::cap_core` where the attribute is that crate's |
///
/// # Several topics
///
/// The attribute may stand on a function several times, with options of its own each time:
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
/// Beside the function stands a type of its name, with one constant: `balance::SUBSCRIPTIONS`. It can be given to
/// `CapBuilder::subscriptions`, in tests for instance, or where link-time registration does not work. So no other type
/// and no module of the function's name can be in the same scope.
#[proc_macro_attribute]
pub fn cap_subscribe(
    arguments: proc_macro::TokenStream,
    item: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    subscribe(arguments.into(), item.into(), &parse_quote!(::cap_core)).into()
}

/// [`cap_subscribe`](macro@cap_subscribe) for a service that depends on `cap-bus`.
///
/// See the other one: nothing differs but the crate that it refers to. `cap-bus` re-exports it as `cap_subscribe`.
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
/// let builder = Cap::builder().subscriber(OrderHandlers { shop: "corner".into() });
/// ```
///
/// The instance is given to `CapBuilder::subscriber`; all executions share it, and a bus without it does not start. The
/// methods take `&self` and otherwise what functions take: see [`cap_subscribe`](macro@cap_subscribe), whose options
/// they have too, `crate` excepted. Methods without the attribute are left alone.
///
/// The block is the type's own, not a trait's, and not generic; the type has one such block.
/// `OrderHandlers::SUBSCRIPTIONS` holds the subscriptions of them all.
///
/// # Arguments, each of which may be left out
///
/// | argument | says | without it |
/// | --- | --- | --- |
/// | `"orders"` | A prefix, which comes before each method's topic, with a dot between. A method's topic with `partial = false` stays as it is written. | topics stay as they are written |
/// | `group = "shop"` | The group of methods that name neither a group nor a queue. | `default_group` of the bus |
/// | `callbacks_to = ["shop.replies.#"]` | The topics that senders may have replies go to. An empty list allows no replies. | `callbacks_to` of the bus |
/// | `callback_not_allowed = CallbackNotAllowed::Drop` | What happens to a message that asks for a reply to another topic. | `callback_not_allowed` of the bus |
/// | `reply_to_unit = false` | Whether `()` is a reply, with an empty body. | `reply_to_unit` of the bus |
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
/// See the other one: nothing differs but the crate that it refers to. `cap-bus` re-exports it as `cap_subscriber`.
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
