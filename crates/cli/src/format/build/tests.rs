use serde_json::{Value, json};

use super::step::clean;
use super::*;
use crate::format::progress::screen::Screen;
use crate::format::progress::{Size, Style};

const PLAIN: Style = Style { unicode: false, colour: false };

fn line(value: Value) -> BuildLine {
    serde_json::from_value(value).unwrap()
}

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn plan(rows: &[(&str, &str)]) -> BuildLine {
    let row =
        |(at, (stage, text)): (usize, &(&str, &str))| json!({"text": text, "stage": stage, "line": at + 1});
    line(json!({"event": "plan", "rows": rows.iter().enumerate().map(row).collect::<Vec<_>>()}))
}

fn started(row: usize) -> BuildLine {
    line(json!({"event": "started", "row": row}))
}

fn output(row: usize, text: &str) -> BuildLine {
    line(json!({"event": "output", "row": row, "text": text}))
}

fn done(row: usize, how: &str, millis: u64) -> BuildLine {
    line(
        json!({"event": "done", "row": row, "how": how, "image": "sha256:1", "size": 1, "took": millis * 1000}),
    )
}

fn failed(row: usize, message: &str) -> BuildLine {
    line(json!({"event": "failed", "row": row, "code": 3, "message": message}))
}

fn pull(progress: Value) -> BuildLine {
    line(json!({"event": "pull", "progress": progress}))
}

/// What is shown of a build where lines stay; with nothing for a line, time goes by.
fn plain(lines: Vec<(u64, Option<BuildLine>)>) -> (String, Build) {
    let (mut build, mut plain, mut shown) = (Build::default(), Plain::default(), String::new());
    for (now, line) in lines {
        shown += &match line {
            Some(line) => {
                let changes = build.take(line, at(now));
                plain.take(&build, &changes, at(now))
            }
            None => plain.tick(&build, at(now)),
        };
    }
    (shown, build)
}

fn together(lines: Vec<(u64, BuildLine)>) -> Vec<(u64, Option<BuildLine>)> {
    lines.into_iter().map(|(now, line)| (now, Some(line))).collect()
}

#[test]
fn lines_are_buildkits() {
    let (shown, build) = plain(together(vec![
        (0, plan(&[("0", "FROM busybox"), ("0", "ENV a=b"), ("0", "RUN  echo \\\n hi"), ("0", "COPY . /")])),
        (0, done(0, "noted", 0)),
        (0, done(1, "noted", 0)),
        (10, started(2)),
        (223, output(2, "hi\nthe")),
        (300, output(2, "re\n\u{1b}[31mred\u{1b}[0m")),
        (310, done(2, "made", 300)),
        (320, done(3, "cached", 0)),
        (330, line(json!({"event": "built", "id": "sha256:abc"}))),
        (340, line(json!({"event": "tagged", "name": "x:latest"}))),
    ]));
    let want = "#1 [1/3] FROM busybox\n#1 DONE 0.0s\n\n\
        #2 [2/3] RUN echo \\ hi\n#2 0.213 hi\n#2 0.290 there\n#2 0.290 red\n#2 DONE 0.3s\n\n\
        #3 [3/3] COPY . /\n#3 CACHED\n\n\
        #4 exporting to image\n#4 writing image sha256:abc done\n#4 naming to x:latest done\n";
    assert_eq!(shown, want);
    assert_eq!(build.outcome, Some(Outcome::Built("sha256:abc".into())));
}

