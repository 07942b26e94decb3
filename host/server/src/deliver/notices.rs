//! Notices that a usage cap fills up, on their way to the account: a line in the log of each service that has used of it, an entry in the account's activity,
//! and a call of its webhook, which is made again until it is answered or was tried too often. What was told is told once, also after a start; a webhook may
//! be called twice.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, header};
use ring::hmac;
use serde_json::json;
use tokio::sync::Semaphore;
use tovuk_kernel::ids::{AccountId, ServiceId};
use tovuk_kernel::outbound::Allowlist;
use tovuk_resources::meters::Notice;
use tovuk_runtime::body::Body;
use tovuk_runtime::outbound::Caller;

use crate::control::operations::webhooks::{origin, secret};
use crate::control::store::{activity, services, webhooks};
use crate::control::{Control, Refusal};
use crate::logs::{Line, Stream};

/// Webhooks that are called at a time.
const CALLS_MAX: usize = 16;
/// How often one is called.
const ATTEMPTS_MAX: u32 = 10;
/// How long it may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// The wait after the first call that has failed. It doubles with each.
const PAUSE: Duration = Duration::from_secs(2);
/// The wait after the store of notices has failed.
const STORE_PAUSE: Duration = Duration::from_secs(5);

/// Tells accounts until the host ends.
pub(super) async fn run(control: Control) {
    let (stopping, places) = (control.deliveries().stopping(), Arc::new(Semaphore::new(CALLS_MAX)));
    tokio::pin!(stopping);
    let mut last = 0;
    loop {
        let found = tokio::select! {
            biased;
            () = &mut stopping => return,
            found = control.meters().notice(last) => found,
        };
        match found {
            Ok(notice) => {
                last = notice.id;
                let (telling, places) = (control.clone(), places.clone());
                control.deliveries().spawn(async move {
                    let cut = telling.deliveries().stopping();
                    tokio::select! {
                        biased;
                        () = cut => {}
                        () = tell(&telling, &notice, &places) => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!("notices of usage caps cannot be read, which is tried again: {error}");
                control.clock().sleep(STORE_PAUSE).await;
            }
        }
    }
}

async fn tell(control: &Control, notice: &Notice, places: &Semaphore) {
    let written = async {
        if !notice.is_written {
            write(control, notice).await?;
            control.meters().written(notice.id).await?;
        }
        call(control, notice, places).await?;
        control.meters().told(notice.id).await?;
        Ok::<_, Refusal>(())
    };
    if let Err(refusal) = written.await {
        tracing::warn!("account_{} could not be told that a usage cap fills up; it is after the next start: {refusal}", notice.key.account);
    }
}

/// What has happened, in words.
fn text(notice: &Notice) -> String {
    let (key, setting) = (notice.key, notice.setting);
    let whose = if key.service.is_some() { "the service's" } else { "the account's" };
    format!(
        "{} of {} ({}) are used of {whose} usage cap for {} in a {}: it tells at {} percent, and stops what would go beyond it",
        notice.used,
        setting.value,
        key.meter.unit(),
        key.meter.as_str(),
        key.period.as_str(),
        setting.notify_at_percent
    )
}

/// Writes it into the account's activity and into the logs of the services that have used of it.
async fn write(control: &Control, notice: &Notice) -> Result<(), Refusal> {
    let (key, now) = (notice.key, control.now_ms());
    let subject = format!("{} per {}: {} of {}", key.meter.as_str(), key.period.as_str(), notice.used, notice.setting.value);
    let all = control.write(move |conn| {
        activity::add(conn, key.account, "usage.cap.reached", key.service, &subject, None, now)?;
        Ok(services::list(conn, key.account)?)
    });
    for service in all.await? {
        let is_asked = key.service.is_none_or(|own| own == service.id);
        if is_asked && control.meters().usage(key.account, Some(service.id)).of(key.meter, key.period) > 0 {
            control.say(Line::new(service.service_id(), service.account(), Stream::System, text(notice)));
        }
    }
    Ok(())
}

/// Calls the account's webhook, if it has one, until it is answered.
async fn call(control: &Control, notice: &Notice, places: &Semaphore) -> Result<(), Refusal> {
    let account = notice.key.account;
    let mut pause = PAUSE;
    for attempt in 1..=ATTEMPTS_MAX {
        // Looked up each time: it may have been corrected.
        let Some(webhook) = control.read(move |conn| Ok(webhooks::get(conn, account)?)).await? else { return Ok(()) };
        let place = places.acquire().await;
        let sent = send(control, notice, &webhook).await;
        drop(place);
        match sent {
            Ok(()) => return Ok(()),
            Err(why) => tracing::info!("the webhook of account_{account} has failed for the {attempt}. time: {why}"),
        }
        control.clock().sleep(pause).await;
        pause = pause.saturating_mul(2);
    }
    Ok(())
}

async fn send(control: &Control, notice: &Notice, webhook: &webhooks::Webhook) -> Result<(), String> {
    let (account, key) = (AccountId::from(format!("account_{}", notice.key.account)), notice.key);
    let body = json!({
        "event": "usage.cap.reached",
        "id": format!("notice_{}", notice.id),
        "metric": key.meter.as_str(),
        "period": key.period.as_str(),
        "service": key.service.map(|service| ServiceId::from(format!("service_{service}")).to_string()),
        "used": notice.used,
        "capValue": notice.setting.value,
        "notifyAtPercent": notice.setting.notify_at_percent,
    })
    .to_string();
    let seconds = control.clock().now_unix_ms() / 1_000;
    let signing = hmac::Key::new(hmac::HMAC_SHA256, secret(control, key.account, webhook).as_bytes());
    let signature = hex::encode(hmac::sign(&signing, format!("{seconds}.{body}").as_bytes()).as_ref());
    let value = |text: &str| HeaderValue::from_str(text).map_err(|error| error.to_string());
    let mut request = Request::new(Body::from(bytes::Bytes::from(body)).into_boxed());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = webhook.url.parse().map_err(|error| format!("{error}"))?;
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request.headers_mut().insert("tovuk-event", HeaderValue::from_static("usage.cap.reached"));
    request.headers_mut().insert("tovuk-signature", value(&format!("t={seconds},v1={signature}"))?);
    let allow = Allowlist::from_iter(origin(&webhook.url));
    let caller = Caller { account: &account, service: "the usage webhook", allow: &allow };
    let answer = control.clock().timeout(ANSWER, control.runtime().outbound().send(caller, request)).await;
    let response = answer.ok_or("it did not answer in time")?.map_err(|error| error.to_string())?;
    let status = response.status();
    if status.is_success() { Ok(()) } else { Err(format!("it answered {status}")) }
}
