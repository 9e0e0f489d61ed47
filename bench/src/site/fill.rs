//! Fills a queue before a round begins.

use std::collections::VecDeque;

use lapin::BasicProperties;

use crate::BoxResult;
use crate::load::Load;
use crate::site::Site;
use crate::site::broker::{cap_properties, mandatory, properties};

/// How many messages may be unconfirmed.
const WINDOW: usize = 1000;

/// Publishes the round's messages, and waits until the broker has all of them: as cap would have sent them, to its
/// exchange, or to the hand-written loop's queue.
pub(crate) async fn fill(site: &Site, load: &Load, is_caps: bool) -> BoxResult<()> {
    let channel = site.broker.publisher().await?;
    let (exchange, key) = if is_caps { (&*site.name, "bench") } else { ("", &*site.name) };
    let mut unconfirmed = VecDeque::new();
    for number in 0..site.messages {
        let properties: BasicProperties =
            if is_caps { cap_properties(number, "bench") } else { properties(number) };
        let body = serde_json::to_vec(&load.payload(number))?;
        let confirm =
            channel.basic_publish(exchange.into(), key.into(), mandatory(), &body, properties).await?;
        unconfirmed.push_back(confirm);
        if unconfirmed.len() == WINDOW
            && let Some(oldest) = unconfirmed.pop_front()
        {
            oldest.await?;
        }
    }
    for confirm in unconfirmed {
        confirm.await?;
    }
    drop(channel.close(200, "done".into()).await);
    Ok(())
}
