//! `tovuk top`: what services do right now, drawn anew each second on a terminal, printed once elsewhere. It asks one operation and keeps nothing.
//!
//! On a terminal, what happens next is a key, a signal, another size of the terminal, or the next second: each is one turn of the loop in `watch`.

use std::fmt::Write as _;
use std::io::{IsTerminal, Read, Write as _, stdin, stdout};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
    size,
};
use crossterm::{cursor, queue};
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tovuk_kernel::clock::Clock;
use tovuk_kernel::operation::Operation;
use tovuk_server::control::api::operations;

use crate::client::Client;
use crate::failure::Failure;
use crate::output;
use crate::remote::{Fields, call_of};
use crate::session::ClientArgs;

/// How often it is drawn.
const EVERY: Duration = Duration::from_secs(1);
/// Lines above and below the services, with the one that the terminal needs.
const LINES_AROUND: usize = 6;
/// Keys that wait to be looked at. Whoever holds one down waits.
const KEYS_WAITING_MAX: usize = 16;
/// What Ctrl-C is on a terminal that leaves keys to the program.
const CTRL_C: u8 = 3;

/// `tovuk top`.
#[derive(Debug, Args)]
#[command(
    after_help = "Keys:\n  q, Ctrl-C  end\n  r          most invocations first\n  c          most CPU time first\n  e          most errors first\n  p          slowest first, by p99\n\nExamples:\n  tovuk top\n  tovuk top --sort p99\n  tovuk top --all --once\n"
)]
pub struct TopArgs {
    /// Print one table and end, as where there is no terminal
    #[arg(long)]
    pub once: bool,
    /// Services of all accounts, for the operator
    #[arg(long)]
    pub all: bool,
    /// What comes first
    #[arg(long, value_enum, default_value = "rate")]
    pub sort: Sort,
}

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// Invocations
    Rate,
    /// CPU time
    Cpu,
    /// Errors
    Errors,
    /// Slowness
    P99,
}

/// Shows what services do.
pub async fn run(top: TopArgs, args: &ClientArgs) -> anyhow::Result<ExitCode> {
    let name = if top.all { "operator.top" } else { "service.top" };
    let operation = operations().iter().map(|registered| registered.operation).find(|operation| operation.name == name);
    let operation = operation.ok_or_else(|| Failure::local("internal_error", format!("the table has no operation {name}")))?;
    let client = Client::for_operation(args, operation)?;
    let source = Source { client, operation };
    if top.once || args.json || !stdout().is_terminal() {
        output::print(&source.ask(top.sort).await?, args.json, |answer| table(answer, top.all, usize::MAX));
        return Ok(ExitCode::SUCCESS);
    }
    // Asked once before the screen is taken, so that what is refused can be read.
    let first = source.ask(top.sort).await?;
    watch(&source, &top, first).await?;
    Ok(ExitCode::SUCCESS)
}

/// Where figures come from.
struct Source {
    client: Client,
    operation: &'static Operation,
}

impl Source {
    async fn ask(&self, sort: Sort) -> anyhow::Result<Value> {
        let sort = sort.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        let fields = Fields::from_iter([("sort".to_owned(), Value::from(sort))]);
        Ok(self.client.call(call_of(self.operation, fields)?).await?)
    }
}

/// Draws until somebody ends it. A host that does not answer for a while is no reason to end.
async fn watch(source: &Source, top: &TopArgs, first: Value) -> anyhow::Result<()> {
    let (screen, clock) = (Screen::take()?, Clock::system());
    let mut keys = keys();
    let [mut interrupted, mut terminated, mut resized] = signals()?;
    let (mut answer, mut sort, mut trouble) = (first, top.sort, None);
    let mut has_keys = true;
    loop {
        screen.draw(&answer, top.all, sort, source.client.api().as_str(), trouble.as_deref())?;
        tokio::select! {
            key = keys.recv(), if has_keys => match key {
                Some(b'q' | b'Q' | CTRL_C) => return Ok(()),
                Some(key) => sort = sorted_by(key).unwrap_or(sort),
                None => has_keys = false,
            },
            _ = interrupted.recv() => return Ok(()),
            _ = terminated.recv() => return Ok(()),
            _ = resized.recv() => continue,
            () = clock.sleep(EVERY) => {}
        }
        tokio::select! {
            result = source.ask(sort) => match result {
                Ok(new) => (answer, trouble) = (new, None),
                Err(error) => trouble = Some(error.to_string()),
            },
            // While a host does not answer, too.
            Some(b'q' | b'Q' | CTRL_C) = keys.recv(), if has_keys => return Ok(()),
            _ = interrupted.recv() => return Ok(()),
            _ = terminated.recv() => return Ok(()),
        }
    }
}

fn signals() -> std::io::Result<[Signal; 3]> {
    Ok([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::window_change())?])
}

fn sorted_by(key: u8) -> Option<Sort> {
    match key {
        b'r' => Some(Sort::Rate),
        b'c' => Some(Sort::Cpu),
        b'e' => Some(Sort::Errors),
        b'p' => Some(Sort::P99),
        _ => None,
    }
}

