//! The other end of a connection, as far as the host knows it for certain: nothing here comes from a request.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use http::HeaderValue;

/// How a connection is secured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Not at all.
    Http,
    /// By TLS.
    Https,
}

impl Scheme {
    /// The scheme of URLs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    address: IpAddr,
    /// The address as a header says it, made once for all requests.
    address_value: HeaderValue,
    scheme: Scheme,
    server_name: Option<Arc<str>>,
}

impl Peer {
    /// A client at this address. `server_name` is what it asked for in its TLS handshake.
    pub fn new(address: IpAddr, scheme: Scheme, server_name: Option<&str>) -> Self {
        let address = address.to_canonical();
        let address_value = HeaderValue::from_str(&address.to_string()).unwrap_or(HeaderValue::from_static("unknown"));
        let server_name = server_name.map(|name| name.trim_end_matches('.').to_ascii_lowercase().into());
        Self { address, address_value, scheme, server_name }
    }

    /// Its address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Its address as a header's value.
    pub fn address_value(&self) -> &HeaderValue {
        &self.address_value
    }

    /// How it is connected.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host name that it asked for in its TLS handshake, in lower case.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// Whether a request for this host, with or without a port, may come over this connection: one whose certificate was chosen for another host may not.
    pub fn may_ask(&self, host: &str) -> bool {
        let Some(name) = &self.server_name else { return true };
        let host = match host.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => host,
        };
        host.strip_suffix('.').unwrap_or(host).eq_ignore_ascii_case(name)
    }
}

/// What counts as one client when connections are counted. Networks give whoever asks 2^64 addresses of IPv6.
pub(crate) fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_connection_for_one_host_carries_no_request_for_another() {
        let peer = Peer::new([127, 0, 0, 1].into(), Scheme::Https, Some("Shop.example.org"));
        for host in ["shop.example.org", "SHOP.example.org:8443", "shop.example.org."] {
            assert!(peer.may_ask(host), "{host}");
        }
        for host in ["other.example.org", "example.org", "shop.example.org.evil", "", ":443", "shop.example.org:x"] {
            assert!(!peer.may_ask(host), "{host}");
        }
        assert!(Peer::new([127, 0, 0, 1].into(), Scheme::Https, None).may_ask("shop.example.org"));
    }

    #[test]
    fn addresses_of_one_network_are_one_client() {
        let of = |text: &str| client_of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
