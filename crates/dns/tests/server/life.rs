//! The server's beginning and end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;
use longshore_dns::{Options, Server};
use tokio::net::TcpStream;

use crate::common::*;

#[tokio::test]
async fn dropped_it_closes_everything() {
    let silent = Upstream::silent();
    let options = Options { upstream_timeout: LONG * 3, total_timeout: LONG * 3, ..Options::default() };
    let served = serve_with(Book::new(&[&silent]), options);
    let address = served.address;
    // A query that waits, and a connection.
    let socket = served.client().await;
    socket.send(&bytes(&query("a.example.", RecordType::A))).await.unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    send_framed(&mut stream, &bytes(&query("db.example.", RecordType::A))).await;
    read_framed(&mut stream).await.unwrap();

    drop(served.server);
    assert_eq!(read_framed(&mut stream).await, None);
    let start = Instant::now();
    let (udp, tcp) = loop {
        match (std::net::UdpSocket::bind(address), tokio::net::TcpSocket::new_v4()) {
            (Ok(udp), Ok(tcp)) => break (udp, tcp),
            (e, _) => assert!(start.elapsed() < LONG, "{e:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    // The old connection may linger.
    tcp.set_reuseaddr(true).unwrap();
    tcp.bind(address).unwrap();
    let tcp = tcp.listen(16).unwrap().into_std().unwrap();
    let again = Server::start(udp, tcp, Arc::new(Book::new(&[])), Options::default()).unwrap();
    let again = Served { server: again, address };
    assert_eq!(again.ask("db.example.", RecordType::A).await.answers.len(), 1);
}

#[test]
fn without_a_runtime_there_is_an_error() {
    let (udp, tcp, _) = sockets();
    assert!(Server::start(udp, tcp, Arc::new(Book::new(&[])), Options::default()).is_err());
}
