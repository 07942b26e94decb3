//! The `[services]` form of the project file as types. It derives the JSON schema that parsing is driven by, so a key is declared once: here. What
//! the schema cannot say (names, paths, references between services) is checked in `rules`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::capabilities::Capabilities;
use super::published::{FrontendBuild, Manifest};
use crate::{limits, resource};

/// A project file: one or more services.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "tovuk.toml")]
pub struct Project {
    /// The services by name. A name has 1 to 48 of `a-z`, `0-9` and `-`, and begins and ends with a letter or digit.
    #[serde(default)]
    pub services: BTreeMap<String, Service>,
}

/// What is deployed for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A worker and nothing else.
    RustWorker,
    /// Files and nothing else.
    StaticFrontend,
    /// Files at `/` and a worker under `/api/*`.
    Fullstack,
}

impl Kind {
    /// Whether a service of this kind has a worker.
    pub fn has_worker(self) -> bool {
        self != Self::StaticFrontend
    }

    /// Whether a service of this kind has static files.
    pub fn has_assets(self) -> bool {
        self != Self::RustWorker
    }

    /// The kind as it is written in the project file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RustWorker => "rust_worker",
            Self::StaticFrontend => "static_frontend",
            Self::Fullstack => "fullstack",
        }
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::RustWorker, Self::StaticFrontend, Self::Fullstack].into_iter().find(|kind| kind.as_str() == name)
    }
}

/// One service: what it is built from, what it may use and how it is reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Service {
    /// What is deployed. When absent it follows from what is declared: `assets` alone is `static_frontend`, `assets` beside a worker `fullstack`,
    /// otherwise `rust_worker`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// The service's folder, relative to the project file. Default: the project file's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// The command that builds the service, run in `root` without a shell. Default where `root` has a `Cargo.toml`:
    /// `cargo build --release --target wasm32-wasip2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub build: Option<String>,
    /// The component that the build leaves, relative to `root`. Default for a Rust package: what `cargo metadata` names.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub component: Option<String>,
    /// Path prefixes on the service's own host, for example `/*` or `/v1/*`. A worker without routes is private; one beside static files answers
    /// under `/api/*` then.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<String>,
    /// The folder of static files, relative to `root`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub assets: Option<String>,
    /// A path that must answer with a status below 400 before a deploy is promoted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// SQLite databases: a table of names with settings, or an array of names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "named_databases")]
    #[schemars(with = "Databases")]
    pub sqlite: BTreeMap<String, Sqlite>,
    /// KV namespaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kv: Vec<String>,
    /// State classes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub state: Vec<String>,
    /// Queues by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("examples" = [{"jobs": {"max_batch_size": 25, "max_retries": 5}}]))]
    pub queues: BTreeMap<String, Queue>,
    /// Cron triggers by name: a five-field expression in UTC.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("examples" = [{"nightly": "0 0 * * *"}]))]
    pub crons: BTreeMap<String, String>,
    /// Names of secrets that must be set before a deploy; each becomes an environment variable.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Hosts that the worker may call: exact scheme, host and port; `*.` stands for one label. Nothing by default.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outbound: Vec<String>,
    /// Limits of this service's invocations, within the ceilings.
    #[serde(skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// Private ways to other services of the account.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bindings: Vec<Binding>,
    /// Whether the service uses object storage, as its capabilities then say. Every service has one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub object_storage: bool,
    /// The manifest that this service was read from, when the file is in the published client's form.
    #[serde(skip)]
    pub published: Option<Box<Manifest>>,
}

/// Settings of a SQLite database.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sqlite {
    /// A folder of `.sql` files, relative to `root`, that are applied once each in the order of their names.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub migrations: Option<String>,
}

/// The two ways to declare databases.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Databases {
    /// Names only.
    Names(Vec<String>),
    /// Names with settings.
    Settings(BTreeMap<String, Sqlite>),
}

fn named_databases<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Sqlite>, D::Error> {
    Ok(match Databases::deserialize(deserializer)? {
        Databases::Names(names) => names.into_iter().map(|name| (name, Sqlite::default())).collect(),
        Databases::Settings(settings) => settings,
    })
}

/// Who takes messages out of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Consumer {
    /// The host delivers batches to the service's worker.
    #[default]
    Worker,
    /// A client asks for batches; nothing is delivered.
    Pull,
}

/// Settings of a queue. What is absent has the default of the queue kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// Most messages in one batch. Default 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_batch_size: Option<u32>,
    /// Longest wait for a batch to fill, in seconds. Default 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 60))]
    pub max_batch_timeout_seconds: Option<u32>,
    /// Deliveries after the first before a message counts as failed. Default 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub max_retries: Option<u32>,
    /// How long a message is kept, in seconds. Default 345,600 (4 days).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60, max = 1_209_600))]
    pub retention_seconds: Option<u32>,
    /// How long a batch that was pulled stays hidden from others, in seconds. Default 30.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 43_200))]
    pub visibility_timeout_seconds: Option<u32>,
    /// How long each message waits before its first delivery, in seconds. Default 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 86_400))]
    pub delivery_delay_seconds: Option<u32>,
    /// Most batches that are delivered at a time. Default 250.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 250))]
    pub max_concurrency: Option<u32>,
    /// The queue of the same service that takes what failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letter_queue: Option<String>,
    /// Who takes messages out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer: Option<Consumer>,
}

