//! One run: connect, settle, warm up, measure, wait for the rest, report. All of it in one thread and one poller.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use mio::{Events, Poll, Token};
use rand::Rng;

use super::marker;
use super::options::Options;
use super::pace::Due;
use super::publisher::{Answer, Publisher};
use super::report::{self, Report, Times};
use super::swarm::{Plan, Swarm};
use super::tracker::{MAX_OUTSTANDING, Tracker};
use super::window::Window;
use crate::clock::Clock;

const PUBLISHER: Token = Token(usize::MAX >> 1);

/// Connections that are begun before the poller is looked at again.
const CONNECT_BATCH: usize = 64;

/// Between the last stream's opening and the first event, in microseconds: first blocks come in, memory settles.
const SETTLE: u64 = 500_000;

/// How long the opening of streams may go on without any progress, in microseconds.
const CONNECT_PATIENCE: u64 = 30_000_000;

/// Between two looks at the clock when nothing happens, in microseconds.
const TICK: u64 = 50_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting { progress_at: u64, decided: usize },
    Settling { until: u64 },
    WarmingUp { until: u64 },
    Measuring { since: u64 },
    Waiting { until: u64 },
    Done,
}

/// A run.
pub(super) struct Run {
    options: Options,
    clock: Clock,
    poll: Poll,
    swarm: Swarm,
    publisher: Option<Publisher>,
    tracker: Tracker,
    first_id: u64,
    phase: Phase,
    publish_start: u64,
    publish_refused: BTreeMap<String, u64>,
    window: Window,
    connected_at: u64,
    open: usize,
    progress: ProgressBar,
    progress_at: u64,
}

impl Run {
    /// Prepares a run; nothing is connected yet.
    ///
    /// # Errors
    /// When the process to be watched is not there, or the system gives no poller.
    pub(super) fn new(options: Options) -> Result<Self> {
        let poll = Poll::new()?;
        // 2^51 and more, so that events of an earlier run (a server may replay them) are not taken for this one's.
        let first_id = rand::rng().random_range(1u64 << 24..1 << 25) << 27;
        let swarm = Swarm::new(Plan {
            address: options.target.address,
            request: options.target.get(&options.headers),
            connections: options.connections,
            sources: options.sources,
            first_id,
        })?;
        Ok(Self {
            clock: Clock::system(),
            poll,
            swarm,
            publisher: None,
            tracker: Tracker::new()?,
            first_id,
            phase: Phase::Connecting { progress_at: 0, decided: 0 },
            publish_start: 0,
            publish_refused: BTreeMap::new(),
            window: Window::new(options.pid)?,
            connected_at: 0,
            open: 0,
            progress: progress(options.connections as u64, "connecting"),
            progress_at: 0,
            options,
        })
    }

    /// Does it.
    ///
    /// # Errors
    /// When the publisher or a watched process goes away.
    pub(super) fn run(mut self) -> Result<Report> {
        let outcome = self.drive();
        self.progress.finish_and_clear();
        outcome?;
        Ok(self.report())
    }

