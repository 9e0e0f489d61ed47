//! `cap tail`: follows topics at the broker.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use cap_core::Message;
use cap_core::message::TopicPattern;
use cap_core::transport::{Incoming, Transport as _};
use clap::Args;
use serde_json::json;

use crate::common::Common;
use crate::failure::Failure;
use crate::output::{Output, iso, one_line};
use crate::selection::body;
use crate::site::{Settings, open_broker};

/// What to follow.
#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    /// Topics in full, with * for one word and # for any number
    #[arg(required = true)]
    topics: Vec<String>,
    /// End after this many messages
    #[arg(long, short = 'n', value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this time
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    time: Option<Duration>,
    /// The most messages that the broker keeps for this command; then it drops the oldest
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    capacity: u32,
    /// Show the headers, too
    #[arg(long)]
    headers: bool,
}

pub(super) async fn run(arguments: &TailArgs, common: &Common, output: &Output) -> Result<(), Failure> {
    let topics: Result<Vec<_>, _> = arguments.topics.iter().map(|topic| TopicPattern::parse(topic)).collect();
    let topics = topics.map_err(|error| Failure::Usage(error.to_string()))?;
    let broker = open_broker(&Settings::of(common)?)?;
    let followed = async {
        let mut follower = broker.follow(&topics, arguments.capacity).await?;
        output.note(&format!("following {}; end with Ctrl-C", arguments.topics.join(", ")));
        let mut left = arguments.count.unwrap_or(u64::MAX);
        while left > 0 {
            show(&follower.next().await?, arguments, output)?;
            left -= 1;
        }
        Ok(())
    };
    let time = async {
        match arguments.time {
            Some(time) => tokio::time::sleep(time).await,
            None => std::future::pending().await,
        }
    };
    // Each branch may be dropped at any await: the queue ends with the connection.
    let ended = tokio::select! {
        ended = followed => ended,
        () = time => Ok(()),
        signal = tokio::signal::ctrl_c() => signal.map_err(Failure::from),
    };
    broker.close().await;
    ended
}

fn show(incoming: &Incoming, arguments: &TailArgs, output: &Output) -> Result<(), Failure> {
    let at = iso(SystemTime::now());
    let message = Message::new(incoming.headers.clone(), incoming.body.clone());
    let (payload, encoding) = body(&message);
    let object = json!({
        "at": at,
        "topic": incoming.routing_key,
        "message_id": message.id(),
        "headers": message.headers.iter().map(|(name, value)| (name.to_owned(), value.into())).collect::<serde_json::Map<_, _>>(),
        "payload": payload,
        "payload_encoding": encoding,
    });
    output.print(&object, || {
        let id = message.id().unwrap_or("-");
        let mut text =
            format!("{at} {} {} {}", one_line(&incoming.routing_key), one_line(id), one_line(&payload));
        for (name, value) in message.headers.iter().filter(|_| arguments.headers) {
            let _ = write!(text, "\n  {}: {}", one_line(name), one_line(value.unwrap_or("(null)")));
        }
        text
    })
}
