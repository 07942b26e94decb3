//! The guestbook, run where it lies with `tovuk dev` and asked what its README says.

use bytes::Bytes;
use http_body_util::Full;
use serde_json::{Value, json};
use tovuk_tests::{Dev, Reply, ran, repository, tovuk};

use crate::TOVUK;

async fn ask(dev: &Dev, method: &str, path: &str, body: &str) -> Reply {
    let request = dev.request("guestbook", path).method(method);
    dev.client().whole(request.body(Full::new(Bytes::from(body.to_owned()))).unwrap()).await
}

#[tokio::test]
async fn guestbook() {
    let folder = repository().join("examples/guestbook");
    // What an earlier run has left.
    let _ = std::fs::remove_dir_all(folder.join(".tovuk"));
    let dev = Dev::of(tovuk(TOVUK, &["dev", folder.to_str().unwrap(), "--listen", "127.0.0.1:0"])).await;
    let cli = |arguments: &[&str]| {
        let mut command = tovuk(TOVUK, arguments);
        command.current_dir(&folder);
        ran(command)
    };
    for script in ["0001_entries.sql", "0002_search.sql"] {
        assert!(dev.program.text().contains(&format!("applied {script}")), "{}", dev.program.text());
    }
    let again = cli(&["sqlite", "migrate", "DB", "migrations", "--service", "guestbook", "--json"]).ok().json();
    assert_eq!(again["applied"], json!([]));

    let signed = ask(&dev, "POST", "/entries", r#"{"name":"Ada","body":"hello"}"#).await;
    assert_eq!((signed.status.as_u16(), &signed.json()["id"]), (201, &json!(1)), "{}", signed.text());
    for (body, status) in [
        (r#"{"name":"Ada","body":"hello"}"#, 409),
        (r#"{"name":"","body":"hello"}"#, 400),
        (r#"{"name":"x'); drop table entries; --","body":"\"quoted\" OR hello"}"#, 201),
    ] {
        assert_eq!(ask(&dev, "POST", "/entries", body).await.status, status, "{body}");
    }
    let bodies = async |path: &str| {
        let found = ask(&dev, "GET", path, "").await.json();
        found.as_array().unwrap_or_else(|| panic!("{found}")).iter().map(|entry| entry["body"].clone()).collect::<Vec<Value>>()
    };
    assert_eq!(bodies("/entries").await, [json!("\"quoted\" OR hello"), json!("hello")]);
    assert_eq!(bodies("/entries?before=2").await, [json!("hello")]);
    assert_eq!(bodies("/entries?q=quoted").await.len(), 1);
    assert_eq!(bodies("/entries?q=hello%22%20OR%20%22quoted").await.len(), 0, "what visitors write is no query");
    assert_eq!(ask(&dev, "DELETE", "/entries/2", "").await.status, 204);
    assert_eq!(ask(&dev, "DELETE", "/entries/2", "").await.status, 404);
    assert_eq!(bodies("/entries?q=quoted").await.len(), 0);
    let counted = cli(&["sqlite", "query", "DB", "select count(*) as n from entries", "--service", "guestbook", "--json"]).ok().json();
    assert_eq!(counted["rows"], json!([{"n": 1}]));
}
