//! Outgoing HTTP: sends a worker's request to a target that its service's `outbound` list names, at an address that workers may reach. It does not
//! follow redirects, since the next target is for the worker to choose and for the list to check; it does not count subrequests, bound bodies or wait
//! less long than the server takes, which the caller of [`Outbound::send`] does for every kind of call alike.

mod address;
mod connect;
mod error;
mod request;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tovuk_kernel::ids::AccountId;
use tovuk_kernel::outbound::Allowlist;

pub use address::AddressPolicy;
pub use error::{ALLOW_ADDRESSES_SETTING, OutboundError};

use connect::{Connector, Failure};
use request::Target;

/// The body of an outgoing request. Both worlds can make one, so that they share connections.
pub type RequestBody = UnsyncBoxBody<Bytes, wasmtime_wasi_http::Error>;

/// Accounts whose connections are kept. More of them, and the least recently used lose their idle connections.
const ACCOUNTS_MAX: u64 = 10_000;
/// Sessions of TLS that one account can resume.
const TLS_SESSIONS_MAX: usize = 32;
/// Requests in flight on a connection of HTTP/2 make it worth asking whether the server is still there.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(20);
/// Longest list that an error repeats.
const LIST_SHOWN_MAX: usize = 8;

/// How outgoing connections are made and kept.
#[derive(Clone, Debug)]
pub struct OutboundConfig {
    /// Which addresses may be dialled beside the public internet.
    pub addresses: AddressPolicy,
    /// For name resolution, connection and TLS handshake together; and, before them, for the wait until the account may open one more connection.
    pub connect_timeout: Duration,
    /// How long a connection stays open without a request.
    pub idle_timeout: Duration,
    /// Connections that stay open without a request, for each account and target.
    pub idle_connections_max: usize,
    /// Connections that one account has open at a time, idle ones included.
    pub connections_max: usize,
    /// Certificates in PEM that are trusted beside the system's. Empty for none.
    pub extra_roots_pem: Vec<u8>,
}

impl Default for OutboundConfig {
    fn default() -> Self {
        Self {
            addresses: AddressPolicy::default(),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(20),
            idle_connections_max: 16,
            connections_max: 256,
            extra_roots_pem: Vec::new(),
        }
    }
}

/// Why the configuration is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The extra roots are not certificates in PEM.
    #[error("the extra root certificates are not valid PEM: {0}. A file of them starts with `-----BEGIN CERTIFICATE-----`")]
    ExtraRoots(String),
    /// The TLS library refused its configuration.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// On whose behalf a request leaves.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// Whose connections are used.
    pub account: &'a AccountId,
    /// The name of the service, for errors.
    pub service: &'a str,
    /// What the service may reach.
    pub allow: &'a Allowlist,
}

/// Sends outgoing requests. One for each process; clones are cheap and share connections.
///
/// Connections, and the sessions of TLS, are kept for each account and never shared between two. A connection has state beyond its requests:
/// some servers authenticate it as a whole (NTLM, Negotiate), the streams of HTTP/2 share one window and one fate, and a server that two
/// requests have confused answers the next one with the wrong response. With a pool for all, each of these would reach over to another tenant.
#[derive(Clone)]
pub struct Outbound(Arc<Shared>);

struct Shared {
    config: OutboundConfig,
    policy: Arc<AddressPolicy>,
    tls: rustls::ClientConfig,
    clients: moka::sync::Cache<AccountId, Client<Connector, RequestBody>>,
}

