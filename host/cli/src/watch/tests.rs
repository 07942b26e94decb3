//! Watching real folders. No test sleeps: each waits for the change that it makes last.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;

use super::*;
use crate::project_file;

const TOML: &str = "[services.api]\nroot = \"api\"\nassets = \"../web\"\n[services.site]\nroot = \"site\"\nbuild = \"npm run build\"\nassets = \"public\"\n\
    [services.whole]\nbuild = \"make\"\ncomponent = \"made/whole.wasm\"\n";

struct Project {
    directory: tempfile::TempDir,
    watcher: Watcher,
}

impl Project {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| write(directory.path(), name, text);
        write("tovuk.toml", TOML);
        for file in [
            "api/Cargo.toml",
            "api/src/lib.rs",
            "api/target/x",
            "site/package.json",
            "site/public/x",
            "web/index.html",
            "made/x",
            "shared/src/lib.rs",
        ] {
            write(file, "");
        }
        let loaded = project_file::load(directory.path()).unwrap_or_else(|error| panic!("{}", error.render(project_file::Style::Plain)));
        let watcher = Watcher::new(&loaded, &[]).unwrap();
        Self { directory, watcher }
    }

    fn write(&self, name: &str, text: &str) {
        write(self.directory.path(), name, text);
    }

    /// All changes up to the one that this makes now, in `api/marker`.
    async fn changes(&mut self, marker: &str) -> Changes {
        self.write("web/marker", marker);
        let mut all = Changes::default();
        while !all.services.contains("api") {
            let next = tokio::time::timeout(Duration::from_secs(20), self.watcher.next()).await.expect("a change is told").unwrap();
            all.project_file |= next.project_file;
            all.env_file |= next.env_file;
            all.services.extend(next.services);
        }
        all
    }
}

fn write(directory: &Path, name: &str, text: &str) {
    let path = directory.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn services(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn a_change_is_told_for_its_service_alone() {
    let mut project = Project::new();
    project.write("site/src/app.js", "1");
    assert_eq!(project.changes("1").await, Changes { services: services(&["api", "site"]), ..Changes::default() });
    assert_eq!(project.changes("2").await, Changes { services: services(&["api"]), ..Changes::default() });
}

#[tokio::test]
async fn what_builds_and_editors_write_is_not_told() {
    let mut project = Project::new();
    for file in [
        "site/node_modules/a.js",
        "site/public/index.html",
        "site/dist/a.js",
        "made/whole.wasm",
        ".tovuk/data.db",
        ".git/index",
        "site/.app.js.swp",
        "site/4913",
        "site/app.js~",
    ] {
        project.write(file, "1");
    }
    assert_eq!(project.changes("1").await.services, services(&["api"]));
}

#[tokio::test]
async fn a_file_that_is_written_with_the_same_content_is_told_once() {
    let mut project = Project::new();
    project.write("site/generated.js", "same");
    assert_eq!(project.changes("1").await.services, services(&["api", "site"]));
    project.write("site/generated.js", "same");
    assert_eq!(project.changes("2").await.services, services(&["api"]));
    fs::remove_file(project.directory.path().join("site/generated.js")).unwrap();
    assert_eq!(project.changes("3").await.services, services(&["api", "site"]));
}

#[tokio::test]
async fn the_project_file_and_the_secrets_are_told_apart() {
    let mut project = Project::new();
    project.write("tovuk.toml", &format!("{TOML}# changed\n"));
    project.write(".env.local", "A=1");
    let changes = project.changes("1").await;
    assert_eq!((changes.project_file, changes.env_file, changes.services), (true, true, services(&["api"])));
}

#[tokio::test]
async fn files_in_new_folders_are_told() {
    let mut project = Project::new();
    project.write("site/new/deep/a.js", "1");
    assert_eq!(project.changes("1").await.services, services(&["api", "site"]));
    project.write("site/new/deep/a.js", "2");
    assert_eq!(project.changes("2").await.services, services(&["api", "site"]));
}

#[tokio::test]
async fn changes_that_come_while_nobody_waits_are_kept() {
    let mut project = Project::new();
    project.write("site/a.js", "1");
    let mut during_a_build = Box::pin(project.watcher.next());
    // Asked once and dropped, as by a loop that turns to something else.
    let _ = futures_poll_once(&mut during_a_build).await;
    drop(during_a_build);
    assert!(project.changes("1").await.services.contains("site"));
}

/// Polls a future once.
async fn futures_poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(context) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[test]
fn paths_belong_to_the_innermost_service_and_shared_ones_to_all() {
    let project = Project::new();
    let layout = &project.watcher.layout;
    let owners = |name: &str| {
        let mut changes = Changes::default();
        layout.add(&fs::canonicalize(project.directory.path()).unwrap().join(name), &mut changes);
        changes.services.into_iter().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(owners("api/src/lib.rs"), "api");
    assert_eq!(owners("site/src/app.js"), "site");
    assert_eq!(owners("src/main.c"), "whole");
    assert_eq!(owners("web/index.html"), "api");
    assert_eq!(owners("api/target/wasm32-wasip2/release/api.wasm"), "");
}

#[test]
fn a_shared_package_beside_the_services_changes_all_of_them() {
    let directory = tempfile::tempdir().unwrap();
    for file in ["a/Cargo.toml", "b/Cargo.toml", "shared/src/lib.rs"] {
        write(directory.path(), file, "");
    }
    write(directory.path(), "tovuk.toml", "[services.a]\nroot = \"a\"\n[services.b]\nroot = \"b\"\n");
    let loaded = project_file::load(directory.path()).unwrap();
    let layout = Layout::new(&loaded, &[]);
    let mut changes = Changes::default();
    let base = fs::canonicalize(directory.path()).unwrap();
    layout.add(&base.join("README.md"), &mut changes);
    assert!(changes.is_empty());
    layout.add(&base.join("shared/src/lib.rs"), &mut changes);
    assert_eq!(changes.services, services(&["a", "b"]));
}

#[test]
fn a_component_that_no_build_makes_is_a_source_wherever_it_lies() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "hand/dist/worker.wasm", "");
    write(
        directory.path(),
        "tovuk.toml",
        "[services.hand]\nroot = \"hand\"\ncomponent = \"dist/worker.wasm\"\n[services.made]\nbuild = \"make\"\ncomponent = \"made.wasm\"\n",
    );
    let layout = Layout::new(&project_file::load(directory.path()).unwrap(), &[]);
    let mut changes = Changes::default();
    let base = fs::canonicalize(directory.path()).unwrap();
    layout.add(&base.join("made.wasm"), &mut changes);
    assert!(changes.is_empty());
    layout.add(&base.join("hand/dist/worker.wasm"), &mut changes);
    assert_eq!(changes.services, services(&["hand"]));
}
