//! What is asked of a command in a working container: its mounts, and what can be refused before it runs.

use longshore_build::dockerfile::{self, MountKind, MountSpec};
use longshore_build::graph::{Mount, MountOf, Source};
use longshore_build::pattern::clean_in_root;

use crate::model::WorkingRun;
use crate::{Error, Result};

/// What can be known before it runs.
///
/// # Errors
/// For what is asked wrongly.
pub(super) fn check(request: &WorkingRun) -> Result<()> {
    if request.cmd.first().is_none_or(String::is_empty) {
        return Err(Error::invalid("no command was given: longshore working run NAME -- COMMAND"));
    }
    if request.env.iter().any(|e| e.is_empty() || e.starts_with('=') || e.contains('\0')) {
        return Err(Error::invalid("invalid environment variable: want NAME=value"));
    }
    if !request.working_dir.is_empty() && !request.working_dir.starts_with('/') {
        let dir = &request.working_dir;
        return Err(Error::invalid(format!("the working directory {dir:?} has to be an absolute path")));
    }
    request.binds.iter().try_for_each(|text| bind(text, 0).map(drop))?;
    for mount in request.mounts.iter().map(|text| mount(text)) {
        let mount = mount?;
        let on_machine = mount.kind == MountKind::Bind && mount.from.is_none();
        if on_machine && !mount.source.starts_with('/') {
            return Err(Error::invalid(format!(
                "a mount of this machine's files needs an absolute source, not {:?}",
                mount.source
            )));
        }
    }
    Ok(())
}

/// `RUN --mount`, whose values are as they are.
///
/// # Errors
/// For a text that is no mount.
pub(super) fn mount(text: &str) -> Result<dockerfile::Mount> {
    let wrong = |e: dockerfile::MountError| Error::invalid(format!("--mount {text}: {e}"));
    MountSpec::parse(text).map_err(wrong)?.resolve(|value| Ok(value.to_owned())).map_err(wrong)
}

/// `source:target[:ro|:rw]`, the source being the machine's files, the origin of that number.
///
/// # Errors
/// For a text that is none.
pub(super) fn bind(text: &str, origin: usize) -> Result<Mount> {
    let wrong = |why: &str| Error::invalid(format!("invalid volume {text:?}: {why}"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [source, target] => (*source, *target, ""),
        [source, target, options] => (*source, *target, *options),
        _ => return Err(wrong("want source:target[:ro]")),
    };
    if !source.starts_with('/') || !target.starts_with('/') || absolute("/", target) == "/" {
        return Err(wrong("both have to be absolute paths, and the target cannot be /"));
    }
    let mut read_only = false;
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option {
            "ro" => read_only = true,
            "rw" => read_only = false,
            other => return Err(wrong(&format!("option {other:?} is none of ro and rw"))),
        }
    }
    let what = MountOf::Files { from: Source::Context(origin), path: source.as_bytes().to_vec() };
    Ok(Mount { target: absolute("/", target), what, read_only })
}

/// A path as seen from the directory `from`; it does not lead above the root.
pub(super) fn absolute(from: &str, path: &str) -> String {
    let joined = if path.starts_with('/') { path.to_owned() } else { format!("{from}/{path}") };
    format!("/{}", String::from_utf8_lossy(&clean_in_root(joined.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(f: impl FnOnce(&mut WorkingRun)) -> WorkingRun {
        let mut request = WorkingRun { cmd: vec!["true".into()], ..WorkingRun::default() };
        f(&mut request);
        request
    }

    #[test]
    fn what_cannot_run_is_refused_at_once() {
        check(&request(|r| {
            r.binds = vec!["/a:/b".into(), "/a:/b/../c:ro".into()];
            r.mounts = vec!["type=bind,src=/x,dst=/y".into(), "type=cache,target=/c,sharing=locked".into()];
        }))
        .expect("right");
        assert_eq!(absolute("/w", "../x/./y/"), "/x/y");
        assert_eq!(absolute("/w", "/../.."), "/");
        for wrong in [
            request(|r| r.cmd.clear()),
            request(|r| r.env = vec!["=x".into()]),
            request(|r| r.working_dir = "x".into()),
            request(|r| r.binds = vec!["/a".into()]),
            request(|r| r.binds = vec!["a:/b".into()]),
            request(|r| r.binds = vec!["/a:/..".into()]),
            request(|r| r.binds = vec!["/a:/b:z".into()]),
            request(|r| r.mounts = vec!["type=bind,src=x,dst=/y".into()]),
            request(|r| r.mounts = vec!["type=nosuch,dst=/y".into()]),
        ] {
            assert!(check(&wrong).is_err(), "{wrong:?}");
        }
    }
}
