//! Plans of small Dockerfiles: what commands see and what the image says.

use longshore_oci::Platform;

use super::*;
use crate::graph::{self, Op};

struct Bases;

impl Images for Bases {
    fn base(&self, _: &str, _: &Platform) -> Result<Base> {
        let document = ImageDocument {
            config: Some(RunConfig { env: Some(vec!["PATH=/bin".into()]), ..RunConfig::default() }),
            ..ImageDocument::default()
        };
        Ok(Base { id: Digest::of(b"id"), chain: Some(Digest::of(b"chain")), document })
    }
}

fn planned(file: &str, args: &[(&str, &str)]) -> Plan {
    let file = dockerfile::parse(file.as_bytes()).expect("a Dockerfile");
    let options =
        Options { args: args.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(), ..options() };
    plan(&file, &options, &Bases).expect("a plan")
}

/// What the last command of a file sees, but for its path.
fn seen(file: &str, args: &[(&str, &str)]) -> String {
    let plan = planned(file, args);
    let last =
        plan.graph.steps().iter().rev().find_map(|s| if let Op::Run(run) = &s.op { Some(run) } else { None });
    let run = last.expect("a command");
    let mut env: Vec<&str> = run.env.iter().chain(&run.quiet_env).map(String::as_str).collect();
    env.retain(|e| !e.starts_with("PATH="));
    env.join(" ")
}

#[test]
fn what_was_set_last_counts() {
    let check = |body: &str, args: &[(&str, &str)], want: &str| {
        assert_eq!(seen(&format!("FROM base\n{body}\nRUN x"), args), want, "{body}");
    };
    check("ENV A=env\nARG A=arg", &[], "A=arg");
    check("ENV A=env\nARG A", &[], "A=env");
    check("ENV A=env\nARG A", &[("A", "given")], "A=given");
    check("ARG A=arg\nENV A=env", &[("A", "given")], "A=env");
    check("ARG A=arg\nENV A=$A-env", &[], "A=arg-env");
    check("ARG A=one\nARG A", &[], "A=one");
    check("ARG A=one\nARG A=two", &[], "A=two");
}

#[test]
fn stages_hand_their_arguments_on() {
    let file = |rest: &str| format!("FROM base AS one\nENV E=env\nARG A=1 E=arg\nFROM one\n{rest}RUN x");
    assert_eq!(seen(&file(""), &[]), "E=env A=1");
    assert_eq!(seen(&file("ENV A=2\n"), &[]), "E=env A=2");
    assert_eq!(seen("FROM base AS one\nARG A=1\nFROM base\nRUN x", &[]), "");
}

#[test]
fn proxies_are_seen_in_both_spellings() {
    let file = "FROM base\nRUN x";
    assert_eq!(seen(file, &[("http_proxy", "p")]), "HTTP_PROXY=p http_proxy=p");
    assert_eq!(seen(file, &[("NO_PROXY", "a"), ("no_proxy", "b")]), "NO_PROXY=a no_proxy=b");
    assert_eq!(seen("FROM base\nARG HTTP_PROXY\nRUN x", &[("HTTP_PROXY", "p")]), "HTTP_PROXY=p http_proxy=p");
}

#[test]
fn an_empty_list_is_none() {
    let config = planned("FROM base\nCMD [\"x\"]\nENTRYPOINT [\"y\"]\nCMD []\nENTRYPOINT []", &[]).images[0]
        .config
        .clone();
    assert_eq!((&config.cmd, &config.entrypoint), (&None, &None));
}

#[test]
fn signals_may_be_in_lower_case() {
    let signal = planned("FROM base\nSTOPSIGNAL term", &[]).images[0].config.stop_signal.clone();
    assert_eq!(signal.as_deref(), Some("term"));
}

#[test]
fn a_working_directory_is_its_users() {
    let plan = planned("FROM base\nWORKDIR /a\nUSER dev:staff\nWORKDIR b", &[]);
    let dirs: Vec<(String, &str)> = plan
        .graph
        .steps()
        .iter()
        .filter_map(|s| if let Op::Mkdir(dir) = &s.op { Some(dir) } else { None })
        .map(|dir| (String::from_utf8_lossy(&dir.path).into_owned(), dir.owner.as_str()))
        .collect();
    assert_eq!(dirs, [("/a".to_owned(), ""), ("/a/b".to_owned(), "dev:staff")]);
}

#[test]
fn several_sources_may_go_where_no_slash_is() {
    let plan = planned("FROM base\nCOPY a b /app", &[]);
    let step = plan.graph.steps().last().expect("a step");
    assert!(matches!(&step.op, Op::Copy(copy) if copy.dest == b"/app" && copy.parts[0].sources.len() == 2));
}

/// The parts of a file's last copy.
fn parts(file: &str) -> Result<Vec<crate::graph::Part>> {
    let file = dockerfile::parse(file.as_bytes()).expect("a Dockerfile");
    let plan = plan(&file, &options(), &Bases)?;
    match &plan.graph.steps().last().expect("a step").op {
        Op::Copy(copy) => Ok(copy.parts.clone()),
        _ => panic!("no copy"),
    }
}

