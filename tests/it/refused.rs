//! Components that do not run here, each refused in words that name what is wrong.

use tovuk_tests::{ServiceConfig, component};

use crate::host;

#[tokio::test]
async fn what_cannot_run_is_refused_by_name() {
    let host = host().await;
    let core_module = [b"\0asm\x01\0\0\0".as_slice()].concat();
    let mut broken = component("hello");
    let end = broken.len() / 2;
    broken.truncate(end);
    let cases: [(&str, Vec<u8>, &[&str]); 6] = [
        ("neither", component("neither"), &["neither `tovuk:http/handler` nor `wasi:http/incoming-handler`", "run"]),
        ("unknown", component("unknown_import"), &["`acme:db/store@1.0.0`", "does not provide"]),
        ("module", core_module, &["core wasm module", "wasm32-wasip2"]),
        ("empty", Vec::new(), &["empty"]),
        ("text", b"#!/bin/sh".to_vec(), &["not WebAssembly"]),
        ("broken", broken, &["cannot be compiled"]),
    ];
    for (name, wasm, says) in cases {
        let error = host.deploy_bytes(name, &wasm, ServiceConfig::default().public()).await.unwrap_err().to_string();
        for text in says {
            assert!(error.contains(text), "{name}: {error}");
        }
        assert_eq!(host.get(name, "/").await.code(), "service_not_found", "{name}");
    }
}

#[tokio::test]
async fn compiled_code_that_was_changed_on_disk_is_not_mapped() {
    let folder = tempfile::tempdir().unwrap();
    let artifacts = folder.path().join("artifacts");
    let start = async || {
        let at = artifacts.clone();
        let config =
            tovuk_tests::HostConfig { runtime: Box::new(move |runtime| runtime.artifacts = at), ..tovuk_tests::HostConfig::new(crate::TOVUK) };
        tovuk_tests::Host::with(config).await
    };
    let host = start().await;
    host.deploy("hello", "hello", |service| service.public()).await;
    assert_eq!(host.get("hello", "/").await.text(), "hello");
    let code = std::fs::read_dir(&artifacts)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "cwasm"))
        .unwrap();
    let mut bytes = std::fs::read(&code).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    // Replaced, not rewritten: the running host has the old file mapped.
    let changed = folder.path().join("changed");
    std::fs::write(&changed, &bytes).unwrap();
    std::fs::rename(&changed, &code).unwrap();
    assert_eq!(host.get("hello", "/").await.text(), "hello");

    // A new process would find the change at the next deploy and compile again.
    let later = start().await;
    later.deploy("hello", "hello", |service| service.public()).await;
    assert_eq!(later.get("hello", "/").await.text(), "hello");
    assert_ne!(std::fs::read(&code).unwrap(), bytes);
}

#[tokio::test]
async fn a_component_that_compiles_and_cannot_be_loaded_is_not_promoted() {
    let host = host().await;
    // An instance without functions under the handler's name.
    let name = b"tovuk:http/handler@0.1.0";
    let mut wasm = b"\0asm\x0d\0\x01\0".to_vec();
    wasm.extend_from_slice(&[5, 2, 1, 0x01]);
    wasm.push(0);
    let mut export = vec![1, 0, name.len() as u8];
    export.extend_from_slice(name);
    export.extend_from_slice(&[5, 0, 0]);
    wasm.extend_from_slice(&[11, export.len() as u8]);
    wasm.extend_from_slice(&export);
    let error = host.deploy_bytes("empty", &wasm, ServiceConfig::default().public()).await.unwrap_err().to_string();
    assert!(error.starts_with("the component cannot be"), "{error}");
}
