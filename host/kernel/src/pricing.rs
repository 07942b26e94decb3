//! What usage costs: for each plan what a subscription has in it, and what more is charged with. Operators may give a file of their own; the default is
//! `pricing/default.toml`. All amounts are integers, in millionths of a US dollar.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::Plan;
use crate::meters::{METERS, Meter};

/// The prices of all plans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pricing {
    free: PlanPricing,
    pro: PlanPricing,
}

/// The prices of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanPricing {
    /// What it costs in a month, in millionths of a US dollar.
    pub subscription_usd_micros_per_month: u64,
    /// Whether more than what is included is charged. Otherwise it is free, and caps are what stops it.
    pub paid_overages: bool,
    meters: [MeterPricing; METERS],
}

/// The price of a meter in a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MeterPricing {
    /// What a month's subscription has in it.
    pub included: u64,
    /// What so much more as `per` says costs, in millionths of a US dollar.
    pub overage_usd_micros: u64,
    /// Of how many units that is the price.
    pub per: u64,
}

impl Default for MeterPricing {
    fn default() -> Self {
        Self { included: 0, overage_usd_micros: 0, per: 1 }
    }
}

/// One meter of an estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LineItem {
    /// Which.
    pub meter: &'static str,
    /// What one of it is; `free_transfer` where it costs nothing whatever its amount.
    pub unit: &'static str,
    /// What was used this month.
    pub used: u64,
    /// What the plan has in it.
    pub included: u64,
    /// What is beyond that.
    pub overage: u64,
    /// What `per` units cost, in millionths of a US dollar.
    pub overage_usd_micros: u64,
    /// Of how many units that is the price.
    pub per: u64,
    /// What it comes to, in millionths of a US dollar.
    pub amount_usd_micros: u64,
}

/// What a month comes to, as far as it has gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// The plan's own price.
    pub subscription_usd_micros: u64,
    /// What is charged beyond it.
    pub overage_usd_micros: u64,
    /// Every meter.
    pub items: Vec<LineItem>,
}

impl Estimate {
    /// Both together.
    pub fn total_usd_micros(&self) -> u64 {
        self.subscription_usd_micros.saturating_add(self.overage_usd_micros)
    }
}

