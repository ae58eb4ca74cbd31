//! Any bytes are a stream that is read to its end, or an error; the first byte chooses how they are packed.
#![no_main]

use std::io::Read as _;

use libfuzzer_sys::fuzz_target;
use longshore_store::layer::compress::decompress;
use longshore_store::tar::Limits;

const STARTS: [&[u8]; 4] = [b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"BZh1", b"\xfd7zXZ\0"];

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    let start = STARTS[usize::from(*choice) % STARTS.len()];
    let limits = Limits { bytes: 16 << 20, ..Limits::default() };
    let _ = decompress(&[start, rest].concat()[..], &limits, |decoded| {
        let mut out = Vec::new();
        let _ = decoded.read_to_end(&mut out);
        assert!(out.len() <= 17 << 20);
        Ok(())
    });
});
