//! Makes the subscriber's connection, over and over: connect, settle, subscribe, catch up, go live.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::catch_up::{CatchUp, End, Round};
use super::course::Course;
use super::function::{self, Loaded};
use super::health::Health;
use super::inbox::{Arrival, Inbox, inbox};
use super::live::Live;
use super::scripts::{Known, Scripts, SettleAnswer};
use super::seen::Seen;
use super::server::Server;
use crate::broker::{Interest, Notice};
use crate::clock::Clock;
use crate::protocol::channel::ChannelName;
use crate::protocol::close::GapReason;
use crate::protocol::durable;
use crate::protocol::position::Position;
use crate::redis::backoff::Backoff;
use crate::redis::{Commands, Invoke as _, Keys, Subscriber};

/// How many channels are subscribed at once: enough to be quick, little enough not to hold up Redis.
pub(super) const SUBSCRIBE_BATCH: usize = 512;

/// A connection that lasted so long was a success: the next wait is short again.
const STABLE: Duration = Duration::from_secs(5);

/// A round of catching up that yields no more than this is the last but one.
const FEW_EVENTS: usize = 256;

/// How many rounds are made before the last at most; each is shorter than the one before unless events come faster than
/// they can be read, and then another would not help.
const ROUNDS: usize = 8;

/// What the work needs and does not change.
pub(super) struct Tools {
    pub(super) commands: Commands,
    pub(super) keys: Keys,
    pub(super) scripts: Scripts,
    pub(super) clock: Clock,
    pub(super) interest: Arc<dyn Interest>,
    pub(super) notices: mpsc::Sender<Notice>,
    pub(super) max_bytes: usize,
    /// Where this node hears itself.
    pub(super) probe_channel: String,
    /// Where it hears all nodes, and where it is answered.
    pub(super) peer_channels: [String; 2],
}

/// What is known from one connection to the next.
pub(super) struct State {
    /// Where the node stands; `None` before the first connection.
    pub(super) course: Option<Course>,
    pub(super) seen: Seen,
    pub(super) health: Health,
    /// It has been live: from here on an interruption has somebody to be told to.
    was_live: bool,
    /// Redis has lost data and nobody has been told yet.
    lost: bool,
    /// What was last said about the publishing function.
    function: Option<String>,
}

/// Keeps a node subscribed.
pub(super) struct Supervisor {
    tools: Tools,
    state: State,
}

impl Supervisor {
    pub(super) fn new(tools: Tools, health: Health) -> Self {
        let seen = Seen::default();
        let state = State { course: None, seen, health, was_live: false, lost: false, function: None };
        Self { tools, state }
    }

    /// Works until the node takes no more notices.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let began = self.tools.clock.now();
            match self.connection().await {
                End::NodeGone => return,
                End::Broken(why) => self.state.health.lost(&why),
            }
            // From now on nobody may take a channel for subscribed.
            self.tools.interest.reset();
            if self.tools.clock.now().since(began) >= STABLE {
                backoff.reset();
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    /// The life of one connection.
    async fn connection(&mut self) -> End {
        let (tools, state) = (&self.tools, &mut self.state);
        let (intake, mut inbox) = inbox();
        let connecting = Subscriber::connect(tools.commands.config(), move |push| intake.push(push));
        let subscriber = match connecting.await {
            Ok(subscriber) => subscriber,
            Err(error) => return error.into(),
        };
        match state.connect(tools, &subscriber, &mut inbox).await {
            Ok(course) => Live::new(tools, state, &subscriber, inbox, course).run().await,
            Err(end) => end,
        }
    }
}

impl Tools {
    pub(super) fn catch_up<'a>(&'a self, subscriber: &'a Subscriber) -> CatchUp<'a> {
        CatchUp {
            subscriber,
            commands: &self.commands,
            scripts: &self.scripts,
            notices: &self.notices,
            max_bytes: self.max_bytes,
        }
    }

    /// Subscribes everything that is wanted; returns it.
    async fn subscribe_all(&self, subscriber: &Subscriber) -> Result<Vec<ChannelName>, End> {
        let [nodes, own] = &self.peer_channels;
        subscriber.subscribe(&[self.probe_channel.clone(), nodes.clone(), own.clone()]).await?;
        let mut subscribed = Vec::new();
        loop {
            let changes = self.interest.take_changes(SUBSCRIBE_BATCH);
            if changes.is_empty() {
                return Ok(subscribed);
            }
            self.change(subscriber, &changes.subscribe, &changes.unsubscribe).await?;
            if !changes.unsubscribe.is_empty() {
                let left: HashSet<ChannelName> = changes.unsubscribe.into_iter().collect();
                subscribed.retain(|channel| !left.contains(channel));
            }
            subscribed.extend(changes.subscribe);
        }
    }

    /// Subscribes and unsubscribes, and waits for the confirmations.
    pub(super) async fn change(
        &self,
        subscriber: &Subscriber,
        subscribe: &[ChannelName],
        unsubscribe: &[ChannelName],
    ) -> Result<(), End> {
        let names = |channels: &[ChannelName]| -> Vec<String> {
            channels.iter().map(|channel| self.keys.channel(channel)).collect()
        };
        if !unsubscribe.is_empty() {
            subscriber.unsubscribe(&names(unsubscribe)).await?;
        }
        if !subscribe.is_empty() {
            subscriber.subscribe(&names(subscribe)).await?;
        }
        Ok(())
    }

