//! Has source built in the sandbox: starts the child, gives it the source, passes its output on, and writes what it has built into a folder. It neither
//! queues builds nor decides who may have one.

use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tovuk_kernel::project::Service;
use tovuk_kernel::threads::spawn_blocking;

use super::archive::{self, ArchiveError, ArchiveLimits, Kind, Unpacked};
use super::sandbox::frames::{self, PiecesIn, PiecesOut};
use super::sandbox::{ASSETS, CHILD_ARGUMENT, COMPONENT, Done, Orders, Resource, SandboxConfig, SandboxError, Task};

/// How long the child may take to say whether it works.
const PROBE_MAX: Duration = Duration::from_secs(30);
/// Lines that wait to be taken. The build waits when there are more.
const LINES_WAITING_MAX: usize = 256;
/// How much of what the child itself complains about is kept.
const COMPLAINTS_BYTES_MAX: u64 = 4 << 10;

/// What is to be built.
#[derive(Clone, Copy, Debug)]
pub struct Job<'a> {
    /// The service's name, for messages.
    pub name: &'a str,
    /// How it is built. `root`, `build`, `component` and `assets` are as in the project file, relative to `source`.
    pub service: &'a Service,
    /// The folder of the project file, as [`archive::unpack`] has left it.
    pub source: &'a Path,
    /// Where what was built goes: a folder that does not exist or is empty.
    pub output: &'a Path,
}

/// What a build has left, in the job's `output`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The worker's component; absent for a static frontend. Whether it can be run is for the engine to find out.
    pub component: Option<PathBuf>,
    /// The folder of static files, where the service has one.
    pub assets: Option<PathBuf>,
}

/// Builds a service from source. Each line of output goes to `log` as it comes.
///
/// When this returns, or is dropped, everything that the build has started is ended or about to be. When it fails, `output` is the caller's to remove.
pub async fn build_source(config: &SandboxConfig, job: Job<'_>, log: impl Fn(&str), cancel: &CancellationToken) -> Result<Built, SandboxError> {
    let task = Task::build(config, job.name, job.service);
    let output = job.output.to_owned();
    let wall = Duration::from_millis(config.limits.wall_ms);
    let done = talk(config, task, Some(job.source.to_owned()), output, log, cancel, wall).await?;
    let component = done.component.then(|| job.output.join(COMPONENT));
    let assets = done.assets.then(|| job.output.join(ASSETS));
    if let Some(assets) = &assets {
        // An empty folder has no entry.
        fs::create_dir_all(assets).map_err(|error| SandboxError::Host { text: format!("{}: {error}", assets.display()) })?;
    }
    if component.as_ref().is_some_and(|path| !path.is_file()) {
        return Err(SandboxError::Host { text: "the sandbox has sent no component".to_owned() });
    }
    Ok(Built { component, assets })
}

/// Whether source can be built here, found out by going all the way but for the build. Gives the version of cargo.
pub async fn probe(config: &SandboxConfig) -> Result<String, SandboxError> {
    let done = talk(config, Task::probe(config), None, PathBuf::new(), |_| {}, &CancellationToken::new(), PROBE_MAX).await?;
    Ok(done.version)
}

/// One life of the child.
async fn talk(
    config: &SandboxConfig,
    task: Task,
    source: Option<PathBuf>,
    output: PathBuf,
    log: impl Fn(&str),
    cancel: &CancellationToken,
    wall: Duration,
) -> Result<Done, SandboxError> {
    let (mut child, pipes) = start(config)?;
    let orders = Orders::new(config);
    let mut to_child = pipes.input;
    // It goes on holding the pipe when it has written everything: the child ends when the pipe does.
    let feeding = spawn_blocking(move || {
        // When the child is gone this fails, and the child's answer says why.
        let _ = feed(&mut to_child, &orders, &task, source.as_deref());
        to_child
    });
    let given_up = GiveUp(Arc::default());
    let (sender, mut lines) = mpsc::channel(LINES_WAITING_MAX);
    let reader = Reader { limits: output_limits(config), output, lines: sender, given_up: Arc::clone(&given_up.0) };
    let mut reading = spawn_blocking(move || reader.run(pipes.output, pipes.complaints));
    let ended = {
        let mut time = std::pin::pin!(config.clock.sleep(wall));
        loop {
            tokio::select! {
                biased;
                Some(line) = lines.recv() => log(&line),
                result = &mut reading => break result.unwrap_or_else(|error| Err(SandboxError::Host { text: error.to_string() })),
                () = cancel.cancelled() => break Err(SandboxError::Cancelled),
                () = &mut time => break Err(SandboxError::Exceeded { what: Resource::Wall, limits: Box::new(config.limits) }),
            }
        }
    };
    lines.close();
    given_up.0.store(true, Ordering::Relaxed);
    // The first process of the namespace ends with the child, and all others with it.
    let _ = child.start_kill();
    let _ = child.wait().await;
    if !reading.is_finished() && matches!(ended, Err(SandboxError::Cancelled | SandboxError::Exceeded { .. })) {
        // The pipe ends when the last process that holds it has ended. Only then is nothing left of the build.
        let _ = reading.await;
    }
    drop(feeding.await);
    ended
}

