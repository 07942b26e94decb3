//! The DNS record that proves that the owner of a name wants it to lead to a service.

use ring::hmac;
use serde::Serialize;
use tovuk_kernel::ids::ServiceId;

use super::hostname::host_alone;

/// How to make the record at a DNS provider.
const DNS_SETUP_URL: &str = "https://docs.tovuk.com/reference/domains";
/// How much of the code the token has: enough that nobody finds another service's.
const TOKEN_BYTES: usize = 20;
/// Keeps the code apart from others that are made with the same secret.
const PURPOSE: &str = "custom-domain";

/// What the API says about the record of a custom domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct DnsRecord {
    /// Always `CNAME`.
    pub dns_record_type: &'static str,
    /// The custom domain.
    pub dns_record_name: String,
    /// What the record has to say.
    pub dns_record_value: String,
    /// Where to read how.
    pub dns_setup_url: &'static str,
    /// The exact next steps.
    pub agent_instruction: String,
}

/// The record for one service and one name, as [`super::check_hostname`] returned it. Its value is different for every service and name, so that a
/// record that was made for one of them proves nothing for another. `secret` has to stay the same for as long as names are verified with it.
pub fn record_for(service: &ServiceId, hostname: &str, secret: &[u8], public_domain: &str) -> DnsRecord {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let code = hmac::sign(&key, format!("{PURPOSE}\n{service}\n{hostname}").as_bytes());
    let token = hex::encode(code.as_ref().get(..TOKEN_BYTES).unwrap_or(code.as_ref()));
    let value = format!("{token}.cname.{}", host_alone(public_domain));
    let agent_instruction = format!(
        "At the DNS provider of {hostname}, create a DNS-only (not proxied) CNAME record with the name {hostname} and the value {value}. Remove every other record \
         of that name, and never point an A record at this host. Then run `tovuk domains verify --service {service} {hostname} --json`."
    );
    DnsRecord {
        dns_record_type: "CNAME",
        dns_record_name: hostname.to_owned(),
        dns_record_value: value,
        dns_setup_url: DNS_SETUP_URL,
        agent_instruction,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(service: &str, hostname: &str, secret: &[u8]) -> String {
        record_for(&service.into(), hostname, secret, "Tovuk.example:8787").dns_record_value
    }

    #[test]
    fn the_value_belongs_to_one_service_and_one_name() {
        let first = value("service_1", "api.example.com", b"secret");
        assert_eq!(first, value("service_1", "api.example.com", b"secret"));
        let token = first.strip_suffix(".cname.tovuk.example").unwrap();
        assert!(token.len() == 40 && token.bytes().all(|byte| byte.is_ascii_hexdigit()), "{token}");
        for (service, hostname, secret) in [
            ("service_2", "api.example.com", &b"secret"[..]),
            ("service_1", "www.example.com", b"secret"),
            ("service_1", "api.example.com", b"other"),
            ("service_11", "api.example.com", b"secret"),
        ] {
            assert_ne!(first, value(service, hostname, secret));
        }
    }

    #[test]
    fn the_fields_are_those_of_the_api() {
        let record = serde_json::to_value(record_for(&"service_1".into(), "api.example.com", b"secret", "tovuk.example")).unwrap();
        assert_eq!(record["dns_record_type"], "CNAME");
        assert_eq!(record["dns_record_name"], "api.example.com");
        assert!(record["dns_setup_url"].as_str().unwrap().starts_with("https://"));
        let instruction = record["agent_instruction"].as_str().unwrap();
        assert!(instruction.contains(record["dns_record_value"].as_str().unwrap()), "{instruction}");
        assert!(instruction.contains("tovuk domains verify --service service_1 api.example.com --json"), "{instruction}");
    }
}
