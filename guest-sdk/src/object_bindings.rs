//! The code that `wit-bindgen` generates for what a worker exports besides its handler of requests: that of its State objects, and that of their alarms.
//! Each is a world of its own, because a component exports all of a world.
#![allow(missing_docs, clippy::all, clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod calls {
    wit_bindgen::generate!({
        path: "../wit",
        world: "tovuk:worker/object",
        with: {
            "tovuk:http/types@0.1.0": crate::bindings::tovuk::http::types,
            "tovuk:state/calls@0.1.0": crate::bindings::tovuk::state::calls,
        },
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_object",
        default_bindings_module: "tovuk::__private::object_bindings::calls",
        runtime_path: "::tovuk::__private::wit_bindgen_rt",
    });
}

pub mod alarms {
    wit_bindgen::generate!({
        path: "../wit",
        world: "tovuk:worker/object-alarm",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_object_alarm",
        default_bindings_module: "tovuk::__private::object_bindings::alarms",
        runtime_path: "::tovuk::__private::wit_bindgen_rt",
    });
}
