//! The tables, and what is generated from the arguments.

use crate::support::Folder;

#[test]
fn only_apply_creates_the_file() {
    let folder = Folder::new();
    folder.run(&["schema", "check"]).failed(2, "no storage is named");
    folder.on_file(&["schema", "check"]).failed(3, "there are no tables");
    folder.on_file(&["messages", "list"]).failed(3, "cap schema apply");
    assert_eq!(folder.json(&["schema", "apply", "--dry-run"])["action"], "create");
    assert!(!folder.database().exists());
    assert_eq!(folder.json(&["schema", "apply"])["action"], "create");
    assert_eq!(folder.json(&["schema", "apply"])["action"], "none");
    assert_eq!(folder.json(&["schema", "check"])["state"], "current");
}

#[test]
fn addresses_that_cannot_be_used_are_explained() {
    let folder = Folder::new();
    folder.run(&["schema", "check", "--storage", "shop.db"]).failed(2, "sqlite:FILE");
    folder.run(&["schema", "check", "--storage", "sqlite:"]).failed(2, "names no file");
    folder.run(&["schema", "check", "--storage", "postgres://h:x/db"]).failed(2, "URL");
}

#[test]
fn sql_is_printed_without_a_connection() {
    let folder = Folder::new();
    assert!(folder.run(&["schema", "print", "postgres"]).out.contains("CREATE SCHEMA IF NOT EXISTS \"cap\""));
    assert!(folder.run(&["schema", "print", "sqlite"]).out.contains("cap_outbox"));
    assert!(!folder.run(&["schema", "print", "postgres", "--from", "4"]).out.contains("CREATE SCHEMA"));
    folder.run(&["schema", "print", "sqlite", "--from", "1"]).failed(2, "PostgreSQL");
}

#[test]
fn completions_and_the_man_page_name_the_commands() {
    let folder = Folder::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(folder.run(&["completions", shell]).out.contains("topology"), "{shell}");
    }
    assert!(folder.run(&["man"]).out.contains(".TH cap 1"));
    assert!(folder.run(&["--help"]).out.contains("Exit codes"));
    folder.run(&["nonsense"]).failed(2, "unrecognized subcommand");
    let json = folder.run(&["nonsense", "--json"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json.err).unwrap()["code"], 2);
}

#[test]
fn doctor_says_what_to_do_about_a_file() {
    let folder = Folder::new();
    let ended = folder.on_file(&["doctor"]);
    ended.failed(4, "problems were found");
    assert!(ended.out.contains("cap schema apply"), "{ended:?}");
    folder.on_file(&["schema", "apply"]);
    assert_eq!(folder.json(&["doctor"])["healthy"], true);
}