    /// Everything that is wanted now.
    pub(super) fn wanted(&self) -> Vec<ChannelName> {
        let mut wanted = Vec::new();
        self.interest.for_each_wanted(&mut |channel| wanted.push(channel.clone()));
        wanted
    }
}

impl State {
    /// Everything between a fresh connection and the first live message.
    async fn connect(
        &mut self,
        tools: &Tools,
        subscriber: &Subscriber,
        inbox: &mut Inbox,
    ) -> Result<Course, End> {
        let mut course = self.settle(tools, subscriber).await?;
        let done = self.fill(tools, subscriber, inbox, &mut course).await;
        self.course = Some(course.clone());
        done?;
        self.was_live = true;
        Ok(course)
    }

    /// Finds out who answers and what became of the data.
    async fn settle(&mut self, tools: &Tools, subscriber: &Subscriber) -> Result<Course, End> {
        let server = Server::look(subscriber).await?;
        self.load_function(tools, subscriber, &server).await;
        let before = self.course.clone().filter(|_| self.was_live);
        let known = before.as_ref().map_or_else(Known::default, |course| Known {
            epoch: course.at.epoch,
            n: course.at.n,
            seen: course.seen.as_ref().map(|(channel, n)| (channel, *n)),
        });
        let call = tools.scripts.settle(&server.run_id, &server.source, server.safe, &known);
        let (epoch, n, losses): SettleAnswer = subscriber.invoke(&call).await?;
        Ok(match before {
            Some(course) if course.at.epoch == epoch => {
                self.lost |= course.losses.is_some_and(|known| known != losses);
                Course { server: server.run_id, losses: Some(losses), ..course }
            }
            other => {
                self.lost |= other.is_some();
                Course::begin(Position { epoch, n }, server.run_id, Some(losses))
            }
        })
    }

    /// Subscribes and catches up until what comes next is the next live message, and tells what could not be caught up.
    async fn fill(
        &mut self,
        tools: &Tools,
        subscriber: &Subscriber,
        inbox: &mut Inbox,
        course: &mut Course,
    ) -> Result<(), End> {
        let catch_up = tools.catch_up(subscriber);
        let Self { lost, seen, .. } = self;
        let told = *lost;
        let filling = async {
            let wanted = tools.subscribe_all(subscriber).await?;
            if told {
                catch_up.tell(wanted.clone(), GapReason::HistoryLost).await?;
                // Said once, though this connection may break before it is live.
                *lost = false;
            }
            let mut forgotten = false;
            for _ in 0..ROUNDS {
                let round = catch_up.round(course, &wanted).await?;
                forgotten |= round.forgotten;
                if round.events <= FEW_EVENTS {
                    break;
                }
            }
            Ok::<_, End>((wanted, forgotten))
        };
        // Messages come in meanwhile, and with many channels and much traffic more than can be kept. None of them
        // need be: durable events are in the history that a later round reads, and whoever could miss a plain one is
        // told below.
        let (wanted, forgotten) = tokio::select! {
            done = filling => done?,
            why = discard(inbox, &tools.keys, seen) => return Err(why.into()),
        };
        // The last round reads little, and what comes in meanwhile is kept.
        let mut last = catch_up.round(course, &wanted).await?;
        last.forgotten |= forgotten;
        if self.was_live && !told {
            self.tell_interrupted(&catch_up, &wanted, &last).await?;
        }
        // Before the confirmation: who waits for that opens a stream with this position.
        catch_up.yield_one(Notice::Passed(course.at)).await?;
        tools.interest.confirmed(&wanted);
        self.health.dropped(last.unreadable, "unreadable history");
        self.health.subscribed(wanted.len(), self.was_live);
        Ok(())
    }

    /// Tells those channels whose events of the meantime cannot be known.
    async fn tell_interrupted(
        &self,
        catch_up: &CatchUp<'_>,
        wanted: &[ChannelName],
        round: &Round,
    ) -> Result<(), End> {
        let bare: HashSet<&ChannelName> = round.without_history.iter().collect();
        let (mut interrupted, mut trimmed) = (Vec::new(), Vec::new());
        for channel in wanted {
            let has_history = !bare.contains(channel);
            if !self.seen.can_be_filled(channel, has_history) {
                interrupted.push(channel.clone());
            } else if !has_history && round.forgotten {
                trimmed.push(channel.clone());
            }
        }
        catch_up.tell(trimmed, GapReason::HistoryTrimmed).await?;
        catch_up.tell(interrupted, GapReason::BrokerInterrupted).await
    }

    /// Loads the publishing function; a Redis without it serves all the same.
    async fn load_function(&mut self, tools: &Tools, subscriber: &Subscriber, server: &Server) {
        let name = tools.keys.function("publish");
        let said = match function::ensure(subscriber, &tools.keys, &tools.scripts).await {
            Ok(Loaded::Already) => return,
            Ok(Loaded::Now) => {
                tracing::info!(function = name, "loaded the publishing function");
                self.function = None;
                return;
            }
            Err(why) => why,
        };
        if self.function.as_ref() != Some(&said) {
            let redis = &server.version;
            tracing::warn!(
                function = name,
                reason = said,
                redis,
                "the publishing function could not be loaded: no FCALL; publishing over HTTP and the command line works"
            );
            self.function = Some(said);
        }
    }
}

/// Takes what comes and only remembers of what kind it was; returns when nothing comes any more, with the reason.
async fn discard(inbox: &mut Inbox, keys: &Keys, seen: &mut Seen) -> &'static str {
    loop {
        match inbox.next().await {
            Ok(Arrival::Message(message)) => {
                if let Some(channel) = keys.channel_of(&message.channel) {
                    if durable::is_frame(&message.payload) {
                        seen.durable(&channel)
                    } else {
                        seen.plain(&channel)
                    }
                }
            }
            Ok(Arrival::Mark) => {}
            Err(why) => return why,
        }
    }
}
