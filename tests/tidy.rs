//! The repository's own rules: which crate may use which, who may be unsafe, how long a file may grow.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every edge between our crates that is allowed; an edge may only point down.
const EDGES: &[(&str, &[&str])] = &[
    ("oci", &[]),
    ("monitor", &[]),
    ("sys", &["oci"]),
    ("api", &["oci"]),
    ("store", &["oci", "sys"]),
    ("runtime", &["oci", "sys", "monitor"]),
    ("net", &["oci", "sys"]),
    ("dns", &[]),
    ("registry", &["oci", "store"]),
    ("build", &["oci", "sys", "store"]),
    ("engine", &["oci", "sys", "store", "runtime", "net", "dns", "registry", "build"]),
    ("server", &["oci", "sys", "api", "engine"]),
    ("cli", &["oci", "api", "build"]),
    ("testkit", &["oci", "sys", "store"]),
];

/// Crates that must stay synchronous.
const NO_TOKIO: &[&str] = &["oci", "sys", "api", "store", "build", "runtime", "monitor", "net"];

/// Crates with unsafe code of their own.
const UNSAFE: &[&str] = &["sys", "monitor"];

fn manifests() -> BTreeMap<String, serde_json::Value> {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version=1", "--locked", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()
        .expect("cargo metadata");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let all: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let packages = all["packages"].as_array().expect("packages");
    packages.iter().map(|p| (p["name"].as_str().expect("name").to_owned(), p.clone())).collect()
}

fn dependencies(package: &serde_json::Value) -> Vec<String> {
    let deps = package["dependencies"].as_array().expect("dependencies");
    deps.iter().filter(|d| d["kind"] != "dev").map(|d| d["name"].as_str().expect("name").to_owned()).collect()
}

#[test]
fn edges_point_down() {
    let packages = manifests();
    let allowed: BTreeMap<_, _> = EDGES.iter().copied().collect();
    for (name, package) in &packages {
        let Some(part) = name.strip_prefix("longshore-") else { continue };
        let may = allowed.get(part).unwrap_or_else(|| panic!("{name} is not in the list of edges"));
        for dep in dependencies(package) {
            let Some(to) = dep.strip_prefix("longshore-") else { continue };
            assert!(may.contains(&to), "{part} may not use {to}");
        }
    }
}

#[test]
fn synchronous_crates_know_no_tokio() {
    let packages = manifests();
    for part in NO_TOKIO {
        let deps = dependencies(&packages[&format!("longshore-{part}")]);
        assert!(!deps.iter().any(|d| d.starts_with("tokio")), "{part} uses tokio");
    }
}

fn sources() -> Vec<PathBuf> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).expect("folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                if entry.file_name() != "target" {
                    walk(&path, out);
                }
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    let mut out = Vec::new();
    for top in ["src", "crates", "tests"] {
        walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(top), &mut out);
    }
    out
}

#[test]
fn unsafe_stays_behind_its_fence() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in sources() {
        let rel = file.strip_prefix(root).expect("below the root");
        let fenced = UNSAFE.iter().any(|c| rel.starts_with(format!("crates/{c}")));
        let in_tests = rel.components().any(|c| c.as_os_str() == "tests");
        if fenced || in_tests {
            continue;
        }
        let text = fs::read_to_string(&file).expect("source");
        let code = text.lines().filter(|l| !l.trim_start().starts_with("//"));
        for line in code {
            assert!(!line.contains(concat!("unsa", "fe {")), "{}: {line}", rel.display());
        }
    }
}
