//! Connections.

use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use longshore_dns::Options;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::common::*;

fn with_id(name: &str, id: u16) -> Vec<u8> {
    let mut message = query(name, RecordType::A);
    message.metadata.id = id;
    bytes(&message)
}

#[tokio::test]
async fn queries_are_pipelined_and_the_client_may_stop_sending() {
    let upstream = Upstream::giving(1);
    let served = serve(Book::new(&[&upstream]));
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    for id in 0..40 {
        let name = if id % 2 == 0 { "db.example." } else { "a.example." };
        send_framed(&mut stream, &with_id(name, id)).await;
    }
    stream.shutdown().await.unwrap();
    let mut ids = Vec::new();
    while let Some(answer) = read_framed(&mut stream).await {
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!(answer.answers.len(), 1);
        ids.push(answer.id);
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..40).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_answer_does_not_wait_for_another() {
    let silent = Upstream::silent();
    let options = Options { upstream_timeout: LONG * 3, total_timeout: LONG * 3, ..Options::default() };
    let served = serve_with(Book::new(&[&silent]), options);
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    send_framed(&mut stream, &with_id("a.example.", 1)).await;
    send_framed(&mut stream, &with_id("web.", 2)).await;
    let answer = read_framed(&mut stream).await.unwrap();
    assert_eq!(Message::from_vec(&answer).unwrap().id, 2);
}

#[tokio::test]
async fn a_message_may_come_byte_by_byte() {
    let served = serve(Book::new(&[]));
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let message = with_id("db.example.", 9);
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    for byte in length.iter().chain(&message) {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let answer = read_framed(&mut stream).await.unwrap();
    assert_eq!(Message::from_vec(&answer).unwrap().id, 9);
}

#[tokio::test]
async fn what_is_ignored_does_not_end_a_connection() {
    let served = serve(Book::new(&[]));
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    send_framed(&mut stream, &[]).await;
    send_framed(&mut stream, &[1, 2, 3]).await;
    send_framed(&mut stream, &bytes(&query("web.", RecordType::A).into_response())).await;
    send_framed(&mut stream, &with_id("web.", 5)).await;
    let answer = read_framed(&mut stream).await.unwrap();
    assert_eq!(Message::from_vec(&answer).unwrap().id, 5);
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let options = Options { idle_timeout: Duration::from_millis(200), ..Options::default() };
    let served = serve_with(Book::new(&[]), options);
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    let mut halting = TcpStream::connect(served.address).await.unwrap();
    halting.write_all(&[0, 40, 1, 2, 3]).await.unwrap();
    assert_eq!(read_framed(&mut silent).await, None);
    assert_eq!(read_framed(&mut halting).await, None);
}

#[tokio::test]
async fn a_client_that_takes_no_answers_is_left() {
    let mut book = Book::new(&[]);
    book.names.insert("crowd".to_owned(), vec![ip("10.0.0.1"); 4000]);
    let options = Options { idle_timeout: Duration::from_millis(300), ..Options::default() };
    let served = serve_with(book, options);
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let message = with_id("crowd.", 1);
    let framed = [&u16::try_from(message.len()).unwrap().to_be_bytes(), &message[..]].concat();
    let flood = async { while stream.write_all(&framed).await.is_ok() {} };
    tokio::time::timeout(LONG, flood).await.expect("the connection ends");
}

#[tokio::test]
async fn connections_are_limited_and_others_wait() {
    let options = Options { max_connections: 2, idle_timeout: LONG * 3, ..Options::default() };
    let served = serve_with(Book::new(&[]), options);
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        send_framed(&mut stream, &with_id("web.", 1)).await;
        read_framed(&mut stream).await.unwrap();
        open.push(stream);
    }
    let mut third = TcpStream::connect(served.address).await.unwrap();
    send_framed(&mut third, &with_id("web.", 3)).await;
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(300), third.peek(&mut byte)).await;
    assert!(early.is_err(), "{early:?}");
    open.pop();
    let answer = read_framed(&mut third).await.unwrap();
    assert_eq!(Message::from_vec(&answer).unwrap().id, 3);
}

#[tokio::test]
async fn without_connections_there_is_udp() {
    let served = serve_with(Book::new(&[]), Options { max_connections: 0, ..Options::default() });
    assert_eq!(served.ask("db.example.", RecordType::A).await.answers.len(), 1);
    assert!(TcpStream::connect(served.address).await.is_err());
}
