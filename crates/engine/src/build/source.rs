//! Where a build's files come from: a tar that was unpacked, or a client that shares its directories while it waits.

use std::path::PathBuf;

use longshore_build::Error as BuildError;
use longshore_build::context::{Context, Error as ContextError, UnpackOptions, unpack};
use longshore_build::dockerfile::{self, Dockerfile};
use longshore_build::ignore::{self, Ignore};
use longshore_build::plan::Plan;
use longshore_build::remote::Remote;
use longshore_oci::Digest;
use longshore_sys::root::Root;
use rustix::fs::{Mode, OFlags};

use super::{DIR, of_build};
use crate::engine::{make_dir, remove_dir};
use crate::model::BuildEvent;
use crate::pipe::{self, BodyReader};
use crate::stream::BodyStream;
use crate::{Engine, Error, Result, names};

/// Bytes that a Dockerfile or an ignore file may have.
const MAX_FILE: u64 = 16 << 20;

/// What a client gives a build.
#[allow(missing_debug_implementations)]
pub enum BuildInput {
    /// A context as a tar, with the Dockerfile in it.
    Tar(BodyStream),
    /// A Dockerfile, and directories that the client shares: it is asked by [`BuildEvent::Ask`] and answers here, as
    /// [`longshore_build::context::sync`] says.
    Shared {
        /// `None`: it is in the context that is elsewhere.
        dockerfile: Option<Vec<u8>>,
        /// What each directory is known by: the same text, the same directory. Empty: there is none.
        contexts: Vec<String>,
        /// Where the first of them is, if it is not the client's.
        elsewhere: Option<Remote>,
        #[allow(missing_docs)]
        answers: BodyStream,
    },
    /// A context that is fetched, with the Dockerfile in it.
    Elsewhere(Remote),
}

/// A folder for the files of a build while it is under way; dropped, it is gone.
pub(crate) struct Site {
    pub(crate) dir: PathBuf,
}

impl Site {
    /// One that is not there yet.
    ///
    /// # Errors
    /// When the system refuses what it lies in.
    pub(crate) fn new(engine: &Engine) -> Result<Self> {
        let all = engine.inner.paths.data.join(DIR);
        make_dir(&all, 0o700)?;
        Ok(Self { dir: all.join(names::new_id()?) })
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Err(e) = remove_dir(&self.dir) {
            tracing::warn!(dir = %self.dir.display(), "a build's context stays until the next start: {e}");
        }
    }
}

/// A build that was understood and not begun.
pub(super) struct Ready {
    pub(super) file: Dockerfile,
    pub(super) files: Files,
}

/// Where a build stands when its client is answered.
pub(super) enum Start {
    Ready(Ready),
    /// Its context is elsewhere.
    Fetch(Remote, Rest),
}

/// What a client gives a build whose context is elsewhere.
#[derive(Default)]
pub(super) struct Rest {
    dockerfile: Option<Vec<u8>>,
    shared: Shared,
}

/// Directories that a client shares, the context first.
#[derive(Default)]
pub(super) struct Shared {
    /// `None`: it is not shared.
    keys: Vec<Option<Digest>>,
    answers: Option<BodyReader>,
}

/// The files of a build.
#[derive(Default)]
pub(super) struct Files {
    /// The context, where it was unpacked or fetched.
    context: Option<Context>,
    /// Where that lies.
    _site: Option<Site>,
    shared: Shared,
}

impl Ready {
    /// Whether its Dockerfile has stages, and one of the name or number `target`.
    pub(super) fn has_target(&self, target: &str) -> Result<()> {
        let stages = dockerfile::stages(&self.file).map_err(|e| Error::invalid(e.to_string()))?;
        stages.target(target).map(drop).map_err(|e| Error::invalid(e.to_string()))
    }

    /// Reads the Dockerfile of the context `root`, which lies in `site`, unless the client gave one, and what of that a
    /// build may see.
    ///
    /// # Errors
    /// For a Dockerfile that is none.
    pub(super) fn new(site: Site, root: Root, asked: &str, rest: Rest) -> Result<Self> {
        let name = if asked.is_empty() { "Dockerfile" } else { asked };
        let text = rest.dockerfile.map_or_else(|| read(&root, name), |text| Ok(Some(text)))?;
        let text =
            text.ok_or_else(|| Error::invalid(format!("Cannot locate specified Dockerfile: {name}")))?;
        let file = dockerfile::parse(&text).map_err(|e| Error::invalid(e.to_string()))?;
        let ignore = ignore_of(&root, name)?;
        let context = context(root, &ignore)?;
        Ok(Self { file, files: Files { context: Some(context), _site: Some(site), shared: rest.shared } })
    }
}

impl Engine {
    /// Takes what can be known at once; runs on a thread that may wait.
    pub(super) fn receive(&self, input: Incoming, asked: &str) -> Result<Start> {
        Ok(match input {
            // That may take long, and only once it was answered a client that goes away is seen.
            Incoming::Elsewhere(remote, rest) => Start::Fetch(remote, rest),
            Incoming::Tar(reader) => Start::Ready(self.unpacked(reader, asked)?),
            Incoming::Shared(dockerfile, shared) => Start::Ready(Ready {
                file: dockerfile::parse(&dockerfile).map_err(|e| Error::invalid(e.to_string()))?,
                files: Files { context: None, _site: None, shared },
            }),
        })
    }

