//! The examples, run where they lie with `tovuk dev` and asked what their READMEs say. One test each, because two may not build one folder at once.

use bytes::Bytes;
use futures::stream;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use rustix::process::Signal;
use tovuk_tests::{Dev, ran, repository, tovuk};

use crate::TOVUK;
use crate::templates::needs_node;

async fn example(name: &str, more: &[&str]) -> Dev {
    let folder = repository().join("examples").join(name);
    Dev::of(tovuk(TOVUK, &[&["dev", folder.to_str().unwrap(), "--listen", "127.0.0.1:0"], more].concat())).await
}

#[tokio::test]
async fn shop() {
    let mut dev = example("shop", &[]).await;
    let order = |path: &str, token: Option<&str>| {
        let request = dev.request("gateway", path);
        let request = token.into_iter().fold(request, |request, token| request.header("authorization", format!("Bearer {token}")));
        let request: Request<Full<Bytes>> = request.body(Full::default()).unwrap();
        let client = dev.client();
        async move { client.whole(request).await }
    };
    let found = order("/orders/42", Some("demo")).await;
    let expected = r#"{"order":42,"auth":{"user":"ada"},"billing":{"customer":"ada","order":42,"status":"paid","total_cents":8358}}"#;
    assert_eq!((found.status.as_u16(), found.text()), (200, expected));
    let refused = order("/orders/42", None).await;
    assert_eq!((refused.status.as_u16(), refused.text()), (401, r#"{"error":"send the header authorization: Bearer demo"}"#));
    assert_eq!(order("/orders/1001", Some("demo")).await.status, 404);
    for private in ["auth", "billing"] {
        assert_eq!(dev.get(private, "/").await.code(), "service_not_found", "{private}");
    }
    // The two hops of the first request, by name and by URL, and the request itself.
    dev.line(&["  3 auth → billing", "GET /customers/ada/orders/42 200"]).await;
    dev.line(&["  2 gateway → auth", "GET /check 200"]).await;
    dev.line(&["gateway ", "GET /orders/42 200"]).await;
    dev.program.any_line(&["  2 gateway → auth", "GET /check 401"]).await;
    dev.program.any_line(&["gateway ", "GET /orders/42 401"]).await;
    dev.program.signal(Signal::TERM);
    assert!(dev.program.ended().await.success(), "{}", dev.program.text());
}

/// 64 MiB in pieces of 64 KiB, the n-th of which is full of n modulo 251: pieces that are lost or swapped change the digest.
fn pieces() -> impl Iterator<Item = Bytes> {
    (0..1024_u32).map(|number| Bytes::from(vec![u8::try_from(number % 251).unwrap(); 64 << 10]))
}

/// The SHA-256 of `pieces`, by Python's hashlib.
const SHA256: &str = "1c7016b71f80bb3cf89b15d2167d19ec0f7f630e79094214ba4a72d7338df35e";

#[tokio::test]
async fn stream() {
    let dev = example("stream", &[]).await;
    let body = StreamBody::new(stream::iter(pieces().map(|piece| Ok::<_, std::convert::Infallible>(Frame::data(piece)))));
    let request = dev.request("front", "/").method("POST").body(body).unwrap();
    let answer = dev.client().send(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(answer, format!("{{\"bytes\":67108864,\"sha256\":\"{SHA256}\"}}\n"));

    let zeros = dev.get("front", "/zeros/64").await;
    assert_eq!((zeros.status.as_u16(), zeros.body.len()), (200, 64 << 20));
    assert!(zeros.body.iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn uploads() {
    let dev = example("uploads", &[]).await;
    let ask = |method: &str, host: &str, path: &str, body: &'static str| {
        let request = dev.request(host, path).method(method).body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap();
        let client = dev.client();
        async move { client.whole(request).await }
    };
    let announced = ask("POST", "uploads", "/files?name=hello.txt&size=5", "").await.json();
    let url = announced["url"].as_str().unwrap().to_owned();
    assert!(url.starts_with("http://storage.localhost:"), "{url}");
    let path = |url: &str| format!("/{}", url.splitn(4, '/').nth(3).unwrap());
    assert_eq!(ask("POST", "uploads", "/files/hello.txt/complete", "").await.status, 409, "it has not arrived");
    assert_eq!(ask("PUT", "storage", &path(&url), "hello").await.status, 200);
    assert_eq!(ask("POST", "uploads", "/files/hello.txt/complete", "").await.text(), r#"{"size":5}"#);
    assert_eq!(ask("GET", "uploads", "/files", "").await.text(), r#"{"files":[{"name":"hello.txt","size":5}]}"#);
    let fetched = ask("GET", "uploads", "/files/hello.txt", "").await;
    let url = fetched.headers["location"].to_str().unwrap();
    assert_eq!(ask("GET", "storage", &path(url), "").await.text(), "hello");
    assert_eq!(ask("DELETE", "uploads", "/files/hello.txt", "").await.text(), r#"{"deleted":true}"#);
    assert_eq!(ask("GET", "uploads", "/files/hello.txt", "").await.status, 404);
    assert!(ask("GET", "uploads", "/", "").await.text().contains("<input"));
}

#[tokio::test]
async fn js_hello() {
    needs_node();
    let mut dev = example("js-hello", &[]).await;
    let answer = dev.get("js", "/world").await;
    assert_eq!(answer.text(), r#"{"hello":"from JavaScript","method":"GET","path":"/world"}"#, "{}", dev.program.text());
    let twice = r#"{"status":200,"answered":{"hello":"from JavaScript","method":"GET","path":"/called-by-itself"}}"#;
    assert_eq!(dev.get("js", "/twice").await.text(), twice);
    dev.program.any_line(&["  2 js → js", "GET /called-by-itself 200"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nightly() {
    // What an earlier run has left.
    let _ = std::fs::remove_dir_all(repository().join("examples/nightly/.tovuk"));
    let dev = example("nightly", &[]).await;
    let here = |arguments: &[&str]| {
        let mut command = tovuk(TOVUK, arguments);
        command.current_dir(repository().join("examples/nightly"));
        tokio::task::block_in_place(|| ran(command)).ok()
    };
    let reports = async |count: usize| loop {
        let reports = dev.get("nightly", "/reports").await.json();
        if reports.as_object().unwrap().len() == count {
            return reports;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(dev.get("nightly", "/").await.text(), "visit 1\n");
    here(&["clock", "advance", "24h"]);
    let (time, count) = reports(1).await.as_object().unwrap().iter().next().map(|(time, count)| (time.clone(), count.clone())).unwrap();
    assert!(time.ends_with("T00:00:00Z") && count == 1, "{time} {count}");
    assert_eq!(dev.get("nightly", "/").await.text(), "visit 2\n");
    here(&["cron", "run", "nightly", "--service", "nightly"]);
    assert!(reports(2).await.as_object().unwrap().values().any(|count| count == 2));
}

#[tokio::test]
async fn jobs() {
    let dev = example("jobs", &[]).await;
    let here = |line: &[&str]| {
        let mut command = tovuk(TOVUK, line);
        command.current_dir(repository().join("examples/jobs"));
        ran(command)
    };
    // What an earlier run has left is still there.
    let letters = || here(&["queue", "messages", "failed_emails", "--service", "jobs", "--json"]).ok().json();
    let dead = || letters()["messages"].as_array().unwrap().len();
    let before = dead();
    for to in ["ada@example.com", "nobody@example.invalid"] {
        let body = Full::new(Bytes::from(format!(r#"{{"to":"{to}","subject":"hello"}}"#)));
        let asked = dev.client().whole(dev.request("jobs", "/emails").method("POST").body(body).unwrap()).await;
        assert_eq!(asked.status, 202, "{}", asked.text());
    }
    while dead() == before {
        here(&["clock", "advance", "1s"]).ok();
    }
    assert!(letters()["messages"][before]["body"].as_str().unwrap().contains("nobody@example.invalid"));
    let sent = dev.get("jobs", "/outbox").await.json();
    assert!(sent.as_array().unwrap().iter().all(|email| email["to"] == "ada@example.com") && !sent.as_array().unwrap().is_empty(), "{sent}");
    let metrics = here(&["queue", "metrics", "emails", "--service", "jobs", "--json"]).ok().json();
    assert_eq!((&metrics["backlogCount"], &metrics["consumerState"]), (&serde_json::json!(0), &serde_json::json!("idle")), "{metrics}");
}

#[tokio::test]
async fn sessions() {
    let dev = example("sessions", &[]).await;
    let here = |arguments: &[&str]| {
        let mut command = tovuk(TOVUK, arguments);
        command.current_dir(repository().join("examples/sessions"));
        ran(command)
    };
    let ask = |method: &str, path: &str, cookie: &str, body: &'static str| {
        let request = dev.request("sessions", path).method(method).header("cookie", cookie).header("user-agent", "a test");
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(Full::new(Bytes::from(body))).unwrap();
        let client = dev.client();
        async move { client.whole(request).await }
    };
    assert_eq!(ask("GET", "/", "", "").await.status, 401);
    let mut cookies = Vec::new();
    for _ in 0..2 {
        let login = ask("POST", "/login", "", "user=ada").await;
        assert_eq!(login.status, 303, "{}", login.text());
        let cookie = login.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        assert_eq!(ask("GET", "/", &cookie, "").await.text(), "hello ada\n");
        cookies.push(cookie);
    }
    let listed = ask("GET", "/sessions", &cookies[0], "").await.json();
    assert!(listed.as_array().unwrap().len() >= 2 && listed.as_array().unwrap().iter().all(|program| program == "a test"), "{listed}");
    assert_eq!(ask("POST", "/logout", &cookies[0], "").await.status, 303);
    assert_eq!((ask("GET", "/", &cookies[0], "").await.status.as_u16(), ask("GET", "/", &cookies[1], "").await.status.as_u16()), (401, 200));
    assert_eq!(ask("POST", "/logout-everywhere", &cookies[1], "").await.status, 303);
    assert_eq!(ask("GET", "/", &cookies[1], "").await.status, 401);
    // What is kept is seen beside the worker, and gone with the sessions.
    let keys = here(&["kv", "keys", "SESSIONS", "--service", "sessions", "--json"]).ok().json();
    assert_eq!(keys["keys"], serde_json::json!([]));
}

#[tokio::test]
async fn room() {
    let folder = repository().join("examples/room");
    // What an earlier run has left.
    let _ = std::fs::remove_dir_all(folder.join(".tovuk"));
    let mut dev = example("room", &[]).await;
    let here = |arguments: &[&str]| {
        let mut command = tovuk(TOVUK, arguments);
        command.current_dir(&folder);
        ran(command)
    };
    let ask = |method: &str, path: &str| {
        let request = dev.request("room", path).method(method).body(Full::<Bytes>::default()).unwrap();
        let client = dev.client();
        async move {
            let answer = client.whole(request).await;
            (answer.status.as_u16(), answer.text().to_owned())
        }
    };
    let shown = |visits: u32, locked_by: &str| (200, format!(r#"{{"visits":{visits},"locked_by":{locked_by}}}"#));
    assert_eq!(ask("POST", "/rooms/blue/visits").await, shown(1, "null"));
    assert_eq!(ask("PUT", "/rooms/blue/lock?by=ada").await, shown(1, r#""ada""#));
    assert_eq!(ask("PUT", "/rooms/blue/lock?by=grace").await, (409, r#"{"error":"ada has the room"}"#.to_owned()));
    let visits = futures::future::join_all((0..20).map(|_| ask("POST", "/rooms/blue/visits"))).await;
    assert!(visits.iter().all(|(status, _)| *status == 200), "{visits:?}");
    assert_eq!(ask("GET", "/rooms/blue").await, shown(21, r#""ada""#));
    // What is kept is seen beside the worker, and changed.
    let objects = here(&["state", "objects", "Room", "--service", "room", "--json"]).ok().json();
    assert_eq!((&objects["objects"][0]["name"], &objects["objects"][0]["values"]), (&serde_json::json!("blue"), &serde_json::json!(2)));
    here(&["state", "put", "Room", "blue", "visits", "40", "--service", "room"]).ok();
    here(&["clock", "advance", "30s"]).ok();
    while ask("GET", "/rooms/blue").await != shown(40, "null") {
        tokio::task::yield_now().await;
    }
    assert_eq!(ask("PUT", "/rooms/blue/lock?by=grace").await, shown(40, r#""grace""#));
    assert_eq!(ask("DELETE", "/rooms/blue/lock?by=ada").await.0, 409);
    assert_eq!(ask("DELETE", "/rooms/blue/lock?by=grace").await, shown(40, "null"));
    // The call within the request, and the alarm.
    dev.program.any_line(&["  2 room → room", "POST /.tovuk/state/Room/blue/rooms/blue/visits 200"]).await;
    dev.program.any_line(&["room ", "POST /.tovuk/state/Room/blue/alarm 204"]).await;
}