/// Tells the reader to stop, also when the future is dropped.
struct GiveUp(Arc<AtomicBool>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The host's ends.
struct Pipes {
    input: PipeWriter,
    output: PipeReader,
    complaints: PipeReader,
}

fn start(config: &SandboxConfig) -> Result<(Child, Pipes), SandboxError> {
    let host = |what: String| move |error: io::Error| SandboxError::Host { text: format!("{what}: {error}") };
    let pipe = || io::pipe().map_err(host("a pipe".to_owned()));
    let ((stdin, input), (output, stdout), (complaints, stderr)) = (pipe()?, pipe()?, pipe()?);
    let mut command = Command::new(&config.program);
    command.arg(CHILD_ARGUMENT).env_clear().current_dir("/").stdin(Stdio::from(stdin)).stdout(stdout).stderr(stderr).kill_on_drop(true);
    let child = command.spawn().map_err(host(format!("starting {}", config.program.display())))?;
    Ok((child, Pipes { input, output, complaints }))
}

fn feed(to: &mut PipeWriter, orders: &Orders, task: &Task, source: Option<&Path>) -> io::Result<()> {
    frames::write_json(to, frames::ORDERS, orders)?;
    frames::write_json(to, frames::TASK, task)?;
    let Some(source) = source else { return Ok(()) };
    let mut tar = tar::Builder::new(PiecesOut { to: &mut *to, kind: frames::SOURCE });
    for entry in walkdir::WalkDir::new(source).sort_by_file_name() {
        let entry = entry?;
        if entry.file_type().is_file() {
            let name = entry.path().strip_prefix(source).map_err(io::Error::other)?;
            tar.append_file(name, &mut fs::File::open(entry.path())?)?;
        }
    }
    tar.into_inner()?;
    frames::write(to, frames::END, &[])
}

fn output_limits(config: &SandboxConfig) -> ArchiveLimits {
    let limits = &config.limits;
    ArchiveLimits {
        bytes: limits.component_bytes.saturating_add(limits.assets_bytes),
        file_bytes: limits.component_bytes.max(ArchiveLimits::default().file_bytes),
        files: limits.assets_files.saturating_add(1),
        ..ArchiveLimits::default()
    }
}

/// Reads what the child says, on a thread that may block.
struct Reader {
    limits: ArchiveLimits,
    output: PathBuf,
    lines: mpsc::Sender<String>,
    given_up: Arc<AtomicBool>,
}

impl Reader {
    fn run(&self, mut from: PipeReader, complaints: PipeReader) -> Result<Done, SandboxError> {
        let host = |text: String| SandboxError::Host { text };
        let result = match self.read(&mut from) {
            Ok(Some(result)) => result,
            Ok(None) => {
                // It has ended, so these end as well.
                let mut said = String::new();
                let _ = complaints.take(COMPLAINTS_BYTES_MAX).read_to_string(&mut said);
                Err(host(format!("the sandbox has ended early. {}", said.trim())))
            }
            Err(error) => Err(host(format!("the sandbox has said something unexpected: {error}"))),
        };
        if result.is_err() && self.given_up.load(Ordering::Relaxed) {
            // To the end, which comes with that of the last process.
            let _ = io::copy(&mut from, &mut io::sink());
        }
        result
    }

    /// What the child has said at last; nothing when it has ended without a word.
    fn read(&self, from: &mut PipeReader) -> io::Result<Option<Result<Done, SandboxError>>> {
        let mut unpacked = false;
        while let Some((kind, payload)) = frames::read(from)? {
            match kind {
                // Nobody takes lines any more once the build was given up.
                frames::LINE => drop(self.lines.blocking_send(String::from_utf8_lossy(&payload).into_owned())),
                frames::OUTPUT if !unpacked => {
                    unpacked = true;
                    if let Err(error) = self.unpack(from, payload) {
                        return Ok(Some(Err(error)));
                    }
                }
                frames::DONE => return Ok(Some(Ok(serde_json::from_slice(&payload)?))),
                frames::FAILED => return Ok(Some(Err(serde_json::from_slice(&payload)?))),
                kind => return Err(io::Error::other(format!("a frame of kind {kind}"))),
            }
        }
        Ok(None)
    }

    fn unpack(&self, from: &mut PipeReader, first: Vec<u8>) -> Result<Unpacked, SandboxError> {
        let pieces = PiecesIn::new(from, frames::OUTPUT, first);
        archive::unpack_tar(pieces, &self.output, &self.limits, Kind::Assets, &self.given_up).map_err(|error| match error {
            ArchiveError::Refused { .. } => SandboxError::Output(error),
            ArchiveError::Cancelled => SandboxError::Cancelled,
            error => SandboxError::Host { text: error.to_string() },
        })
    }
}
