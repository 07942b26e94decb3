//! Where objects are on the web: from a service and a path to a URL, and back. Whoever holds a signed URL needs nothing else; the URL of a public
//! object is the same without a signature.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tovuk_kernel::clock::Clock;
use tovuk_kernel::ids;

use super::signing::{Action, Grant, Signer};
use super::types::{Object, PartPlan, Reader, Status, Upload};
use super::{Error, Objects, check_path};

/// What stands for itself in the path of a URL. A slash does: it separates segments in both.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');
/// What the first segment of a URL's path is: the id of a service.
const SERVICE: &str = "service";

/// What the plan of a part takes beside the path of its object, in bytes: the rest of its URL and its figures, at most.
const PLANNED_BYTES: u64 = 640;

/// What the plan of a part of an object takes, in bytes, at most. A path that is none is not written anywhere.
pub(super) fn planned_bytes(path: &str) -> u64 {
    let path: usize = utf8_percent_encode(path, PLAIN).map(str::len).sum();
    PLANNED_BYTES.saturating_add(path as u64)
}

/// Makes URLs of objects, and reads them.
#[derive(Clone)]
pub struct Links {
    base: String,
    signer: Signer,
}

impl Links {
    /// URLs that begin so, for example `https://storage.example.com`, without a slash at the end.
    pub fn new(base: String, signer: Signer) -> Self {
        Self { base, signer }
    }

    /// Where anybody can read an object, if anybody can.
    pub fn public(&self, service: i64, object: &Object) -> Option<String> {
        let readable = object.public_read && object.status == Status::Ready;
        readable.then(|| self.unsigned(service, &object.path))
    }

    /// Where the holder can do what is granted.
    pub fn signed(&self, grant: &Grant) -> String {
        format!("{}?{}", self.unsigned(grant.service, &grant.path), self.signer.sign(grant))
    }

    /// Where the holder can send a part of an upload.
    pub fn part(&self, service: i64, upload: &Upload, part: &PartPlan) -> String {
        let action = Action::Upload { upload: upload.id, part: part.number, size_bytes: part.size_bytes };
        self.signed(&Grant { service, path: upload.path.clone(), action, expires_ms: upload.urls_expire_ms })
    }

    fn unsigned(&self, service: i64, path: &str) -> String {
        format!("{}/{SERVICE}_{service}/{}", self.base, utf8_percent_encode(path, PLAIN))
    }

    /// What a request with this method, path and query may do.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a path that is none of an object; else as [`Signer::check`].
    pub fn check(&self, method: &str, url_path: &str, query: &str, clock: &Clock) -> Result<Grant, Error> {
        let (service, path) = locate(url_path)?;
        self.signer.check(method, service, &path, query, clock)
    }
}

/// The number of the service and the path that the path of a URL means.
///
/// # Errors
/// [`Error::NotFound`] when it can mean none.
pub fn locate(url_path: &str) -> Result<(i64, String), Error> {
    let none = || Error::NotFound(url_path.to_owned());
    let (service, path) = url_path.strip_prefix('/').and_then(|rest| rest.split_once('/')).ok_or_else(none)?;
    let service = ids::number(service, SERVICE).ok_or_else(none)?;
    let path = percent_decode_str(path).decode_utf8().map_err(|_| none())?.into_owned();
    check_path(&path).map_err(|_| none())?;
    Ok((service, path))
}

impl Objects {
    /// Says where this host serves objects. To be called once, before anything is served.
    pub fn set_links(&self, links: Links) {
        // A second call finds that the first has said it.
        let _ = self.0.links.set(links);
    }

    /// The URLs of this host's objects.
    ///
    /// # Errors
    /// [`Error::Request`] on a host that serves none.
    pub fn links(&self) -> Result<&Links, Error> {
        self.0.links.get().ok_or_else(|| Error::Request("this host gives out no URLs of objects".to_owned()))
    }

    /// Signs the reading of an object that is there, for as long as such URLs are valid.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Request`] on a host that serves no objects.
    pub async fn download_url(&self, service: i64, path: &str) -> Result<(String, Grant), Error> {
        let links = self.links()?;
        self.head(service, path, Reader::Granted).await?;
        let grant = Grant::download(service, path, &self.0.clock);
        Ok((links.signed(&grant), grant))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_leads_back_to_what_it_was_made_of() {
        let (links, clock) = (Links::new("http://storage.localhost:1".into(), Signer::new(&[7; 32])), Clock::advanceable());
        for path in ["a", "a/b c?.png", "ü/%41#x", "x%2Fy", "100%", "a+b&c=d;e"] {
            let grant = Grant::download(3, path, &clock);
            let url = links.signed(&grant);
            let (url_path, query) = url.strip_prefix("http://storage.localhost:1").unwrap().split_once('?').unwrap();
            assert!(url_path.bytes().all(|byte| byte.is_ascii_graphic()), "{url_path}");
            assert_eq!(links.check("GET", url_path, query, &clock).unwrap(), grant);
            assert_eq!(locate(url_path).unwrap(), (3, path.to_owned()));
        }
    }

    #[test]
    fn the_plan_of_a_part_takes_what_is_counted_for_it() {
        let base = format!("https://storage.{}:65535", "d".repeat(245));
        let links = Links::new(base, Signer::new(&[7; 32]));
        for path in ["a".to_owned(), "é".repeat(512)] {
            let action = Action::Upload { upload: super::super::UploadId(i64::MAX), part: 10_000, size_bytes: u64::MAX };
            let grant = Grant { service: i64::MAX, path: path.clone(), action, expires_ms: u64::MAX };
            let shown = serde_json::json!({"partNumber": 10_000, "offsetBytes": u64::MAX, "sizeBytes": u64::MAX, "url": links.signed(&grant)});
            assert!(shown.to_string().len() as u64 <= planned_bytes(&path), "{shown}");
        }
    }

    #[test]
    fn what_is_no_path_of_an_object_means_none() {
        let long = format!("/service_1/{}", "a".repeat(4_096));
        for path in [
            "",
            "/",
            "/service_1",
            "/service_1/",
            "/x/a",
            "/service_0x/a",
            "/service_1//a",
            "/service_1/../a",
            "/service_1/a/%2e%2e/b",
            "/service_1/%2e%2e%2fa",
            "/service_1/%252e%252e/a",
            "/service_1/a%00b",
            "/service_1/%2fetc",
            "/service_1/a%ff",
            "/.tovuk/queues/x",
            "/service_1/..%5ca",
            long.as_str(),
        ] {
            assert!(matches!(locate(path), Err(Error::NotFound(_))), "{path}");
        }
    }
}
