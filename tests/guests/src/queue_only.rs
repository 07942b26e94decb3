//! Does nothing but consume the queue `jobs`: writes the text of each message to the KV namespace `SEEN` under `jobs/<n>`, counting up. The text `bad` fails.

use tovuk::DataError;
use tovuk::queue::Batch;

#[tovuk::queue("jobs")]
fn jobs(batch: &Batch) -> Result<(), DataError> {
    let seen = tovuk::kv("SEEN");
    for message in batch.messages() {
        match String::from_utf8_lossy(message.body()).as_ref() {
            "bad" => message.retry(),
            text => {
                let number = seen.increment("count/jobs", 1)?;
                seen.put(format!("jobs/{number}"), text)?;
            }
        }
    }
    Ok(())
}
