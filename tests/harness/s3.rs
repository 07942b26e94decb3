//! An S3 server in the test's process, on a port of its own, for as long as the test runs.

use std::path::Path;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tovuk_server::boot::S3;

/// Serves the buckets in this folder, among which is `bucket`; how to reach that one.
pub async fn serve_s3(root: &Path) -> S3 {
    std::fs::create_dir_all(root.join("bucket")).unwrap();
    let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root).unwrap());
    builder.set_auth(SimpleAuth::from_single("the-key", "the-secret"));
    let service = builder.build();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move { auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await });
        }
    });
    S3 {
        endpoint: Some(endpoint),
        bucket: "bucket".to_owned(),
        region: "us-east-1".to_owned(),
        access_key_id: "the-key".to_owned(),
        secret_access_key: "the-secret".to_owned(),
        path_style: true,
        prefix: "tovuk".to_owned(),
    }
}
