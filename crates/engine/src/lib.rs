//! The engine: containers, execs, images, networks, volumes, events and logs over the store, the
//! runtime and the networks. State on disk is the truth; memory is a cache.
//!
//! ```text
//! Engine::open(EngineOptions) -> Result<Engine>          recovery inside; cheap to clone
//! info() version() events(EventsRequest) -> Stream<Event> shutdown()
//! containers: create(CreateContainer) -> Created   start(name)   stop(name, signal, timeout)   restart(..)   kill(name, signal)
//!   pause unpause rename(name, new) remove(name, RemoveOptions{force, volumes, link}) wait(name, cond) -> WaitResult (future armed before it returns)
//!   inspect(name, size) -> ContainerView   list(ListContainers) -> Vec<ContainerSummary>   top(name, ps_args) -> Processes   changes(name) -> Vec<FsChange>
//!   resize(name, rows, cols)   attach(name, AttachRequest) -> AttachSession{tty, output: Stream<OutputChunk>, input: Option<Sink of Bytes; close = half-close>}
//!   logs(name, LogsRequest) -> LogStream{tty, Stream<OutputChunk>}   export(name) -> Stream<Bytes>   prune_containers(filters) -> Pruned
//!   archive_stat(name, path) -> PathStat   archive_get(name, path) -> (PathStat, Stream<Bytes>)   archive_put(name, path, flags, body stream)
//! execs: create_exec(container, CreateExec) -> id   start_exec(id, detach, tty size) -> Option<AttachSession>   resize_exec   inspect_exec(id) -> ExecView
//! images: image(name) -> ImageView   images(filters, flags) -> Vec<ImageView>   history   tag(name, Reference)   remove_image(name, force, prune) -> Vec<ImageDeleted>
//!   load(body stream, quiet) -> Stream<ProgressEvent>   save(names) -> Stream<Bytes>   import(ImportRequest, body) -> Stream<ProgressEvent>   commit(CommitRequest) -> Digest
//! volumes: create_volume volume volumes(filters) remove_volume(name, force) prune_volumes(filters)     networks: networks(filters) network(name)
//! ```

pub mod model;
