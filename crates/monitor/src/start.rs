//! From an empty monitor to a container that waits for leave to run.

use crate::fd::{AsFd, OwnedFd};
use crate::prelude::*;
use alloc::ffi::CString;

use longshore_monitor::plan::Container;
use longshore_monitor::proto::{Create, Decoder, Frame, MAX_FRAME, Request, Step, VERSION};
use longshore_monitor::wire::Reader;

use crate::child::{self, Birth};
use crate::launch::{Launch, Said};
use crate::log::Log;
use crate::os::{self, Errno};
use crate::rootfs::{Failure, Named, Sources};
use crate::serve::{Door, Monitor, Outputs};

/// Sets up everything; tells the daemon how it went. `None`: nothing is left to watch over.
pub(crate) fn start() -> Option<Monitor> {
    let daemon = os::inherited(0);
    // What the daemon had open by mistake or from its own parent is not ours to keep open.
    os::close_from(3);
    os::set_name(c"longshore-mon");
    let _ = os::setsid();
    let _ = os::chdir(c"/");
    // Our memory and descriptors are nobody's business, even when a child shares namespaces with a
    // container. The program itself is sealed.
    let _ = os::prctl(libc::PR_SET_DUMPABLE, 0, 0);
    let (pid, reply) = match receive_create(&daemon).and_then(create) {
        Ok(monitor) => (monitor.init_pid(), Ok(monitor)),
        Err(failure) => (0, Err(failure)),
    };
    let mut bytes = Vec::new();
    Frame::Hello(VERSION).encode(&mut bytes);
    let monitor = match reply {
        Ok(monitor) => {
            Frame::Created { pid: pid.unsigned_abs() }.encode(&mut bytes);
            Some(monitor)
        }
        Err(f) => {
            let detail = f.detail.as_bytes();
            Frame::Failed { step: f.step as u8, errno: f.errno, detail }.encode(&mut bytes);
            None
        }
    };
    // If the daemon is gone, the container is there all the same: it will be found or removed.
    let _ = os::write_all(&daemon, &bytes);
    monitor
}

fn protocol(detail: &str) -> Failure {
    Failure { step: Step::Request, errno: libc::EPROTO, detail: detail.into() }
}

/// The descriptors of a Create, in order.
struct Files(alloc::vec::IntoIter<OwnedFd>);

impl Files {
    fn next(&mut self) -> Result<OwnedFd, Failure> {
        self.0.next().ok_or_else(|| protocol("a descriptor is missing"))
    }
}

fn receive_create(daemon: &OwnedFd) -> Result<(Box<Create>, Vec<u8>, Files), Failure> {
    let mut decoder = Decoder::new();
    let mut fds = Vec::new();
    let mut buf = [0; 16 * 1024];
    let malformed = |_| protocol("malformed request");
    loop {
        let n = os::receive(daemon, &mut buf, &mut fds).at(Step::Request, || "receive".into())?;
        if n == 0 || decoder.pending() > MAX_FRAME + 4 {
            return Err(protocol("request cut short"));
        }
        decoder.push(&buf[..n]);
        while let Some(raw) = decoder.next_raw().map_err(malformed)? {
            match Request::decode(raw).map_err(malformed)? {
                Request::Hello(VERSION) => {}
                Request::Hello(_) => return Err(protocol("unknown protocol version")),
                Request::Create(create, plan) if create.fds() == fds.len() => {
                    return Ok((create, plan.to_vec(), Files(fds.into_iter())));
                }
                _ => return Err(protocol("unexpected request")),
            }
        }
    }
}

