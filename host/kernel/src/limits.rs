//! The one table of limits on workers: name, unit, default by plan, ceiling and a sentence for each. Handlers and documentation read it;
//! no limit is a literal elsewhere. Limits of resource kinds stand with their kinds.

mod fixed;

use serde::{Deserialize, Serialize};

pub use fixed::*;

/// What an account has subscribed to. Operators may change the figures of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Plan {
    /// The default.
    #[default]
    Free,
    /// The paid plan.
    Pro,
}

impl Plan {
    /// The plan's name, as workers see it in `TOVUK_SERVICE_PLAN`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Pro => "pro",
        }
    }

    /// The plan of this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Free, Self::Pro].into_iter().find(|plan| plan.as_str() == name)
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Its key in `[services.<name>.limits]`, with the unit last.
    pub name: &'static str,
    /// The unit.
    pub unit: &'static str,
    /// The default of the free plan.
    pub free: u64,
    /// The default of the pro plan.
    pub pro: u64,
    /// The most that a project file may ask for.
    pub ceiling: u64,
    /// One sentence of documentation.
    pub doc: &'static str,
}

impl Limit {
    /// The default of a plan.
    pub fn default_for(&self, plan: Plan) -> u64 {
        match plan {
            Plan::Free => self.free,
            Plan::Pro => self.pro,
        }
    }
}

/// CPU time of one invocation.
pub const CPU_MS: Limit = Limit {
    name: "cpu_ms",
    unit: "ms",
    free: 50,
    pro: 30_000,
    ceiling: 300_000,
    doc: "CPU time of one invocation, calls to other workers excluded; more ends it with 503 `worker_cpu_exceeded`.",
};
/// Linear memory of one invocation.
pub const MEMORY_MB: Limit = Limit {
    name: "memory_mb",
    unit: "MiB",
    free: 128,
    pro: 128,
    ceiling: 1024,
    doc: "Memory of one invocation; `memory.grow` beyond it fails, and a trap that follows is 503 `worker_memory_exceeded`.",
};
/// Wall clock until the response head.
pub const WALL_MS: Limit = Limit {
    name: "wall_ms",
    unit: "ms",
    free: 30_000,
    pro: 30_000,
    ceiling: 900_000,
    doc: "Time until the response head; more is 504 `worker_timeout`.",
};
/// Wall clock without a byte moving after the head.
pub const IDLE_MS: Limit = Limit {
    name: "idle_ms",
    unit: "ms",
    free: 30_000,
    pro: 30_000,
    ceiling: 900_000,
    doc: "Time after the response head in which no byte of a body moves; more cuts the connection.",
};
/// Bodies of the lean world.
pub const BODY_MB: Limit = Limit {
    name: "body_mb",
    unit: "MiB",
    free: 8,
    pro: 8,
    ceiling: 32,
    doc: "Request and response body of a worker that exports `tovuk:http/handler`; a larger request is 413 `body_too_large`.",
};
/// Bodies of the streaming world.
pub const STREAM_BODY_MB: Limit = Limit {
    name: "stream_body_mb",
    unit: "MiB",
    free: 100,
    pro: 100,
    ceiling: 10_240,
    doc: "Request and response body of a worker that exports `wasi:http/incoming-handler`; a larger request is 413 `body_too_large`, a larger response is cut.",
};
/// Calls that one invocation makes.
pub const SUBREQUESTS: Limit = Limit {
    name: "subrequests",
    unit: "calls",
    free: 50,
    pro: 1_000,
    ceiling: 10_000,
    doc: "Outgoing HTTP requests, binding calls and calls to the host's own API of one invocation; one more fails with `subrequest_limit`.",
};
/// Invocations of one service that run at a time.
pub const CONCURRENCY: Limit = Limit {
    name: "concurrency",
    unit: "invocations",
    free: 256,
    pro: 256,
    ceiling: 4_096,
    doc: "Top-level requests of one service that run at a time; more wait briefly, then get 503 `service_busy`.",
};

