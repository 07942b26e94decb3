//! TLS: handshakes of listeners, and the certificates that they show. What is asked over a connection afterwards is the listener's.

pub mod acme;
mod certificate;
mod files;
mod store;

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub use files::{CertificateFiles, FileError, TlsConfig, load};
pub use store::CertificateStore;

/// The protocol by which an ACME server asks whether a host name is ours (RFC 8737). A connection that agrees on it carries nothing else.
const ACME_PROTOCOL: &[u8] = b"acme-tls/1";

/// How a listener makes its handshakes. Clones are the same.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl Tls {
    /// Handshakes with the certificates of this store.
    pub fn new(store: CertificateStore) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(store));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), ACME_PROTOCOL.to_vec()];
        config.ticketer = rustls::crypto::ring::Ticketer::new()?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// The connection behind its handshake; `None` after the handshake that an ACME server makes to see a certificate.
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<Option<TlsStream<S>>> {
        let mut stream = self.0.accept(stream).await?;
        if stream.get_ref().1.alpn_protocol() == Some(ACME_PROTOCOL) {
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut stream).await;
            return Ok(None);
        }
        Ok(Some(stream))
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}
