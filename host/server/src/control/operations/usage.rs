//! What the account uses and what it may use.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tovuk_kernel::codes;
use tovuk_kernel::limits::{self, Plan, component_gzip_bytes, custom_domains_max, services_max};
use tovuk_kernel::meters::{Meter, Period};
use tovuk_kernel::operation::{Argument, Command, Method, Operation, Request};
use tovuk_kernel::pricing::LineItem;
use tovuk_resources::meters;

use super::caps::CapEntry;
use super::catalog::{PlanEntry, plans};
use super::products::{self, Product};
use crate::control::handler::Handler;
use crate::control::store::{accounts, services};
use crate::control::{Caller, Control, Refusal, service_of};

/// What a plan allows.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "AccountLimits")]
pub struct Limits {
    /// Services of the account.
    pub projects: u64,
    /// Largest component, compressed with gzip, in MiB.
    pub worker_compressed_size_mib: u64,
    /// CPU time of one invocation unless the service sets it, in ms.
    pub worker_default_cpu_ms_per_request: u64,
    /// Largest body of a request to a worker with the SDK unless the service sets it, in MiB.
    pub worker_request_body_size_mib: u64,
    /// Invocations that one request from outside may cause.
    pub service_binding_invocations_per_request: u32,
    /// Databases, namespaces, queues, State classes and bindings of one service.
    pub bound_resources_per_service: u64,
    /// Custom domains of one service.
    pub custom_domains: u64,
    /// Tokens of the account.
    pub api_tokens: u64,
    /// Secrets of one service.
    pub build_env_vars: u64,
    /// Largest value of a secret, in KiB.
    pub build_env_var_size_kib: u64,
    /// What all objects of the account may take, open uploads included, in MiB.
    pub object_storage_mib: u64,
    /// Largest object, in MiB.
    pub storage_object_max_mib: u64,
    /// Largest object that is sent as a whole, in MiB.
    pub storage_single_part_upload_max_mib: u64,
    /// Largest object that is sent in parts, in MiB.
    pub storage_multipart_upload_max_mib: u64,
    /// Longest line of a log, in bytes.
    pub log_event_size_bytes: u64,
}

impl Limits {
    /// Those of a plan.
    pub fn of(plan: Plan) -> Self {
        Self {
            projects: services_max(plan),
            worker_compressed_size_mib: component_gzip_bytes(plan) >> 20,
            worker_default_cpu_ms_per_request: limits::CPU_MS.default_for(plan),
            worker_request_body_size_mib: limits::BODY_MB.default_for(plan),
            service_binding_invocations_per_request: limits::CHAIN_INVOCATIONS,
            bound_resources_per_service: tovuk_kernel::project::BOUND_RESOURCES_MAX as u64,
            custom_domains: custom_domains_max(plan),
            api_tokens: limits::API_TOKENS_MAX,
            build_env_vars: limits::ENV_VARIABLES_MAX,
            build_env_var_size_kib: (limits::ENV_VALUE_BYTES_MAX >> 10) as u64,
            object_storage_mib: limits::object_storage_account_bytes(plan) >> 20,
            storage_object_max_mib: limits::OBJECT_BYTES_MAX >> 20,
            storage_single_part_upload_max_mib: limits::OBJECT_SINGLE_BYTES_MAX >> 20,
            storage_multipart_upload_max_mib: limits::OBJECT_BYTES_MAX >> 20,
            log_event_size_bytes: limits::LOG_EVENT_BYTES as u64,
        }
    }
}

/// What was used of each meter. What is stored is as much as there is now.
#[derive(Debug, Serialize, JsonSchema)]
pub struct MeterUsage {
    /// Since midnight, in UTC.
    pub day: BTreeMap<&'static str, u64>,
    /// Since the first of the month, in UTC.
    pub month: BTreeMap<&'static str, u64>,
}

impl From<&meters::Usage> for MeterUsage {
    fn from(usage: &meters::Usage) -> Self {
        let of = |period| Meter::ALL.into_iter().map(|meter| (meter.as_str(), usage.of(meter, period))).collect();
        Self { day: of(Period::Day), month: of(Period::Month) }
    }
}

