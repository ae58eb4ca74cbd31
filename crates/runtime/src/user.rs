//! Who a process in a container is: `user[:group]` against the image's own passwd and group files.
//!
//! Both files are hostile: they are read through a rooted descriptor, limited in size, and a line
//! that is malformed or names an id outside the range is as if it were not there.

use std::io::Read;
use std::path::Path;

use longshore_sys::root::Root;
use rustix::fs::{FileType, Mode, OFlags};

use crate::error::{Error, Result};

/// Highest id that may be asked for, as with Docker. Beyond lie numbers that other systems wrap.
const MAX_ID: i64 = i32::MAX as i64;

/// The most that is read of a passwd or group file.
const MAX_FILE: u64 = 1 << 20;

/// A resolved user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// User id inside the container.
    pub uid: u32,
    /// Group id inside the container.
    pub gid: u32,
    /// Supplementary groups, the group itself first.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: String,
    /// Name, if the image has one for the id.
    pub name: Option<String>,
}

/// Resolves `user[:group]` (empty: root) and extra groups in the container whose root file system
/// is `root`.
///
/// # Errors
/// When a name is not there, an id is out of range, or a file cannot be read.
pub fn resolve(root: &Root, user: &str, extra_groups: &[String]) -> Result<User> {
    let passwd = read(root, "etc/passwd")?;
    let group = read(root, "etc/group")?;
    lookup(user, extra_groups, &passwd, &group)
}

/// Resolves against the contents of the two files.
///
/// # Errors
/// When a name is not there or an id is out of range.
pub fn lookup(user: &str, extra_groups: &[String], passwd: &str, group: &str) -> Result<User> {
    let (user_arg, group_arg) = user.split_once(':').unwrap_or((user, ""));
    let mut found = find_user(user_arg, passwd)?;
    if group_arg.is_empty() {
        found.groups.push(found.gid);
        if let Some(name) = &found.name {
            let of_user = groups(group).filter(|g| g.members.split(',').any(|m| m.trim() == name));
            found.groups.extend(of_user.map(|g| g.gid));
        }
    } else {
        found.gid = find_group(group_arg, group)?;
        found.groups.push(found.gid);
    }
    for extra in extra_groups {
        // Here a name that looks like a number is tried first.
        let named = groups(group).find(|g| g.name == extra).map(|g| g.gid);
        found.groups.push(named.map_or_else(|| find_group(extra, group), Ok)?);
    }
    let mut seen = std::collections::HashSet::new();
    found.groups.retain(|gid| seen.insert(*gid));
    Ok(found)
}

fn find_user(arg: &str, passwd: &str) -> Result<User> {
    // A number is always an id, even if a user has it as the name.
    let id = if arg.is_empty() { Some(0) } else { number(arg)? };
    let entry = users(passwd).find(|u| match id {
        Some(id) => u.uid == id,
        None => u.name == arg,
    });
    match (entry, id) {
        (Some(entry), _) => Ok(User {
            uid: entry.uid,
            gid: entry.gid,
            groups: Vec::new(),
            home: if entry.home.is_empty() { "/".to_owned() } else { entry.home.to_owned() },
            name: Some(entry.name.to_owned()),
        }),
        (None, Some(uid)) => Ok(User { uid, gid: 0, groups: Vec::new(), home: "/".to_owned(), name: None }),
        (None, None) => {
            Err(Error::Invalid(format!("unable to find user {arg}: no matching entries in passwd file")))
        }
    }
}

fn find_group(arg: &str, group: &str) -> Result<u32> {
    if let Some(gid) = number(arg)? {
        return Ok(gid);
    }
    groups(group).find(|g| g.name == arg).map(|g| g.gid).ok_or_else(|| {
        Error::Invalid(format!("unable to find group {arg}: no matching entries in group file"))
    })
}

/// A decimal id; `None` for what is no number and so may be a name.
fn number(arg: &str) -> Result<Option<u32>> {
    let digits = arg.strip_prefix(['+', '-']).unwrap_or(arg);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    // A number too long for any integer is out of range as well, never a name.
    let id = arg.parse::<i64>().ok().filter(|id| (0..=MAX_ID).contains(id));
    let id = id.and_then(|id| u32::try_from(id).ok());
    id.map(Some).ok_or_else(|| Error::Invalid("uids and gids must be in range 0-2147483647".to_owned()))
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn users(passwd: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    lines(passwd).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let (uid, gid) = (id(fields.nth(1)?)?, id(fields.next()?)?);
        Some(PasswdEntry { name, uid, gid, home: fields.nth(1).unwrap_or("") })
    })
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn groups(group: &str) -> impl Iterator<Item = GroupEntry<'_>> {
    lines(group).filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = id(fields.nth(1)?)?;
        Some(GroupEntry { name, gid, members: fields.next().unwrap_or("") })
    })
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// An id in a file; nothing but digits, and nothing that could wrap.
fn id(field: &str) -> Option<u32> {
    if field.is_empty() || !field.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    field.parse().ok().filter(|id| i64::from(*id) <= MAX_ID)
}

