//! The live part of a connection: messages, changes of interest, the probe.

use std::collections::HashSet;
use std::convert::Infallible;
use std::future::{Future, pending};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::time::{MissedTickBehavior, interval};

use super::catch_up::{CatchUp, End};
use super::course::{Course, Verdict};
use super::inbox::{Arrival, Inbox, Message};
use super::scripts::NewsAnswer;
use super::supervisor::{SUBSCRIBE_BATCH, State, Tools};
use crate::broker::{InterestChanges, Notice};
use crate::protocol::channel::ChannelName;
use crate::protocol::close::GapReason;
use crate::protocol::durable::{self, Frame};
use crate::protocol::envelope;
use crate::protocol::event::Delivery;
use crate::protocol::position::Position;
use crate::redis::{CommandError, Invoke as _, Subscriber};

/// How often a node publishes to itself. A connection can look healthy and deliver nothing (a failover, a proxy, a
/// wedged server); this bounds how long nobody notices, together with [`PATIENCE`], at a cost of one small script per
/// node.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);

/// After so many intervals without its return the connection is given up.
const PATIENCE: u32 = 2;

/// A connection that is live.
pub(super) struct Live<'a> {
    tools: &'a Tools,
    state: &'a mut State,
    subscriber: &'a Subscriber,
    inbox: Inbox,
    course: Course,
    /// The greatest position that came with a message.
    heard: Option<Position>,
    /// Channels that are being subscribed: events before that are not holes.
    unsettled: HashSet<ChannelName>,
    /// What was changed, when the answers are in and the messages before them are not yet.
    settling: Option<Settled>,
    /// There may be more changes of interest.
    more: bool,
    probe: Probe,
}

/// Changes that were carried out, and the clock after it.
struct Settled {
    changes: InterestChanges,
    clock: Reading,
}

/// The clock as it was at some point among the messages.
#[derive(Clone, Copy)]
struct Reading {
    at: Position,
    losses: u64,
}

#[derive(Default)]
struct Probe {
    /// The last one's number.
    word: u64,
    /// When it was sent, in microseconds, and how many intervals ago; `None` when it is back.
    under_way: Option<(u64, u32)>,
    /// Why it could not be sent.
    failed: Option<CommandError>,
}

type Changing<'a> = Option<BoxFuture<'a, Result<Settled, End>>>;
type Probing<'a> = Option<BoxFuture<'a, Result<(), CommandError>>>;

impl<'a> Live<'a> {
    pub(super) fn new(
        tools: &'a Tools,
        state: &'a mut State,
        subscriber: &'a Subscriber,
        inbox: Inbox,
        course: Course,
    ) -> Self {
        let (unsettled, settling, probe) = (HashSet::new(), None, Probe::default());
        Self { tools, state, subscriber, inbox, course, heard: None, unsettled, settling, more: true, probe }
    }

    /// Works until the connection cannot be used any more.
    pub(super) async fn run(mut self) -> End {
        let Err(end) = self.work().await;
        self.state.course = Some(self.course);
        end
    }

    async fn work(&mut self) -> Result<Infallible, End> {
        let tools = self.tools;
        let mut ticks = interval(PROBE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changing: Changing<'a> = None;
        let mut probing: Probing<'a> = None;
        loop {
            if self.more && changing.is_none() && self.settling.is_none() {
                changing = self.change();
            }
            tokio::select! {
                arrival = self.inbox.next() => self.arrived(arrival?).await?,
                () = tools.interest.changed().notified() => self.more = true,
                settled = or_never(&mut changing) => {
                    changing = None;
                    self.settling = Some(settled?);
                    self.inbox.mark();
                }
                sent = or_never(&mut probing) => {
                    probing = None;
                    self.probe.failed = sent.err();
                }
                _ = ticks.tick() => {
                    self.check_probe().await?;
                    if self.probe.under_way.is_none() && probing.is_none() { probing = Some(self.send_probe()); }
                }
            }
        }
    }

    fn catch_up(&self) -> CatchUp<'a> {
        self.tools.catch_up(self.subscriber)
    }

