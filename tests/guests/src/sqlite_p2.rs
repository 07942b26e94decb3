//! Streams the rows of `DB` into its response while it reads them: `/?sql=` a statement whose first column is bytes. An error is a line on standard error,
//! and the end of the body.

use tovuk::sqlite::{self, Value};
use tovuk_guests::{head, query, write_all};
use wasip2::http::types::{IncomingRequest, OutgoingBody, ResponseOutparam};

struct Worker;

impl wasip2::exports::http::incoming_handler::Guest for Worker {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let sql = query(&request.path_with_query().unwrap_or_default(), "sql").unwrap_or_default();
        let body = head(out, 200, "application/octet-stream");
        let stream = body.write().unwrap();
        let rows = match sqlite::database("DB").stream(&sql, ()) {
            Ok(rows) => rows,
            Err(error) => return eprintln!("{error}"),
        };
        for page in rows {
            let page = match page {
                Ok(page) => page,
                Err(error) => return eprintln!("{error}"),
            };
            for row in page.values() {
                let Some(Value::Blob(bytes)) = row.first() else { return eprintln!("no bytes") };
                if let Err(error) = write_all(&stream, bytes) {
                    return eprintln!("stopped: {error:?}");
                }
            }
        }
        drop(stream);
        OutgoingBody::finish(body, None).unwrap();
    }
}

wasip2::http::proxy::export!(Worker);
