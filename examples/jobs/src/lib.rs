//! E-mails by way of a queue: whoever asks waits for the queue's disk, not for a mail server, and one address that cannot be reached holds up no other.

use serde::{Deserialize, Serialize};
use tovuk::queue::Batch;
use tovuk::{Error, Request, Response, Result, Router, kv, queue};

#[derive(Serialize, Deserialize)]
struct Email {
    to: String,
    subject: String,
}

#[tovuk::handler]
fn handle(req: Request) -> Result<Response> {
    Router::new().post("/emails", accept).get("/outbox", outbox).queue("emails", send_all).run(req)
}

/// Takes an e-mail in. It is on disk when the client is answered.
fn accept(req: Request) -> Result<Response> {
    let email: Email = req.json()?;
    if !email.to.contains('@') {
        return Err(Error::bad_request("`to` must be an address"));
    }
    let id = queue("emails").send_json(&email)?;
    Ok(Response::json(&id)?.with_status(202))
}

/// Sends what the queue delivers. Each message is settled alone, so that one which fails brings back no other.
fn send_all(batch: &Batch) -> Result<()> {
    for message in batch.messages() {
        match message.json().and_then(|email| send(message.id(), &email)) {
            Ok(()) => message.ack(),
            Err(error) => {
                tovuk::log::warn!("attempt {} of {}: {error}", message.attempts(), message.id());
                message.retry();
            }
        }
    }
    Ok(())
}

/// A real application calls a mail server here. A message can be delivered twice, so what is done goes by its id: doing it again changes nothing.
fn send(id: &str, email: &Email) -> Result<()> {
    if email.to.ends_with(".invalid") {
        return Err(Error::internal(format_args!("nobody is at {}", email.to)));
    }
    Ok(kv("OUTBOX").put_json(id, email)?)
}

fn outbox(_: Request) -> Result<Response> {
    let outbox = kv("OUTBOX");
    let mut sent = Vec::new();
    for key in outbox.keys("") {
        sent.extend(outbox.get_json::<Email>(&key?.name)?);
    }
    Response::json(&sent)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tovuk::testing::TestEnv;

    use super::*;

    fn ask(env: &TestEnv, to: &str) -> u16 {
        env.run(handle, Request::post("/emails").with_body(format!(r#"{{"to":"{to}","subject":"hello"}}"#))).status()
    }

    #[test]
    fn what_can_be_sent_is_and_the_rest_comes_again() {
        let env = TestEnv::new().kv("OUTBOX").queue("emails");
        assert_eq!((ask(&env, "ada@example.com"), ask(&env, "nobody@example.invalid"), ask(&env, "ada")), (202, 202, 400));
        assert_eq!(env.deliver(handle, "emails").status(), 200);
        assert_eq!(env.run(handle, Request::get("/outbox")).body(), br#"[{"to":"ada@example.com","subject":"hello"}]"#);
        assert_eq!(env.queued("emails"), [br#"{"to":"nobody@example.invalid","subject":"hello"}"#.to_vec()]);
        env.advance(Duration::from_secs(60));
        assert_eq!(env.deliver(handle, "emails").status(), 200);
        assert_eq!(env.queued("emails").len(), 1);
    }
}
