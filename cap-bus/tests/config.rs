//! One file and the environment: every setting is in the example, and a mistake is told without the value.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by failing")]

use std::process::Command;
use std::time::Duration;

use cap_bus::config::{Config, ConfigError};
use cap_bus::prelude::*;
use serde_json::Value;

const EXAMPLE: &str = include_str!("../../examples/cap.toml");

/// Settings whose default is drawn at start or is the absence of one. The example shows a value for them.
const WITHOUT_DEFAULT: [&str; 13] = [
    "default_group",
    "group_prefix",
    "topic_prefix",
    "node_name",
    "worker_id",
    "handler_timeout",
    "callbacks_to",
    "circuit_breaker",
    "direct",
    "ca_certificates",
    "identity",
    "message_ttl",
    "pause",
];

/// The example with all of its settings in force, but those of other retry policies.
fn all_of_the_example() -> String {
    let setting = |line: &&str| {
        let rest = line.strip_prefix("# ").unwrap_or(line);
        let name = rest.split([' ', '.']).next().unwrap();
        let is_other_policy = ["retry.fixed", "retry.exponential", "retry.delays", "retry.broker"]
            .iter()
            .any(|other| rest.starts_with(other));
        !is_other_policy
            && (rest.starts_with('[')
                || rest.contains(" = ")
                    && !name.is_empty()
                    && name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
    };
    EXAMPLE
        .lines()
        .filter(setting)
        .map(|line| line.strip_prefix("# ").unwrap_or(line))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn example_lists_every_setting_with_its_default() {
    let text = all_of_the_example();
    let shown = serde_json::to_value(Config::from_toml(&text).unwrap()).unwrap();
    let mut config = Config::default();
    config.postgres = Some(cap_bus::postgres::PostgresOptions::default());
    config.sqlite = Some(cap_bus::sqlite::SqliteOptions::default());
    config.rabbitmq = Some(cap_bus::rabbitmq::RabbitMqOptions::default());
    let defaults = serde_json::to_value(config).unwrap();
    for (section, settings) in defaults.as_object().unwrap() {
        for (name, default) in settings.as_object().unwrap() {
            let is_listed = text
                .lines()
                .any(|line| line.starts_with(&format!("{name} =")) || line.starts_with(&format!("{name}.")));
            assert!(is_listed, "examples/cap.toml does not list {section}.{name}");
            if !WITHOUT_DEFAULT.contains(&name.as_str()) {
                assert_eq!(&shown[section][name], default, "{section}.{name}");
            }
        }
    }
}

#[test]
fn example_as_it_stands_is_read() {
    let config = Config::from_toml(EXAMPLE).unwrap();
    assert!(config.postgres.is_some() && config.rabbitmq.is_some() && config.sqlite.is_none());
    assert_eq!(config.bus.retry, CapOptions::default().retry);
}

#[test]
fn other_retry_policies_of_the_example_are_read() {
    for policy in ["retry.fixed", "retry.exponential", "retry.delays", "retry.broker"] {
        let line = EXAMPLE.lines().find(|line| line.starts_with(&format!("# {policy}"))).unwrap();
        let config = Config::from_toml(&format!("[bus]\n{}", &line[2..])).unwrap();
        assert_ne!(config.bus.retry, RetryPolicy::default(), "{policy}");
    }
}

#[track_caller]
fn refused(text: &str, parts: &[&str]) {
    let error = Config::from_toml(text).unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "{error:?} should name {part:?}");
    }
    assert!(!error.contains("s3cret"), "{error:?}");
}

#[test]
fn mistakes_are_told_by_name_and_without_value() {
    refused("[bus]\nverison = \"s3cret\"", &["verison", "version"]);
    refused("[bus]\nlease = \"s3cret\"", &["lease", "duration"]);
    refused("[bus]\ngroup_concurrency = \"s3cret\"", &["group_concurrency", "integer"]);
    refused("[bus]\ngroup_concurrency = -1", &["group_concurrency"]);
    refused("[rabbitmq]\nurl = s3cret", &["line 2"]);
    refused("[rabbitmq]\nurl = [\"s3cret\"]", &["url"]);
    refused("[rabbit]\nurl = \"amqp://s3cret@x\"", &["rabbit", "rabbitmq"]);
    refused("[bus]\nretry.stepped = { at_once = 1 }", &["then_after"]);
}

#[tokio::test]
async fn builder_needs_one_storage_and_one_transport() {
    #[track_caller]
    fn check(text: &str, part: &str, found: usize) {
        match Config::from_toml(text).unwrap().builder() {
            Err(ConfigError::Choice { part: missing, found: number, .. }) => {
                assert_eq!((missing, number), (part, found));
            }
            other => panic!("{other:?}"),
        }
    }
    check("", "storage", 0);
    check("memory = { storage = true }", "transport", 0);
    check("memory.storage = true\n[postgres]", "storage", 2);
    check("memory = { storage = true, transport = true }\n[rabbitmq]", "transport", 2);
    let error = Config::from_toml("postgres.url = \"postgers://s3cret\"").unwrap().builder().unwrap_err();
    assert!(matches!(error, ConfigError::Storage(_)), "{error}");
    assert!(!format!("{error} {error:?}").contains("s3cret"));
}

/// The test below, as a process with an environment of its own.
#[test]
fn environment_comes_before_the_file() {
    let folder = std::env::temp_dir().join(format!("cap-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("cap.json");
    std::fs::write(&file, r#"{"bus": {"prefetch": 7, "batch_size": 9}, "rabbitmq": {"exchange": "shop"}}"#)
        .unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "in_an_environment", "--nocapture"])
        .env("CAP_TEST_CONFIG_FILE", &file)
        .env("CAP__BUS__PREFETCH", "8")
        .env("CAP__BUS__CALLBACKS_TO", "orders.#,mail")
        .env("CAP__BUS__HANDLER_TIMEOUT", "30s")
        .env("CAP__RABBITMQ__URL", "amqp://shop:a,b@rabbit/7")
        .env("CAP__RABBITMQ__HOSTS", "b,c:7")
        .env("CAP__POSTGRES__SCHEMA", "Shop Events")
        .env("CAP__MEMORY__TRANSPORT", "true")
        .env("CAP_WORKERID", "7")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn in_an_environment() {
    let Ok(file) = std::env::var("CAP_TEST_CONFIG_FILE") else { return };
    let config = Config::load(file).unwrap();
    assert_eq!((config.bus.prefetch, config.bus.batch_size), (8, 9));
    assert_eq!(config.bus.callbacks_to, Some(vec!["orders.#".to_owned(), "mail".to_owned()]));
    assert_eq!(config.bus.handler_timeout, Some(Duration::from_secs(30)));
    let rabbitmq = config.rabbitmq.unwrap();
    assert_eq!((&*rabbitmq.url, &*rabbitmq.exchange), ("amqp://shop:a,b@rabbit/7", "shop"));
    assert_eq!(rabbitmq.hosts, ["b", "c:7"]);
    assert_eq!(config.postgres.unwrap().schema, "Shop Events");
    assert!(config.memory.transport && !config.memory.storage);
}

#[test]
fn missing_file_is_named() {
    let error = Config::load("/nowhere/cap.toml").unwrap_err().to_string();
    assert!(error.contains("/nowhere/cap.toml"), "{error}");
}

#[test]
fn configuration_is_serialized_as_it_is_read() {
    let config = Config::from_toml(EXAMPLE).unwrap();
    let text = serde_json::to_string(&config).unwrap();
    let read: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::from_value::<Config>(read).unwrap(), config);
}
