//! Who is alive, and the totals.
//!
//! Once a second a node says what it is, whose connections it has and what it has counted ([`Cluster::beat`]): one script call, whatever
//! the number of its connections. What the script keeps and why nothing is counted twice is in [`ledger`] and docs/adr/0003. The
//! statistics are read when somebody asks ([`reader`]) and computed in [`totals`].
//!
//! This room does not count anything itself but who is there ([`presence`]), and it runs no task: whoever owns the node calls it.

pub mod counts;
mod ledger;
mod presence;
mod reader;
mod row;
mod sketch;
mod store;
mod totals;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Mutex;
use uuid::Uuid;

use self::counts::Counts;
use self::ledger::Ledger;
use self::reader::{Reader, Seen};
use self::store::{Beat, ROW_TTL, Store};
use crate::clock::{Clock, Tick};
use crate::redis::{CommandError, Commands};

pub use self::presence::{Here, Presence};
pub use self::row::{Announcement, NodeRow, RedisRow, State};
pub use self::totals::{Channels, Metrics, Stats, TOP_CHANNELS, View};

/// With so many nodes that were heard of lately a copy of the totals is taken with every heartbeat, with more less often: all copies
/// together cost what grows with the nodes and not with their square.
const NODES_PER_COPY: usize = 20;

/// How often one heartbeat is tried: once, once more with the totals brought back, and once as a newcomer.
const TRIES: usize = 3;

/// What a node says of itself.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Its row and its channels.
    pub announcement: Announcement,
    /// What it has counted since it started.
    pub counts: Counts,
}

/// The cluster, as seen from one node.
pub struct Cluster {
    clock: Clock,
    incarnation: Arc<str>,
    presence: Arc<Presence>,
    shared: Option<Shared>,
}

/// The way to the other nodes.
struct Shared {
    store: Arc<Store>,
    reader: Reader,
    /// Held for the length of a heartbeat: the next one must know what this one was answered.
    ledger: Mutex<Ledger>,
    pace: std::sync::Mutex<Pace>,
}

/// When what was done last.
#[derive(Default)]
struct Pace {
    answered: Option<Tick>,
    beats_since_copy: usize,
}

impl Cluster {
    /// Without a Redis: this node is the cluster.
    pub fn alone(clock: Clock) -> Self {
        let incarnation = Uuid::new_v4().simple().to_string().into();
        Self { clock, incarnation, presence: Arc::default(), shared: None }
    }

    /// With the other nodes that share this Redis.
    pub fn shared(commands: Commands, clock: Clock) -> Self {
        let mut cluster = Self::alone(clock);
        let store = Arc::new(Store::new(commands));
        cluster.shared = Some(Shared {
            reader: Reader::new(Arc::clone(&store), Arc::clone(&cluster.incarnation)),
            store,
            ledger: Mutex::default(),
            pace: std::sync::Mutex::default(),
        });
        cluster
    }

    /// Whose connections this node has.
    pub const fn presence(&self) -> &Arc<Presence> {
        &self.presence
    }

    /// How long ago Redis last counted a heartbeat in; `None` without a Redis, or before the first.
    pub fn silence(&self) -> Option<std::time::Duration> {
        let answered = self.shared.as_ref()?.pace().answered?;
        Some(self.clock.now().since(answered))
    }

    /// Says what this node is and has counted. To be called once a second; a call that failed is made up for by the next one.
    ///
    /// # Errors
    /// When Redis does not answer in time or refuses.
    pub async fn beat(&self, report: &Report) -> Result<(), CommandError> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let row = serde_json::to_string(&report.announcement)
            .map_err(|error| CommandError::Refused(error.to_string()))?;
        let mut ledger = shared.ledger.lock().await;
        shared.count_in(&mut ledger, &self.incarnation, &row, &self.presence, &report.counts).await?;
        self.answered(shared);
        if shared.is_copy_due(&ledger) {
            ledger.copy = Some(shared.store.copy().await?);
        }
        Ok(())
    }

    /// Says what this node has counted in the end, and that it is gone.
    ///
    /// # Errors
    /// As [`beat`](Self::beat); then the row vanishes by itself, and the counts since the last heartbeat are lost.
    pub async fn leave(&self, counts: &Counts) -> Result<(), CommandError> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let mut ledger = shared.ledger.lock().await;
        shared.count_in(&mut ledger, &self.incarnation, "", &self.presence, counts).await
    }

    fn answered(&self, shared: &Shared) {
        let now = self.clock.now();
        let before = shared.pace().answered.replace(now);
        if before.is_some_and(|before| now.since(before) > ROW_TTL) {
            shared.reader.disturbed();
        }
    }

    /// What is known of the whole cluster, and whether part of it is old because Redis does not answer. `own` is this node's report of
    /// now. Answers within a second, whatever Redis does.
    pub async fn view(&self, own: Report) -> (View, bool) {
        let Some(shared) = &self.shared else { return (self.own_view(own), false) };
        match shared.reader.see().await {
            Some(Seen { mut view, stale }) => {
                if stale {
                    view.nodes.insert((*self.incarnation).to_owned(), own.announcement);
                }
                (view, stale)
            }
            None => (self.own_view(own), true),
        }
    }

    /// What is known of this node alone.
    pub fn own_view(&self, own: Report) -> View {
        let (unique_ips, unique_sessions) = self.presence.counts();
        let uptime_ms = own.announcement.row.uptime_ms;
        let nodes = BTreeMap::from([((*self.incarnation).to_owned(), own.announcement)]);
        View { nodes, totals: own.counts, unique_ips, unique_sessions, uptime_ms }
    }
}

impl Shared {
    fn pace(&self) -> std::sync::MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Sends a heartbeat until it is counted in. When Redis has lost the totals they are brought back in between.
    async fn count_in(
        &self,
        ledger: &mut Ledger,
        incarnation: &str,
        row: &str,
        presence: &Presence,
        counts: &Counts,
    ) -> Result<(), CommandError> {
        let mut copy_is_back = false;
        for _ in 0..TRIES {
            let news = presence.news(ledger.told[0], ledger.told[1]);
            let floor = ledger.send(counts);
            let counted_in = ledger.counted_in();
            let sketches = news.each_ref().map(|told| told.as_ref().map_or(&[][..], |told| &told.sketch));
            let beat = Beat { incarnation, counted_in: &counted_in, row, sketches, counts, floor: &floor };
            let answer = self.store.beat(&beat).await?;
            if ledger.answer(counts, answer) {
                ledger.tell(&news);
                return Ok(());
            }
            match &ledger.copy {
                Some(copy) if !copy_is_back => {
                    self.store.restore(copy).await?;
                    copy_is_back = true;
                }
                // No copy, or somebody has brought back an older one from before this node was counted: it begins anew.
                _ => ledger.forget(),
            }
        }
        Err(CommandError::Refused("Redis loses the cluster's totals again and again".into()))
    }

    fn is_copy_due(&self, ledger: &Ledger) -> bool {
        let mut pace = self.pace();
        pace.beats_since_copy += 1;
        let nodes = ledger.copy.as_ref().map_or(0, |copy| copy.parts.len());
        let due = pace.beats_since_copy * NODES_PER_COPY > nodes || ledger.copy.is_none();
        if due {
            pace.beats_since_copy = 0;
        }
        due
    }
}
