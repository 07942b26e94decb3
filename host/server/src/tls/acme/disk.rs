//! What ACME keeps on disk: the account with its key, each host name's certificate with its key, and what has failed, so that a host that starts
//! again and again asks no more often than one that runs. Every file is replaced whole, and only its owner can read it.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use instant_acme::AccountCredentials;
use rustls::crypto::ring::default_provider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use tovuk_kernel::clock::UnixMs;

use crate::tls::certificate::{Validity, validity};

const CERTIFICATE: &str = ".pem";
const FAILURES: &str = ".failed.json";
const TEMPORARY: &str = ".tmp";
/// Names of files have at most 255 bytes on the file systems in use.
const STEM_BYTES_MAX: usize = 200;
/// How long failures count after the time of their next attempt, in milliseconds: a week.
const FAILURES_KEPT_MS: UnixMs = 7 * 24 * 3_600 * 1_000;

/// A certificate that can be shown.
#[derive(Clone)]
pub(super) struct Issued {
    pub key: Arc<CertifiedKey>,
    pub validity: Validity,
}

/// What is known of orders that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failures {
    pub count: u32,
    pub reason: String,
    pub next_attempt_at: UnixMs,
}

/// The folder.
pub(super) struct Disk {
    folder: PathBuf,
    account: PathBuf,
}

impl Disk {
    /// Makes the folder if it is not there. Accounts belong to a directory, so each has a file of its own.
    pub fn open(folder: &Path, directory_url: &str) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let digest = hex::encode(Sha256::digest(directory_url.as_bytes()));
        let account = folder.join(format!("account-{}.json", digest.get(..16).unwrap_or(&digest)));
        Ok(Self { folder: folder.to_owned(), account })
    }

    pub fn account(&self) -> io::Result<Option<AccountCredentials>> {
        let Some(text) = read(&self.account)? else { return Ok(None) };
        serde_json::from_slice(&text).map(Some).map_err(io::Error::other)
    }

    pub fn set_account(&self, credentials: Option<&AccountCredentials>) -> io::Result<()> {
        match credentials {
            Some(credentials) => self.write(&self.account, &serde_json::to_vec(credentials)?),
            None => remove(&self.account),
        }
    }

    /// The certificate of a host name, if there is one that can be used. What cannot be read is as good as none: it will be ordered again.
    pub fn certificate(&self, hostname: &str) -> Option<Issued> {
        let pem = read(&self.certificate_path(hostname)).ok()??;
        issued(&pem).ok()
    }

    /// Keeps a certificate with its key, in one file, so that there is never one without the other.
    pub fn set_certificate(&self, hostname: &str, pem: &str) -> io::Result<Issued> {
        let issued = issued(pem.as_bytes())?;
        self.write(&self.certificate_path(hostname), pem.as_bytes())?;
        Ok(issued)
    }

    pub fn failures(&self, hostname: &str) -> Failures {
        failures(&self.failures_path(hostname))
    }

    pub fn set_failures(&self, hostname: &str, failures: Option<&Failures>) -> io::Result<()> {
        match failures {
            Some(failures) => self.write(&self.failures_path(hostname), &serde_json::to_vec(failures)?),
            None => remove(&self.failures_path(hostname)),
        }
    }

    /// Removes certificates that have expired and failures that no longer keep anybody from trying, as names leave that were given up.
    pub fn sweep(&self, now: UnixMs) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let is_over = if name.ends_with(CERTIFICATE) {
                read(&path)?.is_none_or(|pem| issued(&pem).is_ok_and(|issued| issued.validity.expires_at <= now))
            } else if name.ends_with(FAILURES) {
                failures(&path).next_attempt_at <= now.saturating_sub(FAILURES_KEPT_MS)
            } else {
                name.starts_with(TEMPORARY)
            };
            if is_over {
                remove(&path)?;
            }
        }
        Ok(())
    }

    fn certificate_path(&self, hostname: &str) -> PathBuf {
        self.folder.join(format!("{}{CERTIFICATE}", file_stem(hostname)))
    }

    fn failures_path(&self, hostname: &str) -> PathBuf {
        self.folder.join(format!("{}{FAILURES}", file_stem(hostname)))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        // Temporary files are their owner's alone, and stay so under their new name.
        let mut file = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(&self.folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(&self.folder)?.sync_all()
    }
}

/// A host name as the name of a file. It has no separators; one that leaves no room for an ending goes by its digest.
fn file_stem(hostname: &str) -> Cow<'_, str> {
    if hostname.len() <= STEM_BYTES_MAX { hostname.into() } else { hex::encode(Sha256::digest(hostname.as_bytes())).into() }
}

fn failures(path: &Path) -> Failures {
    let text = read(path).ok().flatten();
    text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

fn issued(pem: &[u8]) -> io::Result<Issued> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(io::Error::other)?;
    let validity = chain.first().and_then(|first| validity(first)).ok_or_else(|| io::Error::other("the certificate cannot be read"))?;
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(io::Error::other)?;
    let key = CertifiedKey::from_der(chain, key, &default_provider()).map_err(io::Error::other)?;
    Ok(Issued { key: Arc::new(key), validity })
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_kept_is_its_owners_alone_and_is_gone_when_it_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(&folder.path().join("acme"), "https://acme.example/directory").unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["shop.example.org".to_owned()]).unwrap().self_signed(&key).unwrap();
        disk.set_certificate("shop.example.org", &format!("{}{}", certificate.pem(), key.serialize_pem())).unwrap();
        let failures = Failures { count: 2, reason: "no".to_owned(), next_attempt_at: 7 };
        disk.set_failures("shop.example.org", Some(&failures)).unwrap();
        assert_eq!(disk.failures("shop.example.org"), failures);
        assert!(disk.certificate("shop.example.org").is_some() && disk.certificate("other.example.org").is_none());
        for entry in std::fs::read_dir(folder.path().join("acme")).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        let count = || std::fs::read_dir(folder.path().join("acme")).unwrap().count();
        disk.sweep(FAILURES_KEPT_MS).unwrap();
        assert_eq!(count(), 2);
        disk.sweep(FAILURES_KEPT_MS + 7).unwrap();
        assert_eq!(count(), 1, "the failure counts no more");
        disk.sweep(disk.certificate("shop.example.org").unwrap().validity.expires_at).unwrap();
        assert_eq!(count(), 0);
    }

    #[test]
    fn the_longest_host_name_has_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path(), "https://acme.example/directory").unwrap();
        let hostname = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
        let failures = Failures { count: 1, reason: "no".to_owned(), next_attempt_at: 7 };
        disk.set_failures(&hostname, Some(&failures)).unwrap();
        assert_eq!(disk.failures(&hostname), failures);
    }

    #[test]
    fn a_certificate_without_its_key_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path(), "https://acme.example/directory").unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["shop.example.org".to_owned()]).unwrap().self_signed(&key).unwrap();
        assert!(disk.set_certificate("shop.example.org", &certificate.pem()).is_err());
        assert!(disk.certificate("shop.example.org").is_none());
    }
}
