//! What URLs that the host gives out begin with.

/// The host's public names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Urls {
    /// `http` or `https`, of services.
    pub public_scheme: String,
    /// The domain under which services have names, without port.
    pub public_domain: String,
    /// The port of services, when it is not the scheme's own.
    pub public_port: Option<u16>,
    /// The control API, without a slash at its end.
    pub api: String,
}

impl Urls {
    /// The host name of a service.
    pub fn host(&self, slug: &str) -> String {
        format!("{slug}.{}", self.public_domain)
    }

    /// The URL of a service.
    pub fn service(&self, slug: &str) -> String {
        self.of_host(&self.host(slug))
    }

    /// The host name at which objects are served. No service can have it, because its slug is reserved.
    pub fn storage_host(&self) -> String {
        self.host("storage")
    }

    /// The URL of a host name that the public listener serves.
    pub fn of_host(&self, host: &str) -> String {
        format!("{}://{host}{}", self.public_scheme, self.port())
    }

    /// What follows `<slug>.` in authorities.
    pub fn public_authority(&self) -> String {
        format!("{}{}", self.public_domain, self.port())
    }

    /// The host name of the control API.
    pub fn api_host(&self) -> &str {
        let authority = self.api.split_once("://").map_or(self.api.as_str(), |(_, rest)| rest);
        let authority = authority.split('/').next().unwrap_or_default();
        match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => authority,
        }
    }

    fn port(&self) -> String {
        self.public_port.map_or_else(String::new, |port| format!(":{port}"))
    }
}
