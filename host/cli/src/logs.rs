//! `tovuk logs`: the log of a build, a deploy or a service, as a page or as it is written. It is six operations under one command, which the table
//! cannot say.

use std::io::Write;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use tovuk_kernel::clock::Clock;
use tovuk_kernel::operation::Operation;
use tovuk_server::control::api::operations;

use crate::client::Client;
use crate::failure::Failure;
use crate::output;
use crate::remote::{Fields, call_of};
use crate::session::ClientArgs;

/// `tovuk logs`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tovuk logs --service shop\n  tovuk logs --service shop --limit 20\n  tovuk logs --service shop --follow\n  tovuk logs --service shop --outcome error --json\n  tovuk logs --build job_1\n  tovuk logs --deploy deploy_1\n"
)]
pub struct LogsArgs {
    /// What the worker of this service has written, and how its invocations have ended
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<String>,
    /// What this build has said
    #[arg(long, value_name = "BUILD")]
    pub build: Option<String>,
    /// What this deploy has said
    #[arg(long, value_name = "DEPLOY")]
    pub deploy: Option<String>,
    /// Print lines as they are written, until it is interrupted; with --json one JSON object for each
    #[arg(long, short = 'f')]
    pub follow: bool,
    /// Summaries of invocations that ended so alone: `ok`, `trap`, `cpu`, `memory`, `wall`, `refused`, `cancelled`, `failed`, or `error` for all but `ok`
    #[arg(long, value_name = "OUTCOME")]
    pub outcome: Option<String>,
    /// Lines of this trace alone
    #[arg(long, value_name = "TRACE")]
    pub trace: Option<String>,
    /// Most lines to return; with --follow, how many from before come first
    #[arg(long, value_name = "LINES")]
    pub limit: Option<u32>,
    /// Where to go on: `next_cursor` of the page before
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<String>,
}

/// Prints a page of a log.
pub async fn run(logs: LogsArgs, args: &ClientArgs) -> anyhow::Result<ExitCode> {
    // The narrowest goes first.
    let subject = [("build", &logs.build), ("deploy", &logs.deploy), ("service", &logs.service)]
        .into_iter()
        .find_map(|(name, id)| Some((name, id.as_deref()?)));
    let (subject, id) = subject.ok_or_else(|| {
        Failure::local("missing_service", "`tovuk logs` needs --service, --build or --deploy")
            .instruct("For example: `tovuk logs --service shop`. `tovuk service list` shows names.")
    })?;
    let operation = operation(&format!("{subject}.logs{}", if logs.follow { ".follow" } else { "" }))?;
    let mut fields = Fields::new();
    fields.insert(subject.to_owned(), Value::from(id));
    fields.extend(logs.limit.map(|limit| ("limit".to_owned(), Value::from(limit))));
    for (name, value) in [("cursor", &logs.cursor), ("outcome", &logs.outcome), ("trace", &logs.trace)] {
        fields.extend(value.as_deref().map(|value| (name.to_owned(), Value::from(value))));
    }
    let client = Client::for_operation(args, operation)?;
    if logs.follow {
        return follow(&client, operation, fields, args.json).await;
    }
    let page = client.call(call_of(operation, fields)?).await?;
    output::print(&page, args.json, output::lines);
    if let (false, Some(cursor)) = (args.json, page.get("next_cursor").and_then(Value::as_str)) {
        let mut filters = String::new();
        for (name, value) in [("outcome", &logs.outcome), ("trace", &logs.trace)] {
            filters.extend(value.as_deref().map(|value| format!(" --{name} {value}")));
        }
        filters.extend(logs.limit.map(|limit| format!(" --limit {limit}")));
        eprintln!("more: tovuk logs --{subject} {id}{filters} --cursor {}{}", output::one_line(cursor), client.flag());
    }
    Ok(ExitCode::SUCCESS)
}

fn operation(name: &str) -> Result<&'static Operation, Failure> {
    let found = operations().iter().map(|registered| registered.operation).find(|operation| operation.name == name);
    found.ok_or_else(|| Failure::local("internal_error", format!("the table has no operation {name}")))
}

/// Prints lines as they come. Where the host ends the answer, it goes on after the last of them.
async fn follow(client: &Client, operation: &Operation, mut fields: Fields, json: bool) -> anyhow::Result<ExitCode> {
    loop {
        let mut last = None;
        let print = |line: &[u8]| {
            let Ok(entry) = serde_json::from_slice::<Value>(line) else { return ControlFlow::Continue(()) };
            let text = if json { format!("{entry}\n") } else { output::line(&entry) };
            last = entry.get("cursor").cloned().or(last.take());
            let mut out = std::io::stdout().lock();
            // A reader that has read enough and is gone ends it.
            if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        if client.follow(call_of(operation, fields.clone())?, print).await?.is_break() {
            return Ok(ExitCode::SUCCESS);
        }
        match last {
            Some(cursor) => drop(fields.insert("cursor".to_owned(), cursor)),
            // What was there before has been shown, and what is new has to be waited for.
            None => drop(fields.insert("limit".to_owned(), Value::from(0))),
        }
        Clock::system().sleep(PAUSE).await;
    }
}

/// How long to wait before an answer that the host has ended is asked for again.
const PAUSE: Duration = Duration::from_secs(1);
