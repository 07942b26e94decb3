//! `tovuk logs`: the log of a build, a deploy or a service. It is three operations under one command, which the table cannot say.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;
use tovuk_server::control::api::operations;

use crate::client::Client;
use crate::failure::Failure;
use crate::output;
use crate::remote::{Fields, call_of};
use crate::session::ClientArgs;

/// `tovuk logs`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tovuk logs --service shop\n  tovuk logs --service shop --limit 20\n  tovuk logs --build job_1\n  tovuk logs --deploy deploy_1\n"
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
    /// Most lines to return
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
    let name = format!("{subject}.logs");
    let operation = operations().iter().map(|registered| registered.operation).find(|operation| operation.name == name);
    let operation = operation.ok_or_else(|| Failure::local("internal_error", format!("the table has no operation {name}")))?;
    let mut fields = Fields::new();
    fields.insert(subject.to_owned(), Value::from(id));
    fields.extend(logs.limit.map(|limit| ("limit".to_owned(), Value::from(limit))));
    fields.extend(logs.cursor.map(|cursor| ("cursor".to_owned(), Value::from(cursor))));
    let client = Client::for_operation(args, operation)?;
    let page = client.call(call_of(operation, fields)?).await?;
    output::print(&page, args.json, output::lines);
    if let (false, Some(cursor)) = (args.json, page.get("next_cursor").and_then(Value::as_str)) {
        eprintln!("more: tovuk logs --{subject} {id} --cursor {}{}", output::one_line(cursor), client.flag());
    }
    Ok(ExitCode::SUCCESS)
}
