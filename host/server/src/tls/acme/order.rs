//! One order: from a host name to a certificate, by the steps of RFC 8555.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use instant_acme::{Account, AuthorizationStatus, ChallengeType, Identifier, KeyAuthorization, NewOrder, OrderStatus, RetryPolicy};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::crypto::ring::default_provider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::Proof;
use crate::tls::CertificateStore;

/// How long the server may take to validate, and then to issue.
const STEP_TIMEOUT: Duration = Duration::from_secs(90);

/// Why an order brought no certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum OrderError {
    /// The server, or the way to it.
    #[error("{0}")]
    Acme(#[from] instant_acme::Error),
    /// The server has looked, and has not found what it wanted.
    #[error("{0}")]
    Refused(String),
    /// The server does not offer the proof that this host gives.
    #[error("the ACME server offers no {0:?} challenge for this host name")]
    NoChallenge(ChallengeType),
    /// A key or a certificate could not be made.
    #[error("{0}")]
    Certificate(#[from] rcgen::Error),
    /// The same, by TLS.
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    /// The disk.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Too slow.
    #[error("the ACME server did not answer in time")]
    Timeout,
}

/// Answers to http-01 challenges, by token. Clones share them.
#[derive(Clone, Default)]
pub struct HttpChallenges(Arc<Mutex<HashMap<String, String>>>);

impl HttpChallenges {
    /// What to answer at `/.well-known/acme-challenge/<token>`.
    pub fn answer(&self, token: &str) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(token).cloned()
    }

    fn set(&self, token: &str, answer: Option<String>) {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Some(answer) => answers.insert(token.to_owned(), answer),
            None => answers.remove(token),
        };
    }
}

/// Where proofs are shown.
#[derive(Clone)]
pub(super) struct Shown {
    pub proof: Proof,
    pub store: CertificateStore,
    pub http: HttpChallenges,
}

/// A proof that is shown until this is dropped.
struct Showing {
    shown: Shown,
    hostname: String,
    token: String,
}

impl Drop for Showing {
    fn drop(&mut self) {
        match self.shown.proof {
            Proof::TlsAlpn => self.shown.store.set_challenge(&self.hostname, None),
            Proof::Http => self.shown.http.set(&self.token, None),
        }
    }
}

/// Orders a certificate. Returns its chain and its key as PEM.
pub(super) async fn order(account: &Account, hostname: &str, shown: &Shown) -> Result<String, OrderError> {
    let mut order = account.new_order(&NewOrder::new(&[Identifier::Dns(hostname.to_owned())])).await?;
    let kind = match shown.proof {
        Proof::TlsAlpn => ChallengeType::TlsAlpn01,
        Proof::Http => ChallengeType::Http01,
    };
    let mut showing = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let mut challenge = authorization.challenge(kind.clone()).ok_or_else(|| OrderError::NoChallenge(kind.clone()))?;
        let token = challenge.token.clone();
        showing.push(show(shown, hostname, token, &challenge.key_authorization())?);
        challenge.set_ready().await?;
    }
    let retries = RetryPolicy::new().timeout(STEP_TIMEOUT);
    if order.poll_ready(&retries).await? != OrderStatus::Ready {
        return Err(OrderError::Refused(refusal(&mut order).await));
    }
    drop(showing);
    let key = KeyPair::generate()?;
    let mut request = CertificateParams::new(vec![hostname.to_owned()])?;
    request.distinguished_name = DistinguishedName::new();
    order.finalize_csr(request.serialize_request(&key)?.der()).await?;
    let chain = order.poll_certificate(&retries).await?;
    Ok(format!("{}\n{}", chain.trim_end(), key.serialize_pem()))
}

fn show(shown: &Shown, hostname: &str, token: String, answer: &KeyAuthorization) -> Result<Showing, OrderError> {
    match shown.proof {
        Proof::TlsAlpn => shown.store.set_challenge(hostname, Some(proof_certificate(hostname, answer)?)),
        Proof::Http => shown.http.set(&token, Some(answer.as_str().to_owned())),
    }
    Ok(Showing { shown: shown.clone(), hostname: hostname.to_owned(), token })
}

/// The certificate that proves that the host answers for a name (RFC 8737). Nobody else takes it for anything.
fn proof_certificate(hostname: &str, answer: &KeyAuthorization) -> Result<Arc<CertifiedKey>, OrderError> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::new(vec![hostname.to_owned()])?;
    parameters.custom_extensions = vec![CustomExtension::new_acme_identifier(answer.digest().as_ref())];
    let certificate = parameters.self_signed(&key)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    // Not by `from_der`, which compares the two and refuses a certificate with an extension that it does not know.
    let key = default_provider().key_provider.load_private_key(key)?;
    Ok(Arc::new(CertifiedKey::new(vec![certificate.der().clone()], key)))
}

/// What the server says against an order that it did not accept.
async fn refusal(order: &mut instant_acme::Order) -> String {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        if let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
            return problem.detail.clone().unwrap_or_else(|| problem.to_string());
        }
    }
    "the ACME server did not accept the order and says no reason".to_owned()
}
