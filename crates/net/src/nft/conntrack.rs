//! Connection tracking: a UDP flow has no end that the kernel could see, so it goes on translating one as it began,
//! to a container that is gone or not at all. When a port is published or withdrawn, its flows are forgotten.

use rustix::io::Errno;

use super::table::{Nft, request_in};
use super::wire;
use super::{FAMILY_IPV4, FAMILY_IPV6};
use crate::Transport;
use crate::error::Result;
use crate::netlink::Request;
use crate::plan::rules::{Element, Part};

const MSG_GET: u16 = (1 << 8) | 1;
const MSG_DELETE: u16 = (1 << 8) | 2;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_DESTINATION: u16 = 3;
const ID: u16 = 12;

/// Deletions sent at once; their answers must fit the socket's buffer.
const PORTION: usize = 200;

impl Nft {
    /// Forgets the UDP flows to the host's ports of `elements`.
    pub(crate) fn forget_flows(&mut self, elements: &[&Element]) -> Result<()> {
        let ports: Vec<(u16, u16)> = elements.iter().filter_map(|element| udp_ports(element)).collect();
        if ports.is_empty() {
            return Ok(());
        }
        let changed = |port: &u16| ports.iter().any(|(first, last)| (first..=last).contains(&port));
        let mut stale = Vec::new();
        for family in [FAMILY_IPV4, FAMILY_IPV6] {
            let list = request_in(family, MSG_GET, 0, "list tracked connections".to_owned(), |_| {});
            for answer in self.socket.dump(&list)? {
                let (_, flow) = wire::body(&answer.payload);
                if udp_destination(flow).is_some_and(|port| changed(&port)) {
                    stale.extend(deletion(family, flow));
                }
            }
        }
        stale.chunks(PORTION).try_for_each(|portion| self.socket.run(portion))
    }
}

/// The host's ports of an element, if they are of UDP.
fn udp_ports(element: &Element) -> Option<(u16, u16)> {
    let udp = element.key.contains(&Part::Protocol(Transport::Udp));
    element.key.iter().find_map(|part| match part {
        Part::Ports(first, last) if udp => Some((*first, *last)),
        _ => None,
    })
}

/// The port that a flow was first sent to, if it is UDP.
fn udp_destination(flow: &[u8]) -> Option<u16> {
    let protocol = wire::attribute(wire::attribute(flow, TUPLE_ORIGINAL)?, TUPLE_PROTOCOL)?;
    let [number] = *wire::attribute(protocol, PROTOCOL_NUMBER)? else { return None };
    let port = wire::attribute(protocol, PROTOCOL_DESTINATION)?.try_into().ok().map(u16::from_be_bytes)?;
    (Transport::from_number(number) == Some(Transport::Udp)).then_some(port)
}

fn deletion(family: u8, flow: &[u8]) -> Option<Request> {
    let original = wire::attribute(flow, TUPLE_ORIGINAL)?;
    let id = wire::u32(flow, ID)?;
    let request = request_in(family, MSG_DELETE, 0, "forget a tracked connection".to_owned(), |w| {
        // The identity keeps a new flow between the same ends from being meant.
        w.nest(TUPLE_ORIGINAL, |w| w.raw(original)).u32(ID, id);
    });
    Some(request.tolerating(Errno::NOENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_udp_flows_are_meant() {
        let flow = |number: u8, port: u16| {
            let mut w = wire::Writer::new(FAMILY_IPV4, 0);
            w.nest(TUPLE_ORIGINAL, |w| {
                w.nest(TUPLE_PROTOCOL, |w| {
                    w.bytes(PROTOCOL_NUMBER, &[number]).bytes(PROTOCOL_DESTINATION, &port.to_be_bytes());
                });
            });
            w.u32(ID, 7).finish().split_off(4)
        };
        assert_eq!(udp_destination(&flow(17, 53)), Some(53));
        assert_eq!(udp_destination(&flow(6, 53)), None);
        assert!(deletion(FAMILY_IPV4, &flow(17, 53)).is_some());
        for end in 0..flow(17, 53).len() {
            let _ = udp_destination(&flow(17, 53)[..end]);
        }
    }
}
