//! What one incarnation of a node has counted since it started, by name.
//!
//! Names instead of fields, because nodes of two versions share a cluster while it is updated: whatever one of them counts is added
//! up by the other, whether it knows the name or not.

use std::collections::BTreeMap;

/// Connections ever opened.
pub const OPENED: &str = "opened";
/// Those of them whose client had been connected before.
pub const RECONNECTED: &str = "reconnected";
/// Events given to streams, whatever the number of these and of their nodes.
pub const BROADCASTS: &str = "broadcasts";
/// Events handed to the kernel, once per stream.
pub const MESSAGES: &str = "messages";
/// Bytes handed to the kernel.
pub const BYTES: &str = "bytes";
/// What failed on the way of an event or of a question.
pub const ERRORS: &str = "errors";
/// Milliseconds that ended connections had lived, added up.
pub const LIVED_MS: &str = "lived_ms";
/// Before the reason of a closing.
pub const CLOSED: &str = "closed:";
/// Before the code of a refusal.
pub const REJECTED: &str = "rejected:";
/// Before the end of a bucket in milliseconds: connections that lived so long.
pub const LIVED: &str = "lived:";

/// Counts that only rise. What was never counted is zero and has no entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<Box<str>, u64>);

impl Counts {
    /// Says what a count is.
    pub fn set(&mut self, name: impl Into<Box<str>>, count: u64) {
        if count > 0 {
            self.0.insert(name.into(), count);
        }
    }

    /// What was counted under `name`.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Everything that was counted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, count)| (&**name, *count))
    }

    /// What was counted under names with this beginning, without it.
    pub fn family<'a>(&'a self, beginning: &'a str) -> impl Iterator<Item = (&'a str, u64)> {
        self.iter().filter_map(move |(name, count)| Some((name.strip_prefix(beginning)?, count)))
    }

    /// How much more was counted than in `earlier`, by name.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut growth = Self::default();
        self.iter().for_each(|(name, count)| growth.set(name, count.saturating_sub(earlier.get(name))));
        growth
    }

    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: &Self) {
        other.iter().for_each(|(name, count)| *self.0.entry(name.into()).or_default() += count);
    }

    /// Takes over every count that is higher: counts only rise, so that the lower one is the older one.
    pub fn raise(&mut self, other: &Self) {
        for (name, count) in other.iter() {
            let mine = self.0.entry(name.into()).or_default();
            *mine = count.max(*mine);
        }
    }
}

impl<N: Into<Box<str>>> FromIterator<(N, u64)> for Counts {
    fn from_iter<T: IntoIterator<Item = (N, u64)>>(counts: T) -> Self {
        let mut all = Self::default();
        counts.into_iter().for_each(|(name, count)| all.set(name, count));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_counted_is_zero_and_costs_nothing() {
        let counts = Counts::from_iter([("opened", 3), ("errors", 0)]);
        assert_eq!((counts.get("opened"), counts.get("errors"), counts.iter().count()), (3, 0, 1));
    }

    #[test]
    fn a_family_is_told_without_its_beginning() {
        let counts = Counts::from_iter([("closed:kicked", 2), ("closed:max_age", 1), ("closedx", 9)]);
        assert_eq!(counts.family(CLOSED).collect::<Vec<_>>(), [("kicked", 2), ("max_age", 1)]);
    }

    #[test]
    fn growth_added_to_the_past_is_the_present() {
        let (past, now) =
            (Counts::from_iter([("a", 2), ("b", 5)]), Counts::from_iter([("a", 7), ("b", 5), ("c", 1)]));
        let mut sum = past.clone();
        sum.add(&now.since(&past));
        assert_eq!(sum, now);
        sum.raise(&past);
        assert_eq!(sum, now, "the older one changes nothing");
    }
}