#[test]
fn stages_go_on_side_by_side_and_are_told_one_after_the_other() {
    let rows = [("one", "FROM a"), ("one", "RUN 1"), ("1", "FROM b"), ("1", "RUN 2")];
    let (shown, _) = plain(vec![
        (0, Some(plan(&rows))),
        (0, Some(started(1))),
        (0, Some(started(3))),
        (10, Some(output(1, "a\n"))),
        (20, Some(output(3, "b\n"))),
        (30, Some(output(1, "c\n"))),
        (4000, None),
        // The first is silent: the second gets its turn.
        (5100, None),
        (5200, Some(output(3, "d\n"))),
        (5300, Some(output(1, "e\n"))),
        (5400, Some(done(3, "made", 5400))),
        (5500, Some(done(1, "made", 5500))),
    ]);
    let want = "#1 [one 2/2] RUN 1\n#1 0.010 a\n#1 0.030 c\n#1 ...\n\n\
        #2 [stage-1 2/2] RUN 2\n#2 0.020 b\n#2 5.200 d\n#2 DONE 5.4s\n\n\
        #1 [one 2/2] RUN 1\n#1 5.300 e\n#1 DONE 5.5s\n\n";
    assert_eq!(shown, want);
}

#[test]
fn steps_have_buildkits_names() {
    let check = |rows: &[(&str, &str)], want: &[&str]| {
        let mut build = Build::default();
        build.take(plan(rows), at(0));
        let names: Vec<&str> = build.steps().iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, want);
    };
    check(&[("0", "FROM x"), ("0", "CMD a"), ("0", "run\tb")], &["[1/2] FROM x", "[2/2] run b"]);
    check(&[("only", "FROM x")], &["[1/1] FROM x"]);
    check(
        &[("a", "FROM x AS a"), ("1", "FROM --platform=linux/amd64 A"), ("1", "RUN <<E\necho\nE")],
        &["[a 1/1] FROM x AS a", "[stage-1 1/1] RUN <<E echo E"],
    );
    let mut many = vec![("0", "FROM x")];
    many.extend([("0", "RUN y"); 9]);
    let mut build = Build::default();
    build.take(plan(&many), at(0));
    assert_eq!(build.steps()[1].name, "[ 2/10] RUN y");
}

#[test]
fn a_failure_is_told_with_its_output_and_its_place() {
    let (shown, build) = plain(together(vec![
        (0, plan(&[("0", "FROM busybox"), ("0", "RUN exit 3"), ("0", "RUN sleep 9")])),
        (0, started(1)),
        (0, started(2)),
        (100, output(1, "oh\n")),
        (200, failed(1, "The command '/bin/sh -c exit 3' returned a non-zero code: 3")),
    ]));
    let end = "#1 [2/3] RUN exit 3\n#1 0.100 oh\n\
        #1 ERROR: The command '/bin/sh -c exit 3' returned a non-zero code: 3\n\n\
        #2 [3/3] RUN sleep 9\n#2 CANCELED\n\n";
    assert_eq!(shown, end);
    let file = b"FROM busybox\nRUN exit 3\nRUN sleep 9\n";
    assert_eq!(
        build.failure(Some(("d/Dockerfile", file))),
        "------\n > [2/3] RUN exit 3:\n0.100 oh\n------\n\
         d/Dockerfile:2\n--------------------\n   1 |     FROM busybox\n   2 | >>> RUN exit 3\n   3 |     RUN sleep 9\n   4 |     \n--------------------\n\
         ERROR: failed to build: The command '/bin/sh -c exit 3' returned a non-zero code: 3\n"
    );
    assert!(!build.failure(None).contains("Dockerfile"));
}

#[test]
fn instructions_of_several_lines_are_marked_whole() {
    let file = b"FROM x\nRUN a \\\n  && b\nENV c=d\n";
    let (_, build) = plain(together(vec![
        (0, line(json!({"event": "plan", "rows": [{"text": "RUN a", "stage": "0", "line": 2}]}))),
        (0, failed(0, "no")),
    ]));
    let shown = build.failure(Some(("D", file)));
    assert!(shown.contains("   2 | >>> RUN a \\\n   3 | >>>   && b\n   4 |     ENV c=d\n"), "{shown}");
}

