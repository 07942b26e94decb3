//! Watches what all processes of a build use together, which the kernel's limits on single processes cannot bound, and ends them when it is too much. Process 1 sees
//! every process of its namespace in `/proc` and no other.

use std::fs;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::run::end_all;
use super::{Resource, SandboxLimits};

/// How often is looked. What memory can be taken in that time is the overshoot.
const INTERVAL: Duration = Duration::from_millis(100);
/// Ticks of CPU time in a second, as `/proc` counts them on every architecture that the host runs on.
const TICKS_PER_SECOND: u64 = 100;
/// A build is ended when less than this part of the machine's memory is left, whoever has the rest.
const MACHINE_MEMORY_PART_MIN: u64 = 32;

/// What was seen.
#[derive(Default)]
struct Seen {
    exceeded: Option<Resource>,
    disk_was_full: bool,
}

/// A thread that watches until this value is dropped.
pub(super) struct Watch {
    limits: SandboxLimits,
    seen: Arc<Mutex<Seen>>,
    _until: Sender<()>,
}

impl Watch {
    /// Begins.
    pub(super) fn start(limits: SandboxLimits) -> io::Result<Self> {
        let seen = Arc::<Mutex<Seen>>::default();
        let (until, ended) = channel();
        let thread = Arc::clone(&seen);
        std::thread::Builder::new().spawn(move || watch(&limits, &thread, &ended))?;
        Ok(Self { limits, seen, _until: until })
    }

    /// Of what too much was used. CPU time is counted also between two looks: process 1 has it from what it has reaped.
    pub(super) fn exceeded(&self) -> Option<Resource> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).exceeded;
        seen.or_else(|| Usage::now().exceeds(&self.limits))
    }

    /// Whether the disk was full at some time, or is. A build may survive that.
    pub(super) fn disk_was_full(&self) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).disk_was_full || disk_is_full()
    }
}

fn watch(limits: &SandboxLimits, seen: &Mutex<Seen>, ended: &Receiver<()>) {
    while ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let exceeded = Usage::now().exceeds(limits).or_else(|| machine_is_out_of_memory().then_some(Resource::MachineMemory));
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.disk_was_full |= disk_is_full();
        if let Some(what) = exceeded {
            seen.exceeded.get_or_insert(what);
            drop(seen);
            end_all();
        }
    }
}

/// Fewer than 16 blocks left, which compilers notice.
fn disk_is_full() -> bool {
    rustix::fs::statvfs("/").is_ok_and(|disk| disk.f_bavail < 16 || disk.f_favail == 0)
}

fn machine_is_out_of_memory() -> bool {
    let Ok(text) = fs::read_to_string("/proc/meminfo") else { return false };
    let (total, available) = (kibibytes(&text, "MemTotal:"), kibibytes(&text, "MemAvailable:"));
    available < total / MACHINE_MEMORY_PART_MIN
}

/// The figure of a line such as `RssAnon:  12 kB`.
fn kibibytes(text: &str, name: &str) -> u64 {
    let figure = |line: &str| line.strip_prefix(name)?.trim().trim_end_matches(" kB").parse().ok();
    text.lines().find_map(figure).unwrap_or_default()
}

/// What all processes but process 1 use together.
#[derive(Debug, Default, PartialEq, Eq)]
struct Usage {
    ticks: u64,
    memory_kib: u64,
    threads: u64,
}

impl Usage {
    fn now() -> Self {
        let mut all = Self::default();
        let Ok(entries) = fs::read_dir("/proc") else { return all };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else { continue };
            // A process that has just ended has no files any more.
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            all.add(&stat, &status, pid == "1");
        }
        all
    }

    /// CPU time of a process includes that of its children that it has reaped, so that of process 1 includes everything that has ended.
    fn add(&mut self, stat: &str, status: &str, is_init: bool) {
        // The name before the bracket may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace().collect();
        let field = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or_default();
        self.ticks += (11..=14).map(field).sum::<u64>();
        if !is_init {
            // Pages of files are shared and can be dropped; shared memory without a file cannot.
            self.memory_kib += kibibytes(status, "RssAnon:") + kibibytes(status, "RssShmem:");
            self.threads += field(17).max(1);
        }
    }

    fn exceeds(&self, limits: &SandboxLimits) -> Option<Resource> {
        if self.memory_kib > limits.memory_bytes >> 10 {
            return Some(Resource::Memory);
        }
        if self.threads > limits.processes {
            return Some(Resource::Processes);
        }
        (self.ticks > limits.cpu_seconds.saturating_mul(TICKS_PER_SECOND)).then_some(Resource::Cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_where_the_kernel_writes_them() {
        let mut usage = Usage::default();
        let stat = "42 (a ) b) R 1 42 42 0 -1 4194304 100 0 0 0 7 5 3 1 30 10 6 0 1000 1000 10";
        usage.add(stat, "Name:\ta\nRssAnon:\t    100 kB\nRssFile:\t 900 kB\nRssShmem:\t 20 kB\n", false);
        assert_eq!(usage, Usage { ticks: 16, memory_kib: 120, threads: 6 });
        let limits = SandboxLimits { memory_bytes: 119 << 10, ..SandboxLimits::default() };
        assert_eq!(usage.exceeds(&limits), Some(Resource::Memory));
        assert_eq!(usage.exceeds(&SandboxLimits { processes: 5, ..SandboxLimits::default() }), Some(Resource::Processes));
        assert_eq!(usage.exceeds(&SandboxLimits::default()), None);
    }
}
