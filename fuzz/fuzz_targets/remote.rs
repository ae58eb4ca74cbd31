//! Any text is an address, a file's name or an error; what an address holds of a password is never shown, and nothing of
//! it is an option of a program.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_build::remote::{Remote, is_commit, parse, parse_context};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for remote in [parse(text), parse_context(text)].into_iter().flatten().flatten() {
        let address = remote.address();
        let (all, shown) = (address.reveal(), address.to_string());
        assert!(!all.starts_with('-') && !address.host().starts_with('-'));
        assert!(!all.bytes().any(|b| b <= b' '));
        assert!(!shown.contains('?') && !shown.contains('#'));
        if address.user().is_some() {
            assert!(shown.len() < all.len());
        }
        match remote {
            Remote::File(file) => {
                let name = file.name().unwrap_or_else(|| b"x".to_vec());
                assert!(!name.is_empty() && name.len() < 256 && !name.contains(&b'/') && !name.contains(&0));
                assert!(name != b"." && name != b"..");
            }
            Remote::Git(repository) => {
                let reference = repository.reference.unwrap_or_default();
                assert!(!reference.starts_with('-') && !reference.contains([' ', '*', ':', '\\']));
                assert!(
                    !repository.subdir.starts_with('/') && !repository.subdir.split('/').any(|p| p == "..")
                );
                assert!(
                    repository.checksum.is_none_or(|c| !c.is_empty() && (c.len() != 40 || is_commit(&c)))
                );
            }
        }
    }
});
