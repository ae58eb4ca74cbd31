//! Any bytes are a Dockerfile or an error that names a line of theirs; what is one goes through all that reads it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use longshore_build::dockerfile::{
    Check, Escape, ExpandErrorKind, FileOnly, Globals, Instruction, Kind, Lookup, Mode, expand, expand_words,
    lint, parse, parse_trigger, predefined, stages,
};

fuzz_target!(|data: &[u8]| {
    let last = data.iter().filter(|b| **b == b'\n').count() + 1;
    let file = match parse(data) {
        Ok(file) => file,
        Err(e) => {
            assert!(e.span.line <= e.span.end_line && e.span.end_line as usize <= last, "{e}");
            let _ = (e.to_string(), e.render("Dockerfile", data));
            return;
        }
    };
    let mut line = 0;
    for i in &file.instructions {
        assert!(i.span.line > line && i.span.end_line >= i.span.line && i.span.end_line as usize <= last);
        line = i.span.end_line;
        words(i, file.directives.escape);
        let _ = i.title();
    }
    let Ok(stages) = stages(&file) else { return };
    let none = Lookup(|_: &str| None);
    let host = longshore_oci::Platform::host();
    let Ok(globals) = Globals::new(stages.globals, &predefined(&host, &host, ""), &none, stages.escape())
    else {
        return;
    };
    let Ok(graph) = stages.resolve(&globals) else { return };
    for (index, needs) in graph.needs.iter().enumerate() {
        assert!(needs.iter().all(|n| *n < index));
        assert_eq!(graph.needed(index).last(), Some(&index));
    }
    let all = Check { experimental_all: true, ..Check::default() };
    for finding in lint(&file, &graph, &FileOnly, &all) {
        assert!(finding.span.line as usize <= last);
    }
});

fn words(i: &Instruction, escape: Escape) {
    let env = Lookup(|name: &str| (name.len() < 3).then(|| format!(" {name}*")));
    for (word, mode) in i.words() {
        let expanded = expand(word, &env, escape, mode);
        if !word.contains(['$', '\'', '"', '\\', '`']) {
            assert_eq!(expanded.as_ref().map(|e| e.text.as_str()), Ok(word));
        }
        if let Ok(words) = expand_words(word, &env, escape) {
            assert!(words.words.iter().all(|w| !w.is_empty()));
        }
        let kept = expand(word, &env, escape, Mode::KeepQuotes);
        assert!(!kept.is_err_and(|e| matches!(e.kind, ExpandErrorKind::TooManyWords)));
    }
    match &i.kind {
        Kind::Run(run) => {
            for mount in &run.mounts {
                let _ = mount.resolve(|v| expand(v, &env, escape, Mode::Word).map(|e| e.text));
            }
        }
        Kind::Onbuild(onbuild) => {
            words(&onbuild.trigger, escape);
            let _ = parse_trigger(&onbuild.expression);
        }
        _ => {}
    }
}
