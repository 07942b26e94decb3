//! The second stage of the child: process 1 of the new pid namespace. It closes the door behind itself, and only then reads what the tenant has sent. When it ends,
//! for whatever reason, the kernel ends everything in its namespace.

use std::fs::{self, File};
use std::io::{self, Read};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, chdir, getrlimit, pivot_root, set_dumpable_behavior, set_parent_process_death_signal, setrlimit,
};
use rustix::system::sethostname;
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_capabilities_secure_bits, set_no_new_privs,
};
use tovuk_kernel::project::Service;

use super::confine::{stdin, stdout};
use super::run::Runner;
use super::{Done, HOME, OPERATOR_CARGO, SOURCE, SandboxError, SandboxLimits, TARGET, Task, What, filter, frames, output};
use crate::build::archive::{self, ArchiveLimits};
use crate::build::{DEFAULT_BUILD, command, component};

/// Address space of one process, as a multiple of the memory of all, and beside that. Compilers map far more than they use.
const ADDRESS_SPACE_FACTOR: u64 = 2;
const ADDRESS_SPACE_EXTRA_BYTES: u64 = 4 << 30;
/// CPU time of one process beyond that of all.
const CPU_SECONDS_EXTRA: u64 = 10;
/// Open files of one process.
const OPEN_FILES_MAX: u64 = 1024;
/// The kernel ends builds before anything else when the machine runs out of memory.
const OOM_SCORE: &str = "1000";
/// Builds give way to requests.
const NICENESS: i32 = 10;
/// Processes of the sandbox itself, and threads of this one.
const OWN_PROCESSES: u64 = 8;

