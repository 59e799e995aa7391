//! A place among the counted connections, as a value: whoever holds it is counted, and dropping it is the only way to
//! stop being counted. So a connection is freed exactly once, wherever it ends.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::capacity::Seat;
use super::key::SessionKey;
use super::lease::call::Call;
use super::lease::reply::Reply;
use super::lease::state::{Lease, Outcome};
use super::local::{Ledger, Met, Request, Stamp};

/// The right to be connected. It belongs to the connection from its admission to the end of its socket.
#[derive(Debug)]
pub struct Permit {
    hold: Option<Hold>,
    seat: Seat,
}

impl Permit {
    pub(super) fn new(hold: Option<Hold>, seat: Seat) -> Self {
        Self { hold, seat }
    }

    /// The handshake is over: from here on the permit is a stream's.
    pub fn settle(&mut self) {
        self.seat.settle();
    }

    /// Calls `close` once when a newer connection of the same session has taken this one's place; at once when that has
    /// happened already. `close` should end the connection and thereby drop the permit; it must not block. It is not
    /// called any more once the permit is dropped. A second `close` takes the place of the first.
    pub fn on_replaced(&self, close: impl FnOnce() + Send + 'static) {
        if let Some(replacement) = self.hold.as_ref().and_then(|hold| hold.replacement.as_ref()) {
            replacement.on_replaced(Box::new(close));
        }
    }
}

/// One connection in the ledger; taken out when dropped.
pub(super) struct Hold {
    books: Arc<Books>,
    request: Request,
    stamp: Option<Stamp>,
    replacement: Option<Arc<Replacement>>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut inner = self.books.lock();
        inner.ledger.leave(&self.request, self.stamp);
        if let Some(name) = self.request.session.zip(self.stamp) {
            inner.replacements.remove(&name);
        }
        drop(inner);
        self.books.changed.notify_one();
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold")
            .field("request", &self.request)
            .field("stamp", &self.stamp)
            .finish_non_exhaustive()
    }
}

type Close = Box<dyn FnOnce() + Send>;

/// Whether a connection has been replaced, and what to do then. The order may come before anybody has said what to do:
/// between the admission and the connection's first byte.
#[derive(Default)]
struct Replacement(Mutex<Replaced>);

#[derive(Default)]
struct Replaced {
    ordered: bool,
    close: Option<Close>,
}

impl Replacement {
    fn on_replaced(&self, close: Close) {
        let mut state = self.lock();
        if !state.ordered {
            state.close = Some(close);
            return;
        }
        drop(state);
        close();
    }

