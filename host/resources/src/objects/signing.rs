//! Signed URLs: from what somebody may do to the query of a URL, and back. Nothing is stored; the signature binds method, service, path, upload,
//! part, size and expiry.

use ring::hmac;
use tovuk_kernel::clock::{Clock, UnixMs};
use tovuk_kernel::{ids, limits};

use super::{Error, UploadId};

/// What a URL lets its holder do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a part of an upload; one that is sent as a whole has the one part 1.
    Upload {
        /// The upload.
        upload: UploadId,
        /// Which part, from 1.
        part: u32,
        /// Its exact size, in bytes.
        size_bytes: u64,
    },
    /// Read the object.
    Download,
}

/// What a URL lets its holder do, with which object, and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The number of the service.
    pub service: i64,
    /// The path of the object.
    pub path: String,
    /// What may be done.
    pub action: Action,
    /// When it ends.
    pub expires_ms: UnixMs,
}

impl Grant {
    /// Reading an object, from now on for as long as such URLs are valid.
    pub fn download(service: i64, path: &str, clock: &Clock) -> Self {
        Self { service, path: path.to_owned(), action: Action::Download, expires_ms: after(clock, limits::OBJECT_URL_SECONDS) }
    }

    fn method(&self) -> &'static str {
        match self.action {
            Action::Upload { .. } => "PUT",
            Action::Download => "GET",
        }
    }
}

/// This many seconds from now.
pub(super) fn after(clock: &Clock, seconds: u64) -> UnixMs {
    clock.now_unix_ms().saturating_add(seconds.saturating_mul(1_000))
}

/// Signs and checks with one key.
#[derive(Clone)]
pub struct Signer(hmac::Key);

impl Signer {
    /// With this key, which must be used for nothing else.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The query of the URL. Service and path stand in the URL's own path, as its maker likes.
    pub fn sign(&self, grant: &Grant) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if let Action::Upload { upload, part, size_bytes } = grant.action {
            query.append_pair("upload", &upload.to_string()).append_pair("part", &part.to_string());
            query.append_pair("size", &size_bytes.to_string());
        }
        query.append_pair("expires", &grant.expires_ms.to_string());
        query.append_pair("signature", &hex::encode(hmac::sign(&self.0, &message(grant))));
        query.finish()
    }

    /// What a request may do that came with this query. HEAD is taken for GET.
    ///
    /// # Errors
    /// [`Error::UrlInvalid`] when anything differs from what was signed, [`Error::UrlExpired`] when it was signed and its time is over.
    pub fn check(&self, method: &str, service: i64, path: &str, query: &str, clock: &Clock) -> Result<Grant, Error> {
        let fields = Fields::parse(query).ok_or(Error::UrlInvalid)?;
        let action = match (method, fields.upload, fields.part, fields.size) {
            ("PUT", Some(upload), Some(part), Some(size_bytes)) => Action::Upload { upload, part, size_bytes },
            ("GET" | "HEAD", None, None, None) => Action::Download,
            _ => return Err(Error::UrlInvalid),
        };
        let grant = Grant { service, path: path.to_owned(), action, expires_ms: fields.expires.ok_or(Error::UrlInvalid)? };
        // This comparison takes the same time wherever the first difference is.
        hmac::verify(&self.0, &message(&grant), &fields.signature).map_err(|_| Error::UrlInvalid)?;
        if clock.now_unix_ms() >= grant.expires_ms {
            return Err(Error::UrlExpired);
        }
        Ok(grant)
    }
}

#[derive(Default)]
struct Fields {
    upload: Option<UploadId>,
    part: Option<u32>,
    size: Option<u64>,
    expires: Option<UnixMs>,
    signature: Vec<u8>,
}

impl Fields {
    /// Nothing for a query with a field that is unknown, twice there, or not what it should be.
    fn parse(query: &str) -> Option<Self> {
        let mut fields = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let new = match &*name {
                "upload" => fields.upload.replace(ids::number(&value, "upload").map(UploadId)?).is_none(),
                "part" => fields.part.replace(value.parse().ok()?).is_none(),
                "size" => fields.size.replace(value.parse().ok()?).is_none(),
                "expires" => fields.expires.replace(value.parse().ok()?).is_none(),
                "signature" if fields.signature.is_empty() => {
                    fields.signature = hex::decode(&*value).ok()?;
                    true
                }
                _ => false,
            };
            if !new {
                return None;
            }
        }
        Some(fields)
    }
}

