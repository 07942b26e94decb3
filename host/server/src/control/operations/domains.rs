//! Custom domains of a service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tovuk_kernel::codes;
use tovuk_kernel::limits::custom_domains_max;
use tovuk_kernel::operation::{Argument, Command, Method, Operation, Request};

use super::note;
use super::services::ResourcesResponse;
use super::timestamp;
use crate::control::handler::Handler;
use crate::control::store::{accounts, domains};
use crate::control::{Caller, Control, Refusal, service_of};
use crate::domains::{DnsRecord, check_hostname};

/// A custom domain.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DomainEntry {
    /// The host name.
    pub domain: String,
    /// `pending`, `verified`, or `failing` when the record of a verified one was not there at the last look.
    pub status: &'static str,
    /// Whether it serves.
    pub verified: bool,
    /// What was wrong at the last look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// When it was last looked up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked_at: Option<String>,
    /// The record that has to be made: type, name, value, and what to do.
    #[serde(flatten)]
    pub record: DnsRecord,
}

impl DomainEntry {
    pub(super) fn of(record: DnsRecord, domain: domains::Domain) -> Self {
        let verified = domain.verified_ms.is_some();
        let status = match (verified, &domain.problem) {
            (true, None) => "verified",
            (true, Some(_)) => "failing",
            (false, _) => "pending",
        };
        Self { domain: domain.hostname, status, verified, problem: domain.problem, checked_at: domain.checked_ms.map(timestamp), record }
    }
}

/// The domains of a service.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Domains {
    /// The domains.
    pub domains: Vec<DomainEntry>,
}

/// Lists the domains.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct List {
    /// The service.
    pub service: String,
}

impl Request for List {
    const OPERATION: Operation = Operation::new("domain.list", Method::Get, "/v1/services/{service}/domains", "List a service's custom domains")
        .commands(&[Command::new("domains list").default().examples(&["tovuk domains list --service shop"])]);
    type Response = Domains;
}

impl Handler for List {
    async fn run(self, control: Control, caller: Caller) -> Result<Domains, Refusal> {
        let records = control.records();
        control
            .read(move |conn| {
                let service = service_of(conn, caller.account_number(), &self.service)?;
                let domains = domains::list(conn, service.id)?;
                Ok(Domains { domains: domains.into_iter().map(|domain| DomainEntry::of(records.of(service.id, &domain.hostname), domain)).collect() })
            })
            .await
    }
}

/// Claims a domain.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Add {
    /// The service.
    pub service: String,
    /// The host name, for example `api.example.com`.
    pub domain: String,
}

impl Request for Add {
    const OPERATION: Operation =
        Operation::new("domain.add", Method::Post, "/v1/services/{service}/domains", "Add a custom domain and say which DNS record it needs")
            .described("The domain serves once `domain.verify` has seen the record. Until then the name is free for others as well.")
            .status(201)
            .errors(&[&codes::DOMAIN_INVALID, &codes::DOMAIN_RESERVED, &codes::DOMAIN_TAKEN, &codes::DOMAIN_LIMIT, &codes::DOMAIN_NOT_FOUND])
            .commands(&[Command::new("domains add")
                .arguments(&[Argument::positional("domain", "The host name")])
                .examples(&["tovuk domains add --service service_1 api.example.com"])]);
    type Response = DomainEntry;
}

impl Handler for Add {
    async fn run(self, control: Control, caller: Caller) -> Result<DomainEntry, Refusal> {
        let hostname = normal(&control, &self.domain)?;
        let (now, records) = (control.now_ms(), control.records());
        control
            .write(move |conn| {
                let service = service_of(conn, caller.account_number(), &self.service)?;
                if domains::owner(conn, &hostname)?.is_some_and(|owner| owner != service.id) {
                    return Err(Refusal::new(&codes::DOMAIN_TAKEN, format!("`{hostname}` belongs to another service")));
                }
                let plan = accounts::get(conn, caller.account_number())?.map(|account| account.plan).unwrap_or_default();
                let most = custom_domains_max(plan);
                if domains::find(conn, service.id, &hostname)?.is_none() && domains::list(conn, service.id)?.len() as u64 >= most {
                    return Err(Refusal::new(&codes::DOMAIN_LIMIT, format!("`{}` has {most} domains", service.name)));
                }
                domains::claim(conn, service.id, &hostname, now)?;
                note(conn, &caller, Self::OPERATION.name, Some(service.id), &hostname, now)?;
                let domain = domains::find(conn, service.id, &hostname)?.ok_or_else(|| unknown(&service.name, &hostname))?;
                Ok(DomainEntry::of(records.of(service.id, &hostname), domain))
            })
            .await
    }
}

fn normal(control: &Control, domain: &str) -> Result<String, Refusal> {
    let urls = control.urls();
    check_hostname(domain, &urls.public_domain, urls.api_host()).map_err(|refusal| Refusal::new(refusal.code(), refusal.to_string()))
}

fn unknown(service: &str, hostname: &str) -> Refusal {
    Refusal::new(&codes::DOMAIN_NOT_FOUND, format!("`{service}` has no domain `{hostname}`"))
}

/// Looks whether a domain's record is there.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Verify {
    /// The service.
    pub service: String,
    /// The host name.
    pub domain: String,
}

