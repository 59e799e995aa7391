//! The scripts of this room, as calls with values.

use std::collections::HashMap;
use std::time::Duration;

use super::counts::Counts;
use super::heard::News;
use super::ledger::Copy;
use crate::redis::{Call, CommandError, Commands, Invoke as _, Script};

/// How long a row lives without a heartbeat: a node that dies is gone from the statistics within this, and one lost heartbeat does
/// not make a living one vanish.
pub(super) const ROW_TTL: Duration = Duration::from_millis(2500);

/// How long a silent node is part of the copies that others take of the totals.
const NODE_TTL: Duration = Duration::from_secs(3600);

/// How long it is known what a silent node has counted. One that comes back later (a stopped process, a cut network) may lose what it
/// counted in the heartbeat that it never got an answer to.
const OWN_TTL: Duration = Duration::from_secs(24 * 3600);

/// How long the totals outlive the last node: a cluster that was shut down for the holidays goes on counting.
const TOTALS_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

/// How many losses of data in a row are told apart.
pub(super) const MAX_LINEAGE: usize = 8;

/// Where heartbeats go and statistics come from.
pub(super) struct Store {
    commands: Commands,
    alive: String,
    rows: String,
    totals: String,
    sketches: [String; 2],
    counted: String,
    heard: String,
    beat: Script,
    copy: Script,
    restore: Script,
    read: Script,
}

/// A heartbeat.
pub(super) struct Beat<'a> {
    pub(super) incarnation: &'a str,
    /// The totals that it was counted in: [`Ledger::counted_in`](super::ledger::Ledger::counted_in).
    pub(super) counted_in: &'a str,
    /// What the node says of itself; empty when it leaves.
    pub(super) row: &'a str,
    /// Empty means as before.
    pub(super) sketches: [&'a [u8]; 2],
    /// What was heard on channels that other nodes hear as well.
    pub(super) news: &'a [News],
    pub(super) counts: &'a Counts,
    /// What the totals hold of it at least.
    pub(super) floor: &'a Counts,
}

/// The answer to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Redis has lost the totals, and nothing was done.
    Lost,
    /// It is part of the totals.
    Counted {
        /// Redis' clock, in milliseconds.
        now: u64,
        /// Which totals these are.
        epoch: String,
        /// The node's sketches are there.
        sketched: bool,
    },
}

/// Everything that the statistics are made of, as of one moment.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    /// Redis' clock, in milliseconds.
    pub(super) now: u64,
    /// Since when the totals are counted.
    pub(super) since: u64,
    pub(super) totals: Counts,
    /// Incarnation and row of every living node.
    pub(super) rows: Vec<(String, String)>,
    /// Sketches of addresses and of sessions, when they were asked for.
    pub(super) sketches: [Vec<Vec<u8>>; 2],
}

impl Store {
    pub(super) fn new(commands: Commands) -> Self {
        let keys = commands.config().keys();
        Self {
            alive: keys.alive(),
            rows: keys.rows(),
            totals: keys.totals(),
            sketches: keys.sketches(),
            counted: keys.counted(),
            heard: keys.heard(),
            beat: Script::new(include_str!("lua/beat.lua")),
            copy: Script::new(include_str!("lua/copy.lua")),
            restore: Script::new(include_str!("lua/restore.lua")),
            read: Script::new(include_str!("lua/read.lua")),
            commands,
        }
    }

    /// Counts a heartbeat in. It may be repeated.
    pub(super) async fn beat(&self, beat: &Beat<'_>) -> Result<Answer, CommandError> {
        let own = format!("{}{}", self.counted, beat.incarnation);
        let [ips, sessions] = &self.sketches;
        let mut call =
            self.beat.call(&[&self.alive, &self.rows, &self.totals, &own, ips, sessions, &self.heard]);
        call.arg(beat.incarnation).arg(beat.counted_in);
        for ttl in [ROW_TTL, NODE_TTL, OWN_TTL, TOTALS_TTL] {
            call.arg(millis(ttl));
        }
        call.arg(beat.row).arg(beat.sketches[0]).arg(beat.sketches[1]);
        call.arg(beat.news.len());
        for News { channel, heard, told, age, .. } in beat.news {
            call.arg(channel.as_str()).arg(heard).arg(told).arg(millis(*age));
        }
        for (name, count) in beat.counts.iter() {
            call.arg(name).arg(count).arg(beat.floor.get(name));
        }
        let answer: Vec<String> = self.commands.invoke(&call).await?;
        match &answer[..] {
            [word] if word == "lost" => Ok(Answer::Lost),
            [_, now, epoch, sketched] => Ok(Answer::Counted {
                now: now.parse().unwrap_or(0),
                epoch: epoch.clone(),
                sketched: sketched == "1",
            }),
            _ => {
                Err(CommandError::Refused("an answer to a heartbeat that this version does not know".into()))
            }
        }
    }

