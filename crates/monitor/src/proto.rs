//! Messages between the daemon and a monitor.
//!
//! A frame is a 32-bit little-endian length (of what follows), one byte for the type, and the body.
//! Frames are at most [`MAX_FRAME`] long. On the socket in a container's exec directory a client
//! says [`Request::Hello`] first, then one request:
//!
//! | request | answers |
//! | --- | --- |
//! | `Start` | `Ok` or `Failed` |
//! | `Signal`, `Resize` | `Ok` or `Failed` |
//! | `Status` | `Status` |
//! | `Wait` | `Exit` when the container has ended |
//! | `Attach` | `Ok`, then `Output` frames, and `Exit` as the last; the client may send `Stdin`, `StdinEof` |
//! | `Exec` (with descriptors) | `Started` (with the terminal, if any) or `Failed`, then `Exit` |
//! | `Run` (version 2; only where another program makes the container) | as for `Exec` |
//!
//! The monitor's standard input is a socket on which it gets `Hello` and `Create` with descriptors
//! (the order is that of the fields of [`Create`]) and answers `Created` or `Failed`.
//!
//! A monitor lives as long as its container, so it may be older than the daemon: numbers are never
//! used again, fields are only added at the end together with a new version, and a daemon does not
//! send what the version in the monitor's `Hello` does not know. A monitor refuses types that it does
//! not know by `Failed`. Nothing here does I/O: bytes go into a [`Decoder`] and come out of `encode`.

use core::ffi::CStr;

use crate::wire::{Malformed, Put, Reader, put_cstr};
use alloc::boxed::Box;
use alloc::ffi::CString;
use alloc::vec::Vec;

/// Version of this protocol.
pub const VERSION: u16 = 2;
/// Longest frame: type and body.
pub const MAX_FRAME: usize = 1 << 20;
/// Longest piece of output or input in one frame.
pub const MAX_CHUNK: usize = 32 * 1024;
/// First field of `Hello`.
const MAGIC: u32 = 0x4e4d_534c;

/// Which output a piece belongs to. A terminal has only `Stdout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stream {
    /// Standard output.
    Stdout = 1,
    /// Standard error.
    Stderr = 2,
}

/// What a step of the launch was about; it is reported with an error number and a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// The request itself: malformed, unknown, or not possible in this state.
    Request = 1,
    /// Making the process and its namespaces.
    Clone = 2,
    /// Entering its cgroups.
    Cgroup = 3,
    /// Joining namespaces.
    Join = 4,
    /// Preparing the root file system.
    Rootfs = 5,
    /// A mount.
    Mount = 6,
    /// A device node.
    Device = 7,
    /// Hiding or protecting a path.
    Mask = 8,
    /// Host name and domain name.
    Hostname = 9,
    /// A kernel setting.
    Sysctl = 10,
    /// The terminal.
    Terminal = 11,
    /// Resource limits.
    Rlimit = 12,
    /// AppArmor profile.
    Apparmor = 13,
    /// System call filter.
    Seccomp = 14,
    /// User and groups.
    User = 15,
    /// Capabilities.
    Capabilities = 16,
    /// Working directory.
    Cwd = 17,
    /// Finding the command: the text is the whole message.
    Lookup = 18,
    /// Executing the command: the text is the whole message.
    Exec = 19,
    /// Log file, exit file, sockets.
    Files = 20,
    /// Signals, resizing.
    Control = 21,
    /// A command of another OCI runtime: the number is its exit code, not an error number.
    Program = 22,
}

impl Step {
    /// From its number.
    #[must_use]
    pub fn from_u8(n: u8) -> Option<Self> {
        use Step::*;
        let all = [
            Request,
            Clone,
            Cgroup,
            Join,
            Rootfs,
            Mount,
            Device,
            Mask,
            Hostname,
            Sysctl,
            Terminal,
            Rlimit,
            Apparmor,
            Seccomp,
            User,
            Capabilities,
            Cwd,
            Lookup,
            Exec,
            Files,
            Control,
            Program,
        ];
        all.into_iter().find(|s| *s as u8 == n)
    }

    /// A few words for messages.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Clone => "make process",
            Self::Cgroup => "enter cgroup",
            Self::Join => "join namespaces",
            Self::Rootfs => "prepare root file system",
            Self::Mount => "mount",
            Self::Device => "make device",
            Self::Mask => "protect path",
            Self::Hostname => "set host name",
            Self::Sysctl => "set sysctl",
            Self::Terminal => "make terminal",
            Self::Rlimit => "set resource limit",
            Self::Apparmor => "set AppArmor profile",
            Self::Seccomp => "install seccomp filter",
            Self::User => "change user",
            Self::Capabilities => "set capabilities",
            Self::Cwd => "change working directory",
            Self::Lookup | Self::Exec => "exec",
            Self::Files => "open files",
            Self::Control => "control process",
            Self::Program => "OCI runtime",
        }
    }
}

