//! From a wish to listen to a socket in the hub.
//!
//! Two steps, because the HTTP head is written between them. [`Node::subscribe`] decides, and holds everything that the
//! stream needs in an [`Attachment`]; whoever drops that gives it all back. [`Node::attach`] hands the socket over.

use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::interest::Listening;
use super::topics::Topic;
use super::{Node, Refusal, connections};
use crate::admission::{IpKey, Permit, Request, SessionKey};
use crate::clock::Tick;
use crate::cluster::Here;
use crate::hub::{About, ConnectionKey, Membership, NewConnection, TopicId};
use crate::protocol::channel::{ChannelList, ChannelName, ChannelPattern};
use crate::protocol::close::CloseReason;
use crate::protocol::control::Hello;
use crate::protocol::event::Key;
use crate::protocol::position::Position;
use crate::protocol::session::SessionToken;
use crate::protocol::sse::{Block, Framing};

/// How long a handshake waits in all, for the limits (which take as long at most) and for the broker to confirm a channel
/// that nobody listened to before: everybody is answered within a second, and some of that is for the way. Past it the
/// stream opens all the same and is told a gap once the channel is there.
const WAIT_LIMIT: Duration = Duration::from_millis(800);

/// Where the first `retry:` lies, in milliseconds: clients that lost one node together do not come back together.
const RETRY_MS: std::ops::RangeInclusive<u64> = 2_000..=4_000;

/// Who asks.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its address.
    pub ip: IpAddr,
    /// The token that it chose.
    pub session: Option<SessionToken>,
    /// What it says it is.
    pub user_agent: Option<String>,
    /// What it may read beyond the channels that anyone may read.
    pub reads: Vec<ChannelPattern>,
    /// When that ends, in milliseconds of Unix time; its streams end then.
    pub expires_at: Option<u64>,
}

/// What a client wants to hear.
#[derive(Clone, Debug)]
pub struct SubscribeRequest {
    /// Who asks.
    pub client: Client,
    /// The channels.
    pub channels: ChannelList,
    /// Whether the first block has an `event:` line.
    pub named_hello: bool,
    /// Where the client got to, as it says; anything at all.
    pub last_event_id: Option<String>,
    /// Only this job, as its own stream shows it; the channel is `jobs` then.
    pub job: Option<Key>,
}

/// An admitted stream that has no socket yet.
pub struct Attachment {
    /// The connection's id.
    pub id: Uuid,
    pub(super) greeting: Greeting,
    last_event_id: Option<String>,
    job: Option<Key>,
    expires_at: Option<Tick>,
    /// The client was connected before.
    returns: bool,
    listening: Listening,
    about: About,
    here: Here,
    permit: Permit,
}

/// What goes into the first block.
pub(super) struct Greeting {
    pub(super) channels: Arc<[ChannelName]>,
    named: bool,
    retry_ms: u64,
}

/// A socket whose response head is written.
pub struct Socket {
    /// The socket.
    pub stream: TcpStream,
    /// How blocks are put on it.
    pub framing: Framing,
}

/// What a connection holds until its socket is gone.
struct Member {
    listening: Listening,
    about: About,
    _permit: Arc<Permit>,
    _here: Here,
}

impl Membership for Member {
    fn topics(&self) -> &[TopicId] {
        self.listening.topics()
    }

    fn about(&self) -> &About {
        &self.about
    }
}

impl Node {
    /// Decides whether a stream may open, and prepares it.
    ///
    /// # Errors
    /// When it may not; nothing is held then.
    pub async fn subscribe(&self, request: SubscribeRequest) -> Result<Attachment, Refusal> {
        if self.is_draining() {
            return Err(Refusal::Draining);
        }
        if self.vitals.is_refusing() {
            return Err(Refusal::Overloaded);
        }
        let SubscribeRequest { client, channels, named_hello, last_event_id, job } = request;
        let Client { ip, session, user_agent, reads, expires_at } = client;
        let channels = self.readable(channels, &reads)?;
        let asked = self.clock.now();
        let key = session.as_ref().map(|session| SessionKey::of(session.as_str()));
        let admitted = self.admission.admit(Request { ip: ip.into(), session: key }).await;
        let permit = admitted.map_err(Refusal::Admission)?;
        let _handshake = self.handshakes.acquire().await;
        let topics: Vec<Topic> =
            channels.iter().map(|channel| Topic { channel: channel.clone(), key: job.clone() }).collect();
        let listening = self.interest.listen(&topics);
        self.wait_for_broker(&listening, asked).await;
        let retry_ms = rand::rng().random_range(RETRY_MS);
        let greeting = Greeting { channels: channels.into(), named: named_hello, retry_ms };
        let user_agent = user_agent.map(|agent| self.agents.share(&agent));
        let about = About { ip, session: session.map(SessionToken::into_text), user_agent };
        let (here, met_before) = self.greet(&about);
        let returns = met_before || last_event_id.is_some();
        let expires_at = expires_at.map(|at| self.tick_at(at));
        let id = connections::fresh_id(self.clock.unix_millis());
        tracing::debug!(
            connection = %id,
            %ip,
            agent = about.user_agent.as_deref(),
            channels = greeting.channels.len(),
            returns,
            "stream admitted"
        );
        Ok(Attachment {
            id,
            greeting,
            last_event_id,
            job,
            expires_at,
            returns,
            listening,
            about,
            here,
            permit,
        })
    }

