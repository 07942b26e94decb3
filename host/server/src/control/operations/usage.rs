//! What the account uses and what it may use.

use rusqlite::Connection;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tovuk_kernel::limits::{self, Plan, component_gzip_bytes, custom_domains_max, services_max};
use tovuk_kernel::operation::{Command, Method, Operation, Request};

use crate::control::handler::Handler;
use crate::control::store::{accounts, services};
use crate::control::{Caller, Control, Refusal};

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
}

impl Usage {
    /// With what the account has stored.
    pub(super) async fn with_objects(mut self, control: &Control, account: i64) -> Result<Self, Refusal> {
        let stored = control.objects().account_usage(account).await?;
        (self.storage_object_count, self.object_storage_mib) = (stored.objects, stored.bytes.div_ceil(1 << 20));
        Ok(self)
    }
}

/// What this month is going to cost.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BillingEstimate {
    /// The plan.
    pub plan: Plan,
    /// One for each product that has a price.
    pub line_items: Vec<Value>,
    /// Their sum, in millionths of a US dollar.
    pub estimated_monthly_total_usd_micros: u64,
    /// What of it lies beyond what the plan includes, in millionths of a US dollar.
    pub current_month_overage_usd_micros: u64,
}

/// Usage, limits and costs.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageResponse {
    /// What the account uses.
    pub usage: Usage,
    /// What it may use.
    pub limits: Limits,
    /// What it is going to cost.
    pub billing_estimate: BillingEstimate,
}

impl UsageResponse {
    /// Those of an account.
    pub(super) fn of(conn: &Connection, account: i64) -> Result<Self, Refusal> {
        let plan = accounts::get(conn, account)?.map(|account| account.plan).unwrap_or_default();
        Ok(Self {
            usage: Usage { service_count: services::count(conn, account)?, storage_object_count: 0, object_storage_mib: 0 },
            limits: Limits::of(plan),
            billing_estimate: BillingEstimate {
                plan,
                line_items: Vec::new(),
                estimated_monthly_total_usd_micros: 0,
                current_month_overage_usd_micros: 0,
            },
        })
    }
}

/// Shows usage and limits.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Show {}

impl Request for Show {
    const OPERATION: Operation = Operation::new("usage.show", Method::Get, "/v1/usage", "Show what the account uses and what it may use")
        .commands(&[Command::new("usage").examples(&["tovuk usage"])]);
    type Response = UsageResponse;
}

impl Handler for Show {
    async fn run(self, control: Control, caller: Caller) -> Result<UsageResponse, Refusal> {
        let account = caller.account_number();
        let mut answer = control.read(move |conn| UsageResponse::of(conn, account)).await?;
        answer.usage = answer.usage.with_objects(&control, account).await?;
        Ok(answer)
    }
}