#[test]
fn a_failure_may_have_no_place() {
    let without = line(json!({"event": "failed", "message": "no\u{1b}[2J"}));
    let (shown, build) = plain(together(vec![(0, without)]));
    assert_eq!((shown.as_str(), build.failure(None).as_str()), ("", "ERROR: failed to build: no\\x1b[2J\n"));
    // An instruction that is no step becomes one.
    let (shown, _) = plain(together(vec![(0, plan(&[("0", "ENV x")])), (0, failed(0, "bad"))]));
    assert_eq!(shown, "#1 ENV x\n#1 ERROR: bad\n\n");
}

#[test]
fn images_that_are_pulled_are_steps() {
    let moving =
        json!({"id": "8d83", "status": "Downloading", "progressDetail": {"current": 5, "total": 10}});
    let still = |status: &str| json!({"id": "8d83", "status": status, "progressDetail": {}});
    let (shown, _) = plain(together(vec![
        (0, pull(json!({"id": "latest", "status": "Pulling from library/x"}))),
        (1, pull(moving)),
        (2, pull(still("Pull complete"))),
        (3, pull(still("Pull complete"))),
        (4, pull(json!({"status": "Digest: sha256:1"}))),
        (5, plan(&[("0", "FROM x")])),
        (6, done(0, "noted", 0)),
    ]));
    let want = "#1 [internal] pull library/x:latest\n#1 8d83 Pull complete\n#1 Digest: sha256:1\n#1 DONE 0.0s\n\n\
        #2 [1/1] FROM x\n#2 DONE 0.0s\n\n";
    assert_eq!(shown, want);
}

#[test]
fn a_context_is_told_now_and_then() {
    let (mut build, mut plain) = (Build::default(), Plain::default());
    let mut shown = String::new();
    for (now, bytes, done) in
        [(0, 0, false), (100, 10, false), (6000, 2_000_000, false), (7000, 3_000_000, true)]
    {
        let changes = build.sending(bytes, done, at(now));
        shown += &plain.take(&build, &changes, at(now));
    }
    let want = "#1 [internal] load build context\n#1 transferring context: 2MB\n\
        #1 transferring context: 3MB 7.0s done\n#1 DONE 7.0s\n\n";
    assert_eq!(shown, want);
}

#[test]
fn output_that_steers_terminals_is_tamed() {
    for (text, want) in [
        ("a\n", "a"),
        ("50%\r100%\r\n", "100%"),
        ("\u{1b}[1;31mred\u{1b}[0m\tx", "red\tx"),
        ("\u{1b}]0;title\u{7}x", "x"),
        ("\u{1b}]8;;http://x\u{1b}\\link", "link"),
        ("\u{1b}(Bx\u{1b}7y", "xy"),
        ("a\u{7}\u{9b}31m", "a\\x07\\x9b31m"),
        ("cut\u{1b}[3", "cut"),
        ("cut\u{1b}", "cut"),
        ("\u{1b}é", ""),
    ] {
        assert_eq!(clean(text), want, "{text:?}");
    }
}

#[test]
fn no_output_fills_the_memory() {
    let mut step = Step::new("x".into());
    for _ in 0..10_000 {
        step.output(&"x".repeat(10_000), false, at(0));
        step.output("short\n", true, at(0));
    }
    let bytes: usize = step.log.iter().map(|(_, line)| line.len()).sum();
    assert!(bytes <= 256 << 10 && step.log.len() <= 4096 && step.left_out > 0);
    let mut build = Build::default();
    build.take(plan(&[("0", "RUN x"), ("0", "RUN y")]), at(0));
    let mut plain = Plain::default();
    let mut shown = 0;
    for n in 0..1000 {
        for row in [0, 1] {
            let changes = build.take(output(row, &format!("{}\n", "y".repeat(1000))), at(n));
            shown += plain.take(&build, &changes, at(n)).len();
        }
    }
    assert!(shown > 1_500_000, "what waits is shown before it is much: {shown}");
}

