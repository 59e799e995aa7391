//! What the process uses of the machine: memory, CPU, files; and what it may use. From `/proc` and `/sys/fs/cgroup`; where these are
//! missing (no Linux) everything is zero and nothing is limited.

use std::path::{Path, PathBuf};

use crate::clock::Clock;

/// Clock ticks of `/proc/<pid>/stat` in a second (`USER_HZ`, which is 100 on every Linux; proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// cgroup v1 says "no limit" with the largest number of whole pages; nobody has a tenth of that.
const NO_LIMIT: u64 = 1 << 60;

/// What is used at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usage {
    /// Resident memory.
    pub(super) memory: u64,
    /// What of the memory's limit is used: with a container's limit that is more than the process, because the kernel counts its
    /// socket buffers as well.
    pub(super) against_limit: u64,
    pub(super) memory_limit: Option<u64>,
    /// CPU time since the last look, as a share of one core.
    pub(super) cpu: f64,
    /// CPU time since the start, in seconds.
    pub(super) cpu_seconds: f64,
    pub(super) threads: u64,
    pub(super) open_files: u64,
    pub(super) max_files: u64,
}

/// Looks at the process, again and again.
#[derive(Clone, Debug)]
pub(super) struct Process {
    setting: Option<u64>,
    cgroup: Option<Cgroup>,
    clock: Clock,
    /// Microseconds, and seconds of CPU time, at the last look.
    before: Option<(u64, f64)>,
}

impl Process {
    /// `limit` is what the memory may be by a setting; without one the container's limit counts.
    pub(super) fn new(limit: Option<u64>, clock: Clock) -> Self {
        let own = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
        Self { setting: limit, cgroup: Cgroup::find(&own, Path::new("/sys/fs/cgroup")), clock, before: None }
    }

    /// Looks. Reads files of the kernel, so it belongs on a thread that may wait.
    pub(super) fn look(&mut self) -> Usage {
        let status = read(Path::new("/proc/self/status")).unwrap_or_default();
        let memory = resident(&status).unwrap_or(0);
        let in_cgroup = self.cgroup.as_ref().and_then(Cgroup::used);
        let (against_limit, memory_limit) = match (self.setting, &self.cgroup) {
            (None, Some(cgroup)) => (in_cgroup.unwrap_or(memory), Some(cgroup.limit)),
            (setting, _) => (memory, setting),
        };
        let max_files = rlimit::getrlimit(rlimit::Resource::NOFILE).map_or(0, |(soft, _)| soft);
        let (cpu_seconds, cpu) = self.cpu();
        let threads = field(&status, "Threads:").and_then(|value| value.parse().ok()).unwrap_or(0);
        let open_files = open_files();
        Usage { memory, against_limit, memory_limit, cpu, cpu_seconds, threads, open_files, max_files }
    }

    /// Seconds since the start, and the share since the last look.
    fn cpu(&mut self) -> (f64, f64) {
        let now = self.clock.micros();
        let ticks = read(Path::new("/proc/self/stat")).and_then(|stat| ticks(&stat));
        let Some(used) = ticks.map(|ticks| ticks / TICKS_PER_SECOND) else { return (0.0, 0.0) };
        let share = |(at, before): (u64, f64)| {
            let seconds = now.saturating_sub(at) as f64 / 1e6;
            if seconds > 0.0 { (used - before) / seconds } else { 0.0 }
        };
        (used, self.before.replace((now, used)).map_or(0.0, share))
    }
}

/// Where the limit of a container's memory is written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cgroup {
    dir: PathBuf,
    limit: u64,
    /// The file with what is used, and the member of `memory.stat` with what of that the kernel can take back at once.
    used: &'static str,
    reclaimable: &'static str,
}

