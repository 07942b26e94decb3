//! Caps on what an account or one of its services uses. The meters refuse what they have no room for, wherever it is asked for; here caps are set, shown
//! and removed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tovuk_kernel::codes;
use tovuk_kernel::limits::CAP_NOTIFY_PERCENT_DEFAULT;
use tovuk_kernel::meters::{Meter, Period};
use tovuk_kernel::operation::{Argument, Command, Form, Method, Operation, Request};
use tovuk_resources::meters::{CapInfo, CapKey, Setting};

use super::{note, timestamp};
use crate::control::handler::Handler;
use crate::control::{Caller, Control, Refusal, service_of};

/// A cap.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "UsageCap")]
pub struct CapEntry {
    /// What it caps.
    pub metric: &'static str,
    /// `day` or `month`, in UTC.
    pub period: &'static str,
    /// The service that it is for; absent where it is for the whole account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// How much may be used.
    pub cap_value: u64,
    /// True: what has no room is refused.
    pub hard_stop: bool,
    /// At which percentage the account is told, once in a period.
    pub notify_at_percent: u16,
    /// How much is used, or there.
    pub used: u64,
    /// How much is left.
    pub remaining: u64,
    /// What one of it is.
    pub unit: &'static str,
    /// When the period ends.
    pub resets_at: String,
}

impl From<CapInfo> for CapEntry {
    fn from(CapInfo { key, setting, used, ends_ms }: CapInfo) -> Self {
        Self {
            metric: key.meter.as_str(),
            period: key.period.as_str(),
            service: key.service.map(|service| format!("service_{service}")),
            cap_value: setting.value,
            hard_stop: true,
            notify_at_percent: setting.notify_at_percent,
            used,
            remaining: setting.value.saturating_sub(used),
            unit: key.meter.unit(),
            resets_at: timestamp(i64::try_from(ends_ms).unwrap_or(i64::MAX)),
        }
    }
}

/// The caps that apply to a service: its own and its account's.
pub(super) fn applying(control: &Control, (account, service): (i64, i64)) -> Vec<CapEntry> {
    let caps = control.meters().caps(account, None).into_iter();
    caps.filter(|cap| cap.key.service.is_none_or(|own| own == service)).map(CapEntry::from).collect()
}

/// Which cap somebody means.
async fn key(control: &Control, caller: &Caller, (metric, period): (&str, &str), service: Option<String>) -> Result<CapKey, Refusal> {
    let unknown = |what: &str, is: &str, known: Vec<&str>| {
        Refusal::new(&codes::INVALID_REQUEST, format!("`{}` is no {what}; there are {}", is.escape_debug(), known.join(", ")))
    };
    let meter = Meter::named(metric).ok_or_else(|| unknown("meter", metric, Meter::ALL.map(Meter::as_str).to_vec()))?;
    let period = Period::named(period).ok_or_else(|| unknown("period", period, Period::ALL.map(Period::as_str).to_vec()))?;
    let account = caller.account_number();
    let service = match service {
        Some(name) => Some(control.read(move |conn| service_of(conn, account, &name)).await?.id),
        None => None,
    };
    Ok(CapKey { account, service, meter, period })
}

/// What the account's activity calls a cap.
fn subject(key: CapKey) -> String {
    format!("{} per {}", key.meter.as_str(), key.period.as_str())
}

const METRIC: Argument = Argument::positional("metric", "The meter, as `tovuk pricing` names it");
const PERIOD: Argument = Argument::either("period", "period", "`day` or `month`");
const SERVICE: Argument = Argument::flag("service", "service", "For this service alone, by id or name; otherwise for the whole account");

/// Sets a cap.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Set {
    /// The meter.
    pub metric: String,
    /// `day` or `month`, in UTC.
    pub period: String,
    /// How much may be used.
    pub cap_value: u64,
    /// True, which is what a cap is.
    pub hard_stop: Option<bool>,
    /// At which percentage the account is told, 1 to 100; 80 when absent.
    pub notify_at_percent: Option<u16>,
    /// The service that it is for, by id or name; absent where it is for the whole account.
    pub service: Option<String>,
}

/// A cap that was set.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "UsageCapSet")]
pub struct SetResponse {
    /// The cap.
    pub cap: CapEntry,
}

