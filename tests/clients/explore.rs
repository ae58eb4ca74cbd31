//! Seeing into layers with real images: what is told, beside what lies in the layers' directories and what a container
//! sees; the explorer on a real terminal.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::cli::other_end;
use crate::harness::{Client, Daemon, signal, wait_until, wait_until_with};

fn ours(d: &Daemon, args: &[&str]) -> crate::harness::Done {
    d.run(Client::Longshore, args)
}

/// Head and body of an answer.
fn get(d: &Daemon, method: &str, path: &str) -> (String, String) {
    let answer = d.raw(&format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    (head.to_owned(), body.to_owned())
}

fn json(d: &Daemon, path: &str) -> Value {
    let (head, body) = get(d, "GET", path);
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}\n{body}");
    serde_json::from_str(&body).unwrap_or_else(|e| panic!("{path}: {e}: {body}"))
}

/// The directories of an image's layers, the lowest first.
fn directories(d: &Daemon, image: &str) -> Vec<PathBuf> {
    let about = json(d, &format!("/longshore/images/{image}/layers"));
    let layers = about["Layers"].as_array().expect("layers");
    layers.iter().map(|l| PathBuf::from(l["Directory"].as_str().expect("directory"))).collect()
}

/// Bytes of the regular files below a directory, each once.
fn size_of(dir: &Path) -> u64 {
    let mut seen = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).expect("read").flatten() {
            let meta = entry.metadata().expect("metadata");
            if meta.is_dir() {
                todo.push(entry.path());
            } else if meta.is_file() {
                seen.insert(meta.ino(), meta.len());
            }
        }
    }
    seen.values().sum()
}

#[test]
fn privileged_layers_are_told_as_they_lie_on_disk() {
    let d = Daemon::start();
    for image in ["nginx", "mariadb"] {
        d.load(image);
        let about = json(&d, &format!("/v1.51/longshore/images/{image}:latest/layers"));
        assert_eq!(about["Id"], d.inspect("{{.Id}}", image));
        let layers = about["Layers"].as_array().expect("layers");
        let ids: Vec<&str> = layers.iter().map(|l| l["DiffId"].as_str().expect("diff id")).collect();
        assert_eq!(serde_json::to_string(&ids).expect("JSON"), d.inspect("{{json .RootFS.Layers}}", image));
        // The steps are those of the history, turned round.
        let history = d.docker(["history", "--no-trunc", "--format", "{{.CreatedBy}}", image]).ok();
        let steps: Vec<&str> = history.lines().rev().collect();
        let mut wasted = 0;
        let mut deleted = 0;
        for (i, layer) in layers.iter().enumerate() {
            assert_eq!(layer["Number"], i + 1);
            assert_eq!(layer["CreatedBy"], steps[i]);
            let dir = Path::new(layer["Directory"].as_str().expect("directory"));
            assert_eq!(layer["Size"], size_of(dir), "layer {}", i + 1);
            wasted += layer["Wasted"].as_u64().expect("wasted");
            deleted += layer["FilesDeleted"].as_u64().expect("deleted");
        }
        assert_eq!(about["Wasted"], wasted);
        assert!(deleted > 0 && wasted > 0);
        // What can be seen is what is not wasted.
        d.docker(["create", "--name", image, image]).ok();
        let tar = d.command(Client::Docker).args(["export", image]).output().expect("export").stdout;
        let mut seen = 0;
        for entry in tar::Archive::new(&tar[..]).entries().expect("tar") {
            let entry = entry.expect("entry");
            let name = entry.path().expect("path").into_owned();
            let own = ["dev/console", ".dockerenv", "etc/hostname", "etc/hosts", "etc/resolv.conf"];
            if entry.header().entry_type().is_file() && !own.iter().any(|o| name == Path::new(o)) {
                seen += entry.size();
            }
        }
        // In the container the engine's own stand over these.
        let hidden = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];
        let cat = |path| ours(&d, &["image", "cat", image, path]);
        seen +=
            hidden.iter().map(|p| cat(p)).filter(|f| f.code == 0).map(|f| f.stdout.len() as u64).sum::<u64>();
        assert_eq!(about["Size"].as_u64().expect("size") - wasted, seen, "{image}");
        let table = ours(&d, &["image", "layers", image]).ok();
        assert_eq!(table.lines().count(), 1 + layers.len() + 2, "{table}");
        assert_eq!(ours(&d, &["image", "layers", "-q", "--no-trunc", image]).ok(), ids.join("\n"));
    }
    d.finish();
}

