//! Unpacking any bytes into an empty folder leaves everything outside it alone, and rebuilds what it took.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_store::layer::{ApplyOptions, WhiteoutFormat, apply, rebuild};
use longshore_store::tar::Limits;

fuzz_target!(|data: &[u8]| {
    let top = tempfile::tempdir().expect("temporary folder");
    let dir = top.path().join("layer");
    std::fs::create_dir(&dir).expect("folder");
    let canary = top.path().join("canary");
    std::fs::write(&canary, "untouched").expect("canary");
    let recipe = top.path().join("recipe");
    let options = ApplyOptions {
        whiteouts: WhiteoutFormat::Remove,
        limits: Limits { entries: 1000, bytes: 1 << 24, file_bytes: 1 << 24, ..Limits::default() },
        recipe: Some(recipe.clone()),
        skip_devices: true,
        ..ApplyOptions::default()
    };
    if let Ok(applied) = apply(&dir, data, &options) {
        let root = longshore_sys::root::Root::open(&dir).expect("root");
        let mut tar = Vec::new();
        let again = rebuild(&std::fs::File::open(&recipe).expect("recipe"), &root, &mut tar).expect("rebuild");
        assert_eq!(again, applied.diff_id);
    }
    assert_eq!(std::fs::read(&canary).expect("canary"), b"untouched");
    let outside: Vec<_> = std::fs::read_dir(top.path()).expect("folder").flatten().map(|e| e.file_name()).collect();
    assert!(outside.iter().all(|n| n == "layer" || n == "canary" || n == "recipe"), "{outside:?}");
});
