//! Servers that are measured, and other programs beside them, as child processes. Each is ended when the benchmark ends, however it ends.

use std::ffi::OsString;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use tovuk_kernel::clock::Clock;

use crate::{machine, output};

/// How long a server may take until it answers. The host compiles its components at the first start.
const START_MAX: Duration = Duration::from_secs(120);
const START_STEP: Duration = Duration::from_millis(50);

/// A running server.
pub struct Server {
    name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its process.
    pub process: Child,
    /// What it prints.
    pub log: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// Starts a program on one core, or on all without one, and waits until it accepts connections at that address. The name is that of its log, too.
    pub async fn start(name: &str, core: Option<usize>, address: SocketAddr, program: Vec<OsString>) -> anyhow::Result<Self> {
        let log = output::folder().join(format!("{name}.log"));
        std::fs::create_dir_all(output::folder())?;
        let log_file = std::fs::File::create(&log).with_context(|| log.display().to_string())?;
        let mut command = child(core)?;
        command.args(program).stdin(Stdio::null()).stderr(log_file.try_clone()?).stdout(log_file);
        let process = command.spawn().with_context(|| format!("{name} cannot be started"))?;
        let mut server = Self { name: name.to_owned(), address, process, log };
        server.wait_until_it_listens().await?;
        Ok(server)
    }

    async fn wait_until_it_listens(&mut self) -> anyhow::Result<()> {
        let clock = Clock::system();
        let deadline_ms = clock.monotonic_ms() + START_MAX.as_millis() as u64;
        while tokio::net::TcpStream::connect(self.address).await.is_err() {
            if let Some(status) = self.process.try_wait()? {
                bail!("{} ended at once ({status}); see {}", self.name, self.log.display());
            }
            if clock.monotonic_ms() > deadline_ms {
                bail!("{} does not listen at {} after {} s; see {}", self.name, self.address, START_MAX.as_secs(), self.log.display());
            }
            clock.sleep(START_STEP).await;
        }
        Ok(())
    }

    /// User and system time that it has used, in s.
    pub fn cpu_s(&self) -> anyhow::Result<f64> {
        cpu_of(&self.process)
    }

    /// Resident memory, in KiB.
    pub fn rss_kib(&self) -> Option<u64> {
        machine::process_rss_kib(Pid::from_child(&self.process))
    }
}

/// Runs another program bound to the life of this one, on one core or on all. The program and its arguments are still to be added.
pub fn child(core: Option<usize>) -> anyhow::Result<Command> {
    let mut command = Command::new(this_program()?);
    command.arg("child");
    if let Some(core) = core {
        command.args(["--core", &core.to_string()]);
    }
    command.arg("--");
    Ok(command)
}

/// This program's file.
pub fn this_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("this program's own path is unknown")
}

/// User and system time of a child that nobody has waited for, in s.
pub fn cpu_of(child: &Child) -> anyhow::Result<f64> {
    machine::process_cpu_s(Pid::from_child(child))
}

/// Reads what a child prints until it has ended: that, and the user and system time that it has used, in s.
pub fn ended(mut child: Child) -> anyhow::Result<(String, f64)> {
    let mut output = String::new();
    child.stdout.take().context("it has no output")?.read_to_string(&mut output)?;
    // Its time can be read only until it is waited for.
    waitid(WaitId::Pid(Pid::from_child(&child)), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
    let cpu_s = cpu_of(&child)?;
    let status = child.wait()?;
    ensure!(status.success(), "it ended with {status}: {output}");
    Ok((output, cpu_s))
}

/// An address of this machine at which nobody listens.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
