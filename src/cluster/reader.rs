//! Reading the cluster's numbers, for all who ask at the same time together.
//!
//! An answer comes from a read that began after the question, so two nodes that are asked one after the other never contradict
//! each other. Whoever asks while a read is under way waits for the next one; there are at most ten in a second.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::row::Announcement;
use super::sketch::Union;
use super::store::{ROW_TTL, Reading, Store};
use super::totals::View;
use crate::redis::CommandError;

/// The shortest time between two reads.
const INTERVAL: Duration = Duration::from_millis(100);

/// The shortest time between two reads of the sketches, which may be large.
const SKETCH_INTERVAL: Duration = Duration::from_secs(1);

/// How long whoever asks waits for Redis; then they get what was known last.
const LIMIT: Duration = Duration::from_millis(800);

/// After a disturbance, rows older than this are not shown any more.
const MEMORY: Duration = Duration::from_secs(30);

/// The cluster's numbers.
pub(super) struct Seen {
    pub(super) view: View,
    /// Some of it is what was known last.
    pub(super) stale: bool,
}

pub(super) struct Reader {
    store: Arc<Store>,
    incarnation: Arc<str>,
    reading: tokio::sync::Mutex<Option<Instant>>,
    last: Mutex<Last>,
}

/// What was seen last.
#[derive(Default)]
struct Last {
    view: Option<Arc<View>>,
    at: Option<Instant>,
    uniques: Option<(Instant, u64, u64)>,
    /// Until when the absence of a row means nothing.
    disturbed_until: Option<Instant>,
}

impl Reader {
    pub(super) fn new(store: Arc<Store>, incarnation: Arc<str>) -> Self {
        Self { store, incarnation, reading: tokio::sync::Mutex::new(None), last: Mutex::default() }
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cluster's numbers as of now; as of earlier when Redis does not answer in time. `None` when it never has.
    pub(super) async fn see(&self) -> Option<Seen> {
        let asked = Instant::now();
        match timeout(LIMIT, self.read_after(asked)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the cluster's statistics cannot be read"),
            Err(_) => tracing::debug!(limit = ?LIMIT, "the cluster's statistics are not read in time"),
        }
        let last = self.last();
        let view = last.view.as_deref()?.clone();
        let fresh = last.at.is_some_and(|at| at >= asked);
        let disturbed = last.disturbed_until.is_some_and(|until| until > asked);
        Some(Seen { view, stale: !fresh || disturbed })
    }

    /// Returns when there is a read that began after `asked`.
    async fn read_after(&self, asked: Instant) -> Result<(), CommandError> {
        let mut began = self.reading.lock().await;
        if began.is_some_and(|began| began >= asked) {
            return Ok(());
        }
        if let Some(before) = *began {
            sleep_until(before + INTERVAL).await;
        }
        let now = Instant::now();
        let sketches = self.last().uniques.is_none_or(|(at, ..)| now >= at + SKETCH_INTERVAL);
        let reading = self.store.read(sketches).await?;
        self.last().take(reading, sketches, now, &self.incarnation);
        *began = Some(now);
        Ok(())
    }

    /// Heartbeats could not be counted for so long that rows have vanished whose nodes live.
    pub(super) fn disturbed(&self) {
        self.last().disturbed_until = Some(Instant::now() + ROW_TTL);
    }
}

impl Last {
    fn take(&mut self, reading: Reading, sketches: bool, now: Instant, own: &str) {
        if sketches {
            let [ips, sessions] = reading.sketches.map(|sketches| count(&sketches));
            self.uniques = Some((now, ips, sessions));
        }
        let mut nodes: BTreeMap<String, Announcement> = reading.rows.into_iter().filter_map(parse).collect();
        // This node lives. When Redis does not know it, it knows less of the others, too: it has been away or has lost its data.
        if !nodes.contains_key(own) {
            self.disturbed_until = Some(now + ROW_TTL);
        }
        let mut totals = reading.totals;
        if let Some(last) = &self.view {
            // Whatever was shown was true: what is lower now is of before Redis lost something, and will be made up for.
            totals.raise(&last.totals);
            let recent = self.at.is_some_and(|at| now < at + MEMORY);
            if recent && self.disturbed_until.is_some_and(|until| until > now) {
                for (incarnation, node) in &last.nodes {
                    nodes.entry(incarnation.clone()).or_insert_with(|| node.clone());
                }
            }
        }
        let (unique_ips, unique_sessions) = self.uniques.map_or((0, 0), |(_, ips, sessions)| (ips, sessions));
        let uptime_ms = reading.now.saturating_sub(reading.since);
        self.view = Some(Arc::new(View { nodes, totals, unique_ips, unique_sessions, uptime_ms }));
        self.at = Some(now);
    }
}

fn count(sketches: &[Vec<u8>]) -> u64 {
    let mut union = Union::default();
    sketches.iter().for_each(|sketch| union.take(sketch));
    union.count()
}

/// A row that cannot be read is of a version to come; its node is shown by its incarnation alone.
fn parse((incarnation, row): (String, String)) -> Option<(String, Announcement)> {
    match serde_json::from_str(&row) {
        Ok(announcement) => Some((incarnation, announcement)),
        Err(error) => {
            tracing::debug!(%error, "a node's row cannot be read");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::counts::Counts;
    use super::*;

    fn reading(nodes: &[(&str, u64)], opened: u64) -> Reading {
        let row = |(node, connections): &(&str, u64)| {
            ((*node).to_owned(), format!(r#"{{"row":{{"id":"{node}","connections":{connections}}}}}"#))
        };
        Reading {
            now: 5000,
            since: 1000,
            totals: Counts::from_iter([("opened", opened)]),
            rows: nodes.iter().map(row).collect(),
            sketches: [vec![], vec![]],
        }
    }

    fn names(last: &Last) -> Vec<&str> {
        last.view.as_ref().unwrap().nodes.keys().map(String::as_str).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn while_redis_does_not_know_this_node_the_others_are_believed_to_live() {
        let mut last = Last::default();
        let take = |last: &mut Last, nodes: &[(&str, u64)]| {
            last.take(reading(nodes, 1), false, Instant::now(), "own")
        };
        take(&mut last, &[("own", 1), ("other", 2)]);
        assert!(last.disturbed_until.is_none());
        take(&mut last, &[]);
        assert_eq!(names(&last), ["other", "own"]);
        take(&mut last, &[("own", 1)]);
        assert_eq!(names(&last), ["other", "own"], "its heartbeat may come later than ours");
        tokio::time::advance(ROW_TTL).await;
        take(&mut last, &[("own", 1)]);
        assert_eq!(names(&last), ["own"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_total_that_was_shown_is_not_taken_back() {
        let mut last = Last::default();
        for opened in [7, 5, 6] {
            last.take(reading(&[("own", 1)], opened), false, Instant::now(), "own");
            assert_eq!(last.view.as_ref().unwrap().totals.get("opened"), 7);
        }
    }
}
