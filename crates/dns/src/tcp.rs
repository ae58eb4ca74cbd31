//! The server over TCP: several queries on a connection, answered as they are ready (RFC 7766, 6.2.1.1).

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::consume_budget;
use tokio::time::{sleep, timeout};

use crate::server::{PAUSE, Shared, Taken};
use crate::{Protocol, frame};

/// Answers that may wait until a client takes them; then its queries are not read any further.
const QUEUE: usize = 16;

/// Serves connections for ever; if none is allowed, it ends.
pub(crate) async fn serve(shared: &Shared, listener: TcpListener) {
    let mut open = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(()) = open.next(), if !open.is_empty() => {}
            accepted = listener.accept(), if open.len() < shared.options.max_connections => match accepted {
                Ok((stream, _)) => open.push(converse(shared, stream)),
                Err(e) => {
                    tracing::debug!(error = %e, "no connection could be accepted");
                    sleep(PAUSE).await;
                }
            },
            else => return,
        }
        // Clients that come and go must not keep the runtime's thread.
        consume_budget().await;
    }
}

/// Serves one connection: until the client asks no more and has its answers, or takes too long.
async fn converse(shared: &Shared, mut stream: TcpStream) {
    // Without it the second of two answers waits for the client to acknowledge the first.
    let _ = stream.set_nodelay(true);
    let (from, to) = stream.split();
    let (answers, queue) = mpsc::channel(QUEUE);
    let mut writer = pin!(write_answers(to, queue, shared.options.idle_timeout));
    tokio::select! {
        () = read_queries(shared, from, answers) => writer.await,
        () = &mut writer => {}
    }
}

/// Until the client sends no more; then what waits is answered.
async fn read_queries(shared: &Shared, mut from: ReadHalf<'_>, answers: mpsc::Sender<Vec<u8>>) {
    let answers = &answers;
    let mut waiting = FuturesUnordered::new();
    loop {
        let message = {
            // Kept while answers come: a message that is half read would be lost.
            let mut reading = pin!(timeout(shared.options.idle_timeout, frame::read(&mut from)));
            loop {
                tokio::select! {
                    read = &mut reading => break read,
                    Some(()) = waiting.next(), if !waiting.is_empty() => {}
                }
            }
        };
        let Ok(Ok(Some(message))) = message else { break };
        match shared.take(&message, Protocol::Tcp) {
            Taken::Nothing => {}
            // The writer has gone: the client takes no more.
            Taken::Now(answer) => match answers.send(answer).await {
                Ok(()) => {}
                Err(_) => return,
            },
            Taken::Later(pending) => waiting.push(async move {
                if let Some(answer) = pending.answer().await {
                    let _ = answers.send(answer).await;
                }
            }),
        }
    }
    while waiting.next().await.is_some() {}
}

/// Until there are no more answers, or the client does not take one.
async fn write_answers(mut to: WriteHalf<'_>, mut queue: mpsc::Receiver<Vec<u8>>, patience: Duration) {
    while let Some(answer) = queue.recv().await {
        if !matches!(timeout(patience, frame::write(&mut to, &answer)).await, Ok(Ok(()))) {
            return;
        }
    }
}
