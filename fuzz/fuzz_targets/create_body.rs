//! The body of a create request: any bytes give a value or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_api::ContainerCreateBody;

fuzz_target!(|data: &[u8]| {
    let _ = longshore_api::json::from_slice::<ContainerCreateBody>(data);
});
