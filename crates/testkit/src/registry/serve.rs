//! Connections: one thread each, requests one after the other.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use super::http::{Answer, Delivery, Ending, Incoming, Length, Request, Stream};
use super::lies::{Lie, Rule};
use super::routes;
use super::{Recorded, Shared};

/// Bytes of a body that are written at once.
const PIECE: usize = 32 << 10;
/// Bytes of a refused request that are still read, so that the client gets to the answer.
const DRAIN: u64 = 64 << 10;

/// Serves a connection to its end.
pub(super) fn connection(shared: &Arc<Shared>, tcp: TcpStream) {
    let _ = tcp.set_nodelay(true);
    let stream = match &shared.tls {
        None => Stream::Plain(tcp),
        Some(config) => match rustls::ServerConnection::new(Arc::clone(config)) {
            Ok(session) => Stream::Tls(Box::new(rustls::StreamOwned::new(session, tcp))),
            Err(_) => return,
        },
    };
    let mut incoming = Incoming::new(stream);
    // A client that goes away in the middle is none of a registry's business.
    while let Ok(Some(request)) = incoming.head() {
        match exchange(shared, &mut incoming, &request) {
            Ok(true) => {}
            _ => break,
        }
    }
    incoming.out().close();
}

/// One request and its answer; whether another may follow.
fn exchange(shared: &Shared, incoming: &mut Incoming, request: &Request) -> io::Result<bool> {
    let rule = shared.rule(request);
    let record = shared.record(request);
    let lie = rule.as_deref().map(Rule::lie);
    let mut body = incoming.body(request)?;
    let mut answer = match lie.and_then(|lie| lie.instead(request)) {
        Some(answer) => {
            let limit = if let Some(Lie::RefuseAfter(n, _)) = lie { *n } else { DRAIN };
            io::copy(&mut (&mut body).take(limit), &mut io::sink())?;
            answer
        }
        None => match lie {
            None => routes::answer(shared, request, &mut body)?,
            Some(lie) => {
                let mut answer = routes::answer(shared, &lie.asked(request), &mut body)?;
                lie.twist(request, &mut answer);
                answer
            }
        },
    };
    let ended = body.ended();
    if !ended {
        // An early answer to a request that goes on.
        io::copy(&mut (&mut body).take(DRAIN), &mut io::sink())?;
    }
    let keep = request.keep_alive
        && body.ended()
        && answer.delivery.length != Length::UntilClose
        && !answer.delivery.close_silently
        && answer.delivery.raw.is_none();
    let received = body.seen;
    let head_only = request.method == "HEAD";
    if matches!(lie, Some(Lie::ContentLength(_))) && head_only {
        answer.delivery.close_silently = false;
    }
    let sent = send(shared, incoming.out(), &answer, keep, head_only);
    shared.finish(record, |r: &mut Recorded| {
        (r.status, r.received) = (answer.status, received);
        r.sent = sent.as_ref().map_or(0, |s| s.0);
    });
    sent.map(|(_, goes_on)| keep && goes_on)
}

/// Sends an answer: how many bytes of its body, and whether the connection is still good.
fn send(
    shared: &Shared,
    out: &mut Stream,
    answer: &Answer,
    keep: bool,
    head_only: bool,
) -> io::Result<(u64, bool)> {
    let how = &answer.delivery;
    if let Some(ending) = how.never {
        return end(shared, out, ending).map(|()| (0, false));
    }
    while how.continues && !shared.stopped() {
        out.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if let Some(raw) = &how.raw {
        out.write_all(raw)?;
        out.flush()?;
        return Ok((0, false));
    }
    write_paced(shared, out, &answer.head(keep), how.head_pace)?;
    if head_only || answer.status == 204 || answer.status == 304 {
        out.flush()?;
        return Ok((0, true));
    }
    let sent = send_body(shared, out, answer)?;
    if let Some((_, ending)) = how.ending {
        end(shared, out, ending)?;
        return Ok((sent, false));
    }
    if matches!(how.length, Length::Chunked) {
        out.write_all(b"0\r\n\r\n")?;
    }
    out.write_all(&how.behind)?;
    out.flush()?;
    Ok((sent, true))
}

fn send_body(shared: &Shared, out: &mut Stream, answer: &Answer) -> io::Result<u64> {
    let Delivery { length, body_pace, ending, .. } = &answer.delivery;
    let limit = ending.map_or(u64::MAX, |(n, _)| n).min(answer.body.len());
    let mut reader = answer.body.reader(0).take(limit);
    let mut buf = vec![0; if body_pace.is_some() { 1 } else { PIECE }];
    let (mut sent, mut pieces) = (0, 0);
    loop {
        let n = reader.read(&mut buf)?;
        if n == 0 || shared.stopped() {
            break;
        }
        match length {
            Length::Chunked => write_chunk(out, &buf[..n])?,
            Length::BadChunk if pieces == 0 => write_chunk(out, &buf[..n.min(100)])?,
            Length::BadChunk => {
                out.write_all(b"what?\r\n")?;
                break;
            }
            _ => out.write_all(&buf[..n])?,
        }
        (sent, pieces) = (sent + n as u64, pieces + 1);
        if let Some(pace) = body_pace {
            out.flush()?;
            shared.pause(*pace);
        }
    }
    if *length == Length::BadChunk && pieces == 1 {
        out.write_all(b"what?\r\n")?;
    }
    if matches!(ending, Some((_, Ending::Endless))) {
        let zeros = vec![0; PIECE];
        while !shared.stopped() {
            if *length == Length::Chunked {
                write_chunk(out, &zeros)?
            } else {
                out.write_all(&zeros)?
            }
            sent += zeros.len() as u64;
        }
    }
    out.flush()?;
    Ok(sent)
}

fn write_chunk(out: &mut Stream, bytes: &[u8]) -> io::Result<()> {
    out.write_all(format!("{:x}\r\n", bytes.len()).as_bytes())?;
    out.write_all(bytes)?;
    out.write_all(b"\r\n")
}

fn write_paced(shared: &Shared, out: &mut Stream, bytes: &[u8], pace: Option<Duration>) -> io::Result<()> {
    let Some(pace) = pace else { return out.write_all(bytes) };
    for byte in bytes {
        out.write_all(std::slice::from_ref(byte))?;
        out.flush()?;
        if shared.pause(pace) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
    }
    Ok(())
}

fn end(shared: &Shared, out: &mut Stream, ending: Ending) -> io::Result<()> {
    out.flush()?;
    match ending {
        Ending::Stall => {
            // Until the test is over or the client has had enough.
            let _ = out.tcp().set_read_timeout(Some(Duration::from_millis(100)));
            let mut byte = [0];
            while !shared.stopped() {
                match out.tcp().peek(&mut byte) {
                    Ok(0) => break,
                    Ok(_) => drop(shared.pause(Duration::from_millis(100))),
                    Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                    Err(_) => break,
                }
            }
        }
        Ending::Reset => {
            rustix::net::sockopt::set_socket_linger(out.tcp(), Some(Duration::ZERO))?;
        }
        Ending::Close | Ending::Endless => {}
    }
    Ok(())
}
