//! What people forget: file lengths, the first lines of files, the direction of imports, and documents that have to follow the code. It reads
//! the repository's files and starts no host. How code is formatted and which calls are banned is for rustfmt and clippy.

mod api;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tovuk_kernel::codes::{self, Blame};
use tovuk_kernel::error::DOCS_URL_BASE;
use tovuk_kernel::limits::{self, Limit};
use tovuk_kernel::project;
use tovuk_tests::repository;

/// Files stay below about 400 lines. This leaves room for a change that does not split the file at once.
const FILE_LINES_MAX: usize = 450;
/// Each may depend on those before it.
const HOST_CRATES: [&str; 5] = ["tovuk-kernel", "tovuk-resources", "tovuk-runtime", "tovuk-server", "tovuk-cli"];
const ENGINE_CRATE: &str = "tovuk-runtime";
const SOURCE_FOLDERS: [&str; 4] = ["host", "guest-sdk", "tests", "benches"];
/// The folders whose paths the documents name.
const NAMED_FOLDERS: [&str; 8] = ["host/", "guest-sdk/", "tests/", "benches/", "examples/", "wit/", "docs/", ".ci/"];
const DOCUMENTS: [&str; 4] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"];

fn read(path: impl AsRef<Path>) -> String {
    let path = repository().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every Rust file below a folder, but for what builds leave.
fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if name != "target" && name != "node_modules" && !name.starts_with('.') {
                rust_files(&path, found);
            }
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in SOURCE_FOLDERS {
        rust_files(&repository().join(folder), &mut found);
    }
    assert!(found.len() > 100, "only {} Rust files were found", found.len());
    found
}

/// Fails with every problem at once.
fn assert_none(problems: &[String], what_to_do: &str) {
    assert!(problems.is_empty(), "{what_to_do}:\n  {}", problems.join("\n  "));
}

#[test]
fn files_are_short_enough_to_read() {
    let long = |path: &PathBuf| {
        let lines = read(path).lines().count();
        (lines > FILE_LINES_MAX).then(|| format!("{} has {lines} lines", path.display()))
    };
    let problems: Vec<_> = sources().iter().filter_map(long).collect();
    assert_none(&problems, &format!("split these along what they do; a file has at most {FILE_LINES_MAX} lines"));
}

#[test]
fn every_file_says_first_what_it_is_for() {
    let silent = |path: &PathBuf| (!read(path).starts_with("//! ")).then(|| path.display().to_string());
    let problems: Vec<_> = sources().iter().filter_map(silent).collect();
    assert_none(&problems, "begin these with `//!`: what the file is for, and what it deliberately does not do");
}