impl Cgroup {
    /// The narrowest limit of the group that `/proc/self/cgroup` names and of those around it; `None` without any.
    fn find(own: &str, root: &Path) -> Option<Self> {
        let named = |line: &str| {
            let mut parts = line.splitn(3, ':').skip(1);
            Some((parts.next()?.to_owned(), parts.next()?.trim_start_matches('/').to_owned()))
        };
        let groups: Vec<(String, String)> = own.lines().filter_map(named).collect();
        let group =
            |wanted: fn(&str) -> bool| groups.iter().find(|(kind, _)| wanted(kind)).map(|(_, path)| path);
        let v1 = group(|kinds| kinds.split(',').any(|kind| kind == "memory")).map(|path| {
            (
                root.join("memory"),
                path,
                ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"],
            )
        });
        let v2 = group(str::is_empty)
            .map(|path| (root.to_owned(), path, ["memory.max", "memory.current", "inactive_file"]));
        v1.into_iter().chain(v2).find_map(|(mount, path, [limit, used, reclaimable])| {
            let inside = mount.join(path);
            let dirs = inside.ancestors().take_while(|dir| dir.starts_with(&mount));
            let limits = dirs.filter_map(|dir| Some((number(&dir.join(limit))?, dir.to_owned())));
            let (limit, dir) = limits.filter(|(limit, _)| *limit < NO_LIMIT).min()?;
            Some(Self { dir, limit, used, reclaimable })
        })
    }

    fn used(&self) -> Option<u64> {
        let stat = read(&self.dir.join("memory.stat")).unwrap_or_default();
        let reclaimable =
            stat.lines().find_map(|line| line.strip_prefix(self.reclaimable)?.trim().parse().ok());
        Some(number(&self.dir.join(self.used))?.saturating_sub(reclaimable.unwrap_or(0)))
    }
}

fn read(path: &Path) -> Option<String> {
    String::from_utf8(std::fs::read(path).ok()?).ok()
}

fn number(path: &Path) -> Option<u64> {
    read(path)?.trim().parse().ok()
}

/// `VmRSS:    1234 kB` of `/proc/self/status`, in bytes.
fn resident(status: &str) -> Option<u64> {
    field(status, "VmRSS:")?.strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// What stands behind `name` in a file like `/proc/self/status`.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// User and system time of `/proc/self/stat`: the 14th and 15th field. The second is the program's name in parentheses, with any
/// character in it.
fn ticks(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    Some(fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?)
}

/// Linux tells it as the size of the directory since 6.2; before, somebody must count.
fn open_files() -> u64 {
    let size = std::fs::metadata("/proc/self/fd").map_or(0, |dir| dir.len());
    if size > 0 { size } else { std::fs::read_dir("/proc/self/fd").map_or(0, |dir| dir.count() as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_files() {
        let usage = Process::new(Some(1 << 40), Clock::system()).look();
        assert!(usage.memory > 1 << 20 && usage.against_limit == usage.memory, "{usage:?}");
        assert!((3..usage.max_files).contains(&usage.open_files), "{usage:?}");
        assert_eq!(usage.memory_limit, Some(1 << 40));
        assert!(usage.threads > 0 && usage.cpu_seconds >= 0.0, "{usage:?}");
    }

    #[test]
    fn cpu_time_is_read_behind_any_program_name() {
        assert_eq!(ticks("7 (a) b) c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 5"), Some(300.0));
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t3\n"), Some(2 << 20));
    }

    fn write(dir: &Path, file: &str, text: &str) {
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join(file), text).unwrap();
    }

    #[test]
    fn the_narrowest_limit_of_a_cgroup_counts_in_both_versions() {
        let root = tempfile::tempdir().unwrap();
        let (v1, v2) = (root.path().join("memory"), root.path().to_owned());
        assert_eq!(Cgroup::find("0::/a/b\n", root.path()), None, "no files");
        write(&v2.join("a/b"), "memory.max", "max\n");
        write(&v2.join("a"), "memory.max", "1000\n");
        write(&v2.join("a"), "memory.current", "700\n");
        write(&v2.join("a"), "memory.stat", "active_file 5\ninactive_file 100\n");
        let found = Cgroup::find("0::/a/b\n", root.path()).unwrap();
        assert_eq!((found.limit, found.used()), (1000, Some(600)));
        write(&v1.join("c"), "memory.limit_in_bytes", "2000");
        write(&v1.join("c"), "memory.usage_in_bytes", "900");
        write(&v1, "memory.limit_in_bytes", "9223372036854771712");
        let found = Cgroup::find("9:cpu,cpuacct:/\n4:memory:/c\n0::/\n", root.path()).unwrap();
        assert_eq!((found.limit, found.used()), (2000, Some(900)));
    }

    #[test]
    fn a_group_that_is_not_visible_from_inside_the_container_is_looked_for_at_the_root() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "memory.max", "5000");
        write(root.path(), "memory.current", "1");
        assert_eq!(Cgroup::find("0::/../../kubepods/x\n", root.path()).map(|found| found.limit), Some(5000));
    }
}
