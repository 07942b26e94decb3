//! `docs/reference/api.md`, from the table of operations.

use std::fmt::Write;

use serde_json::Value;
use tovuk_kernel::codes::Code;
use tovuk_server::control::api::common_errors;
use tovuk_server::control::reference::curl::curl;
use tovuk_server::control::reference::{Entry, Field, Piece, TOKEN_ERRORS, access_text, description, fields, reference, shape};

use super::GENERATED;

/// The page.
pub fn page() -> String {
    let reference = reference();
    let mut page = format!("# API\n\n{GENERATED}{}", INTRODUCTION.trim_start());
    writeln!(page, "Every operation can fail with {}, and every one that needs a token with {}.", codes(&common_errors()), codes(&TOKEN_ERRORS))
        .unwrap();
    for subject in reference.subjects() {
        write!(page, "\n## Operations: {subject}\n\n| | |\n|---|---|\n").unwrap();
        for entry in reference.about(subject) {
            let row = entry.operation;
            writeln!(page, "| [`{} {}`](#{}) | {} |", row.method.as_str(), row.path, anchor(row.name), row.summary).unwrap();
        }
        reference.about(subject).for_each(|entry| operation(&mut page, entry));
    }
    page.push_str("\n## Types\n");
    for (name, schema) in &reference.types {
        write!(page, "\n### {name} (type)\n\n{}\n", description(schema)).unwrap();
        let fields = fields(schema);
        if fields.is_empty() {
            write!(page, "\n{}.\n", words(schema)).unwrap();
        } else {
            table(&mut page, &fields, false);
        }
    }
    page
}

const INTRODUCTION: &str = r#"
What people and their programs can ask of a host, at the address of its control API. The host itself has the same as a page under `/docs` and as an
OpenAPI 3.1 document under `/openapi.json`.

Send `Authorization: Bearer <token>`: `tovuk login` gets a token, `tovuk token create` makes further ones, and a running worker finds its own in
`TOVUK_RUNTIME_TOKEN`. Bodies are JSON objects; fields that nobody knows are ignored, and a field that comes twice is refused. `{service}` is the id or the
name of a service. Each segment of a path is percent-encoded on its own. A list that has more says so in `has_more`; send its `next_cursor` as `cursor` to go on.

Failures have one flat body, [ErrorBody](#errorbody-type), whose `code` is one of [the error codes](codes.md).
"#;

fn operation(page: &mut String, entry: &Entry) {
    let row = entry.operation;
    write!(page, "\n### {}\n\n{}.", row.name, row.summary).unwrap();
    if !row.description.is_empty() {
        write!(page, " {}", row.description).unwrap();
    }
    write!(page, "\n\n`{} {}`. {}", row.method.as_str(), row.path, access_text(row)).unwrap();
    if !row.meters.is_empty() {
        write!(page, " Charges {}.", row.meters.iter().map(|meter| meter.as_str()).collect::<Vec<_>>().join(", ")).unwrap();
    }
    page.push('\n');
    if !entry.fields.is_empty() {
        table(page, &entry.fields, true);
    }
    write!(page, "\nAnswers {} with {}.", row.status, words(&entry.response)).unwrap();
    let own = entry.own_errors();
    if !own.is_empty() {
        write!(page, " Fails with {}.", codes(&own)).unwrap();
    }
    write!(page, "\n\n```sh\n{}\n", curl(entry)).unwrap();
    for example in row.commands.iter().flat_map(|command| command.examples) {
        writeln!(page, "{example}").unwrap();
    }
    page.push_str("```\n");
}

fn table(page: &mut String, fields: &[Field], request: bool) {
    page.push_str(if request { "\n| Field | In | Value | |\n|---|---|---|---|\n" } else { "\n| Field | Value | |\n|---|---|---|\n" });
    for field in fields {
        let place = if request { format!(" {} |", field.place.as_str()) } else { String::new() };
        let optional = if field.required { "" } else { ", optional" };
        writeln!(page, "| `{}`{optional} |{place} {} | {} |", field.name, words(&field.schema), field.description.replace('|', "\\|")).unwrap();
    }
}

fn words(schema: &Value) -> String {
    let word = |piece| match piece {
        Piece::Text(text) => text,
        Piece::Type(name) => format!("[{name}](#{})", anchor(&format!("{name} (type)"))),
        Piece::Value(value) => format!("`{value}`"),
    };
    shape(schema).into_iter().map(word).collect()
}

fn codes(codes: &[&Code]) -> String {
    codes.iter().map(|code| format!("[`{0}`](codes.md#{0})", code.code)).collect::<Vec<_>>().join(", ")
}

/// The anchor that a heading gets where Markdown is shown.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn links_within_the_page_lead_to_headings() {
    let page = page();
    let anchors: Vec<_> = page.lines().filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches(['#', ' ']))).collect();
    for link in page.split("](#").skip(1).filter_map(|rest| rest.split(')').next()) {
        assert_eq!(anchors.iter().filter(|anchor| *anchor == link).count(), 1, "#{link}");
    }
}
