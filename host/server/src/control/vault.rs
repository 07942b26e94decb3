//! The host's one secret, and what is made with it: sealed values, and tokens that are derived instead of stored.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hkdf, hmac};

/// Bytes of the key.
const KEY_BYTES: usize = 32;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its file cannot be read or made.
    #[error("the key file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not a key.
    #[error("{place} must hold 32 bytes in base64 or 64 hexadecimal digits: make one with `openssl rand -base64 32`")]
    Malformed {
        /// Where it was read.
        place: String,
    },
    /// Others than its owner can read it.
    #[error("{path} can be read by others: run `chmod 600 {path}`")]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// The system has no randomness.
    #[error("the system gives no random bytes")]
    Random,
}

/// Seals, unseals and derives.
#[derive(Clone)]
pub struct Vault(Arc<Keys>);

struct Keys {
    seal: LessSafeKey,
    derive: hmac::Key,
    random: SystemRandom,
}

impl Vault {
    /// The vault of this key, as text.
    pub fn of_text(text: &str, place: &str) -> Result<Self, Error> {
        let text = text.trim();
        let decoded = hex::decode(text).ok().or_else(|| STANDARD.decode(text).ok());
        let key = decoded.filter(|key| key.len() == KEY_BYTES).ok_or_else(|| Error::Malformed { place: place.to_owned() })?;
        Self::of(&key, place)
    }

    /// The vault of the key in this file, which is made, for its owner alone, when it is missing.
    pub fn of_file(path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        match fs::read_to_string(path) {
            Ok(text) => {
                if fs::metadata(path).map_err(io)?.permissions().mode() & 0o077 != 0 {
                    return Err(Error::Open { path: path.to_owned() });
                }
                Self::of_text(&text, &path.display().to_string())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key: [u8; KEY_BYTES] = random()?;
                write_private(path, format!("{}\n", STANDARD.encode(key)).as_bytes()).map_err(io)?;
                Self::of(&key, &path.display().to_string())
            }
            Err(error) => Err(io(error)),
        }
    }

    fn of(key: &[u8], place: &str) -> Result<Self, Error> {
        let malformed = || Error::Malformed { place: place.to_owned() };
        // Two keys from one, so that no use of either says anything about the other.
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, b"tovuk vault 1").extract(key);
        let expand = |info: &'static [u8]| {
            let mut bytes = [0; KEY_BYTES];
            let info = [info];
            prk.expand(&info, hkdf::HKDF_SHA256).and_then(|okm| okm.fill(&mut bytes)).map_err(|_| malformed())?;
            Ok::<_, Error>(bytes)
        };
        let seal = UnboundKey::new(&CHACHA20_POLY1305, &expand(b"seal")?).map_err(|_| malformed())?;
        let derive = hmac::Key::new(hmac::HMAC_SHA256, &expand(b"derive")?);
        Ok(Self(Arc::new(Keys { seal: LessSafeKey::new(seal), derive, random: SystemRandom::new() })))
    }

    /// The value so that only this host can read it, and only under the same context.
    pub fn seal(&self, context: &str, value: &[u8]) -> Result<Vec<u8>, Error> {
        let mut nonce = [0; NONCE_LEN];
        self.0.random.fill(&mut nonce).map_err(|_| Error::Random)?;
        let mut sealed = value.to_vec();
        let aad = Aad::from(context.as_bytes());
        self.0.seal.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).map_err(|_| Error::Random)?;
        sealed.extend_from_slice(&nonce);
        Ok(sealed)
    }

    /// What was sealed under this context; nothing when it was not, or not with this key.
    pub fn open(&self, context: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (ciphertext, nonce) = sealed.split_last_chunk::<NONCE_LEN>()?;
        let mut value = ciphertext.to_vec();
        let length = self.0.seal.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(context.as_bytes()), &mut value).ok()?.len();
        value.truncate(length);
        Some(value)
    }

    /// Text that only this host can derive from this context.
    pub fn derive(&self, context: &[&[u8]]) -> String {
        URL_SAFE_NO_PAD.encode(self.derive_key(context))
    }

    /// A key that only this host can derive from this context.
    pub fn derive_key(&self, context: &[&[u8]]) -> [u8; KEY_BYTES] {
        let mut mac = hmac::Context::with_key(&self.0.derive);
        for part in context {
            // With their lengths, so that no two lists of parts read the same.
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        let mut key = [0; KEY_BYTES];
        key.copy_from_slice(mac.sign().as_ref());
        key
    }
}

/// This many random bytes.
pub fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::Random)?;
    Ok(bytes)
}

/// A new token of 256 random bits, for example `tovuk_…`.
pub fn new_token(prefix: &str) -> Result<String, Error> {
    Ok(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random::<32>()?)))
}

/// What is stored instead of a token.
pub fn token_digest(token: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    bytes
}

/// Writes a file that only this user can read, whole and on disk before it has its name.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = path.with_extension("new");
    // What an earlier attempt left behind may have other rights.
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault() -> Vault {
        Vault::of_text(&"07".repeat(32), "test").unwrap()
    }

    #[test]
    fn a_sealed_value_opens_under_its_own_context_only() {
        let sealed = vault().seal("env service_1 KEY", b"hunter2").unwrap();
        assert_eq!(vault().open("env service_1 KEY", &sealed).unwrap(), b"hunter2");
        assert_eq!(vault().open("env service_2 KEY", &sealed), None);
        assert_eq!(Vault::of_text(&"08".repeat(32), "test").unwrap().open("env service_1 KEY", &sealed), None);
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        assert_ne!(sealed, vault().seal("env service_1 KEY", b"hunter2").unwrap());
        for cut in 0..sealed.len() {
            assert_eq!(vault().open("env service_1 KEY", &sealed[..cut]), None);
        }
    }

    #[test]
    fn what_is_derived_depends_on_every_part_and_on_where_parts_end() {
        assert_eq!(vault().derive(&[b"a", b"b"]), vault().derive(&[b"a", b"b"]));
        assert_ne!(vault().derive(&[b"a", b"b"]), vault().derive(&[b"ab"]));
        assert_ne!(vault().derive(&[b"a", b"b"]), vault().derive(&[b"", b"ab"]));
    }

    #[test]
    fn a_missing_key_file_is_made_for_its_owner_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret-key");
        let sealed = Vault::of_file(&path).unwrap().seal("c", b"v").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Vault::of_file(&path).unwrap().open("c", &sealed).unwrap(), b"v");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Vault::of_file(&path), Err(Error::Open { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "too short").unwrap();
        assert!(matches!(Vault::of_file(&path), Err(Error::Malformed { .. })));
    }
}