/// Text of a file inside the container; empty if it is not there.
fn read(root: &Root, name: &str) -> Result<String> {
    // A pipe must not make us wait.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = match root.open_file(Path::new(name), flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(e) if matches!(e.errno(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(String::new()),
        Err(e) => return Err(e.into()),
    };
    let stat = rustix::fs::fstat(&fd).map_err(|e| longshore_sys::Error::new(format!("stat {name}"), e))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::Invalid(format!("/{name} in the container is no regular file")));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::from(fd);
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| longshore_sys::Error::new(format!("read {name} in the container"), e))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Error::Invalid(format!("/{name} in the container is larger than {MAX_FILE} bytes")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# comment\nbin:x:1:1:bin:/bin:/sbin/nologin\n\
                          www:x:33:34:www:/var/www:/bin/sh\n1000:x:7:8::/seven:\nnohome:x:9:9:::\n";
    const GROUP: &str = "root:x:0:root\nbin:x:1:root,bin\nwheel:x:10:root, www\nwww:x:34:\nvideo:x:44:\n";

    fn look(user: &str, extra: &[&str]) -> Result<User> {
        let extra: Vec<String> = extra.iter().map(|s| (*s).to_owned()).collect();
        lookup(user, &extra, PASSWD, GROUP)
    }

    #[test]
    fn names_ids_and_groups_are_found() {
        let root = look("", &[]).unwrap();
        assert_eq!((root.uid, root.gid, root.home.as_str()), (0, 0, "/root"));
        assert_eq!(root.groups, [0, 1, 10]);
        let www = look("www", &["video", "999", "44"]).unwrap();
        assert_eq!((www.uid, www.gid), (33, 34));
        assert_eq!(www.groups, [34, 10, 44, 999]);
        assert_eq!(look("33", &[]).unwrap(), look("www", &[]).unwrap());
        let explicit = look("www:bin", &[]).unwrap();
        assert_eq!((explicit.gid, explicit.groups), (1, vec![1]));
        let unknown = look("4711:4712", &[]).unwrap();
        assert_eq!((unknown.uid, unknown.gid, unknown.home.as_str()), (4711, 4712, "/"));
        assert_eq!(unknown.name, None);
        assert_eq!(look("4711", &[]).unwrap().groups, [0]);
        assert_eq!(look("nohome", &[]).unwrap().home, "/");
    }

    #[test]
    fn a_number_is_an_id_and_never_a_name() {
        let user = look("1000", &[]).unwrap();
        assert_eq!((user.uid, user.name), (1000, None));
    }

    #[test]
    fn what_is_not_there_is_named_in_dockers_words() {
        let message = |user: &str, extra: &[&str]| look(user, extra).unwrap_err().to_string();
        assert_eq!(
            message("nosuchuser", &[]),
            "unable to find user nosuchuser: no matching entries in passwd file"
        );
        assert_eq!(message("www:x", &[]), "unable to find group x: no matching entries in group file");
        assert_eq!(message("", &["y"]), "unable to find group y: no matching entries in group file");
    }

    #[test]
    fn atk_12_ids_never_wrap() {
        let range = "uids and gids must be in range 0-2147483647";
        for id in
            ["2147483648", "4294967295", "4294967296", "4294967297", "18446744073709551616", "-1", "-0x"]
                .into_iter()
                .chain(["99999999999999999999999999999999999999"])
        {
            let plain = look(id, &[]);
            let grouped = look(&format!("0:{id}"), &[]);
            let extra = look("0", &[id]);
            if id == "-0x" {
                assert!(plain.unwrap_err().to_string().starts_with("unable to find user"));
                continue;
            }
            for result in [plain, grouped, extra] {
                assert_eq!(result.unwrap_err().to_string(), range, "{id}");
            }
        }
        assert_eq!(look("2147483647:2147483647", &[]).unwrap().uid, 2_147_483_647);
    }

    #[test]
    fn atk_12_a_file_of_the_image_cannot_make_an_id_wrap_to_root() {
        for uid in ["4294967296", "-1", "x", "", "2147483648", "0x0", "+0", " 0"] {
            let passwd = format!("evil:x:{uid}:0::/:\n");
            let error = lookup("evil", &[], &passwd, "").unwrap_err();
            assert!(error.to_string().starts_with("unable to find user evil"), "{uid}");
            let group = format!("evil:x:{uid}:\n");
            assert!(lookup("0:evil", &[], "", &group).is_err(), "{uid}");
        }
    }

    #[test]
    fn every_short_specification_gives_a_valid_id_or_an_error() {
        let alphabet = ["0", "1", "9", "-", "+", ":", "x", " ", "4294967296", "é"];
        for a in alphabet {
            for b in alphabet {
                for c in alphabet {
                    if let Ok(user) = look(&format!("{a}{b}{c}"), &[]) {
                        assert!(i64::from(user.uid) <= MAX_ID && i64::from(user.gid) <= MAX_ID);
                    }
                }
            }
        }
    }

    #[test]
    fn atk_12_files_are_resolved_inside_the_root() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert_eq!(resolve(&root, "5", &[]).unwrap().uid, 5, "no files at all");
        // Links lead to what they name inside, never to the host's file.
        std::os::unix::fs::symlink("/etc/../../../../real", dir.path().join("etc/passwd")).unwrap();
        assert!(resolve(&root, "root", &[]).is_err(), "dangling inside");
        std::fs::write(dir.path().join("real"), "root:x:0:0::/inside:\n").unwrap();
        assert_eq!(resolve(&root, "root", &[]).unwrap().home, "/inside");
        std::os::unix::fs::symlink("/proc/self/mem", dir.path().join("etc/group")).unwrap();
        assert_eq!(resolve(&root, "root", &[]).unwrap().groups, [0]);
    }

    #[test]
    fn files_that_are_too_large_or_no_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let passwd = dir.path().join("etc/passwd");
        rustix::fs::mknodat(rustix::fs::CWD, &passwd, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(resolve(&root, "0", &[]).unwrap_err().to_string().contains("no regular file"));
        std::fs::remove_file(&passwd).unwrap();
        std::fs::File::create(&passwd).unwrap().set_len(MAX_FILE + 1).unwrap();
        assert!(resolve(&root, "0", &[]).unwrap_err().to_string().contains("larger than"));
    }
}
