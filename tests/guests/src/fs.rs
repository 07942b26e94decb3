//! Tries what no worker may do and answers `{<what>: <what was said>}`: files, sockets, names, standard input.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::Read;
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};

use tovuk::{Request, Response, Result};

fn said<T: Debug, E: Debug>(result: std::result::Result<T, E>) -> String {
    match result {
        Ok(value) => format!("allowed: {value:?}"),
        Err(error) => format!("refused: {error:?}"),
    }
}

#[tovuk::handler]
fn handle(_: Request) -> Result<Response> {
    let preopens: Vec<String> = wasip2::filesystem::preopens::get_directories().into_iter().map(|(_, path)| path).collect();
    let answers = BTreeMap::from([
        ("read_file", said(std::fs::read("/etc/passwd").map(|bytes| bytes.len()))),
        ("write_file", said(std::fs::write("/tmp/tovuk", "x"))),
        ("list_directory", said(std::fs::read_dir(".").map(Iterator::count))),
        ("tcp_connect", said(TcpStream::connect("127.0.0.1:80"))),
        ("tcp_listen", said(TcpListener::bind("127.0.0.1:0"))),
        ("udp_bind", said(UdpSocket::bind("127.0.0.1:0"))),
        ("resolve", said("localhost:80".to_socket_addrs().map(Iterator::count))),
        ("stdin", said(std::io::stdin().read(&mut [0; 16]))),
        ("preopens", format!("{preopens:?}")),
        ("arguments", format!("{:?}", std::env::args().collect::<Vec<_>>())),
        ("current_dir", said(std::env::current_dir())),
    ]);
    Response::json(&answers)
}