/// What the account uses.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Services.
    pub service_count: u64,
    /// Stored objects.
    pub storage_object_count: u64,
    /// What stored objects take, in MiB.
    pub object_storage_mib: u64,
    /// What was used of each meter, by the account or by the service that was asked for.
    pub meters: MeterUsage,
}

/// What this month is going to cost.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BillingEstimate {
    /// The plan.
    pub plan: Plan,
    /// What the plan costs in a month, in millionths of a US dollar.
    pub subscription_usd_micros_per_month: u64,
    /// One for each meter.
    pub line_items: Vec<LineItem>,
    /// What the month comes to as far as it has gone, in millionths of a US dollar.
    pub estimated_monthly_total_usd_micros: u64,
    /// What of it lies beyond what the plan includes, in millionths of a US dollar.
    pub current_month_overage_usd_micros: u64,
}

impl BillingEstimate {
    fn of(control: &Control, plan: Plan, used: &meters::Usage) -> Self {
        let estimate = control.config().pricing.of(plan).estimate(&used.month);
        Self {
            plan,
            subscription_usd_micros_per_month: estimate.subscription_usd_micros,
            estimated_monthly_total_usd_micros: estimate.total_usd_micros(),
            current_month_overage_usd_micros: estimate.overage_usd_micros,
            line_items: estimate.items,
        }
    }
}

/// Usage, limits and costs.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageResponse {
    /// What the account uses.
    pub usage: Usage,
    /// What it may use.
    pub limits: Limits,
    /// The caps that it has set.
    pub caps: Vec<CapEntry>,
    /// What it is going to cost.
    pub billing_estimate: BillingEstimate,
    /// The plans with their limits and prices.
    pub plans: Vec<PlanEntry>,
    /// The products with their meters.
    pub products: Vec<Product>,
}

impl UsageResponse {
    /// Those of an account, without plans and products. Meters and caps are those of one service, where one is named.
    pub(super) async fn of(control: &Control, account: i64, service: Option<i64>) -> Result<Self, Refusal> {
        let (plan, service_count) = control
            .read(move |conn| {
                let plan = accounts::get(conn, account)?.map(|account| account.plan).unwrap_or_default();
                Ok((plan, services::count(conn, account)?))
            })
            .await?;
        let stored = control.objects().account_usage(account).await?;
        let used = control.meters().usage(account, None);
        let meters = match service {
            None => MeterUsage::from(&used),
            Some(_) => MeterUsage::from(&control.meters().usage(account, service)),
        };
        let (storage_object_count, object_storage_mib) = (stored.objects, stored.bytes.div_ceil(1 << 20));
        Ok(Self {
            usage: Usage { service_count, storage_object_count, object_storage_mib, meters },
            limits: Limits::of(plan),
            caps: control.meters().caps(account, service).into_iter().map(CapEntry::from).collect(),
            billing_estimate: BillingEstimate::of(control, plan, &used),
            plans: Vec::new(),
            products: Vec::new(),
        })
    }
}

/// Shows usage and limits.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Show {
    /// Whose meters and caps to show, by id or name; those of the whole account when absent.
    pub service: Option<String>,
}

impl Request for Show {
    const OPERATION: Operation = Operation::new("usage.show", Method::Get, "/v1/usage", "Show what the account uses and what it may use")
        .errors(&[&codes::SERVICE_NOT_FOUND])
        .commands(&[Command::new("usage")
            .arguments(&[Argument::flag("service", "service", "Show the meters and caps of this service")])
            .examples(&["tovuk usage", "tovuk usage --service shop"])]);
    type Response = UsageResponse;
}

impl Handler for Show {
    async fn run(self, control: Control, caller: Caller) -> Result<UsageResponse, Refusal> {
        let account = caller.account_number();
        let service = match self.service {
            Some(name) => Some(control.read(move |conn| service_of(conn, account, &name)).await?.id),
            None => None,
        };
        let usage = UsageResponse::of(&control, account, service).await?;
        Ok(UsageResponse { plans: plans(&control), products: products::all(), ..usage })
    }
}