/// The limits that a project file can set.
pub const WORKER: [Limit; 8] = [CPU_MS, MEMORY_MB, WALL_MS, IDLE_MS, BODY_MB, STREAM_BODY_MB, SUBREQUESTS, CONCURRENCY];

/// Largest component, in bytes compressed with gzip.
pub const fn component_gzip_bytes(plan: Plan) -> u64 {
    match plan {
        Plan::Free => 10 << 20,
        Plan::Pro => 64 << 20,
    }
}
/// Services that one account may have.
pub const fn services_max(plan: Plan) -> u64 {
    match plan {
        Plan::Free => 100,
        Plan::Pro => 1_000,
    }
}
/// Custom domains that one service may have.
pub const fn custom_domains_max(plan: Plan) -> u64 {
    match plan {
        Plan::Free => 5,
        Plan::Pro => 100,
    }
}
/// Objects of all services of one account together, open uploads included, in bytes.
pub const fn object_storage_account_bytes(plan: Plan) -> u64 {
    match plan {
        Plan::Free => 10_000_000_000,
        Plan::Pro => 10_000_000_000_000,
    }
}
/// Keys, values and metadata of all KV namespaces of one account together, in bytes.
pub const fn kv_account_bytes(plan: Plan) -> u64 {
    match plan {
        Plan::Free => 1_000_000_000,
        Plan::Pro => 1_000_000_000_000,
    }
}
/// Largest SQLite database, in bytes, without its backups.
pub const fn sqlite_database_bytes(plan: Plan) -> u64 {
    match plan {
        Plan::Free => 500 << 20,
        Plan::Pro => 10 << 30,
    }
}
/// A SQLite database and its backups together, in bytes: one more backup has to fit. A restore is not refused; snapshots of earlier ones make room.
pub const fn sqlite_storage_bytes(plan: Plan) -> u64 {
    3 * sqlite_database_bytes(plan)
}
/// All SQLite databases and backups of one account together, in bytes. A restore is not refused.
pub const fn sqlite_account_bytes(plan: Plan) -> u64 {
    match plan {
        Plan::Free => 5_000_000_000,
        Plan::Pro => 1_000_000_000_000,
    }
}
/// Steps of SQLite's virtual machine that one query or batch may take.
pub const fn sqlite_vm_steps(plan: Plan) -> u64 {
    match plan {
        Plan::Free => 50_000_000,
        Plan::Pro => 1_000_000_000,
    }
}
/// Values of one State object with their keys, in bytes.
pub const fn state_object_bytes(plan: Plan) -> u64 {
    match plan {
        Plan::Free => 1_000_000_000,
        Plan::Pro => 10_000_000_000,
    }
}
/// Values of all State objects of one account with their keys, in bytes.
pub const fn state_account_bytes(plan: Plan) -> u64 {
    match plan {
        Plan::Free => 5_000_000_000,
        Plan::Pro => 1_000_000_000_000,
    }
}
/// A limit that differs between plans and that no project file sets.
pub struct PlanLimit {
    /// Its name.
    pub name: &'static str,
    /// Its figure.
    pub figure: fn(Plan) -> u64,
    /// One sentence of documentation.
    pub doc: &'static str,
}

