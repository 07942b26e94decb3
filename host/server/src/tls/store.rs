//! Which certificate a handshake gets. A store only holds certificates; `files` and `acme` put them there.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::ACME_PROTOCOL;

/// The certificates of a host. Clones share them; each change is seen whole by the next handshake.
#[derive(Clone, Default)]
pub struct CertificateStore(Arc<ArcSwap<Certificates>>);

#[derive(Clone, Default)]
struct Certificates {
    /// For every name that has none of its own.
    default: Option<Arc<CertifiedKey>>,
    /// Of custom domains.
    hosts: HashMap<Arc<str>, Arc<CertifiedKey>>,
    /// What an ACME server wants to see of a host name.
    challenges: HashMap<Arc<str>, Arc<CertifiedKey>>,
}

impl CertificateStore {
    /// Sets the certificate of every host name that has none of its own.
    pub fn set_default(&self, certificate: Arc<CertifiedKey>) {
        self.change(|all| all.default = Some(certificate.clone()));
    }

    /// Sets or removes the certificate of one host name.
    pub fn set_host(&self, hostname: &str, certificate: Option<Arc<CertifiedKey>>) {
        self.change(|all| put(&mut all.hosts, hostname, certificate.as_ref()));
    }

    /// Sets or removes what ACME servers are shown for one host name.
    pub fn set_challenge(&self, hostname: &str, certificate: Option<Arc<CertifiedKey>>) {
        self.change(|all| put(&mut all.challenges, hostname, certificate.as_ref()));
    }

    /// The certificate that a client gets who asks for this name.
    pub fn find(&self, hostname: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let all = self.0.load();
        hostname.and_then(|name| all.hosts.get(name)).or(all.default.as_ref()).cloned()
    }

    fn change(&self, change: impl Fn(&mut Certificates)) {
        self.0.rcu(|all| {
            let mut all = Certificates::clone(all);
            change(&mut all);
            all
        });
    }
}

fn put(certificates: &mut HashMap<Arc<str>, Arc<CertifiedKey>>, hostname: &str, certificate: Option<&Arc<CertifiedKey>>) {
    match certificate {
        Some(certificate) => certificates.insert(hostname.into(), certificate.clone()),
        None => certificates.remove(hostname),
    };
}

impl ResolvesServerCert for CertificateStore {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // The name has been checked and is in lower case.
        let name = hello.server_name();
        let is_challenge = hello.alpn().is_some_and(|mut protocols| protocols.next() == Some(ACME_PROTOCOL) && protocols.next().is_none());
        if is_challenge {
            return self.0.load().challenges.get(name?).cloned();
        }
        self.find(name)
    }
}

impl std::fmt::Debug for CertificateStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = self.0.load();
        f.debug_struct("CertificateStore").field("default", &all.default.is_some()).field("hosts", &all.hosts.len()).finish_non_exhaustive()
    }
}