/// The terminal after some lines, and after the end.
fn terminal(size: Size, style: Style, lines: Vec<(u64, BuildLine)>, end: u64) -> (Vec<String>, Vec<String>) {
    let (mut build, mut screen, mut tty) = (Build::default(), Screen::new(size), Tty::new(size, style));
    screen.show("before\n");
    for (now, line) in lines {
        build.take(line, at(now));
        screen.show(&tty.frame(&build, at(now)));
    }
    let during = screen.text();
    build.close(at(end));
    screen.show(&tty.close(&build, at(end)));
    (during, screen.text())
}

#[test]
fn a_terminal_shows_steps_in_their_place() {
    let lines = vec![
        (0, plan(&[("0", "FROM busybox"), ("0", "RUN make"), ("0", "COPY . /")])),
        (0, done(0, "cached", 0)),
        (0, started(1)),
        (1200, output(1, "compiling\nlinking\n")),
    ];
    let (during, _) = terminal(Size { rows: 24, columns: 50 }, PLAIN, lines.clone(), 1300);
    assert_eq!(
        during,
        [
            "before",
            "[+] Building 1.2s (1/3)",
            " => CACHED [1/3] FROM busybox                0.0s",
            " => [2/3] RUN make                           1.2s",
            " => => # compiling",
            " => => # linking",
        ]
    );
    let mut all = lines.clone();
    all.extend([
        (1500, done(1, "made", 1500)),
        (1600, done(2, "made", 100)),
        (1700, line(json!({"event": "built", "id": "sha256:abc"}))),
    ]);
    let (_, after) = terminal(Size { rows: 24, columns: 50 }, PLAIN, all, 1700);
    assert_eq!(
        after,
        [
            "before",
            "[+] Building 1.7s (4/4) FINISHED",
            " => CACHED [1/3] FROM busybox                0.0s",
            " => [2/3] RUN make                           1.5s",
            " => [3/3] COPY . /                           0.1s",
            " => exporting to image                       0.0s",
            " => => writing image sha256:abc done",
        ]
    );
    let mut broken = lines;
    broken.push((1500, failed(1, "no")));
    let (_, after) = terminal(Size { rows: 24, columns: 40 }, PLAIN, broken, 1600);
    assert_eq!(
        after,
        [
            "before",
            "[+] Building 1.6s (2/3) FINISHED",
            " => CACHED [1/3] FROM busybox      0.0s",
            " => ERROR [2/3] RUN make           1.5s",
        ]
    );
}

#[test]
fn layers_that_move_are_shown_first() {
    let mut lines = vec![(0, pull(json!({"id": "1", "status": "Pulling from x"})))];
    let detail = json!({"current": 5_000_000, "total": 10_000_000});
    lines.push((0, pull(json!({"id": "first", "status": "Downloading", "progressDetail": detail}))));
    lines.extend(
        (0..20).map(|n| (0, pull(json!({"id": format!("l{n}"), "status": "Waiting", "progressDetail": {}})))),
    );
    let (during, _) = terminal(Size { rows: 24, columns: 60 }, PLAIN, lines, 1);
    assert_eq!(during.len(), 9, "{during:#?}");
    assert_eq!(
        (during[3].as_str(), during[8].as_str()),
        (" => => first Downloading 5MB/10MB", " => => l19 Waiting")
    );
}

#[test]
fn more_steps_than_lines() {
    let rows: Vec<(String, String)> = (0..40).map(|n| ("0".to_owned(), format!("RUN {n}"))).collect();
    let rows: Vec<(&str, &str)> = rows.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let mut lines = vec![(0, plan(&rows))];
    lines.extend((0..30).map(|n| (0, started(n))));
    lines.extend((1..30).flat_map(|n| [(20, output(n, "x\n")), (20, done(n, "made", 1))]));
    let (during, after) = terminal(Size { rows: 6, columns: 30 }, PLAIN, lines, 40);
    let shown: Vec<&str> = during.iter().map(|l| l.split("  ").next().unwrap()).collect();
    let tail = &shown[shown.len() - 5..];
    let want = [
        "[+] Building 0.0s (29/40)",
        " => [ 1/40] RUN 0",
        " => [28/40] RUN 27",
        " => [29/40] RUN 28",
        " => [30/40] RUN 29",
    ];
    assert_eq!(tail, want);
    assert_eq!(after.iter().filter(|l| l.starts_with(" => ")).count(), 30, "{after:#?}");
}