/// The limits that differ between plans and that no project file sets.
pub const BY_PLAN: [PlanLimit; 11] = [
    PlanLimit { name: "component_gzip_bytes", figure: component_gzip_bytes, doc: "Largest component, in bytes compressed with gzip." },
    PlanLimit { name: "services_max", figure: services_max, doc: "Services that one account may have." },
    PlanLimit { name: "custom_domains_max", figure: custom_domains_max, doc: "Custom domains that one service may have." },
    PlanLimit {
        name: "object_storage_account_bytes",
        figure: object_storage_account_bytes,
        doc: "Objects of all services of one account together, open uploads included, in bytes.",
    },
    PlanLimit {
        name: "kv_account_bytes",
        figure: kv_account_bytes,
        doc: "Keys, values and metadata of all KV namespaces of one account together, in bytes. What has expired counts until it is swept.",
    },
    PlanLimit { name: "sqlite_database_bytes", figure: sqlite_database_bytes, doc: "Largest SQLite database, in bytes, without its backups." },
    PlanLimit {
        name: "sqlite_storage_bytes",
        figure: sqlite_storage_bytes,
        doc: "A SQLite database and its backups together, in bytes: one more backup has to fit. A restore is not refused; snapshots of earlier ones make room.",
    },
    PlanLimit {
        name: "sqlite_account_bytes",
        figure: sqlite_account_bytes,
        doc: "All SQLite databases and backups of one account together, in bytes. A restore is not refused.",
    },
    PlanLimit { name: "sqlite_vm_steps", figure: sqlite_vm_steps, doc: "Steps of SQLite's virtual machine that one query or batch may take." },
    PlanLimit { name: "state_object_bytes", figure: state_object_bytes, doc: "Values of one State object with their keys, in bytes." },
    PlanLimit {
        name: "state_account_bytes",
        figure: state_account_bytes,
        doc: "Values of all State objects of one account with their keys, in bytes.",
    },
];

/// A limit that is the same for every plan and service.
pub struct Fixed {
    /// The name of its constant.
    pub name: &'static str,
    /// Its figure, in the unit that the documentation names.
    pub value: u64,
    /// Its documentation.
    pub doc: &'static str,
}

/// The figures that apply to one deploy of one service, after plan and project file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerLimits {
    /// CPU time of one invocation, in ms.
    pub cpu_ms: u64,
    /// Linear memory of one invocation, in MiB.
    pub memory_mb: u64,
    /// Time to the response head, in ms.
    pub wall_ms: u64,
    /// Time without progress after the head, in ms.
    pub idle_ms: u64,
    /// Largest buffered body, in MiB.
    pub body_mb: u64,
    /// Largest streamed body, in MiB.
    pub stream_body_mb: u64,
    /// Calls of one invocation.
    pub subrequests: u64,
    /// Top-level requests at a time.
    pub concurrency: u64,
}

impl WorkerLimits {
    /// The defaults of a plan.
    pub fn for_plan(plan: Plan) -> Self {
        Self {
            cpu_ms: CPU_MS.default_for(plan),
            memory_mb: MEMORY_MB.default_for(plan),
            wall_ms: WALL_MS.default_for(plan),
            idle_ms: IDLE_MS.default_for(plan),
            body_mb: BODY_MB.default_for(plan),
            stream_body_mb: STREAM_BODY_MB.default_for(plan),
            subrequests: SUBREQUESTS.default_for(plan),
            concurrency: CONCURRENCY.default_for(plan),
        }
    }

    /// Replaces the limit of that name, at most by its ceiling. Returns false when there is no such limit.
    pub fn set(&mut self, name: &str, value: u64) -> bool {
        let Some(row) = WORKER.iter().find(|row| row.name == name) else { return false };
        let value = value.min(row.ceiling);
        let field = match name {
            "cpu_ms" => &mut self.cpu_ms,
            "memory_mb" => &mut self.memory_mb,
            "wall_ms" => &mut self.wall_ms,
            "idle_ms" => &mut self.idle_ms,
            "body_mb" => &mut self.body_mb,
            "stream_body_mb" => &mut self.stream_body_mb,
            "subrequests" => &mut self.subrequests,
            "concurrency" => &mut self.concurrency,
            _ => return false,
        };
        *field = value;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_can_be_set_and_stops_at_its_ceiling() {
        for row in WORKER {
            let mut limits = WorkerLimits::for_plan(Plan::Free);
            assert!(limits.set(row.name, row.ceiling + 1), "{}", row.name);
            let mut at_ceiling = WorkerLimits::for_plan(Plan::Free);
            at_ceiling.set(row.name, row.ceiling);
            assert_eq!(limits, at_ceiling);
            assert!(row.free <= row.pro && row.pro <= row.ceiling, "{}", row.name);
        }
        assert!(!WorkerLimits::for_plan(Plan::Free).set("cpu_s", 1));
    }
}
