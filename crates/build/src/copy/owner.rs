//! Whose a file shall be.

use std::io::Read as _;

use longshore_sys::root::Root;
use rustix::fs::{Mode, OFlags};

use crate::error::IoContext as _;
use crate::{Error, Result};

/// Bytes of a tree's list of users or groups.
const MAX_USERS: u64 = 4 << 20;

/// The ids of `user[:group]` as the tree `root` knows them. Without a group, a name has the one that its entry names, and
/// a number that number. Names that the tree does not know are root's. All as in BuildKit.
///
/// # Errors
/// When the lists of the tree cannot be read.
pub(crate) fn owner(root: &Root, text: &str) -> Result<(u32, u32)> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let (uid, own) = match number(user) {
        Some(uid) => (uid, uid),
        None => ids(root, user, "etc/passwd")?.unwrap_or((0, 0)),
    };
    let gid = match group {
        None => own,
        Some(group) => match number(group) {
            Some(gid) => gid,
            None => ids(root, group, "etc/group")?.map_or(own, |(gid, _)| gid),
        },
    };
    Ok((uid, gid))
}

fn number(name: &str) -> Option<u32> {
    if matches!(name, "" | "root") { Some(0) } else { name.parse().ok() }
}

/// Whether no tree needs to be asked.
pub(crate) fn owner_is_numeric(text: &str) -> bool {
    owner_in_nothing(text).is_ok()
}

/// As [`owner`], in a stage without files: there only numbers mean something.
///
/// # Errors
/// For a name.
pub(crate) fn owner_in_nothing(text: &str) -> Result<(u32, u32)> {
    let unknown = |name: &str| {
        Error::Invalid(format!("cannot look up {name:?} in a stage that has no files yet: use numbers"))
    };
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let uid = number(user).ok_or_else(|| unknown(user))?;
    let gid = group.map_or(Ok(uid), |group| number(group).ok_or_else(|| unknown(group)))?;
    Ok((uid, gid))
}

/// The numbers in the third and fourth columns of the line that begins with `name`: of a user its own and its group's
/// (passwd(5)), of a group its own (group(5)). `None` for a name that is not there.
fn ids(root: &Root, name: &str, file: &str) -> Result<Option<(u32, u32)>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let Ok(list) = root.open_file(file, flags, Mode::empty()) else { return Ok(None) };
    let mut text = Vec::new();
    std::fs::File::from(list).take(MAX_USERS).read_to_end(&mut text).context(|| format!("read /{file}"))?;
    let column =
        |line: &[u8], n| std::str::from_utf8(line.split(|&b| b == b':').nth(n)?).ok()?.trim().parse().ok();
    let mut lines = text.split(|&b| b == b'\n');
    let found = lines.find(|line| line.split(|&b| b == b':').next() == Some(name.as_bytes()));
    Ok(found.and_then(|line| Some((column(line, 2)?, column(line, 3).unwrap_or(0)))))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn names_and_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let check = |text: &str, want: (u32, u32)| assert_eq!(owner(&root, text).unwrap(), want, "{text}");
        check("1000", (1000, 1000));
        check("dev", (0, 0));
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/passwd"), "broken\nroot:x:7:7::/:/\ndev:x:1000:2000::/:/bin/sh\n")
            .unwrap();
        fs::write(dir.path().join("etc/group"), "staff:x:50:dev\n").unwrap();
        check("dev", (1000, 2000));
        check("dev:staff", (1000, 50));
        check("dev:5", (1000, 5));
        check("dev:nosuch", (1000, 2000));
        check("dev:", (1000, 0));
        check(":5", (0, 5));
        check("", (0, 0));
        check("1000:staff", (1000, 50));
        check("1000", (1000, 1000));
        check("0:5", (0, 5));
        check("root", (0, 0));
        check("nosuch", (0, 0));
        check("nosuch:staff", (0, 50));
        check("broken", (0, 0));
    }

    #[test]
    fn nothing_knows_no_names() {
        assert_eq!(owner_in_nothing("1000:5").unwrap(), (1000, 5));
        assert_eq!(owner_in_nothing("root").unwrap(), (0, 0));
        assert!(owner_is_numeric("5") && owner_is_numeric("0:root") && !owner_is_numeric("dev"));
        let failed = owner_in_nothing("5:dev").unwrap_err().to_string();
        assert_eq!(failed, "cannot look up \"dev\" in a stage that has no files yet: use numbers");
    }
}
