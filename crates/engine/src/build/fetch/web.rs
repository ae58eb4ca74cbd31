//! Files of web servers.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::SystemTime;

use longshore_build::remote::{Pin, WebFile};
use longshore_build::{Cancel, Error as BuildError, Result};
use longshore_oci::{Digest, Kind};
use longshore_registry::{Ask, Downloaded, Validators};
use longshore_store::FetchedRecord;
use longshore_sys::root::Root;

use super::{Fetches, Slot, auth, host};

/// Bytes that a file may have.
const MAX_FILE: u64 = 64 << 30;
/// Permissions of a file, as BuildKit's.
const MODE: u32 = 0o600;
/// The name of a file that nobody named, as BuildKit's.
const UNNAMED: &[u8] = b"__unnamed__";

impl Fetches<'_> {
    /// What a file is now. With a checksum and a name nobody has to be asked; else the server is, and sends the file
    /// unless it is the one that was there before.
    pub(super) fn pin_file(
        &self,
        file: &WebFile,
        fresh: bool,
        cancel: &Cancel,
        slot: &mut Slot,
    ) -> Result<Pin> {
        if let (Some(digest), Some(name)) = (file.checksum, file.name()) {
            return Ok(Pin::File { name, digest });
        }
        let store = &self.engine.inner.store;
        let key = file.address.digest();
        let before = if fresh { None } else { store.fetched(&key)? };
        let known =
            before.as_ref().map(|b| Validators { etag: b.etag.clone(), modified: b.modified.clone() });
        let known = known.filter(|known| !known.is_empty());
        let named = |name: Option<&String>| {
            file.name().or_else(|| name.map(|n| n.clone().into_bytes())).unwrap_or_else(|| UNNAMED.to_vec())
        };
        let dir = self.room()?;
        let (record, name) = match (self.download(file, known.as_ref(), &dir, cancel)?, before) {
            (Some((got, mut there)), _) => {
                let name = named(got.name.as_ref());
                slot.files = Some(settle(&mut there, &dir, &name, got.modified)?);
                let Validators { etag, modified } = got.validators;
                (FetchedRecord { digest: got.digest, name: got.name, etag, modified, used: 0 }, name)
            }
            (None, Some(before)) => {
                let name = named(before.name.as_ref());
                (before, name)
            }
            (None, None) => return Err(BuildError::Internal("a file is what it never was".into())),
        };
        check(file, &record.digest)?;
        let digest = record.digest;
        store.note_fetched(&key, record)?;
        Ok(Pin::File { name, digest })
    }

    /// The file that was pinned.
    pub(super) fn fetch_file(
        &self,
        file: &WebFile,
        name: &[u8],
        digest: &Digest,
        cancel: &Cancel,
    ) -> Result<Root> {
        let dir = self.room()?;
        let Some((got, mut there)) = self.download(file, None, &dir, cancel)? else {
            return Err(BuildError::Internal("a file is what it never was".into()));
        };
        check(file, &got.digest)?;
        if got.digest != *digest {
            return Err(host(
                Kind::Conflict,
                format!("{} changed while it was fetched: build again", file.address),
            ));
        }
        settle(&mut there, &dir, name, got.modified)
    }

    /// Downloads a file into a directory; `None` when it still is the one that is known.
    fn download(
        &self,
        file: &WebFile,
        known: Option<&Validators>,
        dir: &Path,
        cancel: &Cancel,
    ) -> Result<Option<(Downloaded, File)>> {
        let path = part(dir);
        let failed = |e| BuildError::io(format!("create {}", path.display()), e);
        let mut into =
            OpenOptions::new().write(true).create_new(true).mode(MODE).open(&path).map_err(failed)?;
        let url = file.address.without_user();
        let authorization = auth::of_file(&file.address, self.secrets)?;
        let ask = Ask { url: &url, authorization: authorization.as_deref(), known, limit: MAX_FILE };
        let got = self.wait(cancel, self.engine.inner.registry.download(ask, &mut into))?;
        let got = got.map_err(|e| match e {
            longshore_registry::Error::Invalid(text) => {
                host(Kind::Invalid, format!("{}: {text}", file.address))
            }
            e => host(e.kind(), e.to_string()),
        })?;
        Ok(got.map(|got| (got, into)))
    }
}

/// Where a file is while it comes. What it will be called may be longer than this: nothing else is in its directory.
fn part(dir: &Path) -> std::path::PathBuf {
    dir.join("part")
}

fn check(file: &WebFile, actual: &Digest) -> Result<()> {
    match &file.checksum {
        Some(expected) if expected != actual => Err(host(
            Kind::Invalid,
            format!("digest mismatch for {}: {actual} (expected: {expected})", file.address),
        )),
        _ => Ok(()),
    }
}

/// Gives a file its name and its time, and gives its directory.
fn settle(file: &mut File, dir: &Path, name: &[u8], modified: Option<SystemTime>) -> Result<Root> {
    let path = dir.join(OsStr::from_bytes(name));
    let failed = |e| BuildError::io(format!("place {}", path.display()), e);
    file.set_modified(modified.unwrap_or(SystemTime::UNIX_EPOCH)).map_err(failed)?;
    std::fs::rename(part(dir), &path).map_err(failed)?;
    Ok(Root::open(dir)?)
}
