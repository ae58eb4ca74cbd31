//! From `-v`, `--mount`, `--tmpfs`, `--volumes-from` and the image's volumes to mount points. Pure,
//! but for made-up names.

use std::path::PathBuf;

use longshore_oci::Kind;

use super::validate::check_target;
use crate::model::{HostConfig, MountPoint, MountSpec};
use crate::{Error, Result, names, volume};

const PROPAGATION: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];
/// A container has at most this many mounts.
const MAX_MOUNTS: usize = 4096;

/// All mount points that a request and its image lead to, those of other containers first. Volumes
/// have no source yet.
///
/// # Errors
/// In Docker's words.
pub(crate) fn plan<'a>(
    host: &HostConfig,
    volumes: impl Iterator<Item = &'a String>,
    from: Vec<MountPoint>,
) -> Result<Vec<MountPoint>> {
    let mut out = from;
    let inherited = out.len();
    for bind in host.binds.iter().flatten() {
        add(&mut out, parse_bind(bind)?, inherited)?;
    }
    for spec in host.mounts.iter().flatten() {
        add(&mut out, of_spec(spec)?, inherited)?;
    }
    for (target, options) in host.tmpfs.iter().flatten() {
        add(&mut out, tmpfs(target, options.clone()), inherited)?;
    }
    for target in volumes {
        let target = clean(target);
        if !out.iter().any(|m| m.destination == target) {
            out.push(anonymous(target)?);
        }
    }
    if out.len() > MAX_MOUNTS {
        return Err(Error::invalid(format!("more than {MAX_MOUNTS} mounts")));
    }
    Ok(out)
}

/// A mount asked for replaces one that comes from another container; two asked for conflict.
fn add(out: &mut Vec<MountPoint>, m: MountPoint, inherited: usize) -> Result<()> {
    match out.iter().position(|o| o.destination == m.destination) {
        Some(i) if i < inherited => out[i] = m,
        Some(_) => return Err(Error::invalid(format!("Duplicate mount point: {}", m.destination))),
        None => out.push(m),
    }
    Ok(())
}

/// `name[:ro|rw]` of `--volumes-from`.
///
/// # Errors
/// When the mode is unknown.
pub(crate) fn parse_volumes_from(text: &str) -> Result<(&str, Option<bool>)> {
    match text.split_once(':') {
        None => Ok((text, None)),
        Some((name, mode)) => {
            let mut rw = None;
            for word in mode.split(',') {
                match word {
                    "ro" => rw = Some(false),
                    "rw" => rw = Some(true),
                    "z" | "Z" | "nocopy" => {}
                    _ => return Err(Error::invalid(format!("invalid mode: {mode}"))),
                }
            }
            Ok((name, rw))
        }
    }
}

/// `source:target[:options]`, or just a target for an anonymous volume.
fn parse_bind(text: &str) -> Result<MountPoint> {
    // Docker answers a wrong specification with a server error.
    let wrong =
        |e: Error| e.context(format!("invalid volume specification: '{text}'")).with_kind(Kind::Internal);
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match parts.as_slice() {
        [""] => return Err(Error::internal("invalid volume specification: ''")),
        [target] => return check_target(target).map_err(wrong).and_then(|()| anonymous(clean(target))),
        [source, target] => (*source, *target, ""),
        [source, target, mode] => (*source, *target, *mode),
        _ => return Err(Error::internal(format!("invalid volume specification: '{text}'"))),
    };
    if source.is_empty() || target.is_empty() {
        return Err(Error::internal(format!("invalid volume specification: '{text}'")));
    }
    let bind = source.starts_with('/');
    let kind = if bind { "bind" } else { "volume" };
    check_target(target).map_err(|e| wrong(e.context(format!("invalid mount config for type {kind:?}"))))?;
    let mut m = MountPoint {
        kind: kind.into(),
        destination: clean(target),
        mode: mode.to_owned(),
        rw: true,
        copy_up: !bind,
        ..Default::default()
    };
    modes(&mut m, mode).map_err(|e| e.with_kind(Kind::Internal))?;
    if bind {
        m.source = PathBuf::from(clean(source));
        if m.propagation.is_empty() {
            m.propagation = "rprivate".into();
        }
    } else {
        volume::check_name(source)?;
        m.name = source.to_owned();
        m.driver = "local".into();
        if m.mode.is_empty() {
            m.mode = "z".into();
        }
    }
    Ok(m)
}

/// `ro,z,rslave,nocopy`; each kind of word at most once.
fn modes(m: &mut MountPoint, text: &str) -> Result<()> {
    let bad = || Error::invalid(format!("invalid mode: {text}"));
    let bind = m.kind == "bind";
    let mut seen = [false; 5];
    for word in text.split(',').filter(|w| !w.is_empty()) {
        let class = match word {
            "ro" | "rw" => {
                m.rw = word == "rw";
                0
            }
            "z" | "Z" => 1,
            "nocopy" if !bind => {
                m.copy_up = false;
                2
            }
            "consistent" | "cached" | "delegated" | "default" => 3,
            p if bind && PROPAGATION.contains(&p) => {
                m.propagation = p.to_owned();
                4
            }
            _ => return Err(bad()),
        };
        if std::mem::replace(&mut seen[class], true) {
            return Err(bad());
        }
    }
    Ok(())
}

