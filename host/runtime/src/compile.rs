//! Ahead-of-time compilation, in a child process.
//!
//! Only the child parses what tenants send: compile time is not covered by the promises that the engine makes about running code. The child gets the bytes on a
//! pipe, has limits on CPU time and address space, dies with its parent, and returns code with a description. It limits cost, not trust: the
//! code it returns is mapped and run as the engine's own.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tovuk_kernel::clock::Clock;
use wasmtime::component::Component;

use crate::component::{self, Description, Refusal};
use crate::engine::Metering;
use crate::{engine, imports};

/// The argument by which the host's own binary is told to be the child.
pub const CHILD_ARGUMENT: &str = "__compile";
/// What follows it where the code is not to be metered.
const UNMETERED_ARGUMENT: &str = "unmetered";
/// A component made from JavaScript takes 7 s on one core; this bounds hostile ones.
const CPU_SECONDS_MAX: u64 = 120;
const WALL_MAX: Duration = Duration::from_secs(180);
const ADDRESS_SPACE_BYTES_MAX: u64 = 8 << 30;
/// A description is a few names; whatever claims to be longer is none.
const HEADER_BYTES_MAX: u64 = 1 << 20;

/// More code than any component makes. What claims to be longer is cut, and then refused as broken.
const CODE_BYTES_MAX: u64 = 1 << 30;
/// The child gives way to requests.
const NICENESS: i32 = 10;

/// What the child answers before the code.
#[derive(Serialize, Deserialize)]
struct Answer {
    result: Result<Description, Refusal>,
    compatibility: String,
}

/// Code and description of a component.
pub struct Compiled {
    /// What the component is.
    pub description: Description,
    /// The machine code, to be written to a file and mapped.
    pub code: Vec<u8>,
}

/// Why nothing was compiled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The component's fault.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The host's fault.
    #[error("the compiler process could not be used: {0}")]
    Host(String),
}

/// Starts compiler processes.
#[derive(Clone, Debug)]
pub struct Compiler {
    program: PathBuf,
    arguments: Vec<OsString>,
    clock: Clock,
    /// One at a time: each uses every core.
    turn: Arc<Semaphore>,
}

impl Compiler {
    /// A compiler that runs this program again. Its `main` has to begin with [`child_main`].
    pub fn this_program(clock: Clock) -> std::io::Result<Self> {
        Ok(Self::new(std::env::current_exe()?, clock))
    }

    /// A compiler that runs that program, whose `main` begins with [`child_main`].
    pub fn new(program: PathBuf, clock: Clock) -> Self {
        Self { program, arguments: vec![CHILD_ARGUMENT.into()], clock, turn: Arc::new(Semaphore::new(1)) }
    }

    /// The same for an engine whose [`Metering`] is off.
    pub(crate) fn unmetered(mut self) -> Self {
        self.arguments.push(UNMETERED_ARGUMENT.into());
        self
    }

    /// Compiles a component. `compatibility` is the hash that the engine which will run it demands.
    pub async fn compile(&self, wasm: &[u8], compatibility: &str) -> Result<Compiled, Error> {
        component::sniff(wasm)?;
        let _turn = self.turn.acquire().await.map_err(|error| Error::Host(error.to_string()))?;
        let mut child = tokio::process::Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Error::Host(format!("{}: {error}", self.program.display())))?;
        let group = child.id().and_then(|id| Pid::from_raw(id as i32));
        let (Some(mut stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take()) else {
            return Err(Error::Host("it has no pipes".to_owned()));
        };
        let talk = async {
            // A child that dies early closes its end; what it said by then explains more than the broken pipe does.
            let write = async {
                let _ = stdin.write_all(wasm).await;
                drop(stdin);
            };
            let (mut stdout, mut stderr) = (stdout.take(CODE_BYTES_MAX), stderr.take(HEADER_BYTES_MAX));
            let (mut output, mut complaints) = (Vec::new(), Vec::new());
            let ((), read, _) = tokio::join!(write, stdout.read_to_end(&mut output), stderr.read_to_end(&mut complaints));
            let status = child.wait().await;
            (read.map(|_| output), complaints, status)
        };
        let Some((output, complaints, status)) = self.clock.timeout(WALL_MAX, talk).await else {
            if let Some(group) = group {
                let _ = rustix::process::kill_process_group(group, Signal::KILL);
            }
            return Err(Refusal::Compile { text: format!("it took longer than {} s", WALL_MAX.as_secs()) }.into());
        };
        let output = output.map_err(|error| Error::Host(error.to_string()))?;
        let Some((answer, code)) = parse(output) else {
            let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            let complaints = String::from_utf8_lossy(&complaints);
            let last = complaints.lines().last().unwrap_or("it said nothing");
            return Err(Refusal::Compile { text: format!("the compiler ended early ({status}): {last}") }.into());
        };
        if answer.compatibility != compatibility {
            return Err(Error::Host(format!("{} compiles for an engine with other settings", self.program.display())));
        }
        Ok(Compiled { description: answer.result?, code })
    }
}

/// Header length, header, code.
fn parse(output: Vec<u8>) -> Option<(Answer, Vec<u8>)> {
    let (length, rest) = output.split_first_chunk::<8>()?;
    let length = u64::from_le_bytes(*length);
    if length > HEADER_BYTES_MAX {
        return None;
    }
    let (header, code) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    Some((serde_json::from_slice(header).ok()?, code.to_vec()))
}

/// Call this first in `main`: when this process was started as a compiler it does that work and gives the exit code to end with.
pub fn child_main() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_none_or(|argument| argument != CHILD_ARGUMENT) {
        return None;
    }
    let metering = if arguments.next().is_some_and(|argument| argument == UNMETERED_ARGUMENT) { Metering::Off } else { Metering::On };
    Some(match child(metering) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    })
}

fn child(metering: Metering) -> wasmtime::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::process::nice(NICENESS)?;
    let limit = |bound: u64| Rlimit { current: Some(bound), maximum: Some(bound) };
    setrlimit(Resource::Cpu, limit(CPU_SECONDS_MAX))?;
    setrlimit(Resource::As, limit(ADDRESS_SPACE_BYTES_MAX))?;
    setrlimit(Resource::Core, limit(0))?;
    let mut wasm = Vec::new();
    std::io::stdin().lock().read_to_end(&mut wasm)?;
    let engine = engine::compiling_engine(metering)?;
    let (result, code) = match compile(&engine, &wasm) {
        Ok((description, code)) => (Ok(description), code),
        Err(refusal) => (Err(refusal), Vec::new()),
    };
    let header = serde_json::to_vec(&Answer { result, compatibility: compatibility(&engine) })?;
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&(header.len() as u64).to_le_bytes())?;
    stdout.write_all(&header)?;
    stdout.write_all(&code)?;
    stdout.flush()?;
    Ok(())
}

fn compile(engine: &wasmtime::Engine, wasm: &[u8]) -> Result<(Description, Vec<u8>), Refusal> {
    let refused = |error: wasmtime::Error| Refusal::Compile { text: format!("{error:#}") };
    let component = Component::from_binary(engine, wasm).map_err(refused)?;
    let linker = imports::linker(engine).map_err(refused)?;
    let description = component::describe(engine, &component, || linker.instantiate_pre(&component).map(drop).map_err(|error| format!("{error:#}")))?;
    let code = component.serialize().map_err(refused)?;
    Ok((description, code))
}

/// What compiled code must have in common with the engine that maps it, as hexadecimal text.
pub fn compatibility(engine: &wasmtime::Engine) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    // Its keys are fixed. Should it change with a compiler release, the cache is compiled anew.
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
