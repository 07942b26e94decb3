//! The products of the catalogue: what each is for, what it can do, what it is charged by, and where its limits and prices stand.

use schemars::JsonSchema;
use serde::Serialize;
use tovuk_kernel::meters::{Meter, Period};
use tovuk_kernel::pricing::PRICING_FIELDS;

/// A product.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Product {
    /// Its name, which is also the capability flag's.
    pub key: &'static str,
    /// What it is for.
    pub best_for: &'static str,
    /// What it is not for.
    pub avoid_for: &'static str,
    /// What it can do.
    pub features: &'static [&'static str],
    /// The meters that it is charged by.
    pub meters: Vec<&'static str>,
    /// The same with what there is to know of each.
    pub meter_details: Vec<MeterDetails>,
    /// Where the limits of a plan say what there may be of it, for example `limits.projects`.
    pub limit_fields: Vec<String>,
    /// Where the prices of a plan say what it costs, for example `pricing.kv.includedReadsPerMonth`.
    pub pricing_fields: Vec<String>,
}

/// A meter.
#[derive(Debug, Serialize, JsonSchema)]
pub struct MeterDetails {
    /// Its name.
    pub name: &'static str,
    /// What one of it is.
    pub unit: &'static str,
    /// What it counts.
    pub description: &'static str,
    /// When it is charged.
    pub charged: &'static str,
    /// The commands that cap it.
    pub cap_commands: CapCommands,
}

/// How a meter is capped.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CapCommands {
    /// For each day.
    pub day: String,
    /// For each month.
    pub month: String,
}

impl From<Meter> for MeterDetails {
    fn from(meter: Meter) -> Self {
        let command = |period: Period| format!("tovuk limits set {} --period {} --value <n>", meter.as_str(), period.as_str());
        Self {
            name: meter.as_str(),
            unit: meter.unit(),
            description: meter.description(),
            charged: meter.charged(),
            cap_commands: CapCommands { day: command(Period::Day), month: command(Period::Month) },
        }
    }
}

/// A row of the table.
struct Row {
    key: &'static str,
    best_for: &'static str,
    avoid_for: &'static str,
    features: &'static [&'static str],
    meters: &'static [Meter],
    limits: &'static [&'static str],
}

impl From<&Row> for Product {
    fn from(row: &Row) -> Self {
        let priced = PRICING_FIELDS.iter().filter(|field| row.meters.contains(&field.meter));
        Self {
            key: row.key,
            best_for: row.best_for,
            avoid_for: row.avoid_for,
            features: row.features,
            meters: row.meters.iter().map(|meter| meter.as_str()).collect(),
            meter_details: row.meters.iter().copied().map(MeterDetails::from).collect(),
            limit_fields: row.limits.iter().map(|field| format!("limits.{field}")).collect(),
            pricing_fields: priced.flat_map(|field| [field.included, field.overage].map(|name| format!("pricing.{}.{name}", field.group))).collect(),
        }
    }
}

/// Every product.
pub fn all() -> Vec<Product> {
    PRODUCTS.iter().map(Product::from).collect()
}

/// What an invocation of a worker is charged by, whatever starts it.
const WORKER: &[Meter] = &[Meter::WorkerRequests, Meter::WorkerCpuMs, Meter::WorkerTransferBytes];

