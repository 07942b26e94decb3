//! Bodies that flow: through two workers, both ways, in bounded memory.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;

use crate::host;

/// A body of so many bytes that is never anywhere whole.
struct Zeros {
    left: u64,
    chunk: Bytes,
}

impl Zeros {
    fn new(bytes: u64) -> Self {
        Self { left: bytes, chunk: Bytes::from(vec![0; 64 << 10]) }
    }
}

impl http_body::Body for Zeros {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let bytes = self.left.min(self.chunk.len() as u64);
        self.left -= bytes;
        Poll::Ready(Some(Ok(Frame::data(self.chunk.slice(..bytes as usize)))))
    }
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_flows_through_two_workers_and_back_in_bounded_memory() {
    let total = if tovuk_tests::full_size() { 1 << 30 } else { 128 << 20 };
    let host = host().await;
    let streams = |service: tovuk_tests::ServiceConfig| service.limit("stream_body_mb", 2048).limit("cpu_ms", 300_000);
    host.deploy("front", "passthrough", |service| streams(service).public().binds_url("NEXT_URL", "store")).await;
    host.deploy("store", "sink", streams).await;
    let before = resident_bytes();
    let request = host.request("front", "/echo").method("POST").body(Zeros::new(total)).unwrap();
    let response = host.client().send(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let (mut received, mut most) = (0_u64, 0_u64);
    let mut next_look = 0;
    while let Some(frame) = body.frame().await {
        received += frame.unwrap().data_ref().map_or(0, |data| data.len() as u64);
        if received >= next_look {
            most = most.max(resident_bytes());
            next_look = received + (16 << 20);
        }
    }
    assert_eq!(received, total);
    let grown = most.saturating_sub(before);
    assert!(grown < 64 << 20, "the process grew by {grown} bytes");
    for service in ["front", "store"] {
        let record = &host.observed.ended(service, 1).await[0];
        assert_eq!((record.bytes_in, record.bytes_out), (total, total), "{service}");
    }
}

#[tokio::test]
async fn a_reader_that_stops_reading_stops_the_worker() {
    let host = host().await;
    host.deploy("big", "big", |service| service.public()).await;
    let request = host.request("big", "/64").body(http_body_util::Empty::<Bytes>::new()).unwrap();
    let mut body = host.client().send(request).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    // Nobody reads on; the idle limit ends the worker, and the connection is cut.
    let total = host.runtime.slots().total();
    while host.runtime.slots().free() != total {
        host.clock.advance(std::time::Duration::from_secs(31));
        tokio::task::yield_now().await;
    }
    let cut = loop {
        match body.frame().await {
            Some(Ok(_)) => {}
            Some(Err(_)) => break true,
            None => break false,
        }
    };
    assert!(cut);
    let record = &host.observed.ended("big", 1).await[0];
    assert_eq!(record.outcome, tovuk_runtime::record::Outcome::Wall);
    assert!(record.bytes_out < 64 << 20);
}

#[tokio::test]
async fn a_streaming_worker_answers_while_it_still_reads() {
    let host = host().await;
    host.deploy("sink", "sink", |service| service.public()).await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
    let frames = futures::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|bytes| (Ok::<_, std::io::Error>(Frame::data(bytes)), receiver))
    });
    let request = host.request("sink", "/echo").method("POST").body(Box::pin(http_body_util::StreamBody::new(frames))).unwrap();
    let (client, first) = (host.client(), sender.send(Bytes::from_static(b"first")));
    let (response, sent) = tokio::join!(client.send(request), first);
    sent.unwrap();
    let mut body = response.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().data_ref().unwrap(), "first");
    sender.send(Bytes::from_static(b"second")).await.unwrap();
    assert_eq!(body.frame().await.unwrap().unwrap().data_ref().unwrap(), "second");
    drop(sender);
    assert!(body.frame().await.is_none());
}
