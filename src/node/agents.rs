//! User agents, each kept once: a hundred thousand connections name a few dozen of them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The longest that is kept, in bytes; the rest is cut.
const MAX_LEN: usize = 256;

/// How many different ones are shared. Past it (somebody invents them) those in nobody's use are forgotten, and if that
/// makes no room, newcomers are not shared.
const MAX_KEPT: usize = 1024;

/// The user agents in use.
#[derive(Default)]
pub(super) struct Agents(Mutex<HashSet<Arc<str>>>);

impl Agents {
    /// The shared copy of `agent`.
    pub(super) fn share(&self, agent: &str) -> Arc<str> {
        let agent = cut(agent);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept.get(agent) {
            return Arc::clone(known);
        }
        if kept.len() >= MAX_KEPT {
            kept.retain(|agent| Arc::strong_count(agent) > 1);
        }
        let new: Arc<str> = agent.into();
        if kept.len() < MAX_KEPT {
            kept.insert(Arc::clone(&new));
        }
        new
    }
}

fn cut(agent: &str) -> &str {
    let mut end = agent.len().min(MAX_LEN);
    while !agent.is_char_boundary(end) {
        end -= 1;
    }
    &agent[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_agent_is_kept_once_and_unused_ones_make_room() {
        let agents = Agents::default();
        let (a, b) = (agents.share("Mozilla"), agents.share("Mozilla"));
        assert!(Arc::ptr_eq(&a, &b));
        for i in 0..3000 {
            agents.share(&i.to_string());
        }
        assert!(agents.0.lock().unwrap().len() <= MAX_KEPT);
        assert!(Arc::ptr_eq(&a, &agents.share("Mozilla")));
    }

    #[test]
    fn a_long_agent_is_cut_between_characters() {
        let agents = Agents::default();
        assert_eq!(agents.share(&"ü".repeat(500)).len(), 256);
        assert_eq!(agents.share(&format!("x{}", "ü".repeat(500))).len(), 255);
    }
}
