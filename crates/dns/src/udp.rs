//! The server over UDP.

use std::net::SocketAddr;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::net::UdpSocket;
use tokio::task::consume_budget;
use tokio::time::sleep;

use crate::Protocol;
use crate::request::MAX_QUERY;
use crate::server::{PAUSE, Shared, Taken};

/// Answers datagrams for ever. The buffer shows that a query is too long, but not how much.
pub(crate) async fn serve(shared: &Shared, socket: &UdpSocket) {
    let mut buffer = vec![0; MAX_QUERY + 1];
    let mut waiting = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(()) = waiting.next(), if !waiting.is_empty() => {}
            received = socket.recv_from(&mut buffer) => match received {
                Ok((length, client)) => {
                    match shared.take(buffer.get(..length).unwrap_or_default(), Protocol::Udp) {
                        Taken::Nothing => {}
                        Taken::Now(answer) => send(socket, &answer, client).await,
                        Taken::Later(pending) => waiting.push(async move {
                            if let Some(answer) = pending.answer().await {
                                send(socket, &answer, client).await;
                            }
                        }),
                    }
                }
                Err(e) => {
                    tracing::debug!(error = %e, "no query could be received");
                    sleep(PAUSE).await;
                }
            },
        }
        // A flood of queries must not keep the runtime's thread.
        consume_budget().await;
    }
}

/// A client that cannot be reached asks again, or has gone.
async fn send(socket: &UdpSocket, answer: &[u8], client: SocketAddr) {
    if let Err(e) = socket.send_to(answer, client).await {
        tracing::debug!(%client, error = %e, "an answer could not be sent");
    }
}
