//! Runs from the moment when everything is set up until the last message is handled.

use std::time::{Duration, Instant};

use crate::BoxResult;
use crate::measure::cpu::{Cpu, Used};
use crate::site::Site;

/// A running measurement.
pub(crate) struct Meter<'a> {
    site: &'a Site,
    cpu: Cpu,
    wal: i64,
    start: Instant,
}

/// What was used from start to stop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Metered {
    pub(crate) took: Duration,
    pub(crate) cpu: Used,
    /// Bytes of write-ahead log, of the whole server.
    pub(crate) wal: i64,
}

impl<'a> Meter<'a> {
    pub(crate) async fn start(site: &'a Site) -> BoxResult<Self> {
        let wal = site.wal_position().await?;
        Ok(Self { site, cpu: Cpu::now(&site.name), wal, start: Instant::now() })
    }

    pub(crate) async fn stop(self) -> BoxResult<Metered> {
        let took = self.start.elapsed();
        let cpu = Cpu::now(&self.site.name).since(&self.cpu);
        let wal = self.site.wal_position().await? - self.wal;
        Ok(Metered { took, cpu, wal })
    }
}
