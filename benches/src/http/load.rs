//! One measurement: `wrk` against a server, and what the two and everybody else used of the machine meanwhile.

use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use anyhow::Context;
use serde::Serialize;

use crate::machine;
use crate::server::{child, ended};

use super::LOAD_CORE;
use super::rows::Row;
use super::servers::Servers;

/// The load generator.
pub struct Wrk(PathBuf);

impl Wrk {
    /// The one in PATH.
    pub fn find() -> anyhow::Result<Self> {
        machine::in_path("wrk")
            .map(Self)
            .context("wrk is not installed: run `sudo apt-get install wrk`, or build https://github.com/wg/wrk and put it into PATH")
    }
}

/// What one measurement showed.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Measurement {
    /// The row's name.
    pub row: String,
    /// Connections at a time.
    pub connections: u32,
    /// Which alternation, from 0.
    pub alternation: u32,
    /// Which attempt, from 0; later ones follow a disturbed one.
    pub attempt: u32,
    /// Answers.
    pub requests: u64,
    /// Answers in a second.
    pub requests_per_s: f64,
    /// Median latency, in µs.
    pub p50_us: f64,
    /// 99th percentile of latency, in µs.
    pub p99_us: f64,
    /// User and system time of the server per answer, in µs.
    pub server_cpu_us: f64,
    /// Share of a core that the server used.
    pub server_share: f64,
    /// Share of a core that wrk used.
    pub load_share: f64,
    /// Share of a core that other processes used.
    pub foreign_share: f64,
    /// Share of a core that the hypervisor kept.
    pub steal_share: f64,
    /// Resident memory of the server afterwards, in KiB.
    pub server_rss_kib: u64,
    /// Answers other than 2xx and 3xx, and socket errors.
    pub errors: u64,
}

impl fmt::Display for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            row,
            connections,
            alternation,
            requests_per_s,
            p50_us,
            p99_us,
            server_cpu_us,
            server_share,
            foreign_share,
            steal_share,
            errors,
            ..
        } = self;
        write!(
            f,
            "{row:26} c={connections:<2} #{alternation} {requests_per_s:>8.0}/s p50 {p50_us:>6.0} µs p99 {p99_us:>6.0} µs cpu {server_cpu_us:>6.1} µs server {server_share:.2} foreign {foreign_share:.2} steal {steal_share:.2} errors {errors}"
        )
    }
}

/// Loads the server of a row for so many seconds.
pub fn measure(wrk: &Wrk, servers: &Servers, row: &Row, connections: u32, seconds: u64) -> anyhow::Result<Measurement> {
    let server = servers.of(row)?;
    let mut command = child(Some(LOAD_CORE))?;
    command.arg(&wrk.0).args(["--threads", "1", "--latency"]);
    command.args(["--connections", &connections.to_string(), "--duration", &format!("{seconds}s")]);
    if let Some(host) = row.host {
        command.args(["--header", &format!("Host: {host}")]);
    }
    command.arg(format!("http://{}{}", server.address, row.path())).stdin(Stdio::null()).stdout(Stdio::piped());

    let (server_before, machine_before, started) = (server.cpu_s()?, machine::machine_cpu()?, Instant::now());
    let load = command.spawn().context("wrk cannot be started")?;
    let (output, load_cpu_s) = ended(load).context("wrk")?;
    let wall_s = started.elapsed().as_secs_f64();
    let (server_after, machine_after) = (server.cpu_s()?, machine::machine_cpu()?);
    let answer = parse(&output).with_context(|| format!("wrk printed what is not understood:\n{output}"))?;
    let server_cpu_s = server_after - server_before;
    Ok(Measurement {
        row: row.name.clone(),
        connections,
        alternation: 0,
        attempt: 0,
        requests: answer.requests,
        requests_per_s: answer.requests_per_s,
        p50_us: answer.p50_us,
        p99_us: answer.p99_us,
        server_cpu_us: server_cpu_s * 1e6 / answer.requests.max(1) as f64,
        server_share: server_cpu_s / wall_s,
        load_share: load_cpu_s / wall_s,
        foreign_share: (machine_after.busy_s - machine_before.busy_s - server_cpu_s - load_cpu_s).max(0.0) / wall_s,
        steal_share: (machine_after.steal_s - machine_before.steal_s) / wall_s,
        server_rss_kib: server.rss_kib().unwrap_or_default(),
        errors: answer.errors,
    })
}

#[derive(Debug, PartialEq)]
struct Answer {
    requests: u64,
    requests_per_s: f64,
    p50_us: f64,
    p99_us: f64,
    errors: u64,
}

fn parse(output: &str) -> Option<Answer> {
    let after = |start: &str| output.lines().find_map(|line| line.trim().strip_prefix(start)).map(str::trim);
    let requests = output.lines().find_map(|line| line.split_once(" requests in "))?.0.trim().parse().ok()?;
    let socket_errors: u64 = after("Socket errors:").map_or(0, |text| text.split([' ', ',']).filter_map(|word| word.parse::<u64>().ok()).sum());
    let refused: u64 = after("Non-2xx or 3xx responses:").and_then(|text| text.parse().ok()).unwrap_or(0);
    Some(Answer {
        requests,
        requests_per_s: after("Requests/sec:")?.parse().ok()?,
        p50_us: duration_us(after("50%")?)?,
        p99_us: duration_us(after("99%")?)?,
        errors: socket_errors + refused,
    })
}

/// wrk's way to write a time, such as `635.00us`.
fn duration_us(text: &str) -> Option<f64> {
    // `s` ends all of them, so it comes last.
    [("us", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 60e6)].into_iter().find_map(|(unit, us)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * us))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const GOOD: &str = "Running 3s test @ http://127.0.0.1:9400/0
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.28ms  310.00us   9.02ms   91.00%
    Req/Sec    50.10k     1.20k   52.00k    70.00%
  Latency Distribution
     50%    1.24ms
     75%    1.31ms
     90%    1.40ms
     99%  635.00us
  150003 requests in 3.00s, 18.31MB read
Requests/sec:  50001.25
Transfer/sec:      6.10MB
";

    #[test]
    fn what_wrk_prints_is_read() {
        let answer = parse(GOOD).unwrap();
        assert_eq!(answer, Answer { requests: 150_003, requests_per_s: 50_001.25, p50_us: 1240.0, p99_us: 635.0, errors: 0 });
    }

    #[test]
    fn errors_of_sockets_and_of_answers_are_added_up() {
        let bad = format!("{GOOD}  Socket errors: connect 1, read 20, write 300, timeout 4000\n  Non-2xx or 3xx responses: 50000\n");
        assert_eq!(parse(&bad).unwrap().errors, 54_321);
    }

    #[test]
    fn what_is_no_result_is_none() {
        assert_eq!(parse("unable to connect to 127.0.0.1:9400 Connection refused"), None);
        assert_eq!((duration_us("1.50s"), duration_us("2.00m"), duration_us("3")), (Some(1_500_000.0), Some(120_000_000.0), None));
    }
}
