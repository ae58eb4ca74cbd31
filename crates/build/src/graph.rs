//! A build as a graph of steps. Each stands on a tree of files and gives one.
//!
//! A step is described by what it does, never by where in a Dockerfile it stands, so that equal steps are one.

use std::collections::{BTreeMap, BTreeSet};

use longshore_oci::Digest;

use crate::context::SelectOptions;
use crate::context::sync::Use;
use crate::copy::escaped;
use crate::key::KeyWriter;
use crate::mode::Mode;
use crate::remote::Remote;

/// A step of a [`Graph`], by its number; it only stands on steps of lower numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub usize);

/// A tree of files that a step starts from or reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tree {
    /// The layers up to the one with this chain id, which a lease holds; `None`: an empty tree.
    Layers(Option<Digest>),
    /// What a step gives.
    Step(StepId),
}

/// What is carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Where it starts.
    pub base: Tree,
    /// What it does.
    pub op: Op,
    /// What it is called in the cache's list and in progress.
    pub name: String,
    /// It is carried out even if the cache has it.
    pub fresh: bool,
    /// The time of what is made without a time of its own.
    pub time: Stamp,
}

/// A time for directories that a build makes, in seconds since 1970. It never is the time of day: the same input gives
/// the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// That of the image below. What a cache has of another time is as good.
    Inherited(i64),
    /// The one that was asked for (`SOURCE_DATE_EPOCH`), and no other.
    Fixed(i64),
}

impl Stamp {
    /// Seconds since 1970.
    #[must_use]
    pub fn seconds(self) -> i64 {
        match self {
            Self::Inherited(seconds) | Self::Fixed(seconds) => seconds,
        }
    }
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Runs a command.
    Run(Box<Run>),
    /// Copies files.
    Copy(Box<Copy>),
    /// Makes a directory, unless it is there.
    Mkdir(Mkdir),
}

/// A command and what it sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// The program and its arguments; never empty.
    pub args: Vec<String>,
    /// `NAME=value`: what the command sees and what its result depends on.
    pub env: Vec<String>,
    /// More of it, which the result is not thought to depend on: proxies that nobody declared.
    pub quiet_env: Vec<String>,
    /// Where it runs: absolute.
    pub cwd: String,
    /// As whom; empty: root.
    pub user: String,
    /// Which network it sees.
    pub network: Network,
    /// Without confinement.
    pub insecure: bool,
    /// `name:address` lines more in its hosts file.
    pub hosts: Vec<String>,
    /// What it may use; its result is not thought to depend on that.
    pub limits: Limits,
    /// Files that are there while it runs.
    pub files: Vec<RunFile>,
    /// What it is told and nobody else: no result is thought to depend on what they say.
    pub secrets: Vec<SecretUse>,
    /// Agents of SSH that it may ask: no result is thought to depend on them.
    pub agents: Vec<AgentUse>,
    /// Directories and files of elsewhere that are there while it runs, in the order in which they are mounted.
    pub mounts: Vec<Mount>,
}

/// A secret as a command gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretUse {
    /// Its name.
    pub id: String,
    /// The file that it is in: absolute.
    pub target: Option<String>,
    /// The variable that it is in.
    pub env: Option<String>,
    /// Permissions, user and group of the file.
    pub look: (u32, u32, u32),
    /// Without it the build fails; else the command runs without.
    pub required: bool,
}

/// An agent of SSH as a command gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentUse {
    /// Its name.
    pub id: String,
    /// Its socket: absolute.
    pub target: String,
    /// Permissions, user and group of the socket.
    pub look: (u32, u32, u32),
    /// Without it the build fails; else the command runs without.
    pub required: bool,
}

/// Something that a command sees and that is in no layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where: absolute.
    pub target: String,
    /// What.
    pub what: MountOf,
    /// It cannot be written to. What is written into files of a source is thrown away.
    pub read_only: bool,
}

