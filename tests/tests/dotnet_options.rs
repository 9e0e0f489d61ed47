//! The table of options in `docs/dotnet.md` names options that exist, and says their defaults.

use cap_core::CapOptions;
use cap_rabbitmq::RabbitMqOptions;
use serde_json::Value;

const PAGE: &str = include_str!("../../docs/dotnet.md");

/// Methods of builders and of subscriptions, and parts of a retry policy.
const NOT_OPTIONS: [&str; 4] =
    ["on_failed", "map_incoming", "concurrency", "#[cap_subscribe(.., concurrency = n)]"];
const OF_POLICIES: [&str; 3] = ["attempts", "every", "then_after"];

/// The columns of each line of the table.
fn lines() -> Vec<Vec<&'static str>> {
    let (_, section) = PAGE.split_once("\n## Options\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let table = section.lines().filter(|line| line.starts_with('|')).skip(2);
    table.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// What stands between backticks.
fn code(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn every_option_of_the_page_exists() {
    let options = serde_json::to_value(CapOptions::default()).unwrap();
    let rabbitmq = serde_json::to_value(RabbitMqOptions::default()).unwrap();
    let stepped = &options["retry"]["stepped"];
    for line in lines() {
        let [_, _, ours, _] = &line[..] else { panic!("four columns: {line:?}") };
        for name in code(ours).filter(|name| !name.contains("::") && !NOT_OPTIONS.contains(name)) {
            let found = match name {
                name if OF_POLICIES.contains(&name) => stepped.get(name),
                name => options.get(name).or_else(|| rabbitmq.get(name)),
            };
            assert!(found.is_some(), "docs/dotnet.md names {name}, which is no option");
        }
    }
}

#[test]
fn defaults_of_the_page_are_the_defaults() {
    let options = serde_json::to_value(CapOptions::default()).unwrap();
    let stepped = serde_json::json!({ "at_once": 3, "then_after": "4m", "every": "1m", "attempts": 50 });
    let expected: [(&str, Value); 11] = [
        ("succeeded_expire_after", "1day".into()),
        ("failed_expire_after", "15days".into()),
        ("collector_interval", "5m".into()),
        ("version", "v1".into()),
        ("group_prefix", Value::Null),
        ("topic_prefix", Value::Null),
        ("group_concurrency", 1.into()),
        ("prefetch", 256.into()),
        ("batch_size", 512.into()),
        ("retry", serde_json::json!({ "stepped": stepped })),
        ("publish_retry", serde_json::json!({ "stepped": stepped })),
    ];
    for (name, default) in expected {
        assert_eq!(options[name], default, "{name}");
    }
    assert_eq!(options["receive_bytes"], 128 << 20);
    let rabbitmq = serde_json::to_value(RabbitMqOptions::default()).unwrap();
    assert_eq!(rabbitmq["exchange"], "cap.default.router");
    assert_eq!(rabbitmq["message_ttl"], Value::Null);
}
