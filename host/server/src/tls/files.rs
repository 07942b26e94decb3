//! A certificate and its key in PEM files, as operators and their tools write them, and read again when they change. What is wrong with them is said
//! with the file and what to do; a pair that cannot be used never replaces one that can.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring::default_provider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{Error as PemError, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use tovuk_kernel::clock::Clock;

use super::CertificateStore;
use super::certificate::{Validity, validity};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Where the certificate and its key lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// The certificate, followed by those that lead from it to a root, in PEM.
    pub cert: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A file cannot be read.
    #[error("cannot read {}: {error}. Name a file that this user may read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// No certificate.
    #[error(
        "{} holds no certificate. It has to begin with the host's certificate in PEM (`-----BEGIN CERTIFICATE-----`), with the intermediate ones after it",
        path.display()
    )]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// No key.
    #[error(
        "{} holds no private key in PEM that is not encrypted. `openssl pkey -in {} -out key.pem` writes one",
        path.display(), path.display()
    )]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// Broken PEM.
    #[error("{} is not valid PEM: {reason}. Copy it again from where it was issued", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A pair that does not belong together.
    #[error(
        "the key in {} is not the key of the certificate in {}. Name the key that the certificate was requested with, and put the host's own certificate first in its file",
        key.display(), cert.display()
    )]
    Mismatch {
        /// The file with the certificate.
        cert: PathBuf,
        /// The file with the key.
        key: PathBuf,
    },
    /// A certificate or key of a kind that cannot be used.
    #[error("{} and {} cannot be used for TLS: {reason}. Use an ECDSA P-256 or RSA key of 2,048 bits or more", cert.display(), key.display())]
    Unusable {
        /// The file with the certificate.
        cert: PathBuf,
        /// The file with the key.
        key: PathBuf,
        /// Why not.
        reason: String,
    },
}

/// Reads the pair.
pub fn load(config: &TlsConfig) -> Result<Arc<CertifiedKey>, FileError> {
    let chain = read(&config.cert)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain).collect::<Result<_, _>>().map_err(|error| not_pem(&config.cert, &error))?;
    if chain.is_empty() {
        return Err(FileError::NoCertificate { path: config.cert.clone() });
    }
    let key = PrivateKeyDer::from_pem_slice(&read(&config.key)?).map_err(|error| match error {
        PemError::NoItemsFound => FileError::NoKey { path: config.key.clone() },
        error => not_pem(&config.key, &error),
    })?;
    let (cert, key_path) = (config.cert.clone(), config.key.clone());
    CertifiedKey::from_der(chain, key, &default_provider()).map(Arc::new).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => FileError::Mismatch { cert, key: key_path },
        error => FileError::Unusable { cert, key: key_path, reason: error.to_string() },
    })
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    std::fs::read(path).map_err(|error| FileError::Unreadable { path: path.to_owned(), error })
}

fn not_pem(path: &Path, error: &PemError) -> FileError {
    FileError::NotPem { path: path.to_owned(), reason: error.to_string() }
}

/// A pair that is followed until this is dropped: read again at SIGHUP, and within a minute of a change.
pub struct CertificateFiles {
    task: tokio::task::JoinHandle<()>,
    loads: watch::Receiver<u64>,
}

impl CertificateFiles {
    /// Reads the pair into the store, and follows it.
    pub fn start(config: TlsConfig, store: CertificateStore, clock: Clock) -> Result<Self, FileError> {
        let (count, loads) = watch::channel(0);
        let mut followed = Followed { config, store, clock, stamp: None, count };
        followed.load()?;
        Ok(Self { task: tokio::spawn(followed.follow()), loads })
    }

    /// How often the pair has been read and taken.
    pub fn loads(&self) -> watch::Receiver<u64> {
        self.loads.clone()
    }
}

