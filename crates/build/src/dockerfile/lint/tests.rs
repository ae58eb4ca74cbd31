use super::super::{Check, parse, parse_to_mistake, stages};
use super::*;
use crate::dockerfile::expand::Lookup;
use crate::dockerfile::globals::Globals;
use crate::dockerfile::parse_triggers;

/// A build that knows everything: images without variables, and what a test says.
#[derive(Default)]
struct All {
    args: Vec<(&'static str, &'static str)>,
    base: BaseFacts,
    ignored: Vec<&'static str>,
}

impl Known for All {
    fn predefined(&self) -> Vec<(String, String)> {
        let amd64 =
            Platform { os: "linux".into(), architecture: "amd64".into(), variant: None, os_version: None };
        super::super::predefined(&amd64, &amd64, "")
    }

    fn build_arg(&self, name: &str) -> Option<String> {
        self.args.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
    }

    fn base(&self, _: usize) -> Option<BaseFacts> {
        Some(self.base.clone())
    }

    fn ignored(&self, path: &str) -> bool {
        self.ignored.contains(&path)
    }
}

fn findings(text: &str, known: &impl Known) -> Vec<Finding> {
    let file = parse(text.as_bytes()).expect(text);
    let stages = stages(&file).expect(text);
    let given = Lookup(|n: &str| known.build_arg(n));
    let globals = Globals::new(stages.globals, &known.predefined(), &given, stages.escape()).expect(text);
    let graph = stages.resolve(&globals).expect(text);
    lint(&file, &graph, known, &file.directives.check)
}

fn with(text: &str, known: &impl Known, want: &[&str]) {
    let found = findings(text, known);
    let got: Vec<_> =
        found.iter().map(|f| format!("{}:{}: {}", f.span.line, f.rule.name(), f.message)).collect();
    assert_eq!(got, want, "{text}");
}

fn check(text: &str, want: &[&str]) {
    with(text, &All::default(), want);
}

#[test]
fn casing() {
    check("FROM scratch AS Base", &["1:StageNameCasing: Stage name 'Base' should be lowercase"]);
    check("FROM scratch as base", &["1:FromAsCasing: 'as' and 'FROM' keywords' casing do not match"]);
    check("from scratch AS base", &["1:FromAsCasing: 'AS' and 'from' keywords' casing do not match"]);
    check(
        "FROM scratch\nUSER a\nuser b\nUser c",
        &[
            "3:ConsistentInstructionCasing: Command 'user' should match the case of the command majority (uppercase)",
            "4:ConsistentInstructionCasing: Command 'User' should match the case of the command majority (uppercase)",
        ],
    );
    check(
        "from scratch\nuser a\nUSER b",
        &[
            "3:ConsistentInstructionCasing: Command 'USER' should match the case of the command majority (lowercase)",
        ],
    );
}

#[test]
fn the_text() {
    check("FROM scratch\nLABEL \\\n\n a=b", &["4:NoEmptyContinuation: Empty continuation line"]);
    check(
        "FROM scratch AS x\nFROM scratch AS x\nFROM scratch AS context",
        &[
            "2:DuplicateStageName: Duplicate stage name \"x\", stage names should be unique",
            "3:ReservedStageName: Stage name should not use the same name as reserved stage \"context\"",
        ],
    );
    check(
        "FROM scratch\nMAINTAINER me",
        &["2:MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label"],
    );
    check(
        "FROM scratch\nENV a b\nLABEL c d",
        &[
            "2:LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
            "3:LegacyKeyValueFormat: \"LABEL key=value\" should be used instead of legacy \"LABEL key value\" format",
        ],
    );
    check("# a comment\nARG x\n# other\nFROM scratch AS y", &[]);
    check(
        "# check=experimental=all\n# a comment\nARG x\n# other\nFROM scratch AS y\n# two\nARG p q\n# z it is\nARG z",
        &[
            "3:InvalidDefinitionDescription: Comment for ARG should follow the format: `# x <description>`",
            "5:InvalidDefinitionDescription: Comment for FROM should follow the format: `# y <description>`",
            "7:InvalidDefinitionDescription: Comment for ARG should follow the format: `# <arg_key> <description>`",
        ],
    );
}

