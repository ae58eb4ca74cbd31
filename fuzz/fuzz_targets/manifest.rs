//! Manifests as a registry sends them: a header, a line end, and a body give one document or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_oci::Platform;
use longshore_oci::image::media;
use longshore_registry::{Document, check_image, choose};

fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|b| *b == b'\n');
    let (header, body) = match end {
        Some(end) => (std::str::from_utf8(&data[..end]).ok(), &data[end + 1..]),
        None => (None, data),
    };
    let Ok((document, media_type)) = Document::parse(body, header) else { return };
    match document {
        Document::Manifest(m) => {
            assert!([media::OCI_MANIFEST, media::DOCKER_MANIFEST].contains(&media_type.as_str()));
            if check_image(&m).is_ok() {
                assert!(m.layers.iter().all(|l| l.media_type.contains("layer") || l.media_type.contains("diff.tar")));
            }
        }
        Document::Index(index) => {
            assert!([media::OCI_INDEX, media::DOCKER_LIST].contains(&media_type.as_str()));
            for wanted in ["linux/amd64/v3", "linux/arm/v7", "linux/arm64/v9.5"] {
                let wanted: Platform = wanted.parse().expect("a platform");
                if let Ok(chosen) = choose(&index, Some(&wanted), &Platform::host()) {
                    assert!(index.manifests.contains(&chosen));
                }
            }
        }
    }
});
