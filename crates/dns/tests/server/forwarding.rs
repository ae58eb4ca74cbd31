//! What is passed on.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use longshore_dns::Options;
use tokio::net::{TcpSocket, UdpSocket};

use crate::common::*;

#[tokio::test]
async fn only_the_id_is_changed() {
    let upstream = Upstream::start(|asked| {
        let mut answer = bytes(&give(asked, 7));
        // What nobody knows stays too.
        answer.extend_from_slice(b"trailing");
        vec![answer]
    });
    let served = serve(Book::new(&[&upstream]));
    let queries = [
        query("wWw.Example.org.", RecordType::A),
        query("_http._tcp.web.", RecordType::SRV),
        query("nowhere.", RecordType::AAAA),
        query(".", RecordType::NS),
        query_edns("www.example.org.", RecordType::from(65399), 1400),
        query_class("web.", RecordType::TXT, DNSClass::CH),
    ];
    for message in &queries {
        let mut asked = bytes(message);
        // Reserved bits.
        asked[3] |= 0x60;
        for answer in [served.udp(&asked).await, served.tcp(&asked).await] {
            let seen = upstream.seen().pop().unwrap();
            assert_eq!(seen.bytes[2..], asked[2..]);
            let mut expected = bytes(&give(&seen, 7));
            expected.extend_from_slice(b"trailing");
            expected[..2].copy_from_slice(&asked[..2]);
            assert_eq!(answer, expected);
        }
    }
    assert_eq!(upstream.count(), 2 * queries.len());
}

#[tokio::test]
async fn edns_passes_both_ways() {
    let upstream = Upstream::giving(7);
    let served = serve(Book::new(&[&upstream]));
    let asked = query_edns("www.example.org.", RecordType::A, 1400);
    let answer = Message::from_vec(&served.udp(&bytes(&asked)).await).unwrap();
    assert_eq!(upstream.seen()[0].message().edns, asked.edns);
    // The upstream gives back what it was given.
    assert_eq!(answer.edns, asked.edns);
}

#[tokio::test]
async fn ids_and_ports_are_random() {
    let upstream = Upstream::giving(1);
    let served = serve(Book::new(&[&upstream]));
    for _ in 0..50 {
        served.ask("www.example.org.", RecordType::A).await;
    }
    let seen = upstream.seen();
    let ids: HashSet<_> = seen.iter().map(|asked| asked.message().id).collect();
    let ports: HashSet<_> = seen.iter().map(|asked| asked.from.port()).collect();
    assert!(ids.len() > 40 && ports.len() > 25, "{} ids, {} ports", ids.len(), ports.len());
}

#[tokio::test]
async fn the_next_is_asked_when_one_is_silent_and_the_silent_one_is_last_then() {
    let (silent, good) = (Upstream::silent(), Upstream::giving(2));
    let served = serve_with(Book::new(&[&silent, &good]), impatient());
    for _ in 0..5 {
        assert_eq!(addresses(&served.ask("a.example.", RecordType::A).await), [ip("192.0.2.2")]);
    }
    assert_eq!((silent.count(), good.count()), (1, 5));
}

#[tokio::test]
async fn the_next_is_asked_when_one_is_not_there() {
    // A port that is taken, where nobody listens: a connected socket hears its peer alone.
    let (udp, tcp, gone) = sockets();
    drop(tcp);
    udp.connect((Ipv4Addr::LOCALHOST, 9)).unwrap();
    let deaf = TcpSocket::new_v4().unwrap();
    deaf.bind(gone).unwrap();
    let good = Upstream::giving(2);
    let mut book = Book::new(&[&good]);
    book.upstreams.insert(0, gone);
    // There is no time to wait for the first.
    let times = Duration::from_mins(1);
    let served =
        serve_with(book, Options { upstream_timeout: times, total_timeout: times, ..Options::default() });
    let asked = bytes(&query("a.example.", RecordType::A));
    for answer in [served.tcp(&asked).await, served.udp(&asked).await] {
        assert_eq!(addresses(&Message::from_vec(&answer).unwrap()), [ip("192.0.2.2")]);
    }
}

#[tokio::test]
async fn the_first_is_asked_first() {
    let (first, second) = (Upstream::giving(1), Upstream::giving(2));
    let served = serve(Book::new(&[&first, &second]));
    for _ in 0..5 {
        assert_eq!(addresses(&served.ask("a.example.", RecordType::A).await), [ip("192.0.2.1")]);
    }
    assert_eq!((first.count(), second.count()), (5, 0));
}

