//! Certificates of custom domains, by ACME. It orders for host names that are wanted and for no others, keeps what it gets, renews it in time, and
//! asks a server that refuses ever less often. Whether a host name may be wanted (its owner has proved it, and it leads here) is the caller's to know.

mod disk;
mod order;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use instant_acme::{Account, NewAccount};
use rustls_pki_types::DnsName;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use tovuk_kernel::clock::{Clock, UnixMs};

use super::CertificateStore;
use disk::{Disk, Failures, Issued};
pub use order::HttpChallenges;
use order::{OrderError, Shown};

/// Orders at a time.
const ORDERS_MAX: usize = 4;
/// How long one order may take, whatever the server does.
const ORDER_TIMEOUT: Duration = Duration::from_secs(240);
/// How long to wait after the first order that failed. Each further one doubles it.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// The longest wait between two orders that fail.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(6 * 3600);
/// The shortest time between two certificates of one host name, should a server issue some that are old from the beginning.
const RENEW_AFTER_MIN: Duration = Duration::from_secs(3600);
/// How long to sleep when nothing is due.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

/// How the host proves that a name leads to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proof {
    /// By a certificate that the TLS listener shows (tls-alpn-01, RFC 8737). Servers ask port 443.
    #[default]
    TlsAlpn,
    /// By a file that a plain listener serves (http-01, RFC 8555). Servers ask port 80.
    Http,
}

/// Which server to order from, and where to keep what it gives.
#[derive(Clone, Debug)]
pub struct AcmeConfig {
    /// The server's directory, for example `https://acme-v02.api.letsencrypt.org/directory`.
    pub directory_url: String,
    /// Where the server may write to, as `mailto:` URLs.
    pub contact: Vec<String>,
    /// The folder for the account, certificates and keys.
    pub folder: PathBuf,
    /// The root certificate by which the server itself is known, in PEM, when it is none that the system trusts.
    pub root_certificates: Option<PathBuf>,
    /// How names are proved.
    pub proof: Proof,
}

/// What has come of a host name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostState {
    /// Its first order has not ended.
    Pending,
    /// It has a certificate.
    Issued,
    /// The last order failed. There may still be a certificate from before.
    Failed(String),
}

/// A host name as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostStatus {
    /// What has come of it.
    pub state: HostState,
    /// When its certificate expires, if it has one.
    pub expires_at: Option<UnixMs>,
    /// When it will be ordered next.
    pub next_attempt_at: UnixMs,
    /// Orders that have failed since the last that did not.
    pub failures: u32,
}

/// A host name that cannot have a certificate.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no host name that a certificate can be ordered for. Give one like shop.example.org")]
pub struct NotAHostname(String);

/// Orders and renews certificates while it exists. Clones are the same.
#[derive(Clone)]
pub struct Acme(Arc<Running>);

struct Running {
    inner: Arc<Inner>,
    task: tokio::task::JoinHandle<()>,
}

struct Inner {
    config: AcmeConfig,
    disk: Disk,
    shown: Shown,
    clock: Clock,
    account: tokio::sync::Mutex<Option<Account>>,
    hosts: Mutex<HashMap<String, Host>>,
    changed: Notify,
    updates: watch::Sender<u64>,
}

struct Host {
    status: HostStatus,
    /// Whether an order runs.
    running: bool,
    /// Whether somebody still wants it. A name that was given up stays until its order has ended, so that a second one does not begin beside it.
    wanted: bool,
}

impl Acme {
    /// Starts with no host name. What is kept in the folder of those that will be wanted is used again.
    pub fn start(config: AcmeConfig, store: CertificateStore, clock: Clock) -> io::Result<Self> {
        let disk = Disk::open(&config.folder, &config.directory_url)?;
        disk.sweep(clock.now_unix_ms())?;
        let shown = Shown { proof: config.proof, store, http: HttpChallenges::default() };
        let (account, hosts, changed) = (tokio::sync::Mutex::default(), Mutex::default(), Notify::new());
        let inner = Arc::new(Inner { config, disk, shown, clock, account, hosts, changed, updates: watch::Sender::new(0) });
        let task = tokio::spawn(run(inner.clone()));
        Ok(Self(Arc::new(Running { inner, task })))
    }