    fn drive(&mut self) -> Result<()> {
        let mut events = Events::with_capacity(4096);
        loop {
            let now = self.clock.micros();
            self.step(now)?;
            if self.phase == Phase::Done {
                return Ok(());
            }
            self.connect_due(now);
            let next = self.publish_due(now)?.min(self.next_step());
            match self.poll.poll(&mut events, Some(self.timeout(next))) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
                Ok(()) | Err(_) => {}
            }
            for event in &events {
                if event.token() == PUBLISHER {
                    self.publisher_ready()?;
                } else {
                    let now = self.clock.micros();
                    self.swarm.ready(event.token().0, event, now, &mut self.tracker);
                }
            }
        }
    }

    /// Goes on to the next phase when this one is over.
    fn step(&mut self, now: u64) -> Result<()> {
        self.show_progress(now);
        self.phase = match self.phase {
            Phase::Connecting { progress_at, decided } => self.step_connecting(now, progress_at, decided),
            Phase::Settling { until } if now >= until => self.begin_publishing(now)?,
            Phase::WarmingUp { until } if now >= until => self.begin_measuring(now)?,
            Phase::Measuring { since } if self.is_measured(now, since) => {
                Phase::Waiting { until: now + self.patience() }
            }
            Phase::Waiting { until } if now >= until || self.all_arrived() => self.end(now)?,
            same => same,
        };
        self.tracker.give_up_overdue(now, self.patience());
        if self.publisher.as_ref().is_some_and(|publisher| publisher.unanswered_for(now) > self.patience()) {
            bail!("the server does not answer what is published");
        }
        Ok(())
    }

    fn step_connecting(&mut self, now: u64, progress_at: u64, before: usize) -> Phase {
        let decided = self.swarm.decided();
        if decided == self.options.connections || now > progress_at + CONNECT_PATIENCE {
            self.connected_at = now;
            return Phase::Settling { until: now + SETTLE };
        }
        let waiting_for_the_rate = self.swarm.begun() == decided;
        let progress_at = if decided > before || waiting_for_the_rate { now } else { progress_at };
        Phase::Connecting { progress_at, decided }
    }

    fn begin_publishing(&mut self, now: u64) -> Result<Phase> {
        self.window.connected()?;
        self.open = self.swarm.counts.open;
        if self.open == 0 {
            let why = self.swarm.counts.refused.keys().next().map_or("no answer", String::as_str);
            bail!("no stream could be opened at {}: {why}", self.options.target.address);
        }
        if let Some((way, template)) = self.options.publish.clone() {
            self.publisher = Some(Publisher::new(way, template, PUBLISHER, self.poll.registry())?);
        }
        self.publish_start = now;
        if self.options.warmup.is_zero() {
            return self.begin_measuring(now);
        }
        Ok(Phase::WarmingUp { until: now + micros(self.options.warmup) })
    }

    fn begin_measuring(&mut self, now: u64) -> Result<Phase> {
        self.tracker.start_measuring();
        self.window.open(now, &self.tracker)?;
        let length =
            self.options.events.or(self.options.duration.map(|duration| duration.as_millis() as u64));
        self.progress = progress(length.unwrap_or_default(), "measuring");
        Ok(Phase::Measuring { since: now })
    }

    fn is_measured(&self, now: u64, since: u64) -> bool {
        let over = self.options.duration.is_some_and(|duration| now - since >= micros(duration));
        let enough = self.options.events.is_some_and(|events| self.published() >= events);
        over || (enough && self.publisher.is_some())
    }

    fn patience(&self) -> u64 {
        micros(self.options.patience)
    }

    /// Events since the measuring began.
    fn published(&self) -> u64 {
        self.window.published_so_far(&self.tracker)
    }

    fn all_arrived(&self) -> bool {
        self.tracker.outstanding() == 0
            && self.publisher.as_ref().is_none_or(|publisher| publisher.waiting() == 0)
    }

    fn end(&mut self, now: u64) -> Result<Phase> {
        self.window.close(now, &self.tracker)?;
        Ok(Phase::Done)
    }

    fn connect_due(&mut self, now: u64) {
        if !matches!(self.phase, Phase::Connecting { .. }) {
            return;
        }
        let by_rate =
            self.options.connect_rate.map_or(usize::MAX, |rate| (now as f64 * rate / 1e6) as usize + 1);
        let wanted = self.options.connections.min(by_rate);
        for _ in 0..CONNECT_BATCH.min(wanted.saturating_sub(self.swarm.begun())) {
            let now = self.clock.micros();
            self.swarm.begin(self.poll.registry(), now);
        }
    }

    /// Publishes what is due, and says when there is more; what waits for an answer or an arrival has no time.
    fn publish_due(&mut self, now: u64) -> Result<u64> {
        while matches!(self.phase, Phase::WarmingUp { .. } | Phase::Measuring { .. }) {
            let (events, due) = match self.due(now) {
                Due::Now { events, at } => (events, at),
                Due::At(at) => return Ok(at),
                Due::AfterDeliveries => break,
            };
            let events = events.min(self.left());
            let Some(publisher) = &mut self.publisher else {
                break;
            };
            let events = events.min(publisher.room());
            if events == 0 || self.tracker.outstanding() + events > MAX_OUTSTANDING {
                break;
            }
            for _ in 0..events {
                let n = self.tracker.send(due, self.swarm.counts.open as u32);
                let data = marker::data(self.first_id + n, self.clock.unix_millis(), self.options.size);
                publisher.push(n, &data, now);
            }
            publisher.flush(self.poll.registry())?;
        }
        Ok(u64::MAX)
    }

    /// How many events may still be published.
    fn left(&self) -> u64 {
        match (self.options.events, self.phase) {
            (Some(events), Phase::Measuring { .. }) => events.saturating_sub(self.published()),
            _ => u64::MAX,
        }
    }

    fn due(&self, now: u64) -> Due {
        self.options.pace.due(self.publish_start, now, self.tracker.published(), self.tracker.outstanding())
    }

    fn publisher_ready(&mut self) -> Result<()> {
        let Self { publisher, poll, clock, tracker, swarm, publish_refused, .. } = self;
        let Some(publisher) = publisher else {
            return Ok(());
        };
        publisher.ready(poll.registry(), clock.micros(), &mut |n, answer| match answer {
            Answer::Accepted => swarm.checker.acknowledge(n),
            Answer::Refused(why) => {
                tracker.refused(n);
                *publish_refused.entry(why).or_default() += 1;
            }
        })
    }

    /// When something other than publishing is due.
    fn next_step(&self) -> u64 {
        match self.phase {
            Phase::Connecting { .. } if self.swarm.begun() < self.options.connections => {
                let rate = self.options.connect_rate.unwrap_or(f64::INFINITY);
                (self.swarm.begun() as f64 * 1e6 / rate) as u64
            }
            Phase::Settling { until } | Phase::WarmingUp { until } => until,
            Phase::Measuring { since } => {
                self.options.duration.map_or(u64::MAX, |duration| since + micros(duration))
            }
            Phase::Waiting { .. } if self.all_arrived() => 0,
            _ => u64::MAX,
        }
    }

    /// Until `next`. The poller counts in milliseconds and rounds up, so the last one is spent turning.
    fn timeout(&self, next: u64) -> Duration {
        let left = next.saturating_sub(self.clock.micros()).min(TICK);
        Duration::from_millis(left / 1000)
    }

    fn show_progress(&mut self, now: u64) {
        if now < self.progress_at {
            return;
        }
        self.progress_at = now + 2 * TICK;
        match self.phase {
            Phase::Connecting { .. } => self.progress.set_position(self.swarm.decided() as u64),
            Phase::Measuring { since } => {
                let position =
                    if self.options.events.is_some() { self.published() } else { (now - since) / 1000 };
                self.progress.set_position(position);
                let deliveries = self.window.deliveries_so_far(&self.tracker);
                let per_second = deliveries as f64 * 1e6 / (now - since).max(1) as f64;
                self.progress.set_message(format!("{per_second:.0} deliveries/s"));
            }
            _ => {}
        }
    }

    fn report(self) -> Report {
        let (window, deliveries) = (&self.window, self.window.deliveries());
        let counts = &self.swarm.counts;
        let mut report = Report {
            connections: self.options.connections,
            open: self.open,
            refused: counts.refused.clone(),
            closed: counts.closed,
            connect_seconds: self.connected_at as f64 / 1e6,
            connect_millis: Times::of(&self.swarm.connect),
            first_byte_millis: Times::of(&self.swarm.first_byte),
            measured_seconds: window.micros() as f64 / 1e6,
            published: window.published(),
            publish_refused: self.publish_refused,
            publish_reconnects: self.publisher.as_ref().map_or(0, |publisher| publisher.reconnects),
            deliveries,
            deliveries_per_second: deliveries as f64 * 1e6 / window.micros().max(1) as f64,
            latency_millis: Times::of(self.tracker.latency()),
            latency_steps: report::steps(self.tracker.latency()),
            acknowledged: 0,
            lost: 0,
            duplicated: 0,
            out_of_order: 0,
            overdue: self.tracker.given_up(),
            foreign: counts.foreign,
            bytes: counts.bytes,
            client_cpu_percent: window.client_percent(),
            server: window.server_use(self.open),
        };
        report.judge(&self.swarm.checker.verdict());
        self.swarm.close();
        report
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 2) // leaves room for adding it to a time
}

/// Shown only where standard error is a terminal.
fn progress(length: u64, label: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    let style = ProgressStyle::with_template("{prefix:>10} {wide_bar} {percent:>3} %  {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.with_prefix(label)
}

/// Lets this process have as many open files as `connections` need.
///
/// # Errors
/// When the system's hard limit is lower.
pub(super) fn raise_file_limit(connections: usize) -> Result<()> {
    let needed = connections as u64 + 64; // the poller, the publisher, the terminal, and some air
    let limit = rlimit::increase_nofile_limit(u64::MAX).context("cannot read the limit of open files")?;
    if limit < needed {
        bail!(
            "{connections} connections need {needed} open files and the limit is {limit}: raise it with `ulimit -Hn`"
        );
    }
    Ok(())
}
