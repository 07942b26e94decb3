//! Memory and speed. The figures are printed; what is asserted holds on any machine.

use std::process::Command;
use std::time::Instant;

use super::*;

/// The most memory that this process has had, in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

/// A body that is made as it is read, in chunks of this size.
fn endless(bytes: u64, chunk: usize) -> impl Stream<Item = Result<Bytes, String>> + Send + 'static {
    let piece = Bytes::from(pattern(chunk, 1));
    stream::iter((0..bytes / chunk as u64).map(move |_| Ok(piece.clone())))
}

fn large(size_bytes: Option<u64>) -> PutObject {
    PutObject { path: "large".into(), content_type: String::new(), size_bytes, public_read: false }
}

async fn drain(content: Content) -> u64 {
    content.body.try_fold(0, async |sum, chunk| Ok(sum + chunk.len() as u64)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the test below, in a process of its own"]
async fn memory_of_a_large_stream() {
    let fixture = Fixture::folder().await;
    fixture.put("warm", "up").await;
    let before = peak_mib();
    let bytes = 192 * MIB as u64;
    fixture.objects.put(TENANT, large(None), endless(bytes, 60_000)).await.unwrap_or_else(|error| panic!("{error}"));
    let content = fixture.open("large", Range::Whole).await.unwrap();
    assert_eq!(drain(content).await, bytes / 60_000 * 60_000);
    println!("grew by {} MiB", peak_mib() - before);
    assert!(peak_mib() - before < 24);
}

#[test]
fn a_large_stream_takes_little_memory() {
    let test = ["--exact", "objects::tests::measured::memory_of_a_large_stream", "--ignored", "--nocapture"];
    let output = Command::new(std::env::current_exe().unwrap()).args(test).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// `cargo test --release -p tovuk-resources objects::tests::measured::speed -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn speed() {
    for (name, fixture) in [("folder", Fixture::folder().await), ("s3", Fixture::s3().await)] {
        let before = peak_mib();
        let bytes = 1 << 30;
        let started = Instant::now();
        fixture.objects.put(TENANT, large(Some(bytes)), endless(bytes, 64 << 10)).await.unwrap();
        let stored = started.elapsed();
        let started = Instant::now();
        assert_eq!(drain(fixture.open("large", Range::Whole).await.unwrap()).await, bytes);
        let rate = |elapsed: std::time::Duration| (bytes >> 20) as f64 / elapsed.as_secs_f64();
        println!(
            "{name}: 1 GiB stored at {:.0} MiB/s, read at {:.0} MiB/s, memory +{} MiB",
            rate(stored),
            rate(started.elapsed()),
            peak_mib() - before
        );
        for callers in [1, 64] {
            let count = 1_000 / callers;
            let started = Instant::now();
            let all = (0..callers).map(|caller| {
                let objects = fixture.objects.clone();
                tokio::spawn(async move {
                    for number in 0..count {
                        let put = PutObject { path: format!("{caller}/{number}"), ..large(Some(4_096)) };
                        objects.put(TENANT, put, body(pattern(4_096, number))).await.unwrap();
                    }
                })
            });
            futures::future::try_join_all(all.collect::<Vec<_>>()).await.unwrap();
            println!("{name}: {:.0} puts/s of 4 KiB by {callers}", (count * callers) as f64 / started.elapsed().as_secs_f64());
        }
        let started = Instant::now();
        for number in 0..1_000 {
            let content = fixture.open(&format!("{}/{}", number % 64, number % 15), Range::Whole).await.unwrap();
            assert_eq!(drain(content).await, 4_096);
        }
        println!("{name}: {:.0} gets/s of 4 KiB by 1", 1_000.0 / started.elapsed().as_secs_f64());
    }
}
