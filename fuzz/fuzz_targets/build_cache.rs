//! What a cache of elsewhere says is read or refused; what is read says nothing of layers that it has not, and is written
//! as it was understood. And a client that offers a directory gives nothing else, whatever an engine sends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_build::layout::{Place, serve};
use longshore_build::portable::Document;

fuzz_target!(|data: &[u8]| {
    if let Ok(document) = Document::read(data, None) {
        assert!(document.steps.iter().filter_map(|s| s.diff_id).all(|d| document.layers.contains(&d)));
        let bytes = document.to_bytes().expect("a document that was read");
        assert_eq!(Document::read(&bytes, Some(document.layers.len())).as_ref(), Ok(&document));
    }
    let place = Place { dir: "/nonexistent/layout".into(), writable: false };
    let mut answers = Vec::new();
    let _ = serve(&place, &mut &data[..], &mut answers, drop);
    // Answers are short: there is nothing to give.
    assert!(answers.len() <= 5 + data.len() * 64);
});
