//! `tovuk storage` against a real host: what the documents show, small files and large ones, and what is left when something fails.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tovuk_tests::{Program, Serve, full_size, serve_s3};

use crate::TOVUK;

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_commands_of_objects_run_verbatim() {
    let host = Serve::start(TOVUK).await;
    host.line("tovuk service create shop").ok();
    std::fs::write(host.home().join("logo.png"), b"\x89PNG\r\n").unwrap();
    assert_eq!(host.line("tovuk storage list --service service_1 --json").ok().json()["objects"], serde_json::json!([]));
    let done = host.line("tovuk storage upload --service service_1 ./logo.png uploads/logo.png --public --json").ok().json();
    assert_eq!((&done["path"], &done["sizeBytes"], &done["contentType"]), (&"uploads/logo.png".into(), &6.into(), &"image/png".into()));
    assert!(done["publicUrl"].as_str().unwrap().ends_with("/service_1/uploads/logo.png"), "{done}");
    std::fs::remove_file(host.home().join("logo.png")).unwrap();
    let fetched = host.line("tovuk storage download --service service_1 uploads/logo.png ./logo.png --json").ok().json();
    assert_eq!((&fetched["path"], &fetched["file"], &fetched["bytes"]), (&"uploads/logo.png".into(), &"./logo.png".into(), &6.into()));
    assert_eq!(std::fs::read(host.home().join("logo.png")).unwrap(), b"\x89PNG\r\n");
    let shown = host.line("tovuk storage --service shop").ok().stdout;
    assert!(shown.contains("uploads/logo.png") && shown.contains("ready"), "{shown}");
    let url = host.line("tovuk storage url --service service_1 uploads/logo.png").ok().stdout;
    assert!(url.starts_with("http://storage.localhost:") && url.contains("signature="), "{url}");
    let deleted = host.line("tovuk storage delete --service service_1 uploads/logo.png --json").ok().json();
    assert_eq!((&deleted["deleted"], &deleted["path"]), (&true.into(), &"uploads/logo.png".into()));
    assert!(host.line("tovuk storage delete --service shop uploads/logo.png").ok().stdout.contains("no object"));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_types_and_places_follow_from_what_is_given() {
    let host = Serve::start(TOVUK).await;
    host.line("tovuk service create shop").ok();
    std::fs::write(host.home().join("page.html"), "<p>").unwrap();
    let done = host.line("tovuk storage upload page.html --service shop --public --private --json").ok().json();
    assert_eq!((&done["path"], &done["contentType"], &done["publicRead"]), (&"page.html".into(), &"text/html".into(), &false.into()));
    let done = host.line("tovuk storage upload page.html a/b.bin --content-type text/csv --service shop").ok();
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("a/b.bin (3 bytes)\n", ""));
    std::fs::write(host.home().join("empty"), "").unwrap();
    host.line("tovuk storage upload empty --service shop").ok();
    host.line("tovuk storage download a/b.bin --service shop").ok();
    host.line("tovuk storage download a/b.bin new/folder/c.bin --service shop").ok();
    host.line("tovuk storage download empty new --service shop").ok();
    for (file, text) in [("b.bin", "<p>"), ("new/folder/c.bin", "<p>"), ("new/empty", "")] {
        assert_eq!(std::fs::read_to_string(host.home().join(file)).unwrap(), text, "{file}");
    }
    for (line, code) in [
        ("tovuk storage upload --service shop --json", "missing_storage_file"),
        ("tovuk storage upload none.txt --service shop --json", "storage_file_unreadable"),
        ("tovuk storage upload new --service shop --json", "storage_file_unreadable"),
        ("tovuk storage upload page.html ../x --service shop --json", "object_path_invalid"),
        ("tovuk storage upload page.html --json", "missing_service"),
        ("tovuk storage download --service shop --json", "missing_storage_path"),
        ("tovuk storage download none --service shop --json", "object_not_found"),
        ("tovuk storage download a/b.bin /proc/none/x --service shop --json", "storage_download_failed"),
        ("tovuk storage url none --service shop --json", "object_not_found"),
    ] {
        assert_eq!(host.line(line).refused().failure()["code"], code, "{line}");
    }
    let left: Vec<_> = std::fs::read_dir(host.home()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".tovuk-")), "{left:?}");
}

/// Stands between the client and the host, and cuts the connections that it is told to.
struct Middle {
    address: SocketAddr,
    connections: Arc<AtomicU64>,
}

impl Middle {
    /// Cuts so many connections, each once this many bytes have passed.
    async fn before(target: impl Fn() -> SocketAddr + Send + 'static, cut: u64, after: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicU64::new(0)));
        let counted = connections.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let number = counted.fetch_add(1, Ordering::Relaxed);
                let target = target();
                tokio::spawn(async move {
                    let mut host = TcpStream::connect(target).await.unwrap();
                    if number < cut {
                        let (mut from, _) = client.split();
                        let (_, mut to) = host.split();
                        let mut limited = (&mut from).take(after);
                        let _ = tokio::io::copy(&mut limited, &mut to).await;
                        return;
                    }
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut host).await;
                    let _ = client.shutdown().await;
                });
            }
        });
        Self { address, connections }
    }
}

