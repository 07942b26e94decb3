//! The control API as the front door knows it: under which authority workers reach it, and whether it is served here as well.

use std::net::IpAddr;

use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Request, Response, header};

use tovuk_runtime::body::Body;

use super::objects::Storage;
use crate::control::Control;

/// The control API behind a front door.
#[derive(Clone)]
pub struct Api {
    control: Control,
    /// What workers' calls of it name, in lower case.
    authority: String,
    here: bool,
}

impl Api {
    /// Served by a listener of its own.
    pub fn elsewhere(control: Control) -> Self {
        let url = control.urls().api.parse::<http::Uri>().unwrap_or_default();
        let authority = url.authority().map(|authority| plain_authority(authority, url.scheme_str())).unwrap_or_default();
        Self { control, authority, here: false }
    }

    /// Served by the front door itself, at the loopback names of a development host.
    pub fn here(control: Control) -> Self {
        Self { here: true, ..Self::elsewhere(control) }
    }

    /// The objects of the same host.
    pub(super) fn storage(&self) -> Storage {
        Storage::new(self.control.clone())
    }

    /// Whether a worker's call of this plain authority leads here.
    pub(super) fn owns(&self, authority: &str) -> bool {
        authority == self.authority
    }

    /// Whether a request from outside is for the API. A page of another origin that a browser has open must not reach a development host, so its
    /// requests are nobody's.
    pub(super) fn takes(&self, host: &HeaderValue, headers: &HeaderMap) -> bool {
        self.here && host.to_str().is_ok_and(is_loopback) && headers.get(header::ORIGIN).is_none_or(|origin| self.is_own_origin(origin, host))
    }

    fn is_own_origin(&self, origin: &HeaderValue, host: &HeaderValue) -> bool {
        origin.as_bytes().strip_prefix(b"http://").is_some_and(|rest| rest.eq_ignore_ascii_case(host.as_bytes()))
    }

    /// Answers it, for a client at this address; a worker's call has none.
    pub(super) async fn respond(&self, request: Request<Body>, client: Option<IpAddr>) -> Response<Body> {
        self.control.respond(request, client).await
    }
}

/// An authority in the one spelling that is compared: lower case, without the dot that ends a full name, without the port that is the scheme's own.
pub(super) fn plain_authority(authority: &Authority, scheme: Option<&str>) -> String {
    let host = authority.host().to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    let own_port = if scheme == Some("https") { 443 } else { 80 };
    match authority.port_u16().filter(|port| *port != own_port) {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(name.to_ascii_lowercase().as_str(), "localhost" | "127.0.0.1" | "[::1]")
}

#[cfg(test)]
mod tests {
    use super::{is_loopback, plain_authority};

    #[test]
    fn an_authority_is_compared_in_one_spelling() {
        for (spelling, scheme, plain) in [
            ("Shop.Example.COM.", "https", "shop.example.com"),
            ("shop.example.com:443", "https", "shop.example.com"),
            ("shop.example.com.:80", "http", "shop.example.com"),
            ("shop.example.com:443", "http", "shop.example.com:443"),
            ("shop.localhost:8787", "http", "shop.localhost:8787"),
            ("[::1]:8787", "http", "[::1]:8787"),
        ] {
            assert_eq!(spelling.parse().ok().map(|authority| plain_authority(&authority, Some(scheme))).as_deref(), Some(plain), "{spelling}");
        }
    }

    #[test]
    fn loopback_names_are_known_with_and_without_port() {
        for host in ["localhost", "localhost:8787", "127.0.0.1:8787", "[::1]:8787", "[::1]", "LOCALHOST:1"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["shop.localhost:8787", "localhost.example.com", "127.0.0.1.nip.io", "", ":8787"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
