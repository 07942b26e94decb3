//! What `tovuk new` writes, used as its README says: made, run with `tovuk dev`, asked.

use std::process::Command;

use tovuk_tests::{Dev, Project, Reply, repository, run, tovuk};

use crate::TOVUK;

/// A project made of a template. Cargo is given the versions that are known here, so that a run does not depend on what was published today.
fn made(template: &str, lock: Option<(&str, &str)>) -> (Project, String) {
    let name = format!("template-{template}");
    let project = Project::kept(&name);
    let output = run(tovuk(TOVUK, &["new", project.path().to_str().unwrap(), "--template", template]));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    if let Some((example, path)) = lock {
        project.write(path, std::fs::read(repository().join("examples").join(example).join("Cargo.lock")).unwrap());
    }
    (project, said)
}

/// The answer to what `tovuk new` says to ask in the end.
async fn tried(dev: &Dev, name: &str, said: &str) -> Reply {
    let prefix = format!("curl http://{name}.localhost:8787");
    let path = said.lines().find_map(|line| line.trim().strip_prefix(&prefix)).unwrap_or_else(|| panic!("no {prefix} in {said}"));
    dev.get(name, path).await
}

#[tokio::test]
async fn rust() {
    let (project, said) = made("rust", Some(("shop", "Cargo.lock")));
    let mut dev = Dev::start(TOVUK, project.path()).await;
    assert_eq!(tried(&dev, "template-rust", &said).await.text(), "Hello, you!\n");
    dev.program.any_line(&["template-rust | ", "greeting you"]).await;
    assert_eq!(dev.get("template-rust", "/healthz").await.text(), "ok\n");
    let post = dev.request("template-rust", "/sum").method("POST").body(r#"{"numbers":[1,2.5]}"#.to_owned().into()).unwrap();
    assert_eq!(dev.client().whole(post).await.text(), r#"{"sum":3.5}"#);
}

#[tokio::test]
async fn rust_wasi_http() {
    let (project, said) = made("rust-wasi-http", Some(("stream", "Cargo.lock")));
    let dev = Dev::start(TOVUK, project.path()).await;
    let count = tried(&dev, "template-rust-wasi-http", &said).await;
    let lines: Vec<_> = count.text().lines().collect();
    assert_eq!((lines.len(), lines[0], lines[99_999]), (100_000, "1", "100000"));
    let echo = dev.request("template-rust-wasi-http", "/echo").method("PUT").body("said".to_owned().into()).unwrap();
    assert_eq!(dev.client().whole(echo).await.text(), "said");
}

#[tokio::test]
async fn fullstack() {
    let (project, said) = made("fullstack", Some(("shop", "api/Cargo.lock")));
    let mut dev = Dev::start(TOVUK, project.path()).await;
    let name = "template-fullstack";
    assert_eq!(tried(&dev, name, &said).await.text(), r#"{"message":"Hello, world!"}"#);
    let page = dev.get(name, "/").await;
    assert!(page.status == 200 && page.headers["content-type"].to_str().unwrap().starts_with("text/html"), "{:?}", page.headers);
    assert!(page.text().contains("<h1>template-fullstack</h1>"), "{}", page.text());
    let script = dev.get(name, "/main.js").await;
    assert!(script.status == 200 && script.headers["content-type"].to_str().unwrap().contains("javascript"), "{:?}", script.headers);
    // An edited page is served as it is now.
    project.write("web/index.html", "<h1>edited</h1>");
    dev.answers(name, "/", "<h1>edited</h1>").await;
}

#[tokio::test]
async fn static_files() {
    let (project, said) = made("static", None);
    let mut dev = Dev::start(TOVUK, project.path()).await;
    let page = tried(&dev, "template-static", &said).await;
    assert!(page.status == 200 && page.text().contains("template-static"), "{}", page.text());
    project.write("public/index.html", "<h1>edited</h1>");
    dev.answers("template-static", "/", "<h1>edited</h1>").await;
}

#[tokio::test]
async fn js() {
    needs_node();
    let (project, said) = made("js", None);
    let dev = Dev::start(TOVUK, project.path()).await;
    let name = "template-js";
    assert!(dev.program.text().contains("dist/worker.wasm"), "{}", dev.program.text());
    assert_eq!(tried(&dev, name, &said).await.text(), r#"{"message":"Hello, world!"}"#);
    assert_eq!(dev.get(name, "/hello?name=ada").await.text(), r#"{"message":"Hello, ada!"}"#);
    assert!(dev.get(name, "/service").await.json()["id"].as_str().unwrap().starts_with("service_"));
}

/// Fails where the tools for workers in JavaScript are missing, with what to install.
pub fn needs_node() {
    for (program, arguments) in [("node", ["-e", "process.exit(+(process.versions.node.split('.')[0] < 20))"]), ("npm", ["--version", "--silent"])] {
        let works = Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success());
        assert!(
            works,
            "this test needs `{program}` of Node.js 20 or newer: install it from https://nodejs.org, or on Debian with `apt-get install nodejs npm`"
        );
    }
}
