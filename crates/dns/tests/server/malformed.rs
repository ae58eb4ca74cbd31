//! What is no query.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::RecordType;

use crate::common::*;

/// Nothing comes for what was sent: the answer to the next query is the first.
async fn assert_ignored(served: &Served, messages: &[Vec<u8>]) {
    let socket = served.client().await;
    for message in messages {
        socket.send(message).await.unwrap();
    }
    let next = query("idle.", RecordType::A);
    socket.send(&bytes(&next)).await.unwrap();
    let answer = Message::from_vec(&receive(&socket).await).unwrap();
    assert_eq!(answer.queries, next.queries);
}

#[tokio::test]
async fn answers_and_pieces_of_headers_are_ignored() {
    let upstream = Upstream::giving(1);
    let served = serve(Book::new(&[&upstream]));
    let whole = bytes(&query("web.", RecordType::A));
    let mut messages: Vec<_> = (0..12).map(|n| whole[..n].to_vec()).collect();
    messages.push(bytes(&query("web.", RecordType::A).into_response()));
    messages.push(bytes(&query("example.org.", RecordType::A).into_response()));
    assert_ignored(&served, &messages).await;
    assert_eq!(upstream.count(), 0);
}

async fn code_for(served: &Served, message: &[u8]) -> ResponseCode {
    let answer = Message::from_vec(&served.udp(message).await).unwrap();
    assert_eq!((answer.id, answer.message_type), (0x1234, MessageType::Response));
    answer.response_code
}

#[tokio::test]
async fn what_cannot_be_read_is_a_format_error() {
    let upstream = Upstream::giving(1);
    let served = serve(Book::new(&[&upstream]));
    let whole = bytes(&query_edns("example.org.", RecordType::A, 1232));
    for length in 12..whole.len() {
        assert_eq!(code_for(&served, &whole[..length]).await, ResponseCode::FormErr, "{length} bytes");
    }
    let mut looping = bytes(&query("web.", RecordType::A));
    looping[12..14].copy_from_slice(&[0xc0, 12]);
    assert_eq!(code_for(&served, &looping).await, ResponseCode::FormErr);
    let mut crowded = whole.clone();
    crowded[4..6].copy_from_slice(&[0xff, 0xff]);
    assert_eq!(code_for(&served, &crowded).await, ResponseCode::FormErr);
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn there_is_one_question() {
    let upstream = Upstream::giving(1);
    let served = serve(Book::new(&[&upstream]));
    let mut two = query("web.", RecordType::A);
    two.add_query(two.queries[0].clone());
    assert_eq!(code_for(&served, &bytes(&two)).await, ResponseCode::FormErr);
    let none = Message::new(0x1234, MessageType::Query, OpCode::Query);
    assert_eq!(code_for(&served, &bytes(&none)).await, ResponseCode::FormErr);
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn only_queries_are_implemented() {
    let upstream = Upstream::giving(1);
    let served = serve(Book::new(&[&upstream]));
    for code in [OpCode::Status, OpCode::Notify, OpCode::Update] {
        let mut message = query("example.org.", RecordType::SOA);
        message.metadata.op_code = code;
        let answer = Message::from_vec(&served.udp(&bytes(&message)).await).unwrap();
        assert_eq!((answer.response_code, answer.op_code), (ResponseCode::NotImp, code));
    }
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn only_version_zero_of_edns_is_spoken() {
    let served = serve(Book::new(&[]));
    let mut message = query("web.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_version(1);
    message.set_edns(edns);
    let answer = Message::from_vec(&served.udp(&bytes(&message)).await).unwrap();
    assert_eq!(u16::from(answer.response_code), 16);
    assert_eq!(answer.edns.as_ref().map(Edns::version), Some(0));
    assert!(answer.answers.is_empty());
}

#[tokio::test]
async fn long_queries_are_not_read() {
    let upstream = Upstream::giving(1);
    let served = serve(Book::new(&[&upstream]));
    let mut message = bytes(&query("db.example.", RecordType::A));
    for (length, code) in
        [(4096, ResponseCode::NoError), (4097, ResponseCode::FormErr), (60_000, ResponseCode::FormErr)]
    {
        message.resize(length, 0);
        assert_eq!(code_for(&served, &message).await, code, "{length} bytes");
        let answer = Message::from_vec(&served.tcp(&message).await).unwrap();
        assert_eq!(answer.response_code, code, "{length} bytes");
    }
}