/// What a directory of a layer has at a path: nothing, a deletion, or something.
fn has(dir: &Path, path: &str) -> Option<bool> {
    use std::os::unix::fs::FileTypeExt as _;
    let meta = fs::symlink_metadata(dir.join(path.trim_start_matches('/'))).ok()?;
    Some(!(meta.file_type().is_char_device() && meta.rdev() == 0))
}

#[test]
fn privileged_which_names_the_layer_whose_directory_has_the_file() {
    let d = Daemon::start();
    d.load("mariadb");
    let dirs = directories(&d, "mariadb");
    let script = "find / -xdev \\( -path /proc -o -path /sys -o -path /dev \\) -prune -o \\( -type f -o -type l \\) -print";
    let all = d.docker(["run", "--rm", "--entrypoint", "sh", "mariadb", "-c", script]).ok();
    let paths: Vec<&str> =
        all.lines().filter(|p| !p.starts_with("/etc/host") && *p != "/etc/resolv.conf").collect();
    assert!(paths.len() > 5000, "{}", paths.len());
    let mut layers = BTreeSet::new();
    for path in paths.iter().step_by(61) {
        let escaped = path.replace('%', "%25").replace('+', "%2B").replace('&', "%26").replace('#', "%23");
        let w = json(
            &d,
            &format!("/longshore/images/mariadb/which?resolve=0&path={}", escaped.replace(' ', "%20")),
        );
        assert_eq!((w["Exists"].as_bool(), w["Path"].as_str()), (Some(true), Some(*path)));
        let versions = w["Versions"].as_array().expect("versions");
        let told: Vec<u64> = versions
            .iter()
            .filter(|v| v["Change"] != "deleted")
            .map(|v| v["Layer"]["Number"].as_u64().expect("number"))
            .collect();
        let mut there: Vec<u64> =
            (1..).zip(&dirs).filter(|(_, dir)| has(dir, path) == Some(true)).map(|(n, _)| n).collect();
        there.reverse();
        assert_eq!(told, there, "{path}");
        layers.insert(told[0]);
        let file = &versions[0]["File"];
        let meta = fs::symlink_metadata(dirs[usize::try_from(told[0]).expect("number") - 1].join(&path[1..]))
            .expect("file");
        assert_eq!(file["Uid"], meta.uid(), "{path}");
        if meta.is_file() {
            assert_eq!(
                (&file["Mode"], file["Size"].as_u64().unwrap_or(0)),
                (&Value::from(meta.mode() & 0o7777), meta.len())
            );
        }
    }
    assert!(layers.len() > 3, "{layers:?}");
    // Deleted with the directory that held it: the step is named.
    let shown = ours(&d, &["image", "which", "mariadb", "/usr/share/doc/mariadb-server/copyright"]);
    let shown = if shown.code == 0 {
        shown.ok()
    } else {
        ours(&d, &["image", "which", "mariadb", "/usr/share/doc/adduser/copyright"]).ok()
    };
    assert!(
        shown.contains("(deleted)")
            && shown.contains("with /usr/share/doc")
            && shown.contains("RUN rm -rf /usr/share/doc"),
        "{shown}"
    );
    d.finish();
}

