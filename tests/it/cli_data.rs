//! The commands of data as documents have them, typed into a shell, against a host whose clock stands where the dates in them lie ahead.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tovuk_tests::{Operator, Ran, ran};

use crate::TOVUK;

/// 31 May 2026, 00:00 UTC: a day before the expiration in the documents.
const THEN_UNIX_MS: u64 = 1_780_185_600_000;

/// A folder in whose shell `tovuk` is the client of one host.
struct Shell {
    folder: tempfile::TempDir,
    api: String,
    token: String,
}

impl Shell {
    fn of(host: &Operator) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("bin")).unwrap();
        std::os::unix::fs::symlink(TOVUK, folder.path().join("bin/tovuk")).unwrap();
        Self { folder, api: format!("http://{}", host.host.api_address()), token: host.token.clone() }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn run(&self, line: &str) -> Ran {
        let mut command = Command::new("sh");
        let path = format!("{}:{}", self.path().join("bin").display(), std::env::var("PATH").unwrap());
        command.args(["-c", line]).current_dir(self.path()).env("PATH", path).env("HOME", self.path());
        command.env("TOVUK_API_BASE_URL", &self.api).env("TOVUK_TOKEN", &self.token);
        ran(command)
    }

    /// What a line that has to succeed prints.
    async fn json(&self, line: &str) -> Value {
        tokio::task::block_in_place(|| self.run(line)).ok().json()
    }
}

async fn host() -> (Operator, Shell) {
    let host = Operator::at(TOVUK, THEN_UNIX_MS).await;
    host.ok("POST", "/v1/services", Some(json!({"name": "app"}))).await;
    let shell = Shell::of(&host);
    (host, shell)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_commands_of_sqlite_run_verbatim() {
    let (_host, shell) = host().await;
    let made = shell.json("tovuk sqlite create --service service_1 DB --json").await;
    assert_eq!(made["sqliteDatabases"][0]["name"], "DB");
    let one = shell.json("tovuk sqlite query --service service_1 DB \"select 1\" --json").await;
    assert_eq!(one["rows"], json!([{"1": 1}]));
    for figure in ["rowsRead", "rowsWritten", "vmSteps", "fullscanSteps", "storageBytes", "durationMs"] {
        assert!(one[figure].is_u64(), "{figure}: {one}");
    }
    shell.json("tovuk sqlite backup create --service service_1 DB --json").await;
    let backups = shell.json("tovuk sqlite backup list --service service_1 DB --json").await;
    assert_eq!(backups["backups"][0]["id"], "sqlite_backup_1", "{backups}");
    shell.json("tovuk sqlite query --service service_1 DB \"create table later (id)\" --json").await;
    shell.json("tovuk sqlite backup restore --service service_1 DB sqlite_backup_1 --json").await;
    let tables = shell.json("tovuk sqlite query --service service_1 DB \"select name from sqlite_schema where name = 'later'\" --json").await;
    assert_eq!(tables["rows"], json!([]));
    let left = shell.json("tovuk sqlite delete --service service_1 DB --json").await;
    assert_eq!(left["sqliteDatabases"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_commands_of_kv_run_verbatim() {
    let (_host, shell) = host().await;
    shell.json("tovuk kv create --service service_1 CACHE --json").await;
    let line = r#"tovuk kv put --service service_1 CACHE user:1 '{"name":"Ada"}' --metadata '{"kind":"profile"}' --ttl 3600 --json"#;
    shell.json(line).await;
    shell.json(r#"tovuk kv put --service service_1 CACHE session:1 '{"ok":true}' --expiration 1780272000 --json"#).await;
    let found = shell.json("tovuk kv get --service service_1 CACHE user:1 --json").await;
    assert_eq!((&found["value"], &found["metadata"]), (&json!(r#"{"name":"Ada"}"#), &json!({"kind": "profile"})));
    let keys = shell.json("tovuk kv keys --service service_1 CACHE --json").await;
    assert_eq!((&keys["keys"][0]["name"], &keys["keys"][0]["expiration"]), (&json!("session:1"), &json!(1_780_272_000)));
    let left = shell.json("tovuk kv namespace delete --service service_1 CACHE --json").await;
    assert_eq!(left["kvNamespaces"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_commands_of_objects_run_verbatim() {
    let (_host, shell) = host().await;
    std::fs::write(shell.path().join("logo.png"), b"\x89PNG a logo").unwrap();
    let sent = shell.json("tovuk storage upload --service service_1 ./logo.png uploads/logo.png --public --json").await;
    assert_eq!(sent["path"], "uploads/logo.png", "{sent}");
    let listed = shell.json("tovuk storage list --service service_1 --json").await;
    assert_eq!((&listed["objects"][0]["path"], &listed["objects"][0]["sizeBytes"]), (&json!("uploads/logo.png"), &json!(11)));
    std::fs::remove_file(shell.path().join("logo.png")).unwrap();
    shell.json("tovuk storage download --service service_1 uploads/logo.png ./logo.png --json").await;
    assert_eq!(std::fs::read(shell.path().join("logo.png")).unwrap(), b"\x89PNG a logo");
    let deleted = shell.json("tovuk storage delete --service service_1 uploads/logo.png --json").await;
    assert_eq!(deleted["deleted"], json!(true), "{deleted}");
}
