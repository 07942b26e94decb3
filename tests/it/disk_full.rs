//! A disk without room: every door that would write says so, nothing is half written, what is there can be read, and all of it works again as soon as
//! there is room, without a restart.

use std::fs::File;
use std::io::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tovuk_tests::{Served, component, component_body};

use crate::TOVUK;
use crate::kill::{assert_whole, at_url};

/// Room for the host's own files, for what is written here, and not much more.
const DISK_MIB: u32 = 96;
/// Larger than what is left in pages that were begun.
const LARGE: usize = 200_000;

struct Doors<'a> {
    host: &'a Served,
}

impl Doors<'_> {
    /// The status and the code of an answer.
    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let reply = self.host.try_api(&self.host.token, method, path, body.as_ref()).await.unwrap();
        (reply.status.as_u16(), reply.json())
    }

    async fn put_key(&self, name: &str) -> (u16, Value) {
        let value = json!({"value": "v".repeat(LARGE), "encoding": "text"});
        self.ask("PUT", &format!("/v1/services/app/kv/KEYS/values/{name}"), Some(value)).await
    }

    async fn insert(&self) -> (u16, Value) {
        let body = json!({"sql": "insert into t (body) values (randomblob(?))", "params": [LARGE]});
        self.ask("POST", "/v1/services/app/sqlite/DB/query", Some(body)).await
    }

    async fn rows(&self) -> Value {
        let (status, found) = self.ask("POST", "/v1/services/app/sqlite/DB/query", Some(json!({"sql": "select count(*) as n from t"}))).await;
        assert_eq!(status, 200, "{found}");
        found["rows"][0]["n"].clone()
    }

    async fn put_object(&self, path: &str) -> (u16, Value) {
        let new = json!({"path": path, "contentType": "text/plain", "sizeBytes": LARGE, "publicRead": false});
        let (status, upload) = self.ask("POST", "/v1/services/app/storage/upload-url", Some(new)).await;
        if status != 200 {
            return (status, upload);
        }
        let sent = at_url(Method::PUT, upload["url"].as_str().unwrap(), Bytes::from(vec![b'o'; LARGE])).await.unwrap();
        if !sent.status.is_success() {
            return (sent.status.as_u16(), sent.json());
        }
        self.ask("POST", "/v1/services/app/storage/complete", Some(json!({"path": path}))).await
    }

    async fn object(&self, path: &str) -> u16 {
        let (status, found) = self.ask("POST", "/v1/services/app/storage/download-url", Some(json!({"path": path}))).await;
        match status {
            200 => at_url(Method::GET, found["url"].as_str().unwrap(), Bytes::new()).await.unwrap().status.as_u16(),
            status => status,
        }
    }

    async fn deploy(&self) -> (u16, Value) {
        self.ask("POST", "/v1/deploy", Some(component_body("other", &component("hello"), json!({"routes": ["/*"]}), ""))).await
    }

    async fn secret(&self, number: usize) -> (u16, Value) {
        let body = json!({"name": format!("SECRET_{}", number % 60), "value": STANDARD.encode(vec![0; 3_000])});
        self.ask("PUT", "/v1/services/app/env", Some(body)).await
    }
}

/// Asks until it is refused for want of room; how often it was not. What was begun before can leave a little.
async fn until_full(what: &str, mut ask: impl AsyncFnMut(usize) -> (u16, Value)) -> usize {
    for number in 0..2_000 {
        let (status, said) = ask(number).await;
        if status >= 400 {
            assert_eq!((status, said["code"].as_str()), (503, Some("storage_failed")), "{what}: {said}");
            assert!(said["agent_instruction"].as_str().unwrap().contains("Nothing was changed"), "{what}: {said}");
            return number;
        }
    }
    panic!("{what} is never refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_at_every_door_and_nothing_is_lost() {
    let Some(host) = Served::on_small_disk(TOVUK, DISK_MIB).await else {
        println!("nobody may mount a file system here: not tested");
        return;
    };
    let doors = Doors { host: &host };
    host.ok("POST", "/v1/services", Some(&json!({"name": "app"}))).await;
    host.ok("POST", "/v1/services/app/kv/namespaces", Some(&json!({"name": "KEYS"}))).await;
    host.ok("POST", "/v1/services/app/sqlite/databases", Some(&json!({"name": "DB"}))).await;
    host.ok("POST", "/v1/services/app/sqlite/DB/query", Some(&json!({"sql": "create table t (id integer primary key, body blob)"}))).await;
    assert_eq!((doors.put_key("before").await.0, doors.insert().await.0, doors.put_object("before").await.0), (200, 200, 200));

    let ballast = host.data.join("ballast");
    let mut file = File::create_new(&ballast).unwrap();
    while file.write_all(&[0; 65_536]).is_ok() {}
    while file.write_all(&[0; 512]).is_ok() {}
    drop(file);

    let rows = 1 + until_full("sqlite", async |_| doors.insert().await).await;
    let keys = until_full("kv", async |number| doors.put_key(&format!("k{number}")).await).await;
    let objects = until_full("objects", async |number| doors.put_object(&format!("o{number}")).await).await;
    until_full("deploy", async |_| doors.deploy().await).await;
    until_full("secrets", async |number| doors.secret(number).await).await;

    let (status, backup) = doors.ask("POST", "/v1/services/app/sqlite/DB/backups", None).await;
    assert_eq!((status, &backup["code"]), (503, &json!("storage_failed")), "{backup}");

    // What was answered is there, what was refused is not, and reading goes on.
    assert_eq!(doors.rows().await, json!(rows));
    assert_eq!(doors.ask("GET", "/v1/services/app/kv/KEYS/values/before", None).await.0, 200);
    assert_eq!(doors.ask("GET", &format!("/v1/services/app/kv/KEYS/values/k{keys}"), None).await.0, 404);
    assert_eq!((doors.object("before").await, doors.object(&format!("o{objects}")).await), (200, 404));
    let again = doors.ask("DELETE", "/v1/services/app/kv/KEYS/values/none", None).await;
    assert!(again.0 == 200 || again.1["code"] == "storage_failed", "{}", again.1);

    std::fs::remove_file(&ballast).unwrap();
    assert_eq!(doors.put_key("after").await.0, 200);
    assert_eq!((doors.insert().await.0, doors.rows().await), (200, json!(rows + 1)));
    assert_eq!((doors.put_object("after").await.0, doors.object("after").await), (200, 200));
    assert_eq!(doors.secret(0).await.0, 200);
    let (status, deployed) = doors.deploy().await;
    assert_eq!(status, 202, "{deployed}");
    assert_eq!(host.built(deployed["build_job"]["id"].as_str().unwrap()).await["status"], "succeeded");
    for number in 0..keys {
        assert_eq!(doors.ask("GET", &format!("/v1/services/app/kv/KEYS/values/k{number}"), None).await.0, 200);
    }
    for number in 0..objects {
        assert_eq!(doors.object(&format!("o{number}")).await, 200);
    }
    let (status, backup) = doors.ask("POST", "/v1/services/app/sqlite/DB/backups", None).await;
    assert_eq!(status, 201, "{backup}");
    assert_whole(&host.data);
}
