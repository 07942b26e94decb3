//! Custom domains: which host names a service may ask for, the DNS record that proves that its owner agrees, and whether that record is there.
//!
//! It keeps nothing. What was claimed and verified, one owner for each name and the daily second look are the API's.

mod hostname;
mod record;
mod resolver;

pub use hostname::{Refusal, check_hostname};
pub use record::{DnsRecord, record_for};
pub use resolver::{Nameservers, Resolver, ResolverError, VerifyError};
