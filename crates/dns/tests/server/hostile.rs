//! Garbage from both sides.

use std::sync::Mutex;
use std::time::Duration;

use hickory_proto::rr::RecordType;
use longshore_dns::Options;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::common::*;

/// Marsaglia's xorshift: the same bytes in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }

    fn garbage(&mut self) -> Vec<u8> {
        let length = self.below(600);
        (0..length).map(|_| self.byte()).collect()
    }

    /// Some bytes changed, left out, put in, or the end cut off.
    fn mutate(&mut self, message: &[u8]) -> Vec<u8> {
        let mut message = message.to_vec();
        for _ in 0..=self.below(6) {
            let at = self.below(message.len().max(1));
            match self.below(5) {
                0 => message.truncate(at),
                1 => message.insert(at, self.byte()),
                2 if !message.is_empty() => drop(message.remove(at)),
                _ => {
                    let byte = self.byte();
                    message.get_mut(at).into_iter().for_each(|old| *old = byte);
                }
            }
        }
        message
    }
}

fn samples() -> Vec<Vec<u8>> {
    vec![
        bytes(&query("web.", RecordType::A)),
        bytes(&query("a.example.org.", RecordType::A)),
        bytes(&query_edns("web.", RecordType::ANY, 1232)),
        bytes(&query_edns("2.0.18.172.in-addr.arpa.", RecordType::PTR, 600)),
        bytes(&query_edns(
            "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.",
            RecordType::PTR,
            4096,
        )),
    ]
}

async fn assert_answers(served: &Served) {
    assert_eq!(served.ask("db.example.", RecordType::A).await.answers.len(), 1);
    assert_eq!(served.ask("b.example.org.", RecordType::A).await.answers.len(), 1);
    let asked = bytes(&query("db.example.", RecordType::A));
    assert!(!served.tcp(&asked).await.is_empty());
}

#[tokio::test]
async fn garbage_from_clients_is_survived() {
    let upstream = Upstream::giving(1);
    let served = serve_with(Book::new(&[&upstream]), impatient());
    let mut random = Random(0x5eed);
    let samples = samples();
    let socket = served.client().await;
    let mut buffer = vec![0; 65535];
    for n in 0..6000 {
        let message = if n % 3 == 0 { random.garbage() } else { random.mutate(&samples[n % samples.len()]) };
        socket.send(&message).await.unwrap();
        // What is answered is taken, so that nothing is lost but for want of an answer.
        tokio::task::yield_now().await;
        while socket.try_recv(&mut buffer).is_ok() {}
    }
    assert_answers(&served).await;
}

#[tokio::test]
async fn garbage_over_tcp_is_survived() {
    let upstream = Upstream::giving(1);
    let served = serve_with(Book::new(&[&upstream]), impatient());
    let mut random = Random(0xfeed);
    let samples = samples();
    for n in 0..300 {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        for _ in 0..5 {
            let message =
                if n % 3 == 0 { random.garbage() } else { random.mutate(&samples[n % samples.len()]) };
            let length = u16::try_from(message.len()).unwrap();
            let framed = [&length.to_be_bytes(), &message[..]].concat();
            if stream.write_all(&framed).await.is_err() {
                break;
            }
        }
        // Without a length, and cut off.
        let _ = stream.write_all(&random.garbage()).await;
    }
    assert_answers(&served).await;
}

#[tokio::test]
async fn garbage_from_upstreams_is_survived() {
    let random = Mutex::new(Random(0xbad));
    let upstream = Upstream::start(move |asked| {
        let good = bytes(&give(asked, 1));
        if asked.message().queries[0].name.to_ascii() == "b.example.org." {
            return vec![good];
        }
        let mut random = random.lock().unwrap();
        let mut messages = vec![random.garbage()];
        messages.extend((0..3).map(|_| random.mutate(&good)));
        messages
    });
    let options = Options { upstream_timeout: Duration::from_millis(50), ..Options::default() };
    let served = serve_with(Book::new(&[&upstream]), options);
    let socket = served.client().await;
    let asked = bytes(&query_edns("a.example.org.", RecordType::A, 1232));
    for _ in 0..20 {
        for _ in 0..50 {
            socket.send(&asked).await.unwrap();
        }
        for _ in 0..50 {
            receive(&socket).await;
        }
    }
    // Over TCP the upstream serves one at a time.
    for _ in 0..20 {
        served.tcp(&asked).await;
    }
    assert_eq!(served.ask("db.example.", RecordType::A).await.answers.len(), 1);
    let patient = serve(Book::new(&[&upstream]));
    assert_answers(&patient).await;
}
