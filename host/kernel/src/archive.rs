//! Which names have no place in an archive of source or of static files. The command line leaves them out when it packs, the host refuses the secrets
//! and the generated among them when it unpacks. Names only: nothing here reads a file or knows the format.
//!
//! Names are compared without regard to ASCII case, because a file system that does not tell `.ENV` from `.env` may have written them.

/// What an archive holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Files that are served as they are.
    Assets,
    /// What a service is built from.
    Source,
}

impl Kind {
    /// The kind in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Assets => "static files",
            Self::Source => "source",
        }
    }
}

/// Why a name has no place in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unwanted {
    /// Credentials and keys, or a folder of a tool that keeps them.
    Secret,
    /// A folder that builds and package managers fill.
    Generated,
    /// Machine code, which a build from source makes itself.
    Compiled,
    /// Databases and logs of a development machine.
    Data,
    /// What a desktop leaves in folders.
    Desktop,
}

impl Unwanted {
    /// The reason in words that follow "is".
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "a place for secrets",
            Self::Generated => "a folder that builds generate",
            Self::Compiled => "compiled code",
            Self::Data => "a database or log",
            Self::Desktop => "metadata of a desktop",
        }
    }
}

/// Folders that hold credentials, or, like a repository's, everything that ever was in one.
const SECRET_FOLDERS: [&str; 10] = [".git", ".terraform", ".docker", ".gnupg", ".ssh", ".aws", ".azure", ".kube", ".pulumi", ".gcloud"];
/// Files that hold credentials.
const SECRET_FILES: [&str; 11] =
    [".env", ".npmrc", ".pypirc", ".netrc", ".terraformrc", ".git-credentials", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "id_ed25519_sk"];
/// Endings of files that hold keys or the state of infrastructure with its passwords.
const SECRET_EXTENSIONS: [&str; 5] = ["pem", "key", "p12", "pfx", "tfstate"];
/// A folder and what in it holds credentials.
const SECRET_IN_FOLDER: [(&str, &str); 7] = [
    (".cargo", "credentials"),
    (".cargo", "credentials.toml"),
    (".config", "gcloud"),
    (".config", "gh"),
    (".config", "hub"),
    (".config", "heroku"),
    (".config", "doctl"),
];
/// The one file of the `.env` family that is written to be shared.
const SHARED_ENV: &str = ".env.example";
const GENERATED_FOLDERS: [&str; 3] = ["target", "node_modules", ".tovuk"];
const COMPILED_EXTENSIONS: [&str; 7] = ["exe", "so", "dylib", "dll", "jar", "node", "rlib"];
const DATA_EXTENSIONS: [&str; 4] = ["sqlite", "sqlite3", "db", "log"];

/// Why the file at this path, relative to the archive's root and with `/` between names, is not to be packed.
pub fn unwanted(path: &str, kind: Kind) -> Option<Unwanted> {
    let mut parent = "";
    let mut names = path.split('/').peekable();
    while let Some(name) = names.next() {
        let reason = if names.peek().is_some() { unwanted_folder_name(parent, name, kind) } else { unwanted_file_name(parent, name, kind) };
        if reason.is_some() {
            return reason;
        }
        parent = name;
    }
    None
}

/// The same for the folder at this path, and so for everything below it.
pub fn unwanted_folder(path: &str, kind: Kind) -> Option<Unwanted> {
    let mut parent = "";
    for name in path.split('/') {
        if let Some(reason) = unwanted_folder_name(parent, name, kind) {
            return Some(reason);
        }
        parent = name;
    }
    None
}

fn unwanted_folder_name(parent: &str, name: &str, kind: Kind) -> Option<Unwanted> {
    if is_one_of(&SECRET_FOLDERS, name) || is_secret_in(parent, name) {
        return Some(Unwanted::Secret);
    }
    (kind == Kind::Source && is_one_of(&GENERATED_FOLDERS, name)).then_some(Unwanted::Generated)
}

fn unwanted_file_name(parent: &str, name: &str, kind: Kind) -> Option<Unwanted> {
    let lower = name.to_ascii_lowercase();
    if lower == ".ds_store" || lower.starts_with("._") {
        return Some(Unwanted::Desktop);
    }
    let extension = lower.rsplit_once('.').map_or("", |(_, extension)| extension);
    let is_env = lower.starts_with(".env.") && lower != SHARED_ENV;
    // A repository that is part of another has a file `.git` that names a path of the author's machine; as a folder it is refused above.
    let is_secret = is_one_of(&SECRET_FILES, &lower) || is_one_of(&SECRET_EXTENSIONS, extension) || is_secret_in(parent, &lower);
    if is_env || is_secret || lower.contains(".tfstate.") || is_one_of(&SECRET_FOLDERS, &lower) {
        return Some(Unwanted::Secret);
    }
    match kind {
        Kind::Source if is_one_of(&COMPILED_EXTENSIONS, extension) => Some(Unwanted::Compiled),
        Kind::Source if is_one_of(&DATA_EXTENSIONS, extension) => Some(Unwanted::Data),
        _ => None,
    }
}

fn is_one_of(names: &[&str], name: &str) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn is_secret_in(parent: &str, name: &str) -> bool {
    SECRET_IN_FOLDER.iter().any(|(folder, secret)| folder.eq_ignore_ascii_case(parent) && secret.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_found_at_any_depth_and_in_any_case() {
        let secret = [
            ".env",
            "api/.env",
            "api/.env.local",
            "a/b/.ENV.production",
            "id_rsa",
            "x/id_ed25519",
            ".npmrc",
            "web/.npmrc",
            "certs/server.PEM",
            "a.key",
            "a.p12",
            "b/c.pfx",
            "terraform.tfstate",
            "terraform.tfstate.backup",
            ".cargo/credentials",
            "x/.cargo/credentials.toml",
            ".config/gh/hosts.yml",
            ".git/config",
            "sub/.git",
            "home/.ssh/known_hosts",
            ".aws/config",
        ];
        for path in secret {
            for kind in [Kind::Source, Kind::Assets] {
                assert_eq!(unwanted(path, kind), Some(Unwanted::Secret), "{path}");
            }
        }
        for path in
            [".env.example", "src/env.rs", ".cargo/config.toml", ".config/app.toml", ".gitignore", ".github/workflows/ci.yml", "key", "keys/a.txt"]
        {
            assert_eq!(unwanted(path, Kind::Source), None, "{path}");
        }
    }

    #[test]
    fn what_builds_make_is_unwanted_in_source_only() {
        let cases = [
            ("target/release/w", Unwanted::Generated),
            ("web/node_modules/a/index.js", Unwanted::Generated),
            ("lib/a.so", Unwanted::Compiled),
            ("A.EXE", Unwanted::Compiled),
            ("dev.sqlite3", Unwanted::Data),
        ];
        for (path, reason) in cases {
            assert_eq!(unwanted(path, Kind::Source), Some(reason), "{path}");
            assert_eq!(unwanted(path, Kind::Assets), None, "{path}");
        }
        assert_eq!(unwanted("dist/a.wasm", Kind::Source), None);
        assert_eq!(unwanted("src/target", Kind::Source), None, "a file of that name is not the folder");
        assert_eq!(unwanted_folder("src/target", Kind::Source), Some(Unwanted::Generated));
        for path in [".DS_Store", "a/.DS_Store", "a/._b"] {
            assert_eq!(unwanted(path, Kind::Assets), Some(Unwanted::Desktop), "{path}");
        }
    }
}
