//! Builds with real programs in folders of their own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::sync::Mutex;

use super::*;

struct Project {
    directory: tempfile::TempDir,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Project {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self { directory, lines: Arc::default() }
    }

    fn sink(&self) -> Sink {
        let lines = Arc::clone(&self.lines);
        Arc::new(move |line| lines.lock().unwrap().push(line.to_owned()))
    }

    async fn build(&self, toml: &str) -> Result<Built, BuildError> {
        let project = tovuk_kernel::project::parse(&format!("[services.a]\n{toml}")).unwrap().project;
        build(self.directory.path(), "a", &project.services["a"], self.sink()).await
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn output_is_passed_on_line_by_line_with_the_service_and_the_component_is_returned() {
    let project = Project::new(&[]);
    let built = project.build("build = \"sh -c 'echo one; echo two >&2; printf three; touch a.wasm'\"\ncomponent = \"a.wasm\"").await.unwrap();
    assert_eq!(built.component.unwrap(), project.directory.path().join("a.wasm"));
    let mut lines = project.lines();
    lines.sort();
    assert_eq!(lines, ["a | one", "a | three", "a | two"]);
}

#[tokio::test]
async fn a_failed_command_is_told_with_its_status_and_the_end_of_its_output() {
    let project = Project::new(&[]);
    let error = project.build("build = \"sh -c 'seq 1 100; exit 3' && touch never\"\ncomponent = \"a.wasm\"").await.unwrap_err();
    assert!(error.to_string().contains("exit code 3"), "{error}");
    assert_eq!(error.tail().last().unwrap(), "100");
    assert!(error.tail().len() < 100 && project.lines().len() == 100);
    assert!(!project.directory.path().join("never").exists());
}

#[tokio::test]
async fn a_missing_program_is_told_with_the_way_to_have_it() {
    let project = Project::new(&[]);
    let error = project.build("build = \"componentize-nothing x\"\ncomponent = \"a.wasm\"").await.unwrap_err();
    assert!(matches!(&error, BuildError::NotFound { program, .. } if program == "componentize-nothing"), "{error}");
}

#[tokio::test]
async fn a_missing_component_is_told_with_the_files_that_are_there() {
    let project = Project::new(&[("dist/worker.wasm", ""), ("node_modules/x.wasm", "")]);
    let text = project.build("build = \"sh -c true\"\ncomponent = \"dist/wrker.wasm\"").await.unwrap_err().to_string();
    assert!(text.contains("dist/wrker.wasm") && text.contains("dist/worker.wasm") && !text.contains("node_modules"), "{text}");
}

#[tokio::test]
async fn missing_static_files_are_told() {
    let project = Project::new(&[]);
    let error = project.build("build = \"sh -c true\"\nassets = \"dist\"").await.unwrap_err();
    assert!(matches!(&error, BuildError::NoAssets { path, .. } if path.ends_with("dist")), "{error}");
}

#[tokio::test]
async fn a_dropped_build_ends_the_processes_it_has_started() {
    let project = Project::new(&[]);
    // The inner shell is not the child itself: only ending the whole group ends it. It holds the fifo open for writing.
    let fifo = project.directory.path().join("alive");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let toml = "build = \"sh -c 'sh -c \\\"exec 3>alive; echo up >&3; while :; do read x <&3; done\\\"; true'\"\ncomponent = \"a.wasm\"";
    let mut running = Box::pin(project.build(toml));
    let opened = {
        let fifo = fifo.clone();
        tovuk_kernel::threads::spawn_blocking(move || {
            use std::io::{BufRead, BufReader};
            let mut reader = BufReader::new(fs::File::open(fifo).unwrap());
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            (reader, line)
        })
    };
    let (mut reader, line) = tokio::select! {
        opened = opened => opened.unwrap(),
        ended = &mut running => panic!("the build ended: {ended:?}"),
    };
    assert_eq!(line, "up\n");
    drop(running);
    // The end of the file comes when the last process that holds it has ended.
    let end = tovuk_kernel::threads::spawn_blocking(move || {
        use std::io::Read;
        reader.read_to_end(&mut Vec::new())
    });
    tokio::time::timeout(Duration::from_secs(20), end).await.expect("the processes have ended").unwrap().unwrap();
}

async fn located(files: &[(&str, &str)], toml: &str) -> Result<String, ComponentError> {
    let project = Project::new(files);
    let parsed = tovuk_kernel::project::parse(&format!("[services.a]\n{toml}")).unwrap().project;
    let path = component_path(project.directory.path(), &parsed.services["a"]).await?.unwrap();
    let base = fs::canonicalize(project.directory.path()).unwrap();
    Ok(path.strip_prefix(base).unwrap().to_str().unwrap().to_owned())
}

const LIBRARY: &str = "[package]\nname = \"my-worker\"\nedition = \"2024\"\n[lib]\ncrate-type = [\"cdylib\"]\n";

#[tokio::test]
async fn cargo_says_where_the_component_is() {
    let library = located(&[("Cargo.toml", LIBRARY), ("src/lib.rs", ""), ("src/main.rs", "")], "").await.unwrap();
    assert_eq!(library, "target/wasm32-wasip2/release/my_worker.wasm");
    let binary = "[package]\nname = \"my-worker\"\nedition = \"2024\"\n";
    assert_eq!(located(&[("Cargo.toml", binary), ("src/main.rs", "")], "").await.unwrap(), "target/wasm32-wasip2/release/my-worker.wasm");
}

#[tokio::test]
async fn a_member_of_a_workspace_is_built_into_the_target_folder_of_the_workspace() {
    let files = [("Cargo.toml", "[workspace]\nmembers = [\"api\"]\nresolver = \"3\"\n"), ("api/Cargo.toml", LIBRARY), ("api/src/lib.rs", "")];
    assert_eq!(located(&files, "root = \"api\"").await.unwrap(), "target/wasm32-wasip2/release/my_worker.wasm");
    assert_eq!(located(&files, "").await.unwrap(), "target/wasm32-wasip2/release/my_worker.wasm", "the only member");
}

#[tokio::test]
async fn packages_without_one_component_are_told() {
    let none = "[package]\nname = \"x\"\nedition = \"2024\"\n";
    let text = located(&[("Cargo.toml", none), ("src/lib.rs", "")], "").await.unwrap_err().to_string();
    assert!(text.contains("crate-type = [\"cdylib\"]"), "{text}");
    let text = located(&[("Cargo.toml", none), ("src/bin/one.rs", ""), ("src/bin/two.rs", "")], "").await.unwrap_err().to_string();
    assert!(text.contains("one.wasm") && text.contains("two.wasm"), "{text}");
    let text = located(&[("Cargo.toml", "x")], "").await.unwrap_err().to_string();
    assert!(text.contains("cargo metadata"), "{text}");
    let text = located(&[], "build = \"make\"").await.unwrap_err().to_string();
    assert!(text.contains("component = "), "{text}");
}
