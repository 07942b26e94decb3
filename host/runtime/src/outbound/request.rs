//! Makes a worker's request fit to leave the host: a valid target, one framing, and no header field that belongs to a single connection
//! or to the host. It judges neither targets nor addresses.

use std::fmt;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body::Body as _;
use tovuk_kernel::outbound::{Pattern, Scheme};

use super::{OutboundError, RequestBody};

/// Where a request goes. Two spellings of one target are equal, so that they share connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub scheme: Scheme,
    /// In lower case; an IPv6 address has brackets.
    pub host: String,
    pub port: u16,
}

impl Target {
    pub fn of(uri: &Uri) -> Result<Self, OutboundError> {
        let invalid = |what: &str| OutboundError::InvalidRequest(format!("{what}; write a URL like `https://api.example.com/path`"));
        let scheme = uri.scheme_str().ok_or_else(|| invalid("its URL has no scheme"))?;
        let scheme = Scheme::from_name(scheme).ok_or_else(|| invalid("the scheme of its URL is neither `http` nor `https`"))?;
        let authority = uri.authority().ok_or_else(|| invalid("its URL has no host"))?;
        // A user name in front of the host makes people and parsers disagree on which is the host.
        if authority.as_str().contains('@') {
            return Err(invalid("its URL has a user name, which belongs into an `authorization` header"));
        }
        let host = authority.host();
        if host.is_empty() {
            return Err(invalid("its URL has no host"));
        }
        let port = match authority.as_str().strip_prefix(host) {
            Some("") => scheme.default_port(),
            _ => authority.port_u16().filter(|port| *port != 0).ok_or_else(|| invalid("the port of its URL is not a number from 1 to 65535"))?,
        };
        Ok(Self { scheme, host: host.to_ascii_lowercase(), port })
    }

    /// The entry that allows the target, when there can be one.
    pub fn pattern(&self) -> Option<Pattern> {
        Pattern::exact(self.scheme, &self.host, self.port)
    }

    fn uri(&self, path_and_query: Option<PathAndQuery>) -> Result<Uri, OutboundError> {
        let invalid = |error: &dyn fmt::Display| OutboundError::InvalidRequest(format!("its URL: {error}"));
        let authority = if self.port == self.scheme.default_port() { self.host.clone() } else { format!("{}:{}", self.host, self.port) };
        let authority = Authority::try_from(authority).map_err(|error| invalid(&error))?;
        Uri::builder()
            .scheme(self.scheme.as_str())
            .authority(authority)
            .path_and_query(path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/")))
            .build()
            .map_err(|error| invalid(&error))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        if self.port == self.scheme.default_port() { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// The request as it leaves. Version and extensions are not taken over: with the one a worker could demand a protocol that the connection
/// does not speak, with the others open a tunnel.
pub(super) fn prepare(request: Request<RequestBody>, target: &Target) -> Result<Request<RequestBody>, OutboundError> {
    let (parts, body) = request.into_parts();
    if parts.method == Method::CONNECT {
        return Err(OutboundError::InvalidRequest("its method is CONNECT, and a tunnel would carry what no list can check".into()));
    }
    let mut headers = parts.headers;
    drop_headers_of_the_connection(&mut headers);
    check_length(&mut headers, &body)?;
    let mut prepared = Request::new(body);
    *prepared.method_mut() = parts.method;
    *prepared.uri_mut() = target.uri(parts.uri.into_parts().path_and_query)?;
    *prepared.headers_mut() = headers;
    Ok(prepared)
}

/// The `host` field goes as well: the client derives it from the URL, so that the server named there is the one the list has allowed.
fn drop_headers_of_the_connection(headers: &mut HeaderMap) {
    let mut dropped: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    dropped.extend(headers.keys().filter(|name| belongs_to_the_connection(name)).cloned());
    // gRPC demands `te: trailers`; it asks for nothing that a connection of ours could get wrong.
    let keeps_te = headers.get_all(TE).iter().all(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"));
    for name in dropped {
        if name != TE || !keeps_te {
            headers.remove(name);
        }
    }
}

fn belongs_to_the_connection(name: &HeaderName) -> bool {
    [CONNECTION, HOST, TE, TRANSFER_ENCODING, UPGRADE].contains(name)
        || ["keep-alive", "http2-settings"].contains(&name.as_str())
        || ["proxy-", "x-tovuk-"].iter().any(|prefix| name.as_str().starts_with(prefix))
}

/// A length that differs from the body's would make the server take the next request on the connection for the rest of this body. Where
/// the body's length is not known yet, the client ends the connection if it turns out to be another.
fn check_length(headers: &mut HeaderMap, body: &RequestBody) -> Result<(), OutboundError> {
    let invalid = |what: String| Err(OutboundError::InvalidRequest(what));
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = values.next() else { return Ok(()) };
    if values.any(|value| value != first) {
        return invalid("it has two `content-length` fields that differ; leave the field out".into());
    }
    let digits = first.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let Some(length) = digits.and_then(|text| text.parse::<u64>().ok()) else {
        return invalid("its `content-length` is not a number; leave the field out".into());
    };
    let body_bytes = if body.is_end_stream() { Some(0) } else { body.size_hint().exact() };
    if body_bytes.is_some_and(|bytes| bytes != length) {
        let bytes = body_bytes.unwrap_or_default();
        return invalid(format!("its `content-length` is {length} and its body has {bytes} bytes; leave the field out"));
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    Ok(())
}
