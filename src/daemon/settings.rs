//! The daemon's settings: flags over the configuration file over defaults, resolved once.
//!
//! Flags and file keys are dockerd's (docs.docker.com, dockerd reference). A setting named in both places is an
//! error, as it is there; a key or flag that is not supported yet is refused by name.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{CommandFactory, FromArgMatches, Parser};
use longshore_engine::model::DiskBudget;
use longshore_engine::{EngineOptions, Registered};
use serde::Deserialize;

use crate::rootless::World;

use super::registries::{self, Proxies, Registries, RegistryFlags};

/// The container engine's daemon: serves the Docker Engine API.
#[derive(Debug, Parser)]
#[command(name = "longshore daemon", version, disable_help_subcommand = true)]
struct Flags {
    /// Socket to listen on, unix:///path; may be given several times
    #[arg(short = 'H', long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// Directory of everything that must last
    #[arg(long, value_name = "DIR")]
    data_root: Option<PathBuf>,
    /// Directory of what does not outlive a boot
    #[arg(long, value_name = "DIR")]
    exec_root: Option<PathBuf>,
    /// File that holds the daemon's process id
    #[arg(short, long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// Configuration file (JSON)
    #[arg(long, value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// Storage driver: overlay2 or vfs (default: the first that works)
    #[arg(short, long, value_name = "NAME")]
    storage_driver: Option<String>,
    /// Group that may use the unix sockets (default: docker, where it exists)
    #[arg(short = 'G', long, value_name = "GROUP")]
    group: Option<String>,
    /// Log what is done in detail
    #[arg(short = 'D', long)]
    debug: bool,
    /// Level of the daemon's log: debug, info, warn, error
    #[arg(short, long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Name of the bridge of the default network
    #[arg(short, long, value_name = "NAME")]
    bridge: Option<String>,
    /// Address and subnet of that bridge, in CIDR form
    #[arg(long, value_name = "CIDR")]
    bip: Option<String>,
    /// MTU of the default network
    #[arg(long, value_name = "BYTES")]
    mtu: Option<u32>,
    /// Parent cgroup of all containers
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
    /// Register an OCI runtime beside the embedded launcher, name=path; may be given several times
    #[arg(long, value_name = "NAME=PATH")]
    add_runtime: Vec<String>,
    /// Runtime of containers that name none
    #[arg(long, value_name = "NAME")]
    default_runtime: Option<String>,
    /// Keep containers running while the daemon is not: always so here, accepted for configurations made for dockerd
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    live_restore: Option<bool>,
    #[command(flatten)]
    registries: RegistryFlags,
    /// Bytes that everything under the data root may take, 20GB or 20GiB: what is over is collected
    #[arg(long, value_name = "SIZE")]
    disk_budget: Option<String>,
    /// With a disk budget: keep images that were used so recently (default: 24h)
    #[arg(long, value_name = "DURATION", requires = "disk_budget")]
    disk_budget_keep_last_used: Option<String>,
    /// With a disk budget: keep images that have a name (default: true)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", requires = "disk_budget")]
    disk_budget_keep_tagged: Option<bool>,
    /// Check the settings and exit
    #[arg(long)]
    validate: bool,
    /// Leave after this many seconds without clients and running containers (used when the command line starts the daemon)
    #[arg(long, value_name = "SECONDS", hide = true)]
    idle_exit: Option<u64>,
}

/// `daemon.json`. Unknown keys are refused by name.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct File {
    hosts: Vec<String>,
    data_root: Option<PathBuf>,
    exec_root: Option<PathBuf>,
    pidfile: Option<PathBuf>,
    storage_driver: Option<String>,
    group: Option<String>,
    debug: Option<bool>,
    log_level: Option<String>,
    bridge: Option<String>,
    bip: Option<String>,
    mtu: Option<u32>,
    cgroup_parent: Option<String>,
    runtimes: BTreeMap<String, FileRuntime>,
    default_runtime: Option<String>,
    live_restore: Option<bool>,
    pub(super) registry_mirrors: Vec<String>,
    pub(super) insecure_registries: Vec<String>,
    pub(super) max_concurrent_downloads: Option<usize>,
    pub(super) max_concurrent_uploads: Option<usize>,
    pub(super) proxies: Proxies,
    /// Ours: mirrors of any registry, by its name.
    pub(super) mirrors: BTreeMap<String, Vec<String>>,
    /// Ours: token servers on other domains than their registry's, by the registry's name.
    pub(super) token_servers: BTreeMap<String, Vec<String>>,
    /// Ours: folders like /etc/docker/certs.d.
    pub(super) certs_dirs: Option<Vec<PathBuf>>,
    disk_budget: Option<FileBudget>,
}