#[test]
fn a_terminal_may_change_its_size() {
    let size = |columns| Size { rows: 24, columns };
    let (mut build, mut screen, mut tty) =
        (Build::default(), Screen::new(size(80)), Tty::new(size(80), PLAIN));
    screen.show("before\n");
    build.take(plan(&[("0", "FROM busybox"), ("0", "RUN something that is long enough")]), at(0));
    build.take(started(1), at(0));
    build.take(output(1, &format!("{}\n", "wide ".repeat(40))), at(0));
    for columns in [80, 30, 100, 20, 80] {
        screen.resize(size(columns));
        screen.show(&tty.resize(size(columns), &build, at(100)));
    }
    let shown = screen.text();
    assert_eq!(shown.len(), 4, "{shown:#?}");
    assert!(
        shown[2].starts_with(" => [2/2] RUN something that is long enough ") && shown[2].ends_with(" 0.1s")
    );
    assert_eq!(tty.frame(&build, at(110)), "", "nothing new is nothing to draw");
}

#[test]
fn colours_and_warnings() {
    let style = Style { unicode: true, colour: true };
    let (mut build, mut tty) = (Build::default(), Tty::new(Size { rows: 24, columns: 30 }, style));
    build.take(plan(&[("0", "FROM x"), ("0", "RUN y")]), at(0));
    build.take(done(0, "made", 0), at(0));
    build.take(line(json!({"event": "warning", "text": "careful"})), at(0));
    build.take(failed(1, "no"), at(0));
    let shown = tty.close(&build, at(0));
    assert!(shown.contains("\x1b[34m => [1/2] FROM x") && shown.contains("\x1b[31m => ERROR [2/2] RUN y"));
    assert!(shown.ends_with("WARNING: careful\n"), "{shown:?}");
    let (text, _) = plain(together(vec![(0, line(json!({"event": "warning", "text": "a\nb"})))]));
    assert_eq!(text, "WARNING: a\\x0ab\n");
}

#[test]
fn programs_get_buildkits_messages() {
    let raw = Raw::new("2026-01-02T03:04:05Z".parse().unwrap());
    let mut build = Build::default();
    let mut got: Vec<Value> = Vec::new();
    for (now, line) in [
        (0, plan(&[("0", "RUN x")])),
        (0, started(0)),
        (500, output(0, "hi\n")),
        (1000, done(0, "made", 1000)),
        (1000, line(json!({"event": "built", "id": "sha256:1"}))),
    ] {
        let changes = build.take(line, at(now));
        let text = raw.take(&build, &changes, at(now));
        got.extend(text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()));
    }
    let id = got[0]["vertexes"][0]["digest"].clone();
    assert!(id.as_str().unwrap().starts_with("sha256:"));
    let begun = json!({"digest": id, "name": "[1/1] RUN x", "started": "2026-01-02T03:04:05Z"});
    assert_eq!(got[0], json!({"vertexes": [begun]}));
    let log = json!({"vertex": id, "stream": 1, "data": "aGkK", "timestamp": "2026-01-02T03:04:05.5Z"});
    assert_eq!(got[1], json!({"logs": [log]}));
    assert_eq!(got[2]["vertexes"][0]["completed"], "2026-01-02T03:04:06Z");
    let status = &got[4]["statuses"][0];
    assert_eq!(
        (status["id"].as_str(), status["completed"].is_string()),
        (Some("writing image sha256:1"), true)
    );
}