    /// From now on this host name has a certificate: the one that is kept if it can be used, and one that is ordered as soon as it is due.
    pub fn want(&self, hostname: &str) -> Result<(), NotAHostname> {
        let hostname = hostname.to_ascii_lowercase();
        let is_address = hostname.parse::<std::net::IpAddr>().is_ok();
        let is_name = !is_address
            && DnsName::try_from(hostname.as_str()).is_ok()
            && hostname.contains('.')
            && !hostname.ends_with('.')
            && !hostname.contains('_');
        if !is_name {
            return Err(NotAHostname(hostname));
        }
        let inner = &self.0.inner;
        if inner.hosts().get(&hostname).is_some_and(|host| host.wanted) {
            return Ok(());
        }
        // Read before the table is locked: what a disk is slow with must not keep others from their names.
        let kept = inner.disk.certificate(&hostname);
        let failures = inner.disk.failures(&hostname);
        let mut hosts = inner.hosts();
        if let Some(issued) = &kept {
            inner.shown.store.set_host(&hostname, Some(issued.key.clone()));
        }
        let host = hosts.entry(hostname).or_insert_with(|| Host { status: status(kept.as_ref(), &failures), running: false, wanted: true });
        host.wanted = true;
        inner.changed.notify_one();
        Ok(())
    }

    /// From now on no certificate is shown for this host name, and none is ordered. What is kept on disk stays until it is of no more use, so that
    /// somebody who gives a name up and takes it back, over and over, does not use up the orders that the authority allows this host.
    pub fn forget(&self, hostname: &str) {
        let hostname = hostname.to_ascii_lowercase();
        let mut hosts = self.0.inner.hosts();
        self.0.inner.shown.store.set_host(&hostname, None);
        match hosts.get_mut(&hostname) {
            Some(host) if host.running => host.wanted = false,
            _ => drop(hosts.remove(&hostname)),
        }
    }

    /// How a host name stands, if it is wanted.
    pub fn status(&self, hostname: &str) -> Option<HostStatus> {
        let hosts = self.0.inner.hosts();
        hosts.get(&hostname.to_ascii_lowercase()).filter(|host| host.wanted).map(|host| host.status.clone())
    }

    /// Changes whenever an order has ended.
    pub fn updates(&self) -> watch::Receiver<u64> {
        self.0.inner.updates.subscribe()
    }

