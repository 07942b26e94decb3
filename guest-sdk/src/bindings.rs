//! The code that `wit-bindgen` generates from the `wit` folder of this repository: the types and calls of the component boundary.
//!
//! Nothing here is written by hand and nothing outside this crate should name it: the SDK's own types carry the documentation, and the
//! `handler` macro reaches in through `tovuk::__private`.
#![allow(missing_docs, clippy::all, clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

wit_bindgen::generate!({
    path: "../wit",
    world: "tovuk:worker/worker",
    generate_all,
    pub_export_macro: true,
    export_macro_name: "export_worker",
    default_bindings_module: "tovuk::__private::bindings",
    runtime_path: "::tovuk::__private::wit_bindgen_rt",
});
