//! One request: which service, may it be asked, what does it answer.

use std::sync::{Arc, Weak};

use futures::FutureExt;
use futures::future::BoxFuture;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};

use tovuk_kernel::clock::Clock;
use tovuk_kernel::codes;
use tovuk_kernel::ids::{self, ServiceId};
use tovuk_kernel::meters::Meter;
use tovuk_kernel::paths;
use tovuk_resources::meters::Bill;
use tovuk_runtime::body::Body;
use tovuk_runtime::failure::Failure;
use tovuk_runtime::invoke::{Budget, Event};
use tovuk_runtime::runtime::{OwnDoor, Runtime};
use tovuk_runtime::trace::TraceContext;

use crate::listen::{Answer, Peer};

use super::api::{Api, plain_authority};
use super::charged::charged;
use super::files;
use super::objects::Storage;
use super::respond;
use super::respond::Audience;
use super::routes::Routes;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The front door of one host. Clones are the same door.
#[derive(Clone)]
pub struct Edge(Arc<Inner>);

struct Inner {
    runtime: Runtime,
    routes: Routes,
    audience: Audience,
    /// The host's own authorities end in this, for example `localhost:8787`.
    public_authority: String,
    api: Option<Api>,
    storage: Option<Storage>,
}

impl Edge {
    /// A door to these services. `public_authority` is what follows `<slug>.` in their URLs, with the port if it is not the scheme's.
    pub fn new(runtime: Runtime, routes: Routes, audience: Audience, public_authority: String) -> Self {
        Self::of(Inner { runtime, routes, audience, public_authority: public_authority.to_ascii_lowercase(), api: None, storage: None })
    }

    /// The same, where workers and, on a development host, people reach the control API as well.
    pub fn with_api(runtime: Runtime, routes: Routes, audience: Audience, public_authority: String, api: Api) -> Self {
        let storage = Some(api.storage());
        Self::of(Inner { runtime, routes, audience, public_authority: public_authority.to_ascii_lowercase(), api: Some(api), storage })
    }

    fn of(inner: Inner) -> Self {
        let edge = Self(Arc::new(inner));
        let door: Weak<Inner> = Arc::downgrade(&edge.0);
        edge.0.runtime.set_own_door(door);
        edge
    }

    /// `peer` is nobody when the request comes from a worker of this host.
    async fn dispatch(&self, request: Request<Body>, budget: Budget, peer: Option<&Peer>) -> Result<Response<Body>, Failure> {
        let (mut parts, body) = request.into_parts();
        if parts.method == Method::CONNECT {
            return Err(Failure::refused(&codes::BAD_REQUEST, "this host is no proxy"));
        }
        let host = host_of(&parts.uri, &parts.headers)?;
        if peer.is_some_and(|peer| !peer.may_ask(host.to_str().unwrap_or_default())) {
            return Err(Failure::refused(&codes::MISDIRECTED_REQUEST, "the TLS handshake was made for another host"));
        }
        if let Some(peer) = peer
            && let Some(api) = self.0.api.as_ref().filter(|api| api.takes(&host, &parts.headers))
        {
            return Ok(api.respond(Request::from_parts(parts, body), Some(peer.address())).await);
        }
        if matches!(body, Body::Stream(_)) {
            unframe(&mut parts.headers)?;
        }
        if let Some(storage) = self.0.storage.as_ref().filter(|storage| storage.takes(&host)) {
            return Ok(storage.respond(Request::from_parts(parts, body), self.0.audience).await);
        }
        let unknown = || Failure::refused(&codes::SERVICE_NOT_FOUND, format!("no service answers at {}", host.to_str().unwrap_or("this host")));
        let site = host.to_str().ok().and_then(|host| self.0.routes.find(host)).ok_or_else(unknown)?;
        let path = parts.uri.path();
        if paths::is_reserved(path) {
            return Err(Failure::refused(&codes::RESERVED_PATH, "paths under /.tovuk are the host's"));
        }
        if !site.is_worker_path(path) {
            return match &site.assets {
                Some(assets) => {
                    let response = files::serve(assets, Request::from_parts(parts, body)).await?;
                    charged(response, self.bill(&site.service), Meter::StaticTransferBytes).await
                }
                None => Err(Failure::refused(&codes::ROUTE_NOT_FOUND, format!("{path} is no route of the service"))),
            };
        }
        let service = self.0.runtime.services().get(&site.service).ok_or_else(unknown)?;
        // Workers see one form of request: path and query, with the host beside it.
        if parts.uri.authority().is_some() {
            let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
            parts.uri = Uri::from(path);
            parts.headers.insert(header::HOST, host.clone());
        }
        let started = self.0.runtime.invoke(&service, Event::Http(Request::from_parts(parts, body)), budget).await?;
        Ok(started.response)
    }
}