/// What is typed. It is read on a thread of its own, which is in its last read when the program ends; nobody waits for it.
fn keys() -> mpsc::Receiver<u8> {
    let (sender, receiver) = mpsc::channel(KEYS_WAITING_MAX);
    if stdin().is_terminal() {
        std::thread::spawn(move || {
            for key in stdin().lock().bytes().map_while(Result::ok) {
                if sender.blocking_send(key).is_err() {
                    return;
                }
            }
        });
    }
    receiver
}

/// The terminal, which is given back as it was.
struct Screen {
    /// Keys come as they are typed, and are not shown.
    is_raw: bool,
}

impl Screen {
    fn take() -> std::io::Result<Self> {
        let screen = Self { is_raw: stdin().is_terminal() && enable_raw_mode().is_ok() };
        queue!(stdout(), EnterAlternateScreen, cursor::Hide)?;
        stdout().flush()?;
        Ok(screen)
    }

    fn draw(&self, answer: &Value, all: bool, sort: Sort, api: &str, trouble: Option<&str>) -> std::io::Result<()> {
        let rows = size().map_or(24, |(_, rows)| usize::from(rows));
        let keys = [(Sort::Rate, "r rate"), (Sort::Cpu, "c cpu"), (Sort::Errors, "e errors"), (Sort::P99, "p p99")];
        let keys = keys.map(|(of, key)| if of == sort { format!("[{key}]") } else { key.to_owned() }).join("  ");
        let mut text = format!("tovuk top  {}\nfirst: {keys}    q ends\n\n", output::one_line(api));
        text.push_str(&table(answer, all, rows.saturating_sub(LINES_AROUND)));
        if let Some(trouble) = trouble {
            let _ = writeln!(text, "not new: {}", output::one_line(trouble));
        }
        let mut out = stdout().lock();
        queue!(out, BeginSynchronizedUpdate, cursor::MoveTo(0, 0))?;
        // One more would move what is there up.
        for (number, line) in text.lines().take(rows).enumerate() {
            if number > 0 {
                queue!(out, cursor::MoveToNextLine(1))?;
            }
            out.write_all(line.as_bytes())?;
            queue!(out, Clear(ClearType::UntilNewLine))?;
        }
        queue!(out, Clear(ClearType::FromCursorDown), EndSynchronizedUpdate)?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        let _ = queue!(stdout(), cursor::Show, LeaveAlternateScreen).and_then(|()| stdout().flush());
        if self.is_raw {
            let _ = disable_raw_mode();
        }
    }
}

/// The services with their figures, so many at most, and all of them together.
fn table(answer: &Value, all: bool, rows_max: usize) -> String {
    let figure = |of: &Value, name: &str, digits: usize| format!("{:.digits$}", of.get(name).and_then(Value::as_f64).unwrap_or_default());
    let figures = |of: &Value| {
        [("perSecond", 1), ("errorsPerSecond", 1), ("cpuPercent", 1), ("p50Ms", 1), ("p99Ms", 1)]
            .map(|(name, digits)| figure(of, name, digits))
            .to_vec()
    };
    let services = answer.get("services").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let text = |service: &Value, name: &str| service.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let rows = services.iter().take(rows_max).map(|service| {
        let mut row = vec![text(service, "name")];
        row.extend(all.then(|| text(service, "accountId")));
        row.extend(figures(service));
        row
    });
    let mut header = vec!["service"];
    header.extend(all.then_some("account"));
    header.extend(["rate/s", "errors/s", "cpu_%", "p50_ms", "p99_ms"]);
    let mut shown = output::table(&header, rows);
    let active = answer.get("active").and_then(Value::as_u64).unwrap_or_default();
    let total = answer.get("total").map(figures).unwrap_or_default();
    if let [rate, errors, cpu, _, p99] = total.as_slice() {
        let noun = if active == 1 { "service" } else { "services" };
        let _ = writeln!(shown, "{active} {noun}: {rate}/s, {errors} errors/s, {cpu}% of a core, p99 {p99} ms");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_has_services_and_their_sum() {
        let rates = json!({"perSecond": 12.34, "errorsPerSecond": 1.0, "cpuPercent": 150.0, "p50Ms": 0.5, "p99Ms": 20.0});
        let mut service = rates.clone();
        (service["name"], service["accountId"]) = (json!("shop\u{1b}"), json!("account_2"));
        let answer = json!({"services": [service.clone(), service], "active": 2, "total": rates});
        let shown = table(&answer, true, 1);
        assert_eq!(shown.matches("account_2").count(), 1, "{shown}");
        assert!(
            shown.contains("P99 MS") && shown.contains("150.0") && shown.contains("2 services: 12.3/s, 1.0 errors/s") && !shown.contains('\u{1b}'),
            "{shown}"
        );
        assert!(!table(&answer, false, 9).contains("account_2"));
    }
}
