//! Reading a file out of an image's layers.

use std::fs::File;

use longshore_oci::Digest;

use super::stack::{Shown, Stack, os_path};
use super::{FileInfo, FileKind, clean_path, damaged, has_layer};
use crate::layer::reopen;
use crate::open::Store;
use crate::snapshot::{look_beneath, open_root};
use crate::{Error, IoContext, Result};

/// A file of an image, opened.
#[derive(Debug)]
pub struct OpenedFile {
    #[allow(missing_docs)]
    pub file: File,
    /// Where it was found, clean, after all links.
    pub path: Vec<u8>,
    /// Number of the layer that it lies in.
    pub layer: usize,
    #[allow(missing_docs)]
    pub info: FileInfo,
}

impl Store {
    /// Opens a regular file of an image where it lies, in a layer's directory. Links are followed inside the image. With
    /// `top` the image is taken without the layers above that number.
    ///
    /// # Errors
    /// `NotFound` for an image, a layer or a path that is not there, `Invalid` for what is no regular file, `Corrupt` when the
    /// layer holds another file than its index says.
    pub fn open_in_image(&self, image: &Digest, path: &[u8], top: Option<usize>) -> Result<OpenedFile> {
        clean_path(path)?;
        let mut layers = self.layers_of(image)?;
        if let Some(top) = top {
            has_layer(&layers, top)?;
            layers.truncate(top);
        }
        let found = Stack::of_image(self, &layers)?.resolve(path, true, true)?;
        let shown = String::from_utf8_lossy(&found.path).into_owned();
        let refuse = |what: &str| Err(Error::Invalid(format!("/{shown} is {what}, not a regular file")));
        let (layer, info) = match found.shown {
            Shown::Nothing => return Err(Error::NotFound(format!("the image has no /{shown}"))),
            Shown::Dirs(_) => return refuse("a directory"),
            Shown::Entry(i, info) => (&layers[i], info),
        };
        match info.kind {
            FileKind::File => {}
            FileKind::Dir => return refuse("a directory"),
            FileKind::Symlink => return refuse("a symbolic link"),
            FileKind::Char => return refuse("a character device"),
            FileKind::Block => return refuse("a block device"),
            FileKind::Fifo => return refuse("a named pipe"),
            FileKind::Socket => return refuse("a socket"),
        }
        let root = open_root(&self.driver().apply_dir(&layer.record.cache_id))?;
        let Some((fd, stat)) = look_beneath(&root, os_path(&found.path))? else {
            return Err(damaged(layer, &format!("/{shown} is not in its directory")));
        };
        let is_file = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        // The first version of an index knows no sizes of other names of a file.
        if !is_file || (info.owner.is_some() && size != info.size) {
            return Err(damaged(layer, &format!("/{shown} is not the file that its index tells of")));
        }
        let file = reopen(std::os::fd::AsFd::as_fd(&fd)).context(|| format!("open /{shown}"))?;
        Ok(OpenedFile { file, path: found.path, layer: layer.number, info: FileInfo { size, ..info } })
    }
}
