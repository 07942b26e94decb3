//! The `tovuk` binary. Everything is in the library, so that tests can start the same program.

fn main() -> std::process::ExitCode {
    tovuk_cli::main()
}
