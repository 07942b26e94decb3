//! The settings of an operator's host, and what follows from them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tovuk_kernel::pricing::Pricing;
use tovuk_resources::objects::Place;
use tovuk_runtime::outbound::OutboundConfig;

use super::StartError;
use crate::control::urls::Urls;
use crate::deploy::builds::BuildConfig;
use crate::domains::Nameservers;
use crate::listen::ListenConfig;
use crate::tls::TlsConfig;
use crate::tls::acme::{AcmeConfig, Proof};
use crate::traces::Otlp;

/// Where the key comes from that seals secrets.
#[derive(Clone)]
pub enum SecretKey {
    /// From a file in the data folder, which is made at the first start.
    Generated,
    /// From this file.
    File(PathBuf),
    /// From the environment.
    Text(String),
}

/// How certificates of custom domains are ordered.
#[derive(Clone, Debug)]
pub struct AcmeSettings {
    /// The server's directory.
    pub directory_url: String,
    /// An address that the server may write to.
    pub contact: Option<String>,
    /// The root certificate by which the server is known, when the system does not trust it.
    pub root_certificates: Option<PathBuf>,
    /// How names are proved.
    pub proof: Proof,
}

impl AcmeSettings {
    pub(super) fn config(&self, data: &Path) -> AcmeConfig {
        AcmeConfig {
            directory_url: self.directory_url.clone(),
            contact: self.contact.iter().map(|address| format!("mailto:{address}")).collect(),
            folder: data.join("acme"),
            root_certificates: self.root_certificates.clone(),
            proof: self.proof,
        }
    }
}

/// The settings of a host.
#[derive(Clone)]
pub struct HostConfig {
    /// Where the public is served.
    pub listen: SocketAddr,
    /// Where the control API is served.
    pub api_listen: SocketAddr,
    /// Where plain HTTP is sent on to https, if anywhere.
    pub listen_http: Option<SocketAddr>,
    /// Where figures are served for Prometheus, if anywhere.
    pub metrics_listen: Option<SocketAddr>,
    /// Where spans of traces are sent to, if anywhere.
    pub otlp: Option<Otlp>,
    /// The folder with everything that the host keeps.
    pub data: PathBuf,
    /// The domain under which services have names.
    pub public_domain: String,
    /// What URLs of services begin with, for example `https://apps.example.com`; from the listener when absent.
    pub public_url: Option<String>,
    /// What URLs of the API begin with; from its listener when absent.
    pub api_url: Option<String>,
    /// The certificate of the public listener.
    pub tls: Option<TlsConfig>,
    /// The certificate of the API's listener.
    pub api_tls: Option<TlsConfig>,
    /// Whether the API may be served without TLS beyond this machine.
    pub insecure_api: bool,
    /// How certificates of custom domains are ordered, if they are.
    pub acme: Option<AcmeSettings>,
    /// How long running requests may take to end when the host stops.
    pub drain_timeout: Duration,
    /// Where the key comes from that seals secrets.
    pub secret_key: SecretKey,
    /// The name of this node.
    pub node: String,
    /// How builds run.
    pub builds: BuildConfig,
    /// Who is asked for DNS records of custom domains.
    pub nameservers: Nameservers,
    /// How workers reach other hosts.
    pub outbound: OutboundConfig,
    /// Instances at a time; the runtime's own figure when absent.
    pub slots: Option<u32>,
    /// Memory of all guests together; half of the machine's when absent.
    pub guest_memory_bytes: Option<u64>,
    /// Where the bytes of objects are; in a folder of the data folder when absent.
    pub objects: Option<Place>,
    /// What usage costs; the default prices when absent.
    pub pricing: Option<Pricing>,
    /// Limits of connections.
    pub connections: ListenConfig,
}