/// Runs the task that follows on standard input.
pub(super) fn main() -> ExitCode {
    let (Ok(mut input), Ok(output)) = (stdin(), stdout()) else { return ExitCode::FAILURE };
    let output = Arc::new(Mutex::new(output));
    let result = enter().and_then(|()| {
        let task: Task = frames::read_json(&mut input, frames::TASK).map_err(host)?;
        confine(&task.limits)?;
        perform(task, &mut input, &output)
    });
    let Ok(mut output) = output.lock() else { return ExitCode::FAILURE };
    let told = match &result {
        Ok(done) => frames::write_json(&mut *output, frames::DONE, done),
        Err(error) => frames::write_json(&mut *output, frames::FAILED, error),
    };
    if told.is_ok() && result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn host(error: io::Error) -> SandboxError {
    SandboxError::Host { text: error.to_string() }
}

fn unavailable(what: &'static str) -> impl FnOnce(Errno) -> SandboxError {
    move |error| SandboxError::Unavailable { reason: format!("{what}: {}", io::Error::from(error)) }
}

/// Leaves the old file system for the one in the current folder.
fn enter() -> Result<(), SandboxError> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(unavailable("ending with its parent"))?;
    sethostname(b"build").map_err(unavailable("naming its host"))?;
    // While the old file system is there: the kernel mounts this one only for whoever sees it whole already.
    mount("proc", "proc", "proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None).map_err(unavailable("mounting /proc"))?;
    // The old root comes to lie over the new one, and is then taken off.
    pivot_root(".", ".").map_err(unavailable("changing its root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(unavailable("leaving the old file system"))?;
    chdir("/").map_err(unavailable("entering its file system"))?;
    // Inside another user namespace a build would have every capability again, over parts of the kernel that are not meant for it.
    let forbid = |path: &str, value: &str| {
        fs::write(path, value).map_err(|error| SandboxError::Unavailable { reason: format!("writing {value} to {path}: {error}") })
    };
    forbid("/proc/sys/user/max_user_namespaces", "0")?;
    forbid("/proc/self/oom_score_adj", OOM_SCORE)
}

/// Gives up what it could still do, for itself and all that it starts.
fn confine(limits: &SandboxLimits) -> Result<(), SandboxError> {
    rustix::process::nice(NICENESS).map_err(unavailable("lowering its priority"))?;
    let address_space = limits.memory_bytes.saturating_mul(ADDRESS_SPACE_FACTOR).saturating_add(ADDRESS_SPACE_EXTRA_BYTES);
    let bounds = [
        // For one process. What all use together is counted, and told, before that.
        (Resource::Cpu, limits.cpu_seconds.saturating_add(CPU_SECONDS_EXTRA)),
        (Resource::As, address_space),
        (Resource::Fsize, limits.disk_bytes),
        (Resource::Nproc, limits.processes.saturating_add(OWN_PROCESSES)),
        (Resource::Nofile, OPEN_FILES_MAX),
        // Not 0: the kernel would still hand a crash to the machine's own handler, outside. 1 is its word for never.
        (Resource::Core, 1),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
        (Resource::Rtprio, 0),
        (Resource::Nice, 0),
    ];
    for (resource, bound) in bounds {
        let bound = getrlimit(resource).maximum.map_or(bound, |maximum| bound.min(maximum));
        setrlimit(resource, Rlimit { current: Some(bound), maximum: Some(bound) }).map_err(unavailable("setting its limits"))?;
    }
    drop_capabilities().map_err(unavailable("giving up capabilities"))?;
    set_no_new_privs(true).map_err(unavailable("giving up new privileges"))?;
    filter::apply()?;
    // Nothing that a build starts may look into this process or change it, though they have the same user.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(unavailable("guarding itself"))
}

fn drop_capabilities() -> Result<(), Errno> {
    clear_ambient_capability_set()?;
    for number in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            // Beyond the last one that this kernel knows.
            Err(Errno::INVAL) => break,
            result => result?,
        }
    }
    // The user is called root inside; the name alone shall give it nothing.
    set_capabilities_secure_bits(
        CapabilitiesSecureBits::NO_ROOT
            | CapabilitiesSecureBits::NO_ROOT_LOCKED
            | CapabilitiesSecureBits::NO_SETUID_FIXUP
            | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
            | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
            | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED,
    )?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
}

fn perform(task: Task, input: &mut File, output: &Arc<Mutex<File>>) -> Result<Done, SandboxError> {
    cargo_home().map_err(host)?;
    let What::Build { name, mut service, published } = task.what else {
        let runner = Runner::start(task.limits, task.path, Arc::clone(output))?;
        return probe(&runner);
    };
    unpack(input, &task.limits)?;
    end_with_the_host(input)?;
    service.published = published;
    let mut runner = Runner::start(task.limits, task.path, Arc::clone(output))?;
    let result = build(&mut runner, &name, *service, output);
    runner.verdict(result)
}

/// Whether the toolchain works in here.
fn probe(runner: &Runner) -> Result<Done, SandboxError> {
    let said = |program: &str, arguments: &[&str]| -> Result<String, SandboxError> {
        let words: Vec<String> = std::iter::once(&program).chain(arguments).map(|word| (*word).to_owned()).collect();
        let output = runner.capture(&words, SOURCE).map_err(|error| SandboxError::Toolchain { text: error.to_string() })?;
        Ok(String::from_utf8_lossy(&output).trim().to_owned())
    };
    let version = said("cargo", &["--version"])?;
    let libraries = said("rustc", &["--print", "target-libdir", "--target", TARGET])?;
    if fs::read_dir(&libraries).is_ok_and(|mut files| files.next().is_some()) {
        return Ok(Done { version, ..Done::default() });
    }
    Err(SandboxError::Toolchain { text: format!("it cannot build for {TARGET}") })
}

/// A cargo folder of the build's own, which uses the operator's where that has something.
fn cargo_home() -> io::Result<()> {
    let home = format!("{HOME}/.cargo");
    fs::create_dir_all(format!("{home}/registry"))?;
    // Cargo unpacks what it uses; only what it unpacks from is shared.
    for name in ["registry/index", "registry/cache", "git", "config.toml"] {
        let from = format!("{OPERATOR_CARGO}/{name}");
        if fs::exists(&from)? {
            std::os::unix::fs::symlink(from, format!("{home}/{name}"))?;
        }
    }
    Ok(())
}

fn unpack(input: &mut File, limits: &SandboxLimits) -> Result<(), SandboxError> {
    let limits = ArchiveLimits { bytes: limits.disk_bytes, file_bytes: limits.disk_bytes, files: limits.disk_files, ..ArchiveLimits::default() };
    let mut pieces = frames::PiecesIn::new(input, frames::SOURCE, Vec::new());
    let unpacked = archive::unpack_tar(&mut pieces, SOURCE.as_ref(), &limits, archive::Kind::Source, &AtomicBool::new(false));
    unpacked.map(drop).map_err(|error| match error {
        archive::ArchiveError::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull => SandboxError::Missing {
            text: format!("the source does not fit on the build's disk of {} MiB: leave out what the build does not need", limits.bytes >> 20),
        },
        error => SandboxError::Missing { text: format!("the source cannot be used: {error}") },
    })
}

/// Ends this process, and so all others here, when the host's end of the pipe is gone. The host writes nothing more.
fn end_with_the_host(input: &File) -> Result<(), SandboxError> {
    let mut input = input.try_clone().map_err(host)?;
    let watch = move || {
        let _ = input.read(&mut [0]);
        std::process::exit(1);
    };
    std::thread::Builder::new().spawn(watch).map(drop).map_err(host)
}

fn build(runner: &mut Runner, name: &str, mut service: Service, output: &Arc<Mutex<File>>) -> Result<Done, SandboxError> {
    let project = std::path::Path::new(SOURCE);
    let root = project.join(service.root());
    if !root.is_dir() {
        let text = format!(
            "the archive has no folder `{}`, which `root` of the service names. Correct `root` in tovuk.toml, or pack the folder",
            service.root()
        );
        return Err(SandboxError::Missing { text });
    }
    let has_worker = service.kind().has_worker();
    if service.build.is_none() && has_worker && root.join("Cargo.toml").is_file() {
        service.build = Some(DEFAULT_BUILD.to_owned());
    }
    let frontend = service.frontend_build().and_then(|frontend| Some((frontend.command?, project.join(frontend.root))));
    let worker = service.build.clone().map(|command| (command, root.clone()));
    for (command, folder) in frontend.into_iter().chain(worker) {
        let steps = command::split(&command).map_err(|error| SandboxError::Command { text: error.to_string() })?;
        for step in steps {
            runner.step(&step, &folder)?;
        }
    }
    let missing = |error: component::ComponentError| SandboxError::Missing { text: error.to_string() };
    let component = match (has_worker, component::declared(&service, &root)) {
        (false, _) => None,
        (true, declared) => Some(match declared.map_err(missing)? {
            Some(path) => path,
            None => {
                component::by_cargo(&service, &root, &runner.capture(&component::METADATA_COMMAND.map(str::to_owned), &root)?).map_err(missing)?
            }
        }),
    };
    let component = component.map(|path| component::existing(name, path, &root)).transpose().map_err(missing)?;
    let assets = service.assets.as_ref().map(|assets| root.join(assets));
    // Nothing of the build runs any more, so what is looked at here stays as it is.
    output::send(component.as_deref(), assets.as_deref(), runner, output)?;
    Ok(Done { version: String::new(), component: component.is_some(), assets: assets.is_some() })
}