#[test]
fn privileged_cat_gives_the_bytes_that_a_container_reads() {
    let d = Daemon::start();
    d.load("nginx");
    for path in [
        "/etc/os-release",
        "/bin/sh",
        "/usr/sbin/nginx",
        "/etc/nginx/conf.d/site.conf",
        "/srv/sparse",
        "/lib64/ld-linux-x86-64.so.2",
    ] {
        let args = ["run", "--rm", "--entrypoint", "cat", "nginx", path];
        let want = d.command(Client::Docker).args(args).output().expect("docker run");
        assert!(want.status.success() && !want.stdout.is_empty(), "{path}");
        let got = d.command(Client::Longshore).args(["image", "cat", "nginx", path]).output().expect("cat");
        assert!(
            got.status.success() && got.stdout == want.stdout,
            "{path}: {}",
            String::from_utf8_lossy(&got.stderr)
        );
    }
    for (path, want) in [
        ("/etc", "/etc is a directory, not a regular file"),
        ("/nope", "the image has no /nope"),
        ("/etc/passwd/x", "the image has no /etc/passwd/x"),
        ("/usr/share/doc/nginx/copyright", "the image has no"),
        ("/var/log/nginx/access.log", "the image has no /dev/stdout"),
    ] {
        let error = ours(&d, &["image", "cat", "nginx", path]).fails(1);
        assert!(error.contains(want), "{path}: {error}");
    }
    assert!(
        ours(&d, &["image", "cat", "--layer", "3", "nginx", "/usr/share/doc/nginx/copyright"])
            .ok()
            .contains("Igor Sysoev")
    );
    // Names with slashes, a part of a file, the header alone.
    d.docker(["tag", "nginx", "localhost:5000/a/file:1"]).ok();
    let file = "/longshore/images/localhost:5000/a/file:1/file?path=/etc/os-release";
    let (head, body) = get(&d, "GET", &format!("{file}&offset=2&limit=10"));
    assert!(head.contains("Content-Length: 10\r\n") && body == "ETTY_NAME=", "{head}\n{body}");
    let (head, body) = get(&d, "HEAD", file);
    let size = fs::metadata(directories(&d, "nginx")[0].join("usr/lib/os-release")).expect("file").len();
    assert!(head.contains(&format!("Content-Length: {size}\r\n")) && body.is_empty(), "{head}");
    assert!(head.contains("X-Longshore-File-Stat: ") || head.contains("x-longshore-file-stat: "), "{head}");
    for (path, status) in [
        ("/longshore/images/nginx/file", 400),
        ("/longshore/images/nginx/file?path64=%25", 400),
        ("/longshore/images/nginx/files", 400),
        ("/longshore/images/nginx/files?layer=99", 404),
        ("/longshore/images/nosuch/layers", 404),
        ("/longshore/images/diff?from=nginx", 400),
        ("/longshore/images/diff?from=nginx&to=nosuch", 404),
        ("/longshore/containers/nosuch/which?path=/x", 404),
        ("/longshore/images/nginx/nosuch", 404),
        (&*format!("/longshore/images/nginx/which?path=/{}", "x/".repeat(2500)), 413),
    ] {
        let (head, body) = get(&d, "GET", path);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {head}\n{body}");
    }
    d.finish();
}

