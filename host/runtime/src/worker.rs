//! A loaded component, linked as far as can be done once for all its instances.

use wasmtime::component::{Component, InstancePre, Linker};
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use crate::component::World;
use crate::instance::Data;
use crate::lean_bindings::LeanPre;

/// A component with its imports resolved and its exports looked up.
pub enum Worker {
    /// Exports `tovuk:http/handler`.
    Lean(LeanPre<Data>),
    /// Exports `wasi:http/incoming-handler`.
    WasiHttp(ProxyPre<Data>),
}

impl Worker {
    /// Links a component.
    pub fn new(linker: &Linker<Data>, component: &Component, world: World) -> wasmtime::Result<Self> {
        let pre: InstancePre<Data> = linker.instantiate_pre(component)?;
        Ok(match world {
            World::Lean => Self::Lean(LeanPre::new(pre)?),
            World::WasiHttp => Self::WasiHttp(ProxyPre::new(pre)?),
        })
    }
}
