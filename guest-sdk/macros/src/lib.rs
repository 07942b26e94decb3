//! The attribute macro of the `tovuk` crate.
//!
//! It only connects a function with the component boundary; what arguments and results a handler may have is decided by traits in `tovuk`,
//! so that their errors are the compiler's own.

use proc_macro::TokenStream;
use quote::{format_ident, quote};
use syn::spanned::Spanned;
use syn::{Error, FnArg, ItemFn, LitStr, parse_macro_input};

/// Makes a function the handler of the worker: `fn(Request)` or `fn(Request, Env)`, returning `Response` or `Result<Response, E>` with
/// `E: Into<tovuk::Error>`. A component has one.
///
/// It also installs the logger behind `tovuk::log`. The function stays callable, so native tests can run it.
#[proc_macro_attribute]
pub fn handler(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let function = parse_macro_input!(item as ItemFn);
    if let Err(error) = check(attribute.is_empty(), &function) {
        let error = error.to_compile_error();
        return quote! { #error #function }.into();
    }
    let name = &function.sig.ident;
    quote! {
        #function

        const _: () = {
            // Compiled for every target, so that a wrong signature is an error in native builds too. Its name is not one that a handler
            // would have, because it stands nearer to the call below than the handler does.
            #[allow(dead_code)]
            fn __tovuk_run(
                request: ::tovuk::__private::Request,
            ) -> ::core::result::Result<::tovuk::__private::Response, ::tovuk::__private::Error> {
                ::tovuk::__private::run(#name, request)
            }

            #[cfg(target_arch = "wasm32")]
            const _: () = {
                struct __TovukWorker;
                impl ::tovuk::__private::Guest for __TovukWorker {
                    fn handle(
                        request: ::tovuk::__private::Request,
                    ) -> ::core::result::Result<::tovuk::__private::Response, ::tovuk::__private::Error> {
                        __tovuk_run(request)
                    }
                }
                ::tovuk::__private::export_worker!(__TovukWorker with_types_in ::tovuk::__private::bindings);
            };
        };
    }
    .into()
}

/// Makes a function the handler of the State objects of the worker's service: `fn(Object, Request)` or `fn(Object, Request, Env)`, returning `Response` or
/// `Result<Response, E>` with `E: Into<tovuk::Error>`. A component has one, besides its `#[tovuk::handler]`, for objects of all classes:
/// `object.class()` tells them apart.
///
/// While a call runs, no other operation or call has the object. A response, whatever its status, commits what the call has written to it; an error or a
/// panic undoes that. `tovuk::state("Room").object("room-1").fetch(request)` makes a call.
#[proc_macro_attribute]
pub fn state(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let function = parse_macro_input!(item as ItemFn);
    if let Err(error) = check_object(attribute.is_empty(), &function, &OF_CALLS) {
        let error = error.to_compile_error();
        return quote! { #error #function }.into();
    }
    let name = &function.sig.ident;
    quote! {
        #function

        const _: () = {
            // Its names are none that a handler would have, because they stand nearer to the call below than the handler does.
            #[allow(dead_code)]
            fn __tovuk_run(
                __tovuk_class: ::std::string::String,
                __tovuk_object: ::std::string::String,
                __tovuk_event: ::tovuk::__private::Request,
            ) -> ::core::result::Result<::tovuk::__private::Response, ::tovuk::__private::ObjectFailure> {
                ::tovuk::__private::run_object(#name, __tovuk_class, __tovuk_object, __tovuk_event)
            }

            #[cfg(target_arch = "wasm32")]
            const _: () = {
                struct __TovukObjects;
                impl ::tovuk::__private::ObjectGuest for __TovukObjects {
                    fn handle(
                        class: ::std::string::String,
                        object: ::std::string::String,
                        request: ::tovuk::__private::Request,
                    ) -> ::core::result::Result<::tovuk::__private::Response, ::tovuk::__private::ObjectFailure> {
                        __tovuk_run(class, object, request)
                    }
                }
                ::tovuk::__private::export_object!(__TovukObjects with_types_in ::tovuk::__private::object_bindings::calls);
            };
        };
    }
    .into()
}

/// Makes a function the handler of alarms of the worker's State objects: `fn(Object, Ringing)`, returning nothing or `Result<(), E>` with
/// `E: Into<tovuk::Error>`. A component has one, for objects of all classes. Without one, alarms come to the `#[tovuk::handler]`, as
/// `POST /.tovuk/state/<class>/<object>/alarm`.
///
/// It has the object as a call has it. An error or a panic undoes what it has written, and the alarm rings again: after 2 s, then each time after twice as
/// long, six times.
#[proc_macro_attribute]
pub fn alarm(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let function = parse_macro_input!(item as ItemFn);
    if let Err(error) = check_object(attribute.is_empty(), &function, &OF_ALARMS) {
        let error = error.to_compile_error();
        return quote! { #error #function }.into();
    }
    let name = &function.sig.ident;
    quote! {
        #function

        const _: () = {
            // Its names are none that a handler would have, because they stand nearer to the call below than the handler does.
            #[allow(dead_code)]
            fn __tovuk_run(
                __tovuk_class: ::std::string::String,
                __tovuk_object: ::std::string::String,
                __tovuk_event: ::tovuk::__private::Alarm,
            ) -> ::core::result::Result<(), ::std::string::String> {
                ::tovuk::__private::run_alarm(#name, __tovuk_class, __tovuk_object, __tovuk_event)
            }

            #[cfg(target_arch = "wasm32")]
            const _: () = {
                struct __TovukAlarms;
                impl ::tovuk::__private::AlarmGuest for __TovukAlarms {
                    fn ring(
                        class: ::std::string::String,
                        object: ::std::string::String,
                        alarm: ::tovuk::__private::Alarm,
                    ) -> ::core::result::Result<(), ::std::string::String> {
                        __tovuk_run(class, object, alarm)
                    }
                }
                ::tovuk::__private::export_object_alarm!(__TovukAlarms with_types_in ::tovuk::__private::object_bindings::alarms);
            };
        };
    }
    .into()
}

/// Makes a function the consumer of the service's queue of this name, and the worker's only handler: `#[tovuk::queue("jobs")]` on `fn(&Batch)` that returns
/// nothing or `Result<(), E>` with `E: Into<tovuk::Error>`. When it succeeds, the messages are done, but for those that it has asked to have again; when it fails,
/// those that it has not settled come again.
///
/// A worker that answers requests or other events as well, or has several queues, has a `#[tovuk::handler]` with `Router::queue` instead: a component has one
/// handler.
#[proc_macro_attribute]
pub fn queue(attribute: TokenStream, item: TokenStream) -> TokenStream {
    event(attribute, item, &OF_BATCHES)
}

/// Makes a function the handler of the service's cron trigger of this name, and the worker's only handler: `#[tovuk::cron("nightly")]` on `fn(Tick)` that
/// returns nothing or `Result<(), E>` with `E: Into<tovuk::Error>`. A tick that fails is delivered again after one, two and four minutes.
///
/// A worker that answers requests or other events as well, or has several triggers, has a `#[tovuk::handler]` with `Router::cron` instead: a component has
/// one handler.
#[proc_macro_attribute]
pub fn cron(attribute: TokenStream, item: TokenStream) -> TokenStream {
    event(attribute, item, &OF_TICKS)
}

/// A sort of event that a function can be the only handler of.
struct OfEvents {
    /// The attribute, and the method of the router.
    attribute: &'static str,
    example: &'static str,
    shape: &'static str,
}

const OF_BATCHES: OfEvents = OfEvents {
    attribute: "queue",
    example: "#[tovuk::queue(\"jobs\")]",
    shape: "a consumer of a queue takes a batch: `fn jobs(batch: &tovuk::queue::Batch) -> tovuk::Result<()>`",
};
const OF_TICKS: OfEvents = OfEvents {
    attribute: "cron",
    example: "#[tovuk::cron(\"nightly\")]",
    shape: "a handler of a cron trigger takes a tick: `fn nightly(tick: tovuk::cron::Tick) -> tovuk::Result<()>`",
};

fn event(attribute: TokenStream, item: TokenStream, of: &OfEvents) -> TokenStream {
    let function = parse_macro_input!(item as ItemFn);
    let name = match syn::parse::<LitStr>(attribute) {
        Ok(name) => check_event(&function, of).map(|()| name),
        Err(_) => Err(Error::new(function.sig.ident.span(), format!("say whose events the function handles: `{}`", of.example))),
    };
    let name = match name {
        Ok(name) => name,
        Err(error) => {
            let error = error.to_compile_error();
            return quote! { #error #function }.into();
        }
    };
    let (method, function_name) = (format_ident!("{}", of.attribute), &function.sig.ident);
    quote! {
        #function

        const _: () = {
            // Its name is none that a handler would have, because it stands nearer to the call below than the handler does.
            #[::tovuk::handler]
            fn __tovuk_event(request: ::tovuk::Request) -> ::tovuk::Result<::tovuk::Response> {
                ::tovuk::Router::new().#method(#name, |event| ::tovuk::__private::IntoDone::into_done(#function_name(event))).run(request)
            }
        };
    }
    .into()
}

fn check_event(function: &ItemFn, of: &OfEvents) -> Result<(), Error> {
    check_plain(function)?;
    if function.sig.inputs.len() == 1 { Ok(()) } else { Err(Error::new(function.sig.ident.span(), of.shape)) }
}

/// A sort of function that is called with an object.
struct OfObjects {
    attribute: &'static str,
    arguments: std::ops::RangeInclusive<usize>,
    shape: &'static str,
}

const OF_CALLS: OfObjects = OfObjects {
    attribute: "#[tovuk::state]",
    arguments: 2..=3,
    shape: "a handler of State objects takes an object and a request, and the environment if it likes: `fn room(room: tovuk::state::Object, req: \
            tovuk::Request)`",
};
const OF_ALARMS: OfObjects = OfObjects {
    attribute: "#[tovuk::alarm]",
    arguments: 2..=2,
    shape: "a handler of alarms takes an object and an alarm: `fn ring(room: tovuk::state::Object, alarm: tovuk::state::Ringing)`",
};

fn check_object(attribute_is_empty: bool, function: &ItemFn, of: &OfObjects) -> Result<(), Error> {
    let signature = &function.sig;
    if !attribute_is_empty {
        let text = format!("`{}` takes no arguments: remove what stands in its parentheses", of.attribute);
        return Err(Error::new(signature.ident.span(), text));
    }
    check_plain(function)?;
    if of.arguments.contains(&signature.inputs.len()) { Ok(()) } else { Err(Error::new(signature.ident.span(), of.shape)) }
}

/// What the traits cannot say well.
fn check(attribute_is_empty: bool, function: &ItemFn) -> Result<(), Error> {
    let signature = &function.sig;
    if !attribute_is_empty {
        return Err(Error::new(signature.ident.span(), "`#[tovuk::handler]` takes no arguments: remove what stands in its parentheses"));
    }
    check_plain(function)?;
    if !(1..=2).contains(&signature.inputs.len()) {
        return Err(Error::new(
            signature.ident.span(),
            "a handler takes a request, and the environment if it likes: `fn handle(req: tovuk::Request, env: tovuk::Env)`",
        ));
    }
    Ok(())
}

/// What no function that the host calls can be.
fn check_plain(function: &ItemFn) -> Result<(), Error> {
    let signature = &function.sig;
    if let Some(asyncness) = &signature.asyncness {
        return Err(Error::new(
            asyncness.span(),
            "a handler is synchronous: remove `async`; to wait for several calls at once use `tovuk::fetch_all` or `Service::fetch_all`",
        ));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new(signature.generics.span(), "a handler cannot be generic: the host calls it"));
    }
    if let Some(FnArg::Receiver(receiver)) = signature.inputs.first() {
        return Err(Error::new(receiver.span(), "a handler is a free function: move it out of the `impl` block"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use syn::parse_quote;

    use super::*;

    #[test]
    fn both_shapes_of_handler_pass() {
        assert!(
            check(
                true,
                &parse_quote!(
                    fn handle(req: Request) -> Response {}
                )
            )
            .is_ok()
        );
        assert!(
            check(
                true,
                &parse_quote!(
                    pub fn run(_: Request, env: Env) -> Result<Response, MyError> {}
                )
            )
            .is_ok()
        );
    }

    #[test]
    fn every_other_shape_is_told_what_to_change() {
        let cases: [(ItemFn, &str); 5] = [
            (
                parse_quote!(
                    async fn handle(req: Request) -> Response {}
                ),
                "remove `async`",
            ),
            (
                parse_quote!(
                    fn handle<T>(req: T) -> Response {}
                ),
                "cannot be generic",
            ),
            (
                parse_quote!(
                    fn handle(&self, req: Request) -> Response {}
                ),
                "free function",
            ),
            (
                parse_quote!(
                    fn handle() -> Response {}
                ),
                "takes a request",
            ),
            (
                parse_quote!(
                    fn handle(a: Request, b: Env, c: u8) -> Response {}
                ),
                "takes a request",
            ),
        ];
        for (function, wanted) in cases {
            let error = check(true, &function).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
        let error = check(
            false,
            &parse_quote!(
                fn handle(req: Request) -> Response {}
            ),
        )
        .unwrap_err()
        .to_string();
        assert!(error.contains("takes no arguments"), "{error}");
    }

    #[test]
    fn a_handler_of_events_takes_one_argument() {
        let batch: ItemFn = parse_quote!(
            fn jobs(batch: &Batch) {}
        );
        assert!(check_event(&batch, &OF_BATCHES).is_ok());
        let none: ItemFn = parse_quote!(
            fn jobs() {}
        );
        assert!(check_event(&none, &OF_BATCHES).unwrap_err().to_string().contains("takes a batch"));
        assert!(check_event(&none, &OF_TICKS).unwrap_err().to_string().contains("takes a tick"));
    }
}
