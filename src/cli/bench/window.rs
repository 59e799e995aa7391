//! What was used and what happened between two moments: the measured part of a run.

use anyhow::Result;

use super::process::Process;
use super::report::ServerUse;
use super::tracker::Tracker;

/// Counters at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    at: u64,
    server_cpu: u64,
    client_cpu: u64,
    deliveries: u64,
    published: u64,
}

/// The measured window, and the processes that are watched over it.
#[derive(Debug)]
pub(super) struct Window {
    server: Option<(u32, Process)>,
    client: Process,
    pss_before: u64,
    pss_connected: u64,
    from: Sample,
    to: Sample,
}

impl Window {
    /// Looks at the server before anything is connected.
    ///
    /// # Errors
    /// When there is no such process.
    pub(super) fn new(pid: Option<u32>) -> Result<Self> {
        let server = pid.map(|pid| (pid, Process::new(pid)));
        let pss_before = server.as_ref().map_or(Ok(0), |(_, server)| server.pss_bytes())?;
        let (from, to) = (Sample::default(), Sample::default());
        Ok(Self { server, client: Process::this(), pss_before, pss_connected: pss_before, from, to })
    }

    /// All streams stand: looks at the server's memory again.
    ///
    /// # Errors
    /// When it has ended.
    pub(super) fn connected(&mut self) -> Result<()> {
        if let Some((_, server)) = &self.server {
            self.pss_connected = server.pss_bytes()?;
        }
        Ok(())
    }

    /// The window begins.
    ///
    /// # Errors
    /// When the server has ended.
    pub(super) fn open(&mut self, now: u64, tracker: &Tracker) -> Result<()> {
        self.from = self.sample(now, tracker)?;
        Ok(())
    }

    /// The window ends.
    ///
    /// # Errors
    /// When the server has ended.
    pub(super) fn close(&mut self, now: u64, tracker: &Tracker) -> Result<()> {
        self.to = self.sample(now, tracker)?;
        Ok(())
    }

    fn sample(&self, now: u64, tracker: &Tracker) -> Result<Sample> {
        Ok(Sample {
            at: now,
            server_cpu: self.server.as_ref().map_or(Ok(0), |(_, server)| server.cpu_micros())?,
            client_cpu: self.client.cpu_micros()?,
            deliveries: tracker.deliveries(),
            published: tracker.published(),
        })
    }

    /// Events published since it began.
    pub(super) fn published_so_far(&self, tracker: &Tracker) -> u64 {
        tracker.published() - self.from.published
    }

    /// Deliveries since it began.
    pub(super) fn deliveries_so_far(&self, tracker: &Tracker) -> u64 {
        tracker.deliveries() - self.from.deliveries
    }

    /// Its length.
    pub(super) fn micros(&self) -> u64 {
        self.to.at.saturating_sub(self.from.at)
    }

    /// Events published within it.
    pub(super) fn published(&self) -> u64 {
        self.to.published - self.from.published
    }

    /// Deliveries within it.
    pub(super) fn deliveries(&self) -> u64 {
        self.to.deliveries - self.from.deliveries
    }

    /// Our own share of one core.
    pub(super) fn client_percent(&self) -> f64 {
        self.percent(self.to.client_cpu.saturating_sub(self.from.client_cpu))
    }

    fn percent(&self, cpu_micros: u64) -> f64 {
        100.0 * cpu_micros as f64 / self.micros().max(1) as f64
    }

    /// What the server used, with `streams` open.
    pub(super) fn server_use(&self, streams: usize) -> Option<ServerUse> {
        let (pid, _) = self.server.as_ref()?;
        let cpu_micros = self.to.server_cpu.saturating_sub(self.from.server_cpu);
        let deliveries = self.deliveries();
        Some(ServerUse {
            pid: *pid,
            cpu_micros,
            cpu_percent: self.percent(cpu_micros),
            cpu_micros_per_delivery: (deliveries > 0).then(|| cpu_micros as f64 / deliveries as f64),
            pss_bytes_before: self.pss_before,
            pss_bytes_connected: self.pss_connected,
            bytes_per_connection: (self.pss_connected as f64 - self.pss_before as f64)
                / streams.max(1) as f64,
        })
    }
}
