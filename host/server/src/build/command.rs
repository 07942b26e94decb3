//! From the text of a build command to the programs to run. No shell is involved: words are split as a shell would, `&&` separates commands, and
//! what only a shell could do is refused with the way to ask for one.

use std::path::Path;
use std::process::ExitStatus;

/// Why a command cannot be run.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// A quote is not closed, or the like.
    #[error("`{command}` has a quote that is not closed. Close it in tovuk.toml")]
    Quotes {
        /// The command.
        command: String,
    },
    /// It has nothing to run, or nothing on one side of `&&`.
    #[error("`{command}` has no program to run. Write one in tovuk.toml, or remove `build`")]
    Empty {
        /// The command.
        command: String,
    },
    /// It uses what only a shell does.
    #[error(
        "`{word}` in `{command}` needs a shell, and build commands run without one. Write build = \"sh -c '…'\", or put the commands into a script and run that"
    )]
    Shell {
        /// The word.
        word: String,
        /// The command.
        command: String,
    },
}

/// The commands in a text, each as its words. `:` and `true`, which do nothing, are left out.
pub fn split(command: &str) -> Result<Vec<Vec<String>>, CommandError> {
    let words = shlex::split(command).ok_or_else(|| CommandError::Quotes { command: command.to_owned() })?;
    let operator = |word: &String| matches!(word.as_str(), "|" | "||" | ";" | "&" | ">" | ">>" | "<" | "2>&1");
    let assignment =
        |word: &String| word.split_once('=').is_some_and(|(name, _)| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_'));
    let mut steps = Vec::new();
    for step in words.split(|word| word == "&&") {
        let shell = step.iter().find(|word| operator(word)).or_else(|| step.first().filter(|word| assignment(word)));
        if let Some(word) = shell {
            return Err(CommandError::Shell { word: word.clone(), command: command.to_owned() });
        }
        match step {
            [] => return Err(CommandError::Empty { command: command.to_owned() }),
            [nothing] if nothing == ":" || nothing == "true" => {}
            step => steps.push(step.to_vec()),
        }
    }
    Ok(steps)
}

/// The commands, preceded by the installation of JavaScript packages where they need it: a package manager is run in a folder whose
/// `node_modules` is missing, and none of the commands installs it.
pub fn with_dependencies(steps: Vec<Vec<String>>, directory: &Path) -> Vec<Vec<String>> {
    let installs = |step: &Vec<String>| step.iter().skip(1).any(|word| matches!(word.as_str(), "install" | "ci" | "i" | "add"));
    if steps.iter().any(|step| is_package_manager(step) && installs(step)) {
        return steps;
    }
    let mut all: Vec<Vec<String>> = Vec::new();
    for step in steps {
        let folder = folder_option(&step);
        let folder_path = folder.map_or_else(|| directory.to_owned(), |(_, folder)| directory.join(folder));
        let missing = folder_path.join("package.json").is_file() && !folder_path.join("node_modules").exists();
        if let (true, true, Some(program)) = (is_package_manager(&step), missing, step.first()) {
            let mut install = install_command(program, &folder_path);
            install.extend(folder.into_iter().flat_map(|(option, folder)| [option.to_owned(), folder.to_owned()]));
            if !all.contains(&install) {
                all.push(install);
            }
        }
        all.push(step);
    }
    all
}

fn is_package_manager(step: &[String]) -> bool {
    step.first().is_some_and(|program| matches!(program.as_str(), "npm" | "pnpm" | "yarn" | "bun"))
}

/// The option by which a package manager is told to work in another folder.
fn folder_option(step: &[String]) -> Option<(&str, &str)> {
    let pairs = step.iter().zip(step.iter().skip(1));
    pairs.map(|(option, folder)| (option.as_str(), folder.as_str())).find(|(option, _)| matches!(*option, "--prefix" | "-C" | "--cwd" | "--dir"))
}

/// The command that installs what the lock file says, and without a lock file what the newest versions are.
fn install_command(program: &str, folder: &Path) -> Vec<String> {
    let has = |name: &str| folder.join(name).is_file();
    let words: &[&str] = match program {
        "npm" if has("package-lock.json") || has("npm-shrinkwrap.json") => &["npm", "ci", "--no-audit", "--no-fund"],
        "npm" => &["npm", "install", "--no-audit", "--no-fund"],
        "pnpm" if has("pnpm-lock.yaml") => &["pnpm", "install", "--frozen-lockfile"],
        "yarn" if has("yarn.lock") => &["yarn", "install", "--immutable"],
        "bun" if has("bun.lock") || has("bun.lockb") => &["bun", "install", "--frozen-lockfile"],
        program => &[program, "install"],
    };
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// What to say when a program is not there.
pub fn how_to_install(program: &str) -> String {
    match program {
        "cargo" | "rustc" | "rustup" => "Install Rust from https://rustup.rs".to_owned(),
        "npm" | "npx" | "node" => "Install Node.js from https://nodejs.org".to_owned(),
        "pnpm" | "yarn" => format!("Install it with `npm install --global {program}`"),
        "bun" => "Install it from https://bun.sh".to_owned(),
        "componentize-py" | "python" | "python3" | "pip" => {
            "Install Python from https://python.org; componentize-py comes with `pip install componentize-py`".to_owned()
        }
        "tinygo" | "go" => "Install Go from https://go.dev and TinyGo from https://tinygo.org".to_owned(),
        _ => "Install it, put its folder into PATH, or correct `build` in tovuk.toml".to_owned(),
    }
}

/// How a program has ended, in words.
pub fn in_words(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn lines(steps: &[Vec<String>]) -> Vec<String> {
        steps.iter().map(|step| step.join("|")).collect()
    }

    #[test]
    fn a_command_is_split_as_a_shell_would() {
        let steps = split("npm --prefix 'my web' run build && cargo build --release").unwrap();
        assert_eq!(lines(&steps), ["npm|--prefix|my web|run|build", "cargo|build|--release"]);
        assert_eq!(split(":").unwrap(), Vec::<Vec<String>>::new());
        assert_eq!(lines(&split("true && sh -c 'a | b'").unwrap()), ["sh|-c|a | b"]);
    }

    #[test]
    fn what_needs_a_shell_is_refused_with_the_way_to_have_one() {
        for command in ["a | b", "a > b", "a ; b", "FOO=1 cargo build"] {
            let error = split(command).unwrap_err();
            assert!(matches!(error, CommandError::Shell { .. }) && error.to_string().contains("sh -c"), "{error}");
        }
        assert!(matches!(split("echo 'a").unwrap_err(), CommandError::Quotes { .. }));
        for command in ["", "  ", "a &&", "&& a"] {
            assert!(matches!(split(command).unwrap_err(), CommandError::Empty { .. }), "{command}");
        }
    }

    #[test]
    fn packages_are_installed_once_where_they_are_missing() {
        let directory = tempfile::tempdir().unwrap();
        let web = directory.path().join("web");
        std::fs::create_dir_all(&web).unwrap();
        std::fs::write(web.join("package.json"), "{}").unwrap();
        let with = |command: &str| lines(&with_dependencies(split(command).unwrap(), directory.path()));
        let install = "npm|install|--no-audit|--no-fund|--prefix|web";
        assert_eq!(with("npm --prefix web run a && npm --prefix web run b"), [install, "npm|--prefix|web|run|a", "npm|--prefix|web|run|b"]);
        assert_eq!(with("npm --prefix web ci && npm --prefix web run a").len(), 2);
        assert_eq!(with("npm run build"), ["npm|run|build"], "no package.json here");
        std::fs::write(web.join("package-lock.json"), "{}").unwrap();
        assert_eq!(with("npm --prefix web run a").first().unwrap(), "npm|ci|--no-audit|--no-fund|--prefix|web");
        std::fs::create_dir(web.join("node_modules")).unwrap();
        assert_eq!(with("npm --prefix web run a").len(), 1);
    }
}
