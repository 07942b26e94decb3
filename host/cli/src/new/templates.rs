//! The templates, compiled in. Their files lie in `templates/`; `{{name}}`, `{{slug}}`, `{{package}}` and `{{sdk}}` are filled in.

/// One template.
#[derive(Debug)]
pub struct Template {
    /// Its name for `--template`.
    pub name: &'static str,
    /// Other names that stand for it, among them those of the published client.
    pub aliases: &'static [&'static str],
    /// A path that answers something once it runs.
    pub(super) try_path: &'static str,
    /// Paths and texts of its files.
    pub(super) files: &'static [(&'static str, &'static str)],
}

/// The files of a template: path in the project, then path below `templates/`. Manifests and `.gitignore` have other names there, so that neither
/// cargo nor git takes them for its own.
macro_rules! files {
    ($($path:literal = $source:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../templates/", $source)))),*]
    };
}

/// A worker with the SDK.
pub(super) const RUST: Template = Template {
    name: "rust",
    aliases: &["rust-worker"],
    try_path: "/hello/you",
    files: files! {
        "Cargo.toml" = "rust/Cargo.toml.in",
        "src/lib.rs" = "rust/src/lib.rs",
        "tovuk.toml" = "rust/tovuk.toml",
        ".gitignore" = "rust/gitignore",
        "README.md" = "rust/README.md",
    },
};

const RUST_WASI_HTTP: Template = Template {
    name: "rust-wasi-http",
    aliases: &["wasi-http", "rust-streaming"],
    try_path: "/count",
    files: files! {
        "Cargo.toml" = "rust-wasi-http/Cargo.toml.in",
        "src/main.rs" = "rust-wasi-http/src/main.rs",
        "tovuk.toml" = "rust-wasi-http/tovuk.toml",
        ".gitignore" = "rust-wasi-http/gitignore",
        "README.md" = "rust-wasi-http/README.md",
    },
};

const FULLSTACK: Template = Template {
    name: "fullstack",
    aliases: &["fullstack-rust-tanstack", "fullstack-rust"],
    try_path: "/api/hello",
    files: files! {
        "api/Cargo.toml" = "fullstack/api/Cargo.toml.in",
        "api/src/lib.rs" = "fullstack/api/src/lib.rs",
        "web/index.html" = "fullstack/web/index.html",
        "web/main.js" = "fullstack/web/main.js",
        "tovuk.toml" = "fullstack/tovuk.toml",
        ".gitignore" = "fullstack/gitignore",
        "README.md" = "fullstack/README.md",
    },
};

const JS: Template = Template {
    name: "js",
    aliases: &["javascript", "js-worker"],
    try_path: "/hello",
    files: files! {
        "package.json" = "js/package.json",
        "package-lock.json" = "js/package-lock.json",
        "build.js" = "js/build.js",
        "src/worker.js" = "js/src/worker.js",
        "wit/world.wit" = "js/wit/world.wit",
        "tovuk.toml" = "js/tovuk.toml",
        ".gitignore" = "js/gitignore",
        "README.md" = "js/README.md",
    },
};

const STATIC: Template = Template {
    name: "static",
    aliases: &["tanstack-static-frontend", "next-static-frontend", "static-frontend"],
    try_path: "/",
    files: files! {
        "public/index.html" = "static/public/index.html",
        "tovuk.toml" = "static/tovuk.toml",
        ".gitignore" = "static/gitignore",
        "README.md" = "static/README.md",
    },
};

const ALL: [Template; 5] = [RUST, RUST_WASI_HTTP, FULLSTACK, JS, STATIC];

/// The names for `--template`, without aliases.
pub const NAMES: [&str; 5] = [RUST.name, RUST_WASI_HTTP.name, FULLSTACK.name, JS.name, STATIC.name];

impl Template {
    /// The template of a name or alias.
    pub fn named(name: &str) -> Option<&'static Self> {
        static TEMPLATES: [Template; 5] = ALL;
        TEMPLATES.iter().find(|template| template.name == name || template.aliases.contains(&name))
    }
}
