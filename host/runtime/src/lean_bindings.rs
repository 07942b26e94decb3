//! Host bindings of the lean world, generated from `wit/`. Requests are lowered from borrowed data, so that none of it is copied twice.
#![allow(clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "tovuk:worker/lean",
    imports: { default: async },
    exports: { default: async },
    ownership: Borrowing { duplicate_if_necessary: true },
    require_store_data_send: true,
});
