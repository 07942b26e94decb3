//! Who uses the pages: a cookie with a token that ends after some hours, is listed among the account's tokens, and can be revoked like any other. The
//! token that was typed in is not kept anywhere.

use http::{HeaderMap, HeaderValue, header};
use tovuk_kernel::codes;
use tovuk_kernel::limits::{BROWSER_SESSION_SECONDS, BROWSER_SESSIONS_MAX};
use tovuk_kernel::operation::Request as _;
use tovuk_runtime::trace::TraceContext;

use crate::control::operations::login::Approve;
use crate::control::operations::note;
use crate::control::store::accounts::{self, Account};
use crate::control::{Caller, Control, Credential, Refusal};

/// The name of tokens that stand in cookies.
const TOKEN_NAME: &str = "browser session";
/// Where URLs begin with https, no other host of the domain can set a cookie of this name, and no connection without TLS carries it.
const SECURE_COOKIE: &str = "__Host-tovuk_session";
const COOKIE: &str = "tovuk_session";

/// Somebody who is signed in.
pub(super) struct Person {
    pub caller: Caller,
    pub account: Account,
}

/// Whoever sent this request, if they are signed in.
pub(super) async fn person(control: &Control, headers: &HeaderMap) -> Result<Option<Person>, Refusal> {
    let Some(token) = cookie(headers, cookie_name(control)) else { return Ok(None) };
    match caller(control, headers, token) {
        Ok(caller) => of(control, caller).await,
        // A cookie that has ended is no error: its owner signs in again.
        Err(_) => Ok(None),
    }
}

async fn of(control: &Control, caller: Caller) -> Result<Option<Person>, Refusal> {
    let number = caller.account_number();
    let account = control.read(move |conn| Ok(accounts::get(conn, number)?)).await?;
    Ok(account.map(|account| Person { caller, account }))
}

/// Whom a token stands for, when it can approve logins.
fn caller(control: &Control, headers: &HeaderMap, token: &str) -> Result<Caller, Refusal> {
    let request_id = TraceContext::of(headers).trace.to_string();
    let caller = control.tokens().caller(token, control.now_ms(), request_id)?;
    caller.may(&Approve::OPERATION)?;
    Ok(caller)
}

/// Signs in with a token: the cookie that says so from now on.
pub(super) async fn begin(control: &Control, headers: &HeaderMap, token: &str) -> Result<HeaderValue, Refusal> {
    let caller = caller(control, headers, token)?;
    let Credential::Token { id, scope } = caller.credential else {
        return Err(Refusal::new(&codes::TOKEN_SCOPE, "the token of a running worker signs nobody in"));
    };
    let (account, now, table) = (caller.account_number(), control.now_ms(), control.tokens().clone());
    let written = control.write(move |conn| {
        let tokens = accounts::tokens(conn, account)?;
        // It ends no later than the token that it was made with.
        let latest = tokens.iter().find(|token| token.id == id).and_then(|token| token.expires_ms).unwrap_or(i64::MAX);
        let expires_ms = now.saturating_add(i64::try_from(BROWSER_SESSION_SECONDS).unwrap_or(0) * 1_000).min(latest);
        let sessions: Vec<_> = tokens.iter().filter(|token| token.name == TOKEN_NAME).map(|token| token.id).collect();
        let mut ended = Vec::new();
        for oldest in sessions.iter().take((sessions.len() + 1).saturating_sub(BROWSER_SESSIONS_MAX)) {
            ended.extend(accounts::revoke_token(conn, account, *oldest)?);
        }
        let (row, text) = table.create(conn, account, TOKEN_NAME, scope, now, Some(expires_ms))?;
        note(conn, &caller, "session.create", None, &format!("token_{}", row.id), now)?;
        Ok((row, text, ended))
    });
    let (row, text, ended) = written.await?;
    for digest in ended {
        control.tokens().remove(&digest);
    }
    let seconds = row.expires_ms.map_or(0, |expires_ms| expires_ms.saturating_sub(now) / 1_000);
    set_cookie(control, &text, seconds)
}

/// Signs out: the token of the cookie ends, and the browser forgets it.
pub(super) async fn end(control: &Control, headers: &HeaderMap) -> Result<HeaderValue, Refusal> {
    if let Some(Person { caller, account }) = person(control, headers).await?
        && let Credential::Token { id, .. } = caller.credential
    {
        let now = control.now_ms();
        let digest = control.write(move |conn| {
            // Only what `begin` has made: somebody may have put another token into the cookie by hand.
            if !accounts::tokens(conn, account.id)?.iter().any(|token| token.id == id && token.name == TOKEN_NAME) {
                return Ok(None);
            }
            note(conn, &caller, "session.delete", None, &format!("token_{id}"), now)?;
            Ok(accounts::revoke_token(conn, account.id, id)?)
        });
        if let Some(digest) = digest.await? {
            control.tokens().remove(&digest);
        }
    }
    set_cookie(control, "", 0)
}

/// Whether a form was sent from a page of this host. Browsers say where a form comes from; whatever does not is no browser, and has the API.
pub(super) fn is_own_form(control: &Control, authority: &str, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let is_own = |origin: &str| {
        // In front of a proxy the host has the name in its URLs, and maybe another one behind it.
        let own_url = origin.eq_ignore_ascii_case(&control.urls().api);
        own_url || origin.split_once("://").is_some_and(|(_, host)| !host.is_empty() && host.eq_ignore_ascii_case(authority))
    };
    match (text("origin"), text("sec-fetch-site")) {
        (Some(origin), site) => is_own(origin) && site.is_none_or(|site| site == "same-origin"),
        (None, site) => site == Some("same-origin"),
    }
}

fn is_secure(control: &Control) -> bool {
    control.urls().api.starts_with("https://")
}

fn cookie_name(control: &Control) -> &'static str {
    if is_secure(control) { SECURE_COOKIE } else { COOKIE }
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let fields = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(found, value)| *found == name && !value.is_empty()).map(|(_, value)| value)
}

fn set_cookie(control: &Control, value: &str, seconds: i64) -> Result<HeaderValue, Refusal> {
    let secure = if is_secure(control) { "; Secure" } else { "" };
    let text = format!("{}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}", cookie_name(control));
    HeaderValue::from_str(&text).map_err(Refusal::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_among_others_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=1; xtovuk_session=2"));
        assert_eq!(cookie(&headers, COOKIE), None);
        headers.append(header::COOKIE, HeaderValue::from_static("tovuk_session=; tovuk_session=tovuk_x=y; b=3"));
        assert_eq!(cookie(&headers, COOKIE), Some("tovuk_x=y"));
    }
}