const PRODUCTS: &[Row] = &[
    Row {
        key: "worker",
        best_for: "HTTP APIs, webhooks, forms, and whatever answers within its CPU time",
        avoid_for: "programs that keep state in memory between requests",
        features: &[
            "a fresh instance for each request",
            "CPU, memory and time limits",
            "private calls to other services",
            "outgoing HTTP by allowlist",
        ],
        meters: WORKER,
        limits: &["projects", "workerCompressedSizeMib", "workerDefaultCpuMsPerRequest", "workerRequestBodySizeMib"],
    },
    Row {
        key: "static_frontend",
        best_for: "pages and browser applications",
        avoid_for: "secrets; whatever must not be public",
        features: &["ETags and ranges", "precompressed files", "fallback to index.html", "a worker under /api/*"],
        meters: &[Meter::StaticTransferBytes],
        limits: &["projects"],
    },
    Row {
        key: "sqlite",
        best_for: "relational data of one service",
        avoid_for: "large files: use object storage",
        features: &["transactions", "migrations", "backups and restore", "a file for each database"],
        meters: &[Meter::SqliteRowsRead, Meter::SqliteRowsWritten, Meter::SqliteStorageBytes],
        limits: &["boundResourcesPerService"],
    },
    Row {
        key: "kv",
        best_for: "settings, sessions and cached answers that are read often",
        avoid_for: "queries by anything but the key",
        features: &["expiration", "metadata", "bulk requests", "what was written is read at once"],
        meters: &[Meter::KvReads, Meter::KvWrites, Meter::KvDeletes, Meter::KvLists, Meter::KvStorageBytes],
        limits: &["boundResourcesPerService"],
    },
    Row {
        key: "queue",
        best_for: "work that may be done later, and again if it fails",
        avoid_for: "answers that somebody waits for",
        features: &["batches", "retries and dead letters", "delays", "consumers that push or pull"],
        meters: &[Meter::QueueOperations],
        limits: &["boundResourcesPerService"],
    },
    Row {
        key: "cron",
        best_for: "work that is done at set times",
        avoid_for: "work of which each run must be the only one: runs may overlap",
        features: &["five fields in UTC", "retries", "a history of runs", "runs on demand"],
        meters: WORKER,
        limits: &[],
    },
    Row {
        key: "state",
        best_for: "one thing that many ask at once, such as a room, a counter or a session",
        avoid_for: "reports over many objects",
        features: &["one call at a time for each object", "values and alarms", "atomic writes", "calls from workers"],
        meters: &[
            Meter::StateRequests,
            Meter::StateDurationGbMilliseconds,
            Meter::StateSqliteRowsRead,
            Meter::StateSqliteRowsWritten,
            Meter::StateSqliteStorageBytes,
        ],
        limits: &["boundResourcesPerService"],
    },
    Row {
        key: "object_storage",
        best_for: "files, uploads and downloads",
        avoid_for: "many small values: use KV",
        features: &["signed URLs", "uploads in parts", "ranges and ETags", "public objects"],
        meters: &[
            Meter::ObjectStorageBytes,
            Meter::ObjectStorageClassAOperations,
            Meter::ObjectStorageClassBOperations,
            Meter::ObjectStorageEgressBytes,
        ],
        limits: &["objectStorageMib", "storageObjectMaxMib", "storageSinglePartUploadMaxMib", "storageMultipartUploadMaxMib"],
    },
    Row {
        key: "service_bindings",
        best_for: "private calls between services of an account",
        avoid_for: "calls from browsers",
        features: &["in process", "32 invocations for each request from outside", "by name or by URL"],
        meters: WORKER,
        limits: &["serviceBindingInvocationsPerRequest", "boundResourcesPerService"],
    },
    Row {
        key: "secrets",
        best_for: "keys and passwords of workers",
        avoid_for: "configuration that has to be read back",
        features: &["write-only", "sealed at rest", "hidden in logs"],
        meters: &[],
        limits: &["buildEnvVars", "buildEnvVarSizeKib"],
    },
    Row {
        key: "custom_domains",
        best_for: "production host names",
        avoid_for: "addresses of the host itself: use the CNAME",
        features: &["one CNAME record", "checked daily"],
        meters: &[],
        limits: &["customDomains"],
    },
    Row {
        key: "builds",
        best_for: "checks and compilation before a deploy goes live",
        avoid_for: "long computations",
        features: &["ahead-of-time compilation in a child process", "health request", "atomic promotion", "rollback"],
        meters: &[Meter::BuildMinutes],
        limits: &[],
    },
    Row {
        key: "logs",
        best_for: "finding out what happened",
        avoid_for: "metrics",
        features: &["build, deploy and runtime logs", "secrets hidden"],
        meters: &[Meter::LogEvents],
        limits: &["logEventSizeBytes"],
    },
    Row {
        key: "usage_caps",
        best_for: "bills that cannot surprise",
        avoid_for: "limits of one request: set those in tovuk.toml",
        features: &["hard stops by day and month", "for the account and for each service", "one notification in a period"],
        meters: &Meter::ALL,
        limits: &[],
    },
];
