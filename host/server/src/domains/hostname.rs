//! Which host names can be custom domains.

use std::net::Ipv4Addr;

use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};
use tovuk_kernel::codes::{self, Code};

/// Names under these lead nowhere that the public could reach, or to something that is not the DNS's to say.
const LOCAL_ENDINGS: [&str; 8] = ["localhost", "local", "localdomain", "internal", "invalid", "onion", "arpa", "alt"];
/// What an error shows of a name, in characters. The longest name that can be right has 253.
const SHOWN_CHARS_MAX: usize = 253;

/// Why a name cannot be a custom domain.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    /// A URL, or a name with a port or a path.
    #[error("`{0}` is more than a host name; give the name alone, without scheme, port and path")]
    NotAName(String),
    /// `*.example.com`.
    #[error("`{0}` is a wildcard; add each host name by itself")]
    Wildcard(String),
    /// An address, in any form that software takes for one.
    #[error("`{0}` is an IP address; a custom domain is a host name with a CNAME record")]
    Address(String),
    /// A name without a dot.
    #[error("`{0}` is a single label; give the whole host name, such as api.example.com")]
    SingleLabel(String),
    /// Against the rules for host names.
    #[error(
        "`{0}` is no valid host name: at most 253 characters, labels of 1 to 63 letters, digits and hyphens that neither begin nor end with a hyphen"
    )]
    Invalid(String),
    /// A name of local networks.
    #[error("`{name}` ends in `{ending}`, which public DNS does not have; use a name under a domain that you registered")]
    Local {
        /// The name.
        name: String,
        /// Its last label.
        ending: &'static str,
    },
    /// The host's own.
    #[error("`{name}` is at or under `{own}`, which is the host's own; use a name under a domain that you registered")]
    HostsOwn {
        /// The name.
        name: String,
        /// What it collides with.
        own: String,
    },
}

impl Refusal {
    /// Its row of the code table.
    pub fn code(&self) -> &'static Code {
        match self {
            Self::Local { .. } | Self::HostsOwn { .. } => &codes::DOMAIN_RESERVED,
            _ => &codes::DOMAIN_INVALID,
        }
    }
}

/// The name as it is stored, compared and served: lower case, punycode, without the dot at its end. `public_domain` is what follows `<slug>.`, and
/// `api_host` where the API answers; both may have a port.
pub fn check_hostname(name: &str, public_domain: &str, api_host: &str) -> Result<String, Refusal> {
    let given = name.trim();
    let shown: String = given.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect();
    if given.contains('*') {
        return Err(Refusal::Wildcard(shown));
    }
    let unbracketed = given.trim_start_matches('[').trim_end_matches(']');
    if unbracketed.parse::<std::net::IpAddr>().is_ok() {
        return Err(Refusal::Address(shown));
    }
    if given.contains([':', '/', '@', '?', '#', '\\']) {
        return Err(Refusal::NotAName(shown));
    }
    let given = given.strip_suffix(['.', '。', '.', '。']).unwrap_or(given);
    let ascii = Uts46::new().to_ascii(given.as_bytes(), AsciiDenyList::STD3, Hyphens::CheckFirstLast, DnsLength::Verify);
    let Ok(ascii) = ascii.map(std::borrow::Cow::into_owned) else { return Err(Refusal::Invalid(shown)) };
    if is_address(&ascii) {
        return Err(Refusal::Address(shown));
    }
    if let Some(ending) = LOCAL_ENDINGS.into_iter().find(|ending| is_at_or_under(&ascii, ending)) {
        return Err(Refusal::Local { name: ascii, ending });
    }
    if !ascii.contains('.') {
        return Err(Refusal::SingleLabel(shown));
    }
    for own in [public_domain, api_host].map(host_alone) {
        if is_at_or_under(&ascii, &own) {
            return Err(Refusal::HostsOwn { name: ascii, own });
        }
    }
    Ok(ascii)
}

/// Whether software could take the name for an address: a last label that is a number makes it one.
fn is_address(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_hexadecimal = last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    name.parse::<Ipv4Addr>().is_ok() || is_hexadecimal || last.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_at_or_under(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// A host in lower case, without a port and without the dot at its end.
pub(super) fn host_alone(host: &str) -> String {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str) -> Result<String, Refusal> {
        check_hostname(name, "Tovuk.example:8787", "api.operator.example:443")
    }

    #[test]
    fn a_name_is_kept_in_one_form() {
        let longest_label = format!("{}.example.com", "a".repeat(63));
        for (name, expected) in [
            ("api.example.com", "api.example.com"),
            (" API.Example.COM. ", "api.example.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.example", "xn--bcher-kva.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("api。example。com", "api.example.com"),
            ("r3---sn-x.example.com", "r3---sn-x.example.com"),
            ("1.example", "1.example"),
            ("example.com", "example.com"),
            ("nottovuk.example", "nottovuk.example"),
            ("operator.example", "operator.example"),
            (&longest_label, &longest_label),
        ] {
            assert_eq!(check(name).as_deref(), Ok(expected), "{name}");
        }
    }

    #[test]
    fn what_is_no_host_name_is_refused_with_what_to_give_instead() {
        let long_label = format!("{}.example.com", "a".repeat(64));
        let long_name = format!("{}.com", vec!["a".repeat(60); 5].join("."));
        for name in
            ["", ".", "..", "a..b", ".example.com", "-a.example.com", "a-.example.com", "a_b.example.com", "a b.example.com", "a\0.example.com"]
        {
            assert!(matches!(check(name), Err(Refusal::Invalid(_))), "{name:?}: {:?}", check(name));
        }
        for name in [&long_label, &long_name, "xn--a.example.com", "a.example.com..", "a\n.example.com", "\u{202e}a.example.com"] {
            assert!(matches!(check(name), Err(Refusal::Invalid(_))), "{name:?}: {:?}", check(name));
        }
        for name in ["https://a.example.com", "a.example.com:443", "a.example.com/x", "u@a.example.com", "a.example.com\\x"] {
            assert!(matches!(check(name), Err(Refusal::NotAName(_))), "{name}");
        }
        for name in ["127.0.0.1", "127.0.0.1.", "127.1", "0x7f.1", "a.0x7f", "1.2.3.4.5", "[::1]", "::1", "2001:db8::1", "127.0.0.1"] {
            assert!(matches!(check(name), Err(Refusal::Address(_))), "{name}: {:?}", check(name));
        }
        assert!(matches!(check("*.example.com"), Err(Refusal::Wildcard(_))));
        assert!(matches!(check("example"), Err(Refusal::SingleLabel(_))));
        assert_eq!(check("a.example.com:443").unwrap_err().code().code, "domain_invalid");
        assert!(check(&"x".repeat(100_000)).unwrap_err().to_string().len() < 1_000);
    }

    #[test]
    fn names_of_the_host_and_of_local_networks_are_not_given_out() {
        for name in ["localhost", "a.localhost", "db.internal", "x.tovuk.internal", "printer.local", "1.0.0.127.in-addr.arpa", "x.onion"] {
            assert!(matches!(check(name), Err(Refusal::Local { .. })), "{name}");
        }
        for name in ["tovuk.example", "shop.TOVUK.example", "a.b.tovuk.example.", "api.operator.example", "x.api.operator.example"] {
            assert!(matches!(check(name), Err(Refusal::HostsOwn { .. })), "{name}");
        }
        assert_eq!(check("a.localhost").unwrap_err().code().code, "domain_reserved");
    }
}
