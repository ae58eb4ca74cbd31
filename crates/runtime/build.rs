//! Builds the monitor, a program of its own, so that the library can carry it.
//!
//! It has to be static, small and without relocations, whatever the outer build is; hence a cargo of
//! its own with its own flags and target directory.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() -> Result<(), String> {
    let var = |name: &str| env::var(name).map_err(|e| format!("{name}: {e}"));
    let here = PathBuf::from(var("CARGO_MANIFEST_DIR")?);
    let workspace = here.ancestors().nth(2).ok_or("no workspace above")?.to_owned();
    for path in ["crates/monitor/src", "crates/monitor/Cargo.toml", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
    let target = var("TARGET")?;
    let target_dir = PathBuf::from(var("OUT_DIR")?).join("monitor");
    let bare = var("CARGO_CFG_TARGET_ARCH")? == "x86_64";
    let mut flags = vec!["-Ctarget-feature=+crt-static", "-Crelocation-model=static"];
    if bare {
        // Nothing of the C library, not even what starts a program; and no page more than needed.
        flags.extend(["-Clink-arg=-nostartfiles", "-Clink-arg=-nostdlib", "-Clink-arg=-Wl,--build-id=none"]);
    }
    let mut cargo = Command::new(var("CARGO")?);
    cargo
        .current_dir(&workspace)
        .args([
            "build",
            "--package=longshore-monitor",
            "--bin=longshore-monitor",
            "--profile=monitor",
            "--locked",
        ])
        .arg(format!("--target={target}"))
        .arg("--target-dir")
        .arg(&target_dir)
        // One list of flags, with this separator; it wins over RUSTFLAGS and configuration files.
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env_remove("RUSTFLAGS")
        // A wrapper of the outer build (clippy, coverage) is not meant for this one.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER");
    if bare {
        cargo.arg("--features=bare");
    }
    let status = cargo.status().map_err(|e| format!("run cargo for the monitor: {e}"))?;
    if !status.success() {
        return Err(format!("building the monitor failed: {status}"));
    }
    let binary = target_dir.join(&target).join("monitor/longshore-monitor");
    println!("cargo::rustc-env=LONGSHORE_MONITOR={}", binary.display());
    Ok(())
}
