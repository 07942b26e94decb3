//! Who asks: the account, and how far the token that was shown reaches.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tovuk_kernel::codes;
use tovuk_kernel::ids::{AccountId, ServiceId};
use tovuk_kernel::operation::{Access, Method, Operation};
use tovuk_resources::state::Holds;

use super::refusal::Refusal;

/// How far a token reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Everything of its account, and the operator's operations.
    Operator,
    /// Everything of its account.
    Account,
    /// Reading what its account has.
    Read,
}

impl Scope {
    /// The name in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Account => "account",
            Self::Read => "read",
        }
    }

    /// The scope of this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Operator, Self::Account, Self::Read].into_iter().find(|scope| scope.as_str() == name)
    }
}

/// What the token of a request stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// None was shown, on a route that needs none, by a client at this address; none for a worker's call.
    Anonymous(Option<IpAddr>),
    /// A token that somebody made.
    Token {
        /// Its number.
        id: i64,
        /// How far it reaches.
        scope: Scope,
    },
    /// The token of a running worker, for this service.
    Worker(ServiceId),
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The account, empty for the anonymous.
    pub account: AccountId,
    /// What was shown.
    pub credential: Credential,
    /// Names this request in the log.
    pub request_id: String,
    /// The calls of State objects that a worker's request is part of.
    pub holds: Holds,
}

impl Caller {
    /// The number of the account; 0, which is none's, for the anonymous.
    pub fn account_number(&self) -> i64 {
        tovuk_kernel::ids::number(self.account.as_str(), "account").unwrap_or(0)
    }

    /// Whether the operator asks.
    pub fn is_operator(&self) -> bool {
        matches!(self.credential, Credential::Token { scope: Scope::Operator, .. })
    }

    /// Whether this operation is open to the caller. Whether what it names is theirs is the operation's to look up.
    pub(super) fn may(&self, operation: &Operation) -> Result<(), Refusal> {
        let refused = |text: &str| Err(Refusal::new(&codes::TOKEN_SCOPE, format!("{}: {text}", operation.name)));
        match (&self.credential, operation.access) {
            (_, Access::Public) => Ok(()),
            (Credential::Anonymous(_), _) => Err(Refusal::new(&codes::UNAUTHORIZED, "no token was sent")),
            (Credential::Worker(_), Access::Runtime) => Ok(()),
            (Credential::Worker(_), _) => refused("the token of a running worker reaches the data of its own service only"),
            (Credential::Token { scope: Scope::Operator, .. }, _) => Ok(()),
            (_, Access::Operator) => refused("this is the operator's"),
            (Credential::Token { scope: Scope::Account, .. }, _) => Ok(()),
            (Credential::Token { scope: Scope::Read, .. }, _) if operation.method == Method::Get => Ok(()),
            (Credential::Token { scope: Scope::Read, .. }, _) => refused("a token of the scope `read` changes nothing"),
        }
    }
}
