//! Objects as HTTP, at a host name of their own: `GET` and `HEAD` of public objects and of signed URLs, `PUT` of signed ones. What a tenant has stored is
//! never served from an origin that has cookies or an API, and nothing of it runs in the origin that it comes from.

use bytes::Bytes;
use futures::TryStreamExt;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyDataStream, StreamBody};
use tovuk_kernel::codes;
use tovuk_kernel::meters::Meter;
use tovuk_resources::meters::Bill;
use tovuk_resources::objects::{self, Action, Conditions, Content, Download, Object, Range, Reader, is_active};
use tovuk_runtime::body::{Body, BodyError};
use tovuk_runtime::failure::Failure;
use tovuk_runtime::trace::TraceContext;

use super::charged::charged;
use super::respond::{self, Audience};
use crate::control::Control;

/// What the host answers at this name.
const METHODS: &str = "GET, HEAD, PUT, OPTIONS";
/// What pages of other origins may read of an answer.
const EXPOSED: &str = "etag, content-length, content-range, accept-ranges, last-modified, content-disposition";
/// How long a browser may remember what pages of other origins may do, in s.
const PREFLIGHT_SECONDS: &str = "86400";
/// Marks a URL as signed.
const SIGNATURE: &str = "signature";

/// The objects behind a front door.
#[derive(Clone)]
pub(super) struct Storage {
    control: Control,
    /// In lower case, without port.
    host: String,
}

impl Storage {
    pub fn new(control: Control) -> Self {
        let host = control.urls().storage_host();
        Self { control, host }
    }

    /// Whether a request for this host is for objects.
    pub fn takes(&self, host: &HeaderValue) -> bool {
        let name = host.to_str().unwrap_or_default();
        let name = match name.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => name,
        };
        name.strip_suffix('.').unwrap_or(name).eq_ignore_ascii_case(&self.host)
    }

    /// Who is charged for what a service has.
    pub fn bill(&self, account: i64, service: i64) -> Bill {
        self.control.bill(account, service)
    }

    /// Answers a request.
    pub async fn respond(&self, request: Request<Body>, audience: Audience) -> Response<Body> {
        let trace = TraceContext::of(request.headers()).trace;
        let (parts, body) = request.into_parts();
        let answered = match parts.method {
            Method::GET | Method::HEAD => self.get(&parts).await,
            Method::PUT => self.put(&parts, body).await,
            Method::OPTIONS => Ok(preflight()),
            _ => Err(Failed::from(Failure::refused(&codes::METHOD_NOT_ALLOWED, format!("objects answer {METHODS}")))),
        };
        let mut response = answered.unwrap_or_else(|failed| {
            let mut response = respond::failure(&failed.failure, trace, audience);
            let headers = response.headers_mut();
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            if failed.failure.code == &codes::METHOD_NOT_ALLOWED {
                headers.insert(header::ALLOW, HeaderValue::from_static(METHODS));
            }
            headers.extend(failed.range.map(|range| (header::CONTENT_RANGE, range)));
            response
        });
        secure(response.headers_mut());
        response
    }

    async fn get(&self, request: &Parts) -> Result<Response<Body>, Failed> {
        let (path, query) = (request.uri.path(), request.uri.query().unwrap_or_default());
        let signed = form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == SIGNATURE);
        let (service, path, reader) = if signed {
            let grant = self.control.objects().links()?.check(request.method.as_str(), path, query, self.control.clock())?;
            (grant.service, grant.path, Reader::Granted)
        } else {
            let (service, path) = objects::locate(path)?;
            (service, path, Reader::Anybody)
        };
        let bill = self.check_service(service, &path).await?;
        let (conditions, range) = Conditions::of_headers(&request.headers);
        let is_head = request.method == Method::HEAD;
        // A range is of a GET alone (RFC 9110, 14.2).
        let range = if is_head { Range::Whole } else { range };
        let mut response = Response::new(Body::Empty);
        match self.control.objects().billed_to(bill.clone()).open_object(service, &path, reader, &conditions, range).await? {
            Download::NotModified(object) => {
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                validators(response.headers_mut(), &object, reader)?;
            }
            Download::Content(content) => {
                describe(&mut response, &content, reader)?;
                if !is_head && content.length > 0 {
                    *response.body_mut() = body_of(content);
                }
            }
        }
        Ok(charged(response, bill, Meter::ObjectStorageEgressBytes).await?)
    }

    async fn put(&self, request: &Parts, body: Body) -> Result<Response<Body>, Failed> {
        let length = http_body::Body::size_hint(&body).exact();
        let body = BodyDataStream::new(body);
        let query = request.uri.query().unwrap_or_default();
        let grant = self.control.objects().links()?.check("PUT", request.uri.path(), query, self.control.clock())?;
        let Action::Upload { upload, part, .. } = grant.action else { return Err(objects::Error::UrlInvalid.into()) };
        let bill = self.check_service(grant.service, &grant.path).await?;
        let received = self.control.objects().billed_to(bill).receive(grant.service, upload, part, length, body).await?;
        let mut response = Response::new(Body::Empty);
        let headers = response.headers_mut();
        headers.insert(header::ETAG, text(&received.etag)?);
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }

    /// Who is charged. What belongs to nobody, or to an account that is suspended, is not served, also to holders of URLs that were signed before.
    async fn check_service(&self, service: i64, path: &str) -> Result<Bill, Failed> {
        match self.control.serves_objects_of(service).await {
            Ok(Some(account)) => Ok(self.control.bill(account, service)),
            Ok(None) => Err(objects::Error::NotFound(path.to_owned()).into()),
            Err(refusal) => Err(Failure::refused(refusal.code, refusal.message).into()),
        }
    }
}

