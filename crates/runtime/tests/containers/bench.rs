//! How long it takes; prints, asserts nothing about time.

use std::time::Instant;

use longshore_runtime::Runtime;

use crate::harness::{OUTPUT, World, collect, process, run_exec};

#[test]
fn privileged_durations() {
    let w = World::new();
    let filter = longshore_runtime::seccomp::default_filter(longshore_runtime::caps::CapSet::default_set());
    let spec = || {
        let mut spec = w.spec_args(&["true"]);
        spec["linux"]["seccomp"] = serde_json::to_value(&*filter).unwrap();
        spec["linux"]["resources"] =
            serde_json::json!({ "devices": longshore_runtime::spec_defaults::device_rules() });
        spec["mounts"].as_array_mut().unwrap().push(serde_json::json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "ro"] }));
        w.request(spec)
    };
    let mut times = Vec::new();
    for _ in 0..31 {
        let request = spec();
        let start = Instant::now();
        let task = w.runtime.create(request).unwrap();
        let created = start.elapsed();
        let stream = task.attach(OUTPUT).unwrap();
        task.start().unwrap();
        let started = start.elapsed();
        assert_eq!(collect(stream).code, 0);
        let ended = start.elapsed();
        w.runtime.delete("c").unwrap();
        times.push((start.elapsed(), created, started, ended));
    }
    times.sort();
    println!("all, created, started, ended: median {:?}, best {:?}", times[15], times[0]);
    let task = w.started(w.request(w.spec_args(&["sleep", "1000"])));
    let mut times: Vec<_> = (0..15)
        .map(|_| {
            let start = Instant::now();
            run_exec(&task, process(&["true"]));
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("exec: median {:?}", times[7]);
}
