//! `tovuk check`, `tovuk schema` and the help texts: what is said, on which stream, and with which exit code.

use std::process::Output;

use tovuk_tests::{Project, run, tovuk};

use crate::TOVUK;

/// What a command said and how it ended.
struct Answer {
    code: i32,
    out: String,
    err: String,
}

fn ask(arguments: &[&str]) -> Answer {
    let Output { status, stdout, stderr } = run(tovuk(TOVUK, arguments));
    Answer { code: status.code().unwrap(), out: String::from_utf8(stdout).unwrap(), err: String::from_utf8(stderr).unwrap() }
}

/// `tovuk check` of something in this project.
fn check(project: &Project, path: &str, more: &[&str]) -> Answer {
    let path = project.path().join(path);
    ask(&[&["check", path.to_str().unwrap()], more].concat())
}

/// A worker in either world, and a service of files.
const GOOD: &str =
    "[services.lean]\ncomponent = \"lean.wasm\"\nroutes = [\"/*\"]\n[services.p2]\ncomponent = \"p2.wasm\"\n[services.site]\nassets = \"public\"\n";

fn good() -> Project {
    let project = Project::new(&[("tovuk.toml", GOOD), ("public/index.html", "<h1>hello</h1>")]);
    project.with_guest("lean.wasm", "chain").with_guest("p2.wasm", "hello_p2")
}

#[test]
fn a_good_project_is_told_with_what_its_workers_may_do() {
    let answer = check(&good(), "", &[]);
    assert_eq!(answer.code, 0, "{}{}", answer.out, answer.err);
    let lines: Vec<_> = answer.out.lines().collect();
    assert_eq!(lines[0], "lean: ok, serves tovuk:http/handler");
    assert!(
        lines.iter().any(|line| line.contains("imports tovuk:bindings/service") && line.contains("calls the services that it binds")),
        "{}",
        answer.out
    );
    assert!(lines.iter().any(|line| line.starts_with("p2: ok, serves wasi:http/incoming-handler")), "{}", answer.out);
    assert_eq!(lines.last(), Some(&"site: ok, files only"));
}

#[test]
fn a_cron_expression_that_names_no_time_is_told_with_its_line() {
    let project = Project::new(&[
        ("tovuk.toml", "[services.site]\nassets = \"public\"\n[services.site.crons]\nnightly = \"0 25 * * *\"\n"),
        ("public/index.html", ""),
    ]);
    let answer = check(&project, "", &[]);
    assert_eq!(answer.code, 1, "{}{}", answer.out, answer.err);
    assert!(answer.err.contains("4:11") && answer.err.contains("hours 0-23"), "{}", answer.err);
}

#[test]
fn a_component_can_be_checked_by_itself() {
    let project = good();
    let answer = check(&project, "lean.wasm", &[]);
    assert_eq!(answer.code, 0, "{}", answer.err);
    let path = project.path().join("lean.wasm");
    assert!(answer.out.starts_with(&format!("{}: ok, serves tovuk:http/handler\n", path.display())), "{}", answer.out);
}

#[test]
fn what_will_not_run_is_refused_with_the_reason() {
    let project = good().with_guest("neither.wasm", "neither").with_guest("unknown.wasm", "unknown_import");
    project.write("module.wasm", b"\0asm\x01\0\0\0");
    project.write("text.wasm", "#!/bin/sh\n");
    let cases: [(&str, &[&str]); 4] = [
        ("neither.wasm", &["neither `tovuk:http/handler` nor `wasi:http/incoming-handler`", "run"]),
        ("unknown.wasm", &["`acme:db/store@1.0.0`", "does not provide"]),
        ("module.wasm", &["core wasm module", "wasm32-wasip2"]),
        ("text.wasm", &["not WebAssembly"]),
    ];
    for (file, says) in cases {
        let answer = check(&project, file, &[]);
        assert_eq!(answer.code, 1, "{file}: {}", answer.out);
        assert!(answer.out.contains(&format!("{file}: will not run")), "{}", answer.out);
        for text in says {
            assert!(answer.out.contains(text), "{file}: {}", answer.out);
        }
    }
    let answer = check(&project, "absent.wasm", &[]);
    assert!(answer.code == 1 && answer.out.is_empty() && answer.err.contains("cannot read") && answer.err.contains("absent.wasm"), "{}", answer.err);
}

