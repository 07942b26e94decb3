//! Sets header fields that a worker may not set. `/`: forged `x-tovuk-*` on a call to the binding `NEXT` and in its response, whose body is
//! what `NEXT` answered. The others are about the response alone: `/framing` lies about its length and connection, `/newline` and `/name`
//! are not valid HTTP, `/status/<n>` has that status, `/cookies` repeats a name.

use tovuk::{Env, Request, Response, Result, Router};

fn forged(env: Env) -> Result<Response> {
    let call = Request::get("/seen-by-next")
        .with_header("x-tovuk-caller", "svc_forged")
        .with_header("X-Tovuk-Invocation", "99")
        .with_header("x-tovuk-event", "queue")
        .with_header("x-keep", "kept");
    let body = match env.service("NEXT").fetch(call) {
        Ok(answer) => answer.into_body(),
        Err(error) => error.code().into(),
    };
    Ok(Response::bytes(body).with_header("x-tovuk-caller", "svc_forged").with_header("x-tovuk-invocation", "99").with_header("x-keep", "kept"))
}

#[tovuk::handler]
fn handle(req: Request, env: Env) -> Result<Response> {
    Router::new()
        .get("/", |_| forged(env))
        .get("/framing", |_| {
            let lie = Response::text("twelve bytes").with_header("content-length", "5").with_header("transfer-encoding", "chunked");
            Ok(lie.with_header("connection", "close").with_header("keep-alive", "timeout=1").with_header("upgrade", "h2c"))
        })
        .get("/newline", |_| Ok(Response::text("split").with_header("x-split", "a\r\nx-injected: yes")))
        .get("/name", |_| Ok(Response::text("name").with_header("not a name", "value")))
        .get("/status/{status}", |req| Ok(Response::text("status").with_status(req.param("status")?)))
        .get("/cookies", |_| {
            let mut response = Response::text("cookies");
            response.headers_mut().append("set-cookie", "a=1");
            response.headers_mut().append("set-cookie", "b=2");
            Ok(response)
        })
        .run(req)
}