#[tokio::test]
async fn the_next_is_asked_when_one_refuses() {
    for code in [ResponseCode::ServFail, ResponseCode::Refused] {
        let (refusing, good) = (Upstream::saying(code), Upstream::giving(2));
        let served = serve(Book::new(&[&refusing, &good]));
        for _ in 0..2 {
            assert_eq!(addresses(&served.ask("a.example.", RecordType::A).await), [ip("192.0.2.2")]);
        }
        // It has answered: it stays the first.
        assert_eq!(refusing.count(), 2);
    }
}

#[tokio::test]
async fn other_codes_are_answers() {
    for code in [ResponseCode::NXDomain, ResponseCode::FormErr, ResponseCode::NotImp] {
        let (first, second) = (Upstream::saying(code), Upstream::giving(2));
        let served = serve(Book::new(&[&first, &second]));
        assert_eq!(served.ask("a.example.", RecordType::A).await.response_code, code);
        assert_eq!(second.count(), 0);
    }
}

#[tokio::test]
async fn when_all_refuse_the_first_refusal_is_the_answer() {
    let refused = Upstream::saying(ResponseCode::Refused);
    let failed = Upstream::saying(ResponseCode::ServFail);
    let silent = Upstream::silent();
    let served = serve_with(Book::new(&[&silent, &refused, &failed]), impatient());
    assert_eq!(served.ask("a.example.", RecordType::A).await.response_code, ResponseCode::Refused);
    assert_eq!(failed.count(), 1);
}

#[tokio::test]
async fn when_all_are_down_the_server_has_failed() {
    let silent = [Upstream::silent(), Upstream::silent()];
    let served = serve_with(Book::new(&[&silent[0], &silent[1]]), impatient());
    let asked = bytes(&query_edns("a.example.", RecordType::A, 1232));
    for answer in [served.udp(&asked).await, served.tcp(&asked).await] {
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!((answer.id, answer.response_code), (0x1234, ResponseCode::ServFail));
        assert!(answer.edns.is_some() && answer.queries.len() == 1);
    }
    assert!(silent.iter().all(|upstream| upstream.count() == 2));
}

#[tokio::test]
async fn all_together_have_limited_time() {
    let silent = [Upstream::silent(), Upstream::silent()];
    let options = Options {
        upstream_timeout: Duration::from_hours(1),
        total_timeout: Duration::from_millis(300),
        ..Options::default()
    };
    let served = serve_with(Book::new(&[&silent[0], &silent[1]]), options);
    assert_eq!(served.ask("a.example.", RecordType::A).await.response_code, ResponseCode::ServFail);
    assert_eq!(silent[1].count(), 0);
}

/// Messages that do not answer a query, each with the address 192.0.2.66.
fn forged(asked: &Asked) -> Vec<Vec<u8>> {
    let good = give(asked, 66);
    let mut id = good.clone();
    id.metadata.id ^= 1;
    let mut name = good.clone();
    name.queries[0].set_name(Name::from_ascii("other.example.").unwrap());
    let mut kind = good.clone();
    kind.queries[0].set_query_type(RecordType::AAAA);
    let mut class = good.clone();
    class.queries[0].set_query_class(DNSClass::CH);
    let mut two = good.clone();
    two.add_query(two.queries[0].clone());
    let mut none = good.clone();
    none.queries.clear();
    let mut question = good.clone();
    question.metadata.message_type = hickory_proto::op::MessageType::Query;
    let mut forged: Vec<_> = [id, name, kind, class, two, none, question].iter().map(bytes).collect();
    forged.extend([Vec::new(), bytes(&good)[..11].to_vec(), bytes(&good)[..14].to_vec(), vec![0xff; 600]]);
    forged
}

