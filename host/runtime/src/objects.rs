//! Calls of State objects' handlers: an invocation that has an object for itself. It waits for the object before it takes anything else; when its guest
//! has answered, what it did to the object is committed and the next one has it; the answer leaves when the commit is on disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode, Uri};
use tovuk_kernel::codes;
use tovuk_kernel::paths::segment;
use tovuk_resources::state::{self, Namespace, Session, Target};

use crate::body::Body;
use crate::component::OBJECT_HANDLER;
use crate::failure::Failure;
use crate::imports::convert;
use crate::imports::state::{OwnObject, state_told};
use crate::instance::{Data, Instance};
use crate::invocation::Invocation;
use crate::invoke::{Admitted, Budget, Started};
use crate::lean_bindings::tovuk::http::types::RequestParam;
use crate::metered::Metered;
use crate::object_bindings::alarms::ObjectAlarmPre;
use crate::object_bindings::alarms::exports::tovuk::state::alarm_handler::Alarm;
use crate::object_bindings::calls::ObjectPre;
use crate::object_bindings::calls::exports::tovuk::state::handler::Failure as Undone;
use crate::record::{EventKind, Outcome};
use crate::runtime::Runtime;
use crate::service::{Deployment, Service};
use crate::worker::Worker;
use crate::{run, trap};

/// A State object.
#[derive(Clone, Debug)]
pub struct ObjectName {
    /// Its namespace.
    pub namespace: Namespace,
    /// What the service calls its class.
    pub class: Arc<str>,
    /// Its key.
    pub object: Arc<str>,
}

/// An alarm that rings.
#[derive(Clone, Copy, Debug)]
pub struct Ringing {
    /// When it was scheduled for, in ms since the UNIX epoch.
    pub scheduled_ms: u64,
    /// Deliveries of it that have failed.
    pub retry_count: u32,
}

/// What of a worker is called with an object.
pub(crate) enum ObjectHandler {
    Call(ObjectPre<Data>),
    Alarm(ObjectAlarmPre<Data>, Ringing),
}

impl ObjectHandler {
    /// The handler of calls.
    pub fn of_calls(worker: &Worker, service: &Service) -> Result<Self, Failure> {
        let missing = || {
            let name = &service.identity.name;
            let text = format!(
                "the live version of {name} exports no `{OBJECT_HANDLER}`: write a function with #[tovuk::state] in its worker and deploy it"
            );
            Failure::refused(&codes::STATE_HANDLER_MISSING, text)
        };
        worker.objects.clone().map(Self::Call).ok_or_else(missing)
    }

    /// The handler of alarms, if there is one.
    pub fn of_alarms(worker: &Worker, ringing: Ringing) -> Option<Self> {
        worker.alarms.clone().map(|pre| Self::Alarm(pre, ringing))
    }

    fn event(&self) -> EventKind {
        match self {
            Self::Call(_) => EventKind::State,
            Self::Alarm(..) => EventKind::Alarm,
        }
    }
}

/// How a guest has ended that had an object.
enum Answered {
    /// What it did to the object stands.
    Stands(Response<Body>),
    /// Nothing of it does.
    Undone(Response<Body>),
}

/// What a guest with an object leaves behind.
type Left = (Result<Answered, Failure>, Option<OwnObject>);

/// A refusal or a failure of the store.
fn failed(error: &state::Error, outcome: Outcome) -> Failure {
    if let state::Error::Usage(exceeded) = error {
        return Failure::over_cap(exceeded);
    }
    let (code, text) = state_told(error);
    Failure::new(code, outcome, text)
}

/// What records and the list of a chain's hops call a call: which object, and the path within it.
fn shown(name: &ObjectName, uri: &Uri) -> Option<Uri> {
    format!("/.tovuk/state/{}/{}{}", name.class, segment(&name.object), uri.path()).parse().ok()
}

impl Runtime {
    /// Runs a handler with an object.
    pub(crate) async fn object(
        &self,
        (service, deployment): (&Arc<Service>, &Arc<Deployment>),
        (handler, name): (ObjectHandler, ObjectName),
        budget: Budget,
        (mut parts, body): (Parts, Body),
    ) -> Result<Started, Failure> {
        let body = match &handler {
            ObjectHandler::Call(_) => self.whole_body(deployment, body).await?,
            ObjectHandler::Alarm(..) => Bytes::new(),
        };
        let stores = self.stores().ok_or_else(|| Failure::refused(&codes::STORAGE_FAILED, "this host keeps no data"))?;
        let owner = &deployment.grants.owner;
        let (namespace, object) = (name.namespace, name.object.clone());
        let target = Target { namespace, object, account: owner.account, plan: owner.plan, holds: budget.holds() };
        let state = stores.state.billed_to(deployment.bill.clone());
        let mut session = state.hold(&target).await.map_err(|error| failed(&error, Outcome::Refused))?;
        session.count_in(Box::new(self.memory().reserve()));
        let uri = parts.uri.clone();
        // The path of an alarm says it already.
        if let ObjectHandler::Call(_) = &handler
            && let Some(shown) = shown(&name, &uri)
        {
            parts.uri = shown;
        }
        let admitted = self.admit(service, deployment, handler.event(), budget, &mut parts, session.holds().clone()).await?;
        parts.uri = uri;
        admitted.invocation.bytes_in.store(body.len() as u64, Ordering::Relaxed);
        let own = OwnObject { target, session };
        match handler {
            ObjectHandler::Call(pre) => call(pre, admitted, name, own, (parts, body)).await,
            ObjectHandler::Alarm(pre, ringing) => ring(pre, admitted, name, own, ringing).await,
        }
    }
}

