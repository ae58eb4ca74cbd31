//! `build` of our command line: what its options ask for beyond an image, and what they allow.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::process::Command;

use crate::build_cli::{build, done, folder, in_image, ours, piped, tar};
use crate::cli::{Act, on_a_terminal, run};
use crate::harness::Daemon;

#[test]
fn privileged_what_is_built_comes_out_in_other_forms() {
    let d = Daemon::start();
    d.load("busybox");
    let dir = folder(
        &d,
        "context",
        &[(
            "Dockerfile",
            "FROM busybox AS build\nRUN mkdir /out && echo made > /out/file && ln -s file /out/link && chmod 751 /out/file\nFROM scratch\nCOPY --from=build /out /\n",
        )],
    );
    let images = d.docker(["images", "-aq"]).ok();
    // A folder, which keeps what it has.
    let out = folder(&d, "out", &[("kept", "k"), ("file", "old")]);
    build(&d, &format!("-q -o {out} -o type=tar,dest={out}.tar {dir}")).ok();
    let mut names: Vec<_> = fs::read_dir(&out).expect("out").map(|e| e.expect("entry").file_name()).collect();
    names.sort();
    assert_eq!(names, ["file", "kept", "link"]);
    assert_eq!(fs::read_to_string(format!("{out}/link")).expect("file"), "made\n");
    let mode = fs::metadata(format!("{out}/file")).expect("file").permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o751);
    let listed = Command::new("tar").args(["-tf", &format!("{out}.tar")]).output().expect("tar");
    assert!(String::from_utf8_lossy(&listed.stdout).lines().any(|l| l.ends_with("link")));
    // On standard output, and nothing else there.
    let piped = done(run(ours(&d, &format!("build -q -o - --target build {dir}")), &[]));
    assert!(piped.code == 0 && piped.stdout.contains("bin/busybox"), "{}", piped.stderr);
    // No image came of it.
    assert_eq!(d.docker(["images", "-aq"]).ok(), images);
    // An archive that both kinds of readers take; beside an image, too.
    let shown = build(&d, &format!("--progress plain -o type=oci,dest={out}.oci,name=made:1 {dir}"));
    assert!(shown.stderr.contains("exporting to an image archive"), "{}", shown.stderr);
    assert_eq!(d.docker(["images", "-aq"]).ok(), images);
    let id =
        build(&d, &format!("-q -t made:2 -o type=docker,dest={out}.docker,name=made:1 --load {dir}")).ok();
    assert_eq!(d.inspect("{{.Id}}", "made:2"), id.trim());
    d.docker(["rmi", "made:2", "made:1"]).ok();
    for (kind, names) in [("oci", &["made:1"][..]), ("docker", &["made:2", "made:1"])] {
        let loaded = d.docker(["load", "-q", "-i", &format!("{out}.{kind}")]).ok();
        assert_eq!(loaded, names.iter().map(|n| format!("Loaded image: {n}")).collect::<Vec<_>>().join("\n"));
        assert_eq!(d.inspect("{{.Id}}", "made:1"), id.trim());
        d.docker(["rmi"].into_iter().chain(names.iter().copied())).ok();
    }
    // What fails leaves nothing beside what was there.
    let failing = folder(&d, "failing", &[("Dockerfile", "FROM busybox\nRUN exit 3\n")]);
    build(&d, &format!("-q -o {out} -o type=tar,dest={out}/x.tar {failing}")).fails(1);
    assert_eq!(fs::read_dir(&out).expect("out").count(), 3);
    d.finish();
}

