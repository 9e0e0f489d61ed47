//! The stream of the overview's numbers.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use askama::Template as _;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep};

use super::overview::{Live, LivePart};
use crate::request::Problem;
use crate::web::Reader;

/// How often the numbers are sent.
const INTERVAL: Duration = Duration::from_secs(2);
/// A stream ends after this time, and the page asks anew, so that nobody looks on for long after the right to it has gone.
const LONGEST: Duration = Duration::from_mins(10);

/// A stream, and its place among those that are allowed.
struct Streaming {
    reader: Reader,
    ends: Instant,
    is_first: bool,
    _place: OwnedSemaphorePermit,
}

/// Sends the changing part of the overview every two seconds.
pub(super) async fn stream(reader: Reader) -> Result<Response, Problem> {
    let place = Arc::clone(&reader.app.streams).try_acquire_owned().map_err(|_| Problem::TooManyStreams)?;
    let streaming = Streaming { reader, ends: Instant::now() + LONGEST, is_first: true, _place: place };
    let events = stream::unfold(streaming, |mut streaming| async move {
        if !streaming.is_first {
            sleep(INTERVAL).await;
        }
        streaming.is_first = false;
        if Instant::now() >= streaming.ends {
            return None;
        }
        let event = streaming.event().await?;
        Some((Ok::<_, Infallible>(event), streaming))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

impl Streaming {
    async fn event(&self) -> Option<Event> {
        let reading = self.reader.app.live.read().await;
        let t = self.reader.context.text();
        let live = Live::new(&reading, &self.reader.context.base, t);
        let html = LivePart { t, live }.render().ok()?;
        Some(Event::default().event("overview").data(html))
    }
}
