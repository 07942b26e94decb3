//! The reference of the API as one page: every operation, type and code, with examples. It is made from the same table as the OpenAPI document.

use maud::{Markup, html};
use tovuk_kernel::codes::{self, Blame, Code};

use super::frame;
use crate::control::api::common_errors;
use crate::control::reference::curl::curl;
use crate::control::reference::{Entry, Field, Piece, Place, Reference, TOKEN_ERRORS, access_text, description, fields, shape};

/// The page.
pub(super) fn page(reference: &Reference) -> Markup {
    let body = html! {
        div.manual {
            nav aria-label="Contents" { (contents(reference)) }
            main {
                (introduction())
                @for subject in reference.subjects() {
                    div data-group {
                        h2 id=(format!("subject-{subject}")) { (subject) }
                        @for entry in reference.about(subject) { (operation(entry)) }
                    }
                }
                div data-rest {
                    h2 id="types" { "Types" }
                    @for (name, schema) in &reference.types { (of_type(name, schema)) }
                    h2 id="codes" { "Error codes" }
                    @for code in codes::ALL { (of_code(code)) }
                }
            }
        }
    };
    frame::document("tovuk API reference", true, &body)
}

fn contents(reference: &Reference) -> Markup {
    html! {
        p { b { "tovuk API" } " " span.muted { (env!("CARGO_PKG_VERSION")) } }
        div id="search" hidden {
            label for="filter" { "Filter operations " span id="count" class="muted" aria-live="polite" {} }
            input id="filter" type="search" placeholder="env set" autocomplete="off" title="Press / to come here";
        }
        ul {
            li { a href="#about" { "About" } }
            li { a href="#types" { "Types" } }
            li { a href="#codes" { "Error codes" } }
            li { a href="/openapi.json" { "OpenAPI document" } }
        }
        @for subject in reference.subjects() {
            div data-group {
                a href=(format!("#subject-{subject}")) { b { (subject) } }
                ul {
                    @for entry in reference.about(subject) {
                        li data-search=(words(entry)) { a href=(format!("#{}", entry.operation.name)) { (entry.operation.name) } }
                    }
                }
            }
        }
    }
}

/// What the filter looks in.
fn words(entry: &Entry) -> String {
    let row = entry.operation;
    let commands: Vec<_> = row.commands.iter().map(|command| command.words).collect();
    format!("{} {} {} {} {}", row.name, row.method.as_str(), row.path, row.summary, commands.join(" ")).to_lowercase()
}

fn introduction() -> Markup {
    html! {
        section id="about" data-rest {
            h1 { "tovuk API reference" }
            p { "Everything that people and their programs can ask of this host. The command " code { "tovuk" } " asks the same way; " a href="/openapi.json" { "the OpenAPI document" } " says the same for programs." }
            h4 { "Tokens" }
            p { "Send " code { "Authorization: Bearer <token>" } ". " code { "tovuk login" } " gets a token and " code { "tovuk token create" } " makes further ones. A running worker finds its own in " code { "TOVUK_RUNTIME_TOKEN" } "." }
            pre { code { "export TOVUK_API_BASE_URL=https://api.example.com TOVUK_TOKEN=tovuk_…\ncurl -H \"authorization: Bearer $TOVUK_TOKEN\" \"$TOVUK_API_BASE_URL/v1/account\"" } }
            h4 { "Requests" }
            p { "Bodies are JSON objects; fields that nobody knows are ignored, and a field that comes twice is refused. " code { "{service}" } " is the id or the name of a service. Percent-encode each segment of a path on its own: a slash inside one is " code { "%2F" } "." }
            h4 { "Responses" }
            p { "JSON. " code { "x-request-id" } " names the request in the host's log. A list that has more says so in " code { "has_more" } "; send its " code { "next_cursor" } " as " code { "cursor" } " to go on." }
            h4 { "Failures" }
            p { "One flat body, " a href="#type-ErrorBody" { "ErrorBody" } ", whose " code { "code" } " is one of " a href="#codes" { "the error codes" } ". What belongs to another account looks as if it did not exist." }
            p { "Every operation can fail with " (codes_of(&common_errors())) ", and every one that needs a token with " (codes_of(&TOKEN_ERRORS)) "." }
        }
    }
}

