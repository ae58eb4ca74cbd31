//! Contexts that are elsewhere: a repository, an archive, or a Dockerfile alone.

use std::fs::File;

use longshore_build::context::{UnpackOptions, unpack};
use longshore_build::remote::{Pin, Remote, Repository, WebFile};
use longshore_build::{Cancel, Fetcher as _, is_archive};
use longshore_sys::root::Root;
use rustix::fs::{Mode, OFlags};
use tokio::runtime::Handle;

use super::super::of_build;
use super::super::source::{Ready, Rest, read};
use super::super::travel::{Send, Task};
use super::Fetches;
use crate::engine::make_dir;
use crate::model::{BuildRequest, BuildTask};
use crate::{Engine, Error, Result};

/// The argument that keeps `.git` in a context (docs.docker.com/build/building/variables/).
const KEEP_GIT_DIR: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";
/// The usual Dockerfile.
const DOCKERFILE: &str = "Dockerfile";
/// Where an archive is unpacked.
const TREE: &str = "tree";

impl Engine {
    /// Fetches the context and reads its Dockerfile.
    pub(in super::super) fn receive_from(
        &self,
        remote: Remote,
        rest: Rest,
        request: &BuildRequest,
        runtime: &Handle,
        cancel: &Cancel,
        send: Send<'_>,
    ) -> Result<Ready> {
        let task = Task::begin(called(&remote), send);
        let fetches = Fetches::new(self, runtime, request)?;
        let root = match remote {
            Remote::Git(repository) => repository_of(&fetches, repository, request, cancel),
            Remote::File(file) => file_of(&fetches, file, &request.dockerfile, cancel),
        };
        task.tell(match &root {
            Ok(_) => BuildTask::Done,
            Err(e) => BuildTask::Failed(e.to_string()),
        });
        let root = root?;
        Ready::new(fetches.site, root, &request.dockerfile, rest)
    }
}

/// BuildKit's words for a context that is fetched.
fn called(remote: &Remote) -> String {
    match remote {
        Remote::Git(repository) => format!("[internal] load git source {}", repository.address),
        Remote::File(file) => format!("[internal] load remote build context {}", file.address),
    }
}

fn repository_of(
    fetches: &Fetches<'_>,
    mut repository: Repository,
    request: &BuildRequest,
    cancel: &Cancel,
) -> Result<Root> {
    let keep = request.args.get(KEEP_GIT_DIR).map(String::as_str);
    if repository.keep_git_dir.is_none() && matches!(keep, Some("1" | "true" | "TRUE" | "True" | "t" | "T")) {
        repository.keep_git_dir = Some(true);
    }
    fetched(fetches, &Remote::Git(repository), cancel).map(|(root, _)| root)
}

fn file_of(fetches: &Fetches<'_>, file: WebFile, dockerfile: &str, cancel: &Cancel) -> Result<Root> {
    let shown = file.address.to_string();
    let (root, pin) = fetched(fetches, &Remote::File(file), cancel)?;
    let Pin::File { name, .. } = pin else { return Err(Error::internal("a file that is a commit")) };
    let name = String::from_utf8_lossy(&name).into_owned();
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW;
    let mut archive = File::from(root.open_file(&name, flags, Mode::empty())?);
    let tree = fetches.site.dir.join(TREE);
    if is_archive(&mut archive).map_err(of_build)? {
        // A client's users are nobody's in an image.
        let options = UnpackOptions { owner: Some((0, 0)), ..UnpackOptions::default() };
        let done = unpack(archive, &tree, &options);
        let done = done.map_err(|e| of_build(e.into()).context(shown))?;
        return Ok(Root::open(&done.root)?);
    }
    if !matches!(dockerfile, "" | DOCKERFILE) {
        return Err(Error::invalid(format!(
            "{shown} is no archive, so it is the Dockerfile, and another is named: {dockerfile}"
        )));
    }
    let text = read(&root, &name)?.unwrap_or_default();
    make_dir(&tree, 0o700)?;
    let path = tree.join(DOCKERFILE);
    std::fs::write(&path, text).map_err(|e| Error::io(format!("write {}", path.display()), e))?;
    Ok(Root::open(&tree)?)
}

fn fetched(fetches: &Fetches<'_>, remote: &Remote, cancel: &Cancel) -> Result<(Root, Pin)> {
    let pin = fetches.pin(remote, true, cancel).map_err(of_build)?;
    let root = fetches.fetch(remote, &pin, cancel).map_err(of_build)?;
    Ok((root, pin))
}
