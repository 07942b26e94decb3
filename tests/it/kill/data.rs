//! What a host has acknowledged of data, and clients that write more of it: keys of KV, rows of SQLite, objects. Each writer has keys, rows and paths of
//! its own, so that what was answered last to it is what has to be there; what it had asked for when the host was killed may be there as well.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Uri};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tovuk_tests::{Protocol, Reply, Served};

use super::moment::Answers;

/// Writers of each kind.
const WRITERS: usize = 4;
/// Keys, or paths, that take turns at each writer.
const PLACES: u64 = 12;
/// Keys that are written together. They always have one value.
const TOGETHER: u64 = 40;

/// What a place may hold: what was acknowledged, and what was asked for since. Nothing stands for what is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Held {
    acknowledged: Option<u64>,
    tried: Option<Option<u64>>,
}

impl Held {
    /// Holds it against what is there, which is certain from now on.
    fn settle(&mut self, place: &str, found: Option<u64>) {
        let tried = self.tried.take();
        assert!(
            found == self.acknowledged || tried == Some(found),
            "{place} holds {found:?}; {:?} was acknowledged, {tried:?} tried",
            self.acknowledged
        );
        self.acknowledged = found;
    }
}

#[derive(Default)]
struct Known {
    next: u64,
    keys: BTreeMap<String, Held>,
    together: BTreeMap<usize, Held>,
    /// By writer, the number of rows.
    rows: BTreeMap<usize, Held>,
    objects: BTreeMap<String, Held>,
    summary: BTreeMap<&'static str, u32>,
}

/// What is known of a host's data over all its lives.
pub struct Data {
    known: Mutex<Known>,
    /// Told of each answer.
    pub answers: Answers,
}

/// The content of an object: its number says how long it is and what it holds.
fn content(number: u64) -> Bytes {
    let mut random = fastrand::Rng::with_seed(number);
    let length = random.usize(0..40_000);
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend(std::iter::repeat_with(|| random.u8(..)).take(length));
    bytes.into()
}

fn number_of(content: &[u8]) -> u64 {
    u64::from_be_bytes(content[..8].try_into().unwrap())
}

fn value(number: u64) -> String {
    STANDARD.encode(content(number))
}

/// A request to a URL of this machine; nothing when the host was gone before it had answered.
pub async fn at_url(method: Method, url: &str, body: Bytes) -> Option<Reply> {
    let url: Uri = url.parse().unwrap();
    let authority = url.authority().unwrap();
    let stream = TcpStream::connect(("127.0.0.1", authority.port_u16().unwrap())).await.ok()?;
    let target = url.path_and_query().unwrap().as_str();
    let request = Request::builder().method(method).uri(target).header("host", authority.as_str());
    tovuk_tests::ask(stream, Protocol::Http1, request.body(Full::new(body)).unwrap()).await.ok()
}

impl Data {
    /// Makes what the writers write to.
    pub async fn begin(host: &Served) -> Self {
        host.ok("POST", "/v1/services", Some(&json!({"name": "app"}))).await;
        host.ok("POST", "/v1/services/app/kv/namespaces", Some(&json!({"name": "KEYS"}))).await;
        host.ok("POST", "/v1/services/app/sqlite/databases", Some(&json!({"name": "DB"}))).await;
        let create = json!({"sql": "create table rows (writer integer, number integer, half integer, primary key (writer, number, half)) strict"});
        host.ok("POST", "/v1/services/app/sqlite/DB/query", Some(&create)).await;
        Self { known: Mutex::default(), answers: Answers::new() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap()
    }

    fn next(&self) -> u64 {
        let mut known = self.known();
        known.next += 1;
        known.next
    }

    /// What was done.
    pub fn summary(&self) -> String {
        format!("{:?}", self.known().summary)
    }

    /// Writes until the host is gone.
    pub async fn work(model: Arc<Self>, api: SocketAddr, token: String) {
        let writer = Writer { model: &model, api, token };
        let all = (0..WRITERS).map(|number| {
            let writer = &writer;
            async move { tokio::join!(writer.keys(number), writer.together(number), writer.rows(number), writer.objects(number)) }
        });
        futures::future::join_all(all).await;
    }

    /// Holds a host that was killed and has started again against what it had acknowledged.
    pub async fn check(&self, host: &Served) {
        let (keys, together, objects) = {
            let known = self.known();
            (known.keys.keys().cloned().collect::<Vec<_>>(), known.together.keys().copied().collect::<Vec<_>>(), known.objects.clone())
        };
        for some in keys.chunks(100) {
            let found = host.ok("POST", "/v1/services/app/kv/KEYS/bulk", Some(&json!({"keys": some}))).await;
            self.settle_keys(some, &found);
        }
        for writer in together {
            let names: Vec<_> = (0..TOGETHER).map(|number| format!("together/{writer}/{number}")).collect();
            let found = host.ok("POST", "/v1/services/app/kv/KEYS/bulk", Some(&json!({"keys": names}))).await;
            let values: Vec<_> = names.iter().map(|name| value_of(&found, name)).collect();
            assert!(values.iter().all(|value| *value == values[0]), "{writer} has written half of its keys: {values:?}");
            self.known().together.get_mut(&writer).unwrap().settle(&format!("together/{writer}"), values[0]);
        }
        self.check_rows(host).await;
        for path in objects.into_keys() {
            let found = self.object(host, &path).await;
            self.known().objects.get_mut(&path).unwrap().settle(&path, found);
        }
    }

    fn settle_keys(&self, names: &[String], found: &Value) {
        for name in names {
            let found = value_of(found, name);
            self.known().keys.get_mut(name).unwrap().settle(name, found);
        }
    }

    async fn check_rows(&self, host: &Served) {
        let sql = "select writer, count(*) as rows, max(number) as last, count(distinct number) as numbers from rows group by writer";
        let found = host.ok("POST", "/v1/services/app/sqlite/DB/query", Some(&json!({"sql": sql}))).await;
        let mut by_writer = BTreeMap::new();
        for row in found["rows"].as_array().unwrap() {
            let of = |name: &str| row[name].as_u64().unwrap();
            // Each number has two rows, in one transaction, and none is left out.
            assert!(of("rows") == 2 * of("numbers") && of("last") == of("numbers"), "{row}");
            by_writer.insert(usize::try_from(of("writer")).unwrap(), of("numbers"));
        }
        for (writer, held) in &mut self.known().rows {
            held.settle(&format!("the rows of {writer}"), by_writer.get(writer).copied());
        }
    }

    async fn object(&self, host: &Served, path: &str) -> Option<u64> {
        let reply = host.try_api(&host.token, "POST", "/v1/services/app/storage/download-url", Some(&json!({"path": path}))).await.unwrap();
        if reply.status == 404 {
            return None;
        }
        let reply = at_url(Method::GET, reply.json()["url"].as_str().unwrap(), Bytes::new()).await.unwrap();
        if reply.status == 404 {
            return None;
        }
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        let number = number_of(&reply.body);
        assert!(reply.body == content(number), "{path} has something else than object {number}");
        Some(number)
    }
}

/// The number that a key's value holds, in the answer to a bulk read.
fn value_of(found: &Value, name: &str) -> Option<u64> {
    let entry = found["values"].as_array().unwrap().iter().find(|entry| entry["key"] == name)?;
    let bytes = STANDARD.decode(entry["value"].as_str()?).unwrap();
    let number = number_of(&bytes);
    assert!(bytes == content(number), "{name} has something else than value {number}");
    Some(number)
}

/// Writes to a host until it is gone. Each task ends with the first question that is not answered.
struct Writer<'a> {
    model: &'a Data,
    api: SocketAddr,
    token: String,
}

