//! A reference that parses prints as one that parses to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_oci::{Platform, Reference};

fuzz_target!(|text: &str| {
    if let Ok(r) = text.parse::<Reference>() {
        assert_eq!(r.to_string().parse::<Reference>().as_ref(), Ok(&r));
        assert_eq!(r.familiar().parse::<Reference>().as_ref(), Ok(&r));
    }
    let _ = text.parse::<Platform>();
});