/// Why a file of prices cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PricingError {
    /// It is no such file.
    #[error(transparent)]
    Toml(#[from] toml::de::Error),
    /// It names what is none.
    #[error("`{0}` is no meter; there are {1}")]
    Meter(String, String),
    /// A price of nothing.
    #[error("`per` of {0} is 0: say of how many units `overage_usd_micros` is the price")]
    Per(&'static str),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PricingFile {
    free: PlanFile,
    pro: PlanFile,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanFile {
    subscription_usd_micros_per_month: u64,
    paid_overages: bool,
    #[serde(default)]
    meters: BTreeMap<String, MeterPricing>,
}

impl TryFrom<PlanFile> for PlanPricing {
    type Error = PricingError;

    fn try_from(file: PlanFile) -> Result<Self, PricingError> {
        let mut meters = [MeterPricing::default(); METERS];
        for (name, pricing) in file.meters {
            let meter = Meter::named(&name).ok_or_else(|| PricingError::Meter(name, Meter::ALL.map(Meter::as_str).join(", ")))?;
            if pricing.per == 0 {
                return Err(PricingError::Per(meter.as_str()));
            }
            if let Some(place) = meters.get_mut(meter.index()) {
                *place = pricing;
            }
        }
        Ok(Self { subscription_usd_micros_per_month: file.subscription_usd_micros_per_month, paid_overages: file.paid_overages, meters })
    }
}

impl Pricing {
    /// The prices that a file says, in TOML.
    ///
    /// # Errors
    /// When it is no such file: it names an unknown plan, key or meter, or leaves one of the two plans out.
    pub fn parse(text: &str) -> Result<Self, PricingError> {
        let file: PricingFile = toml::from_str(text)?;
        Ok(Self { free: file.free.try_into()?, pro: file.pro.try_into()? })
    }

    /// The default file.
    ///
    /// # Errors
    /// None while the tests pass.
    pub fn standard() -> Result<Self, PricingError> {
        Self::parse(include_str!("pricing/default.toml"))
    }

    /// The prices of a plan.
    pub fn of(&self, plan: Plan) -> &PlanPricing {
        match plan {
            Plan::Free => &self.free,
            Plan::Pro => &self.pro,
        }
    }
}

impl PlanPricing {
    /// The price of a meter.
    pub fn of(&self, meter: Meter) -> MeterPricing {
        self.meters.get(meter.index()).copied().unwrap_or_default()
    }

    /// What a month comes to of which so much was used.
    pub fn estimate(&self, used: &[u64; METERS]) -> Estimate {
        let items: Vec<_> = Meter::ALL.into_iter().zip(used).map(|(meter, used)| self.line_item(meter, *used)).collect();
        Estimate {
            subscription_usd_micros: self.subscription_usd_micros_per_month,
            overage_usd_micros: items.iter().fold(0, |sum, item| sum.saturating_add(item.amount_usd_micros)),
            items,
        }
    }

    fn line_item(&self, meter: Meter, used: u64) -> LineItem {
        let MeterPricing { included, overage_usd_micros, per } = self.of(meter);
        let is_free_transfer = matches!(meter, Meter::WorkerTransferBytes | Meter::StaticTransferBytes) && overage_usd_micros == 0;
        let overage = if is_free_transfer { 0 } else { used.saturating_sub(included) };
        let price = if self.paid_overages { overage_usd_micros } else { 0 };
        // What is begun is charged in proportion, and a fraction of a millionth as one.
        let amount = (u128::from(overage) * u128::from(price)).div_ceil(u128::from(per));
        LineItem {
            meter: meter.as_str(),
            unit: if is_free_transfer { "free_transfer" } else { meter.unit() },
            used,
            included,
            overage,
            overage_usd_micros: price,
            per,
            amount_usd_micros: u64::try_from(amount).unwrap_or(u64::MAX),
        }
    }
}

/// What the API calls the price of a meter: the group, and in it what is included and what more costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PricingField {
    /// Which meter.
    pub meter: Meter,
    /// The group.
    pub group: &'static str,
    /// What is included.
    pub included: &'static str,
    /// What more costs.
    pub overage: &'static str,
    /// Of how many units, as the name of `overage` says.
    pub per: u64,
}

const MILLION: u64 = 1_000_000;
const GB: u64 = 1_000_000_000;
const TB: u64 = 1_000_000_000_000;

macro_rules! fields {
    ($($meter:ident $group:literal $included:literal $overage:literal $per:expr;)+) => {
        /// The names of all prices.
        pub const PRICING_FIELDS: &[PricingField] =
            &[$(PricingField { meter: Meter::$meter, group: $group, included: $included, overage: $overage, per: $per },)+];
    };
}

fields! {
    WorkerRequests "workers" "includedRequestsPerMonth" "requestOverageUsdMicrosPerMillion" MILLION;
    WorkerCpuMs "workers" "includedCpuMsPerMonth" "cpuMsOverageUsdMicrosPerMillion" MILLION;
    SqliteRowsRead "sqlite" "includedRowsReadPerMonth" "rowsReadOverageUsdMicrosPerMillion" MILLION;
    SqliteRowsWritten "sqlite" "includedRowsWrittenPerMonth" "rowsWrittenOverageUsdMicrosPerMillion" MILLION;
    SqliteStorageBytes "sqlite" "includedStorageBytes" "storageOverageUsdMicrosPerGbMonth" GB;
    KvReads "kv" "includedReadsPerMonth" "readOverageUsdMicrosPerMillion" MILLION;
    KvWrites "kv" "includedWritesPerMonth" "writeOverageUsdMicrosPerMillion" MILLION;
    KvDeletes "kv" "includedDeletesPerMonth" "deleteOverageUsdMicrosPerMillion" MILLION;
    KvLists "kv" "includedListsPerMonth" "listOverageUsdMicrosPerMillion" MILLION;
    KvStorageBytes "kv" "includedStorageBytes" "storageOverageUsdMicrosPerGbMonth" GB;
    QueueOperations "queues" "includedOperationsPerMonth" "operationOverageUsdMicrosPerMillion" MILLION;
    StateRequests "state" "includedRequestsPerMonth" "requestOverageUsdMicrosPerMillion" MILLION;
    StateDurationGbMilliseconds "state" "includedDurationGbMillisecondsPerMonth" "durationOverageUsdMicrosPerBillionGbMilliseconds" GB;
    StateSqliteRowsRead "state" "includedRowsReadPerMonth" "rowsReadOverageUsdMicrosPerMillion" MILLION;
    StateSqliteRowsWritten "state" "includedRowsWrittenPerMonth" "rowsWrittenOverageUsdMicrosPerMillion" MILLION;
    StateSqliteStorageBytes "state" "includedStorageBytes" "storageOverageUsdMicrosPerGbMonth" GB;
    ObjectStorageBytes "objectStorage" "includedStorageBytes" "storageOverageUsdMicrosPerGbMonth" GB;
    ObjectStorageClassAOperations "objectStorage" "includedClassAOperationsPerMonth" "classAOverageUsdMicrosPerMillion" MILLION;
    ObjectStorageClassBOperations "objectStorage" "includedClassBOperationsPerMonth" "classBOverageUsdMicrosPerMillion" MILLION;
    ObjectStorageEgressBytes "objectStorage" "includedEgressBytesPerMonth" "egressOverageUsdMicrosPerTb" TB;
    BuildMinutes "builds" "includedMinutesPerMonth" "minuteOverageUsdMicros" 1;
    LogEvents "logs" "includedEventsPerMonth" "eventOverageUsdMicrosPerMillion" MILLION;
}

impl PlanPricing {
    /// What as many units cost as the field's name says.
    pub fn overage_of(&self, field: &PricingField) -> u64 {
        let MeterPricing { overage_usd_micros, per, .. } = self.of(field.meter);
        let price = u128::from(overage_usd_micros) * u128::from(field.per) / u128::from(per);
        u64::try_from(price).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn the_default_file_has_the_published_prices() {
        let pricing = Pricing::standard().unwrap();
        let pro = pricing.of(Plan::Pro);
        assert_eq!(pro.subscription_usd_micros_per_month, 5_000_000);
        let price = |overage: &str, group: &str| {
            let field = PRICING_FIELDS.iter().find(|field| field.overage == overage && field.group == group).unwrap();
            (pro.overage_of(field), pro.of(field.meter).included)
        };
        assert_eq!(price("classAOverageUsdMicrosPerMillion", "objectStorage").0, 4_500_000);
        assert_eq!(price("classBOverageUsdMicrosPerMillion", "objectStorage").0, 360_000);
        assert_eq!(price("egressOverageUsdMicrosPerTb", "objectStorage"), (1_200_000, 1_000_000_000_000));
        assert_eq!(pro.of(Meter::StateSqliteStorageBytes).included, 5_000_000_000);
    }

    #[test]
    fn a_month_is_what_is_beyond_the_plan() {
        let pricing = Pricing::standard().unwrap();
        let mut used = [0; METERS];
        used[Meter::WorkerRequests.index()] = 11_000_001;
        used[Meter::WorkerTransferBytes.index()] = 9_000;
        used[Meter::KvReads.index()] = 10_000_000;
        let estimate = pricing.of(Plan::Pro).estimate(&used);
        // A million and one: 0.3 dollars and the fraction of a millionth that is begun.
        assert_eq!((estimate.overage_usd_micros, estimate.total_usd_micros()), (300_001, 5_300_001));
        assert_eq!(estimate.items.len(), METERS);
        let transfer = estimate.items[Meter::WorkerTransferBytes.index()];
        assert_eq!((transfer.unit, transfer.amount_usd_micros, transfer.used), ("free_transfer", 0, 9_000));
        let free = pricing.of(Plan::Free).estimate(&used);
        assert_eq!((free.total_usd_micros(), free.items[Meter::WorkerRequests.index()].overage), (0, 8_000_001));
        used.fill(u64::MAX);
        assert!(pricing.of(Plan::Pro).estimate(&used).total_usd_micros() > 5_000_000, "amounts do not overflow");
    }

    #[test]
    fn a_file_that_will_not_do_says_why() {
        let plan = |meters: &str| {
            format!(
                "[free]\nsubscription_usd_micros_per_month = 0\npaid_overages = false\n[pro]\nsubscription_usd_micros_per_month = 1\npaid_overages = true\n[pro.meters]\n{meters}"
            )
        };
        assert!(Pricing::parse(&plan("kv_reads = { included = 5 }")).is_ok());
        let refused = |meters: &str| Pricing::parse(&plan(meters)).unwrap_err().to_string();
        assert!(refused("kv_read = { included = 5 }").contains("`kv_read` is no meter; there are worker_requests"));
        assert!(refused("kv_reads = { per = 0 }").contains("kv_reads"));
        assert!(refused("kv_reads = { price = 0 }").contains("unknown field"));
    }
}
