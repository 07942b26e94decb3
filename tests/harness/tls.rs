//! The other side of TLS: an authority that issues certificates for tests, and a client that trusts it and nobody else.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tovuk_server::tls::TlsConfig;

/// Issues certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root_pem: String,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// One that nobody knows.
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_pem = parameters.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(parameters, key), root_pem }
    }

    /// Its own certificate.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// Writes a certificate for these names, and its key, into the folder.
    pub fn issue(&self, folder: &Path, names: &[&str]) -> TlsConfig {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        let files = TlsConfig { cert: folder.join("cert.pem"), key: folder.join("key.pem") };
        std::fs::write(&files.cert, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }
}

/// Speaks TLS to whom it trusts.
#[derive(Clone)]
pub struct TlsClient {
    roots: Arc<RootCertStore>,
}

impl TlsClient {
    /// Trusts what these certificates have issued.
    pub fn trusting(pem: &str) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        Self { roots: Arc::new(roots) }
    }

    /// Makes a handshake for this name, offering these protocols.
    pub async fn connect(&self, address: SocketAddr, name: &str, protocols: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
        self.connect_with(address, name, protocols, true).await
    }

    /// The same without saying the name to the host.
    pub async fn connect_silently(&self, address: SocketAddr, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        self.connect_with(address, name, &[], false).await
    }

    async fn connect_with(&self, address: SocketAddr, name: &str, protocols: &[&str], sni: bool) -> std::io::Result<TlsStream<TcpStream>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(self.roots.clone()).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        config.enable_sni = sni;
        let stream = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name.to_owned()).unwrap(), stream).await
    }
}
