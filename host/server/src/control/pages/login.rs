//! The page where a person lets a device in that shows a code: they sign in with a token of their account, see whose account the device is going to
//! reach, and approve. It adds nothing to what `login.approve` can do.

use http::request::Parts;
use http::{Method, Request, Response, StatusCode, header};
use maud::{Markup, html};
use tovuk_kernel::codes;
use tovuk_kernel::limits::LOGIN_FORM_BYTES_MAX;
use tovuk_runtime::body::Body;

use super::frame;
use super::session::{self, Person};
use crate::control::handler::Handler;
use crate::control::operations::login::Approve;
use crate::control::store::logins;
use crate::control::{Control, Refusal, Scope};

/// Answers `/login` and `/logout`. What goes wrong is shown as a page: a browser asks.
pub(super) async fn respond(control: &Control, request: Request<Body>) -> Result<Response<Body>, Refusal> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let answer = match head.method {
        Method::GET | Method::HEAD if path == "/login" => show(control, &head).await,
        Method::POST if !session::is_own_form(control, authority(&head), &head.headers) => {
            let text = "the form was not sent from a page of this host";
            Err(Refusal::new(&codes::TOKEN_SCOPE, text).instruct("Open the address that `tovuk login` shows, in a browser, and use the form there."))
        }
        Method::POST if path == "/logout" => sign_out(control, &head).await,
        Method::POST => act(control, &head, body).await,
        method => return Err(Refusal::new(&codes::METHOD_NOT_ALLOWED, format!("{method} {path}: this page does not have that method"))),
    };
    Ok(answer.unwrap_or_else(|refusal| failed(&refusal)))
}

fn authority(head: &Parts) -> &str {
    let host = || head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    head.uri.authority().map(http::uri::Authority::as_str).or_else(host).unwrap_or_default()
}

async fn show(control: &Control, head: &Parts) -> Result<Response<Body>, Refusal> {
    let query = head.uri.query().unwrap_or_default();
    let code = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "code").map(|(_, code)| code.into_owned()).unwrap_or_default();
    let person = session::person(control, &head.headers).await?;
    if code.trim().is_empty() {
        return Ok(view(StatusCode::OK, "Log a device in", &ask(person.as_ref(), None)));
    }
    let Some(code) = waiting(control, &code).await? else {
        return Ok(view(StatusCode::NOT_FOUND, "No login waits", &ask(person.as_ref(), Some(NOT_WAITING))));
    };
    Ok(match person {
        Some(person) => view(StatusCode::OK, "Approve a login", &confirm(&code, &person)),
        None => view(StatusCode::OK, "Sign in", &sign_in(&code, None)),
    })
}

const NOT_WAITING: &str = "No login waits with this code. It was mistyped, was approved already, or has ended: a login is open for ten minutes. Run `tovuk login` again for a new one.";

/// The code as it is stored, if a login waits with it.
async fn waiting(control: &Control, code: &str) -> Result<Option<String>, Refusal> {
    let letters: String = code.chars().filter(char::is_ascii_alphabetic).collect::<String>().to_ascii_uppercase();
    let Some((first, second)) = letters.split_at_checked(letters.len() / 2) else { return Ok(None) };
    let (code, now) = (format!("{first}-{second}"), control.now_ms());
    let asked = code.clone();
    Ok(control.read(move |conn| Ok(logins::waiting(conn, &asked, now)?)).await?.map(|_| code))
}

/// What a form says.
#[derive(Default)]
struct Form {
    code: String,
    token: Option<String>,
    scope: Option<Scope>,
}

