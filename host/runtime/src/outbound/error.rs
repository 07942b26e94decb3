//! Why an outgoing request brought no response, in words for whoever wrote the worker. The words never hold an address that a name resolved
//! to: a worker's author may list any name, and would otherwise read the operator's internal DNS from the errors.

/// The setting with which operators open networks to workers; errors name it.
pub const ALLOW_ADDRESSES_SETTING: &str = "outbound_allow_addresses";

/// Why an outgoing request brought no response. `target` is scheme, host and port.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OutboundError {
    /// The method, the URL or a header field is not valid. Nothing was sent.
    #[error("the request is not valid: {0}")]
    InvalidRequest(String),
    /// The target is not in the service's `outbound` list. Nothing was resolved or sent.
    #[error("service `{service}` may not reach `{target}`. {advice}")]
    Denied {
        /// The target as an entry of the list.
        target: String,
        /// The name of the service.
        service: String,
        /// The line to write in the project file.
        advice: String,
    },
    /// The target's address is one that workers may not reach. No connection was made.
    #[error(
        "`{target}` is at an address that workers may not reach, because it is not on the public internet. The operator of the host can \
         open its network with `{ALLOW_ADDRESSES_SETTING}`; in the project file there is nothing to change"
    )]
    AddressRefused {
        /// The target.
        target: String,
    },
    /// The name has no address.
    #[error("the name of `{target}` does not resolve: {reason}")]
    Dns {
        /// The target.
        target: String,
        /// What the resolver said.
        reason: String,
    },
    /// No TCP connection came about.
    #[error("connecting to `{target}` failed: {reason}")]
    Connect {
        /// The target.
        target: String,
        /// What the system said.
        reason: String,
        /// Whether something at the address refused the connection.
        refused: bool,
    },
    /// The account has as many connections open as it may, and none became free in time.
    #[error(
        "connecting to `{target}` failed: all {connections_max} outgoing connections of the account are in use. Read responses to their end, or make fewer requests at a time"
    )]
    ConnectionLimit {
        /// The target.
        target: String,
        /// How many connections an account may have.
        connections_max: usize,
    },
    /// The TLS handshake failed.
    #[error("the TLS handshake with `{target}` failed: {reason}")]
    Tls {
        /// The target.
        target: String,
        /// What was wrong.
        reason: String,
        /// Whether it was the server's certificate.
        certificate: bool,
    },
    /// Name resolution, connection and TLS handshake took too long.
    #[error("connecting to `{target}` took longer than {timeout_ms} ms")]
    ConnectTimeout {
        /// The target.
        target: String,
        /// The limit.
        timeout_ms: u64,
    },
    /// The connection broke, or what came over it is no HTTP response, or the request's own body failed.
    #[error("the request to `{target}` failed: {reason}")]
    Protocol {
        /// The target.
        target: String,
        /// What went wrong.
        reason: String,
    },
}

/// The messages of an error and of what caused it, each once.
pub(super) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    text
}
