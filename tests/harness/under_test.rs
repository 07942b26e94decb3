//! The host's binary under another name: tests find it beside themselves, and it compiles components for the hosts that run inside them.

fn main() -> std::process::ExitCode {
    tovuk_cli::main()
}
