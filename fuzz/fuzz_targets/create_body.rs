//! The body of a create request: any bytes give a value or an error, and a value can be sent on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_api::ContainerCreateBody;

fuzz_target!(|data: &[u8]| {
    let Ok(body) = ContainerCreateBody::from_slice(data) else { return };
    let sent = serde_json::to_vec(&body).expect("a body can be written");
    let again = ContainerCreateBody::from_slice(&sent).expect("and read again");
    assert_eq!(serde_json::to_vec(&again).expect("and written again"), sent);
});
