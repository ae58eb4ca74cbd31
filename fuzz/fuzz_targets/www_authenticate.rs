//! `WWW-Authenticate`: any text gives a bounded list of challenges, no parameter twice.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_registry::parse_challenges;

fuzz_target!(|text: &str| {
    let challenges = parse_challenges(text);
    assert!(challenges.len() <= 8);
    for c in &challenges {
        assert!(!c.scheme.is_empty() && c.params.len() <= 16);
        for (i, (name, value)) in c.params.iter().enumerate() {
            assert!(!name.is_empty() && value.len() <= text.len());
            assert!(c.params[..i].iter().all(|(n, _)| n != name));
            assert_eq!(c.get(name), Some(value.as_str()));
        }
    }
    // What was read can be written so that it is read as the same.
    let written: Vec<String> = challenges
        .iter()
        .map(|c| {
            let quote = |v: &str| v.replace('\\', "\\\\").replace('"', "\\\"");
            let params: Vec<String> = c.params.iter().map(|(n, v)| format!("{n}=\"{}\"", quote(v))).collect();
            format!("{} {}", c.scheme, params.join(", ")).trim_end().to_owned()
        })
        .collect();
    let written = written.join(", ");
    if written.len() <= 8 << 10 {
        assert_eq!(parse_challenges(&written), challenges, "{written:?}");
    }
});
