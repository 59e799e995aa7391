//! Where an update stands in the stream of events.

use std::fmt;

use crate::protocol::position::Position;

/// A place in the order of the channel's events, as far as it is known.
///
/// A durable event stands at its position. A plain one has none, but every node hears it behind the same durable event,
/// and so it stands right behind that. Plain events behind the same one are in the order in which they are recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    epoch: u64,
    n: u64,
    plain: bool,
}

impl Place {
    /// The place of the durable event at `position`.
    pub const fn at(position: Position) -> Self {
        Self { epoch: position.epoch, n: position.n, plain: false }
    }

    /// The place of a plain event that was heard behind the durable one at `position`; `None` when there has been none.
    pub fn behind(position: Option<Position>) -> Self {
        let Position { epoch, n } = position.unwrap_or(Position { epoch: 0, n: 0 });
        Self { epoch, n, plain: true }
    }

    /// Whether it is that of an event without a position of its own.
    pub const fn is_plain(self) -> bool {
        self.plain
    }

    /// The event's own position.
    pub const fn position(self) -> Option<Position> {
        if self.plain { None } else { Some(Position { epoch: self.epoch, n: self.n }) }
    }

    /// When the event happened, in Unix milliseconds, if it is `now`: a position says it, a plain event is recorded as it
    /// comes. Never in the future, where a broker's clock that was set back leaves its positions.
    pub(super) fn happened(self, now: u64) -> u64 {
        self.position().map_or(now, |position| position.unix_millis().min(now))
    }

    /// What [`Display`](fmt::Display) printed.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let (epoch, n) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let plain = match words.next()? {
            "0" => false,
            "1" => true,
            _ => return None,
        };
        words.next().is_none().then_some(Self { epoch, n, plain })
    }
}

/// Three decimal numbers, which a script can compare.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.epoch, self.n, u8::from(self.plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(epoch: u64, n: u64) -> Position {
        Position { epoch, n }
    }

    #[test]
    fn a_plain_event_stands_between_the_durable_ones_around_it() {
        let places = [
            Place::behind(None),
            Place::at(position(1, 9)),
            Place::behind(Some(position(1, 9))),
            Place::at(position(1, 10)),
            Place::at(position(2, 3)),
            Place::behind(Some(position(2, 3))),
        ];
        assert!(places.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn what_is_printed_is_read_back() {
        for place in [Place::behind(None), Place::at(position(5, 7)), Place::behind(Some(position(5, 7)))] {
            assert_eq!(Place::parse(&place.to_string()), Some(place));
        }
        for broken in ["", "1 2", "1 2 2", "1 2 0 0", "a 2 0"] {
            assert_eq!(Place::parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_durable_event_happened_when_its_position_says_but_never_later_than_now() {
        let place = Place::at(position(1, 5000 << 11));
        assert_eq!((place.happened(9000), place.happened(4000)), (5000, 4000));
        assert_eq!(Place::behind(Some(position(1, 5000 << 11))).happened(9000), 9000);
    }
}
