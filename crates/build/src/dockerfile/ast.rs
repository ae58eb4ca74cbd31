//! What a Dockerfile says, as data.

use super::check::Check;
use super::mount::MountSpec;
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// Where something stands in the file. Lines and columns count from 1; columns count characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// First line.
    pub line: u32,
    /// Last line: that of the last continuation, or of the last heredoc's end.
    pub end_line: u32,
    /// Column in the first line.
    pub column: u32,
}

/// A whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// The comments at the top that are not comments.
    pub directives: Directives,
    /// In the order of the file; at least one.
    pub instructions: Vec<Instruction>,
    /// The lines at which an instruction with empty continuation lines ends (rule `NoEmptyContinuation`).
    pub empty_continuations: Vec<Span>,
}

/// `# name=value` before anything else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// `# syntax=`: the image of the frontend that the file asks for, the whole value.
    pub syntax: Option<String>,
    /// `# escape=`: `\` or a backquote.
    pub escape: Escape,
    /// `# check=`: what the linter is to do.
    pub check: Check,
}

/// The character that escapes the next one and joins lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Escape {
    /// `\`
    #[default]
    Backslash,
    /// A backquote, for files with Windows paths.
    Backquote,
}

impl Escape {
    /// The character.
    #[must_use]
    pub fn char(self) -> char {
        match self {
            Self::Backslash => '\\',
            Self::Backquote => '`',
        }
    }
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Where it stands, heredocs included.
    pub span: Span,
    /// Its first word as written (`RUN`, `run`).
    pub name: String,
    /// As written, trimmed, continuation lines joined, comments and heredoc bodies left out: what progress and history show.
    pub source: String,
    /// The comments directly above it, trimmed, without `#`.
    pub comments: Vec<String>,
    /// In the order in which they are named; those of an `ONBUILD` are its trigger's.
    pub heredocs: Vec<Heredoc>,
    /// What it says.
    pub kind: Kind,
}

/// A text that is expanded later ([`expand`](super::expand())): quotes, escapes and variables are still in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Word(pub String);

impl Word {
    /// As written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Word {
    fn from(s: &str) -> Self {
        Self(s.to_owned())
    }
}

/// `<<EOF` and the lines up to `EOF`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter, quotes removed; for `COPY` and `ADD` the name of the file.
    pub name: String,
    /// The number before `<<`: 0 without one.
    pub fd: u32,
    /// Whether variables are expanded (in `COPY` and `ADD`): the delimiter was not quoted.
    pub expand: bool,
    /// `<<-`: tabs at the start of lines do not count.
    pub chomp: bool,
    /// The lines as written, each with its line end.
    pub content: String,
}

impl Heredoc {
    /// The content without the tabs that `<<-` takes away.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        if !self.chomp {
            return Cow::Borrowed(&self.content);
        }
        Cow::Owned(self.content.split_inclusive('\n').map(|l| l.trim_start_matches('\t')).collect())
    }
}

/// A command in one of its two forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// For the shell that `SHELL` names; as written.
    Shell(String),
    /// A JSON array: run as it is. Nothing in it is expanded.
    Exec(Vec<String>),
}

/// The instructions of the reference.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Add(AddCmd),
    Arg(Vec<ArgDef>),
    Cmd(Command),
    Copy(CopyCmd),
    Entrypoint(Command),
    Env(Vec<Pair>),
    /// Sorted; each may expand to several words ([`expand_words`](super::expand_words)), each of which is a port
    /// ([`ports`](super::ports())).
    Expose(Vec<Word>),
    From(FromCmd),
    Healthcheck(Healthcheck),
    Label(Vec<Pair>),
    /// Not expanded.
    Maintainer(String),
    Onbuild(OnbuildCmd),
    Run(RunCmd),
    /// Never empty.
    Shell(Vec<String>),
    Stopsignal(Word),
    User(Word),
    Volume(Vec<Word>),
    Workdir(Word),
}

/// `FROM [--platform=p] image [AS name]`. Its words see the global `ARG`s only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FromCmd {
    /// An image, the name of an earlier stage, or `scratch`.
    pub image: Word,
    /// `--platform`.
    pub platform: Option<Word>,
    /// The stage's name, in lower case.
    pub alias: Option<String>,
    /// `AS name` as written.
    pub written: Option<(String, String)>,
}

