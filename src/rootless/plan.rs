//! What a daemon without root needs of its machine: decided here from plain facts, all at once.

use std::fmt;

/// Ids that images use: up to 65534 (nobody), so many are mapped by default.
const USUAL: u32 = 65_536;
/// Where subordinate ids begin that `useradd` gives out.
const FIRST: u32 = 100_000;

/// A program that needs rights of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    Missing,
    /// It is there, but has neither the setuid bit nor file capabilities.
    Powerless,
    Ready,
}

/// What is so on this machine, for this user.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// The user's name; `None` if `/etc/passwd` does not say.
    pub(super) name: Option<String>,
    /// The text of `/etc/subuid` and of `/etc/subgid`.
    pub(super) subuid: String,
    pub(super) subgid: String,
    pub(super) newuidmap: Tool,
    pub(super) newgidmap: Tool,
    /// `user.max_user_namespaces`.
    pub(super) max_user_namespaces: Option<u64>,
    /// `kernel.unprivileged_userns_clone`, which Debian's kernels have.
    pub(super) unprivileged_userns_clone: Option<u64>,
    /// AppArmor takes the rights in user namespaces from programs without a profile, and we have none.
    pub(super) apparmor_restricts: bool,
    /// Programs cannot get more rights than this process has.
    pub(super) no_new_privs: bool,
    /// Where this program is.
    pub(super) exe: String,
}

/// Something that is missing, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    what: String,
    remedy: String,
}

impl Missing {
    fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.remedy)
    }
}

/// Ids of a namespace that are ids outside: `count` of them, from `inside` and from `outside` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) inside: u32,
    pub(super) outside: u32,
    pub(super) count: u32,
}

/// Who is who in the daemon's user namespace: the user is root there, the subordinate ids follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Maps {
    pub(super) uids: Vec<Line>,
    pub(super) gids: Vec<Line>,
}

impl Maps {
    /// What images may find missing.
    pub(super) fn shortage(&self) -> Option<String> {
        let ids = |lines: &[Line]| lines.iter().map(|l| u64::from(l.count)).sum::<u64>();
        let least = ids(&self.uids).min(ids(&self.gids));
        (least < u64::from(USUAL)).then(|| {
            format!(
                "only {least} user or group ids are mapped: images with files of others cannot be unpacked; \
                 give this user {USUAL} subordinate ids in /etc/subuid and /etc/subgid"
            )
        })
    }
}

/// The maps, or everything that is missing.
pub(super) fn maps(facts: &Facts) -> Result<Maps, Vec<Missing>> {
    let mut missing = Vec::new();
    if facts.no_new_privs {
        missing.push(Missing::new(
            "this process may not get further rights (no_new_privs)",
            "start the daemon outside of the container or sandbox, or set NoNewPrivileges=no in its service",
        ));
    }
    let whose = facts.name.clone().unwrap_or_else(|| facts.uid.to_string());
    let subordinate = |text: &str| ranges(text, facts.name.as_deref(), facts.uid);
    let (uids, gids) = (subordinate(&facts.subuid), subordinate(&facts.subgid));
    for (file, text, found, option) in [
        ("/etc/subuid", &facts.subuid, &uids, "--add-subuids"),
        ("/etc/subgid", &facts.subgid, &gids, "--add-subgids"),
    ] {
        if found.is_empty() {
            let from = free(text);
            missing.push(Missing::new(
                format!("{file} gives {whose} no subordinate ids"),
                format!("as root, usermod {option} {from}-{} {whose}", from.saturating_add(USUAL - 1)),
            ));
        }
    }
    for (name, tool) in [("newuidmap", facts.newuidmap), ("newgidmap", facts.newgidmap)] {
        match tool {
            Tool::Ready => {}
            Tool::Missing => missing.push(Missing::new(
                format!("the program {name} is not there"),
                "install the package uidmap (Debian, Ubuntu), shadow-utils (Fedora) or shadow (Arch, openSUSE)",
            )),
            Tool::Powerless => missing.push(Missing::new(
                format!("the program {name} has no rights"),
                format!("as root, chmod u+s \"$(command -v {name})\", or install its package again"),
            )),
        }
    }
    missing.extend(kernel(facts));
    if missing.is_empty() {
        Ok(Maps { uids: lines(facts.uid, &uids), gids: lines(facts.gid, &gids) })
    } else {
        Err(missing)
    }
}

