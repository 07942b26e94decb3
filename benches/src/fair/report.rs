//! The tables of `bench fair`. Percentiles are of all requests of the quiet client in all alternations together, and ratios are to those alone.

use crate::command::FairArguments;
use crate::output::{number, table};
use crate::stats::{max, median, min, percentile};

use super::load::Load;
use super::{Beside, Run};

/// How much the 99th percentile may grow.
const MOST: f64 = 2.0;
/// Above this many cores, what other processes used makes a run a disturbed one.
const FOREIGN_CORES_MAX: f64 = 0.10;

struct Runs<'a>(Vec<&'a Run>);

impl<'a> Runs<'a> {
    fn of(runs: &'a [Run], noise: Load, beside: Beside) -> Self {
        Self(runs.iter().filter(|run| run.noise == noise && run.beside == beside).collect())
    }

    fn us(&self, percent: f64) -> f64 {
        percentile(&self.0.iter().flat_map(|run| run.us.iter().copied()).collect::<Vec<_>>(), percent)
    }

    fn late_us(&self) -> f64 {
        percentile(&self.0.iter().flat_map(|run| run.late_us.iter().copied()).collect::<Vec<_>>(), 99.0)
    }

    fn failed(&self) -> u64 {
        self.0.iter().map(|run| run.failed).sum()
    }

    fn median(&self, of: impl Fn(&Run) -> f64) -> f64 {
        median(self.0.iter().map(|run| of(run)))
    }

    /// What the p99 of each alternation is to the other's.
    fn ratios(&self, others: &Self) -> Vec<f64> {
        self.0.iter().zip(&others.0).map(|(run, other)| run.p99_us / other.p99_us).collect()
    }
}

/// Both tables and the verdicts.
pub fn render(runs: &[Run], arguments: &FairArguments) -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let disturbed = runs.iter().filter(|run| run.foreign_cores > FOREIGN_CORES_MAX).count();
    let mut text = format!(
        "## A quiet neighbour\n\n{} of the quiet service, counted from when each was due; {} alternations of {} s. Servers, the quiet client and whoever makes the noise \
         share {cores} cores, so part of what the quiet one loses is the machine's: beside each noise there is the same for a server of its own. Other processes took more than \
         {FOREIGN_CORES_MAX} of a core in {disturbed} of {} runs.\n",
        Load::Quiet.text(),
        arguments.alternations,
        arguments.seconds,
        runs.len(),
    );
    let noises: Vec<_> = Load::NOISES.into_iter().filter(|noise| runs.iter().any(|run| run.noise == *noise)).collect();
    let waits: Vec<_> = noises.iter().flat_map(|noise| Beside::ALL.map(|beside| wait(runs, *noise, beside))).collect();
    let head = ["beside the quiet client", "p50 µs", "p99 µs", "p99.9 µs", "p99 ×", "p99 × by alternation", "sent late, p99 µs", "failed"];
    text.push_str(&format!("\n{}\n", table(&head, &waits)));
    let done: Vec<_> = noises.iter().flat_map(|noise| Beside::ALL.map(|beside| done(runs, *noise, beside))).collect();
    let head = ["cores in use", "host", "the other server", "noise", "quiet client", "answers to the noise, a second"];
    text.push_str(&table(&head, &done));
    for noise in noises {
        text.push_str(&verdict(runs, noise));
    }
    text
}

fn name(noise: Load, beside: Beside) -> String {
    match beside {
        Beside::Nothing => format!("nothing, between {}", noise.text()),
        Beside::Host => format!("{}, same host", noise.text()),
        Beside::Elsewhere if noise == Load::Flood => format!("{}, hyper alone", noise.text()),
        Beside::Elsewhere => format!("{}, another host process", noise.text()),
    }
}

fn ratio(runs: &[Run], noise: Load, beside: Beside) -> f64 {
    Runs::of(runs, noise, beside).us(99.0) / Runs::of(runs, noise, Beside::Nothing).us(99.0)
}