/// Limits of one service, each in the unit that its name ends with. The ceilings are those of the host's limits table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// CPU time of one invocation, in ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::CPU_MS.ceiling))]
    pub cpu_ms: Option<u64>,
    /// Memory of one invocation, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::MEMORY_MB.ceiling))]
    pub memory_mb: Option<u64>,
    /// Time until the response head, in ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::WALL_MS.ceiling))]
    pub wall_ms: Option<u64>,
    /// Time after the response head in which no byte of a body moves, in ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::IDLE_MS.ceiling))]
    pub idle_ms: Option<u64>,
    /// Largest body of a worker that takes requests whole, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::BODY_MB.ceiling))]
    pub body_mb: Option<u64>,
    /// Largest body of a worker that streams, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::STREAM_BODY_MB.ceiling))]
    pub stream_body_mb: Option<u64>,
    /// Outgoing requests and binding calls of one invocation.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = limits::SUBREQUESTS.ceiling))]
    pub subrequests: Option<u64>,
    /// Invocations of the service that run at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = limits::CONCURRENCY.ceiling))]
    pub concurrency: Option<u64>,
}

impl Limits {
    /// What is set, as pairs of the limit's name and its value.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("cpu_ms", self.cpu_ms),
            ("memory_mb", self.memory_mb),
            ("wall_ms", self.wall_ms),
            ("idle_ms", self.idle_ms),
            ("body_mb", self.body_mb),
            ("stream_body_mb", self.stream_body_mb),
            ("subrequests", self.subrequests),
            ("concurrency", self.concurrency),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.entries().next().is_none()
    }
}

/// What a binding leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BindingType {
    /// Another service of the account.
    Service,
}

/// What a binding puts into the environment besides the target's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BindingFormat {
    /// The target's private URL, under the name given as `env`.
    Url,
}

/// A private way from this service's worker to one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// What it leads to.
    #[serde(rename = "type")]
    pub kind: BindingType,
    /// The name of the target service, which can be this service itself.
    pub service: String,
    /// The binding's name: `TOVUK_BINDING_<NAME>` holds the target's id. Optional when `env` is given, which then names the binding too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `url` also puts the target's private URL into the environment. It is implied by `env`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<BindingFormat>,
    /// The environment variable for the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
}

impl Binding {
    /// The binding's name: `name`, else `env`. The empty text when neither is given, which parsing refuses.
    pub fn name(&self) -> &str {
        self.name.as_deref().or(self.env.as_deref()).unwrap_or_default()
    }
}

impl Service {
    /// The kind, given or from what is declared.
    pub fn kind(&self) -> Kind {
        self.kind.unwrap_or(match (&self.assets, self.declares_worker()) {
            (None, _) => Kind::RustWorker,
            (Some(_), true) => Kind::Fullstack,
            (Some(_), false) => Kind::StaticFrontend,
        })
    }

    /// The service's folder relative to the project file.
    pub fn root(&self) -> &str {
        self.root.as_deref().unwrap_or(".")
    }

    /// Whether something is declared that only a worker can be or use.
    pub fn declares_worker(&self) -> bool {
        let cargo = self.build.as_deref().is_some_and(|build| build.split_whitespace().any(|word| word == "cargo"));
        let resources = self.sqlite.len() + self.kv.len() + self.state.len() + self.queues.len() + self.crons.len() + self.bindings.len();
        let powers = self.secrets.len() + self.outbound.len();
        cargo || self.component.is_some() || self.health.is_some() || self.object_storage || !self.limits.is_empty() || resources + powers > 0
    }

    /// The data that it declares by name, in the order in which it is made.
    pub fn data(&self) -> impl Iterator<Item = (resource::Kind, &str)> {
        let databases = self.sqlite.keys().map(|name| (resource::Kind::Sqlite, name.as_str()));
        let namespaces = self.kv.iter().map(|name| (resource::Kind::Kv, name.as_str()));
        let queues = self.queues.keys().map(|name| (resource::Kind::Queue, name.as_str()));
        let triggers = self.crons.keys().map(|name| (resource::Kind::Cron, name.as_str()));
        let classes = self.state.iter().map(|name| (resource::Kind::State, name.as_str()));
        databases.chain(namespaces).chain(queues).chain(triggers).chain(classes)
    }

    /// Whether the service has a public address.
    pub fn is_public(&self) -> bool {
        !self.routes.is_empty()
    }

    /// The capability flags: those of the published form as they stand there, otherwise those that follow from what is declared.
    pub fn capabilities(&self) -> Capabilities {
        match &self.published {
            Some(manifest) => manifest.capabilities,
            None => Capabilities::of(self),
        }
    }

    /// The frontend's own build, which only the published form can declare apart from the worker's.
    pub fn frontend_build(&self) -> Option<FrontendBuild> {
        self.published.as_deref().and_then(Manifest::frontend_build)
    }
}
