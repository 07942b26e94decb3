//! What this host is and offers. Anybody may ask.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tovuk_kernel::limits::{Plan, WORKER};
use tovuk_kernel::operation::{Access, Command, Method, Operation, Request};

use super::usage::Limits;
use crate::control::handler::Handler;
use crate::control::{Caller, Control, Refusal};

/// Says whether the host is well.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Status {}

/// How the host is.
#[derive(Debug, Serialize, JsonSchema)]
pub struct StatusResponse {
    /// `ok`, or `draining`.
    pub status: &'static str,
    /// Its version.
    pub version: &'static str,
}

impl Request for Status {
    const OPERATION: Operation = Operation::new("status", Method::Get, "/v1/status", "Say whether the host is well")
        .access(Access::Public)
        .commands(&[Command::new("status")]);
    type Response = StatusResponse;
}

impl Handler for Status {
    async fn run(self, control: Control, _caller: Caller) -> Result<StatusResponse, Refusal> {
        let status = if control.is_draining() { "draining" } else { "ok" };
        Ok(StatusResponse { status, version: env!("CARGO_PKG_VERSION") })
    }
}

/// Lists plans and products.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Capabilities {}

/// What the host offers.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CapabilitiesResponse {
    /// The plans with their limits.
    pub plans: Vec<PlanEntry>,
    /// The products.
    pub products: Vec<Product>,
    /// The limits of one invocation that a project file can set.
    pub worker_limits: Vec<Value>,
    /// Where the reference is.
    pub docs_url: String,
    /// Where the API is described for programs.
    pub openapi_url: String,
}

/// A plan.
#[derive(Debug, Serialize, JsonSchema)]
pub struct PlanEntry {
    /// Its name.
    pub name: Plan,
    /// Its limits.
    pub limits: Limits,
}

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
}

impl Request for Capabilities {
    const OPERATION: Operation = Operation::new("capabilities", Method::Get, "/v1/capabilities", "List plans, products and limits")
        .access(Access::Public)
        .commands(&[Command::new("pricing").aliases(&["capabilities"]).examples(&["tovuk pricing"])]);
    type Response = CapabilitiesResponse;
}

const PRODUCTS: [Product; 7] = [
    Product {
        key: "worker",
        best_for: "HTTP APIs, webhooks, forms, and whatever answers within its CPU time",
        avoid_for: "programs that keep state in memory between requests",
        features: &[
            "a fresh instance for each request",
            "CPU, memory and time limits",
            "private calls to other services",
            "outgoing HTTP by allowlist",
        ],
    },
    Product {
        key: "static_frontend",
        best_for: "pages and browser applications",
        avoid_for: "secrets; whatever must not be public",
        features: &["ETags and ranges", "precompressed files", "fallback to index.html", "a worker under /api/*"],
    },
    Product {
        key: "service_bindings",
        best_for: "private calls between services of an account",
        avoid_for: "calls from browsers",
        features: &["in process", "32 invocations for each request from outside", "by name or by URL"],
    },
    Product {
        key: "secrets",
        best_for: "keys and passwords of workers",
        avoid_for: "configuration that has to be read back",
        features: &["write-only", "sealed at rest", "hidden in logs"],
    },
    Product {
        key: "custom_domains",
        best_for: "production host names",
        avoid_for: "addresses of the host itself: use the CNAME",
        features: &["one CNAME record", "checked daily"],
    },
    Product {
        key: "builds",
        best_for: "checks and compilation before a deploy goes live",
        avoid_for: "long computations",
        features: &["ahead-of-time compilation in a child process", "health request", "atomic promotion", "rollback"],
    },
    Product {
        key: "logs",
        best_for: "finding out what happened",
        avoid_for: "metrics",
        features: &["build, deploy and runtime logs", "secrets hidden"],
    },
];

impl Handler for Capabilities {
    async fn run(self, control: Control, _caller: Caller) -> Result<CapabilitiesResponse, Refusal> {
        let api = &control.urls().api;
        let worker_limits = WORKER
            .iter()
            .map(|row| json!({"name": row.name, "unit": row.unit, "free": row.free, "pro": row.pro, "ceiling": row.ceiling, "description": row.doc}))
            .collect();
        Ok(CapabilitiesResponse {
            plans: [Plan::Free, Plan::Pro].map(|plan| PlanEntry { name: plan, limits: Limits::of(plan) }).into(),
            products: PRODUCTS.into(),
            worker_limits,
            docs_url: format!("{api}/docs"),
            openapi_url: format!("{api}/openapi.json"),
        })
    }
}
