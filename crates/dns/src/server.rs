//! The server: its task, and what its sockets share.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinHandle;

use crate::forward::forward;
use crate::health::Health;
use crate::plan::{Plan, plan};
use crate::request::Request;
use crate::{Names, Options, Protocol, tcp, udp};

/// After a socket failed, as when no descriptor is free: it is not asked again and again.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// A container's name server: a task that answers on its sockets. Dropped, it ends, and its sockets are closed as soon
/// as the runtime gets to it; queries that wait are not answered.
#[derive(Debug)]
pub struct Server {
    task: JoinHandle<()>,
}

impl Server {
    /// Starts to answer on sockets that are bound already.
    ///
    /// # Errors
    ///
    /// There is no runtime here, or the sockets cannot be made non-blocking.
    pub fn start(
        udp: std::net::UdpSocket,
        tcp: std::net::TcpListener,
        names: Arc<dyn Names>,
        options: Options,
    ) -> io::Result<Self> {
        let runtime = Handle::try_current().map_err(io::Error::other)?;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        let (udp, tcp) = (UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?);
        let room = Semaphore::new(options.max_in_flight.min(Semaphore::MAX_PERMITS));
        // Without randomness all servers begin with the same one.
        let turn = AtomicU32::new(getrandom::u32().unwrap_or_default());
        let shared = Shared { names, options, health: Health::default(), room, turn };
        // One task, whose parts own everything else: with it all of it ends.
        let task = runtime.spawn(async move {
            tokio::join!(udp::serve(&shared, &udp), tcp::serve(&shared, tcp));
        });
        Ok(Self { task })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What queries over both protocols share.
pub(crate) struct Shared {
    names: Arc<dyn Names>,
    pub(crate) options: Options,
    health: Health,
    /// A permit for each query that may wait for upstreams.
    room: Semaphore,
    /// Of several addresses each comes first in turn.
    turn: AtomicU32,
}

/// What becomes of a message.
pub(crate) enum Taken<'a> {
    /// It is ignored.
    Nothing,
    /// It is answered at once.
    Now(Vec<u8>),
    /// It is answered when upstreams have been asked.
    Later(Pending<'a>),
}

impl Shared {
    /// Takes a message from a client. It never waits.
    pub(crate) fn take(&self, message: &[u8], protocol: Protocol) -> Taken<'_> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let (request, upstreams) = match plan(message, protocol, &*self.names, self.options.ttl, turn) {
            Plan::Nothing => return Taken::Nothing,
            Plan::Answer(answer) => return Taken::Now(answer),
            Plan::Forward(request, upstreams) => (request, upstreams),
        };
        match self.room.try_acquire() {
            Ok(permit) => {
                let query = message.to_vec();
                Taken::Later(Pending { shared: self, request, query, protocol, upstreams, permit })
            }
            Err(_) => request.answer_code(ResponseCode::ServFail).map_or(Taken::Nothing, Taken::Now),
        }
    }
}

/// A query that waits for upstreams.
pub(crate) struct Pending<'a> {
    shared: &'a Shared,
    request: Request,
    query: Vec<u8>,
    protocol: Protocol,
    upstreams: Vec<SocketAddr>,
    permit: SemaphorePermit<'a>,
}

impl Pending<'_> {
    /// Asks the upstreams; the answer is for the client. `None`: there is none that could be written.
    pub(crate) async fn answer(self) -> Option<Vec<u8>> {
        let Self { shared, request, query, protocol, upstreams, permit } = self;
        let answer = forward(&request, &query, protocol, upstreams, &shared.health, &shared.options).await;
        drop(permit);
        answer
    }
}
