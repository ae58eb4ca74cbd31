//! On a systemd machine the tree of cgroups is systemd's. What we make belongs below a unit that it
//! has handed over to us: one scope for the whole daemon, asked for when the daemon starts.
//!
//! A scope lives as long as processes are in it. While the daemon runs, that is a process of its own
//! (the keeper); when the daemon is gone, the containers that run on.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use longshore_sys::dbus::{Answer, Connection, Method, Reader, Value, Writer};
use rustix::io::Errno;

use super::{Hierarchy, fsio};
use crate::error::{Error, Result};

/// Where systemd is, this is.
const BOOTED: &str = "/run/systemd/system";

const DESTINATION: &str = "org.freedesktop.systemd1";

/// The longest that systemd may take for one answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often is tried while a scope of the same name, of a daemon before, is going away.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);

/// Directory of the keeper. A v2 group that hands controllers down has no processes of its own.
const KEEPER: &str = "keeper";

/// Whether systemd manages this machine.
#[must_use]
pub fn systemd_runs() -> bool {
    Path::new(BOOTED).is_dir()
}

/// Name of the scope for a daemon's containers; `None` if `parent` is a place in the tree that
/// somebody has chosen, which is taken as it is.
#[must_use]
pub fn unit_name(parent: &str) -> Option<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
    let good = !parent.is_empty() && parent.len() < 200 && parent.bytes().all(plain);
    (good && !parent.ends_with(".slice")).then(|| format!("{parent}.scope"))
}

/// The slice that a cgroup parent names, by its name or by its whole path.
#[must_use]
pub fn slice_of(parent: &str) -> Option<&str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'\\');
    let is_slice = |part: &str| {
        part.len() < 100
            && part.strip_suffix(".slice").is_some_and(|stem| !stem.is_empty())
            && part.bytes().all(plain)
    };
    let parent = parent.trim_matches('/');
    if parent.split('/').all(is_slice) { parent.rsplit('/').next() } else { None }
}

/// Whether the scope at `path` still is what it was handed over as.
#[must_use]
pub fn stands(path: &str) -> bool {
    Hierarchy::get().is_ok_and(|h| watched(h).is_none_or(|mount| mount.join(path).join(KEEPER).is_dir()))
}

/// Gets the scope `unit`, from systemd or from the daemon before, and puts the process `keeper` into
/// it. Gives its path below the mount points. A new one is made in `slice`, if that is given.
///
/// # Errors
/// When systemd cannot be asked, or refuses.
pub fn obtain(unit: &str, slice: Option<&str>, keeper: u32) -> Result<String> {
    let hierarchy = Hierarchy::get()?;
    let mut systemd = Systemd::connect()?;
    let mut failed = None;
    for _ in 0..TRIES {
        let started = systemd.start(unit, slice, keeper)?;
        let entered = match systemd.control_group(unit)? {
            Some(path) => enter(hierarchy, &path, keeper).map(|()| path),
            None => Err(failure(unit, "it has no control group", Errno::NOENT)),
        };
        match entered {
            Ok(path) => {
                tracing::debug!(unit, path, started, "delegated scope");
                return Ok(path);
            }
            Err(e) => failed = Some(e),
        }
        std::thread::sleep(PAUSE);
    }
    Err(failed.unwrap_or_else(|| failure(unit, "no answer", Errno::TIMEDOUT)))
}