/// Calls the handler of calls.
async fn call(pre: ObjectPre<Data>, admitted: Admitted, name: ObjectName, own: OwnObject, request: (Parts, Bytes)) -> Result<Started, Failure> {
    let Admitted { invocation, permit, place, purse } = admitted;
    let guest = {
        let invocation = invocation.clone();
        async move {
            let (parts, body) = request;
            let mut instance = Instance::new(invocation.clone(), permit)?;
            instance.store.data_mut().own_object = Some(own);
            let headers = convert::field_lines(&parts.headers);
            let uri = parts.uri.path_and_query().map_or("/", |path| path.as_str());
            let request = RequestParam { method: parts.method.as_str(), uri, headers: &headers, body: &body };
            let worker = pre.instantiate_async(&mut instance.store).await?;
            let result = worker.tovuk_state_handler().call_handle(&mut instance.store, &name.class, &name.object, request).await?;
            instance.returned();
            let answered = match result {
                Ok(response) => convert::response(response, &invocation).map(Answered::Stands),
                Err(Undone::Answer(response)) => convert::response(response, &invocation).map(Answered::Undone),
                Err(Undone::Error(error)) => Err(convert::call_error(error).unhandled()),
            };
            wasmtime::Result::Ok((answered, instance.store.data_mut().own_object.take()))
        }
    };
    let result = Metered::new(invocation.clone(), purse, guest).await;
    drop(place);
    ended(&invocation, result).await
}

/// Calls the handler of alarms.
async fn ring(pre: ObjectAlarmPre<Data>, admitted: Admitted, name: ObjectName, own: OwnObject, ringing: Ringing) -> Result<Started, Failure> {
    let Admitted { invocation, permit, place, purse } = admitted;
    let guest = {
        let invocation = invocation.clone();
        async move {
            let mut instance = Instance::new(invocation, permit)?;
            instance.store.data_mut().own_object = Some(own);
            let worker = pre.instantiate_async(&mut instance.store).await?;
            let alarm = Alarm { scheduled_ms: ringing.scheduled_ms, retry_count: ringing.retry_count };
            let result = worker.tovuk_state_alarm_handler().call_ring(&mut instance.store, &name.class, &name.object, alarm).await?;
            instance.returned();
            let answered = match result {
                Ok(()) => {
                    let mut response = Response::new(Body::Empty);
                    *response.status_mut() = StatusCode::NO_CONTENT;
                    Ok(Answered::Stands(response))
                }
                Err(text) => {
                    Err(Failure::new(&codes::WORKER_FAILED, Outcome::Failed, format!("the handler of alarms has returned an error: {text}")))
                }
            };
            wasmtime::Result::Ok((answered, instance.store.data_mut().own_object.take()))
        }
    };
    let result = Metered::new(invocation.clone(), purse, guest).await;
    drop(place);
    ended(&invocation, result).await
}

/// Commits what is to stand, and answers when it is on disk, or what it is based on.
async fn ended(invocation: &Arc<Invocation>, result: Result<wasmtime::Result<Left>, crate::metered::Stop>) -> Result<Started, Failure> {
    let answer = match result {
        Ok(Ok((Ok(Answered::Stands(response)), own))) => committed(own).await.map(|()| response),
        Ok(Ok((Ok(Answered::Undone(response)), own))) => abandoned(own).await.map(|()| response),
        Ok(Ok((Err(failure), own))) => Err(abandoned(own).await.err().unwrap_or(failure)),
        Ok(Err(error)) => Err(trap::classify(invocation, &error)),
        Err(stop) => Err(run::stopped(invocation, stop)),
    };
    run::answered(invocation, answer).await
}

fn session(own: Option<OwnObject>) -> Result<Session, Failure> {
    own.map(|own| own.session).ok_or_else(|| Failure::internal("a call of a State object has lost it"))
}

async fn committed(own: Option<OwnObject>) -> Result<(), Failure> {
    let failed = |error| failed(&error, Outcome::Failed);
    let mut session = session(own)?;
    session.charge(true).await.map_err(failed)?;
    session.commit().map_err(failed)?.durable().await.map(drop).map_err(failed)
}

/// Undoes what was done and waits until that is on disk which it was based on: an answer may tell of it. The next one has the object meanwhile.
async fn abandoned(own: Option<OwnObject>) -> Result<(), Failure> {
    let failed = |error| failed(&error, Outcome::Failed);
    let mut session = session(own)?;
    session.charge(false).await.map_err(failed)?;
    session.abandon().map_err(failed)?.durable().await.map(drop).map_err(failed)
}
