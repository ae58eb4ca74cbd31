//! The launcher alone, as `crun run` and `runc run` are: no daemon, no image, no network.
//!
//! `launch BUNDLE [RUNS]` runs the OCI bundle RUNS times (create, start, wait, delete) and prints the median time in
//! milliseconds. A bundle without `config.json` gets one that runs `/bin/true` as a default container: Docker's namespaces,
//! mounts, capabilities, seccomp profile and device rules. With 0 RUNS that is all.
#![allow(missing_docs)]

use std::error::Error;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use longshore_runtime::caps::CapSet;
use longshore_runtime::spec::Spec;
use longshore_runtime::{
    AttachRequest, CreateRequest, Embedded, ExitStatus, Runtime, RuntimeOptions, cgroup, seccomp,
    spec_defaults,
};
use serde_json::json;

const PARENT: &str = "longshore-bench";
const OUTPUT: AttachRequest = AttachRequest { stdin: false, stdout: true, stderr: true };

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo bench` adds --bench.
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let bundle = args.first().ok_or("usage: launch BUNDLE [RUNS]")?;
    let runs: usize = args.get(1).map_or(Ok(30), |n| n.parse())?;
    let config = Path::new(bundle).join("config.json");
    if !config.exists() {
        fs::write(&config, serde_json::to_vec_pretty(&default_container()?)?)?;
    }
    if runs == 0 {
        return Ok(());
    }
    let mut spec: Spec = serde_json::from_slice(&fs::read(config)?)?;
    let root = spec.root().as_ref().ok_or("config.json has no root")?.path().clone();
    if let Some(own) = spec.root_mut() {
        own.set_path(Path::new(bundle).join(root));
    }
    let exec_root = tempfile::tempdir()?;
    let runtime = Embedded::new(RuntimeOptions {
        exec_root: exec_root.path().to_owned(),
        cgroup_parent: PARENT.to_owned(),
        slice: None,
    })?;
    let mut times = Vec::new();
    for _ in 0..runs {
        let request = CreateRequest {
            id: "bench".to_owned(),
            spec: spec.clone(),
            terminal: false,
            console_size: None,
            open_stdin: false,
            stdin_once: false,
            log: None,
            netns: None,
            exit_file: exec_root.path().join("exit"),
            userns: None,
            init: false,
        };
        let start = Instant::now();
        let task = runtime.create(request)?;
        let mut stream = task.attach(OUTPUT)?;
        task.start()?;
        stream.read_to_end(&mut Vec::new())?;
        runtime.delete("bench")?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
        let status = ExitStatus::read(&exec_root.path().join("exit"))?.ok_or("no exit status")?;
        if status.code != 0 {
            return Err(format!("the container ended with {}", status.code).into());
        }
    }
    cgroup::Cgroup::remove_parent(PARENT)?;
    times.sort_by(f64::total_cmp);
    println!("{:.2}", times[times.len() / 2]);
    Ok(())
}

fn default_container() -> Result<serde_json::Value, Box<dyn Error>> {
    let caps: Vec<String> = CapSet::default_set().names().collect();
    let namespaces = ["mount", "pid", "ipc", "uts", "network", "cgroup"].map(|kind| json!({ "type": kind }));
    Ok(json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs" },
        "hostname": "bench",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": ["/bin/true"],
            "env": [format!("PATH={}", spec_defaults::DEFAULT_PATH)],
            "cwd": "/",
            "capabilities": { "bounding": caps, "effective": caps, "permitted": caps },
        },
        "mounts": spec_defaults::mounts(false, spec_defaults::DEFAULT_SHM_SIZE),
        "linux": {
            "namespaces": namespaces,
            "maskedPaths": spec_defaults::masked_paths(),
            "readonlyPaths": spec_defaults::readonly_paths(),
            "seccomp": serde_json::to_value(&*seccomp::default_filter(CapSet::default_set()))?,
            "resources": { "devices": spec_defaults::device_rules() },
        },
    }))
}
