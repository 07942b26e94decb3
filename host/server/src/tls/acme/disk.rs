//! What ACME keeps on disk: the account with its key, each host name's certificate with its key, and what has failed, so that a host that starts
//! again and again asks no more often than one that runs. Every file is replaced whole, and only its owner can read it.

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
        let text = read(&self.failures_path(hostname)).ok().flatten();
        text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    pub fn set_failures(&self, hostname: &str, failures: Option<&Failures>) -> io::Result<()> {
        match failures {
            Some(failures) => self.write(&self.failures_path(hostname), &serde_json::to_vec(failures)?),
            None => remove(&self.failures_path(hostname)),
        }
    }

    /// Removes all that is kept of a host name.
    pub fn forget(&self, hostname: &str) -> io::Result<()> {
        remove(&self.certificate_path(hostname))?;
        remove(&self.failures_path(hostname))
    }

    // Host names have no separators, so they are safe as names of files.
    fn certificate_path(&self, hostname: &str) -> PathBuf {
        self.folder.join(format!("{hostname}.pem"))
    }

    fn failures_path(&self, hostname: &str) -> PathBuf {
        self.folder.join(format!("{hostname}.failed.json"))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        // Temporary files are their owner's alone, and stay so under their new name.
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(&self.folder)?.sync_all()
    }
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
    fn what_is_kept_is_its_owners_alone_and_is_gone_when_forgotten() {
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
        disk.forget("shop.example.org").unwrap();
        assert_eq!(std::fs::read_dir(folder.path().join("acme")).unwrap().count(), 0);
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
