//! `wasi:config/store`: the same variables as the environment, for components that look for them there.

use wasmtime::component::Linker;

use super::Whole;
use crate::instance::Data;

mod bindings {
    #![allow(clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
    wasmtime::component::bindgen!({
        inline: "
            package wasi:config@0.2.0-rc.1;
            interface store {
                variant error { upstream(string), io(string) }
                get: func(key: string) -> result<option<string>, error>;
                get-all: func() -> result<list<tuple<string, string>>, error>;
            }
            world imports { import store; }
        ",
        world: "wasi:config/imports",
        require_store_data_send: true,
    });
}

use bindings::wasi::config::store;

impl store::Host for Data {
    fn get(&mut self, key: String) -> Result<Option<String>, store::Error> {
        Ok(self.invocation.deployment.env.iter().find(|(name, _)| *name == key).map(|(_, value)| value.clone()))
    }

    fn get_all(&mut self) -> Result<Vec<(String, String)>, store::Error> {
        Ok(self.invocation.deployment.env.clone())
    }
}

pub(super) fn add_to_linker(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    store::add_to_linker::<Data, Whole>(linker, |data| data)
}