/// What a mount shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountOf {
    /// A directory or file of a context or a tree.
    Files {
        /// Of which: a context or a tree.
        from: Source,
        /// Its path there.
        path: Vec<u8>,
    },
    /// An empty file system in memory.
    Memory {
        /// Bytes at most; `None`: half of the memory.
        size: Option<u64>,
    },
    /// A directory that outlives the build; what a command leaves in it the next one finds. No result is thought to
    /// depend on what is in it.
    Cache {
        /// Its name; one name is one directory.
        name: String,
        /// Who may use it at the same time.
        sharing: Sharing,
        /// What it holds at first.
        from: Option<(Source, Vec<u8>)>,
        /// Permissions and owner that it has at first.
        look: (u32, u32, u32),
    },
}

/// Who may use a cache at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// Anyone.
    #[default]
    Shared,
    /// One at a time; another gets one of its own.
    Private,
    /// One at a time; another waits.
    Locked,
}

/// A file that a command sees and that is in no layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFile {
    /// Where: absolute.
    pub target: String,
    /// What is in it.
    pub content: Vec<u8>,
    /// Its permissions.
    pub mode: u32,
}

/// The network of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// The engine's default.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// That of the host.
    Host,
    /// One of the engine's, by name.
    Named(String),
}

impl Network {
    /// Its name for engines: `default`, `none`, `host`, or its own.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Default => "default",
            Self::None => "none",
            Self::Host => "host",
            Self::Named(name) => name,
        }
    }
}

/// What the commands of a build may use. 0 and empty: as much as any container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes.
    pub memory: i64,
    /// Bytes of memory and swap together; -1: unlimited swap.
    pub memory_swap: i64,
    /// Relative weight.
    pub cpu_shares: i64,
    /// Microseconds.
    pub cpu_period: i64,
    /// Microseconds of each period.
    pub cpu_quota: i64,
    /// Processors, as a list of ranges.
    pub cpuset_cpus: String,
    /// Memory nodes, as a list of ranges.
    pub cpuset_mems: String,
    /// The parent of its cgroup.
    pub cgroup_parent: String,
    /// Bytes of shared memory.
    pub shm_size: i64,
    /// Name, soft and hard limit.
    pub ulimits: Vec<(String, i64, i64)>,
}

/// Files that are copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copy {
    /// What is copied, one after the other.
    pub parts: Vec<Part>,
    /// Where they go: absolute; a slash at the end says that it is a directory.
    pub dest: Vec<u8>,
    /// Who shall own them, `user[:group]`, as the tree below knows them. `None`: root for a context, else as they were.
    pub owner: Option<String>,
    /// Permissions that they get.
    pub mode: Option<Mode>,
    /// The directories that lead to a source are made, too.
    pub parents: bool,
    /// What is left out of the sources.
    pub exclude: Vec<Vec<u8>>,
    /// The copy does not look at the tree below: no link of it is followed.
    pub link: bool,
}

/// Files of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where they come from.
    pub from: Source,
    /// Paths and patterns in a context or a tree; a directory stands for what is in it. Of others everything is copied.
    pub sources: Vec<Vec<u8>>,
    /// Those that are archives are unpacked.
    pub unpack: bool,
}

/// Where files are copied from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A context of the build, by its number.
    Context(usize),
    /// A tree.
    Tree(Tree),
    /// Files that stand in the Dockerfile: name and content.
    Inline(Vec<(Vec<u8>, Vec<u8>)>),
    /// What has to be fetched.
    Remote(Box<Remote>),
}

impl Default for Source {
    /// Nothing.
    fn default() -> Self {
        Self::Inline(Vec::new())
    }
}

/// A directory that is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mkdir {
    /// Absolute.
    pub path: Vec<u8>,
    /// Who shall own what is made, `user[:group]`, as the tree below knows them. Empty: root.
    pub owner: String,
}

/// Steps, each after those that it needs.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    steps: Vec<Step>,
}

impl Graph {
    /// Adds a step.
    pub fn add(&mut self, step: Step) -> StepId {
        self.steps.push(step);
        StepId(self.steps.len() - 1)
    }

