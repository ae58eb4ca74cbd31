//! Image documents, manifests and indexes: any bytes give a value or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_oci::image::{ImageDocument, Index, Manifest};

fuzz_target!(|data: &[u8]| {
    if let Ok(doc) = serde_json::from_slice::<ImageDocument>(data) {
        let again = serde_json::to_vec(&doc).expect("a document can be written");
        assert_eq!(serde_json::from_slice::<ImageDocument>(&again).expect("and read again"), doc);
    }
    let _ = serde_json::from_slice::<Manifest>(data);
    let _ = serde_json::from_slice::<Index>(data);
});