impl Writer<'_> {
    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Option<Reply> {
        let reply = Served::ask_at(self.api, &self.token, method, path, body.as_ref()).await?;
        assert!(reply.status.is_success(), "{method} {path}: {} {}", reply.status, reply.text());
        Some(reply)
    }

    /// It was answered, so it is on disk.
    fn acknowledged(&self, what: &'static str, held: impl FnOnce(&mut Known) -> &mut Held) {
        let mut known = self.model.known();
        let held = held(&mut known);
        held.acknowledged = held.tried.take().unwrap();
        *known.summary.entry(what).or_default() += 1;
        drop(known);
        self.model.answers.add();
    }

    async fn keys(&self, writer: usize) -> Option<()> {
        loop {
            let number = self.model.next();
            let name = format!("keys/{writer}/{}", number % PLACES);
            let path = format!("/v1/services/app/kv/KEYS/values/{}", name.replace('/', "%2F"));
            let delete = number.is_multiple_of(5);
            self.model.known().keys.entry(name.clone()).or_default().tried = Some((!delete).then_some(number));
            match delete {
                true => self.ask("DELETE", &path, None).await?,
                false => self.ask("PUT", &path, Some(json!({"value": value(number), "encoding": "text"}))).await?,
            };
            self.acknowledged("keys", |known| known.keys.get_mut(&name).unwrap());
        }
    }

    async fn together(&self, writer: usize) -> Option<()> {
        loop {
            let number = self.model.next();
            self.model.known().together.entry(writer).or_default().tried = Some(Some(number));
            let entry = |at: u64| json!({"key": format!("together/{writer}/{at}"), "value": value(number)});
            self.ask("PUT", "/v1/services/app/kv/KEYS/bulk", Some(json!({"entries": (0..TOGETHER).map(entry).collect::<Vec<_>>()}))).await?;
            self.acknowledged("bulks", |known| known.together.get_mut(&writer).unwrap());
        }
    }

    async fn rows(&self, writer: usize) -> Option<()> {
        loop {
            let number = {
                let mut known = self.model.known();
                let held = known.rows.entry(writer).or_default();
                let number = held.acknowledged.unwrap_or(0) + 1;
                held.tried = Some(Some(number));
                number
            };
            let half = |half: u32| json!({"sql": "insert into rows values (?, ?, ?)", "params": [writer, number, half]});
            self.ask("POST", "/v1/services/app/sqlite/DB/query", Some(json!({"statements": [half(1), half(2)]}))).await?;
            self.acknowledged("transactions", |known| known.rows.get_mut(&writer).unwrap());
        }
    }

    async fn objects(&self, writer: usize) -> Option<()> {
        loop {
            let number = self.model.next();
            let path = format!("objects/{writer}/{}", number % PLACES);
            let delete = number.is_multiple_of(7);
            self.model.known().objects.entry(path.clone()).or_default().tried = Some((!delete).then_some(number));
            if delete {
                let reply = Served::ask_at(self.api, &self.token, "DELETE", &format!("/v1/services/app/storage?path={path}"), None).await?;
                assert!(reply.status.is_success() || reply.status == 404, "{path}: {}", reply.text());
            } else {
                let bytes = content(number);
                let new = json!({"path": path, "contentType": "application/octet-stream", "sizeBytes": bytes.len(), "publicRead": false});
                let upload = self.ask("POST", "/v1/services/app/storage/upload-url", Some(new)).await?.json();
                let sent = at_url(Method::PUT, upload["url"].as_str().unwrap(), bytes).await?;
                assert!(sent.status.is_success(), "{path}: {} {}", sent.status, sent.text());
                self.ask("POST", "/v1/services/app/storage/complete", Some(json!({"path": upload["path"]}))).await?;
            }
            self.acknowledged("objects", |known| known.objects.get_mut(&path).unwrap());
        }
    }
}
