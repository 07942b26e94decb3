//! Writes to the log in every way: `/` lines and pieces of lines on both streams, `/facade` the `log` macros, `/long` one line of 1 MiB,
//! `/many/<n>` n lines, `/bytes` what is not text.

use std::io::Write;

use tovuk::{Request, Response, Result, Router, log};

fn lines() {
    println!("out: a line");
    eprintln!("err: a line");
    print!("out: half a line, ");
    std::io::stdout().flush().unwrap();
    eprint!("err: half a line, ");
    println!("and the rest");
    eprintln!("and the rest");
    println!("out: two lines\nin one write");
    print!("out: a line without an end");
    std::io::stdout().flush().unwrap();
}

fn facade() {
    log::error!("facade error");
    log::warn!("facade warn");
    log::info!("facade info");
    log::debug!("facade debug");
    log::trace!("facade trace");
}

#[tovuk::handler]
fn handle(req: Request) -> Result<Response> {
    Router::new()
        .get("/", |_| {
            lines();
            Ok(Response::text("logged"))
        })
        .get("/facade", |_| {
            facade();
            Ok(Response::text("logged"))
        })
        .get("/long", |_| {
            println!("{}", "x".repeat(1 << 20));
            println!("out: after the long line");
            Ok(Response::text("logged"))
        })
        .get("/many/{lines}", |req| {
            for line in 1..=req.param::<u32>("lines")? {
                println!("line {line}");
            }
            Ok(Response::text("logged"))
        })
        .get("/bytes", |_| {
            std::io::stdout().write_all(b"not text: \xff\xfe, a bell: \x07, an escape: \x1b[31mred\x1b[0m, a nul: \0\n")?;
            Ok(Response::text("logged"))
        })
        .run(req)
}
