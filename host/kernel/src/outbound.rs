//! The allowlist of outgoing HTTP: what one line of `outbound = ["https://api.stripe.com"]` means and which requests a list lets pass. It
//! resolves no name and opens no connection; whether the address behind a name may be dialled is decided where it is dialled.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Examples of each form, for errors and the schema.
const EXAMPLES: [&str; 3] = ["https://api.stripe.com", "http://203.0.114.7:8080", "https://*.example.com"];
/// The longest host name that DNS can carry, in bytes.
const NAME_BYTES_MAX: usize = 253;
/// The longest label that DNS can carry, in bytes.
const LABEL_BYTES_MAX: usize = 63;

/// The scheme of an outgoing request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `http`, port 80 unless another is named.
    Http,
    /// `https`, port 443 unless another is named.
    Https,
}

impl Scheme {
    /// The scheme of that name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Http, Self::Https].into_iter().find(|scheme| name.eq_ignore_ascii_case(scheme.as_str()))
    }

    /// The name, in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that stands for no port.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One entry of an allowlist: a scheme, a host and a port, all exact, but that a leading `*.` stands for exactly one label. As text it is a
/// URL that ends after its authority, for example `https://api.stripe.com`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    scheme: Scheme,
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Host {
    /// A name in lower case.
    Name(Box<str>),
    /// What follows the `*`, in lower case: `.example.com`.
    OneLabelUnder(Box<str>),
    Ip(IpAddr),
}

impl Pattern {
    /// The entry that allows exactly this target. `host` is written as in a URL, so an IPv6 address has brackets. `None` when no pattern can name
    /// it.
    pub fn exact(scheme: Scheme, host: &str, port: u16) -> Option<Self> {
        parse(&format!("{scheme}://{host}:{port}")).ok().filter(|pattern| !matches!(pattern.host, Host::OneLabelUnder(_)))
    }

    /// Whether the entry allows a request to this target. `host` is written as in a URL, in any case.
    pub fn allows(&self, scheme: Scheme, host: &str, port: u16) -> bool {
        self.scheme == scheme && self.port == port && self.host.is(host)
    }
}

impl Host {
    fn is(&self, host: &str) -> bool {
        match self {
            Self::Name(name) => name.eq_ignore_ascii_case(host),
            Self::OneLabelUnder(suffix) => {
                let host = host.as_bytes();
                host.len()
                    .checked_sub(suffix.len())
                    .and_then(|at| host.split_at_checked(at))
                    .is_some_and(|(label, rest)| is_label(label) && rest.eq_ignore_ascii_case(suffix.as_bytes()))
            }
            Self::Ip(ip) => parse_ip(host) == Some(*ip),
        }
    }
}

/// An address as it is written in a URL: four decimal numbers, or IPv6 in brackets.
fn parse_ip(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

/// Underscores are no part of host names but of names that resolve, and people do use them.
fn is_label(label: &[u8]) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&label.len())
        && label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        && !label.starts_with(b"-")
        && !label.ends_with(b"-")
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme)?;
        match &self.host {
            Host::Name(name) => f.write_str(name)?,
            Host::OneLabelUnder(suffix) => write!(f, "*{suffix}")?,
            Host::Ip(IpAddr::V4(ip)) => write!(f, "{ip}")?,
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]")?,
        }
        if self.port == self.scheme.default_port() { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// Why a text is no pattern, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` cannot stand in `outbound`: {problem}. {advice}")]
pub struct ParseError {
    text: String,
    problem: Problem,
    advice: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Problem {
    #[error("it has no scheme")]
    NoScheme,
    #[error("its scheme is neither `http` nor `https`")]
    Scheme,
    #[error("it goes on after host and port, and an entry allows every path of its host")]
    Path,
    #[error("it has a user name or a password, which belong into the request")]
    UserInfo,
    #[error("it has no host")]
    NoHost,
    #[error("its host is not a valid name; names in other alphabets are written in their `xn--` form")]
    Host,
    #[error("its host ends in a dot")]
    TrailingDot,
    #[error("an IPv6 address is written in brackets")]
    Ipv6,
    #[error("its last label is a number, and an IPv4 address is written as four decimal numbers")]
    Ipv4,
    #[error("`*` can only stand alone as the first label of a name, where it means any one label")]
    Wildcard,
    #[error("its port is not a number from 1 to 65535")]
    Port,
}

impl FromStr for Pattern {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        parse(text).map_err(|problem| {
            let advice = match nearest(text) {
                Some(pattern) => format!("Write `{pattern}`"),
                None => format!("Write an entry like `{}`", EXAMPLES.join("`, `")),
            };
            ParseError { text: text.to_owned(), problem, advice }
        })
    }
}

impl TryFrom<String> for Pattern {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}

fn parse(text: &str) -> Result<Pattern, Problem> {
    let (scheme, rest) = text.split_once("://").ok_or(Problem::NoScheme)?;
    let scheme = Scheme::from_name(scheme).ok_or(Problem::Scheme)?;
    let (authority, after) = split_authority(rest);
    if authority.contains('@') {
        return Err(Problem::UserInfo);
    }
    if !after.is_empty() {
        return Err(Problem::Path);
    }
    let (host, port) = split_port(authority)?;
    let port = match port {
        None => scheme.default_port(),
        // `u16` alone would take a leading plus.
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().ok().filter(|port| *port != 0).ok_or(Problem::Port)?,
        Some(_) => return Err(Problem::Port),
    };
    Ok(Pattern { scheme, host: parse_host(host)?, port })
}

/// What stands before the path, the query or the fragment, and what follows.
fn split_authority(rest: &str) -> (&str, &str) {
    rest.split_at(rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()))
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), Problem> {
    if authority.starts_with('[') {
        let end = authority.find(']').ok_or(Problem::Ipv6)? + 1;
        let (host, rest) = authority.split_at(end);
        return match rest.strip_prefix(':') {
            None if rest.is_empty() => Ok((host, None)),
            None => Err(Problem::Ipv6),
            port => Ok((host, port)),
        };
    }
    match authority.split_once(':') {
        None => Ok((authority, None)),
        Some((_, rest)) if rest.contains(':') => Err(Problem::Ipv6),
        Some((host, port)) => Ok((host, Some(port))),
    }
}