    /// Gives the socket of an admitted stream to the hub, and what it missed to the socket. `None` when the client has
    /// gone meanwhile.
    pub async fn attach(&self, attachment: Attachment, socket: Socket) -> Option<ConnectionKey> {
        let Attachment { id, greeting, last_event_id, job, expires_at, returns, .. } = attachment;
        let Attachment { listening, about, here, mut permit, .. } = attachment;
        permit.settle();
        let permit = Arc::new(permit);
        let member = Member { listening, about, _permit: Arc::clone(&permit), _here: here };
        let Socket { stream, framing } = socket;
        let membership = Box::new(member);
        // One that comes back is parked: it is registered first, so that nothing is missed, and its replay goes before
        // whatever arrives from now on.
        let parked = last_event_id.is_some() || job.is_some();
        // Read before the connection is registered: everything after it reaches this connection.
        let present = self.passed.get();
        let hello = if parked { None } else { Some(self.hello_at(id, &greeting, None, present)) };
        let connection = NewConnection { stream, framing, id, hello, expires_at, membership };
        let key = self.hub.attach(connection).await?;
        self.close_when_replaced(&permit, key);
        drop(permit);
        if returns {
            self.tally.reconnected();
        }
        if let Some(job) = job {
            self.open_job(id, key, &greeting, &job, last_event_id.as_deref()).await;
        } else if let Some(last_event_id) = last_event_id {
            self.resume(id, key, &greeting, &last_event_id, present).await;
        }
        Some(key)
    }

    /// Notes whose connection it is; `true` when this session had one before.
    fn greet(&self, about: &About) -> (Here, bool) {
        let presence = self.cluster.presence();
        let session = about.session.as_deref().map(str::as_bytes);
        let met_before = session.is_some_and(|session| presence.met_before(session));
        (presence.arrive(IpKey::from(about.ip).to_string().as_bytes(), session), met_before)
    }

    /// A newer connection of the same session may take this one's place at any time from the admission on; what happens
    /// then can be said only now that there is a connection to close.
    fn close_when_replaced(&self, permit: &Permit, key: ConnectionKey) {
        let (hub, runtime) = (Arc::clone(&self.hub), Handle::current());
        permit.on_replaced(move || {
            runtime.spawn(async move { hub.close(key, CloseReason::Replaced).await });
        });
    }

    /// The first block of a client that has a position, and keeps it: where it stands is for the replay to say. And of the
    /// stream of one job, which begins with the job's state: with a position beyond the end of the job a client would be
    /// told that it has had the end.
    pub(super) fn hello(&self, id: Uuid, greeting: &Greeting, recovered: Option<bool>) -> Block {
        self.hello_at(id, greeting, recovered, None)
    }

    fn hello_at(
        &self,
        id: Uuid,
        greeting: &Greeting,
        recovered: Option<bool>,
        position: Option<Position>,
    ) -> Block {
        let hello = Hello {
            retry_ms: greeting.retry_ms,
            named: greeting.named,
            connection_id: &id.to_string(),
            node: self.id(),
            channels: &greeting.channels,
            recovered,
            position,
        };
        hello.block()
    }

    /// The monotonic time of a Unix time in milliseconds; what has passed is now.
    fn tick_at(&self, unix_millis: u64) -> Tick {
        let left = unix_millis.saturating_sub(self.clock.unix_millis());
        self.clock.now().after(Duration::from_millis(left))
    }

    /// The channels asked for, each once, if all of them are configured or granted by `reads`; `all` stands for the plain
    /// names of both.
    pub(super) fn readable(
        &self,
        asked: ChannelList,
        reads: &[ChannelPattern],
    ) -> Result<Vec<ChannelName>, Refusal> {
        let allowed = || self.config.channels.iter().chain(reads);
        let all: Vec<ChannelName> = if asked.all {
            allowed().filter_map(ChannelPattern::plain).cloned().collect()
        } else {
            Vec::new()
        };
        let mut wanted: Vec<ChannelName> = Vec::with_capacity(all.len() + asked.names.len());
        for channel in all.into_iter().chain(asked.names) {
            if !allowed().any(|pattern| pattern.matches(&channel)) {
                return Err(Refusal::Forbidden);
            }
            if !wanted.contains(&channel) {
                wanted.push(channel);
            }
        }
        if wanted.is_empty() { Err(Refusal::Forbidden) } else { Ok(wanted) }
    }

    /// Waits until there is room for another handshake. A new socket waits here before anything is read from it: a
    /// handshake that waits for the broker holds buffers that a stream no longer needs, and in a storm the others wait
    /// without any.
    pub async fn room_for_handshake(&self) {
        // An error means that the semaphore is closed, which it never is.
        drop(self.handshakes.acquire().await);
    }

    /// An event published after the first block must arrive, so the broker's confirmation comes before it. With the
    /// broker away there is nothing to wait for: what was missed meanwhile is filled or told by the broker when it is
    /// back, except before its very first connection, of which it knows no earlier state.
    async fn wait_for_broker(&self, listening: &Listening, asked: Tick) {
        let status = self.broker_status();
        let left = WAIT_LIMIT.saturating_sub(self.clock.now().since(asked));
        let limit = if status.subscribed { left } else { Duration::ZERO };
        let known_before = status.probed_at.is_some();
        if !listening.confirmed(limit).await && (status.subscribed || !known_before) {
            listening.owe_gap();
        }
    }
}
