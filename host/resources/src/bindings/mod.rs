//! Service bindings: which services a worker may call, under which names, and what its environment says about them.
//!
//! A binding is resolved here; the call itself is an invocation and happens in the runtime.

use std::collections::HashMap;

use tovuk_kernel::ids::ServiceId;
use tovuk_kernel::names::env_suffix;

/// The domain under which bound services have URLs. It exists inside this host only.
pub const INTERNAL_DOMAIN: &str = "tovuk.internal";

/// One binding of a service, resolved to its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// What the worker calls it by, for example `AUTH_SERVICE`. Absent when only a URL variable is declared.
    pub name: Option<String>,
    /// The service it leads to.
    pub target: ServiceId,
    /// The target's name, which is the first label of its internal URL.
    pub target_name: String,
    /// The environment variable that receives the internal URL, when one is declared.
    pub url_env: Option<String>,
}

impl Binding {
    /// The URL under which the target is called, for example `https://auth.tovuk.internal`. It needs no certificate: the call never leaves
    /// the process.
    pub fn url(&self) -> String {
        format!("https://{}.{INTERNAL_DOMAIN}", self.target_name)
    }
}

/// The bindings of one deploy.
#[derive(Clone, Debug, Default)]
pub struct Bindings {
    by_name: HashMap<String, ServiceId>,
    by_target_name: HashMap<String, ServiceId>,
    env: Vec<(String, String)>,
}

/// Why a call has no target. The text is for the worker's author.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The service declares no binding of that name.
    #[error(
        "there is no binding `{name}`{known}: add [[services.<this service>.bindings]] with type = \"service\", service = \"<target>\", name = \"{name}\" to tovuk.toml, and redeploy"
    )]
    UnknownName {
        /// The name that was asked for.
        name: String,
        /// The names that exist, as the end of a clause.
        known: String,
    },
    /// The URL's host is under the internal domain and is the target of no binding.
    #[error(
        "`{host}` is the target of no binding: add [[services.<this service>.bindings]] with type = \"service\", service = \"{target}\", format = \"url\", env = \"<NAME>_URL\" to tovuk.toml, and redeploy"
    )]
    UnknownHost {
        /// The host in the URL.
        host: String,
        /// The service that its first label names.
        target: String,
    },
}

impl Bindings {
    /// The table of these bindings.
    pub fn new(bindings: &[Binding]) -> Self {
        let mut table = Self::default();
        for binding in bindings {
            if let Some(name) = &binding.name {
                table.by_name.insert(name.clone(), binding.target.clone());
                table.env.push((format!("TOVUK_BINDING_{}", env_suffix(name)), binding.target.to_string()));
            }
            if let Some(env) = &binding.url_env {
                table.env.push((env.clone(), binding.url()));
            }
            table.by_target_name.insert(binding.target_name.clone(), binding.target.clone());
        }
        table
    }

    /// What the worker's environment says: `TOVUK_BINDING_<NAME>` is the target's id, and each declared URL variable the internal URL.
    pub fn env(&self) -> &[(String, String)] {
        &self.env
    }

    /// The target of the binding with this name.
    pub fn by_name(&self, name: &str) -> Result<&ServiceId, Error> {
        self.by_name.get(name).ok_or_else(|| {
            let mut names: Vec<_> = self.by_name.keys().map(String::as_str).collect();
            names.sort_unstable();
            let known = if names.is_empty() { " (this service has none)".to_owned() } else { format!(" (this service has {})", names.join(", ")) };
            Error::UnknownName { name: name.to_owned(), known }
        })
    }

    /// The target of a URL. `None` when its host is not under the internal domain, so that the call goes elsewhere.
    ///
    /// Only the exact name of a bound target matches, with no port or the scheme's own: a name that merely ends alike, or that belongs
    /// to a service which is not bound, is an error here and never looked up anywhere else.
    pub fn by_authority(&self, host: &str, port: Option<u16>) -> Option<Result<&ServiceId, Error>> {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        if host != INTERNAL_DOMAIN && !host.ends_with(".tovuk.internal") {
            return None;
        }
        let target = host.strip_suffix(INTERNAL_DOMAIN).and_then(|rest| rest.strip_suffix('.')).unwrap_or_default().to_owned();
        let found = match port {
            None | Some(80 | 443) => self.by_target_name.get(&target),
            Some(_) => None,
        };
        Some(found.ok_or(Error::UnknownHost { host, target }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Bindings {
        Bindings::new(&[
            Binding { name: Some("AUTH_SERVICE".into()), target: "service_2".into(), target_name: "auth".into(), url_env: None },
            Binding { name: None, target: "service_3".into(), target_name: "billing".into(), url_env: Some("BILLING_URL".into()) },
        ])
    }

    #[test]
    fn the_environment_names_ids_and_urls() {
        assert_eq!(
            table().env(),
            [
                ("TOVUK_BINDING_AUTH_SERVICE".to_owned(), "service_2".to_owned()),
                ("BILLING_URL".to_owned(), "https://billing.tovuk.internal".to_owned()),
            ]
        );
    }

    #[test]
    fn names_resolve_exactly() {
        let table = table();
        assert_eq!(table.by_name("AUTH_SERVICE").map(ServiceId::as_str), Ok("service_2"));
        let error = table.by_name("auth_service").map_err(|error| error.to_string());
        assert!(error.is_err_and(|text| text.contains("this service has AUTH_SERVICE")));
    }

    #[test]
    fn only_the_exact_authority_of_a_bound_target_resolves() {
        let table = table();
        let target = |host, port| table.by_authority(host, port).map(|found| found.map(ServiceId::as_str).map_err(|_| ()));
        assert_eq!(target("auth.tovuk.internal", None), Some(Ok("service_2")));
        assert_eq!(target("AUTH.tovuk.internal", Some(443)), Some(Ok("service_2")));
        assert_eq!(target("billing.tovuk.internal", Some(80)), Some(Ok("service_3")));
        for host in ["other.tovuk.internal", "x.auth.tovuk.internal", "tovuk.internal", ".tovuk.internal", "auth..tovuk.internal"] {
            assert_eq!(target(host, None), Some(Err(())), "{host}");
        }
        assert_eq!(target("auth.tovuk.internal", Some(8080)), Some(Err(())));
        for host in ["auth.tovuk.internal.example.com", "authtovuk.internal", "example.com"] {
            assert_eq!(target(host, None), None, "{host}");
        }
    }
}
