//! What `tovuk dev` prints: a line for each invocation, build and line of a worker's log.
//!
//! Requests must not wait for a terminal, so lines go through a bounded queue to a thread of their own. When it is full lines are dropped
//! and counted, and the count is printed.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use owo_colors::{OwoColorize, Style};
use tovuk_runtime::failure::Failure;
use tovuk_runtime::record::{EventKind, Identity, LogLine, Observer, Outcome, Record};
use tovuk_runtime::trace::TraceId;

use crate::output::one_line;

/// Lines that may wait for the terminal.
const QUEUE_LINES_MAX: usize = 4_096;

/// Prints. Clones print to the same place.
#[derive(Clone)]
pub(super) struct Show(Arc<Shared>);

struct Shared {
    lines: Mutex<Option<SyncSender<String>>>,
    dropped: Arc<AtomicU64>,
    printer: Mutex<Option<JoinHandle<()>>>,
    colour: bool,
}

impl Show {
    /// Starts the thread that prints to standard output.
    pub fn start() -> Self {
        let (sender, receiver) = sync_channel(QUEUE_LINES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let printer = std::thread::spawn({
            let dropped = dropped.clone();
            move || print(&receiver, &dropped)
        });
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = std::io::stdout().is_terminal() && !no_color;
        Self(Arc::new(Shared { lines: Mutex::new(Some(sender)), dropped, printer: Mutex::new(Some(printer)), colour }))
    }

    /// Prints what is queued and ends the thread.
    pub fn finish(&self) {
        drop(self.0.lines.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(printer) = self.0.printer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A printer that panicked has printed what it could.
            let _ = printer.join();
        }
    }

    /// Text that has its own line ends.
    pub fn text(&self, text: &str) {
        text.lines().for_each(|line| self.line(line.to_owned()));
    }

    /// A remark of the loop itself.
    pub fn note(&self, text: &str) {
        self.line(self.paint(text, Style::new().dimmed()));
    }

    /// A line of a build.
    pub fn build_output(&self, line: &str) {
        self.line(line.to_owned());
    }

    /// A service is built and live.
    pub fn built(&self, name: &str, took: Duration) {
        let mark = self.paint("built", Style::new().green());
        self.line(format!("{mark} {name} in {:.1} s", took.as_secs_f64()));
    }

    /// A service could not be built or deployed.
    pub fn failed(&self, name: &str, text: &str) {
        let mark = self.paint("failed", Style::new().red().bold());
        self.line(format!("{mark} {name}: {text}"));
    }

    /// Where a service is.
    pub fn ready(&self, name: &str, place: &str) {
        let mark = self.paint("ready", Style::new().green().bold());
        self.line(format!("{mark} {name:<16} {place}"));
    }

    fn paint(&self, text: &str, style: Style) -> String {
        if self.0.colour { text.style(style).to_string() } else { text.to_owned() }
    }

    fn line(&self, line: String) {
        let lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = &*lines
            && sender.try_send(line).is_err()
        {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn status(&self, record: &Record) -> String {
        let text = record.status.map_or_else(|| "---".to_owned(), |status| status.to_string());
        let style = match record.status {
            Some(200..400) if record.outcome == Outcome::Response => Style::new().green(),
            Some(400..500) => Style::new().yellow(),
            _ => Style::new().red(),
        };
        self.paint(&text, style)
    }
}

fn print(lines: &Receiver<String>, dropped: &AtomicU64) {
    let mut out = std::io::stdout().lock();
    while let Ok(line) = lines.recv() {
        // A terminal that is gone takes no more lines; the loop goes on without it.
        let _ = writeln!(out, "{line}");
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(out, "… {lost} lines were dropped: they came faster than they could be printed");
        }
        let _ = out.flush();
    }
}

impl Observer for Show {
    fn invocation(&self, record: Record) {
        let who = match (&record.event, &record.caller) {
            (EventKind::Binding | EventKind::State, Some(caller)) => format!("  {} {} → {}", record.number, caller.name, record.target.name),
            _ => record.target.name.to_string(),
        };
        let times = format!("{:.1} ms, cpu {:.1} ms", record.duration.as_secs_f64() * 1e3, record.cpu_ns as f64 / 1e6);
        let outcome = if record.outcome == Outcome::Response { String::new() } else { format!(" {}", record.outcome.as_str()) };
        self.line(format!(
            "{who:<24} {} {} {}{outcome}  {}",
            record.method,
            record.path,
            self.status(&record),
            self.paint(&times, Style::new().dimmed())
        ));
        if let Some(detail) = &record.detail {
            for line in detail.lines() {
                self.line(format!("    {}", self.paint(line, Style::new().red())));
            }
        }
    }

    fn log(&self, line: LogLine) {
        let name = self.paint(&format!("{} |", line.service.name), Style::new().cyan());
        // Control bytes of a worker must not move this terminal's cursor.
        let message: String = line.message.chars().map(|char| if char.is_control() && char != '\t' { '\u{fffd}' } else { char }).collect();
        self.line(format!("{name} {message}"));
    }

    fn said(&self, service: &Identity, text: &str) {
        self.line(format!("{} {}", service.name, self.paint(&one_line(text), Style::new().yellow())));
    }

    fn refused(&self, service: &Identity, _trace: TraceId, failure: &Failure) {
        let code = self.paint(failure.code.code, Style::new().red());
        self.line(format!("{} {code}: {}", service.name, failure.for_log()));
    }
}
