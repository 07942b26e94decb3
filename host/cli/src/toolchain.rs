//! Makes sure that Rust can build for `wasm32-wasip2`, the target of workers. It installs the target through rustup when it is missing and never
//! installs Rust itself.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;
pub use tovuk_server::build::TARGET;

/// Why workers cannot be built. Each text ends with the command to run.
#[derive(Debug, thiserror::Error)]
pub enum ToolchainError {
    /// There is no Rust.
    #[error("Rust is not installed: `{program}` was not found. Install it from https://rustup.rs, then run `rustup target add {TARGET}`")]
    NoRust {
        /// What was looked for.
        program: String,
    },
    /// The compiler does not answer, for example because the folder asks for a toolchain that is not installed.
    #[error("`{program}` does not work in {}:\n{output}\nRun `rustup show` there to see which toolchain it asks for, and `rustup toolchain install` to install it", .directory.display())]
    Compiler {
        /// The compiler.
        program: String,
        /// Where it was run.
        directory: PathBuf,
        /// What it said.
        output: String,
    },
    /// The target is missing and there is no rustup to install it with.
    #[error(
        "Rust here cannot build for {TARGET}, and there is no rustup to add it with. Install the target with the tool that installed Rust, or install rustup from https://rustup.rs and run `rustup target add {TARGET}`"
    )]
    NoRustup,
    /// rustup could not install the target.
    #[error("`rustup target add {TARGET}` failed:\n{output}\nRun it yourself in {}, with a network connection", .directory.display())]
    Install {
        /// Where it was run.
        directory: PathBuf,
        /// What it said.
        output: String,
    },
    /// The target is still missing although rustup installed it.
    #[error(
        "rustup has added {TARGET}, but `{program}` still cannot build for it. Unset RUSTC or put rustup's own rustc first in PATH, then run `rustup target add {TARGET}`"
    )]
    StillMissing {
        /// The compiler.
        program: String,
    },
}

/// Whether the compiler that cargo uses in `directory` can build workers. Nothing is installed.
pub async fn can_build(directory: &Path) -> Result<bool, ToolchainError> {
    has_target(&rustc(), directory).await
}

/// Cargo runs what RUSTC names, else the rustc in PATH. With rustup that one chooses its toolchain by the folder it is run in.
fn rustc() -> String {
    std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned())
}

/// Makes sure that the compiler that cargo uses in `directory` has the target, and installs it when it does not. `say` is told before something
/// is installed, because that takes a while and changes the machine.
pub async fn ensure_wasm_target(directory: &Path, say: &(dyn Fn(&str) + Sync)) -> Result<(), ToolchainError> {
    ensure_with(&rustc(), "rustup", directory, say).await
}

async fn ensure_with(rustc: &str, rustup: &str, directory: &Path, say: &(dyn Fn(&str) + Sync)) -> Result<(), ToolchainError> {
    if has_target(rustc, directory).await? {
        return Ok(());
    }
    say(&format!("Rust cannot build for {TARGET} yet; running `rustup target add {TARGET}`"));
    let added = run(rustup, &["target", "add", TARGET], directory).await.map_err(|_| ToolchainError::NoRustup)?;
    if !added.status.success() {
        return Err(ToolchainError::Install { directory: directory.to_owned(), output: said(&added) });
    }
    if has_target(rustc, directory).await? { Ok(()) } else { Err(ToolchainError::StillMissing { program: rustc.to_owned() }) }
}

/// Whether the compiler has a standard library for the target. It names the folder for every target it knows; only an installed one has files.
async fn has_target(rustc: &str, directory: &Path) -> Result<bool, ToolchainError> {
    let output = run(rustc, &["--print", "target-libdir", "--target", TARGET], directory)
        .await
        .map_err(|_| ToolchainError::NoRust { program: rustc.to_owned() })?;
    if !output.status.success() {
        let program = rustc.to_owned();
        return Err(ToolchainError::Compiler { program, directory: directory.to_owned(), output: said(&output) });
    }
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    Ok(std::fs::read_dir(folder).is_ok_and(|mut files| files.next().is_some()))
}

async fn run(program: &str, arguments: &[&str], directory: &Path) -> std::io::Result<std::process::Output> {
    Command::new(program).args(arguments).current_dir(directory).stdin(Stdio::null()).kill_on_drop(true).output().await
}

/// What a program wrote to its standard error, indented and without what is blank.
fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr)
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| format!("    {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use std::os::unix::fs::PermissionsExt;
    use std::sync::Mutex;

    use super::*;

    /// A program in a folder: a shell script that plays rustc or rustup.
    fn program(directory: &Path, name: &str, script: &str) -> String {
        let path = directory.join(name);
        // Written under another name first: a file that is being written cannot be run.
        let draft = directory.join(format!("{name}.draft"));
        std::fs::write(&draft, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(&draft, &path).unwrap();
        path.to_str().unwrap().to_owned()
    }

    async fn ensure(rustc: &str, rustup: &str, directory: &Path) -> (Result<(), ToolchainError>, Vec<String>) {
        let lines = Mutex::new(Vec::new());
        let result = ensure_with(rustc, rustup, directory, &|line| lines.lock().unwrap().push(line.to_owned())).await;
        (result, lines.into_inner().unwrap())
    }

    #[tokio::test]
    async fn the_toolchain_of_this_machine_has_the_target_or_gets_it() {
        ensure_wasm_target(Path::new("."), &|_| {}).await.unwrap();
    }

    #[tokio::test]
    async fn a_missing_target_is_added_and_announced() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path();
        let rustc = program(folder, "rustc", &format!("echo {}/lib", folder.display()));
        let rustup = program(folder, "rustup", &format!("mkdir {0}/lib && touch {0}/lib/libstd.rlib", folder.display()));
        let (result, lines) = ensure(&rustc, &rustup, folder).await;
        result.unwrap();
        assert_eq!(lines.len(), 1, "{lines:?}");
        let (result, lines) = ensure(&rustc, &rustup, folder).await;
        result.unwrap();
        assert!(lines.is_empty(), "{lines:?}");
    }

    #[tokio::test]
    async fn every_failure_names_the_command_to_run() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path();
        let without = program(folder, "rustc", &format!("echo {}/lib", folder.display()));
        let broken = program(folder, "broken", "echo 'toolchain 1.2 is not installed' >&2; exit 1");
        let useless = program(folder, "useless", "true");
        let cases = [
            ("/nowhere/rustc", "rustup", "Rust is not installed"),
            (&broken, "rustup", "toolchain 1.2 is not installed"),
            (&without, "/nowhere/rustup", "there is no rustup"),
            (&without, &broken, "rustup target add wasm32-wasip2` failed"),
            (&without, &useless, "still cannot build"),
        ];
        for (rustc, rustup, expected) in cases {
            let text = ensure(rustc, rustup, folder).await.0.unwrap_err().to_string();
            assert!(text.contains(expected) && text.contains("rustup"), "{text}");
        }
    }
}
