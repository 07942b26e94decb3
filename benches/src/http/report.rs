//! The tables of `bench http`. Ratios are between rows of the same run; every figure is the median of its alternations.

use crate::command::HttpArguments;
use crate::output::{number, table};
use crate::stats::{max, median};

use super::FOREIGN_SHARE_MAX;
use super::load::Measurement;
use super::rows::{CONNECTIONS, Row};
use super::servers::{Kind, Servers};

/// The connections at which servers are compared.
const COMPARED: u32 = 64;
const HOPS_MAX: u32 = 31;

struct Results<'a>(&'a [Measurement]);

impl Results<'_> {
    fn median(&self, row: &str, connections: u32, of: impl Fn(&Measurement) -> f64) -> f64 {
        median(self.0.iter().filter(|result| result.row == row && result.connections == connections).map(of))
    }

    fn rate(&self, row: &str) -> f64 {
        self.median(row, COMPARED, |result| result.requests_per_s)
    }

    fn cpu_us(&self, row: &str) -> f64 {
        self.median(row, COMPARED, |result| result.server_cpu_us)
    }

    fn p99_us(&self, row: &str) -> f64 {
        self.median(row, COMPARED, |result| result.p99_us)
    }

    /// Whether other processes took part in any measurement of these rows.
    fn disturbed(&self, rows: &[&str], connections: u32) -> bool {
        self.0
            .iter()
            .any(|result| result.connections == connections && rows.contains(&result.row.as_str()) && result.foreign_share > FOREIGN_SHARE_MAX)
    }

    /// What a hop adds to a request, as the client sees it and in CPU time of the server.
    fn hop(&self, chain: &str, of: impl Fn(&Measurement) -> f64) -> f64 {
        (self.median(&format!("{chain} {HOPS_MAX}"), 1, &of) - self.median(&format!("{chain} 0"), 1, &of)) / f64::from(HOPS_MAX)
    }
}

/// Every table that these results allow.
pub fn render(rows: &[Row], results: &[Measurement], servers: &Servers, arguments: &HttpArguments) -> String {
    let errors: u64 = results.iter().map(|result| result.errors).sum();
    let disturbed = results.iter().filter(|result| result.foreign_share > FOREIGN_SHARE_MAX).count();
    let results = Results(results);
    let mut text = format!(
        "## Over HTTP\n\nA server on one core with one thread, wrk on another; {} alternations of {} s. Other processes took more than {:.0}% of a core in {disturbed} of {} measurements; there were {errors} errors.\n",
        arguments.alternations,
        arguments.seconds,
        FOREIGN_SHARE_MAX * 100.0,
        results.0.len(),
    );
    let hello: Vec<_> = rows.iter().filter(|row| row.hops.is_none()).collect();
    if !hello.is_empty() {
        text.push_str(&format!("\n### hello, {COMPARED} connections\n\n{}", compared(&hello, &results, servers)));
        text.push_str(&format!("\n### hello, by connections\n\n{}", by_connections(&hello, &results)));
    }
    let chains = chains(rows);
    if !chains.is_empty() {
        text.push_str(&format!("\n### Chains of calls, one connection\n\n{}", hops(&chains, &results)));
    }
    let goals = goals(&results);
    if !goals.is_empty() {
        text.push_str(&format!("\n### Goals\n\n{}", table(&["ratio in this run", "goal", "measured", ""], &goals)));
    }
    for missing in &servers.missing {
        text.push_str(&format!("\n{missing}.\n"));
    }
    text
}

fn compared(rows: &[&Row], results: &Results<'_>, servers: &Servers) -> String {
    let head =
        ["", "req/s", "p50 µs", "p99 µs", "CPU µs", "CPU × native", "RSS MiB", "× native", "× workerd", "× wasmtime serve", "foreign CPU, worst"];
    let body: Vec<_> = rows
        .iter()
        .map(|row| {
            let rate = results.rate(&row.name);
            let of = |of: fn(&Measurement) -> f64| number(results.median(&row.name, COMPARED, of));
            let worst =
                max(results.0.iter().filter(|result| result.row == row.name && result.connections == COMPARED).map(|result| result.foreign_share));
            vec![
                row.name.clone(),
                number(rate),
                of(|result| result.p50_us),
                of(|result| result.p99_us),
                of(|result| result.server_cpu_us),
                number(results.cpu_us(&row.name) / results.cpu_us("native hello")),
                number(servers.rss_kib(row.server).map_or(f64::NAN, |kib| kib as f64 / 1024.0)),
                number(rate / results.rate("native hello")),
                number(rate / results.rate("workerd hello")),
                number(rate / results.rate("wasmtime serve hello p2")),
                number(worst),
            ]
        })
        .collect();
    table(&head, &body)
}

fn by_connections(rows: &[&Row], results: &Results<'_>) -> String {
    let mut head = vec![String::new()];
    for figure in ["req/s", "p50 µs", "CPU µs"] {
        head.extend(CONNECTIONS.map(|connections| format!("{figure} at {connections}")));
    }
    let head: Vec<_> = head.iter().map(String::as_str).collect();
    let figures: [fn(&Measurement) -> f64; 3] = [|result| result.requests_per_s, |result| result.p50_us, |result| result.server_cpu_us];
    let body: Vec<_> = rows
        .iter()
        .map(|row| {
            let cells = figures.iter().flat_map(|figure| CONNECTIONS.map(|connections| number(results.median(&row.name, connections, figure))));
            std::iter::once(row.name.clone()).chain(cells).collect()
        })
        .collect();
    table(&head, &body)
}

