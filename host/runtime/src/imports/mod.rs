//! What workers may import. Everything is linked into every component, because toolchains import much that their programs never use; a component
//! gets only what it names, and a link is no grant: what a service may reach is decided where it is reached.

pub(crate) mod config;
pub(crate) mod convert;
mod data;
mod environment;
mod kv;
mod lean;
pub(crate) mod objects;
mod queue;
pub(crate) mod sqlite;
pub(crate) mod state;
pub(crate) mod stdio;
pub(crate) mod wasi_http;
mod wasi_keyvalue;

use wasmtime::Engine;
use wasmtime::component::{HasData, Linker};

use crate::instance::Data;

/// Gives an import's functions the whole of an instance's data.
pub(crate) struct Whole;

impl HasData for Whole {
    type Data<'a> = &'a mut Data;
}

/// A linker with every import that this host has.
pub fn linker(engine: &Engine) -> wasmtime::Result<Linker<Data>> {
    let mut linker = Linker::new(engine);
    // The environment and streams of WASI are replaced by ours.
    linker.allow_shadowing(true);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    // Streams need the table of resources only. The stock link asks for all of WASI's state, which few workers need and which costs a microsecond.
    wasmtime_wasi_io::add_to_linker_async(&mut linker)?;
    environment::add_to_linker(&mut linker)?;
    config::add_to_linker(&mut linker)?;
    wasi_http::add_to_linker(&mut linker)?;
    lean::add_to_linker(&mut linker)?;
    data::add_to_linker(&mut linker)?;
    sqlite::add_to_linker(&mut linker)?;
    kv::add_to_linker(&mut linker)?;
    state::add_to_linker(&mut linker)?;
    wasi_keyvalue::add_to_linker(&mut linker)?;
    objects::add_to_linker(&mut linker)?;
    queue::add_to_linker(&mut linker)?;
    Ok(linker)
}
