//! Source and archives over the API: what the host compiles goes live, and what means harm is refused and leaves nothing behind.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use tar::{EntryType, Header};
use tovuk_kernel::clock::Clock;
use tovuk_server::build::probe;
use tovuk_server::build::sandbox::SandboxConfig;
use tovuk_tests::{Operator, tar_gz};

use crate::TOVUK;

#[tokio::test(flavor = "multi_thread")]
async fn source_is_compiled_by_the_host_and_goes_live() {
    let mut sandbox = SandboxConfig::with_program(TOVUK.into(), Clock::advanceable()).await.unwrap();
    let home = || Path::new(&std::env::var_os("HOME").unwrap()).join(".cargo");
    sandbox.cargo_home = Some(std::env::var_os("CARGO_HOME").map_or_else(home, PathBuf::from));
    let can_build = probe(&sandbox).await.is_ok();
    let host = Operator::with(TOVUK, |config| config.builds.remote = Some(sandbox)).await;
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests");
    let source = std::fs::read_to_string(guests.join("src/hello_p2.rs")).unwrap();
    // The versions that the guests were built with are on this machine.
    let lock = std::fs::read_to_string(guests.join("Cargo.lock")).unwrap();
    let wasip2 = lock.split("name = \"wasip2\"\nversion = \"").nth(1).unwrap().split('"').next().unwrap();
    let manifest = format!(
        "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[lib]\ncrate-type = [\"cdylib\"]\n[dependencies]\nwasip2 = \"={wasip2}\"\n"
    );
    let archive = STANDARD.encode(tar_gz(&[("Cargo.toml", &manifest), ("src/lib.rs", &source)]));
    let body = json!({"service": "tiny", "config": {"routes": ["/*"]}, "source_archive_base64": archive});
    let accepted = host.ok("POST", "/v1/deploy", Some(body)).await;
    let job = accepted["build_job"]["id"].as_str().unwrap();
    let build = host.built(&host.token, job).await;
    if !can_build {
        assert!(build["message"].as_str().unwrap().contains("build_sandbox_unavailable"), "{build}");
        return;
    }
    let log = host.log(&host.token, &format!("/v1/builds/{job}/logs")).await;
    assert_eq!(build["status"], "succeeded", "{build} {log:?}");
    assert_eq!(host.get("tiny", "/").await.text(), "hello");
    assert!(log.iter().any(|line| line.contains("Compiling wasip2")) && log.iter().any(|line| line.starts_with("live at ")), "{log:?}");
}

/// A tar of these entries as they are, compressed: name, type, link, size of zeros.
fn archive_of(entries: impl IntoIterator<Item = (String, EntryType, &'static str, usize)>) -> Vec<u8> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, entry_type, link, size) in entries {
        let mut header = Header::new_gnu();
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..name.len()].copy_from_slice(name.as_bytes());
        gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(entry_type);
        header.set_size(size as u64);
        header.set_mode(0o777);
        header.set_cksum();
        builder.append(&header, &vec![0; size][..]).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_that_mean_harm_are_refused_on_both_ways_in() {
    let host = Operator::start(TOVUK).await;
    let file = |name: &str| (name.to_owned(), EntryType::Regular, "", 1);
    let outside = host.data.parent().unwrap().join("outside");
    let with = |entry| archive_of([file("index.html"), entry]);
    for archive in [
        with(file("../../../outside")),
        with(file(outside.to_str().unwrap())),
        with(file("a/../../../../outside")),
        with(("link".to_owned(), EntryType::Symlink, "../../..", 0)),
        with(("link".to_owned(), EntryType::Link, "/etc/passwd", 0)),
        with(("pipe".to_owned(), EntryType::Fifo, "", 0)),
        with(file("deep/in/.env")),
        archive_of(["a", "b"].map(|name| (name.to_owned(), EntryType::Regular, "", 20 << 20))),
    ] {
        for field in ["assets_archive_base64", "source_archive_base64"] {
            let body = json!({"service": "site", "config": {"kind": "static_frontend", "assets": "."}, field: STANDARD.encode(&archive)});
            let accepted = host.ok("POST", "/v1/deploy", Some(body)).await;
            let build = host.built(&host.token, accepted["build_job"]["id"].as_str().unwrap()).await;
            assert!(build["status"] == "failed" && build["message"].as_str().unwrap().contains("archive_refused"), "{build}");
        }
    }
    assert!(!outside.exists() && !host.data.join("outside").exists());
    assert_eq!(std::fs::read_dir(host.data.join("uploads")).unwrap().count(), 0);
    assert_eq!(host.get("site", "/").await.code(), "service_not_found");
}