#[test]
fn add_takes_files_from_elsewhere_in_their_order() {
    use crate::graph::Source;
    let file = "FROM base\nARG V=1\nADD a b https://h/$V.tar c https://h/x.git#$V <<EOF /to/\nEOF\n";
    let parts = parts(file).expect("a plan");
    let kinds: Vec<String> = parts
        .iter()
        .map(|part| match &part.from {
            Source::Context(_) => format!("files {} {}", part.sources.len(), part.unpack),
            Source::Remote(remote) => format!("{} {}", remote.address(), part.unpack),
            Source::Inline(_) => "inline".into(),
            Source::Tree(_) => "tree".into(),
        })
        .collect();
    let want = ["files 2 true", "https://h/1.tar false", "files 1 true", "https://h/x.git false", "inline"];
    assert_eq!(kinds, want);
    assert!(self::parts("FROM base\nADD --unpack https://h/1.tar /to/").expect("a plan")[0].unpack);
}

#[test]
fn what_is_elsewhere_is_asked_for_rightly() {
    let sum = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    for (line, want) in [
        ("COPY https://h/x /", "source can't be a URL for COPY"),
        ("COPY git@h:x /", "source can't be a git ref for COPY"),
        ("ADD ftp://h/x /", "ADD: ftp:// is not fetched: use http, https, git or ssh"),
        (&format!("ADD --checksum={sum} a /"), "checksum requires HTTP(S) or Git sources"),
        (
            &format!("ADD --checksum={sum} https://h/x a /"),
            "checksum can't be specified for multiple sources",
        ),
        ("ADD --checksum=md5:0 https://h/x /", "checksum \"md5:0\": "),
        ("ADD --checksum=xyz https://h/x.git /", "invalid checksum \"xyz\" for a Git repository"),
        ("ADD --keep-git-dir https://h/x.git?keep-git-dir=0 /", "inconsistent keep-git-dir configuration"),
    ] {
        let error = parts(&format!("FROM base\n{line}")).expect_err(line).to_string();
        let want = format!("dockerfile parse error on line 2: {want}");
        assert!(error.starts_with(&want), "{line}: {error}");
    }
}

fn options() -> Options {
    let host = Platform::host();
    Options {
        target: None,
        args: BTreeMap::new(),
        labels: BTreeMap::new(),
        platforms: Vec::new(),
        host,
        no_cache: NoCache::Never,
        network: Network::Default,
        hosts: Vec::new(),
        limits: Limits::default(),
        contexts: BTreeMap::new(),
        allowed: Allowed::default(),
    }
}

/// What the copies of a plan take files from, in the file's order.
fn copied(file: &str, contexts: &[(&str, Named)]) -> Vec<graph::Source> {
    let file = dockerfile::parse(file.as_bytes()).expect("a Dockerfile");
    let contexts = contexts.iter().map(|(name, named)| ((*name).to_owned(), named.clone())).collect();
    let plan = plan(&file, &Options { contexts, ..options() }, &Bases).expect("a plan");
    let of = |step: &graph::Step| {
        if let Op::Copy(copy) = &step.op { Some(copy.parts[0].from.clone()) } else { None }
    };
    plan.graph.steps().iter().filter_map(of).collect()
}

#[test]
fn contexts_have_names() {
    use crate::graph::Source;
    let image = || Source::Tree(Tree::Layers(Some(Digest::of(b"chain"))));
    let (files, other) = (Named::Files(3), Named::Image("other".into()));
    let from = "FROM scratch\nCOPY --from=x /a /";
    assert_eq!(copied(from, &[("x", files.clone())]), [Source::Context(3)]);
    assert_eq!(copied(from, &[("x", other.clone())]), [image()]);
    assert_eq!(copied(from, &[("docker.io/library/x:latest", files.clone())]), [Source::Context(3)]);
    // It comes before a stage of its name, of which nothing is carried out then.
    let stage = "FROM y AS one\nCOPY a /\nRUN x\nFROM scratch AS two\nCOPY --from=one /a /";
    assert_eq!(copied(stage, &[("one", files.clone())]), [Source::Context(3), Source::Context(3)]);
    let both = "FROM y AS zero\nCOPY c /\nFROM zero AS one\nCOPY a /\nFROM one\nCOPY b /";
    assert_eq!(copied(both, &[("one", other)]), [Source::Context(0)]);
    // As a base it is its files.
    assert_eq!(copied("FROM x\nCOPY b /", &[("x", files)]), [Source::Context(3), Source::Context(0)]);
}

#[test]
fn stages_that_are_the_same_for_all_platforms_are_planned_once() {
    let file = "FROM --platform=$BUILDPLATFORM base AS same\nRUN make\n\
        FROM --platform=$BUILDPLATFORM base AS cross\nARG TARGETARCH\nRUN make\n\
        FROM scratch\nCOPY --from=same /a /\nCOPY --from=cross /b /\n";
    let file = dockerfile::parse(file.as_bytes()).expect("a Dockerfile");
    let platforms = ["linux/amd64", "linux/arm64"].map(|p| p.parse().expect("a platform")).to_vec();
    let host = "linux/amd64".parse().expect("a platform");
    let plan = plan(&file, &Options { platforms, host, ..options() }, &Bases).expect("a plan");
    let runs = plan.graph.steps().iter().filter(|s| matches!(s.op, Op::Run(_))).count();
    assert_eq!(runs, 3, "one that is the same for both, and one for each");
    let rows = |stage: &str| plan.rows.iter().filter(|row| row.stage == stage).count();
    assert_eq!((rows("same"), rows("cross")), (2, 6));
    assert_eq!(plan.images.len(), 2);
    assert_ne!(plan.images[0].tree, plan.images[1].tree);
    let archs: Vec<&str> = plan.images.iter().map(|i| i.platform.architecture.as_str()).collect();
    assert_eq!(archs, ["amd64", "arm64"]);
}