/// How the container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; 128 and the signal if a signal ended it.
    pub code: i32,
    /// The signal, or 0.
    pub signal: i32,
    /// Whether the kernel killed something in its cgroup because memory ran out.
    pub oom: bool,
    /// When, in nanoseconds since 1970.
    pub finished_ns: i64,
}

/// What the monitor is told once, before everything else. Descriptors come with it in the order of
/// the fields marked (fd), those that are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Create {
    /// `CLONE_NEW*` of the namespaces to make, without the cgroup namespace.
    pub namespaces: u64,
    /// Make a cgroup namespace, once the process is in its cgroup.
    pub cgroup_namespace: bool,
    /// Contents of uid_map and gid_map when a user namespace is made.
    pub id_maps: Option<(Vec<u8>, Vec<u8>)>,
    /// The first process gets a terminal.
    pub terminal: bool,
    /// Keep standard input open for clients that attach.
    pub open_stdin: bool,
    /// Close standard input when the first client has left or ended it.
    pub stdin_once: bool,
    // (fd) listening control socket, (fd) exec directory, (fd) directory of the exit file
    /// Name of the exit file.
    pub exit_name: Vec<u8>,
    /// (fd) directory of the log; name, size at which it is rotated (0: never), files to keep.
    pub log: Option<(Vec<u8>, u64, u32)>,
    /// (fd each) `CLONE_NEW*` of namespaces to join.
    pub joins: Vec<u64>,
    /// (fd) v2 cgroup directory to be born in.
    pub cgroup2: bool,
    /// (fd each) `cgroup.procs` files to be written to.
    pub cgroup_procs: u32,
    /// (fd) file with an `oom_kill` counter.
    pub oom: bool,
    /// Another program makes the container. (fd) listening socket for its terminal, if it has one.
    pub program: Option<Program>,
}

/// The commands of an OCI runtime that makes the container instead of the monitor. They run in the
/// container's exec directory. Each writes the process that it has made to [`PID_FILE`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// Path and arguments of `create`.
    pub create: Vec<CString>,
    /// Path and arguments of `start`.
    pub start: Vec<CString>,
    /// Environment of both, and of execs.
    pub env: Vec<CString>,
}

/// Where `create` of an OCI runtime writes the number of the container's first process.
pub const PID_FILE: &CStr = c"init.pid";

/// A command of an OCI runtime that adds a process to the container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Path and arguments.
    pub args: Vec<CString>,
    /// Name of the file, in the exec directory, that the process's number is written to.
    pub pid_file: CString,
    /// The process has a terminal.
    pub terminal: bool,
}

impl Run {
    fn encode(&self, out: &mut Vec<u8>) {
        out.list(&self.args, |o, arg| put_cstr(o, arg));
        put_cstr(out, &self.pid_file);
        out.u8(u8::from(self.terminal));
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { args: r.list(Reader::cstring)?, pid_file: r.cstring()?, terminal: r.bool()? })
    }
}

impl Program {
    fn encode(&self, out: &mut Vec<u8>) {
        for list in [&self.create, &self.start, &self.env] {
            out.list(list, |o, arg| put_cstr(o, arg));
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            create: r.list(Reader::cstring)?,
            start: r.list(Reader::cstring)?,
            env: r.list(Reader::cstring)?,
        })
    }
}

impl Create {
    /// How many descriptors come along.
    #[must_use]
    pub fn fds(&self) -> usize {
        3 + usize::from(self.log.is_some())
            + self.joins.len()
            + usize::from(self.cgroup2)
            + self.cgroup_procs as usize
            + usize::from(self.oom)
            + usize::from(self.has_console())
    }