impl HostConfig {
    /// The defaults, with everything that the host keeps in `data`.
    pub fn new(data: PathBuf) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8787)),
            api_listen: SocketAddr::from(([127, 0, 0, 1], 8788)),
            listen_http: None,
            metrics_listen: None,
            otlp: None,
            data,
            public_domain: "localhost".to_owned(),
            public_url: None,
            api_url: None,
            tls: None,
            api_tls: None,
            insecure_api: false,
            acme: None,
            drain_timeout: Duration::from_secs(30),
            secret_key: SecretKey::Generated,
            node: "node-1".to_owned(),
            builds: BuildConfig::default(),
            nameservers: Nameservers::System,
            outbound: OutboundConfig::default(),
            slots: None,
            guest_memory_bytes: None,
            objects: None,
            pricing: None,
            connections: ListenConfig::default(),
        }
    }

    pub(super) fn check(&self) -> Result<(), StartError> {
        if !self.api_listen.ip().is_loopback() && self.api_tls.is_none() && !self.insecure_api {
            return Err(StartError::Setting(format!(
                "the control API would send tokens in the clear at {}: give --api-tls-cert and --api-tls-key, or --insecure-api when TLS ends in front of it",
                self.api_listen
            )));
        }
        for (flag, url) in [("--public-url", &self.public_url), ("--api-url", &self.api_url)] {
            if let Some(url) = url {
                split(url).ok_or_else(|| {
                    StartError::Setting(format!("{flag} `{url}` is no URL such as https://apps.example.com or http://localhost:8787"))
                })?;
            }
        }
        let host = self.public_url.as_deref().and_then(split).map(|(_, host, _)| host);
        if let Some(host) = host.filter(|host| !host.eq_ignore_ascii_case(&self.public_domain)) {
            return Err(StartError::Setting(format!(
                "--public-url leads to `{host}`, and services are at names under `{}`: give --public-domain {host}, or another --public-url",
                self.public_domain
            )));
        }
        Ok(())
    }

    /// What URLs that are given out begin with, once the listeners have their addresses.
    pub(super) fn urls(&self, public: SocketAddr, api: SocketAddr) -> Urls {
        let default_port = |scheme: &str| if scheme == "https" { 443 } else { 80 };
        let (scheme, port) = match self.public_url.as_deref().and_then(split) {
            Some((scheme, _, port)) => (scheme.to_owned(), port),
            None => {
                let scheme = if self.tls.is_some() || self.acme.is_some() { "https" } else { "http" };
                (scheme.to_owned(), Some(public.port()))
            }
        };
        let public_port = port.filter(|port| *port != default_port(&scheme));
        let api = self.api_url.as_deref().map(|url| url.trim_end_matches('/').to_owned()).unwrap_or_else(|| {
            let scheme = if self.api_tls.is_some() { "https" } else { "http" };
            format!("{scheme}://{api}")
        });
        Urls { public_scheme: scheme, public_domain: self.public_domain.to_ascii_lowercase(), public_port, api }
    }
}

/// Scheme, host and port of a URL without user, path and query.
fn split(url: &str) -> Option<(&str, String, Option<u16>)> {
    let (scheme, rest) = url.split_once("://")?;
    let uri: http::Uri = url.parse().ok()?;
    let known = matches!(scheme, "http" | "https") && !rest.contains('@');
    known.then(|| (scheme, uri.host().unwrap_or_default().to_owned(), uri.port_u16()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(change: impl FnOnce(&mut HostConfig)) -> Urls {
        let mut config = HostConfig::new(PathBuf::from("data"));
        change(&mut config);
        config.urls(config.listen, config.api_listen)
    }

    #[test]
    fn urls_follow_from_the_listeners_unless_they_are_given() {
        let derived = urls(|_| {});
        assert_eq!((derived.service("shop"), derived.api.as_str()), ("http://shop.localhost:8787".to_owned(), "http://127.0.0.1:8788"));
        let given = urls(|config| {
            config.public_domain = "Apps.Example.com".to_owned();
            config.public_url = Some("https://apps.example.com".to_owned());
            config.api_url = Some("https://api.example.com/".to_owned());
        });
        assert_eq!((given.service("shop"), given.api.as_str()), ("https://shop.apps.example.com".to_owned(), "https://api.example.com"));
        assert_eq!(given.public_authority(), "apps.example.com");
        assert_eq!(given.api_host(), "api.example.com");
    }

    #[test]
    fn an_api_beyond_this_machine_needs_tls_or_a_word() {
        let mut config = HostConfig::new(PathBuf::from("data"));
        config.api_listen = SocketAddr::from(([0, 0, 0, 0], 8788));
        assert!(config.check().is_err_and(|error| error.to_string().contains("--insecure-api")));
        config.insecure_api = true;
        assert!(config.check().is_ok());
        config.public_url = Some("apps.example.com".to_owned());
        assert!(config.check().is_err_and(|error| error.to_string().contains("--public-url")));
        config.public_url = Some("https://apps.example.com".to_owned());
        assert!(config.check().is_err_and(|error| error.to_string().contains("--public-domain apps.example.com")));
        config.public_domain = "apps.example.com".to_owned();
        assert!(config.check().is_ok());
    }
}
