//! What the system tells of itself and of processes, and on which core they run. Linux only, as the host is.

use std::path::Path;

use anyhow::Context;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Keeps this thread, and all that it starts from now on, on one core.
pub fn pin(core: usize) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    anyhow::ensure!(core < CpuSet::MAX_CPU, "there is no core {core}");
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("cannot stay on core {core} of {cores}: name one that this process may use"))
}

/// A runtime as the host's binary has it.
pub fn multi_thread(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.max(1))
        .enable_all()
        .on_thread_unpark(tovuk_runtime::meter::on_thread_unpark)
        .build()
}

/// Clock ticks of `/proc` in a second.
fn ticks_per_second() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

/// User and system time of a process, in s. Works until it is waited for.
pub fn process_cpu_s(pid: Pid) -> anyhow::Result<f64> {
    let path = format!("/proc/{}/stat", pid.as_raw_nonzero());
    let text = std::fs::read_to_string(&path).with_context(|| format!("{path}: the process has ended"))?;
    parse_process_ticks(&text).map(|ticks| ticks as f64 / ticks_per_second()).with_context(|| format!("{path} is not what Linux writes"))
}

fn parse_process_ticks(stat: &str) -> Option<u64> {
    // The name comes second, in parentheses, and may itself contain anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// CPU time that all processes together have used, and what the hypervisor kept for others, in s over all cores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MachineCpu {
    /// In processes and interrupts.
    pub busy_s: f64,
    /// Kept by the hypervisor.
    pub steal_s: f64,
}

/// Reads the machine's CPU time.
pub fn machine_cpu() -> anyhow::Result<MachineCpu> {
    let text = std::fs::read_to_string("/proc/stat").context("/proc/stat")?;
    let (busy, steal) = parse_machine_ticks(&text).context("/proc/stat is not what Linux writes")?;
    Ok(MachineCpu { busy_s: busy as f64 / ticks_per_second(), steal_s: steal as f64 / ticks_per_second() })
}

fn parse_machine_ticks(stat: &str) -> Option<(u64, u64)> {
    let mut fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().map(|field| field.parse::<u64>().ok());
    let mut next = || fields.next().flatten();
    let (user, nice, system, _idle, _iowait, irq, softirq, steal) = (next()?, next()?, next()?, next()?, next()?, next()?, next()?, next()?);
    Some((user + nice + system + irq + softirq, steal))
}

/// Resident memory of a process, in KiB.
pub fn process_rss_kib(pid: Pid) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?.parse().ok()
}

/// The machine in one line, for the head of a report.
pub fn description() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).map_or("unknown CPU", |text| text.trim_start_matches(['\t', ' ', ':']));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} × {model}, Linux {}", read("/proc/sys/kernel/osrelease").trim())
}

/// A program by its name, as a shell would find it.
pub fn in_path(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| is_program(program))
}

/// Whether this is a file that may be run.
pub fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ticks_of_a_process_whose_name_has_parentheses_and_spaces() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 123 45 6 7 20 0 3 0 99 1000 10";
        assert_eq!(parse_process_ticks(stat), Some(168));
        assert_eq!(parse_process_ticks("42 (short"), None);
    }

    #[test]
    fn ticks_of_the_machine_leave_out_idle_and_waiting() {
        assert_eq!(parse_machine_ticks("cpu  1 2 4 1000 2000 8 16 32 0 0\ncpu0 1"), Some((31, 32)));
        assert_eq!(parse_machine_ticks("intr 1"), None);
    }

    #[test]
    fn this_process_can_be_read() {
        let me = rustix::process::getpid();
        assert!(process_cpu_s(me).unwrap() >= 0.0);
        assert!(process_rss_kib(me).unwrap() > 0);
        assert!(machine_cpu().unwrap().busy_s > 0.0);
    }
}
