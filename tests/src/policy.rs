//! Policies of the broker, which its own tool sets.

use tokio::process::Command;

/// A policy of the broker; it is taken back when this is dropped.
#[derive(Debug)]
pub struct Policy(String);

impl Policy {
    /// Has queues whose names begin like this take so many messages each. `None`, with a line that says so, where
    /// rabbitmqctl is not at hand or manages another broker than that of the tests, which has this queue.
    #[allow(clippy::print_stderr, reason = "a test that is left out says so")]
    pub async fn limit(prefix: &str, length: u32, of_the_tests: &str) -> Option<Self> {
        let set = async {
            let queues = rabbitmqctl(&["list_queues", "name"]).await?;
            queues.lines().any(|queue| queue == of_the_tests).then_some(())?;
            let pattern = format!("^{}", prefix.replace('.', "\\."));
            let definition = format!(r#"{{"max-length":{length}}}"#);
            rabbitmqctl(&["set_policy", "--apply-to", "queues", prefix, &pattern, &definition]).await?;
            Some(Self(prefix.to_owned()))
        };
        let policy = set.await;
        if policy.is_none() {
            eprintln!("LEFT OUT: rabbitmqctl cannot set a policy at the broker of the tests");
        }
        policy
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        drop(std::process::Command::new("rabbitmqctl").args(["-q", "clear_policy", &self.0]).output());
    }
}

async fn rabbitmqctl(words: &[&str]) -> Option<String> {
    let done = Command::new("rabbitmqctl").arg("-q").args(words).output().await.ok()?;
    done.status.success().then(|| String::from_utf8_lossy(&done.stdout).into_owned())
}
