//! `info`.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{say, system};
use crate::args::object::FormatArgs;
use crate::client::Client;
use crate::error::Result;
use crate::format::human::binary;

/// `info`.
pub(crate) async fn info(c: &Client, args: &FormatArgs) -> Result<()> {
    let mut v = c.value("/info").await?;
    v["ClientInfo"] = json!({
        "Debug": false, "Version": env!("CARGO_PKG_VERSION"), "Context": "default", "Plugins": [], "Warnings": null,
        "Os": std::env::consts::OS, "Arch": longshore_oci::Platform::host().architecture,
    });
    match args.format.as_deref().filter(|f| !f.is_empty()) {
        Some("json") => return say(&v.to_string()),
        Some(template) => return system::show(template, &v, &v, "", "system.dockerInfo"),
        None => {}
    }
    say(&text(&v))?;
    for warning in v["Warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        eprintln!("{}", crate::tty::printable(warning));
    }
    Ok(())
}

fn plain(v: &Value) -> String {
    v.as_str().map_or_else(|| v.to_string(), str::to_owned)
}

fn words(v: &Value) -> String {
    v.as_array().into_iter().flatten().map(plain).collect::<Vec<_>>().join(" ")
}

fn text(v: &Value) -> String {
    let mut out = format!(
        "Client:\n Version:    {}\n Context:    default\n Debug Mode: false\n\nServer:\n",
        env!("CARGO_PKG_VERSION")
    );
    let mut put = |name: &str, value: &str| out += &format!(" {name}: {value}\n");
    for (name, key) in [
        ("Containers", "Containers"),
        (" Running", "ContainersRunning"),
        (" Paused", "ContainersPaused"),
        (" Stopped", "ContainersStopped"),
        ("Images", "Images"),
        ("Server Version", "ServerVersion"),
        ("Storage Driver", "Driver"),
    ] {
        put(name, &plain(&v[key]));
    }
    for row in v["DriverStatus"].as_array().into_iter().flatten() {
        put(&format!(" {}", plain(&row[0])), &plain(&row[1]));
    }
    for (name, key) in [
        ("Logging Driver", "LoggingDriver"),
        ("Cgroup Driver", "CgroupDriver"),
        ("Cgroup Version", "CgroupVersion"),
    ] {
        put(name, &plain(&v[key]));
    }
    let _ = writeln!(out, " Plugins:");
    for kind in ["Volume", "Network", "Authorization", "Log"] {
        if v["Plugins"][kind].as_array().is_some_and(|p| !p.is_empty()) {
            let _ = writeln!(out, "  {kind}: {}", words(&v["Plugins"][kind]));
        }
    }
    lines("CDI spec directories", &v["CDISpecDirs"], &mut out);
    let mut put = |name: &str, value: &str| out += &format!(" {name}: {value}\n");
    put("Swarm", &plain(&v["Swarm"]["LocalNodeState"]));
    let runtimes = v["Runtimes"].as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    put("Runtimes", &runtimes.collect::<Vec<_>>().join(" "));
    put("Default Runtime", &plain(&v["DefaultRuntime"]));
    if let Some(init) = v["InitBinary"].as_str().filter(|i| !i.is_empty()) {
        put("Init Binary", init);
    }
    for (name, value) in
        [("containerd version", &v["ContainerdCommit"]["ID"]), ("runc version", &v["RuncCommit"]["ID"])]
    {
        if !value.as_str().unwrap_or_default().is_empty() {
            put(name, &plain(value));
        }
    }
    let _ = writeln!(out, " Security Options:");
    for option in v["SecurityOptions"].as_array().into_iter().flatten() {
        security(&plain(option), &mut out);
    }
    let mut put = |name: &str, value: &str| out += &format!(" {name}: {value}\n");
    for (name, key) in [
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
        ("CPUs", "NCPU"),
    ] {
        put(name, &plain(&v[key]));
    }
    put("Total Memory", &binary(v["MemTotal"].as_i64().unwrap_or(0)));
    for (name, key) in [
        ("Name", "Name"),
        ("ID", "ID"),
        ("Docker Root Dir", "DockerRootDir"),
        ("Debug Mode", "Debug"),
        ("Experimental", "ExperimentalBuild"),
    ] {
        put(name, &plain(&v[key]));
    }
    lines("Labels", &v["Labels"], &mut out);
    lines("Insecure Registries", &v["RegistryConfig"]["InsecureRegistryCIDRs"], &mut out);
    lines("Registry Mirrors", &v["RegistryConfig"]["Mirrors"], &mut out);
    out += &format!(" Live Restore Enabled: {}\n", plain(&v["LiveRestoreEnabled"]));
    out
}

/// A list with a line for each; nothing where it is empty.
fn lines(name: &str, list: &Value, out: &mut String) {
    let all: Vec<String> = list.as_array().into_iter().flatten().map(plain).collect();
    if !all.is_empty() {
        *out += &format!(" {name}:\n  {}\n", all.join("\n  "));
    }
}

/// `name=seccomp,profile=builtin` as docker lays it out.
fn security(option: &str, out: &mut String) {
    let pairs = option.split(',').map(|p| p.split_once('=').unwrap_or((p, "")));
    for (key, value) in pairs {
        if key == "name" {
            let _ = writeln!(out, "  {value}");
            continue;
        }
        let mut name = key.to_owned();
        if let Some(first) = name.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        let _ = writeln!(out, "   {name}: {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn security_options_are_laid_out_as_docker_does() {
        let mut out = String::new();
        security("name=seccomp,profile=builtin", &mut out);
        assert_eq!(out, "  seccomp\n   Profile: builtin\n");
    }

    #[test]
    fn the_parts_stand_where_docker_has_them() {
        let v = json!({"Containers": 1, "Plugins": {"Volume": ["local"], "Log": []}, "MemTotal": 1 << 30});
        let shown = text(&v);
        assert!(
            shown.contains("\n Containers: 1\n") && shown.contains("\n Plugins:\n  Volume: local\n Swarm:"),
            "{shown}"
        );
        assert!(shown.contains("\n Total Memory: 1GiB\n"), "{shown}");
    }
}