    /// Whether a socket for the terminal comes along.
    #[must_use]
    pub fn has_console(&self) -> bool {
        self.terminal && self.program.is_some()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.u64(self.namespaces);
        out.u8(u8::from(self.cgroup_namespace));
        out.option(self.id_maps.as_ref(), |o, (uids, gids)| {
            o.bytes(uids);
            o.bytes(gids);
        });
        for flag in [self.terminal, self.open_stdin, self.stdin_once] {
            out.u8(u8::from(flag));
        }
        out.bytes(&self.exit_name);
        out.option(self.log.as_ref(), |o, (name, size, files)| {
            o.bytes(name);
            o.u64(*size);
            o.u32(*files);
        });
        out.list(&self.joins, |o, v| o.u64(*v));
        out.u8(u8::from(self.cgroup2));
        out.u32(self.cgroup_procs);
        out.u8(u8::from(self.oom));
        out.option(self.program.as_ref(), |o, program| program.encode(o));
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            namespaces: r.u64()?,
            cgroup_namespace: r.bool()?,
            id_maps: r.option(|r| Ok((r.bytes()?.to_vec(), r.bytes()?.to_vec())))?,
            terminal: r.bool()?,
            open_stdin: r.bool()?,
            stdin_once: r.bool()?,
            exit_name: r.bytes()?.to_vec(),
            log: r.option(|r| Ok((r.bytes()?.to_vec(), r.u64()?, r.u32()?)))?,
            joins: r.list(Reader::u64)?,
            cgroup2: r.bool()?,
            cgroup_procs: r.u32()?,
            oom: r.bool()?,
            program: r.option(Program::decode)?,
        })
    }
}

/// From the daemon to a monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// First on every connection; the version that the sender speaks.
    Hello(u16),
    /// Make the container; the second part is an encoded [`crate::plan::Container`].
    Create(Box<Create>, &'a [u8]),
    /// Let the container's command run.
    Start,
    /// Send a signal to the container's process (0) or an exec's.
    Signal {
        /// Process id as the monitor gave it, or 0.
        pid: u32,
        /// Signal number.
        signal: i32,
    },
    /// Set the size of the container's terminal.
    Resize {
        /// Columns.
        cols: u16,
        /// Rows.
        rows: u16,
    },
    /// Stream output from now on, and take input.
    Attach {
        /// Client sends input.
        stdin: bool,
        /// Client wants standard output.
        stdout: bool,
        /// Client wants standard error.
        stderr: bool,
    },
    /// Say when it ends.
    Wait,
    /// Start another process; an encoded [`crate::plan::Process`], its three standard descriptors
    /// unless it has a terminal, and perhaps the v2 cgroup to be born in instead of the container's.
    Exec(&'a [u8]),
    /// Input for the container.
    Stdin(&'a [u8]),
    /// No more input from this client.
    StdinEof,
    /// How is it?
    Status,
    /// Let another OCI runtime start a process; its three standard descriptors, or a listening socket
    /// for its terminal.
    Run(Box<Run>),
}

/// From a monitor to the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// First on every connection; the version of the monitor.
    Hello(u16),
    /// Done.
    Ok,
    /// Not done.
    Failed {
        /// What failed (a [`Step`], or newer).
        step: u8,
        /// Error number, or 0.
        errno: i32,
        /// What it was about.
        detail: &'a [u8],
    },
    /// The container is ready to start; process id of its first process.
    Created {
        /// In the daemon's namespace.
        pid: u32,
    },
    /// An exec's process runs. A terminal comes along as a descriptor.
    Started {
        /// In the daemon's namespace.
        pid: u32,
    },
    /// A piece of output.
    Output {
        /// Where it was written.
        stream: Stream,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// It has ended.
    Exit(Exit),
    /// State of the container.
    Status {
        /// Its first process.
        pid: u32,
        /// Whether it was started.
        started: bool,
        /// Whether it has ended.
        exited: bool,
    },
}

/// Appends a frame of type `kind` with the body that `body` writes.
fn frame(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.u32(0);
    out.u8(kind);
    body(out);
    let len = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX);
    out[at..at + 4].copy_from_slice(&len.to_le_bytes());
}

impl Request<'_> {
    /// Appends the request. The caller sees to it that it is not longer than [`MAX_FRAME`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(version) => frame(out, 1, |o| {
                o.u32(MAGIC);
                o.u16(*version);
            }),
            Self::Create(create, plan) => frame(out, 2, |o| {
                create.encode(o);
                o.extend_from_slice(plan);
            }),
            Self::Start => frame(out, 3, |_| {}),
            Self::Signal { pid, signal } => frame(out, 4, |o| {
                o.u32(*pid);
                o.i32(*signal);
            }),
            Self::Resize { cols, rows } => frame(out, 5, |o| {
                o.u16(*cols);
                o.u16(*rows);
            }),
            Self::Attach { stdin, stdout, stderr } => frame(out, 6, |o| {
                o.u8(u8::from(*stdin) | u8::from(*stdout) << 1 | u8::from(*stderr) << 2);
            }),
            Self::Wait => frame(out, 7, |_| {}),
            Self::Exec(process) => frame(out, 8, |o| o.extend_from_slice(process)),
            Self::Stdin(bytes) => frame(out, 9, |o| o.extend_from_slice(bytes)),
            Self::StdinEof => frame(out, 10, |_| {}),
            Self::Status => frame(out, 11, |_| {}),
            Self::Run(run) => frame(out, 12, |o| run.encode(o)),
        }
    }
}