fn anonymous(target: String) -> Result<MountPoint> {
    Ok(MountPoint {
        kind: "volume".into(),
        name: names::new_id()?,
        destination: target,
        driver: "local".into(),
        rw: true,
        copy_up: true,
        anonymous: true,
        ..Default::default()
    })
}

fn tmpfs(target: &str, options: String) -> MountPoint {
    let rw = !options.split(',').any(|o| o == "ro");
    MountPoint {
        kind: "tmpfs".into(),
        destination: clean(target),
        rw,
        tmpfs_options: options,
        ..Default::default()
    }
}

fn of_spec(s: &MountSpec) -> Result<MountPoint> {
    let base = MountPoint {
        destination: clean(&s.target),
        rw: !s.read_only,
        from_mounts: true,
        ..Default::default()
    };
    Ok(match s.kind.as_str() {
        "bind" => MountPoint {
            kind: "bind".into(),
            source: PathBuf::from(clean(&s.source)),
            propagation: if s.bind_propagation.is_empty() {
                "rprivate".into()
            } else {
                s.bind_propagation.clone()
            },
            non_recursive: s.bind_non_recursive,
            // With this, a missing source is made as for `-v`.
            from_mounts: !s.bind_create_mountpoint,
            ..base
        },
        "volume" if s.source.is_empty() => MountPoint {
            rw: !s.read_only,
            copy_up: !s.volume_no_copy,
            from_mounts: true,
            mode: "z".into(),
            ..anonymous(base.destination)?
        },
        "volume" => MountPoint {
            kind: "volume".into(),
            name: s.source.clone(),
            driver: "local".into(),
            mode: "z".into(),
            copy_up: !s.volume_no_copy,
            subpath: s.volume_subpath.clone(),
            ..base
        },
        "tmpfs" => {
            let mut options: Vec<String> = Vec::new();
            if s.tmpfs_size > 0 {
                options.push(format!("size={}", s.tmpfs_size));
            }
            if s.tmpfs_mode != 0 {
                options.push(format!("mode={:o}", s.tmpfs_mode));
            }
            if s.read_only {
                options.push("ro".into());
            }
            options.extend(s.tmpfs_options.iter().map(|pair| pair.join("=")));
            MountPoint { from_mounts: true, ..tmpfs(&s.target, options.join(",")) }
        }
        other => {
            return Err(Error::invalid(format!(
                "invalid mount config for type {other:?}: mount type unknown"
            )));
        }
    })
}

/// Without doubled and trailing slashes and dots; `..` was refused before.
pub(crate) fn clean(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binds(list: &[&str]) -> Result<Vec<MountPoint>> {
        let host =
            HostConfig { binds: Some(list.iter().map(|s| (*s).to_owned()).collect()), ..Default::default() };
        plan(&host, std::iter::empty(), Vec::new())
    }

    #[test]
    fn as_inspect_shows_them() {
        let m = binds(&["vol1:/data", "/tmp:/t:ro"]).expect("binds");
        assert_eq!(
            (m[0].kind.as_str(), m[0].mode.as_str(), m[0].rw, m[0].propagation.as_str()),
            ("volume", "z", true, "")
        );
        assert_eq!(
            (m[1].kind.as_str(), m[1].mode.as_str(), m[1].rw, m[1].propagation.as_str()),
            ("bind", "ro", false, "rprivate")
        );
    }

    #[test]
    fn dockers_words() {
        let e = binds(&["/a:b"]).unwrap_err();
        assert_eq!(e.kind(), Kind::Internal);
        assert_eq!(
            e.to_string(),
            "invalid volume specification: '/a:b': invalid mount config for type \"bind\": invalid mount path: 'b' \
             mount path must be absolute"
        );
        assert!(binds(&["/a:/b", "/c:/b/"]).unwrap_err().to_string().starts_with("Duplicate mount point"));
        assert!(
            binds(&["/a:/b:ro,rw"]).is_err() && binds(&["/a:/b:bad"]).is_err() && binds(&["/a:/"]).is_err()
        );
    }

    #[test]
    fn image_volumes_are_anonymous_unless_mounted_over() {
        let host = HostConfig { binds: Some(vec!["/a:/b".into()]), ..Default::default() };
        let m = plan(&host, ["/b".to_owned(), "/c/".to_owned()].iter(), Vec::new()).expect("plan");
        assert_eq!(m.len(), 2);
        assert!(m[1].anonymous && m[1].destination == "/c" && m[1].name.len() == 64);
    }

    #[test]
    fn atk_41_volume_names_are_no_paths() {
        for bad in ["../x:/y", "a/b:/y", "./x:/y"] {
            assert!(binds(&[bad]).is_err(), "{bad}");
        }
    }
}
