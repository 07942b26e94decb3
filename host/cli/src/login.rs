//! `tovuk login` and `tovuk logout`: how a token comes into the session file of a host, and out of it. Approving a login is a command of the table.

use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tovuk_kernel::clock::Clock;

use crate::client::{Call, Client, encoded};
use crate::failure::Failure;
use crate::output::{self, one_line};
use crate::session::{self, ApiUrl, ClientArgs};

/// How long a login is open when the host does not say, in seconds.
const EXPIRY_SECONDS: u64 = 600;
/// How often to ask when the host does not say, and the least once it was asked, in seconds.
const INTERVAL_SECONDS: u64 = 5;

/// `tovuk login`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tovuk login\n  tovuk login --api https://api.example.com\n  tovuk login --token tovuk_...\n")]
pub struct LoginArgs {
    /// Do not open a browser
    #[arg(long)]
    pub no_browser: bool,
}

/// Gets a token and stores it for this host alone.
pub async fn run(login: LoginArgs, args: &ClientArgs) -> anyhow::Result<ExitCode> {
    let api = args.api()?;
    let (token, handle) = match args.token.as_deref().map(str::trim).filter(|token| !token.is_empty()) {
        Some(token) => (token.to_owned(), None),
        None => by_device(&login, args, &api).await?,
    };
    let path = session::store(&api, &token)?;
    let answer = json!({"ok": true, "api": api.as_str(), "handle": handle, "session_file": path});
    output::print(&answer, args.json, |_| {
        let who = handle.as_deref().map_or_else(String::new, |handle| format!(" as {}", one_line(handle)));
        format!("logged in to {api}{who}; the token is in {}\n", path.display())
    });
    Ok(ExitCode::SUCCESS)
}

/// Shows a code, and waits until somebody with a token has approved it.
async fn by_device(login: &LoginArgs, args: &ClientArgs, api: &ApiUrl) -> anyhow::Result<(String, Option<String>)> {
    let client = Client::anonymous(args)?;
    let clock = Clock::system();
    let started = client.call(Call::post("/v1/login/device", None)).await?;
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let number = |value: &Value, name: &str, default: u64| value.get(name).and_then(Value::as_u64).unwrap_or(default);
    let odd =
        || Failure::local("login_failed", format!("{api} did not begin a login")).instruct("Check that --api names the control API of a tovuk host.");
    let (url, device) = (text(&started, "loginUrl").ok_or_else(odd)?, text(&started, "deviceCode").ok_or_else(odd)?);
    let code = text(&started, "userCode").unwrap_or_default();
    let expires = Duration::from_secs(number(&started, "expiresInSeconds", EXPIRY_SECONDS));
    let mut interval = number(&started, "intervalSeconds", INTERVAL_SECONDS);
    if args.json {
        let line = json!({"login_url": url, "verification_uri": url, "user_code": code, "expires_in_seconds": expires.as_secs(), "poll_interval_seconds": interval});
        eprintln!("{line}");
    } else {
        eprintln!("open {} and compare the code", one_line(&url));
        eprintln!("or approve it where you have a token: tovuk login approve {}", one_line(&code));
    }
    if !login.no_browser {
        open(&url);
    }
    let begun = clock.monotonic_ms();
    let expired = || Failure::local("login_expired", "the login was not approved in time").instruct("Run `tovuk login` again.");
    loop {
        clock.sleep(Duration::from_secs(interval)).await;
        let answer = client.call(Call::get(format!("/v1/login/device/{}", encoded(&device)))).await?;
        match text(&answer, "status").as_deref() {
            Some("complete") => {
                let token = text(&answer, "token").filter(|token| !token.is_empty()).ok_or_else(odd)?;
                return Ok((token, text(&answer, "handle").or_else(|| text(&answer, "email"))));
            }
            Some("expired") => return Err(expired().into()),
            _ if u128::from(clock.monotonic_ms().saturating_sub(begun)) >= expires.as_millis() => return Err(expired().into()),
            _ => interval = number(&answer, "intervalSeconds", interval).max(INTERVAL_SECONDS),
        }
    }
}

/// Opens a page where there is a desktop to open it on. That it fails matters to nobody: the address was shown.
fn open(url: &str) {
    let desktop =
        cfg!(target_os = "macos") || ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    // The host says what is opened, so it may be nothing but a page.
    if desktop && (url.starts_with("https://") || url.starts_with("http://")) {
        let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
        let _ = Command::new(program).arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    }
}

/// Forgets the token of this host. It stays valid there until it is revoked.
pub fn out(args: &ClientArgs) -> anyhow::Result<ExitCode> {
    let api = args.api()?;
    let forgotten = session::forget(&api)?;
    output::print(&json!({"ok": true, "api": api.as_str(), "forgotten": forgotten}), args.json, |_| match forgotten {
        true => format!("the token for {api} is forgotten here; `tovuk token revoke` ends it on the host\n"),
        false => format!("there was no token for {api}\n"),
    });
    Ok(ExitCode::SUCCESS)
}