/// What is signed. Each field stands behind its length, so that no two grants read the same.
fn message(grant: &Grant) -> Vec<u8> {
    let (upload, part, size) = match grant.action {
        Action::Upload { upload, part, size_bytes } => (upload.0, part, size_bytes),
        Action::Download => (0, 0, 0),
    };
    let numbers =
        [grant.service.to_be_bytes(), upload.to_be_bytes(), u64::from(part).to_be_bytes(), size.to_be_bytes(), grant.expires_ms.to_be_bytes()];
    let mut message = Vec::with_capacity(grant.path.len() + 96);
    for field in [b"tovuk object url 1".as_slice(), grant.method().as_bytes(), grant.path.as_bytes(), &numbers.concat()] {
        message.extend_from_slice(&(field.len() as u64).to_be_bytes());
        message.extend_from_slice(field);
    }
    message
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn upload(part: u32) -> Grant {
        let action = Action::Upload { upload: UploadId(7), part, size_bytes: 1_000 };
        Grant { service: 3, path: "a/b c?.png".to_owned(), action, expires_ms: u64::MAX }
    }

    #[test]
    fn a_url_is_good_for_what_was_signed_and_for_nothing_else() {
        let (signer, clock) = (Signer::new(&[7; 32]), Clock::advanceable());
        let grant = upload(2);
        let query = signer.sign(&grant);
        assert_eq!(signer.check("PUT", 3, "a/b c?.png", &query, &clock).unwrap(), grant);
        let refused = |method: &str, service, path: &str, query: &str| {
            assert!(matches!(signer.check(method, service, path, query, &clock), Err(Error::UrlInvalid)), "{method} {service} {path} {query}");
        };
        for method in ["GET", "HEAD", "POST", "DELETE", "put"] {
            refused(method, 3, "a/b c?.png", &query);
        }
        refused("PUT", 4, "a/b c?.png", &query);
        refused("PUT", 3, "a/b c?.pnG", &query);
        refused("PUT", 3, "a/b c?.png", "");
        for (from, to) in [("part=2", "part=3"), ("size=1000", "size=1001"), ("upload_7", "upload_8"), ("part=2", "part=02"), ("part=2&", "")] {
            let changed = query.replace(from, to);
            if from != "part=2" || to != "part=02" {
                refused("PUT", 3, "a/b c?.png", &changed);
            }
        }
        refused("PUT", 3, "a/b c?.png", &format!("{query}&part=3"));
        refused("PUT", 3, "a/b c?.png", &format!("{query}&x=1"));
        refused("PUT", 3, "a/b c?.png", &query[..query.len() - 2]);
        assert!(Signer::new(&[8; 32]).check("PUT", 3, "a/b c?.png", &query, &clock).is_err());
    }

    #[test]
    fn a_url_ends() {
        let (signer, clock) = (Signer::new(&[7; 32]), Clock::advanceable());
        let query = signer.sign(&Grant::download(1, "x", &clock));
        for method in ["GET", "HEAD"] {
            signer.check(method, 1, "x", &query, &clock).unwrap();
        }
        clock.advance(Duration::from_secs(890));
        signer.check("GET", 1, "x", &query, &clock).unwrap();
        clock.advance(Duration::from_secs(10));
        assert!(matches!(signer.check("GET", 1, "x", &query, &clock), Err(Error::UrlExpired)));
        let later = query.replace("expires=", "expires=9");
        assert!(matches!(signer.check("GET", 1, "x", &later, &clock), Err(Error::UrlInvalid)));
    }

    proptest! {
        #[test]
        fn no_changed_byte_of_a_query_passes(at in 0_usize..200, byte in 0x20_u8..0x7f) {
            let (signer, clock) = (Signer::new(&[7; 32]), Clock::system());
            let query = signer.sign(&upload(2));
            let mut changed = query.clone().into_bytes();
            let at = at % changed.len();
            changed[at] = byte;
            let changed = String::from_utf8(changed).unwrap();
            if let Ok(grant) = signer.check("PUT", 3, "a/b c?.png", &changed, &clock) {
                // Only another spelling of the same.
                prop_assert_eq!(grant, upload(2));
            }
        }
    }
}