    /// What a plain listener answers to http-01.
    pub fn http_challenges(&self) -> HttpChallenges {
        self.0.inner.shown.http.clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How a host name stands by what is kept of it.
fn status(kept: Option<&Issued>, failures: &Failures) -> HostStatus {
    let state = match kept {
        _ if failures.count > 0 => HostState::Failed(failures.reason.clone()),
        Some(_) => HostState::Issued,
        None => HostState::Pending,
    };
    let renew_at = kept.map_or(0, |issued| issued.validity.renew_at());
    let next_attempt_at = renew_at.max(failures.next_attempt_at);
    HostStatus { state, expires_at: kept.map(|issued| issued.validity.expires_at), next_attempt_at, failures: failures.count }
}

/// Orders whatever is due, a few at a time.
async fn run(inner: Arc<Inner>) {
    let mut orders = JoinSet::new();
    loop {
        while orders.len() < ORDERS_MAX
            && let Some(hostname) = inner.take_due()
        {
            let inner = inner.clone();
            orders.spawn(async move { inner.attempt(hostname).await });
        }
        let sleep = inner.clock.sleep(inner.next_due());
        tokio::select! {
            Some(_) = orders.join_next() => {}
            () = inner.changed.notified() => {}
            () = sleep, if orders.len() < ORDERS_MAX => {}
        }
    }
}

impl Inner {
    fn hosts(&self) -> MutexGuard<'_, HashMap<String, Host>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_due(&self) -> Option<String> {
        let now = self.clock.now_unix_ms();
        let mut hosts = self.hosts();
        let due = hosts.iter_mut().filter(|(_, host)| !host.running && host.status.next_attempt_at <= now);
        let (hostname, host) = due.min_by_key(|(_, host)| host.status.next_attempt_at)?;
        host.running = true;
        Some(hostname.clone())
    }

    fn next_due(&self) -> Duration {
        let now = self.clock.now_unix_ms();
        let next = self.hosts().values().filter(|host| !host.running).map(|host| host.status.next_attempt_at).min();
        next.map_or(SLEEP_MAX, |next| Duration::from_millis(next.saturating_sub(now)).min(SLEEP_MAX))
    }

    /// Orders a certificate, and writes down what came of it.
    async fn attempt(&self, hostname: String) {
        let result = self.clock.timeout(ORDER_TIMEOUT, self.order(&hostname)).await.unwrap_or(Err(OrderError::Timeout));
        let now = self.clock.now_unix_ms();
        // Written before the table is locked, and also when nobody wants it any more: somebody may again.
        let kept = result.and_then(|pem| Ok(self.disk.set_certificate(&hostname, &pem)?));
        let failures = match &kept {
            Ok(_) => None,
            Err(error) => {
                let count = self.hosts().get(&hostname).map_or(0, |host| host.status.failures).saturating_add(1);
                let failures = Failures { count, reason: with_causes(error), next_attempt_at: now + ms(retry_after(count)) };
                tracing::warn!("{hostname} has no new certificate: {}", failures.reason);
                Some(failures)
            }
        };
        if let Err(error) = self.disk.set_failures(&hostname, failures.as_ref()) {
            tracing::error!("what came of the order for {hostname} could not be written: {error}");
        }
        let mut hosts = self.hosts();
        if let Some(host) = hosts.get_mut(&hostname).filter(|host| host.wanted) {
            host.running = false;
            if let Ok(issued) = &kept {
                self.shown.store.set_host(&hostname, Some(issued.key.clone()));
                tracing::info!("{hostname} has a new certificate");
                host.status = status(Some(issued), &Failures::default());
                host.status.next_attempt_at = host.status.next_attempt_at.max(now + ms(RENEW_AFTER_MIN));
            } else if let Some(failures) = failures {
                (host.status.next_attempt_at, host.status.failures) = (failures.next_attempt_at, failures.count);
                host.status.state = HostState::Failed(failures.reason);
            }
        } else {
            hosts.remove(&hostname);
        }
        drop(hosts);
        self.updates.send_modify(|count| *count += 1);
    }

    async fn order(&self, hostname: &str) -> Result<String, OrderError> {
        let account = self.account().await?;
        let result = order::order(&account, hostname, &self.shown).await;
        if let Err(OrderError::Acme(instant_acme::Error::Api(problem))) = &result
            && problem.r#type.as_deref().is_some_and(|kind| kind.ends_with(":accountDoesNotExist"))
        {
            // The next order makes another.
            *self.account.lock().await = None;
            self.disk.set_account(None)?;
        }
        result
    }

    /// The account, made at the first order.
    async fn account(&self) -> Result<Account, OrderError> {
        let mut account = self.account.lock().await;
        if let Some(account) = &*account {
            return Ok(account.clone());
        }
        let builder = match &self.config.root_certificates {
            Some(path) => Account::builder_with_root(path)?,
            None => Account::builder()?,
        };
        let made = if let Some(credentials) = self.disk.account()? {
            builder.from_credentials(credentials).await?
        } else {
            let contact: Vec<_> = self.config.contact.iter().map(String::as_str).collect();
            let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
            let (made, credentials) = builder.create(&new, self.config.directory_url.clone(), None).await?;
            self.disk.set_account(Some(&credentials))?;
            made
        };
        *account = Some(made.clone());
        Ok(made)
    }
}

/// An error with what it came from, each once: connections fail for reasons that stand only there.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}

/// How long to wait after so many failures.
fn retry_after(failures: u32) -> Duration {
    RETRY_AFTER.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX)).min(RETRY_AFTER_MAX)
}

fn ms(duration: Duration) -> UnixMs {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused_asks_ever_less_often() {
        let minutes: Vec<_> = [1, 2, 3, 9, 10, 40, u32::MAX].into_iter().map(|failures| retry_after(failures).as_secs() / 60).collect();
        assert_eq!(minutes, [1, 2, 4, 256, 360, 360, 360]);
    }
}
