//! Multiplexed frames: what decodes encodes to the same, and a stream in pieces means what it means whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_api::stream::{Decoder, Stream, encode};

fn decode(pieces: &[&[u8]]) -> Option<Vec<(Stream, Vec<u8>)>> {
    let mut decoder = Decoder::new();
    let mut out: Vec<(Stream, Vec<u8>)> = Vec::new();
    for piece in pieces {
        let mut rest = *piece;
        while let Some((stream, data)) = decoder.next(&mut rest).ok()? {
            match out.last_mut() {
                Some((last, bytes)) if *last == stream => bytes.extend_from_slice(data),
                _ => out.push((stream, data.to_vec())),
            }
        }
    }
    Some(out)
}

fuzz_target!(|data: (&[u8], u8)| {
    let (bytes, at) = data;
    let at = usize::from(at).min(bytes.len());
    let whole = decode(&[bytes]);
    assert_eq!(whole, decode(&[&bytes[..at], &bytes[at..]]));
    let Some(parts) = whole else { return };
    let mut again = Vec::new();
    parts.iter().for_each(|(stream, data)| encode(*stream, data, &mut again));
    assert_eq!(decode(&[&again]).map(|p| p.concat_data()), Some(parts.concat_data()));
});

trait Concat {
    fn concat_data(&self) -> Vec<u8>;
}

impl Concat for Vec<(Stream, Vec<u8>)> {
    fn concat_data(&self) -> Vec<u8> {
        self.iter().flat_map(|(_, d)| d.clone()).collect()
    }
}
