//! Runs the programs of a build, one after another, as process 1 does: it passes their output on, reaps whatever ends, and ends whatever they leave running.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group};

use super::usage::Watch;
use super::{HOME, SandboxError, SandboxLimits, frames};
use crate::build::command;

/// Lines of output that are kept for the error.
const TAIL_LINES: usize = 40;
/// Longest line that is passed on. A longer one is passed on in pieces.
const LINE_BYTES: u64 = 8 << 10;
/// Most of what is kept of the answer of a program that is asked something.
const ANSWER_BYTES_MAX: u64 = 8 << 20;

/// Most compilers at a time. Each has threads of its own, which count as processes.
const JOBS_MAX: usize = 8;

/// Runs programs within the limits.
pub(super) struct Runner {
    limits: SandboxLimits,
    path: String,
    watch: Watch,
    lines: Lines,
}

impl Runner {
    /// Begins to watch what is used.
    pub(super) fn start(limits: SandboxLimits, path: String, output: Arc<Mutex<File>>) -> Result<Self, SandboxError> {
        let watch = Watch::start(limits).map_err(|error| SandboxError::Host { text: error.to_string() })?;
        Ok(Self { limits, path, watch, lines: Lines { output, left: limits.log_lines } })
    }

    /// Runs a step of the build, passing its output on.
    pub(super) fn step(&mut self, words: &[String], folder: &Path) -> Result<(), SandboxError> {
        let (reader, writer) = io::pipe().map_err(host)?;
        let errors = writer.try_clone().map_err(host)?;
        let status = self.spawn(words, folder, writer, Stdio::from(errors))?;
        let lines = self.lines.clone();
        let reading = std::thread::Builder::new().spawn(move || lines.pass_on(reader)).map_err(host)?;
        let status = self.wait(status)?;
        let (left, tail) = reading.join().map_err(|_| SandboxError::Host { text: "reading the output failed".to_owned() })?;
        self.lines.left = left;
        if status.success() {
            return self.within_limits();
        }
        self.within_limits()?;
        Err(SandboxError::Failed { command: words.join(" "), status: command::in_words(status), tail })
    }

    /// Runs a program that is asked something, and gives what it has answered.
    pub(super) fn capture(&self, words: &[String], folder: impl AsRef<Path>) -> Result<Vec<u8>, SandboxError> {
        let (reader, writer) = io::pipe().map_err(host)?;
        let (complaints, errors) = io::pipe().map_err(host)?;
        let pid = self.spawn(words, folder.as_ref(), writer, Stdio::from(errors))?;
        let answer = std::thread::Builder::new().spawn(move || read_some(reader)).map_err(host)?;
        let complaints = std::thread::Builder::new().spawn(move || read_some(complaints)).map_err(host)?;
        let status = self.wait(pid)?;
        let (answer, complaints) = (answer.join().unwrap_or_default(), complaints.join().unwrap_or_default());
        self.within_limits()?;
        if status.success() {
            return Ok(answer);
        }
        let text = String::from_utf8_lossy(&complaints);
        let mut tail: Vec<String> = text.lines().rev().take(TAIL_LINES).map(str::to_owned).collect();
        tail.reverse();
        Err(SandboxError::Failed { command: words.join(" "), status: command::in_words(status), tail })
    }

