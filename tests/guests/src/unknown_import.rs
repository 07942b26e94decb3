//! A lean worker that imports `acme:db/store@1.0.0`, which no host of ours provides: to be refused at deploy, naming it.

use tovuk::{Request, Response};

mod db {
    wit_bindgen::generate!({
        inline: "
            package test:unknown;
            world needs-a-store {
                import acme:db/store@1.0.0;
            }
            package acme:db@1.0.0 {
                interface store {
                    get: func(key: string) -> option<string>;
                }
            }
        ",
        generate_all,
    });
}

#[tovuk::handler]
fn handle(req: Request) -> Response {
    Response::text(db::acme::db::store::get(req.path()).unwrap_or_default())
}
