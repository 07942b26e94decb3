//! The components that are measured: those of `tests/guests`, built when they are missing. A guest that was changed since is not built again.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

/// The repository's root.
pub fn repository() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// The file of a guest, by the name of its source in `tests/guests/src`.
pub fn path(guest: &str) -> anyhow::Result<PathBuf> {
    let path = repository().join("target/guests/wasm32-wasip2/release/examples").join(format!("{guest}.wasm"));
    if !path.exists() {
        build()?;
    }
    ensure!(path.exists(), "{} is missing although the guests were built: look for `{guest}` in tests/guests/Cargo.toml", path.display());
    Ok(path)
}

fn build() -> anyhow::Result<()> {
    eprintln!("building the guests");
    let folder = repository().join("tests/guests");
    let status = Command::new("cargo")
        .args(["build", "--quiet", "--release", "--target", "wasm32-wasip2", "--examples"])
        .current_dir(&folder)
        .env("CARGO_TARGET_DIR", repository().join("target/guests"))
        .env_remove("RUSTFLAGS")
        .status()
        .context("cargo cannot be started: install Rust from https://rustup.rs")?;
    ensure!(
        status.success(),
        "the guests do not build: run `rustup target add wasm32-wasip2`, then in {} `CARGO_TARGET_DIR=../../target/guests cargo build --release --target wasm32-wasip2 --examples`",
        folder.display()
    );
    Ok(())
}
