//! What comes out of a build on this side: folders and files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use longshore_api::build::{BuildExport, BuildLine};
use longshore_api::stream::Stream;

use crate::args::output::{Dest, Made, Output};
use crate::commands::untar::{Temp, Untar, place};
use crate::error::{Context, Failure, Result, words};
use crate::streams::show;
use crate::tty;

/// The folders and files that a build fills.
pub(super) struct Outputs {
    open: BTreeMap<BuildExport, Vec<Out>>,
    /// The image of an archive.
    pub(super) id: Option<String>,
}

enum Out {
    Stdout,
    /// Written beside its place, and moved there when it is whole.
    File {
        to: PathBuf,
        aside: Aside,
        file: File,
    },
    Folder {
        to: PathBuf,
        temp: Temp,
        untar: Untar,
    },
}

impl Outputs {
    /// Makes what is needed of each output, before anything is built.
    ///
    /// # Errors
    /// When something cannot be made; when a terminal is to get a tar.
    pub(super) fn open(outputs: &[Output]) -> Result<Self> {
        let mut open: BTreeMap<BuildExport, Vec<Out>> = BTreeMap::new();
        for output in outputs {
            let (what, out) = match &output.made {
                Made::Image { .. } => continue,
                Made::Folder(dir) => (BuildExport::Tree, Out::folder(dir)?),
                Made::Tar(to) => (BuildExport::Tree, Out::file(to)?),
                Made::Archive(to) => (BuildExport::Archive, Out::file(to)?),
            };
            open.entry(what).or_default().push(out);
        }
        let stdout = open.values().flatten().filter(|out| matches!(out, Out::Stdout)).count();
        if stdout > 1 {
            return Err(Failure::new("standard output can take one output only"));
        }
        Ok(Self { open, id: None })
    }

    /// Takes what a line brings, if it is one of an output.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) async fn take(&mut self, line: &BuildLine) -> Result<()> {
        match line {
            BuildLine::Export { what, data } => {
                let bytes =
                    STANDARD.decode(data).context(|| "the daemon's answer is not understood".into())?;
                let bytes = Bytes::from(bytes);
                for out in self.open.get_mut(what).into_iter().flatten() {
                    out.push(&bytes).await?;
                }
            }
            BuildLine::Exported { what, id } => {
                for out in self.open.remove(what).into_iter().flatten() {
                    out.finish().await?;
                }
                if let Some(id) = id {
                    self.id = Some(id.clone());
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Out {
    fn folder(dir: &str) -> Result<Self> {
        let to = PathBuf::from(dir);
        let failed = |e: std::io::Error| Failure::new(format!("make the folder {dir}: {}", words(&e)));
        fs::create_dir_all(&to).map_err(failed)?;
        let temp = Temp::beside(&to)?;
        let untar = Untar::start(temp.path(), false);
        Ok(Self::Folder { to, temp, untar })
    }

    fn file(to: &Dest) -> Result<Self> {
        match to {
            Dest::Stdout if tty::stdout_is_terminal() => {
                Err(Failure::new("refusing to write a tar to a terminal: name a file with dest="))
            }
            Dest::Stdout => Ok(Self::Stdout),
            Dest::Path(path) => {
                let to = PathBuf::from(path);
                if to.is_dir() {
                    return Err(Failure::new(format!("{path} is a folder: name a file with dest=")));
                }
                let aside = Aside(PathBuf::from(format!("{path}.{}", std::process::id())));
                let file = File::create(&aside.0).map_err(|e| aside.failed(&e))?;
                Ok(Self::File { to, aside, file })
            }
        }
    }

    async fn push(&mut self, bytes: &Bytes) -> Result<()> {
        match self {
            Self::Stdout => show(Stream::Stdout, bytes),
            Self::File { aside, file, .. } => file.write_all(bytes).map_err(|e| aside.failed(&e)),
            Self::Folder { untar, .. } => {
                // Why nobody takes it shows at the end.
                let _ = untar.push(bytes.clone()).await;
                Ok(())
            }
        }
    }

    async fn finish(self) -> Result<()> {
        match self {
            Self::Stdout => Ok(()),
            Self::File { to, aside, .. } => fs::rename(&aside.0, &to)
                .map_err(|e| Failure::new(format!("write {}: {}", to.display(), words(&e)))),
            Self::Folder { to, temp, untar } => {
                untar.finish().await?;
                place(temp.path(), &to)
            }
        }
    }
}

/// A file that is not whole yet; dropped, it is gone.
struct Aside(PathBuf);

impl Aside {
    fn failed(&self, e: &std::io::Error) -> Failure {
        Failure::new(format!("write {}: {}", self.0.display(), words(e)))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // Nothing is there once it has its place.
        let _ = fs::remove_file(&self.0);
    }
}
