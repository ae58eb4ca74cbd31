//! A query that is not for us: upstreams are asked one after the other.

use std::net::SocketAddr;

use hickory_proto::op::ResponseCode;
use tokio::time::{Instant, timeout_at};

use crate::health::Health;
use crate::request::Request;
use crate::upstream;
use crate::{Options, Protocol};

/// Asks upstreams until one answers, and gives its answer under the client's id. If all that answer refuse, the first
/// refusal is the answer; if none answers, it is SERVFAIL.
pub(crate) async fn forward(
    request: &Request,
    query: &[u8],
    protocol: Protocol,
    upstreams: Vec<SocketAddr>,
    health: &Health,
    options: &Options,
) -> Option<Vec<u8>> {
    let start = Instant::now();
    let deadline = start + options.total_timeout;
    let mut refusal = None;
    for upstream in health.order(upstreams, start.into_std()) {
        let until = deadline.min(Instant::now() + options.upstream_timeout);
        let asked = timeout_at(until, upstream::ask(upstream, protocol, query, request)).await;
        match asked {
            Ok(Ok(reply)) => {
                health.note_answer(upstream);
                if !reply.refused {
                    return Some(reply.for_client(request));
                }
                refusal.get_or_insert(reply);
            }
            Ok(Err(e)) => {
                tracing::debug!(%upstream, error = %e, "a name server could not be asked");
                health.note_failure(upstream, Instant::now().into_std());
            }
            Err(_) => {
                tracing::debug!(%upstream, "a name server did not answer in time");
                health.note_failure(upstream, Instant::now().into_std());
            }
        }
        if Instant::now() >= deadline {
            break;
        }
    }
    match refusal {
        Some(reply) => Some(reply.for_client(request)),
        None => request.answer_code(ResponseCode::ServFail),
    }
}
