//! Files as people write them, each as it is understood: one line per instruction.

use super::super::*;
use std::fmt::Write;

fn told(text: &str) -> String {
    let mut out = String::new();
    for i in super::file(text).instructions {
        let _ = write!(out, "{}-{} ", i.span.line, i.span.end_line);
        let _ = match &i.kind {
            Kind::From(f) => {
                writeln!(out, "from {} {:?} {:?}", f.image, f.platform.as_ref().map(|p| &p.0), f.alias)
            }
            Kind::Run(r) => writeln!(
                out,
                "run {:?} {:?}",
                r.body,
                r.mounts.iter().map(|m| m.source.as_str()).collect::<Vec<_>>()
            ),
            Kind::Copy(c) => writeln!(
                out,
                "copy {:?} {:?} {:?}",
                c.from,
                c.paths.sources.iter().map(Word::as_str).collect::<Vec<_>>(),
                c.paths.dest.as_str()
            ),
            Kind::Env(p) | Kind::Label(p) => {
                writeln!(
                    out,
                    "pairs {:?}",
                    p.iter().map(|p| format!("{}={}", p.key, p.value)).collect::<Vec<_>>()
                )
            }
            Kind::Arg(d) => writeln!(out, "arg {:?}", d.iter().map(|d| d.name.as_str()).collect::<Vec<_>>()),
            Kind::Cmd(c) | Kind::Entrypoint(c) => writeln!(out, "command {c:?}"),
            other => writeln!(out, "{other:?}"),
        };
    }
    out
}

fn check(text: &str, want: &[&str]) {
    let got = told(text);
    assert_eq!(got.lines().collect::<Vec<_>>(), want);
}

#[test]
fn a_compiled_service() {
    check(
        r#"# syntax=docker/dockerfile:1
ARG GO=1.25

FROM --platform=$BUILDPLATFORM golang:${GO}-alpine AS build
WORKDIR /src
RUN --mount=type=cache,target=/go/pkg/mod \
    --mount=type=bind,source=go.sum,target=go.sum \
    go mod download -x
ARG TARGETOS TARGETARCH
RUN --mount=type=cache,target=/root/.cache/go-build --mount=target=. \
    GOOS=$TARGETOS GOARCH=$TARGETARCH go build -o /out/app ./cmd/app

FROM gcr.io/distroless/static
COPY --from=build /out/app /
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/app"]
"#,
        &[
            r#"2-2 arg ["GO"]"#,
            r#"4-4 from golang:${GO}-alpine Some("$BUILDPLATFORM") Some("build")"#,
            r#"5-5 Workdir(Word("/src"))"#,
            r#"6-8 run Shell("go mod download -x") ["type=cache,target=/go/pkg/mod", "type=bind,source=go.sum,target=go.sum"]"#,
            r#"9-9 arg ["TARGETOS", "TARGETARCH"]"#,
            r#"10-11 run Shell("GOOS=$TARGETOS GOARCH=$TARGETARCH go build -o /out/app ./cmd/app") ["type=cache,target=/root/.cache/go-build", "target=."]"#,
            "13-13 from gcr.io/distroless/static None None",
            r#"14-14 copy Some("build") ["/out/app"] "/""#,
            r#"15-15 User(Word("65532:65532"))"#,
            r#"16-16 Expose([Word("8080")])"#,
            r#"17-17 command Exec(["/app"])"#,
        ],
    );
}

#[test]
fn packages_with_comments_between() {
    check(
        r#"from debian:bookworm-slim

run set -eux; \
	# what it runs on
	apt-get update; \

	apt-get install -y --no-install-recommends \
		ca-certificates \
		# for the tests
		curl \
	; \
	rm -rf /var/lib/apt/lists/*

env PATH /opt/bin:$PATH
label org.opencontainers.image.title="A \"tool\"" \
      org.opencontainers.image.version=1
cmd curl --help
"#,
        &[
            "1-1 from debian:bookworm-slim None None",
            r#"3-12 run Shell("set -eux; \tapt-get update; \tapt-get install -y --no-install-recommends \t\tca-certificates \t\tcurl \t; \trm -rf /var/lib/apt/lists/*") []"#,
            r#"14-14 pairs ["PATH=/opt/bin:$PATH"]"#,
            r#"15-16 pairs ["org.opencontainers.image.title=\"A \\\"tool\\\"\"", "org.opencontainers.image.version=1"]"#,
            r#"17-17 command Shell("curl --help")"#,
        ],
    );
}

#[test]
fn scripts_inside() {
    check(
        "FROM python:3\nCOPY <<-'EOT' /app/run.py\n\timport os\n\tprint(os.environ[\"HOME\"])\nEOT\nRUN <<EOT bash\nset -e\npip install x\nEOT\nRUN python3 <<EOT && echo \"done\"\nprint(\"$x\")\nEOT\nCMD [\"python3\", \"/app/run.py\"]\n",
        &[
            "1-1 from python:3 None None",
            r#"2-5 copy None [] "/app/run.py""#,
            r#"6-9 run Shell("<<EOT bash\nset -e\npip install x\nEOT") []"#,
            r#"10-12 run Shell("python3 <<EOT && echo \"done\"\nprint(\"$x\")\nEOT") []"#,
            r#"13-13 command Exec(["python3", "/app/run.py"])"#,
        ],
    );
}

#[test]
fn windows_paths() {
    check(
        "# escape=`\r\nFROM mcr.microsoft.com/windows/nanoserver AS base\r\nSHELL [\"cmd\", \"/S\", \"/C\"]\r\nCOPY app.exe c:\\\r\nRUN dir `\r\n    c:\\\r\n",
        &[
            r#"2-2 from mcr.microsoft.com/windows/nanoserver None Some("base")"#,
            r#"3-3 Shell(["cmd", "/S", "/C"])"#,
            r#"4-4 copy None ["app.exe"] "c:\\""#,
            r#"5-6 run Shell("dir     c:\\") []"#,
        ],
    );
}

#[test]
fn a_base_for_others() {
    check(
        "FROM node:22\nONBUILD ARG NODE_ENV\nONBUILD COPY package.json /app/\nVOLUME [\"/data\"]\nSTOPSIGNAL SIGINT\nHEALTHCHECK --interval=5m --timeout=3s \\\n  CMD curl -f http://localhost/ || exit 1\n",
        &[
            "1-1 from node:22 None None",
            r#"2-2 Onbuild(OnbuildCmd { trigger: Instruction { span: Span { line: 2, end_line: 2, column: 9 }, name: "ARG", source: "ARG NODE_ENV", comments: [], heredocs: [], kind: Arg([ArgDef { name: "NODE_ENV", default: None, doc: None }]) }, expression: "ARG NODE_ENV" })"#,
            r#"3-3 Onbuild(OnbuildCmd { trigger: Instruction { span: Span { line: 3, end_line: 3, column: 9 }, name: "COPY", source: "COPY package.json /app/", comments: [], heredocs: [], kind: Copy(CopyCmd { paths: Paths { sources: [Word("package.json")], files: [], dest: Word("/app/"), chown: None, chmod: None, link: false, exclude: [] }, from: None, parents: false }) }, expression: "COPY package.json /app/" })"#,
            r#"4-4 Volume([Word("/data")])"#,
            r#"5-5 Stopsignal(Word("SIGINT"))"#,
            r#"6-7 Healthcheck(Check { command: Shell("curl -f http://localhost/ || exit 1"), interval: 300s, timeout: 3s, start_period: 0ns, start_interval: 0ns, retries: 0 })"#,
        ],
    );
}