#[test]
fn json_is_for_programs() {
    let project = good().with_guest("neither.wasm", "neither");
    let answer = check(&project, "", &["--json"]);
    let report: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let names: Vec<_> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
    assert_eq!((answer.code, names, &report["ok"]), (0, vec!["lean", "p2", "site"], &true.into()));
    assert!(report["config"].as_str().unwrap().ends_with("tovuk.toml"), "{report}");
    assert!(checks.iter().all(|check| check["ok"] == true && check["message"].is_string() && check.get("agent_instruction").is_none()), "{report}");
    let imports = checks[0]["description"]["imports"].as_array().unwrap();
    assert!(imports.iter().any(|import| import.as_str().unwrap().starts_with("tovuk:bindings/service")), "{report}");

    let answer = check(&project, "neither.wasm", &["--json"]);
    let report: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!((answer.code, &report["ok"], &report["checks"][0]["ok"]), (1, &false.into(), &false.into()));
    assert!(report["checks"][0]["message"].as_str().unwrap().contains("neither"), "{report}");
}

#[test]
fn a_mistake_in_the_project_file_is_told_with_its_place() {
    let project = good();
    project.write("tovuk.toml", GOOD.replace("routes", "rout"));
    let answer = check(&project, "", &[]);
    assert_eq!((answer.code, answer.out.as_str()), (1, ""));
    for text in ["unknown key `rout`", "tovuk.toml:3:1", "did you mean `routes`?"] {
        assert!(answer.err.contains(text), "{text}: {}", answer.err);
    }
    let none = check(&good(), "public", &[]);
    assert!(none.code == 1 && none.err.contains("there is no tovuk.toml") && none.err.contains("tovuk new"), "{}", none.err);
}

#[test]
fn what_is_not_built_is_told_and_can_be_built() {
    let project = Project::new(&[("tovuk.toml", "[services.api]\nbuild = \"cp source.wasm worker.wasm\"\ncomponent = \"worker.wasm\"\n")]);
    let answer = check(&project, "", &[]);
    assert_eq!(answer.code, 1);
    assert!(answer.out.contains("worker.wasm is not built yet\n  Run `tovuk check --build`"), "{}", answer.out);
    let answer = check(&project, "", &["--build"]);
    assert!(answer.code == 1 && answer.out.contains("the build of `api` failed"), "{}", answer.out);
    let answer = check(&project.with_guest("source.wasm", "hello"), "", &["--build"]);
    assert!(answer.code == 0 && answer.out.starts_with("api: ok, serves tovuk:http/handler"), "{}{}", answer.out, answer.err);
}

#[test]
fn the_schema_describes_the_project_file() {
    let answer = ask(&["schema"]);
    let schema: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(answer.code, 0);
    assert!(schema["$schema"].as_str().unwrap().contains("json-schema.org"), "{schema}");
    assert!(answer.out.contains("\"services\"") && answer.out.contains("\"routes\"") && answer.out.contains("\"bindings\""), "{schema}");
}

#[test]
fn every_command_has_help_and_a_slip_is_told() {
    let help = ask(&["--help"]);
    assert_eq!((help.code, help.err.as_str()), (0, ""));
    for command in ["dev", "new", "check", "schema"] {
        assert!(help.out.contains(&format!("  {command} ")), "{command}: {}", help.out);
        let own = ask(&[command, "--help"]);
        let usage = own.out.lines().find(|line| line.starts_with("Usage: ")).unwrap();
        // The program's own name is another here than for its users.
        assert!(own.code == 0 && usage.split(' ').nth(2) == Some(command), "{}", own.out);
    }
    assert!(ask(&["dev", "--help"]).out.contains("--listen"));
    let slip = ask(&["chek"]);
    assert!(slip.code != 0 && slip.out.is_empty() && slip.err.contains("'check'"), "{}", slip.err);
}
