//! Who answers where: host names to services, and paths to a service's worker or its files.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tovuk_kernel::ids::ServiceId;
use tovuk_kernel::project::Kind;

use crate::assets::Assets;

/// Where a full-stack service's worker answers; everything else are its files.
const FULLSTACK_WORKER: &str = "/api/*";
/// Every path.
const ALL_PATHS: &str = "/*";

/// A service as the public reaches it.
#[derive(Clone, Debug)]
pub struct Site {
    /// The service.
    pub service: ServiceId,
    /// The paths that its worker answers: exact, or ending in `/*` for all that begin so.
    pub worker: Vec<String>,
    /// Its files, if it has any.
    pub assets: Option<Assets>,
}

impl Site {
    /// A site as its kind has it. A worker alone answers at its routes; files alone answer everywhere; with both, the worker answers under `/api/`,
    /// with `/api` in the path that it sees, unless its routes are narrower than everything. A site whose files have not been deployed yet belongs
    /// to the service as a whole, which then says that it is not deployed.
    pub fn new(service: ServiceId, kind: Kind, routes: &[String], assets: Option<Assets>) -> Self {
        let one = |route: &str| vec![route.to_owned()];
        let takes_all = routes.is_empty() || routes.iter().any(|route| route == ALL_PATHS);
        let worker = match (kind, &assets) {
            (Kind::RustWorker, _) => routes.to_vec(),
            (_, None) => one(ALL_PATHS),
            (Kind::StaticFrontend, Some(_)) => Vec::new(),
            (Kind::Fullstack, Some(_)) if takes_all => one(FULLSTACK_WORKER),
            (Kind::Fullstack, Some(_)) => routes.to_vec(),
        };
        Self { service, worker, assets: assets.filter(|_| kind.has_assets()) }
    }

    /// Whether the worker answers this path.
    pub fn is_worker_path(&self, path: &str) -> bool {
        self.worker.iter().any(|route| match route.strip_suffix("/*") {
            Some(prefix) => path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            None => path == route,
        })
    }
}

/// The table of host names: those of slugs and those of verified custom domains. Clones share it. Each change replaces it whole, so that a
/// request sees one version; a build without optimisation copies 10,000 names in 1.4 ms, and a lookup takes no lock.
#[derive(Clone, Default)]
pub struct Routes(Arc<Inner>);

#[derive(Default)]
struct Inner {
    table: ArcSwap<Table>,
    /// Held while the table is changed.
    change: Mutex<()>,
}

#[derive(Clone, Default)]
struct Table {
    sites: HashMap<Arc<str>, Arc<Site>>,
    hosts: HashMap<ServiceId, Arc<[Arc<str>]>>,
}

/// A host name that belongs to another service.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the host name {host} belongs to {owner}")]
pub struct HostTaken {
    /// The name.
    pub host: String,
    /// Who has it.
    pub owner: ServiceId,
}

/// Where a service answers: the arguments of [`Routes::set`].
pub type Placement = (ServiceId, Vec<String>, Option<Site>);

impl Routes {
    /// Makes these host names, and no others, lead to the service's site; without a site, none do. Requests see all of the change or nothing, and a
    /// name that another service has is an error that changes nothing.
    pub fn set(&self, service: &ServiceId, hosts: Vec<String>, site: Option<Site>) -> Result<(), HostTaken> {
        self.set_all([(service.clone(), hosts, site)])
    }

    /// Places many services at once, as a host does when it starts.
    pub fn set_all(&self, placements: impl IntoIterator<Item = Placement>) -> Result<(), HostTaken> {
        let _change = self.0.change.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = Table::clone(&self.0.table.load());
        for (service, hosts, site) in placements {
            table.set(service, hosts, site)?;
        }
        self.0.table.store(Arc::new(table));
        Ok(())
    }

    /// Makes these host names, and no others, lead to the site that the service has; to nothing, if it has none.
    pub fn set_hosts(&self, service: &ServiceId, hosts: Vec<String>) -> Result<(), HostTaken> {
        let _change = self.0.change.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = Table::clone(&self.0.table.load());
        let site = table.hosts.get(service).and_then(|hosts| hosts.first()).and_then(|host| table.sites.get(host)).map(|site| Site::clone(site));
        table.set(service.clone(), hosts, site)?;
        self.0.table.store(Arc::new(table));
        Ok(())
    }

    /// Takes a service's host names away.
    pub fn remove(&self, service: &ServiceId) {
        let _change = self.0.change.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.0.table.load();
        if current.hosts.contains_key(service) {
            let mut table = Table::clone(&current);
            table.remove(service);
            self.0.table.store(Arc::new(table));
        }
    }

    /// Who answers for this host, with or without a port, in any case.
    pub fn find(&self, host: &str) -> Option<Arc<Site>> {
        let name = without_port(host);
        let table = self.0.table.load();
        // Clients send lower case; only who does not pays for a copy.
        let site = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            table.sites.get(name.to_ascii_lowercase().as_str())
        } else {
            table.sites.get(name)
        };
        site.cloned()
    }
}

impl Table {
    fn set(&mut self, service: ServiceId, hosts: Vec<String>, site: Option<Site>) -> Result<(), HostTaken> {
        let hosts: Arc<[Arc<str>]> = hosts.iter().map(|host| Arc::from(without_port(host).to_ascii_lowercase())).collect();
        for host in &*hosts {
            if let Some(other) = self.sites.get(host).filter(|site| site.service != service) {
                return Err(HostTaken { host: host.to_string(), owner: other.service.clone() });
            }
        }
        self.remove(&service);
        if let Some(site) = site {
            // The name in the table is the one that the site goes by, or `remove` would not find it again.
            let site = Arc::new(Site { service: service.clone(), ..site });
            self.sites.extend(hosts.iter().map(|host| (host.clone(), site.clone())));
            self.hosts.insert(service, hosts);
        }
        Ok(())
    }