    fn order(&self) {
        let mut state = self.lock();
        state.ordered = true;
        let close = state.close.take();
        drop(state);
        if let Some(close) = close {
            close();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Replaced> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The node's ledger, shared by all its permits and the task that tells Redis.
pub(super) struct Books {
    inner: Mutex<Inner>,
    /// Rung when a count changed that Redis must be told.
    changed: Notify,
}

struct Inner {
    ledger: Ledger,
    /// The stamped connections, for the day when they are replaced.
    replacements: HashMap<(SessionKey, Stamp), Arc<Replacement>>,
}

impl Books {
    pub(super) fn new(ledger: Ledger) -> Arc<Self> {
        let inner = Inner { ledger, replacements: HashMap::new() };
        Arc::new(Self { inner: Mutex::new(inner), changed: Notify::new() })
    }

    /// Waits for the next change; returns at once when there was one since the last wait.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What the ledger answers to `question`.
    pub(super) fn ask<T>(&self, question: impl FnOnce(&Ledger) -> T) -> T {
        question(&self.lock().ledger)
    }

    /// Enters a connection without asking Redis, when `unless` finds nothing against it.
    pub(super) fn enter_unasked(
        self: &Arc<Self>,
        request: &Request,
        unless: impl FnOnce(&Ledger) -> Option<Met>,
    ) -> Result<Hold, Met> {
        let mut inner = self.lock();
        if let Some(met) = unless(&inner.ledger) {
            return Err(met);
        }
        let stamp = inner.ledger.enter_unasked(request);
        let hold = inner.hold(self, *request, stamp);
        let replaced = inner.ledger.beyond_limit(request);
        let replaced = request.session.map(|session| inner.replacements_of(session, &replaced));
        drop(inner);
        self.changed.notify_one();
        replaced.into_iter().flatten().for_each(|replacement| replacement.order());
        Ok(hold)
    }

    /// The node's next call to Redis.
    pub(super) fn next_call(&self, lease: &mut Lease, requests: &[Request], beat: bool) -> Call {
        lease.next_call(&mut self.lock().ledger, requests, beat)
    }

    /// The answer to `call` has come. Also returns the decision about each of its requests: the admitted ones are in the
    /// ledger from here on.
    pub(super) fn settle(
        self: &Arc<Self>,
        lease: &mut Lease,
        call: &Call,
        reply: Reply,
    ) -> (Outcome, Vec<Result<Hold, Met>>) {
        let mut inner = self.lock();
        let outcome = lease.settle(&mut inner.ledger, call, reply);
        let mut decisions = Vec::new();
        if let (Call::Apply(apply), Outcome::Applied { entered, .. }) = (call, &outcome) {
            let hold = |(request, entered): (&Request, &Result<_, _>)| match entered {
                Ok(stamp) => Ok(inner.hold(self, *request, *stamp)),
                Err(met) => Err(*met),
            };
            decisions = apply.requests.iter().zip(entered).map(hold).collect();
        }
        (outcome, decisions)
    }

    /// No answer to `call` has come.
    pub(super) fn doubt(&self, lease: &mut Lease, call: &Call) {
        lease.doubt(&mut self.lock().ledger, call);
    }

    /// Closes the connections of `session` that came in up to `stamp`.
    pub(super) fn replace_up_to(&self, session: SessionKey, stamp: Stamp) {
        let inner = self.lock();
        let replaced = inner.replacements_of(session, &inner.ledger.up_to(session, stamp));
        drop(inner);
        // Unlocked: whoever is told may drop the permit at once, and that locks.
        replaced.iter().for_each(|replacement| replacement.order());
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn hold(&mut self, books: &Arc<Books>, request: Request, stamp: Option<Stamp>) -> Hold {
        let replacement = request.session.zip(stamp).map(|name| {
            let replacement = Arc::new(Replacement::default());
            self.replacements.insert(name, Arc::clone(&replacement));
            replacement
        });
        Hold { books: Arc::clone(books), request, stamp, replacement }
    }

    fn replacements_of(&self, session: SessionKey, stamps: &[Stamp]) -> Vec<Arc<Replacement>> {
        stamps.iter().filter_map(|stamp| self.replacements.get(&(session, *stamp)).cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::capacity::Capacity;
    use super::super::key::{IpKey, Key};
    use super::super::local::{Limits, SessionPolicy};
    use super::*;

    fn books(policy: SessionPolicy) -> Arc<Books> {
        Books::new(Ledger::new(Limits { per_ip: 2, per_session: 1, policy }))
    }

    fn request() -> Request {
        Request { ip: IpKey::V4([192, 0, 2, 1]), session: Some(SessionKey::of("tab")) }
    }

    fn permit(books: &Arc<Books>) -> Result<Permit, Met> {
        let seat = Capacity::new(9).take().unwrap();
        let hold = books.enter_unasked(&request(), |ledger| ledger.meets(&request()))?;
        Ok(Permit::new(Some(hold), seat))
    }

    fn counter() -> (Arc<AtomicUsize>, impl Fn() -> Box<dyn FnOnce() + Send>) {
        let count = Arc::new(AtomicUsize::new(0));
        let inner = Arc::clone(&count);
        (count, move || {
            let count = Arc::clone(&inner);
            Box::new(move || {
                count.fetch_add(1, Ordering::SeqCst);
            })
        })
    }

    #[test]
    fn a_connection_is_counted_as_long_as_its_permit_lives() {
        let books = books(SessionPolicy::Reject);
        let first = permit(&books).unwrap();
        assert_eq!(permit(&books).unwrap_err(), Met::Session);
        drop(first);
        assert_eq!(books.ask(|ledger| ledger.counts().count()), 0);
        assert!(permit(&books).is_ok());
    }

    #[test]
    fn the_oldest_is_told_once_when_a_newcomer_takes_its_place() {
        let books = books(SessionPolicy::Replace);
        let (told, close) = counter();
        let first = permit(&books).unwrap();
        first.on_replaced(close());
        let second = permit(&books).unwrap();
        second.on_replaced(|| panic!("the newest stays"));
        assert_eq!(told.load(Ordering::SeqCst), 1);
        books.replace_up_to(SessionKey::of("tab"), 1);
        assert_eq!(told.load(Ordering::SeqCst), 1);
        drop(first);
        assert_eq!(books.ask(|ledger| ledger.count(Key::Session(SessionKey::of("tab")))), 1);
    }

    #[test]
    fn one_that_is_replaced_before_it_is_ready_is_told_as_soon_as_it_is() {
        let books = books(SessionPolicy::Replace);
        let first = permit(&books).unwrap();
        let _second = permit(&books).unwrap();
        let (told, close) = counter();
        first.on_replaced(close());
        assert_eq!(told.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_connection_may_drop_its_permit_while_it_is_told() {
        let books = books(SessionPolicy::Replace);
        let place = Arc::new(Mutex::new(Some(permit(&books).unwrap())));
        let inside = Arc::clone(&place);
        let guard = place.lock().unwrap();
        guard.as_ref().unwrap().on_replaced(move || {
            let permit = inside.lock().unwrap().take();
            drop(permit);
        });
        drop(guard);
        let _second = permit(&books).unwrap();
        assert!(place.lock().unwrap().is_none());
        assert_eq!(books.ask(|ledger| ledger.count(Key::Session(SessionKey::of("tab")))), 1);
    }

    #[test]
    fn only_connections_up_to_the_ordered_stamp_are_replaced() {
        let books = books(SessionPolicy::Replace);
        let (told, close) = counter();
        let only = permit(&books).unwrap();
        only.on_replaced(close());
        books.replace_up_to(SessionKey::of("tab"), 0);
        books.replace_up_to(SessionKey::of("other"), 9);
        assert_eq!(told.load(Ordering::SeqCst), 0);
        books.replace_up_to(SessionKey::of("tab"), 1);
        assert_eq!(told.load(Ordering::SeqCst), 1);
    }
}
