//! `tovuk top`: what services do right now, drawn anew each second on a terminal, printed once elsewhere. It asks one operation and keeps nothing.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _, stdout};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use crossterm::terminal::{BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen, size};
use crossterm::{cursor, queue};
use serde_json::Value;
use tovuk_kernel::clock::Clock;
use tovuk_server::control::api::operations;

use crate::client::Client;
use crate::failure::Failure;
use crate::output;
use crate::remote::{Fields, call_of};
use crate::session::ClientArgs;

/// How often it is drawn.
const EVERY: Duration = Duration::from_secs(1);
/// Lines above and below the services, with the one that the terminal needs.
const LINES_AROUND: usize = 5;

/// `tovuk top`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tovuk top\n  tovuk top --sort p99\n  tovuk top --all --once\n")]
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
#[derive(Clone, Copy, Debug, ValueEnum)]
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
    let sort = top.sort.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let ask = async || {
        let fields = Fields::from_iter([("sort".to_owned(), Value::from(sort.as_str()))]);
        client.call(call_of(operation, fields)?).await
    };
    if top.once || args.json || !stdout().is_terminal() {
        output::print(&ask().await?, args.json, |answer| table(answer, top.all, usize::MAX));
        return Ok(ExitCode::SUCCESS);
    }
    // Asked once before the screen is taken, so that what is refused can be read.
    let mut answer = ask().await;
    if answer.is_ok() {
        let (screen, clock) = (Screen::take()?, Clock::system());
        while let Ok(shown) = &answer {
            screen.draw(shown, top.all, client.api().as_str())?;
            tokio::select! {
                _ = tokio::signal::ctrl_c() => return Ok(ExitCode::SUCCESS),
                () = clock.sleep(EVERY) => {}
            }
            answer = ask().await;
        }
    }
    answer?;
    Ok(ExitCode::SUCCESS)
}

/// The terminal, which is given back as it was.
struct Screen;

impl Screen {
    fn take() -> std::io::Result<Self> {
        queue!(stdout(), EnterAlternateScreen, cursor::Hide)?;
        stdout().flush()?;
        Ok(Self)
    }

    fn draw(&self, answer: &Value, all: bool, api: &str) -> std::io::Result<()> {
        let rows = size().map_or(24, |(_, rows)| usize::from(rows));
        let text = format!("tovuk top  {}  (Ctrl-C ends)\n\n{}", output::one_line(api), table(answer, all, rows.saturating_sub(LINES_AROUND)));
        let mut out = stdout().lock();
        queue!(out, BeginSynchronizedUpdate, cursor::MoveTo(0, 0))?;
        for line in text.lines() {
            out.write_all(line.as_bytes())?;
            queue!(out, Clear(ClearType::UntilNewLine), cursor::MoveToNextLine(1))?;
        }
        queue!(out, Clear(ClearType::FromCursorDown), EndSynchronizedUpdate)?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        let _ = queue!(stdout(), cursor::Show, LeaveAlternateScreen).and_then(|()| stdout().flush());
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