    /// Unpacks a context and reads its Dockerfile.
    fn unpacked(&self, reader: BodyReader, asked: &str) -> Result<Ready> {
        let (site, root) = self.unpack(reader)?;
        Ready::new(site, root, asked, Rest::default())
    }

    /// Unpacks a tar of files that commands shall see.
    pub(crate) fn unpack_context(&self, reader: BodyReader) -> Result<(Site, Context)> {
        let (site, root) = self.unpack(reader)?;
        Ok((site, context(root, &Ignore::default())?))
    }

    fn unpack(&self, reader: BodyReader) -> Result<(Site, Root)> {
        let site = Site::new(self)?;
        // A client's users are nobody's in an image.
        let options = UnpackOptions { owner: Some((0, 0)), ..UnpackOptions::default() };
        let tree = unpack(reader, &site.dir, &options).map_err(|e| of_build(e.into()))?.root;
        let root = Root::open(&tree)?;
        Ok((site, root))
    }

    /// Gives `work` the contexts of a build, of which what the steps need is there.
    pub(super) fn with_contexts<T>(
        &self,
        files: &mut Files,
        plan: &Plan,
        send: &(dyn Fn(BuildEvent) + Send + Sync),
        work: impl FnOnce(&[Context]) -> Result<T, BuildError>,
    ) -> Result<T, BuildError> {
        let Shared { keys, answers } = &mut files.shared;
        let mut here = files.context.take();
        let Some(answers) = answers else { return work(here.as_slice()) };
        let builder = &self.inner.builder;
        let held = builder.use_pool();
        let mut contexts = Vec::new();
        for (n, key) in keys.iter().enumerate() {
            let uses = plan.graph.uses(&plan.wanted(), n);
            let ask = |ask| send(BuildEvent::Ask { context: n, ask });
            contexts.push(match key {
                Some(key) if !uses.is_empty() => builder.receive(&held, key, &uses, answers, &ask)?,
                _ => here.take().filter(|_| n == 0).unwrap_or_else(Context::empty),
            });
        }
        let done = work(&contexts);
        if let Err(BuildError::Context(ContextError::Gone(_))) = &done {
            keys.iter().flatten().for_each(|key| builder.distrust(key));
        }
        drop(held);
        if let Err(e) = builder.sweep_contexts() {
            tracing::warn!("sweeping the files of build contexts: {e}");
        }
        done
    }

    /// Removes what builds of an earlier daemon left. For a start only.
    pub(crate) fn sweep_builds(&self) {
        let dir = self.inner.paths.data.join(DIR);
        if dir.exists()
            && let Err(e) = remove_dir(&dir)
        {
            tracing::warn!("sweeping the contexts of builds: {e}");
        }
    }
}

/// An input that a thread can read, or can fetch.
pub(super) enum Incoming {
    Tar(BodyReader),
    /// With the Dockerfile.
    Shared(Vec<u8>, Shared),
    Elsewhere(Remote, Rest),
}

impl Incoming {
    /// Begins to read; on the runtime.
    pub(super) fn begin(input: BuildInput) -> Self {
        match input {
            BuildInput::Tar(body) => Self::Tar(pipe::into_reader(body)),
            BuildInput::Elsewhere(remote) => Self::Elsewhere(remote, Rest::default()),
            BuildInput::Shared { dockerfile, contexts, elsewhere, answers } => {
                let key = |key: &String| (!key.is_empty()).then(|| Digest::of(key.as_bytes()));
                let keys = contexts.iter().map(key).collect();
                let shared = Shared { keys, answers: Some(pipe::into_reader(answers)) };
                match elsewhere {
                    Some(remote) => Self::Elsewhere(remote, Rest { dockerfile, shared }),
                    None => Self::Shared(dockerfile.unwrap_or_default(), shared),
                }
            }
        }
    }
}

/// The ignore file that applies to a Dockerfile.
fn ignore_of(root: &Root, dockerfile: &str) -> Result<Ignore> {
    for name in ignore::candidates(dockerfile.as_bytes()) {
        let name = String::from_utf8_lossy(&name).into_owned();
        if let Some(text) = read(root, &name)? {
            return Ignore::parse(&text).map_err(|e| Error::invalid(format!("{name}: {e}")));
        }
    }
    Ok(Ignore::default())
}

/// What commands see of a client's files: they belong to root.
fn context(root: Root, ignore: &Ignore) -> Result<Context> {
    let options = longshore_build::context::Options { owner: Some((0, 0)), ..Default::default() };
    Context::walk(root, ignore, &options).map_err(|e| of_build(e.into()))
}

/// A file of a context; `None` where there is none.
pub(super) fn read(root: &Root, name: &str) -> Result<Option<Vec<u8>>> {
    use std::io::Read as _;
    let opened = match root.open_file(name, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()) {
        Ok(fd) => std::fs::File::from(fd),
        Err(e) if e.kind() == longshore_oci::Kind::NotFound => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let meta = opened.metadata().map_err(|e| Error::io(format!("stat {name}"), e))?;
    if !meta.is_file() {
        return Err(Error::invalid(format!("{name} is not a regular file")));
    }
    let mut text = Vec::new();
    opened.take(MAX_FILE + 1).read_to_end(&mut text).map_err(|e| Error::io(format!("read {name}"), e))?;
    if text.len() as u64 > MAX_FILE {
        return Err(Error::invalid(format!("{name} has more than {MAX_FILE} bytes")));
    }
    Ok(Some(text))
}
