//! The host's ports: found, bound and held while they are published.
//!
//! The rules in nftables catch a packet before any socket sees it, so a published port needs no socket. One is bound
//! all the same: it finds a program that has the port already, and keeps others from taking it later. For many ports in
//! a row that would be many sockets: there the host's sockets are looked through instead.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use longshore_sys::host_sockets::HostSockets;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

use crate::addr::same_family;
use crate::error::{Error, Result};
use crate::{PortMap, Transport, listeners};

/// Where a port comes from if the host's port is left open, as `ip_local_port_range` usually is.
const EPHEMERAL: RangeInclusive<u16> = 32768..=60999;

/// A port to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRequest {
    /// The transport protocol.
    pub transport: Transport,
    /// The host's addresses; 0.0.0.0 for all of IPv4, :: for all of IPv6. The port is the same on each.
    pub host_ips: Vec<IpAddr>,
    /// The host's ports of which any will do; none for a free one of the system's choice.
    pub host_ports: Option<RangeInclusive<u16>>,
    /// The container's address, for messages.
    pub container_ip: IpAddr,
    /// The port in the container, or the first.
    pub container_port: u16,
    /// How many in a row; the next leads to the next.
    pub count: u16,
}

impl PortRequest {
    /// Asks for just that port.
    pub fn again(port: &PortMap, container_ip: IpAddr) -> Self {
        Self {
            transport: port.transport,
            host_ips: vec![port.host_ip],
            host_ports: Some(port.host_port..=port.host_port),
            container_ip,
            container_port: port.container_port,
            count: port.count,
        }
    }

    /// Whether a port is one that this asks for.
    pub fn asks_for(&self, port: &PortMap) -> bool {
        (port.transport, port.container_port, port.count) == (self.transport, self.container_port, self.count)
            && self.host_ips.contains(&port.host_ip)
            && self.host_ports.as_ref().is_none_or(|range| range.contains(&port.host_port))
    }
}

/// What is taken: by protocol and host address, from the first to the last port.
type Taken = Arc<Mutex<BTreeMap<(Transport, IpAddr), BTreeMap<u16, u16>>>>;

/// Knows which ports this engine's containers have. Clones share their knowledge.
#[derive(Clone, Debug, Default)]
pub struct PortAllocator {
    taken: Taken,
    host: HostSockets,
}

/// Ports that are ours until this is dropped.
#[derive(Debug)]
pub struct PortReservation {
    held: Vec<Held>,
    taken: Taken,
}

/// A port and the socket that holds it; several in a row have none, and SCTP may have none.
type Held = (PortMap, Option<OwnedFd>);

impl PortAllocator {
    /// None are taken yet. They are those of the network namespace that `host` leads to.
    pub fn new(host: HostSockets) -> Self {
        Self { taken: Taken::default(), host }
    }

    /// Takes all the ports or none.
    ///
    /// # Errors
    /// If a port is taken by one of our containers, or by a program of the host.
    pub fn reserve(&self, requests: &[PortRequest]) -> Result<PortReservation> {
        let mut reservation = PortReservation { held: Vec::new(), taken: Arc::clone(&self.taken) };
        for request in requests {
            // What is taken so far goes back when the reservation is dropped.
            self.reserve_one(request, &mut reservation)?;
        }
        Ok(reservation)
    }

    /// Makes a reservation one of other requests: what it has of them it keeps, the rest is free again.
    ///
    /// # Errors
    /// If a port is taken; then it has what it had.
    pub fn change(&self, reservation: &mut PortReservation, requests: &[PortRequest]) -> Result<()> {
        let mut old = std::mem::take(&mut reservation.held);
        let mut missing = Vec::new();
        for request in requests {
            match port_for(request, &old) {
                Some(port) => {
                    let same = |held: &mut Held| held.0.host_port == port && request.asks_for(&held.0);
                    reservation.held.extend(old.extract_if(.., same));
                }
                None => missing.push(request),
            }
        }
        let kept = reservation.held.len();
        let gone: Vec<PortMap> = old.iter().map(|(port, _)| *port).collect();
        // What is to be taken may be what is given back.
        drop(PortReservation { held: old, taken: Arc::clone(&self.taken) });
        let Err(error) = missing.into_iter().try_for_each(|r| self.reserve_one(r, reservation)) else {
            return Ok(());
        };
        let new = reservation.held.split_off(kept);
        drop(PortReservation { held: new, taken: Arc::clone(&self.taken) });
        for port in gone {
            let ip = requests.first().map_or(port.host_ip, |r| r.container_ip);
            let again = PortRequest::again(&port, ip);
            if let Err(lost) = self.reserve_one(&again, reservation) {
                tracing::warn!(port = port.host_port, "somebody took a port meanwhile: {lost}");
            }
        }
        Err(error)
    }