    /// All steps.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// A step.
    #[must_use]
    pub fn step(&self, id: StepId) -> Option<&Step> {
        self.steps.get(id.0)
    }

    /// The steps that `id` needs to be done before.
    #[must_use]
    pub fn needs(&self, id: StepId) -> Vec<StepId> {
        let Some(step) = self.step(id) else { return Vec::new() };
        let mut needs = Vec::new();
        if let Tree::Step(base) = step.base {
            needs.push(base);
        }
        needs.extend(
            step.op.reads().into_iter().filter_map(|t| if let Tree::Step(id) = t { Some(id) } else { None }),
        );
        needs
    }

    /// The names of the cache mounts that commands among `wanted` see, each once, in the order of names.
    #[must_use]
    pub fn cache_mounts(&self, wanted: &[StepId]) -> BTreeSet<String> {
        let steps = wanted.iter().filter_map(|id| self.step(*id));
        let runs = steps.filter_map(|step| if let Op::Run(run) = &step.op { Some(run) } else { None });
        let name = |mount: &Mount| {
            if let MountOf::Cache { name, .. } = &mount.what { Some(name.clone()) } else { None }
        };
        runs.flat_map(|run| run.mounts.iter().filter_map(name)).collect()
    }

    /// What the steps that `wanted` needs, and these, take of the context of this number.
    #[must_use]
    pub fn uses(&self, wanted: &[StepId], context: usize) -> Vec<Use> {
        let needed = self.needed(wanted);
        let steps = self.steps.iter().zip(needed).filter(|(_, needed)| *needed);
        steps.flat_map(|(step, _)| step.op.uses(context)).collect()
    }

    /// For each step whether `wanted` needs it, or names it.
    pub(crate) fn needed(&self, wanted: &[StepId]) -> Vec<bool> {
        let mut needed = vec![false; self.steps.len()];
        let mut todo = wanted.to_vec();
        while let Some(id) = todo.pop() {
            if let Some(place) = needed.get_mut(id.0)
                && !std::mem::replace(place, true)
            {
                todo.extend(self.needs(id));
            }
        }
        needed
    }
}

impl Step {
    /// What the result depends on besides the tree below and the files that are read.
    #[must_use]
    pub fn key(&self) -> KeyWriter {
        let mut key = KeyWriter::new("step");
        self.op.describe(&mut key);
        if let Stamp::Fixed(seconds) = self.time
            && !matches!(self.op, Op::Run(_))
        {
            key.bytes("time", &seconds.to_le_bytes());
        }
        key
    }
}

impl Op {
    /// The trees that it reads besides the one it stands on, in their order.
    #[must_use]
    pub fn reads(&self) -> Vec<Tree> {
        let sources: Vec<&Source> = match self {
            Self::Copy(copy) => copy.parts.iter().map(|part| &part.from).collect(),
            Self::Run(run) => run.mounts.iter().filter_map(Mount::source).collect(),
            Self::Mkdir(_) => Vec::new(),
        };
        let tree = |source: &Source| if let Source::Tree(tree) = source { Some(*tree) } else { None };
        sources.into_iter().filter_map(tree).collect()
    }

    fn uses(&self, context: usize) -> Vec<Use> {
        let of_path = |path: &Vec<u8>| Use { sources: vec![escaped(path)], ..Use::default() };
        match self {
            Self::Copy(copy) => {
                let parts = copy.parts.iter().filter(|part| part.from == Source::Context(context));
                parts.map(|part| Use { sources: part.sources.clone(), options: copy.options() }).collect()
            }
            Self::Run(run) => {
                let paths = run.mounts.iter().filter_map(|mount| match &mount.what {
                    MountOf::Files { from, path } => Some((from, path)),
                    MountOf::Cache { from: Some((from, path)), .. } => Some((from, path)),
                    MountOf::Cache { .. } | MountOf::Memory { .. } => None,
                });
                let here = paths.filter(|(from, _)| **from == Source::Context(context));
                here.map(|(_, path)| of_path(path)).collect()
            }
            Self::Mkdir(_) => Vec::new(),
        }
    }

