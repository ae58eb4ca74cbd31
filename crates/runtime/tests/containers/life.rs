//! The monitor beyond the life of its daemon, and the end of everything.

use longshore_runtime::{Error, ExitStatus, Recovered, Runtime};

use crate::harness::{OUTPUT, World, collect, process, run_exec, runtime};

fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "))
}

#[test]
fn privileged_container_is_found_again_and_speaks() {
    let w = World::new();
    let mut request = w.request(w.spec("echo first; sleep 1000"));
    request.log = Some(w.log());
    let task = w.started(request);
    let (pid, start) = (task.pid(), task.start_time());
    drop(task);
    let second = runtime(&w.path("exec"));
    let Recovered::Running(task) = second.recover("c").unwrap() else { panic!("not found") };
    assert_eq!((task.pid(), task.start_time()), (pid, start));
    assert_eq!(run_exec(&task, process(&["echo", "hi"])).out, "hi\n");
    let wait = task.wait().unwrap();
    task.signal(15, false).unwrap();
    task.signal(9, false).unwrap();
    assert_eq!(collect(wait).code, 137);
    assert_eq!(collect(task.wait().unwrap()).code, 137, "said again, from the file if need be");
    second.delete("c").unwrap();
    second.delete("c").unwrap();
}

#[test]
fn privileged_end_while_nobody_listens_is_written_down() {
    let w = World::new();
    let task = w.started(w.request(w.spec("sleep 0.05; exit 42")));
    let monitor = task.monitor_pid();
    let fd = longshore_sys::pidfd::open(monitor).unwrap();
    assert!(longshore_sys::pidfd::wait_exit(&fd, Some(10_000)).unwrap());
    let Recovered::Exited(status) = runtime(&w.path("exec")).recover("c").unwrap() else {
        panic!("not exited")
    };
    assert_eq!((status.code, status.signal, status.oom), (42, None, false));
    assert!(status.finished_ns > 1_700_000_000_000_000_000);
    assert_eq!(ExitStatus::read(&w.path("exit")).unwrap(), Some(status));
    assert!(!w.exec_dir().exists());
}

/// A place for exit files that takes no more files.
struct Full(std::path::PathBuf);

impl Full {
    fn new(w: &World) -> Self {
        let dir = w.path("full");
        std::fs::create_dir(&dir).unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "nr_inodes=2", "full"]).arg(&dir);
        assert!(mount.status().unwrap().success());
        let this = Self(dir);
        std::fs::write(this.0.join("filler"), "").unwrap();
        assert!(std::fs::write(this.0.join("more"), "").is_err());
        this
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn privileged_end_on_a_full_disk_is_kept_until_it_is_told() {
    let w = World::new();
    let full = Full::new(&w);
    let mut request = w.request(w.spec("exit 42"));
    request.exit_file = full.0.join("exit");
    let task = w.started(request);
    let monitor = longshore_sys::pidfd::open(task.monitor_pid()).unwrap();
    assert!(!longshore_sys::pidfd::wait_exit(&monitor, Some(300)).unwrap(), "it has not told anybody");
    let Recovered::Exited(status) = runtime(&w.path("exec")).recover("c").unwrap() else {
        panic!("not exited")
    };
    assert_eq!(status.code, 42);
    assert!(longshore_sys::pidfd::wait_exit(&monitor, Some(10_000)).unwrap());
}

#[test]
fn privileged_end_on_a_full_disk_is_written_down_when_there_is_room() {
    let w = World::new();
    let full = Full::new(&w);
    let mut request = w.request(w.spec("exit 43"));
    request.exit_file = full.0.join("exit");
    let task = w.started(request);
    let monitor = longshore_sys::pidfd::open(task.monitor_pid()).unwrap();
    assert!(!longshore_sys::pidfd::wait_exit(&monitor, Some(300)).unwrap());
    full.make_room();
    assert!(longshore_sys::pidfd::wait_exit(&monitor, Some(10_000)).unwrap());
    assert_eq!(ExitStatus::read(&full.0.join("exit")).unwrap().unwrap().code, 43);
    assert_eq!(collect(task.wait().unwrap()).code, 43);
}

#[test]
fn privileged_dead_monitor_takes_its_container_along() {
    let w = World::new();
    let task = w.started(w.request(w.spec("sleep 1000")));
    let monitor = longshore_sys::pidfd::open(task.monitor_pid()).unwrap();
    longshore_sys::pidfd::send_signal(&monitor, 9).unwrap();
    assert!(longshore_sys::pidfd::wait_exit(&monitor, Some(10_000)).unwrap());
    assert!(matches!(runtime(&w.path("exec")).recover("c").unwrap(), Recovered::Gone));
    assert!(!alive(task.pid()));
    assert!(!w.exec_dir().exists());
}

#[test]
fn privileged_container_that_never_ran_is_removed() {
    let w = World::new();
    let task = w.runtime.create(w.request(w.spec("echo never"))).unwrap();
    assert!(alive(task.pid()));
    assert!(matches!(runtime(&w.path("exec")).recover("c").unwrap(), Recovered::Gone));
    assert!(!alive(task.pid()));
    assert!(!w.path("exit").exists());
    assert!(matches!(w.runtime.recover("unknown").unwrap(), Recovered::Gone));
}

#[test]
fn privileged_second_create_and_start_are_refused() {
    let w = World::new();
    let task = w.started(w.request(w.spec("sleep 1000")));
    assert!(matches!(w.runtime.create(w.request(w.spec("true"))), Err(Error::Exists(_))));
    assert!(task.start().is_err());
    assert!(alive(task.pid()));
    w.runtime.delete("c").unwrap();
    assert!(!alive(task.pid()) && !alive(task.monitor_pid()));
    // The same name can live again.
    assert_eq!(w.run(w.spec("exit 4")).code, 4);
}

#[test]
fn privileged_long_roots_work() {
    let w = World::new();
    let deep = w.path("exec").join("d".repeat(150));
    let second = runtime(&deep);
    let task = second.create(w.request(w.spec("echo deep"))).unwrap();
    let stream = task.attach(OUTPUT).unwrap();
    task.start().unwrap();
    assert_eq!(collect(stream).out, "deep\n");
    second.delete("c").unwrap();
    assert!(second.delete("../../x").is_err());
}

#[test]
fn privileged_monitor_is_small() {
    let w = World::new();
    let task = w.started(w.request(w.spec("echo x; sleep 1000")));
    run_exec(&task, process(&["true"]));
    let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", task.monitor_pid())).unwrap();
    let field = |name: &str| -> u64 {
        text.lines()
            .find_map(|l| l.strip_prefix(name))
            .unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap()
    };
    // The program itself is one memory file that all monitors share.
    println!(
        "monitor: {} kB of its own, {} kB of the shared program",
        field("Pss_Anon:"),
        field("Pss_Shmem:")
    );
    assert!(field("Pss_Anon:") < 200, "{text}");
}
