//! Identifiers of services and accounts. They are opaque text to everything but the store that gives them out.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(Arc::from(text))
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(Arc::from(text))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// A service, host-wide, for example `service_1`.
    ServiceId
);
text_id!(
    /// An account, host-wide, for example `account_1`.
    AccountId
);
text_id!(
    /// One attempt to put a version of a service live, for example `deploy_1`.
    DeployId
);

text_id!(
    /// The checks and compilation of a deploy, for example `job_1`.
    BuildId
);

/// The number in an id of this kind: `service_7` with the prefix `service` is 7. Nothing for any other text, also for spellings of the same number that
/// the host never gives out.
pub fn number(id: &str, prefix: &str) -> Option<i64> {
    let digits = id.strip_prefix(prefix)?.strip_prefix('_')?;
    let canonical = !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| canonical)
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn one_spelling_of_an_id_is_an_id() {
        assert_eq!(number("service_7", "service"), Some(7));
        for text in ["service_07", "service_", "service_+7", "service_-7", "service_7 ", "deploy_7", "service", "service_99999999999999999999"] {
            assert_eq!(number(text, "service"), None, "{text}");
        }
    }
}