#[test]
fn privileged_a_containers_own_layer_comes_first() {
    let d = Daemon::start();
    d.load("nginx");
    d.docker(["run", "-d", "--name", "box", "-v", "data:/data", "--entrypoint", "sleep", "nginx", "1000"])
        .ok();
    let script = "echo mine > /etc/issue; rm /etc/debian_version; echo x > /data/x; mkdir /made; echo y > /made/y; ln -s /made/y /etc/y";
    d.docker(["exec", "box", "sh", "-c", script]).ok();
    let which = |path: &str| ours(&d, &["image", "which", "box", path]);
    let issue = which("/etc/issue").ok();
    let lines: Vec<&str> = issue.lines().collect();
    assert!(
        lines[3].starts_with("container   changed") && lines[4].starts_with("1           added"),
        "{issue}"
    );
    assert!(which("/etc/debian_version").ok().contains("/etc/debian_version (deleted)"));
    let y = which("/etc/y").ok();
    assert!(y.starts_with("/etc/y -> /made/y\n/made/y\n"), "{y}");
    let error = which("/data/x").fails(1);
    assert!(
        error.contains("no layer has /data/x") && error.contains("a volume is mounted at /data"),
        "{error}"
    );
    assert!(which("/etc/hosts").ok().contains("mounted at /etc/hosts"));
    let other = ours(&d, &["image", "which", "--type", "image", "box", "/etc/issue"]).fails(1);
    assert!(other.contains("No such image: box:latest"), "{other}");
    let neither = ours(&d, &["image", "which", "nosuch", "/x"]).fails(1);
    assert!(neither.contains("No such image or container: nosuch"), "{neither}");
    let step = ["image", "which", "-f", "{{(index .Versions 0).Layer.Step}}", "nginx", "/usr/sbin/nginx"];
    assert_eq!(ours(&d, &step).ok(), "RUN apt-get install -y nginx");

    // What docker diff tells of the container, image diff tells of what was committed.
    let changed = d.docker(["diff", "box"]).ok();
    d.docker(["commit", "box", "box:changed"]).ok();
    let told = ours(&d, &["image", "diff", "nginx", "box:changed"]).ok();
    let told: BTreeSet<&str> = told.lines().collect();
    for line in &told {
        assert!(changed.lines().any(|l| l == *line), "{line} is not in:\n{changed}");
    }
    for line in ["C /etc/issue", "D /etc/debian_version", "A /made", "A /made/y", "A /etc/y"] {
        assert!(told.contains(line), "{line} is not in {told:?}");
    }
    let back = ours(&d, &["image", "diff", "box:changed", "nginx"]).ok();
    assert!(back.contains("A /etc/debian_version\n") && back.contains("D /made/y"), "{back}");
    let stat = ours(&d, &["image", "diff", "--stat", "nginx", "box:changed"]).ok();
    assert!(stat.contains("deleted   1") && stat.lines().count() == 4, "{stat}");
    let lines = ours(&d, &["image", "diff", "--format", "json", "--content", "nginx", "box:changed"]).ok();
    let issue = lines
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).expect("JSON"))
        .find(|v| v["Path"] == "/etc/issue");
    assert_eq!(issue.expect("/etc/issue")["Differs"], serde_json::json!(["content"]));
    assert_eq!(ours(&d, &["image", "diff", "nginx", "nginx"]).ok(), "");
    d.finish();
}

#[test]
fn privileged_a_damaged_index_is_named_and_harms_nothing_else() {
    let d = Daemon::start();
    d.load("nginx");
    d.load("busybox");
    let dir = directories(&d, "nginx")[2].clone();
    let cache_id = dir.parent().and_then(Path::file_name).expect("cache id");
    let index = d.data_root().join("layers").join(cache_id).join("index");
    let whole = fs::read(&index).expect("index");
    for bytes in [&whole[..whole.len() - 9], b"", b"nonsense"] {
        fs::write(&index, bytes).expect("write");
        for args in [
            &["image", "layers", "nginx"][..],
            &["image", "which", "nginx", "/etc/issue"],
            &["image", "cat", "nginx", "/etc/issue"],
            &["image", "diff", "nginx", "busybox"],
        ] {
            let error = ours(&d, args).fails(1);
            assert!(
                error.contains("layer 3 (sha256:") && error.contains("longshore system check"),
                "{args:?}: {error}"
            );
        }
    }
    assert!(ours(&d, &["image", "layers", "busybox"]).ok().contains("efficiency"));
    fs::write(&index, whole).expect("write");
    ours(&d, &["image", "layers", "nginx"]).ok();
    d.finish();
}

/// What is on a terminal's screen, as far as the explorer's sequences make it.
struct Screen {
    cells: Vec<Vec<char>>,
    at: (usize, usize),
    /// Bytes that came so far.
    raw: Vec<u8>,
    done: usize,
}

impl Screen {
    fn feed(&mut self, bytes: &[u8]) {
        self.raw.extend_from_slice(bytes);
        while let Some(len) = self.step(self.done) {
            self.done += len;
        }
    }