/// `ARG name[=default]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgDef {
    /// As written.
    pub name: String,
    /// Expanded only where no build argument is given.
    pub default: Option<Word>,
    /// From a comment above: `# name description`.
    pub doc: Option<String>,
}

/// `key=value` of `ENV` and `LABEL`; both are expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Left of the first `=`.
    pub key: Word,
    /// Right of it.
    pub value: Word,
    /// `ENV key value`: the form without `=`.
    pub legacy: bool,
}

/// A heredoc that `COPY` or `ADD` turns into a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlineFile {
    /// The file's name below the destination.
    pub name: String,
    /// Its content; expanded ([`Mode::Heredoc`](super::Mode::Heredoc)) where `expand` says so.
    pub content: String,
    /// Whether the content is expanded.
    pub expand: bool,
}

/// `COPY [flags] source... destination`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyCmd {
    /// Sources and destination.
    pub paths: Paths,
    /// `--from`: a stage's name or number, a named context or an image. Never expanded.
    pub from: Option<String>,
    /// `--parents`: the source's folders are made below the destination.
    pub parents: bool,
}

/// `ADD [flags] source... destination`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCmd {
    /// Sources and destination.
    pub paths: Paths,
    /// `--keep-git-dir`, if given.
    pub keep_git_dir: Option<bool>,
    /// `--checksum`: what a remote source must have.
    pub checksum: Option<Word>,
    /// `--unpack`, if given: whether archives are unpacked. Without it local ones are, remote ones not.
    pub unpack: Option<bool>,
}

/// What `COPY` and `ADD` have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    /// Paths, and for `ADD` also URLs and repositories.
    pub sources: Vec<Word>,
    /// The sources that are heredocs.
    pub files: Vec<InlineFile>,
    /// Where to.
    pub dest: Word,
    /// `--chown`
    pub chown: Option<Word>,
    /// `--chmod`
    pub chmod: Option<Word>,
    /// `--link`
    pub link: bool,
    /// `--exclude`, in order; never expanded.
    pub exclude: Vec<String>,
}

/// `HEALTHCHECK`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healthcheck {
    /// `HEALTHCHECK NONE`: that of the base image is switched off.
    None,
    /// `HEALTHCHECK [flags] CMD command`. Zero stands for the engine's default.
    Check {
        /// What is run.
        command: Command,
        /// `--interval`
        interval: Duration,
        /// `--timeout`
        timeout: Duration,
        /// `--start-period`
        start_period: Duration,
        /// `--start-interval`
        start_interval: Duration,
        /// `--retries`
        retries: u32,
    },
}

/// `ONBUILD instruction`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnbuildCmd {
    /// The instruction; never `FROM`, `ONBUILD` or `MAINTAINER`.
    pub trigger: Box<Instruction>,
    /// Its text as it is stored in the image, heredocs included: [`parse_trigger`](super::parse_trigger) reads it.
    pub expression: String,
}

/// `RUN [flags] command`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunCmd {
    /// What is run.
    pub body: RunBody,
    /// `--mount`, in order.
    pub mounts: Vec<MountSpec>,
    /// `--network`
    pub network: Network,
    /// `--security`
    pub security: Security,
    /// `--device`, in order.
    pub devices: Vec<Device>,
}

/// What `RUN` runs. Nothing in it is expanded here: the shell does that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunBody {
    /// For the shell; heredocs stand in it as a shell expects them, and a bare heredoc is the whole text.
    Shell(String),
    /// A JSON array: run as it is.
    Exec(Vec<String>),
    /// A bare heredoc that starts with `#!`: a file of this name is made and run.
    Script {
        /// The heredoc's name.
        name: String,
        /// The file's content.
        content: String,
    },
}

/// `--network` of `RUN`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Network {
    /// That of the build.
    #[default]
    Default,
    /// None but loopback.
    None,
    /// That of the host; needs the entitlement `network.host`.
    Host,
}

/// `--security` of `RUN`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Security {
    /// As any container.
    #[default]
    Sandbox,
    /// As a privileged one; needs the entitlement `security.insecure`.
    Insecure,
}

/// `--device` of `RUN`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Device {
    /// A CDI name: `vendor.com/class=name`, or a class alone. Empty: any.
    pub name: String,
    /// Whether a missing device is an error.
    pub required: bool,
}
