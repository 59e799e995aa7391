//! Memory in small pieces, given back at once.
//!
//! mimalloc keeps what was freed until its threads allocate again, which an idle node does not: after 15,000 handshakes it
//! held 45 MB that nobody used. And it asks the kernel for huge pages, each of which is cleared when it is first touched:
//! 3 to 5 ms on a virtual machine, for which live delivery stood still. It reads its options before `main`, from the
//! environment only, so the program starts itself once more with them set. The process stays the same one: its id, its
//! files, its signals.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// How long freed pages are kept, in milliseconds; and whether there may be huge pages.
const OPTIONS: [&str; 2] = ["MIMALLOC_PURGE_DELAY", "MIMALLOC_ALLOW_THP"];

/// Starts the program again with the options as 0, but for those that are set. Returns when all are, or when it cannot.
pub(super) fn in_small_pieces() {
    let missing: Vec<_> = OPTIONS.into_iter().filter(|option| std::env::var_os(option).is_none()).collect();
    if missing.is_empty() {
        return;
    }
    let mut arguments = std::env::args_os();
    let (Ok(program), Some(name)) = (std::env::current_exe(), arguments.next()) else { return };
    let zero = missing.iter().map(|option| (option, "0"));
    let error = Command::new(program).arg0(name).args(arguments).envs(zero).exec();
    tracing::warn!(%error, "cannot start again with {} = 0; memory comes back later, in greater pieces", missing.join(", "));
}