/// Without root: a process of a login session can move none into a scope of the user's service manager, as both lie in
/// places of the machine's. So the daemon has itself moved there first, into a scope of its own, by whom that is asked.
pub(crate) fn leave_session(stem: &str) {
    let own = || std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let outside = |text: &str| {
        let path = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
        !path.split('/').any(|part| part.starts_with("user@") && part.ends_with(".service"))
    };
    let v2 = Hierarchy::get().is_ok_and(|h| h.pure_v2().is_some());
    if !v2 || !fsio::in_user_namespace() || !outside(&own()) {
        return;
    }
    let unit = format!("{stem}-daemon-{}.scope", std::process::id());
    let started = Systemd::connect().and_then(|mut systemd| systemd.start(&unit, None, std::process::id()));
    if let Err(error) = started {
        tracing::debug!(%error, "the daemon stays in its session");
        return;
    }
    // It is asked to do it, and answers before it is done.
    for _ in 0..TRIES {
        if !outside(&own()) {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

fn failure(unit: &str, what: &str, errno: Errno) -> Error {
    longshore_sys::Error::new(format!("get {unit} from systemd: {what}"), errno).into()
}

/// Moves a monitor out of the daemon's own service, which may be stopped with all that is in it, into
/// the scope at `path`.
///
/// # Errors
/// When it has gone, or is refused.
pub(crate) fn shelter(path: &str, monitor: u32) -> Result<()> {
    enter(Hierarchy::get()?, path, monitor)
}

/// Where the hierarchy is that systemd watches.
fn watched(hierarchy: &Hierarchy) -> Option<&Path> {
    let own = hierarchy.pure_v2().or_else(|| hierarchy.v1_dir("name=systemd"));
    own.or(hierarchy.unified.as_deref())
}

/// Moves the keeper to its place in the hierarchy that systemd watches.
fn enter(hierarchy: &Hierarchy, path: &str, keeper: u32) -> Result<()> {
    let Some(mount) = watched(hierarchy) else { return Ok(()) };
    let dir = mount.join(path).join(KEEPER);
    match std::fs::create_dir(&dir) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(longshore_sys::Error::new(format!("make cgroup {}", dir.display()), e).into());
        }
        _ => {}
    }
    Ok(fsio::write(&dir.join("cgroup.procs"), &keeper.to_string())?)
}

/// The service manager: the machine's for root, otherwise the user's own.
struct Systemd(Connection<UnixStream>);

impl Systemd {
    fn connect() -> Result<Self> {
        let user = !longshore_sys::is_root() || fsio::in_user_namespace();
        let (private, bus) = sockets(user)?;
        // Its own socket needs no bus; an ordinary user's may have been left out by the distribution.
        if let Ok(connection) = Connection::open(&private, TIMEOUT) {
            return Ok(Self(connection));
        }
        let mut connection = Connection::open(&bus, TIMEOUT)?;
        connection.hello()?;
        Ok(Self(connection))
    }

    /// Starts the scope; whether it was not there yet.
    fn start(&mut self, unit: &str, slice: Option<&str>, keeper: u32) -> Result<bool> {
        let mut body = Writer::default();
        body.text(unit);
        body.text("fail");
        let keeper = [keeper];
        let mut properties = vec![
            ("Description", Value::Text("Containers of Longshore")),
            ("PIDs", Value::Numbers(&keeper)),
            ("Delegate", Value::Flag(true)),
            // The limits are the containers' own; the default is meant for one service.
            ("TasksMax", Value::Number(u64::MAX)),
            // A scope that failed must not keep its name from the next daemon.
            ("CollectMode", Value::Text("inactive-or-failed")),
        ];
        properties.extend(slice.map(|slice| ("Slice", Value::Text(slice))));
        body.properties(&properties);
        // No further units: their list is empty in the same way.
        body.properties(&[]);
        let method = Method {
            destination: DESTINATION,
            path: "/org/freedesktop/systemd1",
            interface: "org.freedesktop.systemd1.Manager",
            member: "StartTransientUnit",
        };
        match self.0.call(method, "ssa(sv)a(sa(sv))", &body)? {
            Answer::Values(_) => Ok(true),
            Answer::Refused(name, _) if name == "org.freedesktop.systemd1.UnitExists" => Ok(false),
            Answer::Refused(name, text) => Err(refused(unit, &name, &text)),
        }
    }

    /// Where the scope is in the tree, once it is.
    fn control_group(&mut self, unit: &str) -> Result<Option<String>> {
        let path = object_path(unit);
        let mut body = Writer::default();
        body.text("org.freedesktop.systemd1.Scope");
        body.text("ControlGroup");
        let method = Method {
            destination: DESTINATION,
            path: &path,
            interface: "org.freedesktop.DBus.Properties",
            member: "Get",
        };
        match self.0.call(method, "ss", &body)? {
            Answer::Values(values) => {
                let text = Reader::new(&values).text_variant()?;
                let text = text.trim_matches('/');
                Ok((!text.is_empty()).then(|| text.to_owned()))
            }
            Answer::Refused(name, text) => Err(refused(unit, &name, &text)),
        }
    }
}

fn refused(what: &str, name: &str, text: &str) -> Error {
    failure(what, &format!("{text} ({name})"), Errno::ACCESS)
}

/// The manager's own socket, and that of the bus.
fn sockets(user: bool) -> Result<(PathBuf, PathBuf)> {
    if !user {
        return Ok(("/run/systemd/private".into(), "/run/dbus/system_bus_socket".into()));
    }
    let dir = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    // Who came by `su` has it all the same.
    let usual = outer_user().map(|uid| PathBuf::from(format!("/run/user/{uid}"))).filter(|dir| dir.is_dir());
    let dir = dir.or(usual).ok_or_else(|| {
        Error::Unsupported("a delegated cgroup without XDG_RUNTIME_DIR (log in through systemd)".to_owned())
    })?;
    Ok((dir.join("systemd/private"), dir.join("bus")))
}

/// Who the root of this user namespace is outside.
fn outer_user() -> Option<u32> {
    let map = std::fs::read_to_string("/proc/self/uid_map").ok()?;
    let mut numbers = map.split_ascii_whitespace();
    (numbers.next()? == "0").then(|| numbers.next()?.parse().ok()).flatten()
}

/// Path of a unit's object: everything but letters and digits is escaped.
fn object_path(unit: &str) -> String {
    let mut path = "/org/freedesktop/systemd1/unit/".to_owned();
    for (at, b) in unit.bytes().enumerate() {
        if b.is_ascii_alphabetic() || (at > 0 && b.is_ascii_digit()) {
            path.push(char::from(b));
        } else {
            path.push_str(&format!("_{b:02x}"));
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_parent_becomes_a_scope_and_a_place_stays_one() {
        assert_eq!(unit_name("longshore-1a2b3c4d").as_deref(), Some("longshore-1a2b3c4d.scope"));
        for place in ["", "/a", "a/b", "my.slice", "a b", "é"] {
            assert_eq!(unit_name(place), None, "{place}");
        }
    }

    #[test]
    fn slices_are_known_by_name_and_by_path() {
        assert_eq!(slice_of("my.slice"), Some("my.slice"));
        assert_eq!(slice_of("/a.slice/a-b.slice"), Some("a-b.slice"));
        for other in ["", "/", ".slice", "my", "a.slice/b", "a/b.slice", "a b.slice", "../a.slice"] {
            assert_eq!(slice_of(other), None, "{other}");
        }
    }

    #[test]
    fn unit_names_are_escaped_in_paths() {
        let unit = |name| object_path(name).rsplit_once('/').unwrap().1.to_owned();
        assert_eq!(unit("longshore-1a.scope"), "longshore_2d1a_2escope");
        assert_eq!(unit("1.scope"), "_31_2escope");
    }

    /// In a slice without a scope of ours, systemd would take the controllers back with the next change of a unit
    /// there, and the limits with them.
    #[test]
    fn privileged_limits_in_a_slice_stay() {
        if !systemd_runs() {
            eprintln!("skipped: systemd does not run here");
            return;
        }
        let name = format!("longshoretest{:016x}", getrandom::u64().unwrap());
        let slice = format!("{name}-inner.slice");
        let mut keeper = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let path = obtain(&format!("{name}.scope"), Some(&slice), keeper.id()).unwrap();
        assert_eq!(path, format!("{name}.slice/{slice}/{name}.scope"));
        assert!(stands(&path));
        let limits = serde_json::json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 99}});
        let limits = super::super::tests_support::resources(limits);
        let group = super::super::Cgroup::create(&path, "c1", &limits).unwrap();
        for command in [&["set-property", "--runtime", &slice, "MemoryMax=900M"][..], &["daemon-reload"]] {
            assert!(std::process::Command::new("systemctl").args(command).status().unwrap().success());
        }
        assert_eq!(group.stats().unwrap().pids_limit, Some(99));
        group.remove().unwrap();
        keeper.kill().unwrap();
        keeper.wait().unwrap();
        let outer = format!("{name}.slice");
        for command in [&["stop", &outer][..], &["revert", &slice]] {
            let done = std::process::Command::new("systemctl").args(command).output().unwrap();
            assert!(done.status.success(), "{done:?}");
        }
    }

    #[test]
    fn privileged_systemd_hands_a_scope_over() {
        if !systemd_runs() {
            eprintln!("skipped: systemd does not run here");
            return;
        }
        let unit = unit_name(&format!("longshore-test-{:016x}", getrandom::u64().unwrap())).unwrap();
        let spawn = || std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let (mut first, mut second) = (spawn(), spawn());
        let path = obtain(&unit, None, first.id()).unwrap();
        assert!(path.ends_with(&unit), "{path}");
        // A daemon that comes later takes over what is there, ...
        assert_eq!(obtain(&unit, None, second.id()).unwrap(), path);
        first.kill().unwrap();
        first.wait().unwrap();
        // ... where containers find every controller, and nothing of systemd's is touched.
        let above = |name: &str| std::fs::read_to_string(Path::new("/sys/fs/cgroup").join(name));
        let before = above("system.slice/cgroup.subtree_control").unwrap_or_default();
        let limits =
            serde_json::json!({"memory": {"limit": 64 << 20}, "cpu": {"shares": 512}, "pids": {"limit": 99}});
        let limits = super::super::tests_support::resources(limits);
        let group = super::super::Cgroup::create(&path, "c1", &limits).unwrap();
        assert_eq!(group.stats().unwrap().pids_limit, Some(99));
        assert_eq!(above("system.slice/cgroup.subtree_control").unwrap_or_default(), before);
        group.remove().unwrap();
        second.kill().unwrap();
        second.wait().unwrap();
        // Empty, it goes away by itself.
        let dirs: Vec<_> = group.dirs().filter_map(|d| Some(d.parent()?.to_owned())).collect();
        for _ in 0..200 {
            if !dirs.iter().any(|d| d.exists()) {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        assert!(!dirs.iter().any(|d| d.exists()), "{dirs:?}");
    }
}
