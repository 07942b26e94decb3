//! How much a quiet neighbour suffers: its requests, at a fixed rate, alone and beside a noisy account of the same host, in alternating order.
//!
//! Servers, the quiet client and whoever makes the noise are processes of their own and share all cores, as on a small machine that somebody else loads. So part of
//! what the quiet one loses is the machine's and not the host's: beside each noise there is the same with another process for its server.

pub mod load;
mod pace;
mod report;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Serialize;
use tovuk_kernel::clock::Clock;

use crate::command::FairArguments;
use crate::machine;
use crate::output::{Raw, Report};
use crate::server::{Server, child, cpu_of, ended, free_address, this_program};
use crate::stats::percentile;
use load::{Done, Load};

/// How long a noise goes on before the quiet client begins.
const LEAD_IN: Duration = Duration::from_secs(2);
/// A noise ends by itself after so long, should nobody end it.
const NOISE_MORE_S: u64 = 60;
/// How long a server may go on working after a noise.
const REST_MAX: Duration = Duration::from_secs(60);
const REST_STEP: Duration = Duration::from_millis(250);
/// In one such step an idle server uses no more than this, in s.
const REST_CPU_S: f64 = 0.021;

/// Roughly what each run takes besides.
const STARTS_AND_RESTS_S: u64 = 1;

/// What is beside the quiet client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Beside {
    /// Nothing.
    Nothing,
    /// The noise, at another service of the same host.
    Host,
    /// The noise, at a server of its own.
    Elsewhere,
}

impl Beside {
    const ALL: [Self; 3] = [Self::Nothing, Self::Host, Self::Elsewhere];
}

/// One run of the quiet client.
#[derive(Clone, Debug, Serialize)]
struct Run {
    noise: Load,
    beside: Beside,
    alternation: u32,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    late_p99_us: f64,
    failed: u64,
    /// What the noise was answered in a second.
    noise_per_s: BTreeMap<String, f64>,
    /// Cores in use.
    host_cores: f64,
    elsewhere_cores: f64,
    noise_cores: f64,
    quiet_cores: f64,
    /// By other processes.
    foreign_cores: f64,
    steal_cores: f64,
    #[serde(skip)]
    us: Vec<f64>,
    #[serde(skip)]
    late_us: Vec<f64>,
}

struct Servers {
    /// With the quiet service.
    host: Server,
    /// The same once more.
    other_host: Server,
    /// Hyper alone, so that a flood costs its server as little as can be.
    native: Server,
}

impl Servers {
    async fn start(threads: usize) -> anyhow::Result<Self> {
        let start = async |name: &str, command: &str| {
            let address = free_address()?;
            let threads = threads.to_string();
            let program = [this_program()?.into(), command.into(), address.to_string().into(), "--threads".into(), threads.into()];
            Server::start(name, None, address, program.to_vec()).await
        };
        Ok(Self {
            host: start("fair-host", "host").await?,
            other_host: start("fair-other", "host").await?,
            native: start("fair-native", "native").await?,
        })
    }

    /// The server of a noise that is not for the host itself.
    fn elsewhere(&self, noise: Load) -> &Server {
        if noise == Load::Flood { &self.native } else { &self.other_host }
    }
}

/// Measures, adds the tables to the report, and keeps the raw results.
pub fn run(arguments: &FairArguments, report: &mut Report) -> anyhow::Result<()> {
    let noises: Vec<_> = Load::NOISES.into_iter().filter(|noise| arguments.only.is_empty() || arguments.only.contains(noise)).collect();
    ensure!(!noises.is_empty(), "--only leaves no noise; there are: {}", Load::NOISES.map(Load::name).join(", "));
    let mut raw = report.raw(arguments.json.as_deref(), "fair")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let runs = runtime.block_on(measure(arguments, &noises, &mut raw))?;
    report.add(&report::render(&runs, arguments));
    eprintln!("raw results in {}", raw.path().display());
    Ok(())
}

async fn measure(arguments: &FairArguments, noises: &[Load], raw: &mut Raw) -> anyhow::Result<Vec<Run>> {
    let servers = Servers::start(std::thread::available_parallelism().map_or(1, usize::from)).await?;
    let each_s = arguments.seconds + LEAD_IN.as_secs() + STARTS_AND_RESTS_S;
    eprintln!("about {} s", each_s * u64::from(arguments.alternations) * (noises.len() * Beside::ALL.len()) as u64);
    // Fills caches and pools; not counted.
    one(arguments, &servers, Load::Deep, Beside::Host).await?;
    let mut runs = Vec::new();
    for noise in noises {
        for alternation in 0..arguments.alternations {
            let mut order = Beside::ALL;
            if alternation % 2 == 1 {
                order.reverse();
            }
            for beside in order {
                let run = Run { alternation, ..one(arguments, &servers, *noise, beside).await? };
                raw.add(&run)?;
                eprintln!(
                    "{} {beside:?} #{alternation}: p50 {:.0} µs p99 {:.0} µs p99.9 {:.0} µs failed {} foreign {:.2}",
                    noise.text(),
                    run.p50_us,
                    run.p99_us,
                    run.p999_us,
                    run.failed,
                    run.foreign_cores
                );
                runs.push(run);
            }
        }
    }
    Ok(runs)
}

