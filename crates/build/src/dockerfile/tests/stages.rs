use super::super::*;
use super::file;

const FILE: &str = "\
ARG BASE=alpine TAG=3
FROM golang AS Build
RUN --mount=type=bind,from=tools,target=/t x
FROM $BASE:${TAG} AS tools
FROM build AS test
COPY --from=1 a b
FROM scratch
COPY --from=BUILD a b
COPY --from=busybox:1 a b
RUN --mount=type=cache,from=test,target=/c x
";

fn none() -> Lookup<impl Fn(&str) -> Option<String>> {
    Lookup(|_: &str| None)
}

fn error(text: &str) -> String {
    let file = file(text);
    let found = stages(&file).and_then(|s| s.resolve(&none()).map(drop));
    found.unwrap_err().to_string()
}

#[test]
fn what_needs_what() {
    let text = FILE.replace("from=tools", "from=other");
    let file = file(&text);
    let stages = stages(&file).unwrap();
    let globals = Globals::new(stages.globals, &[], &none(), Escape::Backslash).unwrap();
    let graph = stages.resolve(&globals).unwrap();
    let image = |s: &str| Source::Image(s.to_owned());
    assert_eq!(graph.bases, [image("golang"), image("alpine:3"), Source::Stage(0), Source::Scratch]);
    assert_eq!(graph.needs, [[].into(), [].into(), [0, 1].into(), [0, 2].into()]);
    assert_eq!(graph.needed(3), [0, 1, 2, 3]);
    assert_eq!(graph.needed(1), [1]);
    assert_eq!(graph.needed(2), [0, 1, 2]);
    assert_eq!(graph.variables[1].used, ["BASE".to_owned(), "TAG".to_owned()].into());
    let names: Vec<_> = graph.stages.stages.iter().map(Stage::display_name).collect();
    assert_eq!(names, ["build", "tools", "test", "stage-3"]);
    let target = |name: &str| graph.stages.target(name).map_err(|e| e.to_string());
    assert_eq!([target(""), target("TEST"), target("0")], [Ok(3), Ok(2), Ok(0)]);
    assert_eq!(target("tets"), Err("target stage \"tets\" could not be found (did you mean test?)".into()));
    assert_eq!(target("9"), Err("target stage \"9\" could not be found".into()));
}

#[test]
fn triggers_need_stages_too() {
    let file = file("FROM a AS x\nFROM b AS y\nONBUILD COPY --from=x c d\nFROM y\n");
    let graph = stages(&file).unwrap().resolve(&none()).unwrap();
    assert_eq!(graph.needs, [[].into(), [].into(), [0, 1].into()]);
    assert_eq!(graph.stages.stages[1].triggers().count(), 1);
}

#[test]
fn a_name_twice_is_the_one_before() {
    let file = file("FROM a AS x\nFROM b AS x\nFROM x\nFROM c AS d\n");
    let graph = stages(&file).unwrap().resolve(&none()).unwrap();
    assert_eq!(graph.bases[2], Source::Stage(1));
    assert_eq!(graph.stages.target("x"), Ok(1));
}

#[test]
fn what_cannot_be() {
    let check = |text: &str, want: &str| assert_eq!(error(text), want, "{text}");
    check(FILE, "line 3: cannot use stage \"tools\", it needs to be defined before current stage \"build\"");
    check("ARG a\n", "dockerfile contains no stages to build: add a FROM");
    check(
        "RUN a\nFROM b",
        "dockerfile parse error on line 1: no build stage in current context: start with FROM",
    );
    check("FROM a AS b\nCOPY --from=b c d", "line 2: circular dependency detected on stage: b");
    check("FROM a\nCOPY --from=1 c d", "line 2: invalid stage index 1");
    check("FROM a\nCOPY --from=99999999999999999999 c d", "line 2: invalid stage index 99999999999999999999");
    check("FROM $a", "line 1: base name ($a) should not be blank");
    check("FROM --platform=$p a", "line 1: empty platform value from expression $p");
    check("FROM ${a", "line 1: failed to process \"${a\": syntax error: missing '}'");
}

#[test]
fn global_arguments() {
    let file = file("ARG a=1\nARG b=$a-$TARGETARCH c\nARG a=${a}2\nFROM x");
    let stages = stages(&file).unwrap();
    let amd64 = "linux/amd64".parse().unwrap();
    let predefined = predefined(&amd64, &"linux/arm/v7".parse().unwrap(), "");
    let given = Lookup(|name: &str| (name == "c").then(|| "given".to_owned()));
    let globals = Globals::new(stages.globals, &predefined, &given, Escape::Backslash).unwrap();
    let get = |name: &str| globals.get(name).map(std::borrow::Cow::into_owned);
    let all =
        ["a", "b", "c", "BUILDPLATFORM", "TARGETPLATFORM", "TARGETVARIANT", "TARGETSTAGE", "d"].map(get);
    let want = ["12", "1-arm", "given", "linux/amd64", "linux/arm/v7", "v7", "default"];
    assert_eq!(all[..7], want.map(|v| Some(v.to_owned())));
    assert_eq!(all[7], None);
}