fn peak_mib(program: &Program) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

/// A file whose every 8 bytes differ.
fn write_pattern(file: &Path, bytes: u64) {
    let mut out = std::io::BufWriter::with_capacity(1 << 20, std::fs::File::create(file).unwrap());
    (0..bytes / 8).for_each(|number| out.write_all(&number.to_le_bytes()).unwrap());
    out.flush().unwrap();
}

fn check_pattern(file: &Path, bytes: u64) {
    assert_eq!(std::fs::metadata(file).unwrap().len(), bytes);
    let mut read = std::io::BufReader::with_capacity(1 << 20, std::fs::File::open(file).unwrap());
    let mut number = [0; 8];
    for expected in 0..bytes / 8 {
        read.read_exact(&mut number).unwrap();
        assert_eq!(u64::from_le_bytes(number), expected);
    }
}

async fn through(cut: u64, after: u64) -> (Serve, Middle) {
    let mut host = Serve::start(TOVUK).await;
    host.line("tovuk service create shop").ok();
    host.stop().await;
    let target = Arc::new(std::sync::Mutex::new(host.public()));
    let known = target.clone();
    let middle = Middle::before(move || *known.lock().unwrap(), cut, after).await;
    let host = host.again(&["--public-url", &format!("http://localhost:{}", middle.address.port())]).await;
    *target.lock().unwrap() = host.public();
    (host, middle)
}

/// With `TOVUK_SOAK` 5 GiB, else a twentieth of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_object_is_sent_in_parts_through_cut_connections_in_bounded_memory() {
    let bytes = if full_size() { 5 << 30 } else { 256 << 20 };
    let (host, middle) = through(3, 30 << 20).await;
    let before = peak_mib(&host.program);
    write_pattern(&host.home().join("large.bin"), bytes);
    let done = host.line("tovuk storage upload large.bin --service shop --json").ok().json();
    assert_eq!(done["sizeBytes"], bytes);
    assert!(middle.connections.load(Ordering::Relaxed) > 3, "parts were sent again");
    std::fs::remove_file(host.home().join("large.bin")).unwrap();
    host.line("tovuk storage download large.bin --service shop").ok();
    check_pattern(&host.home().join("large.bin"), bytes);
    let grown = peak_mib(&host.program) - before;
    println!("the host's memory grew by {grown} MiB for {} MiB", bytes >> 20);
    assert!(grown < 128, "the host's memory grew by {grown} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_cannot_succeed_leaves_nothing_behind() {
    let (host, _middle) = through(u64::MAX, 1 << 20).await;
    write_pattern(&host.home().join("large.bin"), 101 << 20);
    let refused = host.line("tovuk storage upload large.bin --service shop --json").refused();
    assert_eq!(refused.failure()["code"], "storage_upload_failed");
    let listed = host.line("tovuk storage list --service shop --json").ok().json();
    assert_eq!(listed["objects"], serde_json::json!([]), "the upload was aborted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_an_s3_compatible_store_keeps_the_bytes() {
    let mut host = Serve::start(TOVUK).await;
    host.stop().await;
    let folder = tempfile::tempdir().unwrap();
    let bucket = folder.path().join("s3");
    let s3 = serve_s3(&bucket).await;
    let keys = folder.path().join("keys.toml");
    std::fs::write(&keys, "access_key_id = \"the-key\"\nsecret_access_key = \"the-secret\"\n").unwrap();
    std::fs::set_permissions(&keys, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    // A data folder belongs to one place of bytes.
    std::fs::remove_dir_all(&host.data).unwrap();
    let (endpoint, keys) = (s3.endpoint.unwrap(), keys.to_str().unwrap().to_owned());
    let settings =
        ["--objects-s3-bucket", "bucket", "--objects-s3-endpoint", &endpoint, "--objects-s3-prefix", "tovuk", "--objects-s3-credentials-file", &keys];
    let mut host = host.again(&settings).await;
    host.line("tovuk service create shop").ok();
    let bytes = 20 << 20;
    write_pattern(&host.home().join("large.bin"), bytes);
    host.line("tovuk storage upload large.bin --service shop").ok();
    let stored = |folder: &Path| files(folder).iter().map(|file| file.metadata().map_or(0, |found| found.len())).sum::<u64>();
    assert!(stored(&bucket) >= bytes && stored(&host.data.join("objects")) == 0);
    host.stop().await;
    let host = host.again(&settings).await;
    host.line("tovuk storage download large.bin back.bin --service shop").ok();
    check_pattern(&host.home().join("back.bin"), bytes);
    host.line("tovuk storage delete large.bin --service shop").ok();
    while stored(&bucket.join("bucket")) > 0 {
        tokio::task::yield_now().await;
    }
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(files(&path)),
            path => found.push(path),
        }
    }
    found
}
