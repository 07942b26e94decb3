//! What this host is and offers. Anybody may ask.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tovuk_kernel::limits::{Plan, WORKER};
use tovuk_kernel::operation::{Access, Command, Method, Operation, Request};
use tovuk_kernel::pricing::{PRICING_FIELDS, PlanPricing};

use super::products::{self, Product};
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
    /// Its prices: for each group of meters what is included and what more costs, in millionths of a US dollar.
    pub pricing: Map<String, Value>,
}

/// The prices of a plan, under the names that `pricing_fields` of the products say.
fn pricing(plan: &PlanPricing) -> Map<String, Value> {
    let mut pricing = Map::new();
    pricing.insert("subscriptionUsdMicrosPerMonth".to_owned(), plan.subscription_usd_micros_per_month.into());
    pricing.insert("subscriptionUsdCentsPerMonth".to_owned(), (plan.subscription_usd_micros_per_month / USD_MICROS_PER_CENT).into());
    pricing.insert("paidOveragesEnabled".to_owned(), plan.paid_overages.into());
    for field in PRICING_FIELDS {
        let group = pricing.entry(field.group).or_insert_with(|| json!({}));
        if let Some(group) = group.as_object_mut() {
            group.insert(field.included.to_owned(), plan.of(field.meter).included.into());
            group.insert(field.overage.to_owned(), plan.overage_of(field).into());
        }
    }
    pricing
}

const USD_MICROS_PER_CENT: u64 = 10_000;

/// All plans.
pub(super) fn plans(control: &Control) -> Vec<PlanEntry> {
    let prices = &control.config().pricing;
    [Plan::Free, Plan::Pro].map(|plan| PlanEntry { name: plan, limits: Limits::of(plan), pricing: pricing(prices.of(plan)) }).into()
}

impl Request for Capabilities {
    const OPERATION: Operation = Operation::new("capabilities", Method::Get, "/v1/capabilities", "List plans, products, meters, prices and limits")
        .access(Access::Public)
        .commands(&[Command::new("pricing").aliases(&["capabilities"]).examples(&["tovuk pricing"])]);
    type Response = CapabilitiesResponse;
}

impl Handler for Capabilities {
    async fn run(self, control: Control, _caller: Caller) -> Result<CapabilitiesResponse, Refusal> {
        let api = &control.urls().api;
        let worker_limits = WORKER
            .iter()
            .map(|row| json!({"name": row.name, "unit": row.unit, "free": row.free, "pro": row.pro, "ceiling": row.ceiling, "description": row.doc}))
            .collect();
        Ok(CapabilitiesResponse {
            plans: plans(&control),
            products: products::all(),
            worker_limits,
            docs_url: format!("{api}/docs"),
            openapi_url: format!("{api}/openapi.json"),
        })
    }
}