/// What the kernel's settings forbid.
fn kernel(facts: &Facts) -> Vec<Missing> {
    let mut missing = Vec::new();
    let sysctl = |set: &str| format!("as root, sysctl -w {set}, and write it into /etc/sysctl.d to keep it");
    if facts.max_user_namespaces == Some(0) {
        missing.push(Missing::new(
            "the kernel allows no user namespaces (user.max_user_namespaces is 0)",
            sysctl("user.max_user_namespaces=28633"),
        ));
    }
    if facts.unprivileged_userns_clone == Some(0) {
        missing.push(Missing::new(
            "the kernel allows user namespaces to root alone (kernel.unprivileged_userns_clone is 0)",
            sysctl("kernel.unprivileged_userns_clone=1"),
        ));
    }
    if facts.apparmor_restricts {
        let profile = format!(
            "abi <abi/4.0>, include <tunables/global> profile longshore {} flags=(unconfined) {{ userns, }}",
            facts.exe
        );
        missing.push(Missing::new(
            "AppArmor takes the rights in user namespaces from programs without a profile \
             (kernel.apparmor_restrict_unprivileged_userns is 1)",
            format!(
                "as root, write the profile `{profile}` to /etc/apparmor.d/longshore and load it with \
                 apparmor_parser -r /etc/apparmor.d/longshore"
            ),
        ));
    }
    missing
}

/// The ranges of a user in `/etc/subuid` or `/etc/subgid`, by name or by number: `name:first:count` a line.
fn ranges(text: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    let all = entries(text).filter(|(who, ..)| *who == number || Some(*who) == name);
    all.filter(|(_, first, count)| *count > 0 && first.checked_add(*count - 1).is_some())
        .map(|(_, first, count)| (first, count))
        .collect()
}

fn entries(text: &str) -> impl Iterator<Item = (&str, u32, u32)> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let who = fields.next().filter(|who| !who.is_empty() && !who.starts_with('#'))?;
        Some((who, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

/// Where a range of the usual length is free.
fn free(text: &str) -> u32 {
    entries(text).map(|(_, first, count)| first.saturating_add(count)).fold(FIRST, u32::max)
}

/// Root of the namespace is the user; the subordinate ids come one after the other from 1 on.
fn lines(own: u32, ranges: &[(u32, u32)]) -> Vec<Line> {
    let mut lines = vec![Line { inside: 0, outside: own, count: 1 }];
    let mut inside: u32 = 1;
    for (first, count) in ranges {
        let count = (*count).min(u32::MAX - inside);
        if count > 0 {
            lines.push(Line { inside, outside: *first, count });
            inside += count;
        }
    }
    lines
}

/// The arguments of newuidmap and newgidmap.
pub(super) fn arguments(pid: u32, lines: &[Line]) -> Vec<String> {
    let numbers = lines.iter().flat_map(|l| [l.inside, l.outside, l.count]);
    std::iter::once(pid).chain(numbers).map(|n| n.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            uid: 1000,
            gid: 100,
            name: Some("ann".into()),
            subuid: "bob:100000:65536\nann:165536:65536\n".into(),
            subgid: "# groups\n1000:200000:1000\nann:300000:65536\n".into(),
            newuidmap: Tool::Ready,
            newgidmap: Tool::Ready,
            max_user_namespaces: Some(1000),
            unprivileged_userns_clone: None,
            apparmor_restricts: false,
            no_new_privs: false,
            exe: "/usr/local/bin/longshore".into(),
        }
    }

    #[test]
    fn ids_are_mapped_by_name_and_by_number() {
        let maps = maps(&facts()).expect("nothing is missing");
        assert_eq!(arguments(7, &maps.uids), ["7", "0", "1000", "1", "1", "165536", "65536"]);
        let gids = ["8", "0", "100", "1", "1", "200000", "1000", "1001", "300000", "65536"];
        assert_eq!(arguments(8, &maps.gids), gids);
        assert_eq!(maps.shortage(), None);
    }

    #[test]
    fn everything_that_is_missing_is_said_at_once() {
        let bare = Facts {
            subuid: "bob:100000:65536\n".into(),
            subgid: "ann:x:y\nann:1:0\nann:4294967295:2".into(),
            newuidmap: Tool::Missing,
            newgidmap: Tool::Powerless,
            max_user_namespaces: Some(0),
            unprivileged_userns_clone: Some(0),
            apparmor_restricts: true,
            no_new_privs: true,
            ..facts()
        };
        let missing = maps(&bare).expect_err("much is missing");
        assert_eq!(missing.len(), 8);
        let text: Vec<String> = missing.iter().map(Missing::to_string).collect();
        assert_eq!(
            text[1],
            "/etc/subuid gives ann no subordinate ids: as root, usermod --add-subuids 165536-231071 ann"
        );
        assert!(text[3].contains("package uidmap") && text[4].contains("chmod u+s"), "{text:?}");
        assert!(text[7].contains("profile longshore /usr/local/bin/longshore"), "{}", text[7]);
    }

    #[test]
    fn a_user_without_a_name_is_named_by_number() {
        let nameless = Facts { name: None, subuid: String::new(), ..facts() };
        let missing = maps(&nameless).expect_err("no ids");
        assert!(missing[0].to_string().ends_with("usermod --add-subuids 100000-165535 1000"), "{missing:?}");
        let few = Facts { subgid: "ann:5:10".into(), ..facts() };
        let said = maps(&few).expect("some").shortage().expect("few");
        assert!(said.starts_with("only 11 user or group ids"), "{said}");
    }
}
