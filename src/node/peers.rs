//! Asking all nodes of the cluster, and answering them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::admission::NodeTag;
use crate::broker::{Broker, BrokerError, Recipient};
use crate::protocol::peer::{Answer, Ask, PeerMessage};

/// How long answers are waited for. A node that is stopped or dying does not answer; what the others said is given then.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// Answers that may wait to be looked at; more nodes than that do not share one Redis.
const MAX_ANSWERS: usize = 1024;

/// The questions that this node has asked and whose answers it awaits.
pub(super) struct Peers {
    broker: Arc<dyn Broker>,
    open: Mutex<HashMap<Uuid, mpsc::Sender<Answer>>>,
}

/// What the cluster said.
pub(super) struct Answers {
    pub(super) answers: Vec<Answer>,
    /// Not every node that heard the question has answered in time.
    pub(super) partial: bool,
}

/// The nodes cannot be asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the nodes of the cluster cannot be asked: {0}")]
pub struct PeersUnreachable(String);

impl PeersUnreachable {
    /// Not every node has answered, and those that have are not enough.
    pub(super) fn some() -> Self {
        Self("not all of them have answered".to_owned())
    }
}

impl From<BrokerError> for PeersUnreachable {
    fn from(error: BrokerError) -> Self {
        Self(error.to_string())
    }
}

/// Forgets the question however the waiting ends.
struct Open<'a> {
    peers: &'a Peers,
    question: Uuid,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.peers.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.question);
    }
}

/// Tells the node with this tag to look at its lease: some of its connections are to be replaced.
pub async fn nudge(broker: &dyn Broker, tag: NodeTag) {
    let message = PeerMessage::Nudge { tag: tag.to_string() };
    if let Err(error) = tell(broker, &Recipient::All, &message).await {
        tracing::debug!(%error, "a nudge was lost");
    }
}

async fn tell(broker: &dyn Broker, to: &Recipient, message: &PeerMessage) -> Result<usize, BrokerError> {
    let words = serde_json::to_vec(message).map_err(|error| BrokerError::Refused(error.to_string()))?;
    broker.tell(to, &words).await
}

impl Peers {
    pub(super) fn new(broker: Arc<dyn Broker>) -> Self {
        Self { broker, open: Mutex::default() }
    }

    /// Asks every node, this one included.
    pub(super) async fn ask(&self, ask: Ask) -> Result<Answers, PeersUnreachable> {
        let question = Uuid::new_v4();
        let (sender, mut receiver) = mpsc::channel(MAX_ANSWERS);
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(question, sender);
        let _open = Open { peers: self, question };
        let deadline = Instant::now() + ANSWER_LIMIT;
        let message = PeerMessage::Ask { question, reply_to: self.broker.mailbox().to_owned(), ask };
        let asking = self.tell(&Recipient::All, &message);
        let slow = |_| PeersUnreachable("no answer within a second".into());
        let heard = timeout_at(deadline, asking).await.map_err(slow)??;
        let mut answers = Vec::with_capacity(heard);
        while answers.len() < heard {
            match timeout_at(deadline, receiver.recv()).await {
                Ok(Some(answer)) => answers.push(answer),
                _ => return Ok(Answers { answers, partial: true }),
            }
        }
        Ok(Answers { answers, partial: false })
    }

    /// Takes an answer to one of this node's questions; others are too late and forgotten.
    pub(super) fn answered(&self, question: Uuid, answer: Answer) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = open.get(&question) {
            // Full means that more answered than heard the question.
            let _ = sender.try_send(answer);
        }
    }

    pub(super) async fn tell(&self, to: &Recipient, message: &PeerMessage) -> Result<usize, BrokerError> {
        tell(&*self.broker, to, message).await
    }
}
