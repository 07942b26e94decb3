//! Runs one program of a build: its output line by line to the sink, the end of it kept, and all its descendants ended with it.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc;

use super::Sink;

/// Lines of output that are kept for the error.
const TAIL_LINES: usize = 40;
/// Longest line that is passed on, in bytes. A longer one is passed on in pieces, so that no program can make this one hold all it writes.
const LINE_BYTES: u64 = 64 << 10;

/// How a program has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub status: ExitStatus,
    /// Its last lines, without prefix.
    pub tail: Vec<String>,
}

/// Runs a program to its end. Dropping the future kills it and everything it has started.
pub(super) async fn run(program: &str, arguments: &[String], directory: &Path, service: &str, sink: &Sink) -> std::io::Result<Ended> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own: compilers start further processes, which would go on for minutes when only their parent were ended.
    command.process_group(0).kill_on_drop(true);
    if std::io::stderr().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let mut child = command.spawn()?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    // Both streams go through one channel, so that lines come in the order in which they were written, as nearly as two pipes allow.
    let (sender, mut receiver) = mpsc::channel(64);
    let readers = [
        child.stdout.take().map(|pipe| tokio::spawn(read_lines(pipe, sender.clone()))),
        child.stderr.take().map(|pipe| tokio::spawn(read_lines(pipe, sender))),
    ];
    let mut tail = VecDeque::new();
    let mut take = |line: String| {
        sink(&format!("{service} | {line}"));
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(line);
    };
    let status = loop {
        tokio::select! {
            Some(line) = receiver.recv() => take(line),
            status = child.wait() => break status?,
        }
    };
    // What the program left running would keep the pipes open, and the build has ended.
    drop(group);
    while let Some(line) = receiver.recv().await {
        take(line);
    }
    for reader in readers.into_iter().flatten() {
        // A reader ends with its pipe; it cannot panic and nobody cancels it.
        let _ = reader.await;
    }
    Ok(Ended { status, tail: tail.into() })
}

async fn read_lines(pipe: impl AsyncRead + Unpin, lines: mpsc::Sender<String>) {
    use tokio::io::AsyncReadExt;
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(LINE_BYTES).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\n', '\r']);
        // The receiver is gone only when the build was dropped.
        if lines.send(text.to_owned()).await.is_err() {
            return;
        }
    }
}

/// A process group that ends with this value.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It fails when nothing of the group is left, which is what is wanted.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}