/// The disk budget in `daemon.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct FileBudget {
    limit: String,
    keep_last_used: Option<String>,
    keep_tagged: Option<bool>,
}

/// An OCI runtime in `daemon.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileRuntime {
    path: PathBuf,
    #[serde(default)]
    runtime_args: Vec<String>,
}

/// Where the daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// A socket file.
    Unix(PathBuf),
}

/// The resolved settings.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) hosts: Vec<Host>,
    pub(super) data_root: PathBuf,
    pub(super) exec_root: PathBuf,
    pub(super) pidfile: PathBuf,
    pub(super) storage_driver: Option<String>,
    pub(super) group: Option<String>,
    pub(super) debug: bool,
    pub(super) log_level: String,
    pub(super) bridge: Option<String>,
    pub(super) bip: Option<String>,
    pub(super) mtu: Option<u32>,
    pub(super) cgroup_parent: Option<String>,
    pub(super) runtimes: Vec<Registered>,
    pub(super) default_runtime: Option<String>,
    pub(super) registries: Registries,
    pub(super) disk_budget: Option<DiskBudget>,
    /// `None`: stay for ever.
    pub(super) idle_exit: Option<Duration>,
}

impl Settings {
    /// From the command line and the file that it names. `None`: nothing is left to do (`--help`, `--validate`).
    pub(super) fn resolve(args: impl Iterator<Item = OsString>) -> Result<Option<Self>> {
        let argv = std::iter::once(OsString::from("longshore daemon")).chain(args);
        let flags =
            match Flags::command().try_get_matches_from(argv).and_then(|m| Flags::from_arg_matches(&m)) {
                Ok(f) => f,
                Err(e) if !e.use_stderr() => {
                    e.print()?;
                    return Ok(None);
                }
                Err(e) => bail!("{}", e.render().to_string().trim_start_matches("error: ").trim_end()),
            };
        let file = read_file(flags.config_file.as_deref())?;
        let validate = flags.validate;
        let settings = merge(flags, file)?;
        if validate {
            println!("configuration OK");
            return Ok(None);
        }
        Ok(Some(settings))
    }

    /// Threads of the daemon's runtime: a few, since the work is waiting and blocking work has threads of its own.
    pub(super) fn workers(&self) -> usize {
        std::thread::available_parallelism().map_or(2, usize::from).clamp(1, 4)
    }

    /// What the engine is opened with.
    pub(super) fn engine_options(&self) -> EngineOptions {
        EngineOptions {
            data_root: self.data_root.clone(),
            exec_root: self.exec_root.clone(),
            storage_driver: self.storage_driver.clone(),
            bridge: self.bridge.clone(),
            bip: self.bip.clone(),
            mtu: self.mtu,
            cgroup_parent: self.cgroup_parent.clone(),
            runtimes: self.runtimes.clone(),
            default_runtime: self.default_runtime.clone(),
            registry: self.registries.config.clone(),
            max_concurrent_downloads: self.registries.downloads,
            max_concurrent_uploads: self.registries.uploads,
            disk_budget: self.disk_budget,
            debug: self.debug,
            ..EngineOptions::default()
        }
    }

    /// The same for a daemon without root, whose network is not the host's.
    pub(super) fn rootless_options(&self, world: &World) -> EngineOptions {
        let mut options = self.engine_options();
        options.rootless = true;
        options.host_sockets = world.sockets.clone();
        match &world.outside {
            Ok(resolv_conf) => {
                options.registry.resolv_conf.clone_from(resolv_conf);
                options.resolv_conf = Some(resolv_conf.clone());
            }
            Err(why) => options.no_bridges = Some(why.clone()),
        }
        options
    }
}

/// The default file may be missing; one that was named may not.
fn read_file(named: Option<&Path>) -> Result<File> {
    let own = match is_root() {
        true => PathBuf::from("/etc/longshore/daemon.json"),
        false => user_dir("XDG_CONFIG_HOME", ".config").unwrap_or_default().join("longshore/daemon.json"),
    };
    let path = named.unwrap_or(&own);
    let text = match fs::read(path) {
        Ok(t) => t,
        Err(e) if named.is_none() && e.kind() == std::io::ErrorKind::NotFound => return Ok(File::default()),
        Err(e) => {
            return Err(e).with_context(|| format!("cannot read the configuration file {}", path.display()));
        }
    };
    if text.trim_ascii().is_empty() {
        return Ok(File::default());
    }
    serde_json::from_slice(&text)
        .with_context(|| format!("the configuration file {} is not valid", path.display()))
}

