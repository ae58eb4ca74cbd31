//! A container's question and an upstream's answer: whatever comes, the client gets an answer to what it asked, of a size
//! that it takes, or nothing; no answer is answered; and what is said over UDP is what is said over TCP, or cut short.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use longshore_dns::{Names, Plan, Protocol, Reply, plan};

struct Book {
    internal: bool,
}

impl Names for Book {
    fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        assert!(!name.is_empty() && !name.ends_with('.') && name == name.to_ascii_lowercase(), "{name:?}");
        let four = |n| IpAddr::from(Ipv4Addr::from_bits(0xac12_0002 + n));
        let six = |n: u32| IpAddr::from(Ipv6Addr::from_bits((0xfd << 120) + u128::from(n)));
        match name {
            "w" | "web" | "web.net" => Some([0, 1, 2].into_iter().flat_map(|n| [four(n), six(n)]).collect()),
            "m" | "many" => Some((0..6000).map(four).collect()),
            "idle" => Some(Vec::new()),
            _ => None,
        }
    }

    fn name_of(&self, address: IpAddr) -> Option<String> {
        let name = match address {
            IpAddr::V4(ip) if ip.octets()[3] == 1 => "web.net".to_owned(),
            IpAddr::V6(ip) if ip.octets()[15] == 1 => "a".repeat(64),
            _ => return None,
        };
        Some(name)
    }

    fn is_own(&self, address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(ip) if ip.octets()[0] == 10)
    }

    fn upstreams(&self) -> Vec<SocketAddr> {
        if self.internal { Vec::new() } else { vec![SocketAddr::from(([192, 0, 2, 2], 53))] }
    }
}

/// The answer to a query, or, from an upstream, to the client.
fn answer(query: &[u8], reply: &[u8], protocol: Protocol, names: &Book, turn: u32) -> Option<Vec<u8>> {
    match plan(query, protocol, names, 600, turn) {
        Plan::Nothing => {
            assert!(query.len() < 12 || query[2] & 0x80 != 0, "a query is not answered");
            None
        }
        Plan::Answer(answer) => {
            let limit = if protocol == Protocol::Udp { 4096 } else { usize::from(u16::MAX) };
            assert!(answer.len() <= limit);
            Some(answer)
        }
        Plan::Forward(request, upstreams) => {
            assert_eq!(upstreams, names.upstreams());
            assert!(!upstreams.is_empty());
            // As it is, under the client's id, and as an answer to this question alone.
            let id = u16::from_be_bytes(*reply.first_chunk()?);
            let other = Reply::read(reply.to_vec(), id.wrapping_add(1), &request);
            assert!(other.is_none(), "an answer to another query is taken");
            let told = Reply::read(reply.to_vec(), id, &request)?.for_client(&request);
            assert_eq!(told[2..], reply[2..]);
            Some(told)
        }
    }
}

/// A byte that says whether there are upstreams, one for the turn, two for the query's length, the query, the reply.
fn parts(data: &[u8]) -> Option<(&[u8], &[u8], bool, u32)> {
    let ([internal, turn, high, low], rest) = data.split_first_chunk()?;
    let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
    let (query, reply) = rest.split_at(length);
    Some((query, reply, *internal & 1 != 0, (*turn).into()))
}

fuzz_target!(|data: &[u8]| {
    let Some((query, reply, internal, turn)) = parts(data) else { return };
    let names = Book { internal };
    let [udp, tcp] = [Protocol::Udp, Protocol::Tcp].map(|protocol| {
        let answer = answer(query, reply, protocol, &names, turn);
        if let Some(answer) = &answer {
            assert_eq!(answer[..2], query[..2], "the id");
            assert!(answer[2] & 0x80 != 0, "it is an answer");
            assert!(
                matches!(plan(answer, protocol, &names, 600, turn), Plan::Nothing),
                "an answer is answered"
            );
        }
        answer
    });
    assert_eq!(udp.is_some(), tcp.is_some());
    if let (Some(udp), Some(tcp)) = (udp, tcp)
        && udp != tcp
    {
        assert!(udp[2] & 2 != 0 && udp.len() < tcp.len(), "they differ, and none is cut short");
        assert_eq!(udp[3] & 15, tcp[3] & 15, "the code");
    }
});
