//! Who is alive, and the totals.
//!
//! Once a second a node says what it is, whose connections it has and what it has counted ([`Cluster::beat`]): one script
//! call, whatever the number of its connections. What the script keeps, and why nothing is counted twice, is in [`ledger`]
//! and in docs/adr/totals-by-absolute-counts.md. The statistics are read when somebody asks ([`reader`]) and computed in
//! [`totals`].
//!
//! This room counts nothing itself but who is there ([`presence`]) and what several nodes hear ([`heard`]), and it runs no
//! task: whoever owns the node calls it.

pub mod counts;
mod heard;
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
use crate::protocol::channel::ChannelName;
use crate::redis::{CommandError, Commands};

pub use self::heard::Heard;
pub use self::presence::{Here, Presence};
pub use self::row::{Announcement, NodeRow, RedisRow, State};
pub use self::totals::{Channels, Metrics, Stats, TOP_CHANNELS, View};

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
    heard: Arc<Heard>,
    shared: Option<Shared>,
}

/// The way to the other nodes.
struct Shared {
    store: Arc<Store>,
    reader: Reader,
    /// Held for the length of a heartbeat: the next one must know what this one was answered.
    ledger: Mutex<Ledger>,
    /// When a heartbeat was counted in last.
    answered: std::sync::Mutex<Option<Tick>>,
}

impl Cluster {
    /// Without a Redis: this node is the cluster. `channels` are those that every node may hear: the configured ones.
    pub fn alone(channels: impl IntoIterator<Item = ChannelName>, clock: Clock) -> Self {
        let incarnation = Uuid::new_v4().simple().to_string().into();
        let heard = Arc::new(Heard::new(channels, clock.clone()));
        Self { clock, incarnation, presence: Arc::default(), heard, shared: None }
    }

    /// With the other nodes that share this Redis.
    pub fn shared(commands: Commands, channels: impl IntoIterator<Item = ChannelName>, clock: Clock) -> Self {
        let mut cluster = Self::alone(channels, clock);
        let store = Arc::new(Store::new(commands));
        cluster.shared = Some(Shared {
            reader: Reader::new(Arc::clone(&store), Arc::clone(&cluster.incarnation)),
            store,
            ledger: Mutex::default(),
            answered: std::sync::Mutex::default(),
        });
        cluster
    }

    /// Whose connections this node has.
    pub const fn presence(&self) -> &Arc<Presence> {
        &self.presence
    }

    /// What this node hears.
    pub const fn heard(&self) -> &Arc<Heard> {
        &self.heard
    }

    /// How long ago Redis last counted a heartbeat in; `None` without a Redis, or before the first.
    pub fn silence(&self) -> Option<std::time::Duration> {
        let answered = (*self.shared.as_ref()?.answered())?;
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
        self.count_in(shared, &mut ledger, &row, &report.counts).await?;
        self.answered(shared);
        if ledger.is_copy_due() {
            ledger.copied(shared.store.copy().await?);
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
        self.count_in(shared, &mut ledger, "", counts).await
    }

    /// Sends a heartbeat until it is counted in. When Redis has lost the totals they are brought back in between.
    async fn count_in(
        &self,
        shared: &Shared,
        ledger: &mut Ledger,
        row: &str,
        counts: &Counts,
    ) -> Result<(), CommandError> {
        let mut copy_is_back = false;
        for _ in 0..TRIES {
            if self.send(shared, ledger, row, counts).await? {
                return Ok(());
            }
            match &ledger.copy {
                Some(copy) if !copy_is_back => {
                    shared.store.restore(copy).await?;
                    copy_is_back = true;
                }
                // No copy, or somebody has brought back an older one from before this node was counted: it begins anew.
                _ => ledger.forget(),
            }
        }
        Err(CommandError::Refused("Redis loses the cluster's totals again and again".into()))
    }

    /// Sends a heartbeat; `false` when Redis has lost the totals.
    async fn send(
        &self,
        shared: &Shared,
        ledger: &mut Ledger,
        row: &str,
        counts: &Counts,
    ) -> Result<bool, CommandError> {
        let faces = self.presence.news(ledger.told[0], ledger.told[1]);
        let sketches = faces.each_ref().map(|told| told.as_ref().map_or(&[][..], |told| &told.sketch));
        let (floor, counted_in) = (ledger.send(counts), ledger.counted_in());
        let news = self.heard.untold();
        let (incarnation, counted_in, floor) = (&*self.incarnation, counted_in.as_str(), &floor);
        let beat = Beat { incarnation, counted_in, row, sketches, news: &news.news, counts, floor };
        let answer = shared.store.beat(&beat).await?;
        let counted = ledger.answer(counts, answer);
        if counted {
            news.told();
            ledger.tell(&faces);
        }
        Ok(counted)
    }

    fn answered(&self, shared: &Shared) {
        let now = self.clock.now();
        let before = shared.answered().replace(now);
        if before.is_some_and(|before| now.since(before) > ROW_TTL) {
            shared.reader.disturbed();
        }
    }

    /// What is known of the whole cluster, and whether part of it is old because Redis does not answer: then this node's
    /// `own` report of now stands beside what was known last. Answers within a second, whatever Redis does.
    pub async fn view(&self, own: impl Future<Output = Report>) -> (View, bool) {
        let Some(shared) = &self.shared else { return (self.own_view(own.await), false) };
        match shared.reader.see().await {
            Some(Seen { view, stale: false }) => (view, false),
            Some(Seen { mut view, .. }) => {
                view.nodes.insert((*self.incarnation).to_owned(), own.await.announcement);
                (view, true)
            }
            None => (self.own_view(own.await), true),
        }
    }

    /// The rows of the other nodes that are going, with the streams that they still have; none when the cluster cannot be asked
    /// within a second.
    pub async fn draining(&self) -> Vec<NodeRow> {
        let Some(shared) = &self.shared else { return Vec::new() };
        let Some(Seen { mut view, stale: false }) = shared.reader.see().await else { return Vec::new() };
        view.nodes.remove(&*self.incarnation);
        view.draining().cloned().collect()
    }

    /// What is known of this node alone.
    pub fn own_view(&self, mut own: Report) -> View {
        let broadcasts = own.counts.get(counts::BROADCASTS) + self.heard.total();
        own.counts.set(counts::BROADCASTS, broadcasts);
        let (unique_ips, unique_sessions) = self.presence.counts();
        let uptime_ms = own.announcement.row.uptime_ms;
        let nodes = BTreeMap::from([((*self.incarnation).to_owned(), own.announcement)]);
        View { nodes, totals: own.counts, unique_ips, unique_sessions, uptime_ms }
    }
}

impl Shared {
    fn answered(&self) -> std::sync::MutexGuard<'_, Option<Tick>> {
        self.answered.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