    fn spawn(&self, words: &[String], folder: &Path, out: PipeWriter, errors: Stdio) -> Result<Pid, SandboxError> {
        let Some((program, arguments)) = words.split_first() else { return Err(SandboxError::Command { text: "it is empty".to_owned() }) };
        let mut command = Command::new(program);
        command.args(arguments).current_dir(folder).stdin(Stdio::null()).stdout(out).stderr(errors).process_group(0);
        let jobs = std::thread::available_parallelism().map_or(1, usize::from).min(JOBS_MAX).to_string();
        command.env_clear().envs([
            ("CARGO_BUILD_JOBS", jobs.as_str()),
            ("PATH", self.path.as_str()),
            ("HOME", HOME),
            ("CARGO_HOME", "/home/.cargo"),
            ("CARGO_NET_OFFLINE", "true"),
            ("CARGO_TERM_COLOR", "never"),
            ("CARGO_INCREMENTAL", "0"),
            ("TMPDIR", "/tmp"),
            ("LANG", "C.UTF-8"),
        ]);
        let child = command.spawn().map_err(|error| {
            let text = match error.kind() {
                io::ErrorKind::NotFound if folder.is_dir() => {
                    format!("the program `{program}` is not there when this host builds. Build on your machine with `tovuk deploy`, or use what the host has")
                }
                _ => format!("`{}` in {}: {error}", words.join(" "), folder.display()),
            };
            SandboxError::Command { text }
        })?;
        i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| SandboxError::Host { text: "a process has no number".to_owned() })
    }

    /// Waits for a process, and ends everything that it leaves behind. Process 1 inherits every orphan and has to reap it.
    fn wait(&self, pid: Pid) -> Result<ExitStatus, SandboxError> {
        let mut status = None;
        loop {
            match rustix::process::wait(WaitOptions::empty()) {
                Ok(Some((ended, how))) if ended == pid => {
                    status = Some(ExitStatus::from_raw(how.as_raw()));
                    end_all();
                }
                Ok(_) | Err(Errno::INTR) => {}
                // Nobody is left.
                Err(Errno::CHILD) => break,
                Err(error) => return Err(host(error.into())),
            }
        }
        status.ok_or_else(|| SandboxError::Host { text: "a process was lost".to_owned() })
    }

    /// What was used too much of is the reason for whatever else went wrong.
    fn within_limits(&self) -> Result<(), SandboxError> {
        match self.watch.exceeded() {
            Some(what) => Err(SandboxError::Exceeded { what, limits: Box::new(self.limits) }),
            None => Ok(()),
        }
    }

    /// The result of the whole, unless a full disk explains why there is none.
    pub(super) fn verdict<T>(&self, result: Result<T, SandboxError>) -> Result<T, SandboxError> {
        match result {
            Err(SandboxError::Failed { .. } | SandboxError::Missing { .. }) if self.watch.disk_was_full() => {
                Err(SandboxError::Exceeded { what: super::Resource::Disk, limits: Box::new(self.limits) })
            }
            result => result,
        }
    }

    /// A line of the sandbox's own.
    pub(super) fn say(&mut self, text: &str) {
        self.lines.line(text);
    }
}

fn host(error: io::Error) -> SandboxError {
    SandboxError::Host { text: error.to_string() }
}

/// Ends every other process here. The kernel takes "the group of process 1" for all that the caller may signal, itself and process 1 excepted.
pub(super) fn end_all() {
    // It fails when nobody is left.
    let _ = kill_process_group(Pid::INIT, Signal::KILL);
}

fn read_some(mut pipe: PipeReader) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What was read until it failed is all that there is.
    let _ = pipe.by_ref().take(ANSWER_BYTES_MAX).read_to_end(&mut bytes);
    let _ = io::copy(&mut pipe, &mut io::sink());
    bytes
}

/// Lines on their way to the host.
#[derive(Clone)]
struct Lines {
    output: Arc<Mutex<File>>,
    /// How many more are passed on.
    left: u64,
}

impl Lines {
    /// Passes on what is written to a pipe, until nobody can write to it. Gives how many more lines may follow, and the last ones.
    fn pass_on(mut self, pipe: PipeReader) -> (u64, Vec<String>) {
        let mut reader = BufReader::new(pipe);
        let mut tail = VecDeque::new();
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut reader).take(LINE_BYTES).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return (self.left, tail.into()),
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\n', '\r']);
            if tail.len() == TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(text.to_owned());
            self.line(text);
        }
    }

    fn line(&mut self, text: &str) {
        let text = match self.left {
            0 => return,
            1 => "the rest of the output is dropped: it has too many lines",
            _ => text,
        };
        self.left -= 1;
        if let Ok(mut output) = self.output.lock() {
            // Without a host this process ends in a moment.
            let _ = frames::write(&mut *output, frames::LINE, text.as_bytes());
        }
    }
}
