//! What a process has used so far, from `/proc` (proc(5)). Linux only, like the figures that it is for.

use std::path::PathBuf;

use anyhow::{Context, Result};

/// Clock ticks of `/proc/*/stat` per second: fixed for user space on every Linux architecture in use (`USER_HZ`).
const MICROS_PER_TICK: u64 = 1_000_000 / 100;

/// A process that is watched.
#[derive(Clone, Debug)]
pub(super) struct Process {
    folder: PathBuf,
}

impl Process {
    /// The process `pid`.
    pub(super) fn new(pid: u32) -> Self {
        Self { folder: format!("/proc/{pid}").into() }
    }

    /// This process.
    pub(super) fn this() -> Self {
        Self { folder: "/proc/self".into() }
    }

    /// User and system time of all of its threads, in microseconds, in steps of 10 ms.
    ///
    /// # Errors
    /// When it has ended.
    pub(super) fn cpu_micros(&self) -> Result<u64> {
        let stat = self.read("stat")?;
        // The name stands in parentheses and may hold anything; utime and stime are the 12th and 13th field behind it.
        let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
        let ticks: Option<u64> =
            fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().ok()).sum();
        ticks.map(|ticks| ticks * MICROS_PER_TICK).context("/proc/*/stat has another form than expected")
    }

    /// Memory in bytes, shared pages counted in proportion.
    ///
    /// # Errors
    /// When it has ended or belongs to somebody else.
    pub(super) fn pss_bytes(&self) -> Result<u64> {
        let rollup = self.read("smaps_rollup")?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib =
            line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.parse::<u64>().ok());
        kib.map(|kib| kib * 1024).context("/proc/*/smaps_rollup has another form than expected")
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = self.folder.join(name);
        #[allow(clippy::disallowed_methods)] // procfs answers from memory, and nothing else runs here
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_time_and_memory_and_an_ended_one_is_an_error() {
        let this = Process::this();
        assert!(this.pss_bytes().unwrap() > 100_000);
        let before = this.cpu_micros().unwrap();
        let mut n = 0u64;
        while this.cpu_micros().unwrap() == before {
            n = std::hint::black_box(n + 1);
        }
        assert!(Process::new(u32::MAX).cpu_micros().is_err());
    }
}
