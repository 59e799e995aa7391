//! The scripts, what they are called with and what they answer. What they do is written in `lua/`.

use std::sync::LazyLock;
use std::time::Duration;

use crate::broker::{Acknowledgement, Config, Publication};
use crate::protocol::channel::ChannelName;
use crate::protocol::durable;
use crate::protocol::position::Position;
use crate::redis::{Call, Keys, Script};

macro_rules! script {
    ($file:literal) => {
        LazyLock::new(|| Script::new(concat!(include_str!("lua/core.lua"), include_str!($file))))
    };
}

static PUBLISH: LazyLock<Script> = script!("lua/publish.lua");
static READ: LazyLock<Script> = script!("lua/read.lua");
static NEWS: LazyLock<Script> = script!("lua/news.lua");
static PROBE: LazyLock<Script> = script!("lua/probe.lua");
static SETTLE: LazyLock<Script> = script!("lua/settle.lua");

/// The names that the scripts are given, made once.
#[derive(Clone, Debug)]
pub(super) struct Scripts {
    clock: String,
    index: String,
    history: String,
    once: String,
    channel: String,
    size: usize,
    ttl_ms: u64,
    max_bytes: usize,
}

/// The answer of `read.lua`: epoch, n, lost, server, up to where it was read, and per channel its floor and its frames.
pub(super) type ReadAnswer = (u64, u64, u64, String, u64, Vec<(u64, Vec<Vec<u8>>)>);

/// The answer of `news.lua`: epoch, n, floor, losses, and per channel its last number.
pub(super) type NewsAnswer = (u64, u64, u64, u64, Vec<u64>);

/// The answer of `settle.lua`: epoch, n, losses.
pub(super) type SettleAnswer = (u64, u64, u64);

/// What a node knows when it connects.
#[derive(Debug, Default)]
pub(super) struct Known<'a> {
    /// The last position, 0 and 0 for none.
    pub(super) epoch: u64,
    pub(super) n: u64,
    /// The last durable event.
    pub(super) seen: Option<(&'a ChannelName, u64)>,
}

impl Scripts {
    pub(super) fn new(keys: &Keys, config: &Config) -> Self {
        Self {
            clock: keys.clock(),
            index: keys.index(),
            history: keys.history(),
            once: keys.once(),
            channel: keys.prefix().to_owned(),
            size: config.history_size.max(1),
            ttl_ms: millis(config.history_ttl),
            max_bytes: config.max_event_bytes,
        }
    }

    fn call<'a>(&self, script: &'a Script) -> Call<'a> {
        script.call(&[&self.clock, &self.index])
    }

    /// Appends and publishes; answers what [`acknowledgement`] reads, one for each.
    pub(super) fn publish(&self, batch: &[Publication]) -> Call<'static> {
        let mut call = self.call(&PUBLISH);
        call.arg(&[&*self.history, &self.once, &self.channel]).arg(self.size).arg(self.ttl_ms);
        for publication in batch {
            let key = publication.idempotency_key.as_deref().unwrap_or_default();
            let body = durable::encode_body(&publication.event);
            call.arg(publication.channel.as_str()).arg(key).arg(body);
        }
        call
    }

    /// Reads what came after a number on each channel, up to `up_to` or the present, and `budget` bytes with one event more
    /// at most.
    pub(super) fn read<'a>(
        &self,
        channels: impl IntoIterator<Item = (&'a ChannelName, u64)>,
        up_to: Option<u64>,
        budget: usize,
    ) -> Call<'static> {
        let mut call = self.call(&READ);
        call.arg(&self.history).arg(up_to.map_or("+".to_owned(), |n| n.to_string())).arg(budget);
        for (channel, after) in channels {
            call.arg(channel.as_str()).arg(after);
        }
        call
    }

    /// Asks for the clock and the last events of these channels.
    pub(super) fn news(&self, channels: &[ChannelName]) -> Call<'static> {
        let mut call = self.call(&NEWS);
        for channel in channels {
            call.arg(channel.as_str());
        }
        call
    }

    /// Publishes `word` with the clock on `channel`, a probe channel.
    pub(super) fn probe(&self, channel: &str, word: u64) -> Call<'static> {
        let mut call = self.call(&PROBE);
        call.arg(channel).arg(word).arg(self.size).arg(self.ttl_ms).arg(self.max_bytes);
        call
    }

    /// Compares what a node knows with what it finds.
    pub(super) fn settle(&self, server: &str, source: &str, safe: bool, known: &Known<'_>) -> Call<'static> {
        let (channel, seen) = known.seen.map_or(("", 0), |(channel, n)| (channel.as_str(), n));
        let mut call = self.call(&SETTLE);
        call.arg(&[&*self.history, server, source]).arg(u8::from(safe));
        call.arg(known.epoch).arg(known.n).arg(channel).arg(seen);
        call
    }

    /// The library of the publishing function `name`, which says that it is `description`.
    pub(super) fn library(&self, library: &str, name: &str, description: &str) -> String {
        let names = [
            ("clock", &self.clock),
            ("index", &self.index),
            ("history", &self.history),
            ("once", &self.once),
            ("channel", &self.channel),
        ];
        let names: Vec<String> =
            names.iter().map(|(key, text)| format!("{key} = {}", quoted(text))).collect();
        format!(
            "#!lua name={library}\nlocal NAME, DESCRIPTION = {}, {}\nlocal NAMES = {{ {} }}\n{}{}",
            quoted(name),
            quoted(description),
            names.join(", "),
            include_str!("lua/core.lua"),
            include_str!("lua/function.lua"),
        )
    }
}

/// Reads what `publish.lua` answers about one event; `None` when it is no such thing.
pub(super) fn acknowledgement(text: &str) -> Option<Acknowledgement> {
    match text.strip_prefix('=') {
        None => Position::parse(text).map(Acknowledgement::Appended),
        Some(first) => Position::parse(first).map(Acknowledgement::Repeated),
    }
}

/// A Lua string literal. The prefix is checked elsewhere; here nothing of it can end the literal.
fn quoted(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b" ._:/-@=".contains(&b);
    let byte = |b: u8| if plain(b) { char::from(b).to_string() } else { format!("\\{b:03}") };
    format!("'{}'", text.bytes().map(byte).collect::<String>())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 50)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_prefix_ends_the_literal_that_it_stands_in() {
        assert_eq!(quoted("fanlight:@h:"), "'fanlight:@h:'");
        assert_eq!(quoted("a'..os.exit()--\n\\"), r"'a\039..os.exit\040\041--\010\092'");
    }
}