fn parse_host(host: &str) -> Result<Host, Problem> {
    if host.is_empty() {
        return Err(Problem::NoHost);
    }
    if let Some(ip) = parse_ip(host) {
        return Ok(Host::Ip(ip));
    }
    if host.starts_with('[') {
        return Err(Problem::Ipv6);
    }
    let (name, any_label) = match host.strip_prefix("*.") {
        Some(name) => (name, true),
        None => (host, false),
    };
    if name.contains('*') {
        return Err(Problem::Wildcard);
    }
    if name.ends_with('.') {
        return Err(Problem::TrailingDot);
    }
    if name.len() > NAME_BYTES_MAX || !name.split('.').all(|label| is_label(label.as_bytes())) {
        return Err(Problem::Host);
    }
    // Resolvers read `127.1`, `2130706433` and `0x7f000001` as IPv4 addresses. Such a name would not be what it looks like.
    let last = name.rsplit('.').next().unwrap_or(name);
    if last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X") {
        return Err(Problem::Ipv4);
    }
    let name = name.to_ascii_lowercase();
    Ok(if any_label { Host::OneLabelUnder(format!(".{name}").into()) } else { Host::Name(name.into()) })
}

/// The pattern that a text which is none was probably meant to be.
fn nearest(text: &str) -> Option<Pattern> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (Scheme::from_name(scheme)?, rest),
        None => (Scheme::Https, text),
    };
    let (authority, _) = split_authority(rest);
    let host = authority.rsplit('@').next().unwrap_or(authority).trim_end_matches('.');
    parse(&format!("{scheme}://{host}")).or_else(|_| parse(&format!("{scheme}://[{host}]"))).ok()
}

impl JsonSchema for Pattern {
    fn schema_name() -> Cow<'static, str> {
        "OutboundPattern".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A target of outgoing HTTP requests: scheme, host and, unless it is the scheme's own, port. A leading `*.` stands for exactly one label.",
            "pattern": r"^[hH][tT][tT][pP][sS]?://(\[[0-9a-fA-F:.]+\]|(\*\.)?[0-9A-Za-z_.-]+)(:[0-9]{1,5})?$",
            "examples": EXAMPLES,
        })
    }
}

/// What one service may reach. The empty list, which is the default, allows nothing. Clones share the entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowlist(Arc<[Pattern]>);

impl Allowlist {
    /// Whether a request to this target may leave. `host` is written as in a URL, in any case; `port` is the scheme's own where the URL
    /// names none. Allocates nothing.
    pub fn allows(&self, scheme: Scheme, host: &str, port: u16) -> bool {
        self.0.iter().any(|pattern| pattern.allows(scheme, host, port))
    }

    /// The entries, in the order of the project file.
    pub fn patterns(&self) -> &[Pattern] {
        &self.0
    }
}

impl Default for Allowlist {
    fn default() -> Self {
        Self(Arc::from([]))
    }
}

impl From<Vec<Pattern>> for Allowlist {
    fn from(patterns: Vec<Pattern>) -> Self {
        Self(patterns.into())
    }
}

impl FromIterator<Pattern> for Allowlist {
    fn from_iter<I: IntoIterator<Item = Pattern>>(patterns: I) -> Self {
        Self(patterns.into_iter().collect())
    }
}

#[cfg(test)]
mod tests;