fn create((create, plan, mut files): (Box<Create>, Vec<u8>, Files)) -> Result<Monitor, Failure> {
    let open = |what: &'static str| move || what.to_owned();
    let signals = os::signals_to_fd().at(Step::Files, open("signals"))?;
    os::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0).at(Step::Clone, open("subreaper"))?;
    let listener = files.next()?;
    os::nonblocking(&listener).at(Step::Files, open("control socket"))?;
    let exec_dir = files.next()?;
    let exit_dir = files.next()?;
    let log = match &create.log {
        Some((name, size, keep)) => {
            Some(Log::open(files.next()?, name, *size, *keep).at(Step::Files, open("log file"))?)
        }
        None => None,
    };
    let mut joins = Vec::new();
    for kind in &create.joins {
        joins.push((*kind, files.next()?));
    }
    let cgroup2 = if create.cgroup2 { Some(files.next()?) } else { None };
    let mut cgroup_procs = Vec::new();
    for _ in 0..create.cgroup_procs {
        cgroup_procs.push(files.next()?);
    }
    let oom = if create.oom { Some(files.next()?) } else { None };
    let console = if create.has_console() { Some(files.next()?) } else { None };
    let exit_name = CString::new(create.exit_name.clone()).map_err(|_| protocol("exit file name"))?;

    let streams = Streams::new(&create).at(Step::Files, open("pipes"))?;
    let joined = namespaces_to_join(&create);
    let cgroups = Cgroups { v2: cgroup2, procs: cgroup_procs };
    let (pid, door, outputs) = match &create.program {
        Some(program) => {
            let (pid, outputs) =
                crate::program::create(&create, program, &exec_dir, streams, console.as_ref())?;
            (pid, Door::Program(program.clone()), outputs)
        }
        None => {
            let (launch, outputs) = give_birth(&create, &plan, &cgroups, streams, joins)?;
            (launch.pid, Door::Barrier(launch), outputs)
        }
    };
    let pidfd = os::pidfd_open(pid).at(Step::Clone, open("process"));
    let pidfd = match pidfd {
        Ok(fd) => fd,
        Err(failure) => {
            end(pid);
            return Err(failure);
        }
    };
    // From now on our children are born in the container's pid namespace: execs need one fork only.
    // Another runtime's commands enter it themselves.
    let own_pids = if create.program.is_some() { 0 } else { (libc::CLONE_NEWPID as u64) & joined };
    if own_pids != 0
        && let Err(failure) = os::setns(&pidfd, own_pids).at(Step::Join, open("pid namespace"))
    {
        end(pid);
        return Err(failure);
    }
    Ok(Monitor::new(crate::serve::Parts {
        listener,
        exec_dir,
        exit_dir,
        exit_name,
        signals,
        log,
        cgroups,
        oom,
        pid,
        door,
        pidfd,
        namespaces: joined & !own_pids,
        outputs,
        stdin_once: create.stdin_once,
    }))
}

/// The namespaces of the container that an exec has to join: all that are not the host's.
fn namespaces_to_join(create: &Create) -> u64 {
    let mut flags = create.namespaces | create.joins.iter().fold(0, |all, kind| all | kind);
    if create.cgroup_namespace {
        flags |= libc::CLONE_NEWCGROUP as u64;
    }
    flags
}

/// Where children are put.
#[derive(Debug)]
pub(crate) struct Cgroups {
    pub(crate) v2: Option<OwnedFd>,
    pub(crate) procs: Vec<OwnedFd>,
}

impl Cgroups {
    /// Moves a new child into the v1 cgroups.
    pub(crate) fn enter(&self, pid: i32) -> Result<(), Errno> {
        let text = pid.to_string();
        self.procs.iter().try_for_each(|procs| os::write(procs, text.as_bytes()).map(drop))
    }
}

/// Both sides of the standard streams.
pub(crate) struct Streams {
    pub(crate) child: Option<[OwnedFd; 3]>,
    pub(crate) ours: Outputs,
}

impl Streams {
    fn new(create: &Create) -> Result<Self, Errno> {
        if create.terminal {
            return Ok(Self { child: None, ours: Outputs::default() });
        }
        let (stdin, stdin_writer) = if create.open_stdin {
            let (r, w) = os::pipe()?;
            os::nonblocking(&w)?;
            (r, Some(w))
        } else {
            (os::open_at(None, c"/dev/null", libc::O_RDONLY, 0)?, None)
        };
        let (stdout, out) = os::pipe()?;
        let (stderr, err) = os::pipe()?;
        os::nonblocking(&stdout)?;
        os::nonblocking(&stderr)?;
        let ours = Outputs { stdin: stdin_writer, stdout: Some(stdout), stderr: Some(stderr), peer: None };
        Ok(Self { child: Some([stdin, out, err]), ours })
    }
}

fn give_birth(
    create: &Create,
    plan: &[u8],
    cgroups: &Cgroups,
    streams: Streams,
    joins: Vec<(u64, OwnedFd)>,
) -> Result<(Launch, Outputs), Failure> {
    let (ours, theirs) = os::packet_pair().at(Step::Clone, || "sockets".into())?;
    let userns = create.id_maps.is_some();
    let sources = if userns { Some(open_sources(plan)?) } else { None };
    let (oom_score_adj, uses_pids) = (peek_oom_score(plan)?, join_pids(&joins)?);
    let mut joins = joins;
    joins.retain(|(kind, _)| *kind != libc::CLONE_NEWPID as u64);
    let mut flags = create.namespaces;
    let home = if userns { join_before(&mut joins)? } else { Vec::new() };
    if uses_pids {
        flags &= !(libc::CLONE_NEWPID as u64);
    }
    let pid = match os::clone(flags, cgroups.v2.as_ref().map(AsFd::as_fd)) {
        Ok(0) => {
            drop(ours);
            let birth = Birth {
                sync: theirs,
                stdio: streams.child,
                joins,
                cgroup_namespace: create.cgroup_namespace,
                sources,
                userns,
            };
            child::init(birth, plan)
        }
        Ok(pid) => pid,
        Err(errno) => {
            return Err(Failure { step: Step::Clone, errno, detail: format!("namespaces {flags:#x}") });
        }
    };
    for (kind, ns) in home {
        let _ = os::setns(ns, kind);
    }
    drop(theirs);
    drop(streams.child);
    let mut launch = Launch::new(pid, ours);
    let mut outputs = streams.ours;
    match raise(create, cgroups, oom_score_adj, &mut launch, &mut outputs) {
        Ok(()) => Ok((launch, outputs)),
        Err(failure) => {
            end(launch.pid);
            Err(failure)
        }
    }
}

