//! What is done with a query: a pure function of its bytes and of the names.

use std::net::{IpAddr, SocketAddr};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};

use crate::request::{Malformed, Request};
use crate::{Names, Protocol};

/// What is done with a query.
#[derive(Debug)]
pub enum Plan {
    /// It is ignored.
    Nothing,
    /// This is the answer.
    Answer(Vec<u8>),
    /// These are asked, in this order; there is at least one.
    Forward(Request, Vec<SocketAddr>),
}

/// What is known here.
enum Verdict {
    Code(ResponseCode),
    /// The name exists, with these records of the type that was asked for.
    Data(Vec<RData>),
    Forward(Vec<SocketAddr>),
}

/// Plans a message that came. `turn`, a random number, says with which of several addresses the answer begins.
pub fn plan(bytes: &[u8], protocol: Protocol, names: &dyn Names, ttl: u32, turn: u32) -> Plan {
    let request = match Request::parse(bytes, protocol) {
        Ok(request) => request,
        Err(Malformed::Silent) => return Plan::Nothing,
        Err(Malformed::Told(answer)) => return answer.map_or(Plan::Nothing, Plan::Answer),
    };
    let answer = match decide(&request, names, turn) {
        Verdict::Code(code) => request.answer_code(code),
        Verdict::Data(data) => request.answer(ResponseCode::NoError, data, ttl),
        Verdict::Forward(upstreams) => return Plan::Forward(request, upstreams),
    };
    answer.map_or(Plan::Nothing, Plan::Answer)
}

fn decide(request: &Request, names: &dyn Names, turn: u32) -> Verdict {
    let question = &request.question;
    if request.edns_version() > 0 {
        // RFC 6891, 6.1.3.
        return Verdict::Code(ResponseCode::BADVERS);
    }
    if matches!(question.query_type, RecordType::AXFR | RecordType::IXFR) {
        return Verdict::Code(ResponseCode::Refused);
    }
    if matches!(question.query_class, DNSClass::IN | DNSClass::ANY) {
        let known = by_name(&question.name, question.query_type, names, turn)
            .or_else(|| by_address(&question.name, question.query_type, names));
        if let Some(verdict) = known {
            return verdict;
        }
    }
    let upstreams = names.upstreams();
    if !upstreams.is_empty() {
        return Verdict::Forward(upstreams);
    }
    let single = question.name.iter().count() == 1;
    Verdict::Code(if single { ResponseCode::NXDomain } else { ResponseCode::ServFail })
}

/// The addresses of a name; of other types there is nothing, but the name exists (NODATA: RFC 2308, 2.2).
fn by_name(name: &Name, kind: RecordType, names: &dyn Names, turn: u32) -> Option<Verdict> {
    let mut addresses = names.addresses(&text(name)?)?;
    addresses.retain(|address| match kind {
        RecordType::A => address.is_ipv4(),
        RecordType::AAAA => address.is_ipv6(),
        _ => kind == RecordType::ANY,
    });
    rotate(&mut addresses, turn);
    Some(Verdict::Data(addresses.into_iter().map(RData::from).collect()))
}

/// Clients mostly use the first address: each gets its turn.
fn rotate(addresses: &mut [IpAddr], turn: u32) {
    let turn = usize::try_from(turn).unwrap_or_default();
    if let Some(turn) = turn.checked_rem(addresses.len()) {
        addresses.rotate_left(turn);
    }
}

/// The name of an address (RFC 1035, 3.5; RFC 3596, 2.5).
fn by_address(name: &Name, kind: RecordType, names: &dyn Names) -> Option<Verdict> {
    let net = name.parse_arpa_name().ok()?;
    if net.prefix_len() != net.max_prefix_len() {
        return None;
    }
    match names.name_of(net.addr()).as_deref().and_then(name_from) {
        Some(_) if !matches!(kind, RecordType::PTR | RecordType::ANY) => Some(Verdict::Data(Vec::new())),
        Some(target) => Some(Verdict::Data(vec![RData::PTR(PTR(target))])),
        None if names.is_own(net.addr()) => Some(Verdict::Code(ResponseCode::NXDomain)),
        None => None,
    }
}

/// A name as [`Names`] takes it; `None` for the root, and for what cannot be the name of a container.
fn text(name: &Name) -> Option<String> {
    let mut text = String::with_capacity(name.len());
    for label in name {
        let label = std::str::from_utf8(label).ok()?;
        // A dot within a label is no dot between two.
        if label.contains('.') {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(label);
    }
    text.make_ascii_lowercase();
    (!text.is_empty()).then_some(text)
}

/// `None` for what cannot be said on the wire, as a label is longer than 63 bytes.
fn name_from(text: &str) -> Option<Name> {
    Name::from_labels(text.split('.').map(str::as_bytes)).ok()
}
