//! Looks whether the record of a custom domain is in place, and says what is there instead.
//!
//! Answers are not kept: whoever has just changed a record would be told of the old one. A resolver on the way may still keep them for as long as they
//! say.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tovuk_kernel::codes::{self, Code};

/// How long to wait for one answer of one server.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a question is repeated that got no answer.
const REPETITIONS: usize = 1;
/// How long a verification may take altogether.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(12);
/// How many records an error names.
const SHOWN_RECORDS_MAX: usize = 4;

/// Whom to ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Nameservers {
    /// Those of `/etc/resolv.conf`.
    #[default]
    System,
    /// These, over UDP and TCP.
    Addresses(Vec<SocketAddr>),
}

/// Asks the DNS about custom domains. Clones are the same resolver.
#[derive(Clone)]
pub struct Resolver {
    dns: TokioResolver,
    verify_timeout: Duration,
}

/// Why there is no resolver.
#[derive(Debug, thiserror::Error)]
#[error("the DNS resolver cannot be set up: {0}; name the servers to ask in the host's configuration, or correct /etc/resolv.conf")]
pub struct ResolverError(#[from] NetError);

/// Why a name is not verified. Each says what was seen.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum VerifyError {
    /// There is no such name, or it has no record that matters.
    #[error(
        "{hostname} has no CNAME record yet; create one with the value {expected}. A record that was just made can take until the old answer's time to live has passed"
    )]
    NoRecord {
        /// The custom domain.
        hostname: String,
        /// What the record should say.
        expected: String,
    },
    /// Addresses where the CNAME should be.
    #[error(
        "{hostname} has address records ({}) and no CNAME record; replace them by a CNAME record with the value {expected}, and turn off proxying or flattening for it at the DNS provider",
        list(.addresses)
    )]
    Addresses {
        /// The custom domain.
        hostname: String,
        /// What the record should say.
        expected: String,
        /// Some of the addresses.
        addresses: Vec<IpAddr>,
    },
    /// A name at which the DNS allows no CNAME.
    #[error(
        "{hostname} is the apex of its zone, where the DNS allows no CNAME record; use a name under it, such as www.{hostname}, and redirect from the apex at the DNS provider"
    )]
    Apex {
        /// The custom domain.
        hostname: String,
    },
    /// A CNAME that leads elsewhere.
    #[error("{hostname} has a CNAME record with the value {found}; change it to {expected}, itself and not by way of other names")]
    OtherTarget {
        /// The custom domain.
        hostname: String,
        /// What the record should say.
        expected: String,
        /// What it says.
        found: String,
    },
    /// More than one CNAME, which the DNS forbids and resolvers treat as they like.
    #[error("{hostname} has several CNAME records ({}); keep only the one with the value {expected}", .found.join(", "))]
    Several {
        /// The custom domain.
        hostname: String,
        /// What the record should say.
        expected: String,
        /// Some of what they say.
        found: Vec<String>,
    },
    /// The servers of the name's zone, or the resolver, reported a failure.
    #[error("the DNS servers of {hostname} answer with an error ({response}); correct the zone at its DNS provider, or try again later")]
    ServerFailure {
        /// The custom domain.
        hostname: String,
        /// The response code.
        response: String,
    },
    /// Nobody answered in time.
    #[error("no DNS server answered for {hostname} in time; try again later")]
    Timeout {
        /// The custom domain.
        hostname: String,
    },
    /// The question could not be asked, or the answer not be read.
    #[error("the DNS could not be asked about {hostname}; try again later, and if that does not help, tell the operator of this host")]
    Unreachable {
        /// The custom domain.
        hostname: String,
        /// For the host's log.
        detail: String,
    },
}

impl VerifyError {
    /// Its row of the code table.
    pub fn code(&self) -> &'static Code {
        &codes::DOMAIN_NOT_VERIFIED
    }

    /// Whether the DNS has said that the record is not there. Otherwise it has said nothing, and a name that was verified before should stay so.
    pub fn is_definite(&self) -> bool {
        !matches!(self, Self::ServerFailure { .. } | Self::Timeout { .. } | Self::Unreachable { .. })
    }
}

impl Resolver {
    /// A resolver that asks these servers.
    pub fn new(nameservers: &Nameservers) -> Result<Self, ResolverError> {
        Self::with_timeouts(nameservers, ANSWER_TIMEOUT, VERIFY_TIMEOUT)
    }