impl Request for Set {
    const OPERATION: Operation = Operation::new("usage.cap.set", Method::Put, "/v1/usage/caps/{metric}", "Set a cap on what may be used")
        .described(
            "It applies at once, also to what runs. Work reserves what it needs before it begins and is refused where there is no room, so a cap is never \
            exceeded. A service's cap stands beside its account's: work needs room in both.",
        )
        .errors(&[&codes::SERVICE_NOT_FOUND])
        .commands(&[Command::new("limits set")
            .arguments(&[
                METRIC,
                PERIOD,
                Argument::either("capValue", "value", "How much may be used").form(Form::Integer),
                Argument::constant("hardStop", true),
                Argument::flag("notifyAtPercent", "notify-at-percent", "At which percentage the account is told; 80 when absent").form(Form::Integer),
                SERVICE,
            ])
            .examples(&[
                "tovuk limits set worker_requests --period day --value 100000 --notify-at-percent 80",
                "tovuk limits set kv_reads --period month --value 1000000 --service shop",
            ])]);
    type Response = SetResponse;
}

impl Handler for Set {
    async fn run(self, control: Control, caller: Caller) -> Result<SetResponse, Refusal> {
        if self.hard_stop == Some(false) {
            return Err(Refusal::new(&codes::INVALID_REQUEST, "`hardStop` must be true: a cap refuses what has no room"));
        }
        let notify_at_percent = self.notify_at_percent.unwrap_or(CAP_NOTIFY_PERCENT_DEFAULT);
        if !(1..=100).contains(&notify_at_percent) {
            return Err(Refusal::new(&codes::INVALID_REQUEST, "`notifyAtPercent` must be 1 to 100"));
        }
        let key = key(&control, &caller, (&self.metric, &self.period), self.service).await?;
        control.meters().set_cap(key, Setting { value: self.cap_value, notify_at_percent }).await?;
        let now = control.now_ms();
        control.write(move |conn| note(conn, &caller, Self::OPERATION.name, key.service, &subject(key), now)).await?;
        let set = control.meters().caps(key.account, key.service).into_iter().find(|cap| cap.key == key);
        // Somebody else may have removed it at once.
        let gone = || Refusal::new(&codes::RESOURCE_NOT_FOUND, "the cap has been removed");
        Ok(SetResponse { cap: set.map(CapEntry::from).ok_or_else(gone)? })
    }
}

/// Removes a cap.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Delete {
    /// The meter.
    pub metric: String,
    /// `day` or `month`.
    pub period: String,
    /// The service that it is for, by id or name; absent where it is for the whole account.
    pub service: Option<String>,
}

/// Whether a cap was removed.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "UsageCapDeleted")]
pub struct Deleted {
    /// Whether it was there.
    pub deleted: bool,
}

impl Request for Delete {
    const OPERATION: Operation = Operation::new("usage.cap.delete", Method::Delete, "/v1/usage/caps/{metric}/{period}", "Remove a cap")
        .described("It is no error when there is none.")
        .errors(&[&codes::SERVICE_NOT_FOUND])
        .commands(&[Command::new("limits delete")
            .arguments(&[METRIC, PERIOD, SERVICE])
            .examples(&["tovuk limits delete worker_requests --period day"])]);
    type Response = Deleted;
}

impl Handler for Delete {
    async fn run(self, control: Control, caller: Caller) -> Result<Deleted, Refusal> {
        let key = key(&control, &caller, (&self.metric, &self.period), self.service).await?;
        let deleted = control.meters().delete_cap(key).await?;
        if deleted {
            let now = control.now_ms();
            control.write(move |conn| note(conn, &caller, Self::OPERATION.name, key.service, &subject(key), now)).await?;
        }
        Ok(Deleted { deleted })
    }
}

/// Lists caps.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct List {
    /// Those of this service alone, by id or name.
    pub service: Option<String>,
}

/// Caps.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "UsageCaps")]
pub struct Caps {
    /// The caps.
    pub caps: Vec<CapEntry>,
}

impl Request for List {
    const OPERATION: Operation = Operation::new("usage.cap.list", Method::Get, "/v1/usage/caps", "List caps, and how much of each is used")
        .errors(&[&codes::SERVICE_NOT_FOUND])
        .commands(&[Command::new("limits list")
            .default()
            .arguments(&[SERVICE])
            .examples(&["tovuk limits list", "tovuk limits list --service shop"])]);
    type Response = Caps;
}

impl Handler for List {
    async fn run(self, control: Control, caller: Caller) -> Result<Caps, Refusal> {
        let account = caller.account_number();
        let service = match self.service {
            Some(name) => Some(control.read(move |conn| service_of(conn, account, &name)).await?.id),
            None => None,
        };
        Ok(Caps { caps: control.meters().caps(account, service).into_iter().map(CapEntry::from).collect() })
    }
}
