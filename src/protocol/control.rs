//! Control events: `hello`, `bye`, `gap`, `limit`.