    /// Takes one character or sequence; `None` when it is not whole.
    fn step(&mut self, from: usize) -> Option<usize> {
        let rest = self.raw.get(from..).filter(|r| !r.is_empty())?;
        let put = |me: &mut Self, c: char| {
            let (y, x) = me.at;
            if let Some(cell) = me.cells.get_mut(y).and_then(|row| row.get_mut(x)) {
                *cell = c;
            }
            me.at.1 += 1;
        };
        if rest[0] != 0x1b {
            let len =
                [(0xf0, 4), (0xe0, 3), (0xc0, 2)].iter().find(|(b, _)| rest[0] >= *b).map_or(1, |(_, n)| *n);
            let text = std::str::from_utf8(rest.get(..len)?).expect("the explorer writes UTF-8").to_owned();
            text.chars().filter(|c| *c >= ' ').for_each(|c| put(self, c));
            return Some(len);
        }
        if *rest.get(1)? == b']' {
            return rest.iter().position(|b| *b == 7).map(|n| n + 1);
        }
        let end = rest[2..].iter().position(|b| b.is_ascii_alphabetic())? + 2;
        let numbers = String::from_utf8_lossy(&rest[2..end]).into_owned();
        match rest[end] {
            b'H' => {
                let mut n = numbers.split(';').map(|n| n.parse::<usize>().expect("number") - 1);
                self.at = (n.next().expect("row"), n.next().expect("column"));
            }
            b'J' => self.cells.iter_mut().flatten().for_each(|c| *c = ' '),
            _ => {}
        }
        Some(end + 1)
    }

    fn text(&self) -> String {
        self.cells.iter().map(|row| row.iter().collect::<String>().trim_end().to_owned() + "\n").collect()
    }
}

/// A terminal on which the explorer runs.
struct Tty {
    terminal: fs::File,
    child: Child,
    screen: Arc<Mutex<Screen>>,
    reading: Option<std::thread::JoinHandle<()>>,
    path: PathBuf,
    /// How the terminal was before.
    before: rustix::termios::Termios,
}

impl Tty {
    fn explore(d: &Daemon, image: &str, env: &[(&str, &str)]) -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&controller).expect("grantpt");
        unlockpt(&controller).expect("unlockpt");
        let path = PathBuf::from(
            ptsname(&controller, Vec::new()).expect("ptsname").to_str().expect("utf-8").to_owned(),
        );
        let end = || other_end(&path);
        let mut command = d.command(Client::Longshore);
        command.args(["image", "explore", image]).env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8");
        command.env_remove("NO_COLOR").envs(env.iter().copied()).process_group(0);
        let before = rustix::termios::tcgetattr(end()).expect("how the terminal is");
        let terminal = fs::File::from(controller);
        let mut tty = Self {
            child: command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("the explorer"),
            screen: Arc::new(Mutex::new(Screen { cells: Vec::new(), at: (0, 0), raw: Vec::new(), done: 0 })),
            reading: None,
            before,
            path: path.clone(),
            terminal,
        };
        tty.size(24, 80);
        let (mut reader, writes) = (tty.terminal.try_clone().expect("clone"), tty.screen.clone());
        tty.reading = Some(std::thread::spawn(move || {
            let mut buf = [0u8; 4096];
            while let Ok(n @ 1..) = reader.read(&mut buf) {
                writes.lock().expect("screen").feed(&buf[..n]);
            }
        }));
        tty
    }

    fn size(&self, rows: u16, columns: u16) {
        // As a terminal does: what was there is drawn anew.
        self.screen.lock().expect("screen").cells = vec![vec![' '; columns.into()]; rows.into()];
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.terminal, size).expect("size");
        signal(self.child.id(), "WINCH");
    }

    fn raw(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().expect("screen").raw).into_owned()
    }

    /// Waits until the text is on the screen.
    fn wait(&self, text: &str) {
        let shown = || self.screen.lock().expect("screen").text();
        wait_until_with(|| format!("{text:?} on the screen:\n{}", shown()), || shown().contains(text));
    }

    fn types(&mut self, keys: &str) {
        self.terminal.write_all(keys.as_bytes()).expect("type");
    }

    /// Waits for the end; the terminal must be as it was.
    fn ends(mut self, code: i32) -> String {
        let shown = || self.screen.lock().expect("screen").text();
        wait_until_with(
            || format!("the end; so far {:?}", shown()),
            || self.child.try_wait().expect("wait").is_some(),
        );
        let status = self.child.wait().expect("wait").code();
        let end = other_end(&self.path);
        let after = rustix::termios::tcgetattr(&end).expect("how the terminal is");
        assert_eq!(
            (after.local_modes, after.input_modes, after.output_modes),
            (self.before.local_modes, self.before.input_modes, self.before.output_modes)
        );
        drop(end);
        self.reading.take().expect("reader").join().expect("reader");
        let shown = self.raw();
        assert_eq!(status, Some(code), "{shown}");
        let left = shown
            .rfind("\x1b[?1049l")
            .unwrap_or_else(|| panic!("the other screen is still there: {shown:?}"));
        assert!(shown[..left].ends_with("\x1b[?25h"), "no cursor: {shown:?}");
        assert!(!shown[left..].contains("\x1b[?1049h"), "{shown:?}");
        shown
    }
}