/// Starts a load. It ends with this process at the latest.
fn start(load: Load, server: &Server, seconds: u64) -> anyhow::Result<Child> {
    let arguments: [OsString; 5] =
        ["load".into(), load.name().into(), server.address.to_string().into(), "--seconds".into(), seconds.to_string().into()];
    let mut command = child(None)?;
    command.arg(this_program()?).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().with_context(|| format!("the load {} cannot be started", load.name()))
}

/// What a load has done when it has ended, and its CPU time in s.
fn finish(load: Load, child: Child) -> anyhow::Result<(Done, f64)> {
    let (output, cpu_s) = ended(child).with_context(|| format!("the load {}", load.name()))?;
    Ok((serde_json::from_str(&output).context("the load printed what is not understood")?, cpu_s))
}

/// CPU time until now, in s: of the host, the other server, the noise, and of all processes of the machine with what the hypervisor kept.
fn used(servers: [&Server; 2], noise: Option<&Child>) -> anyhow::Result<[f64; 5]> {
    let machine = machine::machine_cpu()?;
    let noise_s = noise.map_or(Ok(0.0), cpu_of)?;
    Ok([servers[0].cpu_s()?, servers[1].cpu_s()?, noise_s, machine.busy_s, machine.steal_s])
}

async fn one(arguments: &FairArguments, servers: &Servers, noise: Load, beside: Beside) -> anyhow::Result<Run> {
    let elsewhere = servers.elsewhere(noise);
    let noisy = match beside {
        Beside::Nothing => None,
        Beside::Host => Some(&servers.host),
        Beside::Elsewhere => Some(elsewhere),
    };
    let mut making = noisy.map(|server| start(noise, server, LEAD_IN.as_secs() + arguments.seconds + NOISE_MORE_S)).transpose()?;
    Clock::system().sleep(LEAD_IN).await;
    let (before, began) = (used([&servers.host, elsewhere], making.as_ref())?, Instant::now());
    let (quiet, quiet_cpu_s) = finish(Load::Quiet, start(Load::Quiet, &servers.host, arguments.seconds)?)?;
    let (after, wall_s) = (used([&servers.host, elsewhere], making.as_ref())?, began.elapsed().as_secs_f64());
    let noise_per_s = match making.take() {
        Some(mut child) => {
            drop(child.stdin.take());
            let done = finish(noise, child)?.0;
            done.answers.into_iter().map(|(code, count)| (code, count as f64 / done.seconds)).collect()
        }
        None => BTreeMap::new(),
    };
    for server in [&servers.host, elsewhere] {
        rest(server).await?;
    }
    let mut cores = [0.0; 5];
    for (cores, (before, after)) in cores.iter_mut().zip(before.into_iter().zip(after)) {
        *cores = (after - before) / wall_s;
    }
    let [host_cores, elsewhere_cores, noise_cores, busy_cores, steal_cores] = cores;
    let quiet_cores = quiet_cpu_s / wall_s;
    Ok(Run {
        noise,
        beside,
        alternation: 0,
        p50_us: percentile(&quiet.us, 50.0),
        p99_us: percentile(&quiet.us, 99.0),
        p999_us: percentile(&quiet.us, 99.9),
        late_p99_us: percentile(&quiet.late_us, 99.0),
        failed: quiet.failed(),
        noise_per_s,
        host_cores,
        elsewhere_cores,
        noise_cores,
        quiet_cores,
        foreign_cores: (busy_cores - host_cores - elsewhere_cores - noise_cores - quiet_cores).max(0.0),
        steal_cores,
        us: quiet.us,
        late_us: quiet.late_us,
    })
}

/// Waits until a server has nothing left to do: what a noise has begun ends after it.
async fn rest(server: &Server) -> anyhow::Result<()> {
    let clock = Clock::system();
    let deadline_ms = clock.monotonic_ms() + REST_MAX.as_millis() as u64;
    loop {
        let before = server.cpu_s()?;
        clock.sleep(REST_STEP).await;
        if server.cpu_s()? - before <= REST_CPU_S {
            return Ok(());
        }
        ensure!(
            clock.monotonic_ms() < deadline_ms,
            "a server still works {} s after nobody asks it any more; see {}",
            REST_MAX.as_secs(),
            server.log.display()
        );
    }
}
