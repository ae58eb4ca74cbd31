//! The facts about this machine and user that the plan is made of.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::plan::{Facts, Tool};

/// Looks.
pub(super) fn gather() -> Facts {
    let uid = rustix::process::geteuid().as_raw();
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    Facts {
        uid,
        gid: rustix::process::getegid().as_raw(),
        name: user_name(uid, &read("/etc/passwd")),
        subuid: read("/etc/subuid"),
        subgid: read("/etc/subgid"),
        newuidmap: tool("newuidmap"),
        newgidmap: tool("newgidmap"),
        max_user_namespaces: number("/proc/sys/user/max_user_namespaces"),
        unprivileged_userns_clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
        apparmor_restricts: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1)
            && read("/proc/self/attr/current").trim() == "unconfined",
        no_new_privs: read("/proc/self/status")
            .lines()
            .any(|l| l.strip_prefix("NoNewPrivs:").is_some_and(|v| v.trim() == "1")),
        exe: std::env::current_exe().map_or_else(|_| "longshore".into(), |exe| exe.display().to_string()),
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn user_name(uid: u32, passwd: &str) -> Option<String> {
    let named = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    named.filter(|name| !name.is_empty())
}

/// Where a program is: `PATH`, and where programs of the system are that it may lack.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs =
        std::env::split_paths(&path).chain(["/usr/bin", "/usr/sbin", "/bin", "/sbin"].map(PathBuf::from));
    let runs =
        |file: &PathBuf| fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    dirs.filter(|dir| dir.is_absolute()).map(|dir| dir.join(name)).find(runs)
}

fn tool(name: &str) -> Tool {
    match find(name) {
        None => Tool::Missing,
        Some(file) if has_rights(&file) => Tool::Ready,
        Some(_) => Tool::Powerless,
    }
}

/// Whether who executes it gets further rights: those of root, its owner, or capabilities.
fn has_rights(file: &Path) -> bool {
    let setuid = fs::metadata(file).is_ok_and(|m| m.mode() & 0o4000 != 0 && m.uid() == 0);
    let mut none: [u8; 0] = [];
    setuid || rustix::fs::getxattr(file, "security.capability", &mut none[..]).is_ok_and(|size| size > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_passwd() {
        let passwd = "root:x:0:0::/root:/bin/sh\n:x:5:5::/:\nann:x:1000:100::/home/ann:/bin/sh\n";
        assert_eq!(user_name(1000, passwd).as_deref(), Some("ann"));
        assert_eq!((user_name(5, passwd), user_name(1, passwd)), (None, None));
    }
}
