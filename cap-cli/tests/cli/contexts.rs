//! Contexts, production, and what is never shown.

use crate::support::Folder;

#[test]
fn contexts_are_added_used_listed_and_removed() {
    let folder = Folder::new();
    assert!(folder.run(&["context", "list"]).out.contains("no contexts"));
    assert_eq!(folder.run(&["context", "add", "dev", "--storage", "sqlite:shop.db"]).code, 0);
    assert_eq!(folder.run(&["context", "add", "prod", "--storage-env", "PROD", "--production"]).code, 0);
    folder.run(&["context", "add", "dev", "--storage", "sqlite:x"]).failed(2, "exists already");
    folder.run(&["context", "use", "nowhere"]).failed(3, "there is no context \"nowhere\"");
    folder.run(&["context", "add", "empty"]).failed(2, "needs a storage or a broker");
    assert_eq!(folder.run(&["context", "use", "prod"]).code, 0);
    let list = folder.run(&["context", "list", "--json"]).json();
    assert_eq!(list["contexts"][0]["name"], "dev");
    assert_eq!(list["contexts"][1]["current"], true);
    assert_eq!(list["contexts"][1]["storage"], "$PROD");
    folder.run(&["schema", "check"]).failed(2, "takes a connection string from the variable \"PROD\"");
    assert_eq!(folder.run(&["context", "remove", "prod", "--dry-run"]).code, 0);
    assert_eq!(folder.run(&["context", "remove", "prod"]).code, 0);
    folder.run(&["context", "remove", "prod"]).failed(3, "there is no context");
}

#[test]
fn production_asks_for_the_name_of_the_context() {
    let folder = Folder::with_tables();
    folder.run(&["context", "add", "prod", "--storage", "sqlite:shop.db", "--production"]);
    let publish = ["publish", "a", "--payload", "1", "--wait", "0s"];
    let with = |more: &[&str]| folder.run(&[&publish, more].concat());
    with(&[]).failed(5, "confirm with --yes-production prod");
    with(&["--yes-production", "dev"]).failed(5, "not the name");
    assert_eq!(with(&["--dry-run"]).code, 0);
    let none = folder.run(&["messages", "list", "--published", "--json"]).json();
    assert_eq!(none["messages"].as_array().unwrap().len(), 0, "nothing was stored");
    assert_eq!(with(&["--yes-production", "prod"]).code, 0);
    let delete = ["messages", "delete", "--all", "--published", "--topic", "a"];
    folder.run(&delete).failed(5, "production");
    folder.run(&["messages", "edit", "1", "--payload", "1"]).failed(5, "production");
    assert_eq!(folder.run(&["messages", "list"]).code, 0, "reading needs no confirmation");
}

#[cfg(unix)]
#[test]
fn configuration_is_private_and_its_mistakes_are_named() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new();
    folder.run(&["context", "add", "dev", "--storage", "postgres://u:s3cret@h/db"]);
    let file = folder.path().join("config.toml");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::write(&file, "[contexts.dev]\nstorage = \"postgres://u:s3cret@h/db\"\nproductoin = true\n")
        .unwrap();
    let ended = folder.run(&["context", "list"]);
    ended.failed(2, "is not valid near line");
    assert!(!ended.err.contains("s3cret"), "{ended:?}");
}

#[test]
fn connection_strings_are_never_printed() {
    let folder = Folder::new();
    let (storage, broker) = ("postgres://u:s3cret@127.0.0.1:1/db", "amqp://u:s3cret@127.0.0.1:1/v");
    let both = ["--storage", storage, "--broker", broker];
    folder.run(&[&["context", "add", "x"][..], &both].concat());
    for arguments in [
        &["context", "list"][..],
        &["context", "list", "--json"],
        &["schema", "check"],
        &["messages", "list", "-v"],
        &["health"],
        &["health", "--json"],
        &["doctor"],
        &["doctor", "--json"],
        &["topology"],
        &["tail", "a"],
        &[storage],
        &["messages", "show", storage],
        &["schema", "check", "--storage", "mysql://u:s3cret@h/db"],
        &["schema", "check", "--storage", "postgres://u:s3cret@h:port/db"],
        &["topology", "--broker", "amqp:/u:s3cret@h"],
        &["topology", "--broker", "http://u:s3cret@h"],
    ] {
        let ended = folder.run(arguments);
        assert!(!ended.out.contains("s3cret") && !ended.err.contains("s3cret"), "{arguments:?}: {ended:?}");
    }
}
