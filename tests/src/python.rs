//! A peer in another language: Python with pika.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::amqp_url;
use crate::patience::soon;

/// Runs a script of `tests/python` with a JSON request, and gives back its JSON answer. A script that ends with an
/// error, or does not end at all, fails the test.
pub async fn python(script: &str, request: &Value) -> Value {
    let program = std::env::var("CAP_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut command = Command::new(&program);
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(script))
        .env("AMQP_URL", amqp_url())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if let Some(packages) = installed_packages() {
        command.env("PYTHONPATH", packages);
    }
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    let mut input = child.stdin.take().unwrap();
    input.write_all(request.to_string().as_bytes()).await.unwrap();
    drop(input);
    let output = soon(child.wait_with_output()).await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{script} failed; scripts/test finds or installs a Python with pika\n{errors}"
    );
    serde_json::from_slice(&output.stdout).expect("the script should answer in JSON")
}

/// Where `scripts/test` has put pika, if it had to: beside the programs that it built.
fn installed_packages() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    program.ancestors().map(|folder| folder.join("python")).find(|packages| packages.join("pika").is_dir())
}
