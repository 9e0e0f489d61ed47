//! Collects the subscriptions that are linked into the program or were given to the builder, checks them, and sorts them
//! into groups.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::activity::Activity;
use super::group_metrics::{GroupMetrics, MemberMetrics};
use super::handler::{ErasedHandler, Submission, Subscription};
use super::subscribe::Subscribe;
use super::subscription_settings::SubscriptionSettings;
use crate::RetryPolicy;
use crate::message::{Message, TopicPattern};
use crate::runtime::callback_policy::CallbackPolicy;
use crate::runtime::circuit::CircuitBreaker;
use crate::runtime::options::CapOptions;
use cap_adapter::CheckContext;
use cap_adapter::Classify;

/// Stands for the package of a handler that was given to the builder.
const BUILDER: &str = "the builder";

/// A subscription before it is checked, from the macros or from the builder.
#[derive(Clone)]
pub(crate) struct Registration {
    topic: String,
    settings: SubscriptionSettings,
    function: String,
    package: &'static str,
    handler: ErasedHandler,
}

impl Registration {
    pub(crate) fn from_subscription(subscription: &Subscription) -> Self {
        Self {
            topic: subscription.topic.to_owned(),
            settings: SubscriptionSettings::from(&subscription.options),
            function: subscription.function.to_owned(),
            package: subscription.package,
            handler: ErasedHandler::Pointers(subscription.handler),
        }
    }

    pub(crate) fn from_builder(subscribe: Subscribe, function: &str, handler: ErasedHandler) -> Self {
        let Subscribe { topic, settings } = subscribe;
        Self { topic, settings, function: function.to_owned(), package: BUILDER, handler }
    }

    /// All subscriptions that are linked into this program.
    pub(crate) fn linked() -> Vec<Self> {
        inventory::iter::<Submission>
            .into_iter()
            .flat_map(|submission| submission.0)
            .map(Self::from_subscription)
            .collect()
    }
}

/// A handler in its group.
pub(crate) struct Member {
    pub(crate) pattern: TopicPattern,
    pub(crate) function: String,
    pub(crate) handler: ErasedHandler,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry: RetryPolicy,
    pub(crate) order_by: Option<String>,
    pub(crate) circuit: Option<CircuitBreaker>,
    pub(crate) classify: Option<Classify>,
    pub(crate) callbacks: CallbackPolicy,
    pub(crate) activity: Arc<Activity>,
}

/// The handlers of one group, the most specific topic first.
pub(crate) struct Group {
    pub(crate) name: Arc<str>,
    pub(crate) concurrency: u16,
    /// Whether it consumes an existing queue, which this bus neither declares nor binds.
    pub(crate) existing: bool,
    pub(crate) members: Vec<Member>,
    pub(crate) metrics: GroupMetrics,
}

impl Group {
    /// The index of the handler for a topic: of those that match, the one with the most specific pattern.
    pub(crate) fn member_for(&self, topic: &str) -> Option<usize> {
        self.members.iter().position(|member| member.pattern.matches(topic))
    }

    /// The metrics of the subscription that a message is for.
    pub(crate) fn metrics_for(&self, message: &Message) -> &MemberMetrics {
        self.metrics.member(message.name().and_then(|topic| self.member_for(topic)))
    }
}

/// Sorts registrations into groups.
///
/// # Errors
///
/// All problems, each with the name of its function.
pub(crate) fn build_groups(
    registrations: Vec<Registration>,
    options: &CapOptions,
    context: &CheckContext<'_>,
) -> Result<Vec<Group>, Vec<String>> {
    let mut problems = Vec::new();
    let mut groups: BTreeMap<String, Vec<(TopicPattern, Registration)>> = BTreeMap::new();
    for registration in registrations {
        let function = &registration.function;
        if let Err(problem) = registration.handler.check(context) {
            problems.push(format!("{function} {problem}"));
        }
        problems.extend(registration.settings.problems(function, options));
        let group = registration.settings.full_group(options);
        match TopicPattern::parse(&options.full_topic(&registration.topic)) {
            Err(error) => problems.push(format!("{function}: {error}")),
            Ok(pattern) => groups.entry(group).or_default().push((pattern, registration)),
        }
    }
    let groups =
        groups.into_iter().map(|(name, members)| group(name, members, options, &mut problems)).collect();
    if problems.is_empty() { Ok(groups) } else { Err(problems) }
}

