//! Measures the download of one blob over loopback: `blob serve MIB`, which prints an address, then
//! `blob get ADDRESS MIB [unverified]`, which prints speed and peak memory.
#![allow(clippy::print_stdout, missing_docs)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::time::Instant;

use futures_util::StreamExt as _;
use longshore_oci::image::Descriptor;
use longshore_oci::{Digest, Sha256};
use longshore_registry::{Client, Config, Credentials};

type Any = Box<dyn std::error::Error>;

const PIECE: usize = 1 << 20;

/// The same for every piece, so that both sides know the blob.
fn piece() -> Vec<u8> {
    (0..PIECE).map(|i| u8::try_from(i % 251).unwrap_or(0)).collect()
}

fn serve(mib: usize) -> Result<(), Any> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let piece = piece();
    for stream in listener.incoming() {
        let mut stream = stream?;
        let mut first = String::new();
        // What is no request is TLS.
        if BufReader::new(&stream).read_line(&mut first).is_err() || !first.starts_with("GET ") {
            continue;
        }
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", mib * PIECE).as_bytes())?;
        for _ in 0..mib {
            if stream.write_all(&piece).is_err() {
                break;
            }
        }
    }
    Ok(())
}

fn descriptor(mib: usize) -> Result<Descriptor, Any> {
    let (mut hash, piece) = (Sha256::new(), piece());
    (0..mib).for_each(|_| hash.update(&piece));
    let digest: Digest = hash.finish();
    Ok(Descriptor {
        media_type: longshore_oci::image::media::OCI_LAYER.into(),
        digest,
        size: u64::try_from(mib * PIECE)?,
        urls: Vec::new(),
        annotations: std::collections::BTreeMap::new(),
        platform: None,
        artifact_type: None,
    })
}

async fn get(address: &str, mib: usize, verified: bool) -> Result<(), Any> {
    let descriptor = descriptor(mib)?;
    let client = Client::new(Config::default())?;
    let repository = client.repository(&format!("{address}/some/where").parse()?, Credentials::Anonymous);
    let began = Instant::now();
    let stream = repository.blob(&descriptor).await?;
    let mut stream = if verified { stream } else { stream.unverified() };
    let mut total = 0;
    while let Some(piece) = stream.next().await {
        total += piece?.len();
    }
    let seconds = began.elapsed().as_secs_f64();
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find(|l| l.starts_with("VmHWM")).unwrap_or_default();
    #[allow(clippy::cast_precision_loss)]
    let speed = total as f64 / 1e6 / seconds;
    println!("{total} bytes in {seconds:.2} s: {speed:.0} MB/s; {peak}");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Any> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve", mib] => serve(mib.parse()?),
        ["get", address, mib] => get(address, mib.parse()?, true).await,
        ["get", address, mib, "unverified"] => get(address, mib.parse()?, false).await,
        _ => Err("blob serve MIB, or blob get ADDRESS MIB [unverified]".into()),
    }
}
