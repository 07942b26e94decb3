//! The grammar for those who read it elsewhere than on a terminal: the page of the reference, manual pages, completions.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Arg, Args, Command};
use clap_complete::Shell;

use crate::grammar::command;

/// `tovuk completions`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tovuk completions bash > ~/.local/share/bash-completion/completions/tovuk\n  tovuk completions zsh > ~/.zfunc/_tovuk\n  \
                        tovuk completions fish > ~/.config/fish/completions/tovuk.fish\n"
)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

/// `tovuk man`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tovuk man | man -l -\n  tovuk man --out ~/.local/share/man/man1\n")]
pub struct ManArgs {
    /// Write the pages of all commands into this folder, instead of printing the first
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
}

/// Prints what a shell needs to complete commands.
pub fn completions(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "tovuk", &mut text);
    crate::print(&String::from_utf8(text)?);
    Ok(ExitCode::SUCCESS)
}

/// Prints or writes manual pages.
pub fn man(args: &ManArgs) -> anyhow::Result<ExitCode> {
    match &args.out {
        Some(folder) => {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            clap_mangen::generate_to(command(), folder).with_context(|| format!("cannot write to {}", folder.display()))?;
            let pages = pages(folder)?;
            crate::print(&format!("{pages} pages are in {}\n", folder.display()));
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command()).render(&mut page)?;
            crate::print(&String::from_utf8(page)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn pages(folder: &Path) -> std::io::Result<usize> {
    let names = std::fs::read_dir(folder)?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|name| name.starts_with("tovuk") && name.ends_with(".1")).count())
}

/// The reference of the command line, in Markdown.
pub fn reference() -> String {
    let mut root = command();
    root.build();
    let mut page = "# Command line\n\nGenerated from the grammar of the program and the table of operations: do not edit.\n".to_owned();
    page.push_str("\nEvery command takes `--help`, and flags before as after its words. Those that ask a host find it by `--api`, else `TOVUK_API_BASE_URL`, else\n");
    page.push_str("`http://127.0.0.1:8788`, and show the token of `--token`, else `TOVUK_TOKEN`, else the one that `tovuk login` has stored for that host. What concerns services,\n");
    page.push_str("their deploys and builds is asked of the `tovuk dev` that runs in the folder, unless a host is named; `tovuk deploy` itself never deploys to it. `--json` prints JSON\n");
    page.push_str("on standard output; progress and errors go to standard error, the error as JSON too. Exit codes: 0 done, 1 refused or failed, 2 the host failed.\n");
    root.get_subcommands().for_each(|inner| section(inner, "tovuk", 2, &mut page));
    page
}

fn section(command: &Command, path: &str, level: usize, page: &mut String) {
    if command.get_name() == "help" || command.is_hide_set() {
        return;
    }
    let path = format!("{path} {}", command.get_name());
    page.push_str(&format!("\n{} `{path}`\n\n", "#".repeat(level.min(4))));
    let about = command.get_long_about().or_else(|| command.get_about()).map(ToString::to_string).unwrap_or_default();
    page.push_str(&format!("{}\n", about.trim_end()));
    let arguments: Vec<&Arg> = command.get_arguments().filter(|argument| !is_everywhere(argument)).collect();
    let positionals: Vec<String> = arguments.iter().filter(|argument| argument.is_positional()).map(|argument| word(argument)).collect();
    let flags = if arguments.iter().any(|argument| !argument.is_positional()) { " [flags]" } else { "" };
    let words = positionals.iter().map(|word| format!(" {word}")).collect::<String>();
    let runs = !command.is_subcommand_required_set();
    if runs {
        page.push_str(&format!("\n    {path}{words}{flags}\n"));
    }
    let aliases: Vec<_> = command.get_visible_aliases().map(|alias| format!("`{alias}`")).collect();
    if !aliases.is_empty() {
        page.push_str(&format!("\nAlso: {}.\n", aliases.join(", ")));
    }
    if !arguments.is_empty() && runs {
        page.push_str("\n| Argument | Meaning |\n|---|---|\n");
        arguments.iter().for_each(|argument| page.push_str(&row(argument)));
    }
    if let Some(after) = command.get_after_help() {
        page.push_str(&format!("\n{}\n", blocks(&after.to_string())));
    }
    command.get_subcommands().for_each(|inner| section(inner, &path, level + 1, page));
}

fn is_everywhere(argument: &Arg) -> bool {
    argument.is_global_set() || argument.is_hide_set() || matches!(argument.get_id().as_str(), "help" | "version")
}

fn word(argument: &Arg) -> String {
    let name =
        argument.get_value_names().and_then(|names| names.first()).map_or_else(|| argument.get_id().to_string().to_uppercase(), ToString::to_string);
    let many = if argument.get_num_args().is_some_and(|range| range.max_values() > 1) { "..." } else { "" };
    if argument.is_required_set() { format!("<{name}>{many}") } else { format!("[{name}]{many}") }
}

fn row(argument: &Arg) -> String {
    let mut shown = match argument.get_long() {
        Some(long) if argument.get_action().takes_values() => {
            let value = argument.get_value_names().and_then(|names| names.first()).map(ToString::to_string).unwrap_or_default();
            format!("`--{long} {value}`")
        }
        Some(long) => format!("`--{long}`"),
        None => format!("`{}`", word(argument)),
    };
    argument.get_visible_aliases().unwrap_or_default().iter().for_each(|alias| shown.push_str(&format!(", `--{alias}`")));
    let mut help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let named = |text: &str| help.contains(text);
    let variable = argument.get_env().and_then(|name| name.to_str()).map(str::to_owned);
    let default: Vec<_> = argument.get_default_values().iter().filter_map(|value| value.to_str()).collect();
    let mut more = String::new();
    if let Some(variable) = variable {
        more.push_str(&format!(" [env: `{variable}`]"));
    }
    if !default.is_empty() && !named("[default") && argument.get_action().takes_values() {
        more.push_str(&format!(" [default: {}]", default.join(",")));
    }
    if argument.is_required_set() && argument.get_long().is_some() {
        more.push_str(" Required.");
    }
    help.push_str(&more);
    format!("| {} | {} |\n", shown.replace('|', "\\|"), help.replace('|', "\\|"))
}

/// What stands below a command's help, its command lines as a block.
fn blocks(text: &str) -> String {
    let lines = text.trim_end().lines().map(|line| match line.strip_prefix("  ") {
        Some(example) => format!("    {}", example.trim_end()),
        None => line.to_owned(),
    });
    let mut page = String::new();
    let mut in_block = false;
    for line in lines {
        let block = line.starts_with("    ");
        if block && !in_block {
            page.push('\n');
        }
        in_block = block;
        page.push_str(&line);
        page.push('\n');
    }
    page.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_has_every_command_with_its_arguments_and_examples() {
        let page = reference();
        for part in [
            "## `tovuk serve`",
            "| `--public-domain DOMAIN` | The domain under which services have names [default: localhost] [env: `TOVUK_PUBLIC_DOMAIN`] |",
            "### `tovuk binding create`",
            "    tovuk binding create <BINDING_NAME> [TARGET_SERVICE] [flags]",
            "\n    tovuk binding create --service service_1 AUTH_SERVICE --target auth-service\n",
            "### `tovuk deploy rollback`",
            "#### `tovuk operator account create`",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
        assert!(!page.contains("--help` |") && !page.contains("`tovuk help`"));
    }

    #[test]
    fn completions_and_manual_pages_are_made_of_every_command() {
        let mut script = Vec::new();
        clap_complete::generate(Shell::Bash, &mut command(), "tovuk", &mut script);
        assert!(String::from_utf8(script).unwrap().contains("rollback"));
        let folder = tempfile::tempdir().unwrap();
        clap_mangen::generate_to(command(), folder.path()).unwrap();
        assert!(folder.path().join("tovuk-binding-create.1").is_file());
        assert!(pages(folder.path()).unwrap() > 40);
    }
}