fn operation(entry: &Entry) -> Markup {
    let row = entry.operation;
    let examples: Vec<_> = row.commands.iter().flat_map(|command| command.examples).collect();
    let own = entry.own_errors();
    html! {
        section id=(row.name) data-search=(words(entry)) {
            h3 { a href=(format!("#{}", row.name)) { (row.summary) } }
            p.route { b { (row.method.as_str()) } " " (row.path) }
            @if !row.description.is_empty() { p { (frame::prose(row.description)) } }
            p.muted { (frame::prose(access_text(row))) }
            @if !entry.fields.is_empty() {
                h4 { "Fields" }
                (table(&entry.fields, true))
            }
            h4 { "Answers" }
            p { (row.status) " with " (shown(&entry.response)) "." }
            @if !own.is_empty() { p { "Fails with " (codes_of(&own)) "." } }
            @if !row.meters.is_empty() { p { "Charges " (row.meters.iter().map(|meter| meter.as_str()).collect::<Vec<_>>().join(", ")) "." } }
            @if row.method.has_body() { p.muted { "The body may have " (bytes(row.body_bytes_max)) "." } }
            h4 { "Example" }
            pre { code { (curl(entry)) } }
            @if !examples.is_empty() {
                pre { code { @for example in examples { (example) "\n" } } }
            }
        }
    }
}

fn table(fields: &[Field], request: bool) -> Markup {
    html! {
        table {
            thead { tr { th { "Field" } @if request { th { "In" } } th { "Value" } th { "Meaning" } } }
            tbody {
                @for field in fields {
                    tr {
                        td { code { (field.name) } @if !field.required { span.muted { " optional" } } }
                        @if request { td { @match field.place { Place::Path => "path", Place::Query => "query", Place::Body => "body" } } }
                        td { (shown(&field.schema)) }
                        td { (frame::prose(&field.description)) }
                    }
                }
            }
        }
    }
}

fn of_type(name: &str, schema: &serde_json::Value) -> Markup {
    let fields = fields(schema);
    html! {
        section id=(format!("type-{name}")) {
            h3 { a href=(format!("#type-{name}")) { (name) } }
            p { (frame::prose(&description(schema))) }
            @if fields.is_empty() { p { (shown(schema)) } } @else { (table(&fields, false)) }
        }
    }
}

fn of_code(code: &Code) -> Markup {
    let blame = match code.blame {
        Blame::Caller => "whoever sent the request",
        Blame::Worker => "whoever wrote the worker",
        Blame::Operator => "whoever runs the host",
    };
    html! {
        section id=(format!("code-{}", code.code)) {
            h3 { a href=(format!("#code-{}", code.code)) { code { (code.code) } } }
            p { (code.message) " " (frame::prose(code.help)) }
            p.muted { "Status " (code.status) ". To act: " (blame) ". " @if code.retryable { "The same request can succeed later." } @else { "The same request fails again." } }
        }
    }
}

fn codes_of(codes: &[&Code]) -> Markup {
    html! {
        @for (at, code) in codes.iter().enumerate() {
            @if at > 0 { ", " }
            a href=(format!("#code-{}", code.code)) { code { (code.code) } }
        }
    }
}

fn shown(schema: &serde_json::Value) -> Markup {
    html! {
        @for piece in shape(schema) {
            @match piece {
                Piece::Text(text) => (text),
                Piece::Type(name) => a href=(format!("#type-{name}")) { (name) },
                Piece::Value(value) => code { (value) },
            }
        }
    }
}

fn bytes(bytes: u64) -> String {
    if bytes >= 1 << 20 { format!("{} MiB", bytes >> 20) } else { format!("{} KiB", bytes >> 10) }
}
