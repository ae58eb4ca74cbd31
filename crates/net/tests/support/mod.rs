//! Network namespaces for tests: one plays the host, others a neighbour on its LAN and the containers. Nothing here
//! touches the machine's own network.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use longshore_net::{BridgeConfig, DefaultRoute, Endpoint, PortMap, Subnet, Transport, random_mac};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A named network namespace, deleted on drop.
pub(crate) struct Namespace {
    pub(crate) name: String,
    file: File,
}

impl Namespace {
    pub(crate) fn new(role: &str) -> Self {
        let n = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("lsnet-{}-{n}-{role}", std::process::id());
        run("ip", &["netns", "add", &name]);
        let file = File::open(format!("/run/netns/{name}")).unwrap();
        let namespace = Namespace { name, file };
        namespace.ip("link set lo up");
        namespace
    }

    /// A container's: nothing is up.
    pub(crate) fn bare() -> Self {
        let namespace = Self::new("ct");
        namespace.ip("link set lo down");
        namespace
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Runs `work` on a thread inside.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    move_into_link_name_space(self.fd(), Some(LinkNameSpaceType::Network)).unwrap();
                    work()
                })
                .join()
                .unwrap()
        })
    }

    pub(crate) fn ip(&self, arguments: &str) -> String {
        let all: Vec<&str> = ["-n", &self.name].into_iter().chain(arguments.split_whitespace()).collect();
        run("ip", &all)
    }

    pub(crate) fn exec(&self, program: &str, arguments: &[&str]) -> String {
        let all: Vec<&str> =
            ["netns", "exec", &self.name, program].into_iter().chain(arguments.iter().copied()).collect();
        run("ip", &all)
    }

    pub(crate) fn sysctl(&self, path: &str, value: &str) {
        self.within(|| std::fs::write(format!("/proc/sys/net/{path}"), value)).unwrap();
    }

    /// A server that answers every connection with the caller's address.
    pub(crate) fn serve_tcp(&self, address: &str) {
        let listener = self.within(|| TcpListener::bind(address)).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { break };
                let peer = stream.peer_addr().unwrap().ip().to_string();
                let _ = stream.write_all(peer.as_bytes());
            }
        });
    }

    /// The same for datagrams.
    pub(crate) fn serve_udp(&self, address: &str) {
        let socket = self.within(|| UdpSocket::bind(address)).unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 16];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(peer.ip().to_string().as_bytes(), peer);
            }
        });
    }

    /// Asks a TCP server; what it answered, or none if it cannot be reached.
    pub(crate) fn ask_tcp(&self, address: &str, patience: Duration) -> Option<String> {
        let address: SocketAddr = address.parse().unwrap();
        self.within(|| {
            let mut stream = TcpStream::connect_timeout(&address, patience).ok()?;
            stream.set_read_timeout(Some(patience)).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).ok()?;
            Some(text)
        })
    }

    pub(crate) fn ask_udp(&self, address: &str, patience: Duration) -> Option<String> {
        self.within(|| {
            let own = if address.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
            let socket = UdpSocket::bind(own).unwrap();
            socket.connect(address).ok()?;
            socket.set_read_timeout(Some(patience)).unwrap();
            socket.send(b"?").ok()?;
            let mut buffer = [0; 64];
            match socket.recv(&mut buffer) {
                Ok(n) => Some(String::from_utf8_lossy(&buffer[..n]).into_owned()),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused) => None,
                Err(e) => panic!("{e}"),
            }
        })
    }

    pub(crate) fn tcp(&self, address: &str) -> Option<String> {
        self.ask_tcp(address, LONG)
    }

    pub(crate) fn links(&self) -> String {
        self.ip("-o link")
    }

    pub(crate) fn tables(&self) -> String {
        self.exec("nft", &["list", "ruleset"])
    }
}

/// For what must succeed.
pub(crate) const LONG: Duration = Duration::from_secs(5);
/// For what must not.
pub(crate) const SHORT: Duration = Duration::from_millis(300);

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A host (10.9.0.1, fd09::1) and its neighbour (10.9.0.2, fd09::2) on a wire.
pub(crate) fn host_and_neighbour() -> (Namespace, Namespace) {
    let (host, neighbour) = (Namespace::new("host"), Namespace::new("lan"));
    host.ip(&format!("link add lan0 type veth peer name eth0 netns {}", neighbour.name));
    host.ip("addr add 10.9.0.1/24 dev lan0");
    neighbour.ip("addr add 10.9.0.2/24 dev eth0");
    host.ip("-6 addr add fd09::1/64 dev lan0 nodad");
    neighbour.ip("-6 addr add fd09::2/64 dev eth0 nodad");
    host.ip("link set lan0 up");
    neighbour.ip("link set eth0 up");
    (host, neighbour)
}

pub(crate) fn config(bridge: &str, third: u8) -> BridgeConfig {
    BridgeConfig {
        bridge: bridge.to_owned(),
        subnets: vec![subnet(&format!("172.30.{third}.0/24"), &format!("172.30.{third}.1"))],
        mtu: 1500,
        masquerade: true,
        icc: true,
        internal: false,
        modes: Default::default(),
    }
}

pub(crate) fn subnet(net: &str, gateway: &str) -> Subnet {
    Subnet { net: net.parse().unwrap(), gateway: gateway.parse().unwrap() }
}

/// The same with IPv6.
pub(crate) fn both(bridge: &str, third: u8) -> BridgeConfig {
    let mut config = config(bridge, third);
    config.subnets.push(subnet(&format!("fd30:{third}::/64"), &format!("fd30:{third}::1")));
    config
}

pub(crate) fn endpoint(id: &str, third: u8, last: u8) -> Endpoint {
    Endpoint {
        id: id.to_owned(),
        addresses: vec![Ipv4Addr::new(172, 30, third, last).into()],
        default_route: DefaultRoute::BOTH,
        mac: random_mac().unwrap(),
        ifname: "eth0".to_owned(),
        sysctls: Vec::new(),
        ports: Vec::new(),
        guarded: true,
    }
}

/// The same with IPv6.
pub(crate) fn endpoint_of_both(id: &str, third: u8, last: u8) -> Endpoint {
    let mut endpoint = endpoint(id, third, last);
    endpoint.addresses.push(format!("fd30:{third}::{last}").parse().unwrap());
    endpoint
}

pub(crate) fn port(
    transport: Transport,
    host_ip: impl Into<IpAddr>,
    host_port: u16,
    container_port: u16,
) -> PortMap {
    PortMap { transport, host_ip: host_ip.into(), host_port, container_port, count: 1 }
}
