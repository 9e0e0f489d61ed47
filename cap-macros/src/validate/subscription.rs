//! Validates the subscriptions of a handler.

use syn::{Error, Expr, LitStr, Path, Result};

use crate::literals::text;
use crate::names::check_topic;
use crate::parse::Arguments;
use crate::problems::Problems;
use crate::settings::{OF_A_SUBSCRIBER, Settings};

/// One attribute on a handler.
pub(crate) struct Subscription {
    /// The full topic, including its prefix.
    pub(crate) topic: LitStr,
    pub(crate) settings: Settings,
}

impl Subscription {
    /// Topic, group and queue, which must be unique among the subscriptions of the function.
    fn place(&self) -> (String, Option<String>, Option<String>) {
        let Settings { group, queue, .. } = &self.settings;
        (self.topic.value(), group.as_ref().map(LitStr::value), queue.as_ref().map(LitStr::value))
    }
}

/// The settings of an impl block for all its methods.
pub(super) struct Defaults {
    prefix: Option<LitStr>,
    group: Option<LitStr>,
}

/// Validates the attribute of an impl block.
pub(super) fn defaults(arguments: Result<Arguments>, problems: &mut Problems) -> (Defaults, Option<Path>) {
    let Some(arguments) = problems.take(arguments) else {
        return (Defaults { prefix: None, group: None }, None);
    };
    let prefix = arguments.name.and_then(|prefix| problems.take(topic(&prefix, "prefix")));
    let settings = Settings::read(arguments.settings, OF_A_SUBSCRIBER, problems);
    (Defaults { prefix, group: settings.group }, settings.krate)
}

/// Validates the attributes of one handler.
pub(super) fn subscriptions(
    attributes: Vec<Result<Arguments>>,
    known: &[&str],
    defaults: Option<&Defaults>,
    problems: &mut Problems,
) -> Vec<Subscription> {
    let mut subscriptions: Vec<Subscription> = Vec::new();
    for arguments in attributes {
        let Some(arguments) = problems.take(arguments) else { continue };
        let Some(subscription) = subscription(arguments, known, defaults, problems) else { continue };
        if subscriptions.iter().any(|other| other.place() == subscription.place()) {
            let place = if subscription.settings.queue.is_some() { "queue" } else { "group" };
            problems.at(
                &subscription.topic,
                format!("the function subscribes to this topic in this {place} already"),
            );
        }
        subscriptions.push(subscription);
    }
    subscriptions
}

fn subscription(
    arguments: Arguments,
    known: &[&str],
    defaults: Option<&Defaults>,
    problems: &mut Problems,
) -> Option<Subscription> {
    let written = written_topic(&arguments, problems);
    let mut settings = Settings::read(arguments.settings, known, problems);
    let prefix = defaults.and_then(|defaults| defaults.prefix.as_ref());
    if let Some(partial) = &settings.partial
        && partial.value
        && prefix.is_none()
    {
        problems.at(
            partial,
            "the impl block has no prefix: write it in `#[cap_subscriber(\"prefix\")]`, or leave `partial` out",
        );
    }
    if settings.queue.is_none() {
        settings.group = settings.group.or_else(|| defaults.and_then(|defaults| defaults.group.clone()));
    } else if let Some(group) = &settings.group {
        problems.at(group, "an existing queue has no group: leave `group` or `queue` out");
    }
    let topic = match (written?, prefix) {
        (topic, Some(prefix)) if settings.partial.as_ref().is_none_or(|partial| partial.value) => {
            problems.take(joined(prefix, &topic))?
        }
        (topic, _) => topic,
    };
    Some(Subscription { topic, settings })
}

fn written_topic(arguments: &Arguments, problems: &mut Problems) -> Option<LitStr> {
    if let Some(name) = &arguments.name {
        return problems.take(topic(name, "topic"));
    }
    // `topic = ".."` is reported as an unknown option, and one error is enough.
    if arguments.settings.iter().all(|setting| setting.key != "topic") {
        problems.add(Error::new(arguments.span, "the topic is missing: `#[cap_subscribe(\"order.paid\")]`"));
    }
    None
}

/// A topic, or a prefix of topics.
fn topic(value: &Expr, kind: &str) -> Result<LitStr> {
    let wanted = format!(
        "a {kind} is a string literal: `\"order.paid\"`; one that is only known at run time is subscribed to with \
         `Cap::builder().subscribe(topic, handler)`"
    );
    let topic = text(value, &wanted)?;
    match check_topic(&topic.value()) {
        Ok(()) => Ok(topic),
        Err(problem) => Err(Error::new(topic.span(), format!("the {kind} {problem}"))),
    }
}

fn joined(prefix: &LitStr, topic: &LitStr) -> Result<LitStr> {
    let joined = format!("{}.{}", prefix.value(), topic.value());
    match check_topic(&joined) {
        Ok(()) => Ok(LitStr::new(&joined, topic.span())),
        Err(problem) => Err(Error::new(topic.span(), format!("the topic with its prefix {problem}"))),
    }
}
