//! Names and addresses of the container's networks.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{DNSClass, RData, RecordType};

use crate::common::*;

#[tokio::test]
async fn a_name_has_its_addresses_of_the_family() {
    let served = serve(Book::new(&[]));
    let answer = served.ask("web.", RecordType::A).await;
    let got: HashSet<_> = addresses(&answer).into_iter().collect();
    assert_eq!(got, ["172.18.0.2", "172.18.0.3", "172.18.0.4"].map(ip).into());
    assert!(answer.answers.iter().all(|r| r.ttl == 600 && r.dns_class == DNSClass::IN));
    assert_eq!(answer.response_code, ResponseCode::NoError);
    assert!(answer.recursion_available && answer.recursion_desired);
    assert!(!answer.authoritative && !answer.truncation && answer.edns.is_none());

    let answer = served.ask("web.", RecordType::AAAA).await;
    assert_eq!(addresses(&answer), [ip("fd00::2")]);
    assert_eq!(addresses(&served.ask("db.example.", RecordType::A).await), [ip("172.18.0.5")]);
}

#[tokio::test]
async fn recursion_is_desired_only_as_asked() {
    let served = serve(Book::new(&[]));
    let mut asked = query("web.", RecordType::A);
    asked.metadata.recursion_desired = false;
    let answer = Message::from_vec(&served.udp(&bytes(&asked)).await).unwrap();
    assert!(!answer.recursion_desired && answer.recursion_available);
}

#[tokio::test]
async fn the_ttl_is_an_option() {
    let options = longshore_dns::Options { ttl: 5, ..Default::default() };
    let served = serve_with(Book::new(&[]), options);
    assert_eq!(served.ask("db.example.", RecordType::A).await.answers[0].ttl, 5);
}