/// The packages of the workspace with the names of what each depends on, for whatever purpose.
fn packages() -> Vec<(String, Vec<String>)> {
    let output = Command::new(env!("CARGO")).args(["metadata", "--no-deps", "--format-version", "1"]).current_dir(repository()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap();
    packages.iter().map(|package| (name(package), package["dependencies"].as_array().unwrap().iter().map(name).collect())).collect()
}

#[test]
fn imports_point_one_way() {
    let packages = packages();
    let mut problems = Vec::new();
    for (at, host_crate) in HOST_CRATES.iter().enumerate() {
        let (_, dependencies) = packages.iter().find(|(name, _)| name == host_crate).unwrap();
        let own = dependencies.iter().filter(|name| packages.iter().any(|(package, _)| package == *name));
        problems.extend(own.filter(|name| !HOST_CRATES[..at].contains(&name.as_str())).map(|name| format!("{host_crate} depends on {name}")));
    }
    assert_none(&problems, &format!("a host crate may depend on those before it in {}", HOST_CRATES.join(", ")));
}

#[test]
fn one_crate_knows_the_engine() {
    let mut problems = Vec::new();
    for (name, dependencies) in packages() {
        let engine = dependencies.iter().filter(|dependency| dependency.starts_with("wasmtime"));
        problems.extend(engine.filter(|_| name != ENGINE_CRATE).map(|dependency| format!("{name} depends on {dependency}")));
    }
    assert_none(&problems, &format!("only {ENGINE_CRATE} may name the engine; give it a function that does what is needed"));
}

#[test]
fn every_test_file_is_a_module() {
    let main = read("tests/it/main.rs");
    let mut problems = Vec::new();
    for entry in fs::read_dir(repository().join("tests/it")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if name != "main" && path.extension().is_some_and(|extension| extension == "rs") && !main.lines().any(|line| line == format!("mod {name};")) {
            problems.push(format!("mod {name};"));
        }
    }
    assert_none(&problems, "tests in a file that is no module never run; add to tests/it/main.rs");
}

#[test]
fn every_guest_is_described() {
    let readme = read("tests/guests/README.md");
    let mut problems = Vec::new();
    for entry in fs::read_dir(repository().join("tests/guests/src")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if name != "lib" && !readme.contains(&format!("| `{name}` |")) {
            problems.push(name.to_owned());
        }
    }
    assert_none(&problems, "add a row to tests/guests/README.md for");
}

#[test]
fn paths_in_documents_exist() {
    let mut problems = Vec::new();
    for document in DOCUMENTS {
        let text = read(document);
        let quoted = text.split('`').skip(1).step_by(2);
        let linked = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        let is_path = |text: &&str| NAMED_FOLDERS.iter().any(|folder| text.starts_with(folder)) && !text.contains([' ', '<', '*', '{', '\n']);
        let missing = quoted.chain(linked).filter(is_path).filter(|path| !repository().join(path).exists());
        problems.extend(missing.map(|path| format!("{document}: {path}")));
    }
    assert_none(&problems, "these paths are named and do not exist");
}

/// A number with commas, as the documents write it.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The beginning of a limit's row in a table of Markdown: everything but the sentence.
fn limit_row(limit: &Limit) -> String {
    format!("| `{}` | {} | {} | {} | {} |", limit.name, limit.unit, grouped(limit.free), grouped(limit.pro), grouped(limit.ceiling))
}

#[test]
fn the_readme_has_every_limit_and_every_key_of_the_project_file() {
    let readme = read("README.md");
    let rows: Vec<_> = limits::WORKER.iter().map(limit_row).filter(|row| !readme.contains(row)).collect();
    assert_none(&rows, "README.md lacks these rows of the table of limits");
    let schema = project::schema();
    let mut problems = Vec::new();
    for (of, prefix) in [("Service", "| `"), ("Binding", "| `bindings[].")] {
        let keys = schema["$defs"][of]["properties"].as_object().unwrap().keys();
        problems.extend(keys.map(|key| format!("{prefix}{key}` |")).filter(|row| !readme.contains(row)));
    }
    assert_none(&problems, "README.md lacks the rows of the table of keys that begin with");
}

#[test]
fn the_reference_follows_the_code() {
    // The error bodies' links lead into this page: each code is a heading, whose anchor is the code.
    assert!(DOCS_URL_BASE.ends_with("/reference/codes#"), "{DOCS_URL_BASE}");
    fresh("docs/reference/api.md", &api::page());
    fresh("docs/reference/cli.md", &tovuk_cli::reference());
    fresh("docs/reference/codes.md", &codes_page());
    fresh("docs/reference/limits.md", &limits_page());
}

/// Compares a generated page with what the code says now, or writes it when `TOVUK_BLESS` is set.
fn fresh(path: &str, expected: &str) {
    let file = repository().join(path);
    if std::env::var_os("TOVUK_BLESS").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, expected).unwrap();
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    assert!(found == expected, "{path} does not say what the code says: run `TOVUK_BLESS=1 cargo test -p tovuk-tests --test it tidy` and commit it");
}

pub(crate) const GENERATED: &str = "<!-- Generated from the code: run `TOVUK_BLESS=1 cargo test -p tovuk-tests --test it tidy`. -->\n";

fn codes_page() -> String {
    let mut page = format!(
        "# Error codes\n\n{GENERATED}\nThe `code` of the host's error bodies. A worker's own responses never have this form unless it writes them.\n"
    );
    for code in codes::ALL {
        let blame = match code.blame {
            Blame::Caller => "whoever sent the request",
            Blame::Worker => "whoever wrote the worker",
            Blame::Operator => "whoever runs the host",
        };
        let again = if code.retryable { "The same request can succeed later." } else { "The same request fails again." };
        writeln!(page, "\n## `{}`\n\nStatus {}. To act: {blame}. {again}\n\n> {}\n\n{}", code.code, code.status, code.message, code.help).unwrap();
    }
    page
}

fn limits_page() -> String {
    let mut page = format!(
        "# Limits\n\n{GENERATED}\nThe keys of `[services.<name>.limits]`: the defaults of the two plans, and the most that a project file may ask for.\n\n"
    );
    page.push_str("| Key | Unit | Free | Pro | Ceiling | |\n|---|---|---:|---:|---:|---|\n");
    for limit in &limits::WORKER {
        writeln!(page, "{} {} |", limit_row(limit), limit.doc).unwrap();
    }
    page.push_str("\nBy plan, and not for a project file to change:\n\n| | Free | Pro | |\n|---|---:|---:|---|\n");
    for limit in &limits::BY_PLAN {
        let figure = |plan| figure(limit.name, (limit.figure)(plan));
        writeln!(page, "| `{}` | {} | {} | {} |", limit.name, figure(limits::Plan::Free), figure(limits::Plan::Pro), limit.doc).unwrap();
    }
    page.push_str("\nThe same for every plan and service:\n\n| | | |\n|---|---:|---|\n");
    for limit in limits::FIXED {
        let name = limit.name.to_ascii_lowercase();
        writeln!(page, "| `{name}` | {} | {} |", figure(&name, limit.value), limit.doc.trim()).unwrap();
    }
    page
}

/// A figure with commas, and with a unit that people read where it is one of bytes.
fn figure(name: &str, value: u64) -> String {
    match value {
        mib if name.contains("bytes") && mib.is_multiple_of(1 << 20) => format!("{} ({} MiB)", grouped(mib), mib >> 20),
        kib if name.contains("bytes") && kib.is_multiple_of(1 << 10) => format!("{} ({} KiB)", grouped(kib), kib >> 10),
        value => grouped(value),
    }
}