fn merge(flags: Flags, mut file: File) -> Result<Settings> {
    let data_default = if is_root() {
        PathBuf::from("/var/lib/longshore")
    } else {
        user_dir("XDG_DATA_HOME", ".local/share")?.join("longshore")
    };
    let run_default = if is_root() {
        PathBuf::from("/run")
    } else {
        longshore_cli::user::runtime_dir().map_err(anyhow::Error::msg)?
    };
    let registries = registries::resolve(flags.registries, &mut file)?;
    let hosts = both(
        "hosts",
        (!flags.hosts.is_empty()).then_some(flags.hosts),
        (!file.hosts.is_empty()).then_some(file.hosts),
    )?;
    let hosts = match hosts {
        Some(list) => list.iter().map(|h| parse_host(h)).collect::<Result<_>>()?,
        None => vec![Host::Unix(run_default.join("longshore.sock"))],
    };
    let exec_root =
        both("exec-root", flags.exec_root, file.exec_root)?.unwrap_or_else(|| run_default.join("longshore"));
    let storage_driver = both("storage-driver", flags.storage_driver, file.storage_driver)?;
    if let Some(d) = storage_driver.as_deref().filter(|d| !["overlay2", "vfs"].contains(d)) {
        bail!("unknown storage driver {d:?}: choose overlay2 or vfs, or leave it out");
    }
    let log_level = both("log-level", flags.log_level, file.log_level)?.unwrap_or_else(|| "info".into());
    if !["debug", "info", "warn", "error", "fatal"].contains(&log_level.as_str()) {
        bail!("unknown log level {log_level:?}: choose debug, info, warn or error");
    }
    if both("live-restore", flags.live_restore, file.live_restore)? == Some(false) {
        bail!(
            "live-restore cannot be turned off: containers outlive the daemon; stop them with `longshore stop`"
        );
    }
    let flag_budget = flags.disk_budget.map(|limit| FileBudget {
        limit,
        keep_last_used: flags.disk_budget_keep_last_used,
        keep_tagged: flags.disk_budget_keep_tagged,
    });
    let disk_budget = both("disk-budget", flag_budget, file.disk_budget)?
        .map(|b| DiskBudget::read(&b.limit, b.keep_last_used.as_deref(), b.keep_tagged))
        .transpose()
        .context("disk-budget")?;
    Ok(Settings {
        hosts,
        data_root: absolute(both("data-root", flags.data_root, file.data_root)?.unwrap_or(data_default))?,
        pidfile: absolute(
            both("pidfile", flags.pidfile, file.pidfile)?
                .unwrap_or_else(|| run_default.join("longshore.pid")),
        )?,
        exec_root: absolute(exec_root)?,
        storage_driver,
        // A group of the host means nothing in an ordinary user's world: the socket is that user's alone.
        group: both("group", flags.group, file.group)?.or_else(|| (!is_root()).then(String::new)),
        debug: flags.debug || file.debug.unwrap_or(false),
        log_level: if log_level == "fatal" { "error".into() } else { log_level },
        bridge: both("bridge", flags.bridge, file.bridge)?,
        bip: both("bip", flags.bip, file.bip)?,
        mtu: both("mtu", flags.mtu, file.mtu)?,
        cgroup_parent: both("cgroup-parent", flags.cgroup_parent, file.cgroup_parent)?,
        runtimes: runtimes(&flags.add_runtime, file.runtimes)?,
        default_runtime: both("default-runtime", flags.default_runtime, file.default_runtime)?,
        registries,
        disk_budget,
        idle_exit: flags.idle_exit.map(Duration::from_secs),
    })
}

/// Runtimes of the file and of the flags together, as dockerd has it.
fn runtimes(flags: &[String], file: BTreeMap<String, FileRuntime>) -> Result<Vec<Registered>> {
    let mut all: Vec<Registered> =
        file.into_iter().map(|(name, r)| Registered { name, path: r.path, args: r.runtime_args }).collect();
    for flag in flags {
        let (name, path) = flag
            .split_once('=')
            .filter(|(name, path)| !name.is_empty() && !path.is_empty())
            .with_context(|| format!("invalid runtime {flag:?}: write name=path"))?;
        all.push(Registered { name: name.into(), path: path.into(), args: Vec::new() });
    }
    Ok(all)
}

pub(super) fn both<T>(name: &str, flag: Option<T>, file: Option<T>) -> Result<Option<T>> {
    match (flag, file) {
        (Some(_), Some(_)) => {
            bail!("{name} is given both as a flag and in the configuration file: leave one out")
        }
        (a, b) => Ok(a.or(b)),
    }
}

