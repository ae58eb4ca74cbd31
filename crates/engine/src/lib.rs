//! The engine: containers, execs, images, networks, volumes, events and logs over the store, the
//! runtime and the networks. State on disk is the truth; memory is a cache.
//!
//! ```text
//! Engine::open(EngineOptions) -> Result<Engine>          recovery inside; cheap to clone
//! info() version() events(EventsRequest) -> Stream<Event> disk_usage(UsageOf) -> DiskUsage shutdown()
//! containers: create(CreateContainer) -> Created   start(name)   stop(name, signal, timeout)   restart(..)   kill(name, signal)
//!   pause unpause rename(name, new) update(name, UpdateContainer) remove(name, RemoveOptions{force, volumes, link}) wait(name, cond) -> WaitResult (future armed before it returns)
//!   inspect(name, size) -> ContainerView   list(ListContainers) -> Vec<ContainerSummary>   top(name, ps_args) -> Processes   changes(name) -> Vec<FsChange>
//!   resize(name, rows, cols)   attach(name, AttachRequest) -> AttachSession{tty, output: Stream<OutputChunk>, input: Option<Sink of Bytes; close = half-close>}
//!   logs(name, LogsRequest) -> LogStream{tty, Stream<OutputChunk>}   export(name) -> Stream<Bytes>   prune_containers(filters) -> Pruned
//!   archive_stat(name, path) -> PathStat   archive_get(name, path) -> (PathStat, Stream<Bytes>)   archive_put(name, path, flags, body stream)
//! execs: create_exec(container, CreateExec) -> id   start_exec(id, detach, tty size) -> Option<AttachSession>   resize_exec   inspect_exec(id) -> ExecView
//! images: image(name) -> ImageView   images(filters, flags) -> Vec<ImageView>   history   tag(name, Reference)   remove_image(name, force, prune) -> Vec<ImageDeleted>
//!   load(body stream, quiet) -> Stream<ProgressEvent>   save(names) -> Stream<Bytes>   import(ImportRequest, body) -> Stream<ProgressEvent>   commit(CommitRequest) -> Digest   prune_images(filters) -> ImagesPruned
//! registries: pull(PullRequest) push(PushRequest) -> Stream<ProgressEvent>   distribution manifest referrers(Reference, &Credentials)   login(registry, Credentials)   search(SearchRequest)
//! layers: image_layers(name) -> LayersView   which_image(name, path, follow), which_container(..) -> WhichView   layer_files(name, layer, dir) -> Stream<batch of LayerFile>
//!   diff_images(from, to, options) -> Stream<batch of DiffRow>   image_file(name, path, top, offset, limit) -> (ImageFile, Stream<Bytes>)
//! working containers: make_working(NewWorking) -> Stream<WorkingEvent>   list_working inspect_working rename_working remove_working   configure_working(name, WorkingChange)
//!   copy_working(name, WorkingCopy, body) -> Digest   create_working_run(name, WorkingRun) -> id   start_working_run(id, size) -> AttachSession   working_run resize_working_run   mount_working unmount_working   commit_working(name, WorkingCommit) -> Digest
//! volumes: create_volume volume volumes(filters) remove_volume(name, force) prune_volumes(filters)     networks: networks(filters) network(name) create_network(CreateNetwork) -> id remove_network(name) prune_networks(filters)
//!   ways_in(containers) -> Vec<WayIn>   connect_network(network, container, EndpointSettings) disconnect_network(network, container)
//! ```

mod build;
mod changes;
mod check;
mod container;
mod engine;
mod error;
mod events;
mod exec;
mod filters;
mod image;
mod image_remove;
mod info;
mod layers;
pub mod model;
mod names;
mod network;
mod notes;
mod pipe;
mod prune;
mod prune_budget;
mod record;
mod recover;
mod registry;
mod signals;
mod steps;
mod stream;
mod time;
mod usage;
mod volume;
mod words;
mod working;

use std::path::PathBuf;
use std::sync::Arc;

pub use build::{BuildInput, BuildStream};
pub use error::{Error, Result};
pub use longshore_build::context::sync::Ask as BuildAsk;
pub use longshore_build::graph::{Limits as BuildLimits, Network as BuildNetwork};
pub use longshore_build::plan::{Allowed as BuildAllowed, Named as BuildNamed};
pub use longshore_build::remote::{Remote as BuildRemote, parse_context as build_context};
pub use longshore_build::{Agents as BuildAgents, Secret as BuildSecret, Secrets as BuildSecrets};
pub use longshore_registry::{Config as RegistryConfig, Credentials, InsecureRule, Mirror, ProxyConfig};
pub use longshore_runtime::Registered;
pub use longshore_sys::host_sockets::HostSockets;
pub use stream::{
    AttachSession, BatchStream, BodyStream, BoxStream, ByteStream, EventStream, LogStream, ProgressStream,
    WaitFuture,
};

/// The daemon's settings, as far as the engine needs them.
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// What lasts: layers, containers, volumes, the database.
    pub data_root: PathBuf,
    /// What does not outlive a boot: monitors' sockets, network namespaces.
    pub exec_root: PathBuf,
    /// `overlay2` or `vfs`; `None`: the best that works.
    pub storage_driver: Option<String>,
    /// Name of the default network's bridge; `None`: derived from the data root.
    pub bridge: Option<String>,
    /// Its address and subnet, `172.17.0.1/16`; `None`: the first free pool.
    pub bip: Option<String>,
    /// Of containers' interfaces; `None`: 1500.
    pub mtu: Option<u32>,
    /// Parent of the containers' cgroups; `None`: derived from the data root.
    pub cgroup_parent: Option<String>,
    /// OCI runtimes beside the embedded launcher.
    pub runtimes: Vec<Registered>,
    /// Which is taken when none is named; `None`: the embedded one.
    pub default_runtime: Option<String>,
    /// How registries are reached.
    pub registry: RegistryConfig,
    /// Layers that are downloaded at once; `None`: 3.
    pub max_concurrent_downloads: Option<usize>,
    /// Layers that are uploaded at once; `None`: 5.
    pub max_concurrent_uploads: Option<usize>,
    /// What the data root may take; `None`: nothing is collected by itself.
    pub disk_budget: Option<model::DiskBudget>,
    /// Shown by info.
    pub debug: bool,
    /// The daemon is an ordinary user's, in a user namespace where that is root.
    pub rootless: bool,
    /// The way into the host's network, where the daemon's is another.
    pub host_sockets: HostSockets,
    /// Why there can be no bridges; `None`: there can.
    pub no_bridges: Option<String>,
    /// The name servers that are reached from the daemon's network; `None`: those of `/etc/resolv.conf`.
    pub resolv_conf: Option<PathBuf>,
}

/// The engine. Cheap to clone; all clones are one engine.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<engine::Inner>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("data_root", &self.inner.paths.data).finish_non_exhaustive()
    }
}
