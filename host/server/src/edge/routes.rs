//! Who answers where: host names to services, and paths to a service's worker or its files.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tovuk_kernel::ids::ServiceId;

/// Where a full-stack service's worker answers; everything else are its files.
const FULLSTACK_WORKER: &str = "/api/*";

/// A service as the public reaches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The service.
    pub service: ServiceId,
    /// The paths that its worker answers: exact, or ending in `/*` for all that begin so.
    pub worker: Vec<String>,
    /// The folder with its files, if it has any.
    pub assets: Option<PathBuf>,
}

impl Site {
    /// A site with a worker at `routes` and files in `assets`. With both, the worker answers under `/api/` alone unless its routes say
    /// otherwise.
    pub fn new(service: ServiceId, routes: &[String], assets: Option<PathBuf>) -> Self {
        let takes_all = |route: &String| route == "/*";
        let worker =
            if assets.is_some() && (routes.is_empty() || routes.iter().any(takes_all)) { vec![FULLSTACK_WORKER.to_owned()] } else { routes.to_vec() };
        Self { service, worker, assets }
    }

    /// Whether the worker answers this path.
    pub fn is_worker_path(&self, path: &str) -> bool {
        self.worker.iter().any(|route| match route.strip_suffix("/*") {
            Some(prefix) => path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            None => path == route,
        })
    }
}

/// The table of host names. Clones share it; it is replaced whole.
#[derive(Clone, Default)]
pub struct Routes(Arc<ArcSwap<HashMap<String, Arc<Site>>>>);

impl Routes {
    /// Replaces the table. Names are host names without port, in lower case.
    pub fn replace(&self, sites: HashMap<String, Arc<Site>>) {
        self.0.store(Arc::new(sites));
    }

    /// Who answers for this host, with or without a port, in any case.
    pub fn find(&self, host: &str) -> Option<Arc<Site>> {
        let name = without_port(host);
        let sites = self.0.load();
        // Clients send lower case; only who does not pays for a copy.
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) { sites.get(&name.to_ascii_lowercase()).cloned() } else { sites.get(name).cloned() }
    }
}

fn without_port(host: &str) -> &str {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(routes: &[&str], assets: Option<&str>) -> Site {
        Site::new("service_1".into(), &routes.iter().map(|route| (*route).to_owned()).collect::<Vec<_>>(), assets.map(PathBuf::from))
    }

    #[test]
    fn a_route_is_a_path_or_a_prefix_of_whole_segments() {
        let site = site(&["/users/*", "/health"], None);
        for path in ["/users", "/users/", "/users/1/x", "/health"] {
            assert!(site.is_worker_path(path), "{path}");
        }
        for path in ["/usersx", "/", "/health/", "/healthz"] {
            assert!(!site.is_worker_path(path), "{path}");
        }
        let all = Site::new("service_1".into(), &["/*".to_owned()], None);
        assert!(all.is_worker_path("/") && all.is_worker_path("/x/y"));
    }

    #[test]
    fn files_leave_the_worker_what_lies_under_api() {
        let site = site(&["/*"], Some("dist"));
        assert!(site.is_worker_path("/api/hello") && !site.is_worker_path("/index.html"));
    }

    #[test]
    fn hosts_are_found_with_port_and_in_any_case() {
        let routes = Routes::default();
        let site = Arc::new(site(&["/*"], None));
        routes.replace(HashMap::from([("gateway.localhost".to_owned(), site.clone())]));
        for host in ["gateway.localhost", "gateway.localhost:8787", "GATEWAY.localhost", "gateway.localhost.", "gateway.localhost.:80"] {
            assert_eq!(routes.find(host), Some(site.clone()), "{host}");
        }
        for host in ["localhost", "", ":80", "x.gateway.localhost", "gateway.localhost:x"] {
            assert_eq!(routes.find(host), None, "{host}");
        }
    }
}