fn wait(runs: &[Run], noise: Load, beside: Beside) -> Vec<String> {
    let these = Runs::of(runs, noise, beside);
    let mut row = vec![name(noise, beside), number(these.us(50.0)), number(these.us(99.0)), number(these.us(99.9))];
    if beside == Beside::Nothing {
        row.extend(["1".to_owned(), String::new()]);
    } else {
        let ratios = these.ratios(&Runs::of(runs, noise, Beside::Nothing));
        let [low, middle, high] = [min(ratios.iter().copied()), median(ratios.iter().copied()), max(ratios.iter().copied())].map(number);
        row.extend([number(ratio(runs, noise, beside)), format!("{middle} ({low} to {high})")]);
    }
    row.extend([number(these.late_us()), these.failed().to_string()]);
    row
}

fn done(runs: &[Run], noise: Load, beside: Beside) -> Vec<String> {
    let these = Runs::of(runs, noise, beside);
    let mut codes: Vec<_> = these.0.iter().flat_map(|run| run.noise_per_s.keys()).collect();
    codes.sort_unstable();
    codes.dedup();
    let answers = codes.into_iter().map(|code| {
        let per_s = these.median(|run| run.noise_per_s.get(code).copied().unwrap_or_default());
        format!("{code}: {}", number(per_s))
    });
    let answers = answers.collect::<Vec<_>>().join(", ");
    let cores = [
        these.median(|run| run.host_cores),
        these.median(|run| run.elsewhere_cores),
        these.median(|run| run.noise_cores),
        these.median(|run| run.quiet_cores),
    ];
    let mut row = vec![name(noise, beside)];
    row.extend(cores.map(number));
    row.push(answers);
    row
}

fn verdict(runs: &[Run], noise: Load) -> String {
    let (here, elsewhere) = (ratio(runs, noise, Beside::Host), ratio(runs, noise, Beside::Elsewhere));
    let failed = Runs::of(runs, noise, Beside::Host).failed();
    let verdict = if here <= MOST && failed == 0 { "within" } else { "NOT within" };
    let failures = if failed == 0 { String::new() } else { format!(", and {failed} requests failed") };
    format!(
        "\nBeside {} the p99 is {} × that alone{failures}: {verdict} {MOST} ×. With a server of its own for the noise: {} ×.\n",
        noise.text(),
        number(here),
        number(elsewhere)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn run(beside: Beside, p99_us: f64, failed: u64) -> Run {
        Run {
            noise: Load::Loop,
            beside,
            alternation: 0,
            p50_us: 1.0,
            p99_us,
            p999_us: p99_us,
            late_p99_us: 1.0,
            failed,
            noise_per_s: BTreeMap::new(),
            host_cores: 0.0,
            elsewhere_cores: 0.0,
            noise_cores: 0.0,
            quiet_cores: 0.0,
            foreign_cores: 0.0,
            steal_cores: 0.0,
            us: vec![p99_us; 10],
            late_us: vec![1.0],
        }
    }

    #[test]
    fn the_p99_may_double_and_no_request_may_fail() {
        let verdict = |p99_us: f64, failed: u64| {
            let runs = [run(Beside::Nothing, 100.0, 0), run(Beside::Host, p99_us, failed), run(Beside::Elsewhere, 150.0, 0)];
            verdict(&runs, Load::Loop).trim().to_owned()
        };
        let elsewhere = "With a server of its own for the noise: 1.50 ×.";
        assert_eq!(verdict(200.0, 0), format!("Beside 500 loops the p99 is 2.00 × that alone: within 2 ×. {elsewhere}"));
        assert_eq!(verdict(201.0, 0), format!("Beside 500 loops the p99 is 2.01 × that alone: NOT within 2 ×. {elsewhere}"));
        assert_eq!(verdict(100.0, 1), format!("Beside 500 loops the p99 is 1.00 × that alone, and 1 requests failed: NOT within 2 ×. {elsewhere}"));
    }
}