impl Edge {
    /// Who is charged for the files of a service.
    fn bill(&self, service: &ServiceId) -> Bill {
        let owner = self.0.runtime.services().get(service).and_then(|service| {
            let identity = &service.identity;
            ids::number(identity.account.as_str(), "account").zip(ids::number(identity.id.as_str(), "service"))
        });
        self.0.storage.as_ref().zip(owner).map(|(storage, (account, service))| storage.bill(account, service)).unwrap_or_default()
    }
}

impl Answer for Edge {
    async fn answer(&self, mut request: Request<Body>, peer: &Peer) -> Response<Body> {
        let context = TraceContext::of(request.headers());
        let headers = request.headers_mut();
        headers.insert(X_FORWARDED_FOR, peer.address_value().clone());
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(peer.scheme().as_str()));
        match self.dispatch(request, Budget::top_level(context), Some(peer)).await {
            Ok(response) => response,
            Err(failure) => respond::failure(&failure, context.trace, self.0.audience),
        }
    }

    fn clock(&self) -> &Clock {
        self.0.runtime.clock()
    }
}

/// The one host that a request is for.
pub(super) fn host_of(uri: &Uri, headers: &HeaderMap) -> Result<HeaderValue, Failure> {
    let bad = |text: &str| Failure::refused(&codes::BAD_REQUEST, text.to_owned());
    let mut hosts = headers.get_all(header::HOST).iter();
    let header = hosts.next();
    if hosts.next().is_some() {
        return Err(bad("the request has more than one Host header"));
    }
    match (uri.authority(), header) {
        (Some(authority), Some(header)) if !header.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) => {
            Err(bad("the request's URL and its Host header name different hosts"))
        }
        (None, Some(header)) => Ok(header.clone()),
        (Some(authority), _) => HeaderValue::from_str(authority.as_str()).map_err(|_| bad("the request's host is not valid")),
        (None, None) => Err(bad("the request names no host")),
    }
}

/// Takes away how the body was framed on its way here, of which nothing is left. Another coding under the chunks would reach the worker as if it were
/// the body.
fn unframe(headers: &mut HeaderMap) -> Result<(), Failure> {
    let http::header::Entry::Occupied(codings) = headers.entry(header::TRANSFER_ENCODING) else { return Ok(()) };
    let (_, mut codings) = codings.remove_entry_mult();
    let is_chunked = codings.next().is_some_and(|coding| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"));
    if is_chunked && codings.next().is_none() {
        return Ok(());
    }
    Err(Failure::refused(&codes::BAD_REQUEST, "the only transfer encoding that this host reads is `chunked`"))
}

impl OwnDoor for Inner {
    fn owns(&self, authority: &Authority, scheme: Option<&str>) -> bool {
        let authority = plain_authority(authority, scheme);
        let is_slug = authority.strip_suffix(&self.public_authority).is_some_and(|rest| rest.ends_with('.'));
        let is_api = self.api.as_ref().is_some_and(|api| api.owns(&authority));
        // A custom domain leads here too; a chain that went out and came back would begin to count anew.
        let port = |authority: &str| authority.rsplit_once(':').map(|(_, port)| port.to_owned());
        is_slug || is_api || (port(&authority) == port(&self.public_authority) && self.routes.find(&authority).is_some())
    }

    fn enter(self: Arc<Self>, mut request: Request<Body>, budget: Budget) -> BoxFuture<'static, Response<Body>> {
        let context = TraceContext::of(request.headers());
        // A worker of this host, which must not pass for anybody else.
        request.headers_mut().insert(X_FORWARDED_FOR, HeaderValue::from_static("127.0.0.1"));
        request.headers_mut().insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
        async move {
            let audience = self.audience;
            let authority = request.uri().authority().map(|authority| plain_authority(authority, request.uri().scheme_str()));
            if let Some(api) = self.api.as_ref().filter(|api| authority.is_some_and(|authority| api.owns(&authority))) {
                return api.respond(request, None).await;
            }
            Edge(self).dispatch(request, budget, None).await.unwrap_or_else(|failure| respond::failure(&failure, context.trace, audience))
        }
        .boxed()
    }
}
