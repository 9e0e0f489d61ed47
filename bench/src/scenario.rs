//! The scenarios, and what each system does in them.

use clap::ValueEnum;

use crate::by_hand::{self, Setting};
use crate::measure::reading::Reading;
use crate::site::Site;
use crate::with_cap::publish::{Publishing, Way};
use crate::{BoxResult, raw, with_cap};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// 32 callers publish in `CapTransaction`s, end to end.
    PublishInTransaction,
    /// 32 callers publish in plain `sqlx::Transaction`s, end to end.
    PublishInPlainTransaction,
    /// Handlers with a `PgTx`, 8 at a time, from a filled queue.
    #[value(name = "pgtx-handlers-8")]
    PgtxHandlers8,
    /// Handlers with a `PgTx`, one at a time, from a filled queue.
    #[value(name = "pgtx-handlers-1")]
    PgtxHandlers1,
    /// One message at a time, 50 a second, published alone.
    IdleLatency,
    /// One message at a time, 50 a second, published in a transaction.
    IdleLatencyInTransaction,
    /// 32 callers publish alone, 200 messages on their way.
    PublishAloneW200,
    /// 256 callers publish alone, 1,000 messages on their way.
    PublishAloneW1000,
    /// 8 callers publish 100 at a time, 4,000 messages on their way.
    #[value(name = "publish-all-100")]
    PublishAll100,
    /// A backlog of 50,000 messages that nobody has leased.
    #[value(name = "backlog-50000")]
    Backlog50000,
    /// A handler that does nothing, from a filled queue.
    ConsumeFilledQueue,
    /// As `publish-alone-w1000`, with 2 million old rows in each table. Opt-in.
    OldRows,
}

/// Who does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum System {
    Cap,
    Handwritten,
    /// The servers alone, without a guarantee.
    Raw,
}

impl System {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Cap => "cap",
            Self::Handwritten => "handwritten",
            Self::Raw => "raw",
        }
    }
}

/// Messages on their way where nobody limits them otherwise, as the hand-written loop does best with.
const WINDOW: usize = 1000;

impl Scenario {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether it takes too long to be run without being asked for.
    pub(crate) fn is_opt_in(self) -> bool {
        self == Self::OldRows
    }

    /// The systems that can do it.
    pub(crate) fn systems(self) -> &'static [System] {
        match self {
            Self::Backlog50000 | Self::OldRows => &[System::Cap],
            Self::PgtxHandlers8
            | Self::PgtxHandlers1
            | Self::IdleLatency
            | Self::IdleLatencyInTransaction => &[System::Handwritten, System::Cap],
            _ => &[System::Handwritten, System::Cap, System::Raw],
        }
    }

    /// The settings of the hand-written loop, of which the best is found out before the first round.
    pub(crate) fn settings(self) -> Vec<Setting> {
        let with =
            |queue, tasks: &[usize]| tasks.iter().map(move |&tasks| Setting { tasks, queue }).collect();
        match self {
            Self::PublishInTransaction
            | Self::PublishInPlainTransaction
            | Self::PublishAloneW200
            | Self::PublishAloneW1000
            | Self::PublishAll100 => with("classic", &[8, 32, 64]),
            Self::ConsumeFilledQueue => with("quorum", &[8, 32]),
            Self::PgtxHandlers8 => with("quorum", &[8]),
            _ => with("quorum", &[1]),
        }
    }

    /// Runs one round.
    pub(crate) async fn run(self, system: System, setting: Setting, site: Site) -> BoxResult<Reading> {
        match system {
            System::Cap => self.run_cap(site).await,
            System::Handwritten => self.run_handwritten(setting, site).await,
            System::Raw => self.run_raw(site).await,
        }
    }

    async fn run_cap(self, site: Site) -> BoxResult<Reading> {
        let publish = |way, callers, window| Publishing { way, callers, window };
        match self {
            Self::PublishInTransaction => publish(Way::CapTransaction, 32, WINDOW).run(site).await,
            Self::PublishInPlainTransaction => publish(Way::PlainTransaction, 32, WINDOW).run(site).await,
            Self::PgtxHandlers8 => with_cap::handlers::in_transactions(site, 8).await,
            Self::PgtxHandlers1 => with_cap::handlers::in_transactions(site, 1).await,
            Self::IdleLatency => with_cap::idle::run(site, Way::Alone).await,
            Self::IdleLatencyInTransaction => with_cap::idle::run(site, Way::CapTransaction).await,
            Self::PublishAloneW200 => publish(Way::Alone, 32, 200).run(site).await,
            Self::PublishAloneW1000 => publish(Way::Alone, 256, WINDOW).run(site).await,
            Self::PublishAll100 => publish(Way::All(100), 8, 4000).run(site).await,
            Self::Backlog50000 => with_cap::backlog::run(site, 50_000).await,
            Self::ConsumeFilledQueue => with_cap::handlers::without_effect(site).await,
            Self::OldRows => with_cap::old_rows::run(site, 2_000_000, publish(Way::Alone, 256, WINDOW)).await,
        }
    }

    async fn run_handwritten(self, setting: Setting, site: Site) -> BoxResult<Reading> {
        match self {
            Self::PublishInTransaction | Self::PublishInPlainTransaction => {
                by_hand::publish::run(site, setting, true, WINDOW).await
            }
            Self::PgtxHandlers8 | Self::PgtxHandlers1 => {
                by_hand::handlers::in_transactions(site, setting).await
            }
            Self::IdleLatency => by_hand::idle::run(site, false).await,
            Self::IdleLatencyInTransaction => by_hand::idle::run(site, true).await,
            Self::PublishAloneW200 => by_hand::publish::run(site, setting, false, 200).await,
            Self::ConsumeFilledQueue => by_hand::handlers::without_effect(site, setting).await,
            _ => by_hand::publish::run(site, setting, false, WINDOW).await,
        }
    }

    async fn run_raw(self, site: Site) -> BoxResult<Reading> {
        match self {
            Self::PublishInTransaction | Self::PublishInPlainTransaction => raw::insert::run(site, 32).await,
            Self::PublishAloneW200 => raw::pipe::run(site, 200).await,
            Self::ConsumeFilledQueue => raw::consume::run(site).await,
            _ => raw::pipe::run(site, WINDOW).await,
        }
    }
}
