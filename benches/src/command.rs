//! The command line: which measurement, for how long, and where its results go.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::fair::load::{self, Load, LoadArguments};
use crate::output::Report;
use crate::{bill, control, fair, host, http, inproc, kinds, machine, native};

/// Measures the host in process and over HTTP, beside its peers.
#[derive(Parser)]
#[command(name = "bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Invocations in this process on one thread: hello and chains, no sockets.
    Inproc(InprocArguments),
    /// Servers side by side under wrk: the host, native hyper, and the peers that are found.
    Http(HttpArguments),
    /// Both, and one report.
    All {
        #[command(flatten)]
        inproc: InprocArguments,
        #[command(flatten)]
        http: HttpArguments,
    },
    /// An operator's host as a process: reads and commits of the control API, deploys, rollbacks, first requests after a start.
    Control(ControlArguments),
    /// SQLite: each operation in a worker and over the API of an operator's host.
    Sqlite(KindArguments),
    /// KV: in a worker, over the API, and the store itself beside a plain table.
    Kv(KvArguments),
    /// The bill of CPU time beside what the process has used, over a mixed load.
    Bill(BillArguments),
    /// How long a quiet service's requests take beside noisy ones of other accounts.
    Fair(FairArguments),
    /// Cron: an operator's host with thousands of triggers, many of them due in the same minute.
    Cron(CronArguments),
    /// Queues: the store with many callers, without and with a backlog, and deliveries to a worker.
    Queue(QueueArguments),
    /// State: in a worker, over the API, alarms, and the store itself beside plain commits.
    State(StateArguments),
    /// Objects: in a worker, over the API, and at their URLs.
    Objects(ObjectsArguments),
    /// Serves the native hyper hello until it is ended: the ceiling that the others are compared with.
    Native {
        /// Where to listen, for example 127.0.0.1:9400.
        address: SocketAddr,
        /// Worker threads.
        #[arg(long, default_value_t = 1)]
        threads: usize,
    },
    /// Serves the measured services with the host until it is ended. The Host header picks one: hello, hello-p2, chain or chain-p2, each
    /// followed by `.localhost`, and those of `bench fair`.
    Host {
        /// Where to listen, for example 127.0.0.1:9401.
        address: SocketAddr,
        /// Worker threads.
        #[arg(long, default_value_t = 1)]
        threads: usize,
        /// Instance slots; the host's default when absent.
        #[arg(long)]
        slots: Option<u32>,
    },
    /// Serves an operator's host on free ports until it is ended. For the use of `bench control`.
    #[command(hide = true)]
    Operator {
        /// Its data folder.
        data: PathBuf,
    },
    /// Asks a server, and prints what it answered. For the use of `bench fair`.
    #[command(hide = true)]
    Load(LoadArguments),
    /// Becomes another program, which ends when the parent does. For the use of `bench http` and `bench fair`.
    #[command(hide = true)]
    Child {
        /// It stays on this core.
        #[arg(long)]
        core: Option<usize>,
        #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
        program: Vec<OsString>,
    },
}