fn group(
    name: String,
    mut members: Vec<(TopicPattern, Registration)>,
    options: &CapOptions,
    problems: &mut Vec<String>,
) -> Group {
    // Sorted by name, because the link order is arbitrary: the start and its errors are then the same in every build.
    members.sort_by(|(a, r), (b, s)| a.cmp(b).then_with(|| r.function.cmp(&s.function)));
    for pair in members.windows(2) {
        if let [(a, first), (b, second)] = pair
            && a == b
        {
            problems.push(both_subscribe(a.as_str(), &name, first, second));
        }
    }
    let existing = members.iter().find(|(_, r)| r.settings.queue.is_some());
    let own = members.iter().find(|(_, r)| r.settings.queue.is_none());
    if let (Some((_, queue)), Some((_, group))) = (existing, own) {
        problems.push(format!(
            "{} consumes {name:?} as an existing queue, but {} is in the group of that name, which declares the queue \
             itself: give the group another name, or set the group instead of the queue in both",
            queue.function, group.function,
        ));
    }
    let existing = existing.is_some();
    let asked: u32 = members.iter().filter_map(|(_, r)| r.settings.concurrency).map(u32::from).sum();
    let concurrency = match asked {
        0 => options.group_concurrency,
        sum => u16::try_from(sum).unwrap_or(u16::MAX),
    };
    let metrics = GroupMetrics::new(&name, members.iter().map(|(pattern, _)| pattern.to_string()));
    let members = members
        .into_iter()
        .map(|(pattern, Registration { settings, function, handler, .. })| Member {
            callbacks: settings.callback_policy(options),
            activity: Activity::of(&function, &name),
            pattern,
            function,
            handler,
            timeout: settings.timeout.or(options.handler_timeout),
            retry: settings.retry.unwrap_or_else(|| options.retry.clone()),
            order_by: settings.order_by,
            circuit: settings.circuit.or(options.circuit_breaker),
            classify: settings.classify,
        })
        .collect();
    Group { name: name.into(), concurrency, existing, members, metrics }
}

fn both_subscribe(topic: &str, group: &str, first: &Registration, second: &Registration) -> String {
    let Registration { function, package, .. } = first;
    if *function == second.function && package == &second.package && *package != BUILDER {
        return format!(
            "{function} subscribes to {topic:?} in the group {group:?} twice: list it once in \
             .handlers(Handlers::listed([..])), or not at all if linked handlers register themselves"
        );
    }
    format!(
        "{function} and {} both subscribe to {topic:?} in the group {group:?}; give one of them another group",
        second.function,
    )
}

/// Lists how many subscriptions each package has, for the log at the start.
pub(crate) fn count_by_package(registrations: &[Registration]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for registration in registrations {
        *counts.entry(registration.package).or_default() += 1;
    }
    counts.iter().map(|(package, count)| format!("{package}: {count}")).collect::<Vec<_>>().join(", ")
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.topic, self.function)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cap_adapter::States;
    use cap_adapter::engine::StorageView;

    fn registration(subscribe: Subscribe, function: &str) -> Registration {
        Registration::from_builder(subscribe, function, ErasedHandler::shared(async || ()))
    }

    fn build(registrations: Vec<Registration>, options: &CapOptions) -> Result<Vec<Group>, Vec<String>> {
        let states = States::default();
        let context = CheckContext::new(&states, StorageView { name: "test", any: &() });
        build_groups(registrations, options, &context)
    }

    #[test]
    fn the_most_specific_handler_of_a_group_gets_a_topic() {
        let options = CapOptions { default_group: "shop".into(), ..CapOptions::default() };
        let groups = build(
            vec![
                registration(Subscribe::to("order.#"), "any"),
                registration(Subscribe::to("order.paid").concurrency(3), "paid"),
                registration(Subscribe::to("order.*").concurrency(2), "one"),
                registration(Subscribe::to("order.paid").group("audit"), "audit"),
            ],
            &options,
        )
        .unwrap();
        let [audit, shop] = &groups[..] else { panic!("two groups") };
        assert_eq!((&*audit.name, audit.concurrency), ("audit.v1", 1));
        assert_eq!((&*shop.name, shop.concurrency), ("shop.v1", 5));
        let handler = |topic: &str| shop.member_for(topic).map(|index| shop.members[index].function.as_str());
        assert_eq!(handler("order.paid"), Some("paid"));
        assert_eq!(handler("order.sent"), Some("one"));
        assert_eq!(handler("order"), Some("any"));
        assert_eq!(handler("invoice"), None);
    }

    #[test]
    fn all_problems_are_reported_with_their_function() {
        let problems = build(
            vec![
                registration(Subscribe::to("a.b"), "first"),
                registration(Subscribe::to("a.b"), "second"),
                registration(Subscribe::to("a b"), "spaced"),
                registration(Subscribe::to("c").group("g g"), "grouped"),
                registration(Subscribe::to("d").concurrency(0), "idle"),
                registration(Subscribe::to("x".repeat(201)), "long"),
            ],
            &CapOptions::default(),
        )
        .err()
        .unwrap();
        let text = problems.join("\n");
        for part in ["first and second both subscribe to \"a.b\"", "spaced", "grouped", "idle", "long"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(problems.len(), 5, "{text}");
    }
}
