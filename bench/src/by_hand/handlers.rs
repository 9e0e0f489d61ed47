//! Handles a filled queue.

use super::Setting;
use super::receive::{How, Receiving};
use super::tables::create;
use crate::BoxResult;
use crate::load::Load;
use crate::measure::meter::Meter;
use crate::measure::reading::Reading;
use crate::site::{Site, fill};

/// Handlers that write a row, in one transaction with the inbox row.
pub(crate) async fn in_transactions(site: Site, setting: Setting) -> BoxResult<Reading> {
    run(site, setting, How::InTransaction).await
}

/// Handlers that do nothing.
pub(crate) async fn without_effect(site: Site, setting: Setting) -> BoxResult<Reading> {
    run(site, setting, How::MarkAfterwards).await
}

async fn run(site: Site, setting: Setting, how: How) -> BoxResult<Reading> {
    create(&site).await?;
    let load = Load::new(0);
    let queue = site.broker.declare(setting.queue).await?;
    fill(&site, &load, false).await?;
    let receiving = Receiving::start(&site, &queue, setting.tasks, how, &load).await?;
    load.first_handled().await?;
    let meter = Meter::start(&site).await?;
    let messages = site.messages - load.count();
    load.all_handled(site.messages).await?;
    let metered = meter.stop().await?;
    receiving.stop().await;
    site.finish(messages, &metered, None).await
}