#[test]
fn privileged_the_explorer_shows_a_real_image_and_leaves_no_trace() {
    let d = Daemon::start();
    d.load("nginx");
    let mut tty = Tty::explore(&d, "nginx", &[]);
    tty.wait("Files at layer 12");
    tty.wait("docker-entrypoint.sh");
    wait_until("all is loaded", || !tty.screen.lock().expect("screen").text().contains("loading"));
    tty.types("/nginx.conf\r");
    tty.wait("/etc/nginx/nginx.conf");
    tty.types("v");
    tty.wait("worker_processes auto;");
    tty.types("q");
    tty.wait(" Layers");
    tty.types("i");
    tty.wait(" layer 3 added\n   RUN apt-get install -y nginx\n");
    // The key, not the start of a sequence.
    tty.types("\x1b");
    tty.wait("Files at layer 12  /nginx.conf");
    tty.types("\x1b");
    tty.wait("fastcgi.conf\n");
    tty.types("[[[[[[[[[a");
    tty.wait("Changes of layer 3\n");
    tty.wait("changed 0 deleted");
    tty.types("w");
    tty.wait("Wasted in all layers");
    // Another size is drawn at once, also one that is too small.
    tty.size(3, 10);
    tty.wait("too small");
    tty.size(40, 120);
    tty.wait("Wasted in all layers");
    tty.types("q");
    let shown = tty.ends(0);
    assert!(shown.contains("\x1b[0;32m") || shown.contains(";32m"), "no colour: {shown:?}");

    let mut tty = Tty::explore(&d, "nginx", &[("NO_COLOR", "1"), ("LC_ALL", "C")]);
    tty.wait("docker-entrypoint.sh");
    tty.types("\x03");
    let shown = tty.ends(0);
    let coloured = (30..38).chain(90..98).any(|c| shown.contains(&format!(";{c}m")));
    assert!(!coloured && shown.is_ascii(), "{shown:?}");

    let tty = Tty::explore(&d, "nginx", &[]);
    tty.wait("docker-entrypoint.sh");
    signal(tty.child.id(), "TERM");
    tty.ends(143);
    d.finish();
}

#[test]
fn privileged_the_explorer_without_a_daemon_or_a_terminal() {
    let mut d = Daemon::start();
    d.load("nginx");
    let error = ours(&d, &["image", "explore", "nginx"]).fails(1);
    assert!(error.contains("explore needs a terminal"), "{error}");
    let mut tty = Tty::explore(&d, "nginx", &[]);
    tty.wait("docker-entrypoint.sh");
    wait_until("all is loaded", || !tty.screen.lock().expect("screen").text().contains("loading"));
    d.kill9();
    tty.types("/docker-ent\rv");
    tty.wait("Cannot connect to the Docker daemon");
    // What is there can still be looked at.
    tty.types("w");
    tty.wait("Wasted in all layers");
    tty.types("q");
    tty.ends(0);
    d.launch();
    // Nothing to take the terminal for.
    let mut command = d.command(Client::Longshore);
    let out = command.args(["image", "explore", "nosuch"]).stdin(Stdio::null()).output().expect("explore");
    assert!(!out.status.success() && !out.stdout.starts_with(b"\x1b"));
    wait_until("the daemon answers again", || d.docker(["images", "-q"]).code == 0);
    d.finish();
}