    fn reserve_one(&self, request: &PortRequest, reservation: &mut PortReservation) -> Result<()> {
        let range = match &request.host_ports {
            Some(range) if range.is_empty() || *range.start() == 0 => {
                return Err(Error::Invalid(format!(
                    "invalid host port range {}-{}",
                    range.start(),
                    range.end()
                )));
            }
            Some(range) => range.clone(),
            None => EPHEMERAL,
        };
        let fixed = (range.start() == range.end()).then_some(*range.start());
        for port in candidates(&range, request.host_ports.is_none())? {
            match self.take(request, port) {
                Ok(sockets) => {
                    let ports = request.host_ips.iter().map(|host_ip| PortMap {
                        transport: request.transport,
                        host_ip: *host_ip,
                        host_port: port,
                        container_port: request.container_port,
                        count: request.count,
                    });
                    reservation.held.extend(ports.zip(sockets));
                    return Ok(());
                }
                Err(error) if fixed.is_some() => return Err(error),
                // Only a port that is taken leads to the next; an address that is not ours would fail for each.
                Err(error @ Error::PortBind { .. }) if !error.is_taken() => return Err(error),
                Err(_) => {}
            }
        }
        Err(Error::PortsExhausted {
            host_ips: request.host_ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", "),
            range: format!("{}-{}/{}", range.start(), range.end(), request.transport),
        })
    }

    /// Takes a port, or several in a row, on all addresses or on none.
    fn take(&self, request: &PortRequest, first: u16) -> Result<Vec<Option<OwnedFd>>> {
        let transport = request.transport;
        let last = first.checked_add(request.count.saturating_sub(1)).ok_or_else(|| {
            Error::Invalid(format!("{} ports from {first} on are more than there are", request.count))
        })?;
        let mut taken = lock(&self.taken);
        let mut sockets = Vec::new();
        for ip in &request.host_ips {
            let of_others = taken.iter().filter(|((t, other), _)| *t == transport && clash(other, ip));
            let before = of_others.filter_map(|(_, ranges)| ranges.range(..=last).next_back());
            if let Some((other, _)) = before.into_iter().find(|(_, end)| **end >= first) {
                let host = SocketAddr::new(*ip, first.max(*other));
                return Err(Error::PortAllocated { host: host.to_string() });
            }
            let failed = |port: u16, source| Error::PortBind {
                binding: format!(
                    "{}:{}/{transport}",
                    SocketAddr::new(*ip, port),
                    SocketAddr::new(request.container_ip, request.container_port + (port - first))
                ),
                source,
            };
            sockets.push(match request.count {
                1 => {
                    let address = SocketAddr::new(*ip, first);
                    let held = self.host.within(move || hold(transport, address));
                    held.map_err(io::Error::from).flatten().map_err(|source| failed(first, source))?
                }
                _ => {
                    let ip = *ip;
                    let look = move || listeners::port_in_use(transport, &ip, &(first..=last));
                    let looked = self.host.within(look);
                    let looked =
                        looked.map_err(|e| Error::system("look for ports in use", io::Error::from(e)));
                    if let Some(port) = looked.flatten()? {
                        return Err(failed(port, Errno::ADDRINUSE.into()));
                    }
                    None
                }
            });
        }
        for ip in &request.host_ips {
            taken.entry((transport, *ip)).or_default().insert(first, last);
        }
        Ok(sockets)
    }
}

