//! Output, input, terminals and the log.

use std::io::Write;
use std::os::unix::net::UnixStream;

use longshore_runtime::Runtime;
use longshore_runtime::monitor::proto::Request;
use serde_json::{Value, json};

use crate::harness::{ALL, OUTPUT, World, collect, read_until};

fn send(stream: &mut UnixStream, request: &Request<'_>) {
    let mut bytes = Vec::new();
    request.encode(&mut bytes);
    stream.write_all(&bytes).unwrap();
}

fn log_lines(w: &World, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(w.path(name)).unwrap();
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[test]
fn privileged_much_output_arrives_complete_and_in_order() {
    let w = World::new();
    let end = w.run(w.spec("seq 1 100000; seq 1 1000 >&2"));
    let expected: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
    assert!(end.out == expected);
    assert_eq!(end.err.lines().count(), 1000);
}

#[test]
fn privileged_slow_client_stops_output_without_losing_any() {
    let w = World::new();
    let task = w.runtime.create(w.request(w.spec("seq 1 300000; echo done >&2"))).unwrap();
    let slow = task.attach(OUTPUT).unwrap();
    task.start().unwrap();
    // Far more than all buffers together: without reading, it cannot end.
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(!w.path("exit").exists());
    let status = std::fs::read_to_string(format!("/proc/{}/status", task.monitor_pid())).unwrap();
    let rss: u64 = status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    assert!(rss < 4096, "monitor holds {rss} kB");
    let end = collect(slow);
    assert_eq!(end.out.lines().count(), 300_000);
    assert_eq!(end.err, "done\n");
}

#[test]
fn privileged_input_reaches_the_program_and_ends_once() {
    let w = World::new();
    let mut request = w.request(w.spec("cat; echo end"));
    (request.open_stdin, request.stdin_once) = (true, true);
    let task = w.runtime.create(request).unwrap();
    let mut stream = task.attach(ALL).unwrap();
    task.start().unwrap();
    let big = "x".repeat(200_000);
    let mut writer = stream.try_clone().unwrap();
    let feeder = std::thread::spawn(move || {
        for piece in big.as_bytes().chunks(30_000) {
            send(&mut writer, &Request::Stdin(piece));
        }
        send(&mut writer, &Request::StdinEof);
    });
    let end = collect(stream.try_clone().unwrap());
    feeder.join().unwrap();
    assert_eq!(end.out.len(), 200_000 + 4);
    assert_eq!(end.code, 0);
    assert!(stream.flush().is_ok());
}

#[test]
fn privileged_input_stays_open_between_clients_unless_once() {
    let w = World::new();
    let mut request = w.request(w.spec("while read x; do echo got $x; done; echo eof"));
    request.open_stdin = true;
    let task = w.started(request);
    for word in ["one", "two"] {
        let mut stream = task.attach(ALL).unwrap();
        send(&mut stream, &Request::Stdin(format!("{word}\n").as_bytes()));
        assert_eq!(read_until(&mut stream, "\n"), format!("got {word}\n"));
    }
    w.runtime.delete("c").unwrap();
    // A client that simply goes away ends input, too, when it is for one client.
    let mut request = w.request(w.spec("cat; echo end"));
    (request.open_stdin, request.stdin_once) = (true, true);
    let task = w.runtime.create(request).unwrap();
    let watcher = task.attach(OUTPUT).unwrap();
    let mut stream = task.attach(ALL).unwrap();
    task.start().unwrap();
    send(&mut stream, &Request::Stdin(b"last words\n"));
    drop(stream);
    assert_eq!(collect(watcher).out, "last words\nend\n");
}

#[test]
fn privileged_without_input_the_program_reads_nothing() {
    let w = World::new();
    assert_eq!(w.run(w.spec("cat; echo $?")).out, "0\n");
}

#[test]
fn privileged_ordinary_users_can_reopen_their_output() {
    let w = World::new();
    let mut spec = w.spec("echo a > /dev/stdout; echo b > /proc/self/fd/2");
    spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    let end = w.run(spec);
    assert_eq!((end.out.as_str(), end.err.as_str()), ("a\n", "b\n"));
}

#[test]
fn privileged_terminal_works_and_is_resized() {
    let w = World::new();
    let mut spec = w.spec("tty; stty size; test -c /dev/console && echo console; trap 'stty size' WINCH; echo trapped; while ! read x; do :; done; echo \"<$x>\"; read y; exit 3");
    spec["process"]["terminal"] = json!(true);
    let mut request = w.request(spec);
    request.console_size = Some((100, 40));
    request.open_stdin = true;
    request.log = Some(w.log());
    let task = w.runtime.create(request).unwrap();
    let mut stream = task.attach(ALL).unwrap();
    task.start().unwrap();
    let text = read_until(&mut stream, "trapped\r\n");
    assert!(text.contains("/dev/pts/0\r\n40 100\r\nconsole\r\n"), "{text:?}");
    task.resize(55, 22).unwrap();
    read_until(&mut stream, "22 55\r\n");
    send(&mut stream, &Request::Stdin(b"hi\n"));
    let text = read_until(&mut stream, ">\r\n");
    assert!(text.contains("<hi>"), "{text:?}");
    send(&mut stream, &Request::Stdin(b"\n"));
    let end = collect(stream);
    assert_eq!(end.code, 3);
    let lines = log_lines(&w, "c-json.log");
    assert!(lines.iter().all(|l| l["stream"] == "stdout"));
    let all: String = lines.iter().map(|l| l["log"].as_str().unwrap()).collect();
    assert!(all.contains("22 55\r\n"), "{all:?}");
}

#[test]
fn privileged_resize_without_terminal_is_refused() {
    let w = World::new();
    let task = w.started(w.request(w.spec("sleep 100")));
    assert!(task.resize(80, 24).is_err());
}

#[test]
fn privileged_log_has_dockers_form() {
    let w = World::new();
    let script = r#"printf 'a"b\\<>&\t\r\n\001\377\342\202\254\n'; echo err >&2; sleep 0.05; head -c 20000 /dev/zero; echo; printf tail"#;
    let mut request = w.request(w.spec(script));
    request.log = Some(w.log());
    w.run_request(request);
    let raw = std::fs::read_to_string(w.path("c-json.log")).unwrap();
    assert!(
        raw.contains(r#"{"log":"a\"b\\\u003c\u003e\u0026\u0009\r\n","stream":"stdout","time":""#),
        "{raw:.200}"
    );
    assert!(raw.contains(r#"{"log":"\u0001\ufffd€\n","#), "{raw:.400}");
    let lines = log_lines(&w, "c-json.log");
    assert!(lines.iter().any(|l| l["log"] == "err\n" && l["stream"] == "stderr"));
    let out: Vec<_> = lines.iter().filter(|l| l["stream"] == "stdout").collect();
    let zeros = |n: usize| "\0".repeat(n);
    assert_eq!(out[2]["log"].as_str().unwrap(), zeros(16_384));
    assert_eq!(out[3]["log"].as_str().unwrap(), zeros(20_000 - 16_384) + "\n");
    assert_eq!(out[2]["time"], out[3]["time"], "the parts of a line have its time");
    assert_eq!(out[4]["log"], "tail");
    let time = out[0]["time"].as_str().unwrap();
    assert!(time.starts_with("20") && time.ends_with('Z') && time.len() <= 30, "{time}");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(w.path("c-json.log").metadata().unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn privileged_log_is_rotated() {
    let w = World::new();
    let mut request = w.request(w.spec("seq 1000 1099"));
    let mut log = w.log();
    (log.max_size, log.max_files) = (2000, 3);
    request.log = Some(log);
    w.run_request(request);
    let names = ["c-json.log.2", "c-json.log.1", "c-json.log"];
    let all: Vec<String> = names
        .iter()
        .flat_map(|n| log_lines(&w, n))
        .map(|l| l["log"].as_str().unwrap().trim().to_owned())
        .collect();
    assert!(!w.path("c-json.log.3").exists());
    assert_eq!(all.last().unwrap(), "1099");
    let first: u32 = all[0].parse().unwrap();
    let expected: Vec<String> = (first..=1099).map(|n| n.to_string()).collect();
    assert_eq!(all, expected, "no line is lost between files");
    for name in &names[..2] {
        let size = w.path(name).metadata().unwrap().len();
        assert!((2000..2200).contains(&size), "{name}: {size}");
    }
}