#[test]
fn commands() {
    let json = "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals";
    check("FROM scratch\nCMD a", &[&format!("2:JSONArgsRecommended: {json}")]);
    check("FROM scratch\nSHELL [\"a\"]\nCMD a", &[]);
    check("FROM scratch\nRUN a\nHEALTHCHECK CMD a", &[]);
    with(
        "FROM a\nCMD a",
        &All { base: BaseFacts { shell: true, ..BaseFacts::default() }, ..All::default() },
        &[],
    );
    let many = |name: &str| {
        format!(
            "MultipleInstructionsDisallowed: Multiple {name} instructions should not be used in the same stage because only the last one will be used"
        )
    };
    check(
        "FROM scratch AS x\nCMD [\"a\"]\nCMD [\"b\"]\nENTRYPOINT [\"a\"]\nHEALTHCHECK NONE\nENTRYPOINT [\"b\"]\nHEALTHCHECK NONE\nFROM x\nCMD [\"c\"]",
        &[
            &format!("2:{}", many("CMD")),
            &format!("4:{}", many("ENTRYPOINT")),
            &format!("5:{}", many("HEALTHCHECK")),
        ],
    );
}

#[test]
fn arguments_of_from() {
    check(
        "ARG MY_ARCH=amd64 base=a\nFROM --platform=linux/${MYARCH:-amd64} $base",
        &["2:UndefinedArgInFrom: FROM argument 'MYARCH' is not declared (did you mean MY_ARCH?)"],
    );
    check("ARG D\nFROM scratch$D\nFROM --platform=$BUILDPLATFORM scratch", &[]);
    for (word, want) in
        [("$TARGETPLATFORM", true), ("${TARGETPLATFORM}", true), ("$TARGETPLATFORM/v1", false)]
    {
        let text = format!("FROM --platform={word} scratch");
        let message = format!(
            "1:RedundantTargetPlatform: Setting platform to predefined {word} in FROM is redundant as this is the default behavior"
        );
        check(
            &text,
            if want { std::slice::from_ref(&message) } else { &[] }
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .as_slice(),
        );
    }
    check(
        "FROM --platform=linux/amd64 scratch\nFROM --platform=linux/arm64 scratch AS x-arm64",
        &[
            "1:FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/amd64\"",
        ],
    );
    with(
        "ARG V\nARG W=1\nFROM busybox:$V\nFROM busybox:$W",
        &All { args: vec![("V", "1")], ..All::default() },
        &[
            "3:InvalidDefaultArgInFrom: Default value for ARG busybox:$V results in empty or invalid base image name",
        ],
    );
}

#[test]
fn variables() {
    check(
        "FROM a\nCOPY $foo .\nARG foo=bar\nCOPY $foo $PATH .",
        &["2:UndefinedVar: Usage of undefined variable '$foo'"],
    );
    check(
        "FROM a\nENV PATH=$PAHT:/x",
        &["2:UndefinedVar: Usage of undefined variable '$PAHT' (did you mean $PATH?)"],
    );
    check("FROM a AS b\nARG foo\nENV c=d\nFROM b\nCOPY $foo$c .\nRUN echo $nothing", &[]);
    check(
        "FROM a\nARG long=$y\nCOPY <<E /\n$z\nE",
        &[
            "2:UndefinedVar: Usage of undefined variable '$y'",
            "3:UndefinedVar: Usage of undefined variable '$z'",
        ],
    );
    let base = BaseFacts {
        env: vec![("FROM_BASE".into(), "x".into())],
        triggers: parse_triggers(&["USER $FROM_BASE$other"]).unwrap(),
        ..BaseFacts::default()
    };
    with(
        "FROM a\nUSER $FROM_BASE",
        &All { base, ..All::default() },
        &["1:UndefinedVar: Usage of undefined variable '$other'"],
    );
    // What a base image sets is not known without it.
    with(
        "FROM a\nUSER $x\nFROM scratch\nUSER $y",
        &FileOnly,
        &["4:UndefinedVar: Usage of undefined variable '$y'"],
    );
}