/// Whether the same port at two addresses is one port.
pub(crate) fn clash(a: &IpAddr, b: &IpAddr) -> bool {
    same_family(a, b) && (a.is_unspecified() || b.is_unspecified() || a == b)
}

impl PortReservation {
    /// The sockets that hold ports for which `wanted` says so, again: whoever listens on them gets what no rule of the
    /// firewall catches before.
    ///
    /// # Errors
    /// If the system has no descriptor left.
    pub fn sockets(&self, wanted: impl Fn(&PortMap) -> bool) -> Result<Vec<(PortMap, OwnedFd)>> {
        let sockets = self.held.iter().filter_map(|(port, socket)| Some((*port, socket.as_ref()?)));
        let wanted = sockets.filter(|(port, _)| wanted(port));
        let own = wanted.map(|(port, socket)| Ok((port, socket.try_clone()?)));
        own.collect::<io::Result<_>>().map_err(|e| Error::system("use the socket of a port", e))
    }

    /// The ports, in the order in which they were taken.
    pub fn ports(&self) -> Vec<PortMap> {
        self.held.iter().map(|(port, _)| *port).collect()
    }
}

/// The host's port that answers a request on each of its addresses.
fn port_for(request: &PortRequest, held: &[Held]) -> Option<u16> {
    let has = |number: u16, ip: &IpAddr| {
        held.iter().any(|(port, _)| port.host_port == number && port.host_ip == *ip && request.asks_for(port))
    };
    let mut numbers = held.iter().filter(|(port, _)| request.asks_for(port)).map(|(port, _)| port.host_port);
    numbers.find(|number| request.host_ips.iter().all(|ip| has(*number, ip)))
}

impl Drop for PortReservation {
    fn drop(&mut self) {
        let mut taken = lock(&self.taken);
        for (port, socket) in self.held.drain(..) {
            // The socket first: who is told that a port is free must be able to bind it.
            drop(socket);
            if let Some(ranges) = taken.get_mut(&(port.transport, port.host_ip)) {
                ranges.remove(&port.host_port);
            }
        }
    }
}

impl Error {
    fn is_taken(&self) -> bool {
        matches!(self, Error::PortBind { source, .. } if source.kind() == io::ErrorKind::AddrInUse)
    }
}

/// The system's words for why a port cannot be bound, as clients know them.
pub(crate) fn bind_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address already in use".to_owned(),
        io::ErrorKind::AddrNotAvailable => "cannot assign requested address".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied: choose a port from 1024 on, or have root set \
                                            net.ipv4.ip_unprivileged_port_start"
            .to_owned(),
        _ => error.to_string(),
    }
}

/// The ports of a range in the order in which to try them: from a random one on if the choice is ours, so that a
/// port just given back is not at once somebody else's.
fn candidates(range: &RangeInclusive<u16>, ours: bool) -> Result<impl Iterator<Item = u16> + use<>> {
    let mut start = *range.start();
    if ours {
        let mut random = [0u8; 2];
        crate::addr::random_bytes(&mut random)?;
        let width = (range.end() - range.start()).saturating_add(1);
        start = range.start() + u16::from_ne_bytes(random) % width;
    }
    let before = *range.start()..start;
    Ok((start..=*range.end()).chain(before))
}

/// A socket that has the port; none of a protocol that this kernel has no sockets of, which then nobody can have.
fn hold(transport: Transport, address: SocketAddr) -> io::Result<Option<OwnedFd>> {
    match bound(transport, address, false) {
        // Connections of a server that is gone linger for a minute, and count as use unless reuse is asked for. Then
        // only listening tells them from a live server.
        Err(Errno::ADDRINUSE) if transport == Transport::Tcp => Ok(Some(bound(transport, address, true)?)),
        Err(Errno::PROTONOSUPPORT) if transport == Transport::Sctp => Ok(None),
        other => Ok(Some(other?)),
    }
}