async fn act(control: &Control, head: &Parts, body: Body) -> Result<Response<Body>, Refusal> {
    let (bytes, _held) = control.body("the form", LOGIN_FORM_BYTES_MAX, 0, body).await?;
    let mut form = Form::default();
    for (name, value) in form_urlencoded::parse(&bytes) {
        match &*name {
            "code" => form.code = value.trim().to_owned(),
            "token" => form.token = Some(value.trim().to_owned()),
            "scope" => form.scope = Scope::named(&value),
            _ => {}
        }
    }
    let Some(code) = waiting(control, &form.code).await? else {
        let person = session::person(control, &head.headers).await?;
        return Ok(view(StatusCode::NOT_FOUND, "No login waits", &ask(person.as_ref(), Some(NOT_WAITING))));
    };
    if let Some(token) = form.token {
        return match session::begin(control, &head.headers, &token).await {
            Ok(cookie) => {
                let mut response = frame::redirect(&format!("/login?code={code}"));
                response.headers_mut().insert(header::SET_COOKIE, cookie);
                Ok(response)
            }
            Err(refusal) if refusal.code.status < 500 => Ok(view(status(&refusal), "Sign in", &sign_in(&code, Some(&refusal)))),
            Err(refusal) => Err(refusal),
        };
    }
    let Some(Person { caller, account }) = session::person(control, &head.headers).await? else {
        let ended = Refusal::new(&codes::UNAUTHORIZED, "you are no longer signed in").instruct("Sign in again.");
        return Ok(view(StatusCode::UNAUTHORIZED, "Sign in", &sign_in(&code, Some(&ended))));
    };
    Approve { user_code: code, scope: form.scope }.run(control.clone(), caller).await?;
    let body = html! {
        h1 { "The device is logged in" }
        div.done { p { "It now has access to the account " strong { (account.handle) } ". You can close this page and go on there." } }
        p.muted { code { "tovuk token list" } " shows its token as " code { "login" } "; " code { "tovuk token revoke" } " ends it." }
        (sign_out_form())
    };
    Ok(view(StatusCode::OK, "The device is logged in", &body))
}

async fn sign_out(control: &Control, head: &Parts) -> Result<Response<Body>, Refusal> {
    let cookie = session::end(control, &head.headers).await?;
    let mut response = frame::redirect("/login");
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

fn view(status: StatusCode, title: &str, body: &Markup) -> Response<Body> {
    frame::page(status, &frame::document(&format!("{title} · tovuk"), false, &html! { main.card { (body) } }))
}

fn status(refusal: &Refusal) -> StatusCode {
    StatusCode::from_u16(refusal.code.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn failed(refusal: &Refusal) -> Response<Body> {
    let body = html! {
        h1 { "That did not work" }
        (problem(refusal))
        p { a href="/login" { "Begin again" } }
    };
    view(status(refusal), "That did not work", &body)
}

fn problem(refusal: &Refusal) -> Markup {
    html! {
        div.problem role="alert" {
            p { (refusal.message) "." }
            p { (frame::prose(refusal.instruction.as_deref().unwrap_or(refusal.code.help))) }
        }
    }
}

fn ask(person: Option<&Person>, problem: Option<&str>) -> Markup {
    html! {
        h1 { "Log a device in" }
        @if let Some(problem) = problem { div.problem role="alert" { p { (frame::prose(problem)) } } }
        form method="get" action="/login" {
            label for="code" { "The code that the device shows" }
            input id="code" name="code" required autofocus autocomplete="off" autocapitalize="characters" spellcheck="false" placeholder="BCDF-GHJK";
            button { "Go on" }
        }
        @if let Some(person) = person {
            p.muted { "You are signed in as " strong { (person.account.handle) } "." }
            (sign_out_form())
        }
    }
}

fn sign_in(code: &str, refused: Option<&Refusal>) -> Markup {
    html! {
        h1 { "Sign in" }
        p { "A device wants to log in with this code:" }
        p.code { (code) }
        @if let Some(refusal) = refused { (problem(refusal)) }
        form method="post" action="/login" {
            input type="hidden" name="code" value=(code);
            label for="token" { "A token of your account" }
            input id="token" name="token" type="password" required autofocus autocomplete="off" spellcheck="false" placeholder="tovuk_…";
            button { "Sign in" }
        }
        p.muted { "You approve the login on the next page. Where you are logged in already, " code { "tovuk token create browser" } " makes a token; the operator of a host has one in the file " code { "admin-token" } " of its data folder." }
    }
}

fn confirm(code: &str, person: &Person) -> Markup {
    let account = &person.account;
    html! {
        h1 { "Approve a login" }
        p { "A device wants to log in with this code:" }
        p.code { (code) }
        p { "It is going to have access to the account" }
        p.who { (account.handle) @if account.display_name != account.handle { " · " (account.display_name) } }
        p { "Approve only if you began this login yourself, and the device shows the same code." }
        form method="post" action="/login" {
            input type="hidden" name="code" value=(code);
            label for="scope" { "How far it reaches" }
            select id="scope" name="scope" {
                option value="account" selected { "Everything of the account" }
                option value="read" { "Reading only" }
                @if person.caller.is_operator() { option value="operator" { "The account, and everything of the operator" } }
            }
            button { "Approve for " (account.handle) }
        }
        (sign_out_form())
    }
}

fn sign_out_form() -> Markup {
    html! { form method="post" action="/logout" { button.plain { "Sign out" } } }
}
