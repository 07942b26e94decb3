//! A server that answers when the test says so: whatever waits for it is where the test wants it to be, for as long as it wants.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Answers every request with 200, once it is open.
pub struct Gate {
    /// The port on loopback.
    pub port: u16,
    arrived: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Gate {
    /// A gate that is closed.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (arrived, open) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        tokio::spawn({
            let (arrived, open) = (arrived.clone(), open.clone());
            async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let (arrived, open) = (arrived.clone(), open.clone());
                    tokio::spawn(async move {
                        let mut head = [0; 4096];
                        if !matches!(stream.read(&mut head).await, Ok(1..)) {
                            return;
                        }
                        arrived.add_permits(1);
                        open.acquire().await.unwrap().forget();
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").await;
                    });
                }
            }
        });
        Self { port, arrived, open }
    }

    /// Waits until one more request is at the gate.
    pub async fn arrived(&self) {
        let one = tokio::time::timeout(std::time::Duration::from_secs(60), self.arrived.acquire()).await;
        one.expect("nothing came to the gate").unwrap().forget();
    }

    /// Lets one request pass, now or when it comes.
    pub fn pass(&self) {
        self.open.add_permits(1);
    }
}
