//! Host bindings of what workers export for their State objects, generated from `wit/`. Types of HTTP are those of the lean world.
#![allow(clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

pub mod calls {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "tovuk:worker/object",
        imports: { default: async },
        exports: { default: async },
        ownership: Borrowing { duplicate_if_necessary: true },
        with: {
            "tovuk:http/types": crate::lean_bindings::tovuk::http::types,
            "tovuk:state/calls": crate::lean_bindings::tovuk::state::calls,
        },
        require_store_data_send: true,
    });
}

pub mod alarms {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "tovuk:worker/object-alarm",
        exports: { default: async },
        require_store_data_send: true,
    });
}
