//! Tasks that handle what one consumer receives.

use std::sync::Arc;

use futures_util::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::BasicAckOptions;
use lapin::types::ShortString;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use super::tables::Session;
use crate::BoxResult;
use crate::load::{Load, Payload};
use crate::site::Site;

/// How a message is handled.
#[derive(Debug, Clone, Copy)]
pub(super) enum How {
    /// Inserted, handled, marked.
    MarkAfterwards,
    /// In one transaction with a row of the application's.
    InTransaction,
}

/// The tasks.
pub(super) struct Receiving {
    tasks: JoinSet<BoxResult<()>>,
    /// The consumer ends with its channel.
    _channel: lapin::Channel,
}

impl Receiving {
    pub(super) async fn start(
        site: &Site,
        queue: &ShortString,
        count: usize,
        how: How,
        load: &Arc<Load>,
    ) -> BoxResult<Self> {
        // Before the first message comes.
        let mut sessions = Vec::new();
        for _ in 0..count {
            sessions.push(Session::open(site).await?);
        }
        let (channel, mut consumer) = site.broker.consumer(queue).await?;
        let (sender, receiver) = mpsc::channel(300);
        let receiver = Arc::new(Mutex::new(receiver));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Some(delivery) = consumer.next().await {
                sender.send(delivery?).await?;
            }
            Ok(())
        });
        for session in sessions {
            let (receiver, load) = (Arc::clone(&receiver), Arc::clone(load));
            tasks.spawn(async move {
                loop {
                    let next = receiver.lock().await.recv().await;
                    let Some(delivery) = next else { return Ok(()) };
                    let handled = handle(&session, &delivery, how, &load).await;
                    if let Err(error) = handled {
                        eprintln!("the hand-written handler failed: {error}");
                        return Err(error);
                    }
                }
            });
        }
        Ok(Self { tasks, _channel: channel })
    }

    pub(super) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn handle(session: &Session, delivery: &Delivery, how: How, load: &Load) -> BoxResult<()> {
    let Session { client, business, inbox, handled, inbox_handled, .. } = session;
    let id: i64 = delivery.properties.message_id().as_ref().ok_or("no id")?.as_str().parse()?;
    match how {
        How::MarkAfterwards => {
            let is_new = client.execute(inbox, &[&id, &delivery.data]).await? == 1;
            if is_new {
                load.handled(&serde_json::from_slice::<Payload>(&delivery.data)?);
            }
            client.execute(handled, &[&id]).await?;
        }
        How::InTransaction => {
            client.batch_execute("BEGIN").await?;
            let is_new = client.execute(inbox_handled, &[&id, &delivery.data]).await? == 1;
            let payload: Payload = serde_json::from_slice(&delivery.data)?;
            if is_new {
                client.execute(business, &[&id]).await?;
            }
            client.batch_execute("COMMIT").await?;
            load.handled(&payload);
        }
    }
    delivery.ack(BasicAckOptions::default()).await?;
    Ok(())
}