impl Drop for CertificateFiles {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What tells one version of a file from another.
type Stamp = [Option<(i64, i64, u64, u64)>; 2];

struct Followed {
    config: TlsConfig,
    store: CertificateStore,
    clock: Clock,
    /// The files as they were when they were taken.
    stamp: Option<Stamp>,
    count: watch::Sender<u64>,
}

impl Followed {
    /// Takes the pair as it is now.
    fn load(&mut self) -> Result<(), FileError> {
        // Looked at before they are read, so that a change in between is seen the next time.
        let stamp = stamp(&self.config);
        let certificate = load(&self.config)?;
        if let Some(Validity { expires_at, .. }) = certificate.cert.first().and_then(|first| validity(first))
            && expires_at <= self.clock.now_unix_ms()
        {
            tracing::warn!("the certificate in {} has expired; clients will refuse it until a new one is put there", self.config.cert.display());
        }
        self.store.set_default(certificate);
        self.stamp = Some(stamp);
        self.count.send_modify(|count| *count += 1);
        Ok(())
    }

    async fn follow(mut self) {
        let mut hangup = signal(SignalKind::hangup()).ok();
        loop {
            let asked = tokio::select! {
                () = self.clock.sleep(LOOK_EVERY) => false,
                () = async { match &mut hangup {
                    Some(hangup) => { hangup.recv().await; }
                    None => std::future::pending().await,
                } } => true,
            };
            if !asked && Some(stamp(&self.config)) == self.stamp {
                continue;
            }
            match self.load() {
                Ok(()) => tracing::info!("the certificate in {} was read again", self.config.cert.display()),
                Err(error) => tracing::error!("the certificate was not replaced, and the one that was read before is still used: {error}"),
            }
        }
    }
}

fn stamp(config: &TlsConfig) -> Stamp {
    let of = |path: &Path| std::fs::metadata(path).ok().map(|file: Metadata| (file.mtime(), file.mtime_nsec(), file.size(), file.ino()));
    [of(&config.cert), of(&config.key)]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pair() -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["*.example.org".to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn what_is_wrong_with_a_pair_is_said_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let config = TlsConfig { cert: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
        let says = |cert: Option<&str>, key: Option<&str>| {
            for (path, text) in [(&config.cert, cert), (&config.key, key)] {
                let _ = std::fs::remove_file(path);
                if let Some(text) = text {
                    std::fs::write(path, text).unwrap();
                }
            }
            load(&config).err().map(|error| error.to_string()).unwrap_or_default()
        };
        let ((cert, key), (_, other)) = (pair(), pair());
        let cut = cert.lines().take(3).collect::<Vec<_>>().join("\n");
        assert_eq!(says(Some(&cert), Some(&key)), "");
        for (error, file, text) in [
            (says(None, Some(&key)), "cert.pem", "cannot read"),
            (says(Some(&cert), None), "key.pem", "cannot read"),
            (says(Some(&key), Some(&cert)), "cert.pem", "holds no certificate"),
            (says(Some(&cert), Some(&cert)), "key.pem", "holds no private key"),
            (says(Some(&cert), Some("")), "key.pem", "openssl pkey"),
            (says(Some(&cut), Some(&key)), "cert.pem", "not valid PEM"),
            (says(Some(&cert), Some(&other)), "key.pem", "is not the key of the certificate"),
        ] {
            assert!(error.contains(file) && error.contains(text), "{text}: {error}");
        }
    }

    #[tokio::test]
    async fn a_changed_pair_is_taken_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let config = TlsConfig { cert: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
        let write = |(cert, key): &(String, String)| {
            std::fs::write(&config.cert, cert).unwrap();
            std::fs::write(&config.key, key).unwrap();
        };
        let (first, second) = (pair(), pair());
        write(&first);
        let (store, clock) = (CertificateStore::default(), Clock::advanceable());
        let files = CertificateFiles::start(config.clone(), store.clone(), clock.clone()).unwrap();
        let shown = || store.find(None).unwrap().cert.clone();
        let before = shown();
        // Half of a change: the new certificate is there, its key is not.
        std::fs::write(&config.cert, &second.0).unwrap();
        let mut loads = files.loads();
        clock.advance(LOOK_EVERY);
        tokio::task::yield_now().await;
        assert_eq!(shown(), before);
        write(&second);
        let taken = async {
            while *loads.borrow_and_update() < 2 {
                clock.advance(LOOK_EVERY);
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), taken).await.unwrap();
        assert_ne!(shown(), before);
    }
}