/// Does to the new child what only its parent can, and waits until it has set itself up.
fn raise(
    create: &Create,
    cgroups: &Cgroups,
    oom_score_adj: Option<i32>,
    launch: &mut Launch,
    outputs: &mut Outputs,
) -> Result<(), Failure> {
    cgroups.enter(launch.pid).at(Step::Cgroup, || format!("process {}", launch.pid))?;
    if let Some((uids, gids)) = &create.id_maps {
        write_proc(launch.pid, "uid_map", uids).at(Step::User, || "user id map".into())?;
        write_proc(launch.pid, "gid_map", gids).at(Step::User, || "group id map".into())?;
    }
    if let Some(score) = oom_score_adj {
        set_oom_score(launch.pid, score)?;
    }
    launch.go(b'G').at(Step::Clone, || "process".into())?;
    loop {
        match launch.hear() {
            Said::Ready => break,
            Said::Nothing => {}
            Said::Running => return Err(protocol("process ran too early")),
            Said::Failed(step, errno, detail) => {
                return Err(Failure {
                    step: Step::from_u8(step).unwrap_or(Step::Clone),
                    errno,
                    detail: String::from_utf8_lossy(&detail).into_owned(),
                });
            }
        }
    }
    os::nonblocking(&launch.sync).at(Step::Clone, || "sockets".into())?;
    if let Some(master) = launch.master.take() {
        outputs.use_terminal(master).at(Step::Terminal, || "terminal".into())?;
    }
    Ok(())
}

/// Kills a child that is not to be, and reaps it.
fn end(pid: i32) {
    let _ = os::kill(pid, libc::SIGKILL);
    while let Err(libc::EINTR) = os::wait(pid) {}
}

/// Writes to a file of a process in the host's procfs, which the monitor sees.
fn write_proc(pid: i32, name: &str, bytes: &[u8]) -> Result<(), Errno> {
    let path = CString::new(format!("/proc/{pid}/{name}")).map_err(|_| libc::EINVAL)?;
    let file = os::open_at(None, &path, libc::O_WRONLY | libc::O_NOFOLLOW, 0)?;
    crate::rootfs::prove_proc(&file)?;
    os::write_all(file, bytes)
}

/// Sets a process's score for the out-of-memory killer.
pub(crate) fn set_oom_score(pid: i32, score: i32) -> Result<(), Failure> {
    match write_proc(pid, "oom_score_adj", score.to_string().as_bytes()) {
        // Lowering needs a right that a rootless daemon or one in a container has not; then the
        // process has the daemon's own score.
        Err(libc::EACCES) => Ok(()),
        r => r.at(Step::Rlimit, || "oom_score_adj".into()),
    }
}

fn decode(plan: &[u8]) -> Result<Container, Failure> {
    Container::decode(&mut Reader::new(plan)).map_err(|_| protocol("malformed launch plan"))
}

fn peek_oom_score(plan: &[u8]) -> Result<Option<i32>, Failure> {
    Ok(decode(plan)?.process.oom_score_adj)
}

/// In a user namespace the host's files cannot be opened any more.
fn open_sources(plan: &[u8]) -> Result<Sources, Failure> {
    Sources::open(&decode(plan)?, true)
}

/// A pid namespace can only be entered by being born in it.
fn join_pids(joins: &[(u64, OwnedFd)]) -> Result<bool, Failure> {
    for (kind, ns) in joins {
        if *kind == libc::CLONE_NEWPID as u64 {
            os::setns(ns, *kind).at(Step::Join, || "pid namespace".into())?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Enters namespaces of the host's user namespace, which a child in its own could not; gives the way
/// back.
fn join_before(joins: &mut Vec<(u64, OwnedFd)>) -> Result<Vec<(u64, OwnedFd)>, Failure> {
    let mut home = Vec::new();
    for (kind, ns) in joins.drain(..) {
        let name = match i32::try_from(kind) {
            Ok(libc::CLONE_NEWNET) => c"/proc/self/ns/net",
            Ok(libc::CLONE_NEWIPC) => c"/proc/self/ns/ipc",
            Ok(libc::CLONE_NEWUTS) => c"/proc/self/ns/uts",
            _ => return Err(protocol("namespace that cannot be joined from a user namespace")),
        };
        let here = || format!("namespace {kind:#x}");
        home.push((kind, os::open_at(None, name, libc::O_RDONLY, 0).at(Step::Join, here)?));
        os::setns(&ns, kind).at(Step::Join, here)?;
    }
    Ok(home)
}