    /// Takes a copy of the totals.
    pub(super) async fn copy(&self) -> Result<Copy, CommandError> {
        let mut call = self.copy.call(&[&self.alive, &self.totals]);
        call.arg(&self.counted);
        let (at, totals, parts): (u64, Fields, Vec<(String, Fields)>) = self.commands.invoke(&call).await?;
        let parts = parts.into_iter().map(|(node, fields)| (node, counts(&fields))).collect();
        let member = |name| totals.get(name).map_or("", String::as_str);
        let lineage = lineage(member("@epoch"), at, member("@lineage"));
        Ok(Copy::new(lineage, since(&totals), &counts(&totals), parts))
    }

    /// Brings the totals back, unless somebody else has done so.
    pub(super) async fn restore(&self, copy: &Copy) -> Result<(), CommandError> {
        let mut call = self.restore.call(&[&self.alive, &self.totals]);
        call.arg(&self.counted).arg(&copy.lineage).arg(copy.since);
        for ttl in [NODE_TTL, OWN_TTL, TOTALS_TTL] {
            call.arg(millis(ttl));
        }
        add_counts(&mut call, &copy.past);
        for (node, counts) in &copy.parts {
            call.arg(node);
            add_counts(&mut call, counts);
        }
        let taken: u8 = self.commands.invoke(&call).await?;
        if taken == 1 {
            tracing::warn!(
                nodes = copy.parts.len(),
                "Redis had lost the cluster's totals; they are back from a copy"
            );
        }
        Ok(())
    }

    /// Reads everything.
    pub(super) async fn read(&self, sketches: bool) -> Result<Reading, CommandError> {
        let [ips, sessions] = &self.sketches;
        let mut call = self.read.call(&[&self.alive, &self.rows, &self.totals, ips, sessions]);
        call.arg(millis(ROW_TTL)).arg(u8::from(sketches));
        let (now, totals, nodes, rows, ips, sessions): Everything = self.commands.invoke(&call).await?;
        Ok(Reading {
            now,
            since: since(&totals),
            totals: counts(&totals),
            rows: nodes.into_iter().zip(rows).collect(),
            sketches: [ips, sessions],
        })
    }
}

/// A hash.
type Fields = HashMap<String, String>;

/// The answer of `read.lua`.
type Everything = (u64, Fields, Vec<String>, Vec<String>, Vec<Vec<u8>>, Vec<Vec<u8>>);

/// What was counted; a name that begins with an `@` is none.
fn counts(fields: &Fields) -> Counts {
    let counted = fields.iter().filter(|(name, _)| !name.starts_with('@'));
    counted.filter_map(|(name, count)| Some((name.as_str(), count.parse().ok()?))).collect()
}

/// Where a copy comes from, and where that came from: the last few, since more losses of data in a row are not told apart.
fn lineage(epoch: &str, at: u64, before: &str) -> String {
    let before = before.split(' ').filter(|word| !word.is_empty()).take(MAX_LINEAGE - 1);
    before.fold(format!("{epoch}@{at}"), |lineage, word| lineage + " " + word)
}

fn since(totals: &Fields) -> u64 {
    totals.get("@since").and_then(|since| since.parse().ok()).unwrap_or(0)
}

fn add_counts(call: &mut Call<'_>, counts: &Counts) {
    call.arg(counts.iter().count());
    for (name, count) in counts.iter() {
        call.arg(name).arg(count);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
