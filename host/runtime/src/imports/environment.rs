//! `wasi:cli/environment`: the environment of the deploy, served from the deploy itself. The stock implementation copies every variable
//! for every instance, whether it asks or not.

use wasmtime::component::Linker;
use wasmtime_wasi::p2::bindings::cli::environment;

use super::Whole;
use crate::instance::Data;

impl environment::Host for Data {
    fn get_environment(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        Ok(self.invocation.deployment.env.clone())
    }

    fn get_arguments(&mut self) -> wasmtime::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn initial_cwd(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(None)
    }
}

pub(super) fn add_to_linker(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    environment::add_to_linker::<Data, Whole>(linker, |data| data)
}