fn parse_host(text: &str) -> Result<Host> {
    match text.split_once("://") {
        Some(("unix", path)) if path.starts_with('/') => Ok(Host::Unix(path.into())),
        Some(("unix", _)) => bail!("host {text:?}: a unix socket needs an absolute path, unix:///path"),
        Some(("tcp", _)) => bail!("host {text:?}: TCP is not supported yet; listen on a unix socket"),
        Some(("fd", _)) => {
            bail!("host {text:?}: socket activation is not supported yet; listen on a unix socket")
        }
        None if text.starts_with('/') => Ok(Host::Unix(text.into())),
        _ => bail!("host {text:?} is not understood: write unix:///path"),
    }
}

fn absolute(path: PathBuf) -> Result<PathBuf> {
    std::path::absolute(&path).with_context(|| format!("{} cannot be made absolute", path.display()))
}

fn user_dir(var: &str, below_home: &str) -> Result<PathBuf> {
    match std::env::var_os(var).filter(|v| !v.is_empty()) {
        Some(dir) => Ok(dir.into()),
        None => Ok(Path::new(&std::env::var_os("HOME").context("HOME is not set; pass --data-root")?)
            .join(below_home)),
    }
}

/// Whether this process is root.
pub(super) fn is_root() -> bool {
    longshore_sys::is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(args: &[&str]) -> Result<Settings> {
        Ok(Settings::resolve(args.iter().map(OsString::from))?.expect("settings"))
    }

    fn config(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        fs::write(file.path(), text).expect("write");
        file
    }

    #[test]
    fn flags_make_settings() {
        let s = resolve(&[
            "-H",
            "unix:///a/b.sock",
            "--host=/c.sock",
            "--data-root",
            "/d",
            "--exec-root=/e",
            "-s",
            "vfs",
            "-D",
            "--live-restore",
        ])
        .expect("valid");
        assert_eq!(s.hosts, [Host::Unix("/a/b.sock".into()), Host::Unix("/c.sock".into())]);
        assert_eq!((s.data_root, s.exec_root), ("/d".into(), "/e".into()));
        assert_eq!((s.storage_driver.as_deref(), s.debug), (Some("vfs"), true));
    }

    #[test]
    fn the_file_fills_what_flags_leave() {
        let f = config(r#"{"data-root": "/d", "storage-driver": "vfs"}"#);
        let file = f.path().to_str().expect("utf-8");
        assert_eq!(resolve(&["--config-file", file]).expect("valid").data_root, PathBuf::from("/d"));
        let twice = resolve(&["--config-file", file, "--data-root", "/x"]).expect_err("twice");
        assert!(twice.to_string().contains("both as a flag and in the configuration file"), "{twice}");
    }

    #[test]
    fn a_disk_budget_comes_from_flags_or_from_the_file() {
        let f =
            config(r#"{"disk-budget": {"limit": "20GB", "keep-last-used": "72h", "keep-tagged": false}}"#);
        let file = f.path().to_str().expect("utf-8");
        let budget = resolve(&["--config-file", file]).expect("valid").disk_budget.expect("a budget");
        assert_eq!((budget.limit, budget.keep_tagged), (20_000_000_000, false));
        let flags =
            ["--disk-budget=1GiB", "--disk-budget-keep-last-used=2h", "--disk-budget-keep-tagged=false"];
        let budget = resolve(&flags).expect("valid").disk_budget.expect("a budget");
        assert_eq!((budget.limit, budget.keep_last_used.as_secs()), (1 << 30, 7200));
        for (args, word) in [
            (vec!["--disk-budget=much"], "is no size"),
            (vec!["--disk-budget=1GB", "--disk-budget-keep-last-used=soon"], "is no duration"),
            (vec!["--disk-budget-keep-tagged"], "--disk-budget"),
            (
                vec!["--disk-budget=1GB", "--config-file", file],
                "both as a flag and in the configuration file",
            ),
        ] {
            let e = resolve(&args).expect_err("refused");
            assert!(format!("{e:#}").contains(word), "{args:?}: {e:#}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for (args, word) in [
            (vec!["--host", "tcp://0.0.0.0:2375"], "TCP is not supported yet"),
            (vec!["--host", "unix://rel"], "absolute path"),
            (vec!["--nosuch"], "--nosuch"),
            (vec!["--live-restore=false"], "cannot be turned off"),
            (vec!["--storage-driver", "zfs"], "zfs"),
            (vec!["--config-file", "/nonexistent.json"], "/nonexistent.json"),
        ] {
            let e = resolve(&args).expect_err("refused");
            assert!(format!("{e:#}").contains(word), "{args:?}: {e:#}");
        }
        let f = config(r#"{"nosuch": 1}"#);
        let e = resolve(&["--config-file", f.path().to_str().expect("utf-8")]).expect_err("unknown key");
        assert!(format!("{e:#}").contains("nosuch"), "{e:#}");
    }
}
