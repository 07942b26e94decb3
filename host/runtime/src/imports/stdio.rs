//! Standard output and error of a worker: lines for the service's log.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError};

use tovuk_kernel::limits::LOG_EVENT_BYTES;

use crate::invocation::Invocation;
use crate::record::LogStream;

/// What a worker may write at once.
const WRITE_BYTES_MAX: usize = 64 << 10;
/// What one invocation may write on one stream. Each line is a record on the host's side, so a flood of empty ones costs as much as long ones.
const LINES_MAX: usize = 10_000;
const BYTES_MAX: usize = 16 << 20;
const CUT_MARK: &str = " … (cut)";

/// One of the two streams of one invocation. All handles that the worker takes to it write into the same line.
#[derive(Clone)]
pub(crate) struct LogStdio(Arc<Mutex<Lines>>);

struct Lines {
    invocation: Arc<Invocation>,
    stream: LogStream,
    /// The line that has no end yet.
    partial: Vec<u8>,
    /// The rest of the line is dropped, because what came of it is as long as a line may be.
    cutting: bool,
    /// What the invocation has written on this stream, and whether it was told that it is too much.
    lines: usize,
    bytes: usize,
    silenced: bool,
}

impl LogStdio {
    pub fn new(invocation: Arc<Invocation>, stream: LogStream) -> Self {
        Self(Arc::new(Mutex::new(Lines { invocation, stream, partial: Vec::new(), cutting: false, lines: 0, bytes: 0, silenced: false })))
    }

    fn write_bytes(&self, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes);
    }
}

impl Lines {
    fn write(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            self.append(line);
            self.emit();
            bytes = rest.get(1..).unwrap_or_default();
        }
        self.append(bytes);
    }

    fn append(&mut self, bytes: &[u8]) {
        let room = LOG_EVENT_BYTES - self.partial.len();
        self.partial.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        self.cutting |= bytes.len() > room;
    }

    fn emit(&mut self) {
        self.lines += 1;
        self.bytes += self.partial.len();
        if self.lines > LINES_MAX || self.bytes > BYTES_MAX {
            self.partial.clear();
            self.cutting = false;
            if !std::mem::replace(&mut self.silenced, true) {
                self.say(format!("tovuk: this invocation has written {LINES_MAX} lines or {BYTES_MAX} bytes; the rest is dropped"));
            }
            return;
        }
        let mut message = String::from_utf8_lossy(&self.partial).into_owned();
        if std::mem::take(&mut self.cutting) {
            message.push_str(CUT_MARK);
        }
        self.partial.clear();
        self.say(message);
    }

    fn say(&self, message: String) {
        self.invocation.log(self.stream, message);
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if !self.partial.is_empty() {
            self.emit();
        }
    }
}

impl IsTerminal for LogStdio {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogStdio {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Only WASI 0.3 asks for this form, which is not linked.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for LogStdio {
    async fn ready(&mut self) {}
}

impl OutputStream for LogStdio {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        if bytes.len() > WRITE_BYTES_MAX {
            return Err(StreamError::Trap(wasmtime::Error::msg("a write to a standard stream is larger than check-write allows")));
        }
        self.write_bytes(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(WRITE_BYTES_MAX)
    }
}