    fn with_timeouts(nameservers: &Nameservers, answer_timeout: Duration, verify_timeout: Duration) -> Result<Self, ResolverError> {
        let mut builder = match nameservers {
            Nameservers::System => TokioResolver::builder_tokio()?,
            Nameservers::Addresses(addresses) => {
                let servers = addresses.iter().map(|address| name_server(*address)).collect();
                TokioResolver::builder_with_config(ResolverConfig::from_name_servers(servers), TokioRuntimeProvider::default())
            }
        };
        set_options(builder.options_mut(), answer_timeout);
        Ok(Self { dns: builder.build()?, verify_timeout })
    }

    /// Whether the CNAME record of `hostname` says `expected`, itself and not by way of other names. What `expected` leads to is not asked.
    pub async fn verify(&self, hostname: &str, expected: &str) -> Result<(), VerifyError> {
        match tokio::time::timeout(self.verify_timeout, self.look(hostname, expected)).await {
            Ok(result) => result,
            Err(_) => Err(VerifyError::Timeout { hostname: hostname.to_owned() }),
        }
    }

    async fn look(&self, hostname: &str, expected: &str) -> Result<(), VerifyError> {
        let (name, target) = (absolute(hostname, hostname)?, absolute(hostname, expected)?);
        let (hostname, expected) = (hostname.to_owned(), expected.to_owned());
        let records = self.records(&name, RecordType::CNAME).await.map_err(|error| failed(&hostname, &error))?;
        let mut targets = Vec::new();
        for record in &records {
            if let RData::CNAME(found) = &record.data
                && !targets.contains(&found.0)
            {
                targets.push(found.0.clone());
            }
        }
        match targets.as_slice() {
            [found] if *found == target => Ok(()),
            [found] => Err(VerifyError::OtherTarget { hostname, expected, found: shown(found) }),
            [] => Err(self.instead(hostname, expected, &name).await),
            several => Err(VerifyError::Several { hostname, expected, found: several.iter().take(SHOWN_RECORDS_MAX).map(shown).collect() }),
        }
    }

    /// What stands where the CNAME record should.
    async fn instead(&self, hostname: String, expected: String, name: &Name) -> VerifyError {
        // Only the name itself matters here; a failure of these questions takes nothing from what is known.
        let soa = self.records(name, RecordType::SOA).await.unwrap_or_default();
        if !soa.is_empty() {
            return VerifyError::Apex { hostname };
        }
        let mut addresses = Vec::new();
        for kind in [RecordType::A, RecordType::AAAA] {
            let records = self.records(name, kind).await.unwrap_or_default();
            addresses.extend(records.iter().filter_map(|record| record.data.ip_addr()));
        }
        if addresses.is_empty() {
            return VerifyError::NoRecord { hostname, expected };
        }
        addresses.truncate(SHOWN_RECORDS_MAX);
        VerifyError::Addresses { hostname, expected, addresses }
    }

    /// The records of this type that belong to this very name. Whatever else an answer holds was not asked for.
    async fn records(&self, name: &Name, kind: RecordType) -> Result<Vec<Record>, NetError> {
        match self.dns.lookup(name.clone(), kind).await {
            Ok(lookup) => Ok(lookup.answers().iter().filter(|record| record.name == *name && record.record_type() == kind).cloned().collect()),
            Err(NetError::Dns(DnsError::NoRecordsFound(_))) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

fn set_options(options: &mut ResolverOpts, answer_timeout: Duration) {
    options.timeout = answer_timeout;
    options.attempts = REPETITIONS;
    options.cache_size = 0;
    options.positive_max_ttl = Some(Duration::ZERO);
    options.negative_max_ttl = Some(Duration::ZERO);
    // A line in this machine's file is no proof of who owns a name.
    options.use_hosts_file = ResolveHosts::Never;
    // Both make it harder to answer in somebody's place.
    options.case_randomization = true;
    options.try_tcp_on_error = true;
}

/// The name from the root, so that no search list of the machine is put after it.
fn absolute(hostname: &str, name: &str) -> Result<Name, VerifyError> {
    let parsed = Name::from_ascii(name).map(|mut name| {
        name.set_fqdn(true);
        name
    });
    parsed.map_err(|error| VerifyError::Unreachable { hostname: hostname.to_owned(), detail: format!("{name}: {error}") })
}

fn failed(hostname: &str, error: &NetError) -> VerifyError {
    let hostname = hostname.to_owned();
    match error {
        NetError::Timeout => VerifyError::Timeout { hostname },
        NetError::Dns(DnsError::ResponseCode(response)) => VerifyError::ServerFailure { hostname, response: response.to_string() },
        other => VerifyError::Unreachable { hostname, detail: other.to_string() },
    }
}

/// A name from an answer, which may hold any bytes.
fn shown(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').chars().flat_map(char::escape_debug).collect()
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
