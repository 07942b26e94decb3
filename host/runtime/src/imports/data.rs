//! What imports of data have in common: which of it the worker may reach, and errors as workers see them. What a guest names is looked up among the
//! grants of its deployment; the stores behind know numbers only.

use std::fmt::Display;

use bytes::Bytes;
use tovuk_kernel::codes::{self, Code};
use tovuk_kernel::resource::{Grants, Kind};
use tovuk_resources::stores::Stores;
use wasmtime::component::Linker;

use super::Whole;
use crate::calls::not_granted;
use crate::data_bindings::tovuk::data::types;
use crate::instance::Data;

impl types::Host for Data {}

impl Data {
    /// The host's stores. Not a clone: some operations cost less than that.
    pub(super) fn stores(&self) -> Result<&Stores, types::Error> {
        self.invocation.runtime.stores().ok_or_else(|| error(&codes::STORAGE_FAILED, "this host keeps no data".to_owned()))
    }

    /// What this worker may reach.
    pub(super) fn grants(&self) -> &Grants {
        &self.invocation.deployment.grants
    }

    /// The number of the resource that the guest names, by name or id.
    pub(super) fn resource(&self, kind: Kind, name: &str) -> Result<i64, types::Error> {
        self.grants().find(kind, name).ok_or_else(|| error(&codes::RESOURCE_NOT_FOUND, not_granted(kind, name)))
    }

    /// A value or an object on its way into its store, which counts as host memory until it is there.
    pub(super) fn held(&self, value: Vec<u8>) -> Result<Bytes, types::Error> {
        let reservation = self.invocation.runtime.memory().reserve();
        if !reservation.grow(value.len() as u64) {
            return Err(error(&codes::HOST_BUSY, "the host has no memory left for these bytes; try again shortly".to_owned()));
        }
        Ok(reservation.hold(value.into()))
    }
}

/// The code and the text of what a store refused, for whoever wrote the worker. Why a file could not be read or written is for the operator.
pub(crate) fn told(store: &str, code: &'static Code, refused: &impl Display, of_database: bool) -> (&'static Code, String) {
    if of_database {
        tracing::error!("{store} failed: {refused}");
        return (code, code.message.to_owned());
    }
    (code, refused.to_string())
}

/// An error as the guest sees it.
pub(super) fn error(code: &Code, message: String) -> types::Error {
    types::Error { code: code.code.to_owned(), message, retryable: code.retryable }
}

pub(super) fn add_to_linker(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    types::add_to_linker::<Data, Whole>(linker, |data| data)
}
