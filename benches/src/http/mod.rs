//! Servers side by side: each on one core, `wrk` on another, in alternating order, so that a slow spell of the machine meets all of them. Only ratios
//! within one run are worth quoting.

mod load;
mod report;
mod rows;
mod servers;

use anyhow::{Context, ensure};

use crate::command::HttpArguments;
use crate::output::Report;
use load::{Measurement, Wrk};
use servers::{Kind, Servers};

/// Above this share of a core, what others used makes a measurement a disturbed one.
const FOREIGN_SHARE_MAX: f64 = 0.10;
const SERVER_CORE: usize = 0;
const LOAD_CORE: usize = 1;

/// Says what is missing before anything is measured.
pub fn check(arguments: &HttpArguments) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    ensure!(cores > LOAD_CORE, "`bench http` takes two cores, one for a server and one for wrk; this machine has {cores}");
    Wrk::find()?;
    ensure!(
        !rows::selected(&arguments.only).is_empty(),
        "--only {} leaves no row; there are: {}",
        arguments.only.join(","),
        rows::names().join(", ")
    );
    Ok(())
}

/// Measures every row, adds the tables to the report, and keeps the raw results.
pub fn run(arguments: &HttpArguments, report: &mut Report) -> anyhow::Result<()> {
    check(arguments)?;
    let wrk = Wrk::find()?;
    let mut rows = rows::selected(&arguments.only);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut servers = Servers::default();
    for kind in Kind::ALL {
        if rows.iter().any(|row| row.server == kind) && !runtime.block_on(servers.start(kind, arguments))? {
            rows.retain(|row| row.server != kind);
        }
    }
    for row in &rows {
        runtime.block_on(servers.check(row)).with_context(|| format!("{} does not answer as it has to", row.name))?;
    }
    let measurements: u64 = rows.iter().map(|row| row.connections.len() as u64).sum::<u64>() * u64::from(arguments.alternations);
    let seconds = measurements * arguments.seconds;
    eprintln!(
        "{measurements} measurements of {} s: {seconds} s, at the most {} s when the machine is disturbed",
        arguments.seconds,
        seconds * u64::from(1 + arguments.retries)
    );

    let mut raw = report.raw(arguments.http_json.as_deref(), "http")?;
    for row in &rows {
        // Fills caches and pools; not counted.
        load::measure(&wrk, &servers, row, 16, 1)?;
    }
    let mut kept = Vec::new();
    for alternation in 0..arguments.alternations {
        for connections in rows::CONNECTIONS {
            for row in rows.iter().filter(|row| row.connections.contains(&connections)) {
                let mut best: Option<Measurement> = None;
                for attempt in 0..=arguments.retries {
                    let mut measurement = load::measure(&wrk, &servers, row, connections, arguments.seconds)?;
                    (measurement.alternation, measurement.attempt) = (alternation, attempt);
                    raw.add(&measurement)?;
                    eprintln!("{measurement}");
                    if best.as_ref().is_none_or(|best| measurement.foreign_share < best.foreign_share) {
                        best = Some(measurement);
                    }
                    if best.as_ref().is_some_and(|best| best.foreign_share <= FOREIGN_SHARE_MAX) {
                        break;
                    }
                }
                kept.extend(best);
            }
        }
    }
    report.add(&report::render(&rows, &kept, &servers, arguments));
    eprintln!("raw results in {}", raw.path().display());
    Ok(())
}