impl Request for Verify {
    const OPERATION: Operation = Operation::new(
        "domain.verify",
        Method::Post,
        "/v1/services/{service}/domains/{domain}/verify",
        "Look whether the DNS record of a domain is there, and put the domain on the air",
    )
    .errors(&[&codes::DOMAIN_NOT_FOUND, &codes::DOMAIN_TAKEN, &codes::DOMAIN_NOT_VERIFIED, &codes::DOMAIN_INVALID, &codes::DOMAIN_RESERVED])
    .commands(&[Command::new("domains verify")
        .arguments(&[Argument::positional("domain", "The host name")])
        .examples(&["tovuk domains verify --service service_1 api.example.com"])]);
    type Response = DomainEntry;
}

impl Handler for Verify {
    async fn run(self, control: Control, caller: Caller) -> Result<DomainEntry, Refusal> {
        let hostname = normal(&control, &self.domain)?;
        let account = caller.account_number();
        let (service, domain) = {
            let hostname = hostname.clone();
            let found = control.read(move |conn| {
                let service = service_of(conn, account, &self.service)?;
                let domain = domains::find(conn, service.id, &hostname)?.ok_or_else(|| unknown(&service.name, &hostname))?;
                Ok((service, domain))
            });
            found.await?
        };
        let record = control.records().of(service.id, &hostname);
        let looked = control.resolver().verify(&hostname, &record.dns_record_value).await;
        let problem = looked.as_ref().err().map(ToString::to_string);
        let air = control.air().await;
        // Somebody who asks and is told that the record is gone does not lose the domain by asking, nor puts off the daily look, which decides that.
        let (now, id, name, text) = (control.now_ms(), domain.id, hostname.clone(), problem.clone());
        let (hosts, service, domain) = control
            .write(move |conn| {
                if text.is_none() && domains::owner(conn, &name)?.is_some_and(|owner| owner != service.id) {
                    return Err(Refusal::new(&codes::DOMAIN_TAKEN, format!("`{name}` belongs to another service")));
                }
                match &text {
                    None => domains::verified(conn, id, now)?,
                    Some(problem) => domains::not_verified(conn, id, problem, now)?,
                }
                note(conn, &caller, Self::OPERATION.name, Some(service.id), &name, now)?;
                let domain = domains::find(conn, service.id, &name)?.ok_or_else(|| unknown(&service.name, &name))?;
                Ok((domains::verified_names(conn, service.id)?, service, domain))
            })
            .await?;
        let entry = DomainEntry::of(record, domain);
        if let Some(problem) = problem {
            let record = entry.record;
            let refusal = Refusal::new(&codes::DOMAIN_NOT_VERIFIED, problem).instruct(record.agent_instruction);
            return Err(refusal
                .detail("domain", entry.domain)
                .detail("status", entry.status)
                .detail("verified", entry.verified)
                .detail("dns_record_type", record.dns_record_type)
                .detail("dns_record_name", record.dns_record_name)
                .detail("dns_record_value", record.dns_record_value)
                .detail("dns_setup_url", record.dns_setup_url));
        }
        control.live().set_domains(&air, &service, hosts);
        Ok(entry)
    }
}

/// Gives a domain up.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Delete {
    /// The service.
    pub service: String,
    /// The host name.
    pub domain: String,
}

/// What a service still has.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "DomainDeleted")]
pub struct Deleted {
    /// The domains that are left.
    pub domains: Vec<DomainEntry>,
    /// The resources of the service.
    #[serde(flatten)]
    pub resources: ResourcesResponse,
}

impl Request for Delete {
    const OPERATION: Operation = Operation::new("domain.delete", Method::Delete, "/v1/services/{service}/domains/{domain}", "Delete a custom domain")
        .errors(&[&codes::DOMAIN_NOT_FOUND])
        .commands(&[Command::new("domains delete")
            .arguments(&[Argument::positional("domain", "The host name")])
            .examples(&["tovuk domains delete --service service_1 api.example.com"])]);
    type Response = Deleted;
}

impl Handler for Delete {
    async fn run(self, control: Control, caller: Caller) -> Result<Deleted, Refusal> {
        let hostname = self.domain.trim_end_matches('.').to_ascii_lowercase();
        let (now, records, name) = (control.now_ms(), control.records(), hostname.clone());
        let air = control.air().await;
        let (service, hosts, deleted) = control
            .write(move |conn| {
                let service = service_of(conn, caller.account_number(), &self.service)?;
                let domain = domains::delete(conn, service.id, &hostname)?.ok_or_else(|| unknown(&service.name, &hostname))?;
                note(conn, &caller, Self::OPERATION.name, Some(service.id), &hostname, now)?;
                let left = domains::list(conn, service.id)?;
                let domains = left.into_iter().map(|domain| DomainEntry::of(records.of(service.id, &domain.hostname), domain)).collect();
                let resources = ResourcesResponse::of(conn, &service)?;
                let hosts = domain.verified_ms.is_some().then(|| domains::verified_names(conn, service.id)).transpose()?;
                Ok((service, hosts, Deleted { domains, resources }))
            })
            .await?;
        // A claim that was never verified led nowhere, and the name may be another service's.
        if let Some(hosts) = hosts {
            control.live().set_domains(&air, &service, hosts);
            control.live().forget_domain(&name);
        }
        Ok(Deleted { resources: deleted.resources.complete(&control).await?, ..deleted })
    }
}