#[test]
fn folders_ports_and_secrets() {
    let relative = "WorkdirRelativePath: Relative workdir \"app/\" can have unexpected results if the base image changes";
    check("FROM a\nWORKDIR app/\nWORKDIR b", &[&format!("2:{relative}")]);
    check("FROM a AS x\nARG d=/app\nWORKDIR $d\nFROM x\nWORKDIR b", &[]);
    check(
        "FROM a\nEXPOSE 80/TcP 127.0.0.1:81:82 90",
        &[
            "2:ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:81:82'",
            "2:ExposeProtoCasing: Defined protocol '80/TcP' in EXPOSE instruction should be lowercase",
        ],
    );
    let secret = |line: u32, name: &str| {
        format!(
            "{line}:SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data ({name})"
        )
    };
    check(
        "FROM a\nARG GITHUB_TOKEN\nENV apikey=1 PUBLIC_KEY=2 sunflower=3 Db_Password=4\nARG SECRET_FILE AUTH_VERSION",
        &[
            &secret(2, "ARG \"GITHUB_TOKEN\""),
            &secret(3, "ENV \"apikey\""),
            &secret(3, "ENV \"Db_Password\""),
        ],
    );
}

#[test]
fn what_a_build_feeds() {
    let known = All { ignored: vec!["a/b", "."], ..All::default() };
    with(
        "FROM scratch AS y\nFROM x\nCOPY ./a//c/../b d /\nADD a/b https://a/b /\nCOPY . /\nCOPY --from=y a/b /",
        &known,
        &[
            "3:CopyIgnoredFile: Attempting to Copy file \"a/b\" that is excluded by .dockerignore",
            "4:CopyIgnoredFile: Attempting to Add file \"a/b\" that is excluded by .dockerignore",
        ],
    );
    let p = |s: &str| s.parse::<Platform>().unwrap();
    let base = BaseFacts { platforms: Some((p("linux/amd64"), p("linux/arm64"))), ..BaseFacts::default() };
    let known = All { base, ..All::default() };
    with(
        "FROM x",
        &known,
        &[
            "1:InvalidBaseImagePlatform: Base image x was pulled with platform \"linux/arm64\", expected \"linux/amd64\" for current build",
        ],
    );
}

#[test]
fn what_is_skipped() {
    check("# check=skip=all\nFROM a AS B\nCMD x", &[]);
    check("# check=skip=StageNameCasing,JSONArgsRecommended\nFROM a AS B\nCMD x", &[]);
    check("FROM a\n# check=skip=JSONArgsRecommended // for once\nCMD x", &[]);
    let found = findings("# check=error=true\nFROM a AS B\nCMD x", &All::default());
    let check = Check { error: true, ..Check::default() };
    assert_eq!(
        violation(&found, &check).unwrap(),
        "lint violation found for rules: JSONArgsRecommended, StageNameCasing"
    );
    assert_eq!(violation(&[], &check), None);
    assert_eq!(violation(&found, &Check::default()), None);
}

#[test]
fn instructions_before_a_mistake() {
    let (file, error) = parse_to_mistake(b"FROM a AS B\nMAINTAINER x\nBADCMD");
    assert_eq!(error.unwrap().to_string(), "dockerfile parse error on line 3: unknown instruction: BADCMD");
    let rules: Vec<_> =
        lint_instructions(&file.instructions, &Check::default()).iter().map(|f| f.rule).collect();
    assert_eq!(rules, [Rule::StageNameCasing, Rule::MaintainerDeprecated]);
}