    /// Starts to carry out changes of interest, if there are any.
    fn change(&mut self) -> Changing<'a> {
        let (tools, subscriber) = (self.tools, self.subscriber);
        let changes = tools.interest.take_changes(SUBSCRIBE_BATCH);
        self.more = !changes.is_empty();
        if changes.is_empty() {
            return None;
        }
        self.unsettled = changes.subscribe.iter().cloned().collect();
        let change = async move {
            tools.change(subscriber, &changes.subscribe, &changes.unsubscribe).await?;
            let (epoch, n, _, losses, _): NewsAnswer = subscriber.invoke(&tools.scripts.news(&[])).await?;
            Ok(Settled { changes, clock: Reading { at: Position { epoch, n }, losses } })
        };
        Some(change.boxed())
    }

    async fn arrived(&mut self, arrival: Arrival) -> Result<(), End> {
        match arrival {
            Arrival::Message(message) if message.channel == self.tools.probe_channel.as_bytes() => {
                self.probed(&message.payload).await
            }
            Arrival::Message(Message { channel, payload })
                if self.tools.peer_channels.iter().any(|name| name.as_bytes() == channel) =>
            {
                self.catch_up().yield_one(Notice::Peer(payload)).await
            }
            Arrival::Message(message) => self.heard(message).await,
            Arrival::Mark => self.settle().await,
        }
    }

    /// Everything published before the channels were subscribed has come by: from here on a hole on them is a hole, and
    /// whoever waits for them may read the history and will miss nothing after it.
    async fn settle(&mut self) -> Result<(), End> {
        let Some(Settled { changes, clock }) = self.settling.take() else { return Ok(()) };
        self.read_clock(clock).await?;
        self.unsettled.clear();
        for channel in &changes.unsubscribe {
            self.state.seen.forget(channel);
        }
        self.tools.interest.confirmed(&changes.subscribe);
        Ok(())
    }

    async fn heard(&mut self, message: Message) -> Result<(), End> {
        let Some(channel) = self.tools.keys.channel_of(&message.channel) else { return Ok(()) };
        if durable::is_frame(&message.payload) {
            return self.durable(channel, &message.payload).await;
        }
        self.state.seen.plain(&channel);
        match envelope::parse_plain(&message.payload, &channel, self.tools.max_bytes) {
            Ok(event) => {
                let delivery = Delivery { channel, event, position: None };
                self.catch_up().yield_one(Notice::Event(delivery)).await
            }
            Err(why) => {
                self.state.health.dropped(1, &why.to_string());
                Ok(())
            }
        }
    }

    async fn durable(&mut self, channel: ChannelName, payload: &[u8]) -> Result<(), End> {
        let frame = match Frame::parse(payload) {
            Ok(frame) => frame,
            Err(why) => {
                self.state.health.dropped(1, &why.to_string());
                return Ok(());
            }
        };
        if self.course.is_leap(frame.position) && self.is_forged(frame.position).await? {
            self.state.health.dropped(1, "a position that Redis has not given out");
            return Ok(());
        }
        self.heard = self.heard.max(Some(frame.position));
        let settled = !self.unsettled.contains(&channel);
        match self.course.judge(&frame, settled) {
            Verdict::Next => {}
            Verdict::Repeated => return Ok(()),
            Verdict::OldEpoch => return Err(End::Broken("an event from before Redis lost its data".into())),
            Verdict::NewEpoch => {
                let before = Position { n: frame.position.n - 1, ..frame.position };
                self.begin_again(before, None).await?;
            }
            Verdict::Hole => {
                self.fill_hole(&channel).await?;
                if self.course.judge(&frame, false) != Verdict::Next {
                    return Ok(());
                }
            }
        }
        self.state.seen.durable(&channel);
        match frame.event(&channel, self.tools.max_bytes) {
            Ok(event) => {
                let position = Some(frame.position);
                let delivery = Delivery { channel: channel.clone(), event, position };
                self.catch_up().yield_one(Notice::Event(delivery)).await?;
            }
            Err(why) => self.state.health.dropped(1, &why.to_string()),
        }
        self.course.pass(&channel, frame.position.n);
        Ok(())
    }

    /// Whether Redis, asked after a message with this position has come, has not got as far, or has never left the epoch
    /// in which this node is for it.
    async fn is_forged(&self, position: Position) -> Result<bool, End> {
        let (epoch, n, ..): NewsAnswer = self.subscriber.invoke(&self.tools.scripts.news(&[])).await?;
        let stays = epoch == self.course.at.epoch && position.epoch < epoch;
        Ok(stays || position > Position { epoch, n })
    }

    /// Something got lost on a connection that stands. What else may have is read with it, so that positions do not
    /// go back.
    async fn fill_hole(&mut self, channel: &ChannelName) -> Result<(), End> {
        self.state.health.missed(channel);
        let mut wanted = self.tools.wanted();
        wanted.retain(|channel| !self.unsettled.contains(channel));
        let round = self.catch_up().round(&mut self.course, &wanted).await?;
        self.state.health.dropped(round.unreadable, "unreadable history");
        Ok(())
    }

    /// What the clock says at this point among the messages.
    async fn read_clock(&mut self, clock: Reading) -> Result<(), End> {
        if clock.at.epoch < self.course.at.epoch {
            return Err(End::Broken("a clock from before Redis lost its data".into()));
        }
        if clock.at.epoch > self.course.at.epoch {
            return self.begin_again(clock.at, Some(clock.losses)).await;
        }
        self.course.reach(clock.at.n);
        if let Some(losses) = self.course.losses.replace(clock.losses)
            && losses != clock.losses
        {
            // Another node has noticed that events were lost.
            self.tell_lost().await?;
        }
        self.catch_up().yield_one(Notice::Passed(self.course.at)).await
    }

    /// Redis has lost its data under a connection that stands.
    async fn begin_again(&mut self, at: Position, losses: Option<u64>) -> Result<(), End> {
        self.course = Course::begin(at, std::mem::take(&mut self.course.server), losses);
        self.tell_lost().await?;
        self.catch_up().yield_one(Notice::Passed(at)).await
    }

    async fn tell_lost(&self) -> Result<(), End> {
        self.catch_up().tell(self.tools.wanted(), GapReason::HistoryLost).await
    }

    fn send_probe(&mut self) -> BoxFuture<'a, Result<(), CommandError>> {
        self.probe.word += 1;
        self.probe.under_way = Some((self.tools.clock.micros(), 0));
        let call = self.tools.scripts.probe(&self.tools.probe_channel, self.probe.word);
        let commands = &self.tools.commands;
        async move { commands.invoke(&call).await }.boxed()
    }

    async fn probed(&mut self, payload: &[u8]) -> Result<(), End> {
        let Some([word, epoch, n, losses]) = numbers(payload) else { return Ok(()) };
        if let Some((sent, _)) = self.probe.under_way.filter(|_| word == self.probe.word) {
            self.probe.under_way = None;
            let lag = self.tools.clock.micros().saturating_sub(sent);
            self.state.health.probed(Duration::from_micros(lag));
        }
        let at = Position { epoch, n };
        // A probe reads the clock in the moment in which it is published, so nothing that was heard before it is later.
        // What may have been taken for past because of a forged number is told: Redis counts this as a loss.
        if self.heard.is_some_and(|heard| heard.epoch == epoch && heard > at) {
            return Err(End::Broken("an event had a position that Redis has not given out".into()));
        }
        self.read_clock(Reading { at, losses }).await
    }

    /// Counts an interval; an error when the probe has been away for too many.
    async fn check_probe(&mut self) -> Result<(), End> {
        let Some((sent, age)) = self.probe.under_way else { return Ok(()) };
        self.probe.under_way = Some((sent, age + 1));
        if age + 1 < PATIENCE {
            return Ok(());
        }
        // The node may have kept this task waiting, and the probe lie in the inbox.
        while let Some(arrival) = self.inbox.ready() {
            self.arrived(arrival).await?;
        }
        match (&self.probe.under_way, &self.probe.failed) {
            (None, _) => Ok(()),
            (_, Some(error)) => Err(End::Broken(format!("the probe could not be sent: {error}"))),
            (_, None) => Err(End::Broken("the probe did not come back".into())),
        }
    }
}

/// The output of the future in the slot; never ready when there is none.
async fn or_never<F: Future + Unpin>(slot: &mut Option<F>) -> F::Output {
    match slot {
        Some(future) => future.await,
        None => pending().await,
    }
}

fn numbers(payload: &[u8]) -> Option<[u64; 4]> {
    let words: Option<Vec<u64>> =
        std::str::from_utf8(payload).ok()?.split(' ').map(|word| word.parse().ok()).collect();
    words?.try_into().ok()
}
