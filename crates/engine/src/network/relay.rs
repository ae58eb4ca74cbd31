//! Published ports that no rule of the firewall can lead on: those of the host's IPv6 addresses where the container has
//! only IPv4, those of the host's IPv6 loopback, whose packets the kernel lets out nowhere, and those of containers whose ports
//! are to be the host's own (the publish mode `local`). They come to the sockets
//! that hold the ports, and are passed on from there.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use longshore_net::{PortMap, PortReservation, Transport};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::{Error, Result};

/// Connections of one port at the same time.
const MAX_CONNECTIONS: usize = 1000;
/// Senders of datagrams to one port that are remembered.
const MAX_SENDERS: usize = 1000;
/// A sender that is silent so long is forgotten, as conntrack does.
const SILENCE: Duration = Duration::from_secs(120);
/// Connections that may wait to be taken.
const BACKLOG: i32 = 1024;
const DATAGRAM: usize = 65536;

/// Ports that are passed on; dropped, they are not any more.
#[derive(Default)]
pub(crate) struct Relays(Vec<Relay>);

struct Relay {
    port: PortMap,
    to: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Relays {
    fn drop(&mut self) {
        self.0.iter().for_each(|relay| relay.task.abort());
    }
}

impl Relays {
    /// Passes on what of the ports no rule does, and nothing else; `all`: no rule does any. `addresses` are the
    /// container's. What goes on as before is not disturbed. To be called on a thread that may wait.
    ///
    /// # Errors
    /// When a socket cannot be used, or is of a protocol that cannot be passed on.
    pub(crate) fn follow(
        &mut self,
        runtime: &Handle,
        reservation: &PortReservation,
        addresses: &[IpAddr],
        all: bool,
    ) -> Result<()> {
        let target = |port: &PortMap| {
            let same = addresses.iter().find(|ip| ip.is_ipv4() == port.host_ip.is_ipv4());
            let ip = same.or_else(|| addresses.first())?;
            Some(SocketAddr::new(*ip, port.container_port))
        };
        let held = reservation.ports();
        self.end(runtime, |relay| target(&relay.port) != Some(relay.to) || !held.contains(&relay.port));
        let known: Vec<PortMap> = self.0.iter().map(|relay| relay.port).collect();
        let sockets = reservation.sockets(|port| (all || port.host_ip.is_ipv6()) && !known.contains(port))?;
        for (port, socket) in sockets {
            let Some(to) = target(&port) else { continue };
            let _within = runtime.enter();
            let failed = |e| Error::io(format!("listen on [{}]:{}", port.host_ip, port.host_port), e);
            let task = match port.transport {
                Transport::Tcp => runtime.spawn(serve_tcp(listener(socket).map_err(failed)?, to)),
                Transport::Udp => {
                    let socket = std::net::UdpSocket::from(socket);
                    let socket = socket.set_nonblocking(true).and_then(|()| UdpSocket::from_std(socket));
                    runtime.spawn(serve_udp(Arc::new(socket.map_err(failed)?), to))
                }
                Transport::Sctp if all => {
                    return Err(Error::unimplemented("the publish mode local for ports of SCTP"));
                }
                Transport::Sctp => continue,
            };
            self.0.push(Relay { port, to, task });
        }
        Ok(())
    }

    /// The ports that are passed on.
    pub(crate) fn ports(&self) -> Vec<PortMap> {
        self.0.iter().map(|relay| relay.port).collect()
    }

    /// Ends those of ports for which `gone` says so. Their sockets are closed when this returns: others may have the ports.
    pub(crate) fn end_ports(&mut self, runtime: &Handle, gone: impl Fn(&PortMap) -> bool) {
        self.end(runtime, |relay| gone(&relay.port));
    }

    fn end(&mut self, runtime: &Handle, gone: impl Fn(&Relay) -> bool) {
        let ended: Vec<Relay> = self.0.extract_if(.., |relay| gone(relay)).collect();
        ended.iter().for_each(|relay| relay.task.abort());
        for relay in ended {
            // It was told to end: how it did does not matter.
            let _ = runtime.block_on(relay.task);
        }
    }
}

fn listener(socket: OwnedFd) -> std::io::Result<TcpListener> {
    // Connections that linger when the daemon is gone do not keep the next one from the port.
    rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::listen(&socket, BACKLOG)?;
    let listener = std::net::TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

async fn serve_tcp(listener: TcpListener, to: SocketAddr) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        // It is never closed.
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        let Ok((mut client, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        connections.spawn(async move {
            if let Ok(mut server) = TcpStream::connect(to).await {
                // How it ends both sides see.
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
            drop(permit);
        });
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, to: SocketAddr) {
    let mut senders: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
    let mut flows = tokio::task::JoinSet::new();
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let Ok((n, from)) = socket.recv_from(&mut buffer).await else { continue };
        while flows.try_join_next().is_some() {}
        senders.retain(|_, flow| !flow.is_closed());
        let datagram = buffer.get(..n).unwrap_or_default().to_vec();
        let flow = match senders.get(&from) {
            Some(flow) => flow,
            None if senders.len() >= MAX_SENDERS => continue,
            None => {
                let (send, wanted) = mpsc::channel(64);
                flows.spawn(flow(socket.clone(), from, to, wanted));
                senders.entry(from).or_insert(send)
            }
        };
        // What is too much is lost, as datagrams are.
        let _ = flow.try_send(datagram);
    }
}

/// Passes on what one sender sends, and what comes back.
async fn flow(socket: Arc<UdpSocket>, from: SocketAddr, to: SocketAddr, mut wanted: mpsc::Receiver<Vec<u8>>) {
    let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let Ok(server) = UdpSocket::bind(any).await else { return };
    if server.connect(to).await.is_err() {
        return;
    }
    let mut buffer = vec![0; DATAGRAM];
    loop {
        tokio::select! {
            datagram = wanted.recv() => match datagram {
                Some(datagram) => drop(server.send(&datagram).await),
                None => return,
            },
            answer = server.recv(&mut buffer) => {
                // A server that is not there says so to each datagram.
                if let Ok(n) = answer {
                    let _ = socket.send_to(buffer.get(..n).unwrap_or_default(), from).await;
                }
            }
            () = tokio::time::sleep(SILENCE) => return,
        }
    }
}
