//! A loaded component, linked as far as can be done once for all its instances.

use wasmtime::component::{Component, InstancePre, Linker};
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use crate::component::{ALARM_HANDLER, OBJECT_HANDLER, World};
use crate::instance::Data;
use crate::lean_bindings::LeanPre;
use crate::object_bindings::alarms::ObjectAlarmPre;
use crate::object_bindings::calls::ObjectPre;

/// A component with its imports resolved and its exports looked up.
pub struct Worker {
    /// What answers requests.
    pub http: HttpHandler,
    /// What answers calls of State objects, if it has that.
    pub objects: Option<ObjectPre<Data>>,
    /// What takes alarms without a path, if it has that.
    pub alarms: Option<ObjectAlarmPre<Data>>,
}

/// The handler of requests.
pub enum HttpHandler {
    /// Exports `tovuk:http/handler`.
    Lean(LeanPre<Data>),
    /// Exports `wasi:http/incoming-handler`.
    WasiHttp(ProxyPre<Data>),
}

impl Worker {
    /// Links a component.
    pub fn new(linker: &Linker<Data>, component: &Component, world: World) -> wasmtime::Result<Self> {
        let pre: InstancePre<Data> = linker.instantiate_pre(component)?;
        let exports = |name: &str| component.get_export_index(None, name).is_some();
        Ok(Self {
            objects: exports(OBJECT_HANDLER).then(|| ObjectPre::new(pre.clone())).transpose()?,
            alarms: exports(ALARM_HANDLER).then(|| ObjectAlarmPre::new(pre.clone())).transpose()?,
            http: match world {
                World::Lean => HttpHandler::Lean(LeanPre::new(pre)?),
                World::WasiHttp => HttpHandler::WasiHttp(ProxyPre::new(pre)?),
            },
        })
    }
}
