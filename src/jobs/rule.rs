//! What an update does to what is known of a job. The Redis store has the same rule in its script.

use super::{JobUpdate, Place, Status};

/// What must be remembered of a job to judge the next update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// The event that began the run; the lowest place of all when none was seen.
    pub(super) start: Place,
    /// The event that made the state what it is.
    pub(super) at: Place,
    /// The state.
    pub(super) status: Status,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Where the run began, as it is known now.
    pub(super) start: Place,
    /// Whether the update is the state from now on.
    pub(super) replaces: bool,
}

/// Judges `update`.
///
/// Within one run the outcome is the least of an order (the first terminal event, else the last event), so that neither
/// order nor repetition matters. A start moves the run's beginning forward, and what lies before it does not count any more.
pub(super) fn judge(known: Option<&Standing>, update: &JobUpdate) -> Verdict {
    let place = update.place;
    let Some(known) = known else {
        let start = if update.starts { place } else { Place::default() };
        return Verdict { start, replaces: true };
    };
    let keep = Verdict { start: known.start, replaces: false };
    // Plain events in one place come in their order.
    let later = |than: Place| place > than || (place == than && place.is_plain());
    let same_again = place == known.at && !place.is_plain();
    if place < known.start || same_again {
        keep
    } else if update.starts {
        if later(known.start) { Verdict { start: place, replaces: later(known.at) } } else { keep }
    } else if known.status.is_terminal() {
        Verdict { replaces: update.status.is_terminal() && place < known.at, ..keep }
    } else {
        Verdict { replaces: update.status.is_terminal() || later(known.at), ..keep }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::event::Key;
    use crate::protocol::position::Position;

    #[derive(Clone, Copy, Debug)]
    enum Says {
        Start,
        Progress,
        Done,
        Failed,
    }

    /// One event: durable, or plain behind the durable one before it.
    type Said = (Says, bool);

    fn updates(script: &[Said]) -> Vec<JobUpdate> {
        let mut last = None;
        let at = |(i, &(says, plain)): (usize, &Said)| {
            let position = Position { epoch: 1, n: 10 * (i as u64 + 1) };
            let place = if plain { Place::behind(last) } else { Place::at(position) };
            last = if plain { last } else { Some(position) };
            let status = match says {
                Says::Start | Says::Progress => Status::InProgress,
                Says::Done => Status::Completed,
                Says::Failed => Status::Error,
            };
            JobUpdate {
                id: Key::parse("42").unwrap(),
                place,
                status,
                word: i.to_string().into(),
                starts: matches!(says, Says::Start),
                kind: None,
                data: String::new(),
            }
        };
        script.iter().enumerate().map(at).collect()
    }

    /// The state after `updates`: the index of the event that made it.
    fn record<'a>(updates: impl IntoIterator<Item = &'a JobUpdate>) -> Option<Box<str>> {
        let mut known: Option<(Standing, Box<str>)> = None;
        for update in updates {
            let verdict = judge(known.as_ref().map(|(standing, _)| standing), update);
            let (at, status, word) = match (&known, verdict.replaces) {
                (Some((standing, word)), false) => (standing.at, standing.status, word.clone()),
                _ => (update.place, update.status, update.word.clone()),
            };
            known = Some((Standing { start: verdict.start, at, status }, word));
        }
        known.map(|(_, word)| word)
    }

    /// The rule in its plainest form: one event after the other.
    fn expected(script: &[Said]) -> Option<Box<str>> {
        let mut state: Option<(usize, bool)> = None;
        for (i, (says, _)) in script.iter().enumerate() {
            let ended = matches!(state, Some((_, true)));
            if !ended || matches!(says, Says::Start) {
                state = Some((i, matches!(says, Says::Done | Says::Failed)));
            }
        }
        state.map(|(i, _)| i.to_string().into())
    }

    fn said(plain: impl Strategy<Value = bool>, starts: bool) -> impl Strategy<Value = Said> {
        let says = prop_oneof![
            2 => Just(if starts { Says::Start } else { Says::Progress }),
            3 => Just(Says::Progress),
            1 => Just(Says::Done),
            1 => Just(Says::Failed),
        ];
        (says, plain)
    }

    proptest! {
        #[test]
        fn in_their_order_the_events_make_the_state(script in prop::collection::vec(said(any::<bool>(), true), 0..12)) {
            prop_assert_eq!(record(&updates(&script)), expected(&script));
        }

        /// A new recorder begins somewhere in what the old one has recorded.
        #[test]
        fn repeating_the_end_of_the_stream_changes_nothing(
            script in prop::collection::vec(said(any::<bool>(), true), 0..12),
            from in 0usize..12,
        ) {
            let updates = updates(&script);
            let again = &updates[from.min(updates.len())..];
            prop_assert_eq!(record(updates.iter().chain(again)), expected(&script));
        }

        #[test]
        fn a_run_may_be_recorded_in_any_order(
            (script, order) in prop::collection::vec(said(Just(false), false), 1..10).prop_flat_map(|script| {
                let all: Vec<usize> = (0..script.len()).collect();
                let repeated = prop::collection::vec(0..script.len(), 0..10);
                let order = repeated.prop_flat_map(move |more| Just([all.clone(), more].concat()).prop_shuffle());
                (Just(script), order)
            }),
        ) {
            let updates = updates(&script);
            prop_assert_eq!(record(order.iter().map(|&i| &updates[i])), expected(&script));
        }

        /// Publishers record what they have published whenever they come to it; the recorder has everything in its order,
        /// and a new one has the end of it again.
        #[test]
        fn whatever_publishers_do_the_recorders_make_it_right(
            script in prop::collection::vec(said(any::<bool>(), true), 1..12),
            from in 0usize..12,
            publishers in prop::collection::vec((0usize..24, 0usize..12), 0..24),
        ) {
            let updates = updates(&script);
            let recorders: Vec<&JobUpdate> = updates.iter().chain(updates.iter().skip(from)).collect();
            let mut order = Vec::new();
            for i in 0..=recorders.len() {
                let now = publishers.iter().filter(|(when, _)| *when == i);
                let published = now.filter_map(|(_, what)| updates.get(*what));
                order.extend(published.filter(|update| !update.place.is_plain()));
                order.extend(recorders.get(i));
            }
            prop_assert_eq!(record(order), expected(&script));
        }
    }
}