    fn describe(&self, key: &mut KeyWriter) {
        match self {
            Self::Run(run) => run.describe(key),
            Self::Copy(copy) => copy.describe(key),
            Self::Mkdir(mkdir) => {
                key.text("op", "mkdir").bytes("path", &mkdir.path).text("owner", &mkdir.owner);
            }
        }
    }
}

impl Run {
    fn describe(&self, key: &mut KeyWriter) {
        // Later ones win; the order of different names says nothing.
        let env: BTreeMap<&str, &str> = self.env.iter().filter_map(|v| v.split_once('=')).collect();
        key.text("op", "run").list("args", &self.args);
        key.list("env", env.iter().map(|(name, value)| format!("{name}={value}")));
        key.text("cwd", &self.cwd).text("user", &self.user).text("network", self.network.name());
        key.flag("insecure", self.insecure).list("hosts", &self.hosts);
        key.number("files", self.files.len() as u64);
        for file in &self.files {
            key.text("target", &file.target).bytes("content", &file.content).number("mode", file.mode.into());
        }
        key.number("secrets", self.secrets.len() as u64);
        for secret in &self.secrets {
            key.text("id", &secret.id).flag("required", secret.required);
            key.text("target", secret.target.as_deref().unwrap_or_default());
            key.text("env", secret.env.as_deref().unwrap_or_default());
            let (mode, uid, gid) = secret.look;
            key.number("mode", mode.into()).number("uid", uid.into()).number("gid", gid.into());
        }
        // What has none has the key that it had before there were any.
        for agent in &self.agents {
            key.text("agent", &agent.id).flag("required", agent.required).text("socket", &agent.target);
            let (mode, uid, gid) = agent.look;
            key.number("mode", mode.into()).number("uid", uid.into()).number("gid", gid.into());
        }
        key.number("mounts", self.mounts.len() as u64);
        for mount in &self.mounts {
            mount.describe(key);
        }
    }
}

impl Mount {
    /// Whose files it shows, or starts with.
    #[must_use]
    pub fn source(&self) -> Option<&Source> {
        match &self.what {
            MountOf::Files { from, .. } => Some(from),
            MountOf::Cache { from, .. } => from.as_ref().map(|(source, _)| source),
            MountOf::Memory { .. } => None,
        }
    }

    /// What the result depends on but for the files that are read.
    fn describe(&self, key: &mut KeyWriter) {
        key.text("target", &self.target).flag("read-only", self.read_only);
        match &self.what {
            MountOf::Files { path, .. } => key.text("mount", "files").bytes("path", path),
            MountOf::Memory { size } => key.text("mount", "memory").number("size", size.unwrap_or(u64::MAX)),
            // What is in a cache may change at any time; a step that was done with it stays done.
            MountOf::Cache { name, .. } => key.text("mount", "cache").text("name", name),
        };
    }
}

impl Copy {
    /// What of its sources is taken.
    pub(crate) fn options(&self) -> SelectOptions {
        SelectOptions { parents: self.parents, excludes: self.exclude.clone() }
    }

    fn describe(&self, key: &mut KeyWriter) {
        key.text("op", "copy").bytes("dest", &self.dest);
        match &self.owner {
            Some(owner) => key.text("owner", owner),
            None => key.flag("owner as it was", true),
        };
        match &self.mode {
            Some(mode) => key.text("mode", &mode.describe()),
            None => key.flag("mode as it was", true),
        };
        key.flag("parents", self.parents).list("exclude", &self.exclude).flag("link", self.link);
        key.number("parts", self.parts.len() as u64);
        for part in &self.parts {
            // Files of a tree belong to whom they belonged, others to root.
            key.flag("own", !matches!(part.from, Source::Tree(_))).flag("unpack", part.unpack);
        }
    }
}