#[tokio::test]
async fn what_does_not_match_is_ignored() {
    let upstream = Upstream::start(|asked| {
        let mut messages = forged(asked);
        messages.push(bytes(&give(asked, 1)));
        messages
    });
    let served = serve(Book::new(&[&upstream]));
    let asked = bytes(&query("a.example.", RecordType::A));
    for answer in [served.udp(&asked).await, served.tcp(&asked).await] {
        assert_eq!(addresses(&Message::from_vec(&answer).unwrap()), [ip("192.0.2.1")]);
    }
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn what_does_not_match_is_no_answer() {
    let (liar, good) = (Upstream::start(forged), Upstream::giving(2));
    let served = serve_with(Book::new(&[&liar, &good]), impatient());
    assert_eq!(addresses(&served.ask("a.example.", RecordType::A).await), [ip("192.0.2.2")]);
}

#[tokio::test]
async fn who_was_not_asked_is_not_heard() {
    let other = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let upstream = Upstream::start(move |asked| {
        other.send_to(&bytes(&give(asked, 66)), asked.from).unwrap();
        vec![bytes(&give(asked, 1))]
    });
    let served = serve(Book::new(&[&upstream]));
    assert_eq!(addresses(&served.ask("a.example.", RecordType::A).await), [ip("192.0.2.1")]);
}

#[tokio::test]
async fn a_refusal_may_leave_the_question_out() {
    let upstream = Upstream::start(|asked| {
        let mut message = reply(asked);
        message.metadata.response_code = ResponseCode::FormErr;
        message.queries.clear();
        vec![bytes(&message)]
    });
    let served = serve(Book::new(&[&upstream]));
    let answer = served.udp(&bytes(&query("a.example.", RecordType::A))).await;
    assert_eq!(Message::from_vec(&answer).unwrap().response_code, ResponseCode::FormErr);
}

/// An upstream whose answer has 30 kB, and no room in datagrams.
fn long_winded() -> Upstream {
    Upstream::start(|asked| {
        let mut message = reply(asked);
        if asked.tcp {
            let name = message.queries[0].name.clone();
            for n in 0..120 {
                let text = TXT::new(vec![format!("{n:0>250}")]);
                message.add_answer(Record::from_rdata(name.clone(), 1, RData::TXT(text)));
            }
        } else {
            message.metadata.truncation = true;
        }
        vec![bytes(&message)]
    })
}

#[tokio::test]
async fn a_truncated_answer_is_passed_on_and_the_client_comes_again_over_tcp() {
    let upstream = long_winded();
    let served = serve(Book::new(&[&upstream]));
    let asked = bytes(&query("a.example.", RecordType::TXT));
    let short = Message::from_vec(&served.udp(&asked).await).unwrap();
    assert!(short.truncation && short.answers.is_empty());
    let whole = Message::from_vec(&served.tcp(&asked).await).unwrap();
    assert_eq!((whole.truncation, whole.answers.len()), (false, 120));
    assert_eq!(upstream.seen().iter().map(|asked| asked.tcp).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test]
async fn a_long_datagram_passes_whole() {
    let upstream = Upstream::start(|asked| {
        let mut answer = bytes(&reply(asked));
        answer.resize(60_000, 7);
        vec![answer]
    });
    let served = serve(Book::new(&[&upstream]));
    let asked = bytes(&query_edns("a.example.", RecordType::TXT, 65535));
    assert_eq!(served.udp(&asked).await.len(), 60_000);
}

#[tokio::test]
async fn queries_in_flight_are_limited() {
    let silent = Upstream::silent();
    let options = Options {
        max_in_flight: 3,
        upstream_timeout: LONG * 3,
        total_timeout: LONG * 3,
        ..Options::default()
    };
    let served = serve_with(Book::new(&[&silent]), options);
    let socket = served.client().await;
    for _ in 0..10 {
        socket.send(&bytes(&query("a.example.", RecordType::A))).await.unwrap();
    }
    for _ in 0..7 {
        let answer = Message::from_vec(&receive(&socket).await).unwrap();
        assert_eq!(answer.response_code, ResponseCode::ServFail);
    }
    until(|| silent.count() == 3).await;
    // Over TCP too; and what is known is answered still.
    let answer = served.tcp(&bytes(&query("a.example.", RecordType::A))).await;
    assert_eq!(Message::from_vec(&answer).unwrap().response_code, ResponseCode::ServFail);
    assert_eq!(served.ask("db.example.", RecordType::A).await.answers.len(), 1);
}

#[tokio::test]
async fn room_is_given_back() {
    let upstream = Upstream::giving(1);
    let served = serve_with(Book::new(&[&upstream]), Options { max_in_flight: 1, ..Options::default() });
    for _ in 0..20 {
        assert_eq!(served.ask("a.example.", RecordType::A).await.response_code, ResponseCode::NoError);
    }
}

#[tokio::test]
async fn upstreams_may_have_ipv6() {
    let Ok(socket) = UdpSocket::bind("[::1]:0").await else { return };
    let mut book = Book::new(&[]);
    book.upstreams = vec![socket.local_addr().unwrap()];
    let served = serve(book);
    let answering = async {
        let mut buffer = [0; 512];
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        let asked = Asked { bytes: buffer[..length].to_vec(), from, tcp: false };
        socket.send_to(&bytes(&give(&asked, 6)), from).await.unwrap();
    };
    let (answer, ()) = tokio::join!(served.ask("a.example.", RecordType::A), answering);
    assert_eq!(addresses(&answer), [ip("192.0.2.6")]);
}