/// The chains among the rows, by name without their hops, in order.
fn chains(rows: &[Row]) -> Vec<String> {
    let mut names: Vec<_> = rows.iter().filter(|row| row.hops.is_some()).map(|row| format!("{} {}", row.server.name(), row.worker)).collect();
    names.dedup();
    names
}

fn hops(chains: &[String], results: &Results<'_>) -> String {
    let head = ["", "p50 µs: 0", "1", "8", "31", "CPU µs: 0", "1", "8", "31", "p50 µs a hop", "CPU µs a hop", "hop × workerd's"];
    let p50: fn(&Measurement) -> f64 = |result| result.p50_us;
    let cpu: fn(&Measurement) -> f64 = |result| result.server_cpu_us;
    let peer = format!("{} chain", Kind::WorkerdChain.name());
    let body: Vec<_> = chains
        .iter()
        .map(|chain| {
            let mut cells = vec![chain.clone()];
            for figure in [p50, cpu] {
                cells.extend([0, 1, 8, HOPS_MAX].map(|hops| number(results.median(&format!("{chain} {hops}"), 1, figure))));
            }
            cells.extend([results.hop(chain, p50), results.hop(chain, cpu), results.hop(chain, p50) / results.hop(&peer, p50)].map(number));
            cells
        })
        .collect();
    table(&head, &body)
}

/// What the project has set itself, where this run can tell. A disturbed run tells nothing, whatever its figures.
fn goals(results: &Results<'_>) -> Vec<Vec<String>> {
    let (lean, p2, native, workerd, wasmtime) = ("host hello lean", "host hello p2", "native hello", "workerd hello", "wasmtime serve hello p2");
    let rate = |row: &str, peer: &str| (results.rate(row) / results.rate(peer), results.disturbed(&[row, peer], COMPARED));
    let p99 = |row: &str, peer: &str| (results.p99_us(row) / results.p99_us(peer), results.disturbed(&[row, peer], COMPARED));
    let hop = |chain: &str| {
        let peer = "workerd chain";
        let p50 = |chain: &str| results.hop(chain, |result| result.p50_us);
        let ends = [chain, peer].map(|chain| [format!("{chain} 0"), format!("{chain} {HOPS_MAX}")]);
        let ends: Vec<_> = ends.iter().flatten().map(String::as_str).collect();
        (p50(chain) / p50(peer), results.disturbed(&ends, 1))
    };
    let goals = [
        ("hello lean, req/s, against native hyper", true, 0.40, rate(lean, native)),
        ("hello lean, req/s, against workerd", true, 2.5, rate(lean, workerd)),
        ("hello lean, p99, against workerd", false, 0.10, p99(lean, workerd)),
        ("hello p2, req/s, against wasmtime serve", true, 3.0, rate(p2, wasmtime)),
        ("hop lean, against workerd's", false, 1.0 / 6.0, hop("host chain lean")),
        ("hop p2, against workerd's", false, 0.5, hop("host chain p2")),
    ];
    let row = |(name, at_least, goal, (measured, disturbed)): (&str, bool, f64, (f64, bool))| {
        let (sign, met) = if at_least { ("≥", measured >= goal) } else { ("≤", measured <= goal) };
        let verdict = match (disturbed, met) {
            (true, _) => "disturbed",
            (false, true) => "met",
            (false, false) => "missed",
        };
        vec![name.to_owned(), format!("{sign} {goal:.2}"), number(measured), verdict.to_owned()]
    };
    goals.into_iter().filter(|goal| !goal.3.0.is_nan()).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement(row: &str, requests_per_s: f64, foreign_share: f64) -> Measurement {
        Measurement { row: row.to_owned(), connections: COMPARED, requests_per_s, p99_us: 1.0, foreign_share, ..Measurement::default() }
    }

    #[test]
    fn a_goal_is_judged_by_the_median_unless_a_measurement_was_disturbed() {
        let verdict = |rates: [f64; 3], foreign: f64| {
            let mut results = vec![measurement("native hello", 100.0, 0.0), measurement("host hello lean", rates[0], foreign)];
            results.extend([measurement("host hello lean", rates[1], 0.0), measurement("host hello lean", rates[2], 0.0)]);
            goals(&Results(&results))
        };
        assert_eq!(verdict([1.0, 40.0, 90.0], 0.0), [["hello lean, req/s, against native hyper", "≥ 0.40", "0.40", "met"]]);
        assert_eq!(verdict([39.0, 1.0, 90.0], 0.0), [["hello lean, req/s, against native hyper", "≥ 0.40", "0.39", "missed"]]);
        assert_eq!(verdict([40.0, 90.0, 90.0], 0.11), [["hello lean, req/s, against native hyper", "≥ 0.40", "0.90", "disturbed"]]);
    }
}
