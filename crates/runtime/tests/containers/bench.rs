//! How long it takes; prints, asserts nothing about time.

use std::time::Instant;

use longshore_runtime::Runtime;

use crate::harness::{OUTPUT, World, collect, process, run_exec};

#[test]
fn privileged_durations() {
    let w = World::new();
    let mut times = Vec::new();
    for _ in 0..15 {
        let start = Instant::now();
        let task = w.runtime.create(w.request(w.spec_args(&["true"]))).unwrap();
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
    println!("all, created, started, ended: median {:?}, best {:?}", times[7], times[0]);
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
