//! When a connection must be looked at, and what is due then. Pure, so that it can be tested without sockets.

use std::time::Duration;

use rand::Rng;

use super::Config;
use super::connection::{Connection, Phase};
use super::wheel::{WheelTick, ticks, wheel_tick_after};
use crate::clock::Tick;
use crate::protocol::close::CloseReason;

/// What is due for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Heartbeat,
    Idle,
    /// Its age or its token has come to an end.
    End(CloseReason),
    /// The socket has taken nothing for the send time-out, or too little of its replay or its last blocks.
    Stalled,
}

/// The configured spans in wheel ticks; the longest tick means never.
pub(super) struct Timers {
    heartbeat: WheelTick,
    idle: WheelTick,
    max_age: WheelTick,
    send: WheelTick,
}

const NEVER: WheelTick = WheelTick::MAX;

/// How many send time-outs a socket may be blocked in all until it has its replay, and again until it has its last blocks. What
/// waits for a live socket is bounded by the buffer; a replay is not (32 MB), and who takes a byte now and then would hold
/// it for ever. Only the time counts in which the socket takes nothing: that a node has much to write is no client's fault.
const BLOCKED_TIMEOUTS: WheelTick = 12;

impl Timers {
    pub(super) fn new(config: &Config) -> Self {
        let or_never = |span: Duration| if span.is_zero() { NEVER } else { ticks(span).max(1) };
        Self {
            heartbeat: or_never(config.heartbeat),
            idle: or_never(config.idle_timeout),
            max_age: or_never(config.max_age),
            send: or_never(config.send_timeout),
        }
    }

    /// Sets a new connection's times. The age varies by ±10 % and the heartbeat's phase by half its span: clients that
    /// came together neither leave together nor are pinged together. What expires does so to the tick.
    pub(super) fn start(
        &self,
        connection: &mut Connection,
        expires_at: Option<Tick>,
        now: WheelTick,
        rng: &mut impl Rng,
    ) {
        connection.ends_at = match self.max_age {
            NEVER => NEVER,
            age => now.saturating_add((f64::from(age) * rng.random_range(0.9..=1.1)) as WheelTick),
        };
        if let Some(expires_at) = expires_at.map(wheel_tick_after)
            && expires_at < connection.ends_at
        {
            connection.ends_at = expires_at;
            connection.end_reason = CloseReason::TokenExpired;
        }
        if self.heartbeat != NEVER {
            connection.last_write = now.saturating_sub(rng.random_range(0..=self.heartbeat / 2));
        }
    }

    /// When the connection must be looked at next.
    pub(super) fn next(&self, connection: &Connection) -> WheelTick {
        let stalled = if connection.blocked {
            connection.stalled_since.saturating_add(self.patience(connection))
        } else {
            NEVER
        };
        if matches!(connection.phase, Phase::Closing(_)) {
            return stalled;
        }
        connection
            .ends_at
            .min(connection.last_write.saturating_add(self.heartbeat))
            .min(connection.last_event.saturating_add(self.idle))
            .min(stalled)
    }

    /// How long the socket may go on to take nothing.
    fn patience(&self, connection: &Connection) -> WheelTick {
        match connection.phase {
            Phase::Live => self.send,
            Phase::CatchingUp(_) | Phase::Closing(_) => {
                let in_all = self.send.saturating_mul(BLOCKED_TIMEOUTS);
                self.send.min(in_all.saturating_sub(connection.blocked_for))
            }
        }
    }

    /// What is due at `now`.
    pub(super) fn due(&self, connection: &Connection, now: WheelTick) -> Due {
        let over = |since: WheelTick, span: WheelTick| since.saturating_add(span) <= now;
        if connection.blocked && over(connection.stalled_since, self.patience(connection)) {
            Due::Stalled
        } else if matches!(connection.phase, Phase::Closing(_)) {
            Due::Nothing
        } else if connection.ends_at <= now {
            Due::End(connection.end_reason)
        } else if over(connection.last_event, self.idle) {
            Due::Idle
        } else if over(connection.last_write, self.heartbeat) {
            Due::Heartbeat
        } else {
            Due::Nothing
        }
    }
}