impl<'a> Request<'a> {
    /// Reads a request from a frame's type and body.
    ///
    /// # Errors
    /// When the type is unknown or the body malformed.
    pub fn decode((kind, body): (u8, &'a [u8])) -> Result<Self, Malformed> {
        let mut r = Reader::new(body);
        let request = match kind {
            1 => {
                if r.u32()? != MAGIC {
                    return Err(Malformed);
                }
                // A newer sender may say more.
                return Ok(Self::Hello(r.u16()?));
            }
            2 => {
                let create = Create::decode(&mut r)?;
                return Ok(Self::Create(Box::new(create), r.rest()));
            }
            3 => Self::Start,
            4 => Self::Signal { pid: r.u32()?, signal: r.i32()? },
            5 => Self::Resize { cols: r.u16()?, rows: r.u16()? },
            6 => {
                let bits = r.u8()?;
                Self::Attach { stdin: bits & 1 != 0, stdout: bits & 2 != 0, stderr: bits & 4 != 0 }
            }
            7 => Self::Wait,
            8 => return Ok(Self::Exec(r.rest())),
            9 => return Ok(Self::Stdin(r.rest())),
            10 => Self::StdinEof,
            11 => Self::Status,
            12 => Self::Run(Box::new(Run::decode(&mut r)?)),
            _ => return Err(Malformed),
        };
        r.end()?;
        Ok(request)
    }
}

impl Frame<'_> {
    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(version) => frame(out, 64, |o| o.u16(*version)),
            Self::Ok => frame(out, 65, |_| {}),
            Self::Failed { step, errno, detail } => frame(out, 66, |o| {
                o.u8(*step);
                o.i32(*errno);
                o.extend_from_slice(detail);
            }),
            Self::Created { pid } => frame(out, 67, |o| o.u32(*pid)),
            Self::Started { pid } => frame(out, 68, |o| o.u32(*pid)),
            Self::Output { stream, bytes } => frame(out, 69, |o| {
                o.u8(*stream as u8);
                o.extend_from_slice(bytes);
            }),
            Self::Exit(exit) => frame(out, 70, |o| {
                o.i32(exit.code);
                o.i32(exit.signal);
                o.u8(u8::from(exit.oom));
                o.i64(exit.finished_ns);
            }),
            Self::Status { pid, started, exited } => frame(out, 71, |o| {
                o.u32(*pid);
                o.u8(u8::from(*started));
                o.u8(u8::from(*exited));
            }),
        }
    }
}

impl<'a> Frame<'a> {
    /// Reads a frame from its type and body.
    ///
    /// # Errors
    /// When the type is unknown or the body malformed.
    pub fn decode((kind, body): (u8, &'a [u8])) -> Result<Self, Malformed> {
        let mut r = Reader::new(body);
        Ok(match kind {
            64 => Self::Hello(r.u16()?),
            65 => Self::Ok,
            66 => Self::Failed { step: r.u8()?, errno: r.i32()?, detail: r.rest() },
            67 => Self::Created { pid: r.u32()? },
            68 => Self::Started { pid: r.u32()? },
            69 => {
                let stream = match r.u8()? {
                    1 => Stream::Stdout,
                    2 => Stream::Stderr,
                    _ => return Err(Malformed),
                };
                Self::Output { stream, bytes: r.rest() }
            }
            70 => {
                Self::Exit(Exit { code: r.i32()?, signal: r.i32()?, oom: r.bool()?, finished_ns: r.i64()? })
            }
            71 => Self::Status { pid: r.u32()?, started: r.bool()?, exited: r.bool()? },
            _ => return Err(Malformed),
        })
    }
}

/// Cuts a byte stream into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buf: Vec<u8>,
    at: usize,
}

