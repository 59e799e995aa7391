//! Giving memory back after a storm.
//!
//! mimalloc keeps what was freed until its threads allocate again, which an idle node does not: after 15,000 handshakes it
//! held 45 MB that nobody used. It reads its options before `main`, from the environment only, so the program starts
//! itself once more with the option set. The process stays the same one: its id, its files, its signals.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// How long freed pages are kept, in milliseconds.
const OPTION: &str = "MIMALLOC_PURGE_DELAY";

/// Starts the program again, unless the option is set. Returns when that is so, or when it cannot.
pub(super) fn purge_at_once() {
    if std::env::var_os(OPTION).is_some() {
        return;
    }
    let mut arguments = std::env::args_os();
    let (Ok(program), Some(name)) = (std::env::current_exe(), arguments.next()) else { return };
    let error = Command::new(program).arg0(name).args(arguments).env(OPTION, "0").exec();
    tracing::warn!(%error, "cannot start again with {OPTION}=0; memory comes back later after a storm");
}
