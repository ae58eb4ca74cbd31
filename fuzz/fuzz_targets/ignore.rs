//! What a walk concludes from directory to directory is what each path says by itself, and nothing that may be skipped
//! is let in. The first line of the input is a path, the rest an ignore file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_build::ignore::Ignore;
use longshore_build::pattern::{Glob, MAX_PATH, clean_in_root};

fuzz_target!(|data: &[u8]| {
    let (path, file) = match data.iter().position(|b| *b == b'\n') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &b""[..]),
    };
    let path = clean_in_root(path);
    if let Ok(glob) = Glob::parse(file) {
        let _ = glob.matches(&path);
    }
    let Ok(ignore) = Ignore::parse(file) else { return };
    let (patterns, mut scope, mut state) = (ignore.patterns(), ignore.scope(), Vec::new());
    let mut skipped = false;
    let mut at = Vec::new();
    for part in path.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
        if !at.is_empty() {
            at.push(b'/');
        }
        at.extend_from_slice(part);
        let excluded = ignore.excludes(&at);
        assert!(excluded || !skipped, "{at:?}");
        assert_eq!(patterns.matches_in(&scope, part, &mut state), excluded);
        let (inner, verdict) = patterns.enter(&scope, part);
        assert_eq!(verdict.matched, excluded);
        skipped |= ignore.may_skip_dir(&at);
        scope = inner;
    }
    if path.len() < MAX_PATH
        && let Ok(sent) = ignore.sending([path.as_slice()])
    {
        assert!(!sent.excludes(&path));
    }
});
