//! The workers that tests run, built once in a process from `tests/guests`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The repository's root.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The component of a guest, by the name of its file in `tests/guests/src`.
pub fn component(guest: &str) -> Vec<u8> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(build);
    std::fs::read(folder.join(format!("{guest}.wasm"))).unwrap_or_else(|error| panic!("guest {guest}: {error}"))
}

/// Adds the target that guests are built for when this machine lacks it. On a thread of its own, because a test may be inside a runtime.
fn ensure_wasm_target() {
    let ensure = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(tovuk_cli::toolchain::ensure_wasm_target(repository(), &|text| eprintln!("{text}"))).unwrap();
    };
    std::thread::spawn(ensure).join().unwrap();
}

fn build() -> PathBuf {
    ensure_wasm_target();
    let target = repository().join("target/guests");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--target", "wasm32-wasip2", "--examples", "--quiet", "--manifest-path"])
        .arg(repository().join("tests/guests/Cargo.toml"))
        .env("CARGO_TARGET_DIR", &target)
        .env_remove("RUSTFLAGS")
        .status()
        .unwrap();
    assert!(status.success(), "the guests do not build");
    target.join("wasm32-wasip2/release/examples")
}
