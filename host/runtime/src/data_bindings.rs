//! Host bindings of the interfaces of data, generated from `wit/`. They are apart from the lean world's because what is lowered here is the host's own.
#![allow(clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "tovuk:worker/data",
    imports: { default: async },
    with: {
        "tovuk:objects/store.reader": crate::imports::objects::Reader,
        "tovuk:objects/store.writer": crate::imports::objects::Writer,
        "tovuk:sqlite/database.transaction": crate::imports::sqlite::Transaction,
        "tovuk:sqlite/database.rows": crate::imports::sqlite::Rows,
    },
    require_store_data_send: true,
});