impl Outbound {
    /// Reads the system's root certificates, from the file that `SSL_CERT_FILE` names if it is set.
    pub fn new(config: OutboundConfig) -> Result<Self, ConfigError> {
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots(&config.extra_roots_pem)?)
            .with_no_client_auth();
        // An account without requests has no connections left by then, so that nothing is lost with its client.
        let clients = moka::sync::Cache::builder().max_capacity(ACCOUNTS_MAX).time_to_idle(config.idle_timeout * 2).build();
        Ok(Self(Arc::new(Shared { policy: Arc::new(config.addresses.clone()), config, tls, clients })))
    }

    /// Sends the request to the target that its absolute URL names and waits for the response's head. Header fields that belong to a
    /// connection, `host` and `x-tovuk-*` do not leave. Dropping the future gives the request up.
    pub async fn send(&self, caller: Caller<'_>, request: Request<RequestBody>) -> Result<Response<Incoming>, OutboundError> {
        let target = Target::of(request.uri())?;
        if !caller.allow.allows(target.scheme, &target.host, target.port) {
            return Err(denied(&caller, &target));
        }
        let request = request::prepare(request, &target)?;
        self.client(caller.account).request(request).await.map_err(|error| self.failed(&target, &error))
    }

    fn client(&self, account: &AccountId) -> Client<Connector, RequestBody> {
        self.0.clients.get_with_by_ref(account, || self.0.new_client())
    }

    fn failed(&self, target: &Target, error: &ClientError) -> OutboundError {
        let config = &self.0.config;
        let target = target.to_string();
        match failure_in(error) {
            Some(Failure::Dns(reason)) => OutboundError::Dns { target, reason },
            Some(Failure::AddressRefused) => OutboundError::AddressRefused { target },
            Some(Failure::Connect { reason, refused }) => OutboundError::Connect { target, reason, refused },
            Some(Failure::ConnectionLimit) => OutboundError::ConnectionLimit { target, connections_max: config.connections_max },
            Some(Failure::Tls { reason, certificate }) => OutboundError::Tls { target, reason, certificate },
            Some(Failure::Timeout) => {
                let timeout_ms = u64::try_from(config.connect_timeout.as_millis()).unwrap_or(u64::MAX);
                OutboundError::ConnectTimeout { target, timeout_ms }
            }
            None => {
                // The outermost message only names the client's own step.
                let cause = std::error::Error::source(error).unwrap_or(error);
                OutboundError::Protocol { target, reason: error::describe(cause) }
            }
        }
    }
}

impl Shared {
    fn new_client(&self) -> Client<Connector, RequestBody> {
        let mut tls = self.tls.clone();
        tls.resumption = rustls::client::Resumption::in_memory_sessions(TLS_SESSIONS_MAX);
        let config = &self.config;
        let connector = Connector::new(self.policy.clone(), tls, config.connect_timeout, config.connections_max);
        Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(config.idle_timeout)
            .pool_max_idle_per_host(config.idle_connections_max)
            // Else a connection whose other end has vanished would take every later request to its death.
            .http2_keep_alive_interval(HTTP2_PING_INTERVAL)
            .build(connector)
    }
}

fn failure_in(error: &ClientError) -> Option<Failure> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(failure) = error.downcast_ref::<Failure>() {
            return Some(failure.clone());
        }
        cause = error.source();
    }
    None
}

fn roots(extra_pem: &[u8]) -> Result<rustls::RootCertStore, ConfigError> {
    let mut roots = rustls::RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    if roots.is_empty() {
        tracing::warn!(errors = ?native.errors, "the system has no root certificates, so no outgoing https request can succeed; install the package `ca-certificates`");
    }
    let invalid = |error: &dyn std::fmt::Display| ConfigError::ExtraRoots(error.to_string());
    let mut extra = 0_usize;
    for certificate in CertificateDer::pem_slice_iter(extra_pem) {
        roots.add(certificate.map_err(|error| invalid(&error))?).map_err(|error| invalid(&error))?;
        extra += 1;
    }
    if extra == 0 && !extra_pem.is_empty() {
        return Err(invalid(&"there is no certificate in it"));
    }
    Ok(roots)
}

/// Says which line to write. A short list is repeated whole, so that the line can be copied.
fn denied(caller: &Caller<'_>, target: &Target) -> OutboundError {
    let service = caller.service.to_owned();
    let Some(pattern) = target.pattern() else {
        let advice = "Its host is not a name that can stand in `outbound`; write it without a trailing dot, `%` or other special characters".into();
        return OutboundError::Denied { target: target.to_string(), service, advice };
    };
    let patterns = caller.allow.patterns();
    let advice = if patterns.len() < LIST_SHOWN_MAX {
        let list: Vec<String> = patterns.iter().chain([&pattern]).map(|pattern| format!("\"{pattern}\"")).collect();
        format!("In tovuk.toml, under [services.{service}], write: outbound = [{}]", list.join(", "))
    } else {
        format!("In tovuk.toml, under [services.{service}], add \"{pattern}\" to `outbound`")
    };
    OutboundError::Denied { target: pattern.to_string(), service, advice }
}