/// Why there is no object, and for a range that is not there how large the object is.
struct Failed {
    failure: Box<Failure>,
    range: Option<HeaderValue>,
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self { failure: Box::new(failure), range: None }
    }
}

impl From<objects::Error> for Failed {
    fn from(error: objects::Error) -> Self {
        if let objects::Error::Usage(exceeded) = &error {
            return Failure::over_cap(exceeded).into();
        }
        let range = match error {
            objects::Error::Range { bytes } => HeaderValue::from_str(&format!("bytes */{bytes}")).ok(),
            _ => None,
        };
        if error.is_for_caller() {
            return Self { failure: Box::new(Failure::refused(error.code(), error.to_string())), range };
        }
        tracing::error!("object storage failed: {error}");
        Self { failure: Box::new(Failure::refused(error.code(), error.code().message)), range }
    }
}

fn text(text: &str) -> Result<HeaderValue, Failed> {
    HeaderValue::from_str(text).map_err(|error| Failure::internal(error.to_string()).into())
}

/// What tells a version from others, and who may keep it.
fn validators(headers: &mut HeaderMap, object: &Object, reader: Reader) -> Result<(), Failed> {
    headers.insert(header::ETAG, text(&object.etag)?);
    let modified = std::time::UNIX_EPOCH + std::time::Duration::from_millis(object.updated_ms);
    headers.insert(header::LAST_MODIFIED, text(&httpdate::fmt_http_date(modified))?);
    // An object can be replaced at any time, so whoever keeps a copy asks whether it is still the one.
    let cache = match reader {
        Reader::Anybody => "public, no-cache",
        Reader::Granted => "private, no-cache",
    };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    Ok(())
}

/// The head of an answer with content.
fn describe(response: &mut Response<Body>, content: &Content, reader: Reader) -> Result<(), Failed> {
    let object = &content.object;
    if let Some(range) = &content.range {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {}-{}/{}", range.start, range.end.saturating_sub(1), object.size_bytes);
        response.headers_mut().insert(header::CONTENT_RANGE, text(&range)?);
    }
    let headers = response.headers_mut();
    validators(headers, object, reader)?;
    headers.insert(header::CONTENT_TYPE, text(&object.content_type)?);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(content.length));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if is_active(&object.content_type) {
        headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    }
    Ok(())
}

fn body_of(content: Content) -> Body {
    let path = content.object.path;
    let frames = content.body.map_ok(http_body::Frame::<Bytes>::data).map_err(move |error| {
        // The connection is cut, because the head has said how much there would be.
        tracing::error!("an object ({path:?}) cannot be read to its end: {error}");
        BodyError::InternalError(None)
    });
    Body::stream(StreamBody::new(frames))
}

/// What pages of other origins may do. There are no cookies here and no header that lets anybody in, so a page gets nothing that its author could not get
/// without a browser: the right is in the URL.
fn preflight() -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, HeaderValue::from_static(METHODS));
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, PUT"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_SECONDS));
    response
}

/// What every answer has: browsers guess no types, run nothing of it, tell nobody the URL, and let pages of other origins read it.
fn secure(headers: &mut HeaderMap) {
    let fields: [(HeaderName, &'static str); 6] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "sandbox"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED),
        (HeaderName::from_static("cross-origin-resource-policy"), "cross-origin"),
    ];
    headers.extend(fields.map(|(name, value)| (name, HeaderValue::from_static(value))));
}