impl Decoder {
    /// With nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes as they were read.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.at > 0 {
            self.buf.drain(..self.at);
            self.at = 0;
        }
        self.buf.extend_from_slice(bytes);
    }

    /// Type and body of the next complete frame.
    ///
    /// # Errors
    /// When the next frame is longer than [`MAX_FRAME`] or empty; the stream is then useless.
    pub fn next_raw(&mut self) -> Result<Option<(u8, &[u8])>, Malformed> {
        let rest = &self.buf[self.at..];
        let Some((len, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_le_bytes(*len) as usize;
        if len == 0 || len > MAX_FRAME {
            return Err(Malformed);
        }
        if rest.len() < len {
            return Ok(None);
        }
        let start = self.at + 4;
        self.at = start + len;
        let body = &self.buf[start..self.at];
        Ok(Some((body[0], &body[1..])))
    }

    /// The next complete frame of a monitor.
    ///
    /// # Errors
    /// When the stream is malformed.
    #[expect(clippy::should_implement_trait, reason = "lends from itself, so it cannot be an Iterator")]
    pub fn next(&mut self) -> Result<Option<Frame<'_>>, Malformed> {
        self.next_raw()?.map(Frame::decode).transpose()
    }

    /// Bytes that belong to no complete frame yet.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.buf.len() - self.at
    }

    /// Gives back memory when nothing is pending.
    pub fn shrink(&mut self) {
        if self.pending() == 0 {
            self.buf = Vec::new();
            self.at = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn frames_survive_any_cutting() {
        let frames = [
            Frame::Hello(VERSION),
            Frame::Ok,
            Frame::Failed { step: Step::Mount as u8, errno: 13, detail: b"/proc" },
            Frame::Created { pid: 7 },
            Frame::Started { pid: 8 },
            Frame::Output { stream: Stream::Stderr, bytes: b"text" },
            Frame::Output { stream: Stream::Stdout, bytes: b"" },
            Frame::Exit(Exit { code: 137, signal: 9, oom: true, finished_ns: -1 }),
            Frame::Status { pid: 7, started: true, exited: false },
        ];
        let mut bytes = Vec::new();
        frames.iter().for_each(|f| f.encode(&mut bytes));
        for size in [1, 3, 7, bytes.len()] {
            let mut decoder = Decoder::new();
            let mut n = 0;
            for piece in bytes.chunks(size) {
                decoder.push(piece);
                while let Some(frame) = decoder.next().unwrap() {
                    assert_eq!(frame, frames[n]);
                    n += 1;
                }
            }
            assert_eq!(n, frames.len());
            assert_eq!(decoder.pending(), 0);
        }
    }

    #[test]
    fn requests_survive() {
        let create = Create {
            namespaces: 5,
            id_maps: Some((b"0 1 2".to_vec(), b"0 3 4".to_vec())),
            exit_name: b"exit".to_vec(),
            log: Some((b"l".to_vec(), 10, 3)),
            joins: vec![1, 2],
            cgroup_procs: 4,
            oom: true,
            terminal: true,
            program: Some(Program { create: vec![c"/bin/oci".into()], ..Program::default() }),
            ..Create::default()
        };
        assert_eq!(create.fds(), 3 + 1 + 2 + 4 + 1 + 1);
        let requests = [
            Request::Hello(3),
            Request::Create(Box::new(create), b"plan"),
            Request::Start,
            Request::Signal { pid: 0, signal: -1 },
            Request::Resize { cols: 80, rows: 24 },
            Request::Attach { stdin: true, stdout: false, stderr: true },
            Request::Wait,
            Request::Exec(b"process"),
            Request::Stdin(b"in"),
            Request::StdinEof,
            Request::Status,
            Request::Run(Box::new(Run {
                args: vec![c"/bin/oci".into(), c"exec".into()],
                pid_file: c"p".into(),
                terminal: true,
            })),
        ];
        let mut bytes = Vec::new();
        requests.iter().for_each(|r| r.encode(&mut bytes));
        let mut decoder = Decoder::new();
        decoder.push(&bytes);
        for request in &requests {
            assert_eq!(&Request::decode(decoder.next_raw().unwrap().unwrap()).unwrap(), request);
        }
    }

    #[test]
    fn oversized_and_empty_frames_are_refused() {
        let mut decoder = Decoder::new();
        decoder.push(&u32::try_from(MAX_FRAME + 1).unwrap().to_le_bytes());
        assert!(decoder.next_raw().is_err());
        let mut decoder = Decoder::new();
        decoder.push(&[0; 4]);
        assert!(decoder.next_raw().is_err());
        assert!(Request::decode((200, b"")).is_err());
        assert!(Frame::decode((1, b"")).is_err());
        assert_eq!(Step::from_u8(Step::Exec as u8), Some(Step::Exec));
        assert_eq!(Step::from_u8(0), None);
    }
}