fn bound(transport: Transport, address: SocketAddr, reuse: bool) -> Result<OwnedFd, Errno> {
    let kind = match transport {
        Transport::Tcp | Transport::Sctp => SocketType::STREAM,
        Transport::Udp => SocketType::DGRAM,
    };
    let protocol = (transport == Transport::Sctp).then_some(rustix::net::ipproto::SCTP);
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, protocol)?;
    if address.is_ipv6() {
        // The same port of IPv4 is another.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if reuse {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &address)?;
    if reuse {
        listen(&socket, 0)?;
    }
    Ok(socket)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};

    fn request(transport: Transport, ip: [u8; 4], ports: Option<RangeInclusive<u16>>) -> PortRequest {
        PortRequest {
            transport,
            host_ips: vec![ip.into()],
            host_ports: ports,
            container_ip: [172, 17, 0, 2].into(),
            container_port: 80,
            count: 1,
        }
    }

    const LO: [u8; 4] = [127, 0, 0, 1];

    #[test]
    fn a_port_is_the_same_of_both_families() {
        let ports = PortAllocator::new(HostSockets::default());
        let both = |port: Option<RangeInclusive<u16>>| PortRequest {
            host_ips: vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            ..request(Transport::Tcp, LO, port)
        };
        let held = ports.reserve(&[both(None)]).unwrap();
        let [four, six] = *held.ports().as_slice() else { panic!("{held:?}") };
        assert_eq!(four.host_port, six.host_port);
        assert!(four.host_ip.is_ipv4() && six.host_ip.is_ipv6());
        let port = four.host_port;
        let six = PortRequest {
            host_ips: vec![Ipv6Addr::UNSPECIFIED.into()],
            ..request(Transport::Tcp, LO, Some(port..=port))
        };
        let again = ports.reserve(std::slice::from_ref(&six)).unwrap_err();
        assert_eq!(again.to_string(), format!("Bind for [::]:{port} failed: port is already allocated"));
        drop(held);
        // Of one family it may be another's of the other.
        let held = ports.reserve(&[request(Transport::Tcp, [0, 0, 0, 0], Some(port..=port))]).unwrap();
        let other = ports.reserve(&[six]).unwrap();
        drop((held, other));
    }

    #[test]
    fn our_own_port_is_told_from_a_foreign_one() {
        let ports = PortAllocator::new(HostSockets::default());
        let held = ports.reserve(&[request(Transport::Tcp, LO, None)]).unwrap();
        let port = held.ports()[0].host_port;
        assert!(EPHEMERAL.contains(&port));
        let again = ports.reserve(&[request(Transport::Tcp, [0, 0, 0, 0], Some(port..=port))]).unwrap_err();
        assert_eq!(again.to_string(), format!("Bind for 0.0.0.0:{port} failed: port is already allocated"));
        // Others cannot take it either, and do not learn of it by a connection that hangs.
        assert!(TcpListener::bind(("127.0.0.1", port)).is_err());
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
        // The same number of the other protocol is another port.
        let udp = ports.reserve(&[request(Transport::Udp, LO, Some(port..=port))]);
        assert!(udp.is_ok());
        drop(held);
        assert!(ports.reserve(&[request(Transport::Tcp, LO, Some(port..=port))]).is_ok());
    }

    #[test]
    fn a_program_of_the_host_is_noticed() {
        let ports = PortAllocator::new(HostSockets::default());
        let tcp = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = tcp.local_addr().unwrap().port();
        let error = ports.reserve(&[request(Transport::Tcp, LO, Some(port..=port))]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "failed to bind host port for 127.0.0.1:{port}:172.17.0.2:80/tcp: address already in use"
            )
        );
        let udp = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        let port = udp.local_addr().unwrap().port();
        assert!(ports.reserve(&[request(Transport::Udp, LO, Some(port..=port))]).is_err());
        // From TEST-NET: not an address of this host, and told so at once though the range is long.
        let error = ports.reserve(&[request(Transport::Udp, [203, 0, 113, 9], None)]).unwrap_err();
        assert!(error.to_string().ends_with("cannot assign requested address"), "{error}");
    }

    #[test]
    fn all_ports_or_none() {
        let ports = PortAllocator::new(HostSockets::default());
        let held = ports.reserve(&[request(Transport::Tcp, LO, None)]).unwrap();
        let port = held.ports()[0].host_port;
        let both =
            [request(Transport::Udp, LO, Some(port..=port)), request(Transport::Tcp, LO, Some(port..=port))];
        assert!(ports.reserve(&both).is_err());
        assert!(UdpSocket::bind(("127.0.0.1", port)).is_ok());
    }

    #[test]
    fn a_range_gives_its_first_free_port() {
        let ports = PortAllocator::new(HostSockets::default());
        let held = ports.reserve(&[request(Transport::Tcp, LO, None)]).unwrap();
        let port = held.ports()[0].host_port;
        let range = port..=port.saturating_add(20);
        let next = ports.reserve(&[request(Transport::Tcp, LO, Some(range))]).unwrap();
        assert!(next.ports()[0].host_port > port);
        assert!(ports.reserve(&[request(Transport::Tcp, LO, Some(0..=5))]).is_err());
    }

    #[test]
    fn lingering_connections_do_not_block_a_port() {
        let server = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = server.local_addr().unwrap().port();
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        drop(server.accept().unwrap());
        drop(server);
        drop(client);
        assert!(
            PortAllocator::new(HostSockets::default())
                .reserve(&[request(Transport::Tcp, LO, Some(port..=port))])
                .is_ok()
        );
    }

    #[test]
    fn a_reservation_keeps_what_it_is_asked_for_again() {
        let ports = PortAllocator::new(HostSockets::default());
        let ip = [127, 0, 0, 1];
        let any = |port: u16| PortRequest { container_port: port, ..request(Transport::Tcp, ip, None) };
        let mut held = ports.reserve(&[any(80), any(81)]).expect("free ones");
        let before = held.ports();
        ports.change(&mut held, &[any(81), any(82)]).expect("another");
        let after = held.ports();
        assert_eq!((after.len(), after[0]), (2, before[1]));
        // The one that went is free; the same number may lead elsewhere at once.
        let moved = before[0].host_port..=before[0].host_port;
        ports.change(&mut held, &[PortRequest { host_ports: Some(moved), ..any(83) }]).expect("free again");
        let one = held.ports();
        assert_eq!((one.len(), one[0].host_port, one[0].container_port), (1, before[0].host_port, 83));
        // A change that cannot be leaves it as it was.
        let other = TcpListener::bind("127.0.0.1:0").expect("listener");
        let port = other.local_addr().expect("address").port();
        let taken = PortRequest { host_ports: Some(port..=port), ..any(84) };
        ports.change(&mut held, &[any(85), taken]).expect_err("it is taken");
        assert_eq!(held.ports(), one);
        ports.change(&mut held, &[]).expect("nothing");
        assert!(held.ports().is_empty());
    }

    #[test]
    fn many_ports_in_a_row_need_no_sockets() {
        let ports = PortAllocator::new(HostSockets::default());
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let row = |first: u16, count: u16| PortRequest {
            count,
            ..request(Transport::Tcp, [0, 0, 0, 0], Some(first..=first))
        };
        // A program of the host has one of them.
        let (first, count) = (port.saturating_sub(50), 100);
        let error = ports.reserve(&[row(first, count)]).unwrap_err();
        assert!(error.to_string().contains(&format!("0.0.0.0:{port}:172.17.0.2:{}/tcp", 80 + 50)), "{error}");
        drop(listener);
        let held = ports.reserve(&[row(first, count)]).unwrap();
        assert_eq!(held.ports().iter().map(|p| p.count).collect::<Vec<_>>(), [100]);
        assert!(held.sockets(|_| true).unwrap().is_empty());
        // None of them is anybody else's, alone or in a row, at whatever address.
        for other in [row(first, 1), row(first + 99, 1), row(first - 1, 3), row(first + 99, 3)] {
            let error = ports.reserve(std::slice::from_ref(&other)).unwrap_err();
            assert!(error.to_string().ends_with("port is already allocated"), "{error}");
            let one = PortRequest { host_ips: vec![LO.into()], ..other };
            assert!(ports.reserve(&[one]).is_err());
        }
        assert!(ports.reserve(&[row(first - 10, 10), row(first + 100, 10)]).is_ok());
        assert!(ports.reserve(&[row(65530, 10)]).is_err());
        drop(held);
        assert!(ports.reserve(&[row(first, 1)]).is_ok());
    }
}