/// How invocations in process are measured.
#[derive(Args, Clone)]
pub struct InprocArguments {
    /// Rounds; each measures every case once.
    #[arg(long, default_value_t = 15)]
    pub rounds: usize,
    /// Invocations in one round of one case; a chain of n hops counts as n + 1.
    #[arg(long, default_value_t = 1600)]
    pub invocations: usize,
    /// Stays on this core.
    #[arg(long)]
    pub core: Option<usize>,
    /// Runs only the cases whose names contain this.
    #[arg(long)]
    pub case: Option<String>,
    /// Instance slots; the host's default when absent.
    #[arg(long)]
    pub slots: Option<u32>,
    /// Raw results, one JSON object a line; `target/bench/inproc-<time>.jsonl` when absent.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// How the bill is measured.
#[derive(Args, Clone)]
pub struct BillArguments {
    /// Seconds of load.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Requests at a time.
    #[arg(long, default_value_t = 8)]
    pub clients: usize,
    /// Worker threads.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
}

/// How servers are measured.
#[derive(Args, Clone)]
pub struct HttpArguments {
    /// Seconds of load per measurement.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub seconds: u64,
    /// Times that every row is measured, in alternating order.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub alternations: u32,
    /// Measures again, this often at the most, when other processes took more than a tenth of a core.
    #[arg(long, default_value_t = 2)]
    pub retries: u32,
    /// Only the servers or rows whose names begin with one of these, separated by commas; for example `native,host hello`.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// The workerd binary; else the one in PATH or in `node_modules/.bin`.
    #[arg(long)]
    pub workerd: Option<PathBuf>,
    /// The wasmtime binary; else the one in PATH.
    #[arg(long)]
    pub wasmtime: Option<PathBuf>,
    /// Raw results, one JSON object a line; `target/bench/http-<time>.jsonl` when absent.
    #[arg(long)]
    pub http_json: Option<PathBuf>,
}

/// How the control API is measured.
#[derive(Args, Clone)]
pub struct ControlArguments {
    /// Services, each with a component of its own.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=100))]
    pub services: u32,
    /// Seconds of load per measurement.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub seconds: u64,
    /// Raw results, one JSON object a line; `target/bench/control-<time>.jsonl` when absent.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// How a kind of data is measured.
#[derive(Args, Clone)]
pub struct KindArguments {
    /// Seconds of load per measurement.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub seconds: u64,
    /// Raw results, one JSON object a line; `target/bench/<kind>-<time>.jsonl` when absent.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// How KV is measured.
#[derive(Args, Clone)]
pub struct KvArguments {
    /// Keys that the store has while 64 callers write, one run for each.
    #[arg(long, value_delimiter = ',', default_values_t = [200_000, 4_000_000])]
    pub keys: Vec<u64>,
    /// Seconds of load per measurement.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub seconds: u64,
    /// Rounds of the churn, in each of which 100,000 keys come and go.
    #[arg(long, default_value_t = 10)]
    pub rounds: u32,
    /// Only these parts: `worker`, `api`, `store`, `churn`.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// The folder of the store; one under `target/bench` when absent. One on a file system in memory shows what is left when the disk costs nothing.
    #[arg(long)]
    pub folder: Option<PathBuf>,
    /// Raw results, one JSON object a line; `target/bench/kv-<time>.jsonl` when absent.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// How fairness is measured.
#[derive(Args, Clone)]
pub struct FairArguments {
    /// Seconds of the quiet client in each run.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub seconds: u64,
    /// Times that each noise is made, and left away, in alternating order.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub alternations: u32,
    /// Only these noises.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Load>,
    /// Raw results, one JSON object a line; `target/bench/fair-<time>.jsonl` when absent.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// How cron is measured.
#[derive(Args, Clone)]
pub struct CronArguments {
    /// Triggers of the host.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=40_000))]
    pub triggers: u64,
    /// Those of them that are due in the same minute.
    #[arg(long, default_value_t = 1_000)]
    pub together: u64,
    /// Times that they are.
    #[arg(long, default_value_t = 5)]
    pub rounds: u32,
    /// Raw results, one JSON object a line; `target/bench/cron-<time>.jsonl` when absent.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// How queues are measured.
#[derive(Args, Clone)]
pub struct QueueArguments {
    /// Seconds of load per measurement.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub seconds: u64,
    /// Messages that wait while sends are measured for the second time.
    #[arg(long, default_value_t = 5_000_000)]
    pub backlog: usize,
    /// Messages that are delivered.
    #[arg(long, default_value_t = 200_000)]
    pub delivered: usize,
    /// Only these parts: `store`, `deliver`.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// The folder of the data; one under `target/bench` when absent.
    #[arg(long)]
    pub folder: Option<PathBuf>,
    /// Raw results, one JSON object a line; `target/bench/queue-<time>.jsonl` when absent.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// How State is measured.
#[derive(Args, Clone)]
pub struct StateArguments {
    /// Seconds of load per measurement.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub seconds: u64,
    /// Objects that are in use within a minute.
    #[arg(long, default_value_t = 10_000)]
    pub objects: u64,
    /// Alarms that ring within a minute.
    #[arg(long, default_value_t = 100_000)]
    pub alarms: u64,
    /// Only these parts: `store`, `many`, `worker`, `api`, `alarms`.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<String>,
    /// The folder of the data; one under `target/bench` when absent.
    #[arg(long)]
    pub folder: Option<PathBuf>,
    /// Raw results, one JSON object a line; `target/bench/state-<time>.jsonl` when absent.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// How objects are measured.
#[derive(Args, Clone)]
pub struct ObjectsArguments {
    /// Seconds of load per measurement.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub seconds: u64,
    /// Callers at a time, one run for each.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16])]
    pub callers: Vec<usize>,
    /// The folder of the host's data; one under `target/bench` when absent.
    #[arg(long)]
    pub folder: Option<PathBuf>,
    /// Raw results, one JSON object a line; `target/bench/objects-<time>.jsonl` when absent.
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// Does what the command line says.
pub fn run() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Inproc(arguments) => reported("inproc", |report| inproc::run(&arguments, report)),
        Command::Http(arguments) => reported("http", |report| http::run(&arguments, report)),
        Command::All { inproc, http } => reported("all", |report| {
            // What is missing is said before the first measurement, not after it.
            http::check(&http)?;
            inproc::run(&inproc, report)?;
            http::run(&http, report)
        }),
        Command::Control(arguments) => reported("control", |report| {
            control::check()?;
            control::run(&arguments, report)
        }),
        Command::Sqlite(arguments) => reported("sqlite", |report| kinds::sqlite::run(&arguments, report)),
        Command::Kv(arguments) => reported("kv", |report| kinds::kv::run(&arguments, report)),
        Command::Bill(arguments) => reported("bill", |report| bill::run(&arguments, report)),
        Command::Fair(arguments) => reported("fair", |report| fair::run(&arguments, report)),
        Command::Cron(arguments) => reported("cron", |report| kinds::cron::run(&arguments, report)),
        Command::Queue(arguments) => reported("queue", |report| kinds::queue::run(&arguments, report)),
        Command::State(arguments) => reported("state", |report| kinds::state::run(&arguments, report)),
        Command::Objects(arguments) => reported("objects", |report| kinds::objects::run(&arguments, report)),
        Command::Operator { data } => control::serve(&data),
        Command::Native { address, threads } => native::serve(address, threads),
        Command::Host { address, threads, slots } => host::serve(address, threads, slots),
        Command::Load(arguments) => load::run(&arguments),
        Command::Child { core, program } => become_child(core, program),
    }
}

/// Measures, and keeps the report.
fn reported(kind: &str, measure: impl FnOnce(&mut Report) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut report = Report::begin();
    measure(&mut report)?;
    report.finish(kind)
}

fn become_child(core: Option<usize>, program: Vec<OsString>) -> anyhow::Result<()> {
    core.map_or(Ok(()), machine::pin)?;
    // A benchmark that is interrupted leaves no server behind.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).context("cannot be tied to the parent")?;
    let mut arguments = program.into_iter();
    let name = arguments.next().context("no program")?;
    let error = std::process::Command::new(&name).args(arguments).exec();
    Err(error).with_context(|| format!("cannot run {}", name.display()))
}