#[test]
fn privileged_a_build_explains_itself() {
    let d = Daemon::start();
    d.load("busybox");
    let dir = folder(
        &d,
        "context",
        &[
            ("Dockerfile", "FROM busybox\nARG WHO=you\nCOPY . /all\nRUN echo $WHO\n"),
            ("a", "1"),
            ("b/c", "2"),
        ],
    );
    let why = |line: &str| {
        let shown = build(&d, &format!("-q --explain {line} {dir}"));
        assert_eq!(shown.code, 0, "{}", shown.stderr);
        shown.stderr.lines().map(|l| l.split_once("  ").unwrap_or_default().1.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(why(""), ["carried out: no step of this instruction is in the cache"; 2]);
    assert_eq!(why(""), ["cached: what it depends on is what it was"; 2]);
    fs::write(format!("{dir}/a"), "3").expect("write");
    fs::write(format!("{dir}/d"), "4").expect("write");
    fs::remove_file(format!("{dir}/b/c")).expect("remove");
    let base = "carried out: the files that it starts from are others";
    assert_eq!(why(""), ["carried out: changed: a; new: d; gone: b/c", base]);
    let said = why("--build-arg WHO=me");
    assert_eq!(said[0], "cached: what it depends on is what it was");
    assert_eq!(said[1], "carried out: variable WHO was \"you\", and is \"me\"");
    assert!(why("--no-cache").iter().all(|w| w.contains("the cache was not to be used")));
    d.finish();
}

#[test]
fn privileged_a_build_is_verified_to_be_reproducible() {
    let d = Daemon::start();
    d.load("busybox");
    let dir = folder(
        &d,
        "context",
        &[
            ("Dockerfile", "FROM busybox\nCOPY a /b/\nWORKDIR /c/d\nENV A=1\n"),
            ("Random", "FROM busybox\nRUN head -c 20 /dev/urandom > /random; touch -d @0 /random /\n"),
            ("a", "1"),
        ],
    );
    let same = build(&d, &format!("-q --verify-reproducible -t same {dir}"));
    assert_eq!(same.code, 0, "{}", same.stderr);
    assert!(same.stderr.contains("Reproducible: built a second time"), "{}", same.stderr);
    let images = d.docker(["images", "-aq"]).ok().lines().count();
    let differs = build(&d, &format!("-q --verify-reproducible -t random -f {dir}/Random {dir}")).fails(1);
    assert!(
        differs.contains("not reproducible: a second build differs in 1 files, first /random: content"),
        "{differs}"
    );
    // The second one is gone again.
    assert_eq!(d.docker(["images", "-aq"]).ok().lines().count(), images + 1);
    let folder = build(&d, &format!("--verify-reproducible -o out {dir}")).fails(1);
    assert!(folder.contains("--verify-reproducible compares images"), "{folder}");
    d.finish();
}

#[test]
fn privileged_a_shell_opens_in_what_a_failed_command_left() {
    let d = Daemon::start();
    d.load("busybox");
    let dir = folder(
        &d,
        "context",
        &[("Dockerfile", "FROM busybox\nARG A=given\nWORKDIR /work\nRUN echo left > here; exit 7\n")],
    );
    let images = d.docker(["images", "-aq"]).ok();
    let mut command = ours(&d, &format!("build --progress plain --debug-shell {dir}"));
    command.env("TERM", "dumb");
    let look = |t: &mut fs::File, _: u32| t.write_all(b"echo $A; pwd; cat here\n").expect("type");
    let leave = |t: &mut fs::File, _: u32| t.write_all(b"exit 5\n").expect("type");
    let steps: &[(&str, Act<'_>)] =
        &[("A shell in what the failed command left", &|_, _| ()), ("# ", &look), ("left\r\n", &leave)];
    let (shown, code) = on_a_terminal(command, (24, 80), steps);
    assert_eq!(code, 1, "{shown}");
    assert!(shown.contains("given\r\n/work\r\nleft\r\n"), "{shown}");
    assert!(shown.contains("returned a non-zero code: 7"), "{shown}");
    assert_eq!((d.docker(["images", "-aq"]).ok(), d.docker(["ps", "-aq"]).ok()), (images, String::new()));
    let no = build(&d, &format!("--debug-shell {dir}")).fails(1);
    assert!(no.contains("--debug-shell needs a terminal"), "{no}");
    d.finish();
}

#[test]
fn privileged_commands_may_ask_an_agent() {
    let d = Daemon::start();
    d.load("nginx");
    let dir = folder(
        &d,
        "context",
        &[
            (
                "Dockerfile",
                "FROM nginx\nRUN id -u > /tmp/x\nUSER 1234\nRUN --mount=type=ssh,uid=1234,required perl -MIO::Socket::UNIX -e \
                 '$s = IO::Socket::UNIX->new($ENV{SSH_AUTH_SOCK}) or die; print $s qq(hello\\n); print STDERR <$s>' && ls -ln $SSH_AUTH_SOCK\n",
            ),
            ("Optional", "FROM nginx\nRUN --mount=type=ssh test -z \"$SSH_AUTH_SOCK\"\n"),
        ],
    );
    let socket = format!("{dir}.sock");
    let listener = UnixListener::bind(&socket).expect("bind");
    let agent = std::thread::spawn(move || {
        // The daemon looks whether somebody is there first.
        for _ in 0..2 {
            let (mut client, _) = listener.accept().expect("accept");
            let mut said = [0; 6];
            if client.read_exact(&mut said).is_ok() {
                assert_eq!(&said, b"hello\n");
                client.write_all(b"keys of the agent\n").expect("write");
                return;
            }
        }
        panic!("nobody asked");
    });
    let built = build(&d, &format!("--progress plain -t i --ssh default={socket} {dir}"));
    assert_eq!(built.code, 0, "{}", built.stderr);
    assert!(built.stderr.contains("keys of the agent"), "{}", built.stderr);
    assert!(
        built.stderr.contains("1234") && built.stderr.contains("/run/buildkit/ssh_agent.0"),
        "{}",
        built.stderr
    );
    agent.join().expect("the agent");
    // Nothing of it is in the image.
    assert_eq!(
        in_image(&d, "i", "ls -A /run/buildkit 2>&1 || true"),
        "ls: cannot access '/run/buildkit': No such file or directory"
    );
    let needs = build(&d, &format!("--no-cache {dir}")).fails(1);
    assert!(needs.contains("ssh agent default: not found: give it with --ssh"), "{needs}");
    build(&d, &format!("-q -f {dir}/Optional {dir}")).ok();
    let gone = build(&d, &format!("--no-cache --ssh default={socket} {dir}")).fails(1);
    assert!(gone.contains("the SSH agent cannot be reached"), "{gone}");
    d.finish();
}

#[test]
fn privileged_what_weakens_the_confinement_has_to_be_allowed() {
    let d = Daemon::start();
    d.load("busybox");
    let dir = folder(
        &d,
        "context",
        &[
            (
                "Dockerfile",
                "FROM busybox\nRUN --security=insecure mkdir /m && mount -t tmpfs none /m && echo mounted\n",
            ),
            ("Host", "FROM busybox\nRUN --network=host cat /proc/net/dev | grep -c : > /count\n"),
            (
                "Written",
                "FROM busybox\nRUN --mount=target=/c,rw echo 2 > /c/a && cat /c/a > /seen\nRUN --mount=target=/c cat /c/a >> /seen\n",
            ),
            ("a", "1\n"),
        ],
    );
    let no = build(&d, &dir).fails(1);
    assert!(no.contains("security.insecure is not allowed: build with --allow security.insecure"), "{no}");
    let yes = build(&d, &format!("--progress plain --allow security.insecure {dir}"));
    assert!(yes.code == 0 && yes.stderr.contains("mounted"), "{}", yes.stderr);
    let no = build(&d, &format!("-f {dir}/Host {dir}")).fails(1);
    assert!(no.contains("network.host is not allowed: build with --allow network.host"), "{no}");
    build(&d, &format!("-q -f {dir}/Host --allow network.host {dir}")).ok();
    // What is written to a mounted context is thrown away.
    build(&d, &format!("-q -t i -f {dir}/Written {dir}")).ok();
    assert_eq!(in_image(&d, "i", "cat /seen"), "2\n1");
    piped(&d, "-q -t j -f Written -", &tar(&dir, &[])).ok();
    assert_eq!(in_image(&d, "j", "cat /seen"), "2\n1");
    assert_eq!(fs::read_to_string(format!("{dir}/a")).expect("a"), "1\n");
    d.finish();
}

#[test]
fn privileged_secrets_in_files_of_an_image_are_warned_of() {
    let d = Daemon::start();
    d.load("busybox");
    let dir = folder(
        &d,
        "context",
        &[
            (
                "Dockerfile",
                "FROM busybox\nCOPY . /app\nRUN echo '-----BEGIN PRIVATE KEY-----' > /server.key\nRUN rm /app/id_rsa\n",
            ),
            (".env", "NAME=x\nAPI_TOKEN=abc\n"),
            ("id_rsa", "-----BEGIN OPENSSH PRIVATE KEY-----\n"),
            ("cert.pem", "-----BEGIN CERTIFICATE-----\n"),
        ],
    );
    let said = build(&d, &format!("--progress plain {dir}")).stderr;
    assert!(said.contains("SecretInLayer: /app/.env has a value for API_TOKEN"), "{said}");
    assert!(said.contains("SecretInLayer: /server.key has a private key"), "{said}");
    // It is in a layer although a later one removes it.
    assert!(
        said.contains("SecretInLayer: /app/id_rsa has a private key") && !said.contains("cert.pem has"),
        "{said}"
    );
    assert!(!said.contains("abc"), "the value itself is not told: {said}");
    assert!(
        !build(&d, &format!("--progress plain {dir}")).stderr.contains("SecretInLayer"),
        "nothing new was made"
    );
    d.finish();
}

#[test]
fn privileged_what_was_built_may_become_one_layer() {
    let d = Daemon::start();
    d.load("busybox");
    let dir = folder(
        &d,
        "context",
        &[
            (
                "Dockerfile",
                "FROM busybox\nCOPY . /all\nRUN rm -r /all/b /bin/true && echo new > /all/a && mkdir -m 751 /d && ln -s a /all/l\nENV A=1\nRUN echo x > /d/x\n",
            ),
            ("a", "old"),
            ("b/c", "gone"),
        ],
    );
    build(&d, &format!("-q -t apart {dir}")).ok();
    for _ in 0..2 {
        build(&d, &format!("-q --squash -t one {dir}")).ok();
        let layers = |image: &str| d.inspect("{{len .RootFS.Layers}}", image);
        assert_eq!((layers("busybox"), layers("apart"), layers("one")), ("1".into(), "4".into(), "2".into()));
        assert_eq!(d.inspect("{{.Config.Env}}", "one"), d.inspect("{{.Config.Env}}", "apart"));
        let diff = done(run(ours(&d, "image diff --content apart one"), &[])).ok();
        assert_eq!(diff, "", "the same files");
        let files = done(run(ours(&d, "image layers --format {{.DiffID}} one"), &[])).ok();
        assert_eq!(files.lines().count(), 2, "{files}");
    }
    // What is gone in the end is in no layer.
    let saved = format!("{dir}.tar");
    d.docker(["save", "-o", &saved, "one"]).ok();
    assert!(!String::from_utf8_lossy(&fs::read(&saved).expect("archive")).contains("gone"));
    assert_eq!(
        in_image(&d, "one", "cat /all/a /d/x; ls /all; test ! -e /bin/true; stat -c %a /d"),
        "new\nx\nDockerfile\na\nl\n751"
    );
    d.finish();
}
