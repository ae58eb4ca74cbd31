//! Which ports programs of this host have, from what the kernel lists of its sockets (proc_pid_net(5)).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use crate::Transport;
use crate::error::{Error, Result};
use crate::ports::clash;

/// The state of a listening TCP socket, as listed.
const LISTENING: &str = "0A";

/// A port of the range that somebody has at this address, in the network namespace of the calling thread.
///
/// # Errors
/// If the kernel's list cannot be read.
pub(crate) fn port_in_use(
    transport: Transport,
    ip: &IpAddr,
    range: &RangeInclusive<u16>,
) -> Result<Option<u16>> {
    let lists: &[&str] = match transport {
        Transport::Tcp => &["tcp", "tcp6"],
        Transport::Udp => &["udp", "udp6"],
        Transport::Sctp => &["sctp/eps"],
    };
    let mut found = None;
    for list in lists {
        let path = format!("/proc/thread-self/net/{list}");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            // Of a protocol or family that this kernel has not, nobody has a socket.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(Error::system(format!("read {path}"), e)),
        };
        let sockets = text.lines().skip(1).filter_map(|line| match transport {
            Transport::Sctp => sctp_port(line).map(|port| (None, port)),
            _ => socket(line, transport == Transport::Tcp).map(|(own, port)| (Some(own), port)),
        });
        let taken = sockets.filter(|(own, port)| {
            range.contains(port) && own.is_none_or(|own| clash(&own, ip) || is_of_both(&own))
        });
        found = taken.map(|(_, port)| port).chain(found).min();
    }
    Ok(found)
}

/// A socket of all of IPv6 is one of all of IPv4 as well, unless its program said otherwise, which is not listed.
fn is_of_both(own: &IpAddr) -> bool {
    *own == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
}

/// Address and port of a line of `tcp`, `tcp6`, `udp` or `udp6`.
fn socket(line: &str, listening_only: bool) -> Option<(IpAddr, u16)> {
    let mut words = line.split_whitespace().skip(1);
    let (address, port) = words.next()?.split_once(':')?;
    let state = words.nth(1)?;
    if listening_only && state != LISTENING {
        return None;
    }
    // Words of four bytes, each in the machine's order.
    let word = |n: usize| u32::from_str_radix(address.get(n * 8..n * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (n, four) in bytes.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&word(n)?);
            }
            let ip = Ipv6Addr::from(bytes);
            ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4)
        }
        _ => return None,
    };
    Some((ip, u16::from_str_radix(port, 16).ok()?))
}

/// The port of a line of `sctp/eps`.
fn sctp_port(line: &str) -> Option<u16> {
    line.split_whitespace().nth(5)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel() {
        let listening =
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1";
        assert_eq!(socket(listening, true), Some((Ipv4Addr::LOCALHOST.into(), 8080)));
        let connected = listening.replace(" 0A ", " 01 ");
        assert_eq!(socket(&connected, true), None);
        assert!(socket(&connected, false).is_some());
        let six = "   1: 00000000000000000000000001000000:0035 00000000000000000000000000000000:0000 07 0:0";
        assert_eq!(socket(six, false), Some((Ipv6Addr::LOCALHOST.into(), 53)));
        let mapped = "   1: 0000000000000000FFFF00000100007F:0035 0:0 0A 0:0";
        assert_eq!(socket(mapped, true), Some((Ipv4Addr::LOCALHOST.into(), 53)));
        for bad in ["", "0: x", "0: 0100007F 0 0A", "0: 010000:1 0 0A", "0: éééé:1 0 0A"] {
            assert_eq!(socket(bad, true), None, "{bad}");
        }
        assert_eq!(sctp_port("ffff 1111 2 10 29 5000 0 1 10.0.0.1"), Some(5000));
    }
}
