//! What must be logged.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cap_core::BoxError;
use cap_core::prelude::*;
use cap_sqlite::SqliteTx;
use tracing_subscriber::fmt::MakeWriter;

use crate::support::Database;

/// A log that the test can read.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

async fn plain(publisher: Publisher) -> Result<(), BoxError> {
    publisher.publish("told", &1).message_id("taken-17").await?;
    Ok(())
}

async fn exact(publisher: Publisher, _: SqliteTx) -> Result<(), BoxError> {
    plain(publisher).await
}

#[tokio::test]
async fn publishing_under_a_taken_id_is_logged() {
    let log = Log::default();
    let logging = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
    let _logging = tracing::subscriber::set_default(logging);
    let database = Database::new().await;
    let cap = database.bus().subscribe("plain", plain).subscribe("exact", exact).start().await.unwrap();
    cap.publish("told", &0).message_id("taken-17").await.unwrap();
    for (warnings, topic) in ["plain", "exact"].into_iter().enumerate() {
        cap.publish(topic, &()).await.unwrap();
        let warned = async {
            while log.text().matches("message id already in the outbox").count() <= warnings {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), warned)
            .await
            .unwrap_or_else(|_| panic!("{}", log.text()));
    }
    assert!(log.text().contains("message_id=\"taken-17\""), "{}", log.text());
    cap.shutdown().await.unwrap();
}