#[tokio::test]
async fn a_known_name_has_no_other_data_and_nobody_is_asked() {
    let upstream = Upstream::giving(1);
    let served = serve(Book::new(&[&upstream]));
    let none = [
        ("db.example.", RecordType::AAAA),
        ("idle.", RecordType::A),
        ("idle.", RecordType::AAAA),
        ("idle.", RecordType::ANY),
        ("web.", RecordType::MX),
        ("web.", RecordType::TXT),
        ("web.", RecordType::SRV),
        ("web.", RecordType::PTR),
        ("web.", RecordType::HTTPS),
        ("web.", RecordType::SVCB),
    ];
    for (name, kind) in none {
        let answer = served.ask(name, kind).await;
        assert_eq!(answer.response_code, ResponseCode::NoError, "{name} {kind}");
        assert!(answer.answers.is_empty(), "{name} {kind}");
    }
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn any_gives_both_families() {
    let served = serve(Book::new(&[]));
    let answer = served.ask("web.", RecordType::ANY).await;
    let kinds: Vec<_> = answer.answers.iter().map(hickory_proto::rr::Record::record_type).collect();
    assert_eq!(kinds.iter().filter(|k| **k == RecordType::A).count(), 3);
    assert_eq!(kinds.iter().filter(|k| **k == RecordType::AAAA).count(), 1);
    let asked = query_class("db.example.", RecordType::A, DNSClass::ANY);
    let answer = Message::from_vec(&served.udp(&bytes(&asked)).await).unwrap();
    assert_eq!(addresses(&answer), [ip("172.18.0.5")]);
}

#[tokio::test]
async fn each_address_gets_its_turn() {
    let served = serve(Book::new(&[]));
    let mut first = HashSet::new();
    for _ in 0..200 {
        let got = addresses(&served.ask("web.", RecordType::A).await);
        assert_eq!(got.len(), 3);
        first.insert(got[0]);
    }
    assert_eq!(first.len(), 3);
}

#[tokio::test]
async fn the_question_is_repeated_as_it_was_asked() {
    let served = serve(Book::new(&[]));
    let asked = bytes(&query("dB.eXaMPLe.", RecordType::A));
    let answer = served.udp(&asked).await;
    assert_eq!(answer[12..asked.len()], asked[12..]);
    assert_eq!(addresses(&Message::from_vec(&answer).unwrap()), [ip("172.18.0.5")]);
}

#[tokio::test]
async fn a_dot_within_a_label_is_no_dot_between_two() {
    let served = serve(Book::new(&[]));
    let mut asked = bytes(&query("db.example.", RecordType::A));
    // One label of ten bytes.
    asked[12] = 10;
    asked[15] = b'.';
    let answer = Message::from_vec(&served.udp(&asked).await).unwrap();
    assert_eq!(answer.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn addresses_have_names() {
    let upstream = Upstream::giving(1);
    let served = serve(Book::new(&[&upstream]));
    let six = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.";
    for name in ["2.0.18.172.in-addr.arpa.", "2.0.18.172.IN-ADDR.arpa.", six, &six.to_uppercase()] {
        let answer = served.ask(name, RecordType::PTR).await;
        let [record] = &answer.answers[..] else { panic!("{answer}") };
        let RData::PTR(target) = &record.data else { panic!("{answer}") };
        assert_eq!(target.to_ascii(), "web.mynet.");
        assert_eq!(record.ttl, 600);
        let other = served.ask(name, RecordType::TXT).await;
        assert_eq!((other.response_code, other.answers.len()), (ResponseCode::NoError, 0));
    }
    for name in ["77.0.18.172.in-addr.arpa.", &six.replacen("2.0.", "7.7.", 1)] {
        let answer = served.ask(name, RecordType::PTR).await;
        assert_eq!(answer.response_code, ResponseCode::NXDomain, "{name}");
    }
    assert_eq!(upstream.count(), 0);
    let others =
        ["1.1.168.192.in-addr.arpa.", "18.172.in-addr.arpa.", "1.2.0.18.172.in-addr.arpa.", "d.f.ip6.arpa."];
    for name in others {
        served.ask(name, RecordType::PTR).await;
    }
    assert_eq!(upstream.count(), others.len());
}

#[tokio::test]
async fn a_name_that_cannot_be_said_is_none() {
    let mut book = Book::new(&[]);
    book.addresses.insert(ip("172.18.0.77"), "a".repeat(64));
    book.addresses.insert(ip("fd00::77"), "a..b".to_owned());
    let served = serve(book);
    let answer = served.ask("77.0.18.172.in-addr.arpa.", RecordType::PTR).await;
    assert_eq!(answer.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn without_upstreams_nothing_is_known() {
    let served = serve(Book::new(&[]));
    let cases = [
        ("nowhere.", ResponseCode::NXDomain),
        ("www.example.org.", ResponseCode::ServFail),
        ("1.1.168.192.in-addr.arpa.", ResponseCode::ServFail),
        (".", ResponseCode::ServFail),
    ];
    for (name, code) in cases {
        let answer = served.ask(name, RecordType::A).await;
        assert_eq!(answer.response_code, code, "{name}");
        assert!(answer.recursion_available);
    }
}

#[tokio::test]
async fn zones_are_not_transferred() {
    let upstream = Upstream::giving(1);
    let served = serve(Book::new(&[&upstream]));
    for kind in [RecordType::AXFR, RecordType::IXFR] {
        for name in ["web.", "example.org."] {
            assert_eq!(served.ask(name, kind).await.response_code, ResponseCode::Refused);
        }
    }
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn edns_is_answered_with_edns() {
    let served = serve(Book::new(&[]));
    for (name, code) in [("web.", ResponseCode::NoError), ("nowhere.", ResponseCode::NXDomain)] {
        let asked = query_edns(name, RecordType::A, 1232);
        let answer = Message::from_vec(&served.udp(&bytes(&asked)).await).unwrap();
        assert_eq!(answer.response_code, code);
        let edns = answer.edns.as_ref().unwrap();
        assert_eq!((edns.version(), edns.max_payload()), (0, 4096));
        assert!(edns.flags().dnssec_ok);
    }
}

/// A name with many addresses.
fn crowd(name: &str, count: u32) -> Book {
    let mut book = Book::new(&[]);
    let all = (0..count).map(|n| Ipv4Addr::from_bits(0x0a00_0000 + n).into());
    book.names.insert(name.to_owned(), all.collect());
    book
}

#[tokio::test]
async fn what_is_too_long_for_a_datagram_is_truncated() {
    let served = serve(crowd("crowd", 1000));
    let cases = [
        (query("crowd.", RecordType::A), 512),
        (query_edns("crowd.", RecordType::A, 100), 512),
        (query_edns("crowd.", RecordType::A, 1232), 1232),
        (query_edns("crowd.", RecordType::A, 65535), 4096),
    ];
    for (asked, limit) in cases {
        let raw = served.udp(&bytes(&asked)).await;
        assert!(raw.len() <= limit && raw.len() + 30 > limit, "{} bytes of {limit}", raw.len());
        let answer = Message::from_vec(&raw).unwrap();
        assert!(answer.truncation);
        assert_eq!(answer.edns.is_some(), asked.edns.is_some());
        let all = Message::from_vec(&served.tcp(&bytes(&asked)).await).unwrap();
        assert!(!all.truncation);
        assert_eq!(addresses(&all).into_iter().collect::<HashSet<_>>().len(), 1000);
    }
}

#[tokio::test]
async fn what_just_fits_is_not_truncated() {
    for name in ["crowd".to_owned(), ["a", "b", "c"].map(|label| label.repeat(63)).join(".")] {
        for (asked, opt) in [
            (query(&format!("{name}."), RecordType::A), 0),
            (query_edns(&format!("{name}."), RecordType::A, 512), 11),
        ] {
            // Each address takes 16 bytes.
            let fitting = (512 - bytes(&query(&format!("{name}."), RecordType::A)).len() - opt) / 16;
            for more in [0, 1] {
                let served = serve(crowd(&name, u32::try_from(fitting + more).unwrap()));
                let answer = Message::from_vec(&served.udp(&bytes(&asked)).await).unwrap();
                assert_eq!(answer.truncation, more > 0);
                assert!(more > 0 || answer.answers.len() == fitting);
            }
        }
    }
}

#[tokio::test]
async fn not_even_tcp_holds_everything() {
    let served = serve(crowd("crowd", 10_000));
    let raw = served.tcp(&bytes(&query_edns("crowd.", RecordType::A, 1232))).await;
    let answer = Message::from_vec(&raw).unwrap();
    assert!(answer.truncation && answer.edns.is_some());
    assert!(raw.len() > 65000 && answer.answers.len() > 2000);
}