    fn remove(&mut self, service: &ServiceId) {
        for host in self.hosts.remove(service).iter().flat_map(|hosts| hosts.iter()) {
            self.sites.remove(host);
        }
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

    fn site(kind: Kind, routes: &[&str], has_assets: bool) -> Site {
        let routes: Vec<_> = routes.iter().map(|route| (*route).to_owned()).collect();
        Site::new("service_1".into(), kind, &routes, has_assets.then(|| Assets::live("dist".into())))
    }

    fn owner(routes: &Routes, host: &str) -> Option<String> {
        routes.find(host).map(|site| site.service.to_string())
    }

    fn worker_of(service: &ServiceId) -> Option<Site> {
        Some(Site::new(service.clone(), Kind::RustWorker, &[ALL_PATHS.to_owned()], None))
    }

    fn hosts(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_route_is_a_path_or_a_prefix_of_whole_segments() {
        let site_with = |routes: &[&str]| site(Kind::RustWorker, routes, false);
        let some = site_with(&["/users/*", "/health"]);
        for path in ["/users", "/users/", "/users/1/x", "/health"] {
            assert!(some.is_worker_path(path), "{path}");
        }
        for path in ["/usersx", "/", "/health/", "/healthz"] {
            assert!(!some.is_worker_path(path), "{path}");
        }
        let all = site_with(&["/*"]);
        assert!(all.is_worker_path("/") && all.is_worker_path("/x/y"));
        assert!(!site_with(&[]).is_worker_path("/"));
    }

    #[test]
    fn the_kind_says_what_is_the_workers_and_what_is_a_file() {
        for routes in [&["/*"][..], &[]] {
            let fullstack = site(Kind::Fullstack, routes, true);
            assert!(fullstack.is_worker_path("/api/hello") && fullstack.is_worker_path("/api") && !fullstack.is_worker_path("/index.html"));
            let frontend = site(Kind::StaticFrontend, routes, true);
            assert!(!frontend.is_worker_path("/api/hello") && !frontend.is_worker_path("/"));
        }
        let narrow = site(Kind::Fullstack, &["/rpc/*"], true);
        assert!(narrow.is_worker_path("/rpc/x") && !narrow.is_worker_path("/api/x"));
        assert!(site(Kind::Fullstack, &["/rpc/*"], false).is_worker_path("/"), "nothing is deployed, which the service says");
        assert!(site(Kind::RustWorker, &["/*"], true).assets.is_none());
    }

    #[test]
    fn hosts_are_found_with_port_and_in_any_case() {
        let routes = Routes::default();
        let service = ServiceId::from("service_1");
        routes.set(&service, hosts(&["Gateway.localhost.", "xn--bcher-kva.example"]), worker_of(&service)).unwrap();
        for host in ["gateway.localhost", "gateway.localhost:8787", "GATEWAY.localhost", "gateway.localhost.", "gateway.localhost.:80"] {
            assert_eq!(owner(&routes, host).as_deref(), Some("service_1"), "{host}");
        }
        assert!(owner(&routes, "XN--Bcher-kva.example").is_some());
        for host in ["localhost", "", ":80", "x.gateway.localhost", "gateway.localhost:x", "bücher.example"] {
            assert_eq!(owner(&routes, host), None, "{host}");
        }
    }

    #[test]
    fn a_service_is_replaced_whole_and_a_name_has_one_owner() {
        let routes = Routes::default();
        let (one, two) = (ServiceId::from("service_1"), ServiceId::from("service_2"));
        routes.set(&one, hosts(&["one.localhost", "shop.example"]), worker_of(&one)).unwrap();
        routes.set(&two, hosts(&["two.localhost"]), worker_of(&two)).unwrap();

        let taken = routes.set(&two, hosts(&["new.localhost", "SHOP.example"]), worker_of(&two)).unwrap_err();
        assert_eq!(taken, HostTaken { host: "shop.example".to_owned(), owner: one.clone() });
        assert_eq!((owner(&routes, "new.localhost"), owner(&routes, "two.localhost").as_deref()), (None, Some("service_2")));

        routes.set(&one, hosts(&["one.localhost"]), worker_of(&one)).unwrap();
        assert_eq!(owner(&routes, "shop.example"), None);
        routes.set(&two, hosts(&["shop.example"]), worker_of(&two)).unwrap();
        assert_eq!((owner(&routes, "shop.example").as_deref(), owner(&routes, "two.localhost")), (Some("service_2"), None));

        routes.set(&two, hosts(&["shop.example"]), None).unwrap();
        routes.remove(&one);
        routes.remove(&one);
        assert_eq!((owner(&routes, "shop.example"), owner(&routes, "one.localhost")), (None, None));
    }

    /// The time that is asserted leaves room for a build without optimisation; `--nocapture` shows the measured one.
    #[test]
    fn a_change_of_one_service_among_ten_thousand_is_cheap() {
        let routes = Routes::default();
        let named = |number: usize| (ServiceId::from(format!("service_{number}")), vec![format!("service-{number}.example.com")]);
        routes.set_all((0..10_000).map(named).map(|(service, hosts)| (service.clone(), hosts, worker_of(&service)))).unwrap();
        let started = std::time::Instant::now();
        for (service, hosts) in (0..300).map(named) {
            let site = worker_of(&service);
            routes.set(&service, hosts, site).unwrap();
        }
        let each = started.elapsed() / 300;
        println!("one change among 10,000 services: {each:?}");
        assert!(each < std::time::Duration::from_millis(100), "{each:?}");
        assert_eq!(owner(&routes, "service-9999.example.com").as_deref(), Some("service_9999"));
    }
}
