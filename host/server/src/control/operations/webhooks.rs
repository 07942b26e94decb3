//! The webhook that an account is told by when a usage cap fills up.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tovuk_kernel::codes;
use tovuk_kernel::operation::{Argument, Command, Method, Operation, Request};
use tovuk_kernel::outbound::Pattern;

use super::note;
use crate::control::handler::Handler;
use crate::control::store::webhooks;
use crate::control::{Caller, Control, Refusal};

/// Longest URL of a webhook, in bytes.
const URL_BYTES_MAX: usize = 2_048;

/// Sets the webhook.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "WebhookSet")]
pub struct Set {
    /// Where it is called: an absolute URL of http or https.
    pub url: String,
}

/// A webhook.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Webhook")]
pub struct WebhookResponse {
    /// Where it is called; null where there is none.
    pub url: Option<String>,
    /// What calls are signed with. It is another after each setting.
    pub secret: Option<String>,
}

impl WebhookResponse {
    fn of(control: &Control, account: i64, webhook: Option<webhooks::Webhook>) -> Self {
        let secret = webhook.as_ref().map(|webhook| secret(control, account, webhook));
        Self { url: webhook.map(|webhook| webhook.url), secret }
    }
}

/// What calls of a webhook are signed with.
pub(crate) fn secret(control: &Control, account: i64, webhook: &webhooks::Webhook) -> String {
    control.vault().derive(&[b"usage webhook", &account.to_be_bytes(), &webhook.version.to_be_bytes()])
}

/// The origin of a URL, as an entry of an allowlist.
pub(crate) fn origin(url: &str) -> Option<Pattern> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let is_url = url.parse::<http::Uri>().is_ok() && !authority.contains(['@', '*']);
    format!("{scheme}://{authority}").parse().ok().filter(|_| is_url)
}

const PATH: &str = "/v1/usage/webhook";

impl Request for Set {
    const OPERATION: Operation = Operation::new("usage.webhook.set", Method::Put, PATH, "Set the webhook that is called when a usage cap fills up")
        .described(
            "It is called with `POST` and JSON: `event` (`usage.cap.reached`), `id`, `metric`, `period`, `service`, `used`, `capValue`, `notifyAtPercent`. \
            `tovuk-signature` is `t=<seconds of Unix time>,v1=<hex>`, where `v1` is the HMAC-SHA256 of `<t>.<body>` under the secret. A call that is not \
            answered with a 2xx status is made again, later and later.",
        )
        .commands(&[Command::new("limits webhook set")
            .arguments(&[Argument::positional("url", "Where it is called")])
            .examples(&["tovuk limits webhook set https://hooks.example.com/tovuk"])]);
    type Response = WebhookResponse;
}

impl Handler for Set {
    async fn run(self, control: Control, caller: Caller) -> Result<WebhookResponse, Refusal> {
        if self.url.len() > URL_BYTES_MAX || origin(&self.url).is_none() {
            let text = format!("`url` must be an absolute URL of http or https without user name, of at most {URL_BYTES_MAX} bytes");
            return Err(Refusal::new(&codes::INVALID_REQUEST, text));
        }
        let (account, now) = (caller.account_number(), control.now_ms());
        let work = control.write(move |conn| {
            note(conn, &caller, Self::OPERATION.name, None, &self.url, now)?;
            Ok(webhooks::set(conn, account, &self.url)?)
        });
        let webhook = work.await?;
        Ok(WebhookResponse::of(&control, account, Some(webhook)))
    }
}

/// Shows the webhook.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "WebhookShow")]
pub struct Show {}

impl Request for Show {
    const OPERATION: Operation = Operation::new("usage.webhook.show", Method::Get, PATH, "Show the webhook that is called when a usage cap fills up")
        .commands(&[Command::new("limits webhook show").examples(&["tovuk limits webhook show"])]);
    type Response = WebhookResponse;
}

impl Handler for Show {
    async fn run(self, control: Control, caller: Caller) -> Result<WebhookResponse, Refusal> {
        let account = caller.account_number();
        let webhook = control.read(move |conn| Ok(webhooks::get(conn, account)?)).await?;
        let is_read_only = matches!(caller.credential, crate::control::Credential::Token { scope: crate::control::Scope::Read, .. });
        let shown = WebhookResponse::of(&control, account, webhook);
        Ok(if is_read_only { WebhookResponse { secret: None, ..shown } } else { shown })
    }
}

/// Removes the webhook.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "WebhookDelete")]
pub struct Delete {}

/// Whether a webhook was removed.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WebhookDeleted")]
pub struct Deleted {
    /// Whether there was one.
    pub deleted: bool,
}

impl Request for Delete {
    const OPERATION: Operation = Operation::new("usage.webhook.delete", Method::Delete, PATH, "Remove the webhook")
        .described("It is no error when there is none.")
        .commands(&[Command::new("limits webhook delete").examples(&["tovuk limits webhook delete"])]);
    type Response = Deleted;
}

impl Handler for Delete {
    async fn run(self, control: Control, caller: Caller) -> Result<Deleted, Refusal> {
        let (account, now) = (caller.account_number(), control.now_ms());
        let work = control.write(move |conn| {
            let deleted = webhooks::delete(conn, account)?;
            if deleted {
                note(conn, &caller, Self::OPERATION.name, None, "", now)?;
            }
            Ok(deleted)
        });
        Ok(Deleted { deleted: work.await? })
    }
}
