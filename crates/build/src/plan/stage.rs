//! One stage: what each of its instructions does to the files and to the configuration.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use longshore_oci::Platform;
use longshore_oci::image::{Empty, HealthConfig, RunConfig};

use crate::dockerfile::{
    self, Command, FromCmd, Healthcheck, Instruction, Kind, Pair, RunBody, RunCmd, Security, Source, Span,
    Word,
};
use crate::graph::{self, Copy, Mkdir, Network, Op, Run, RunFile, Stamp, Step, StepId, Tree};
use crate::remote::Remote;
use crate::{Error, Result};

use super::image::{Made, nanoseconds};
use super::scope::{self, View, at, text};
use super::{Image, Named, NoCache, Planner, Row};

/// Where programs are looked for when nobody says so.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The shell of a shell form when `SHELL` names none.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// A stage as far as it was planned.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    name: Option<String>,
    pub(super) index: usize,
    pub(super) image: Image,
    /// Arguments that were declared, here and in the stages below, with the values that count: `None` where there is no value,
    /// or a later `ENV` of that name.
    args: Vec<(String, Option<String>)>,
    /// The stage itself said what is run.
    cmd_set: bool,
    fresh: bool,
}

impl Stage {
    /// Plans all instructions of a stage.
    pub(super) fn plan(planner: &mut Planner<'_>, index: usize) -> Result<Self> {
        let stages = planner.stages;
        let part = stages.stages.stages.get(index);
        let part = part.ok_or_else(|| Error::Internal(format!("there is no stage {index}")))?;
        let rows = planner.shared.rows.len();
        let (mut stage, step) = Self::start(planner, index, part.from, part.head.span)?;
        stage.row(planner, part.head, step);
        if part.from.alias.as_ref().is_some_and(|alias| planner.options.contexts.contains_key(alias)) {
            // What the file says of it does not count.
            return Ok(stage);
        }
        let triggers = stage.config().on_build.take().unwrap_or_default();
        let triggers = dockerfile::parse_triggers(&triggers).map_err(|e| {
            Error::Invalid(format!("line {}: a trigger of the base image: {e}", part.head.span.line))
        })?;
        for instruction in &triggers {
            stage.instruction(planner, instruction)?;
        }
        for instruction in part.body {
            stage.instruction(planner, instruction)?;
        }
        planner.shared.forget_equal_rows(rows);
        Ok(stage)
    }

    /// The stage as its `FROM` makes it, and the step that this takes if any.
    fn start(
        planner: &mut Planner<'_>,
        index: usize,
        from: &FromCmd,
        span: Span,
    ) -> Result<(Self, Option<StepId>)> {
        let platform = match planner.stages.variables.get(index).and_then(|v| v.platform.as_ref()) {
            None => planner.platform.clone(),
            Some(given) => given.parse::<Platform>().map_err(|_| {
                at(span, &format!("failed to parse platform {given:?}: use os/architecture[/variant]"))
            })?,
        };
        let fresh = match &planner.options.no_cache {
            NoCache::Never => false,
            NoCache::Always => true,
            NoCache::Stages(names) => {
                from.alias.as_ref().is_some_and(|a| names.contains(a)) || names.contains(&index.to_string())
            }
        };
        let base = planner.stages.bases.get(index);
        let instead = from.alias.as_deref().and_then(|alias| planner.options.contexts.get(alias));
        let named = instead.or_else(|| match base {
            Some(Source::Image(name)) => planner.options.named(name),
            _ => None,
        });
        let mut step = None;
        let (image, args) = match base {
            _ if let Some(named) = named.cloned() => {
                let image;
                (image, step) = of_context(planner, index, &named, &platform, fresh, span)?;
                (image, Vec::new())
            }
            Some(Source::Stage(before)) => {
                let before = planner.done.get(before);
                let before = before
                    .ok_or_else(|| Error::Internal(format!("the base of stage {index} was not planned")))?;
                (before.image.clone(), before.inherited())
            }
            Some(Source::Image(name)) => (of_base(planner, &name.clone(), &platform, span)?, Vec::new()),
            Some(Source::Scratch) | None => (nothing(planner, platform), Vec::new()),
        };
        let name = from.alias.clone();
        Ok((Self { name, index, image, args, cmd_set: false, fresh }, step))
    }

    /// Arguments for a stage that starts from this one: there its variables were set last.
    fn inherited(&self) -> Vec<(String, Option<String>)> {
        let env = self.image.config.env.as_deref().unwrap_or_default();
        let in_env = |name: &str| env.iter().any(|e| e.split_once('=').is_some_and(|(n, _)| n == name));
        self.args
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().filter(|_| !in_env(name))))
            .collect()
    }

    pub(super) fn view(&self) -> View<'_> {
        View { env: self.image.config.env.as_deref().unwrap_or_default(), args: &self.args }
    }

    fn config(&mut self) -> &mut RunConfig {
        Arc::make_mut(&mut self.image.config)
    }

    pub(super) fn expanded(&self, planner: &Planner<'_>, word: &Word, span: Span) -> Result<String> {
        text(word, &self.view(), planner.escape, span)
    }

    fn called(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.index.to_string())
    }

    /// What it is made for, in BuildKit's words.
    fn platform(&self, planner: &Planner<'_>) -> Option<String> {
        let (own, target) = (&self.image.platform, planner.platform);
        let same = own.runs_on(target);
        let text = if same { own.to_string() } else { format!("{own}->{}", target.architecture) };
        planner.shared.several.then_some(text)
    }

    fn row(&self, planner: &mut Planner<'_>, instruction: &Instruction, step: Option<StepId>) {
        let platform = self.platform(planner);
        planner.shared.rows.push(Row {
            text: instruction.source.clone(),
            span: instruction.span,
            stage: self.called(),
            platform,
            step,
            after: self.image.clone(),
        });
    }

    fn instruction(&mut self, planner: &mut Planner<'_>, instruction: &Instruction) -> Result<()> {
        let step = self.apply(planner, instruction)?;
        self.row(planner, instruction, step);
        Ok(())
    }

    fn apply(&mut self, planner: &mut Planner<'_>, instruction: &Instruction) -> Result<Option<StepId>> {
        let span = instruction.span;
        let mut by = instruction.source.clone();
        let step = match &instruction.kind {
            Kind::From(_) => return Err(at(span, &"FROM is not allowed here")),
            Kind::Run(run) => {
                let (op, text) = self.run(planner, run, span)?;
                by = text;
                Some(op)
            }
            Kind::Copy(copy) => Some(self.copy(planner, copy, span)?),
            Kind::Add(add) => Some(self.add(planner, add, span)?),
            Kind::Workdir(path) => {
                let path = self.expanded(planner, path, span)?;
                let path = self.absolute(&path);
                self.config().working_dir.clone_from(&path);
                by = format!("WORKDIR {path}");
                let owner = self.image.config.user.clone();
                Some(Op::Mkdir(Mkdir { path: path.into_bytes(), owner }))
            }
            other => {
                self.configure(planner, other, span)?;
                None
            }
        };
        // As Docker has it: a declaration alone makes no line of history without its value.
        let step = step.map(|op| self.step(planner, op, &instruction.source));
        self.image.made.push(Made { by, step });
        Ok(step)
    }

    fn step(&mut self, planner: &mut Planner<'_>, op: Op, name: &str) -> StepId {
        let step = Step {
            base: self.image.tree,
            op,
            name: name.to_owned(),
            fresh: self.fresh,
            time: self.image.stamp,
        };
        let id = planner.shared.step(self.index, step);
        self.image.tree = Tree::Step(id);
        id
    }

    /// A path as seen from the working directory.
    pub(super) fn absolute(&self, path: &str) -> String {
        let from = self.image.config.working_dir.as_str();
        let joined = if path.starts_with('/') { path.to_owned() } else { format!("/{from}/{path}") };
        let clean = crate::pattern::clean_in_root(joined.as_bytes());
        format!("/{}", String::from_utf8_lossy(&clean))
    }

    /// An instruction that changes the configuration only.
    fn configure(&mut self, planner: &mut Planner<'_>, kind: &Kind, span: Span) -> Result<()> {
        match kind {
            Kind::Arg(args) => return self.declare(planner, args, span),
            Kind::Env(pairs) => {
                for (name, value) in self.pairs(planner, pairs, span)? {
                    set_env(self.config().env.get_or_insert_default(), &name, &value);
                    self.args.iter_mut().filter(|(arg, _)| *arg == name).for_each(|(_, value)| *value = None);
                }
            }
            Kind::Label(pairs) => {
                let pairs = self.pairs(planner, pairs, span)?;
                self.config().labels.get_or_insert_default().extend(pairs);
            }
            Kind::Cmd(command) => {
                let args = self.command(command);
                let config = self.config();
                config.cmd = Some(args).filter(|args| !args.is_empty());
                config.args_escaped = true;
                self.cmd_set = true;
            }
            Kind::Entrypoint(command) => {
                let args = self.command(command);
                let cmd_set = self.cmd_set;
                let config = self.config();
                config.entrypoint = Some(args).filter(|args| !args.is_empty());
                if !cmd_set {
                    config.cmd = None;
                }
            }
            Kind::Expose(words) => return self.expose(planner, words, span),
            Kind::Volume(words) => {
                for word in words {
                    let path = self.expanded(planner, word, span)?;
                    if path.trim().is_empty() {
                        return Err(at(span, &"VOLUME specified can not be an empty string"));
                    }
                    self.config().volumes.get_or_insert_default().insert(path, Empty {});
                }
            }
            Kind::User(word) => {
                let user = self.expanded(planner, word, span)?;
                self.config().user = user;
            }
            Kind::Stopsignal(word) => {
                let signal = self.expanded(planner, word, span)?;
                check_signal(&signal, span)?;
                self.config().stop_signal = Some(signal);
            }
            Kind::Shell(shell) => self.config().shell = Some(shell.clone()),
            Kind::Maintainer(author) => self.image.author = Some(author.clone()),
            Kind::Onbuild(onbuild) => {
                let expression = onbuild.expression.clone();
                self.config().on_build.get_or_insert_default().push(expression);
            }
            Kind::Healthcheck(check) => {
                let check = self.health(check);
                self.config().healthcheck = Some(check);
            }
            Kind::From(_) | Kind::Run(_) | Kind::Copy(_) | Kind::Add(_) | Kind::Workdir(_) => {}
        }
        Ok(())
    }

    fn declare(&mut self, planner: &mut Planner<'_>, args: &[dockerfile::ArgDef], span: Span) -> Result<()> {
        for arg in args {
            let value = match scope::given(arg, planner.options, &planner.globals) {
                Some(value) => Some(value),
                None => arg.default.as_ref().map(|d| self.expanded(planner, d, span)).transpose()?,
            };
            planner.taken_args.insert(arg.name.clone());
            let before =
                self.args.iter().position(|(name, _)| *name == arg.name).map(|at| self.args.remove(at).1);
            // Without a value, what was there stays.
            self.args.push((arg.name.clone(), value.or(before.flatten())));
        }
        Ok(())
    }

    fn pairs(&self, planner: &Planner<'_>, pairs: &[Pair], span: Span) -> Result<Vec<(String, String)>> {
        // All see what was before the instruction.
        let both =
            |p: &Pair| Ok((self.expanded(planner, &p.key, span)?, self.expanded(planner, &p.value, span)?));
        pairs.iter().map(both).collect()
    }

    fn shell(&self) -> Vec<String> {
        self.image.config.shell.clone().unwrap_or_else(|| SHELL.map(str::to_owned).to_vec())
    }

    fn command(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(args) => args.clone(),
            Command::Shell(text) => self.shell().into_iter().chain([text.clone()]).collect(),
        }
    }

    fn expose(&mut self, planner: &Planner<'_>, words: &[Word], span: Span) -> Result<()> {
        for word in words {
            let expanded = dockerfile::expand_words(word.as_str(), &self.view(), planner.escape)
                .map_err(|e| at(span, &e))?;
            for port in dockerfile::ports(&expanded.words).map_err(|e| at(span, &e))? {
                self.config().exposed_ports.get_or_insert_default().insert(port, Empty {});
            }
        }
        Ok(())
    }

    fn health(&self, check: &Healthcheck) -> HealthConfig {
        let nanos = |d: &Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
        match check {
            Healthcheck::None => HealthConfig { test: Some(vec!["NONE".into()]), ..HealthConfig::default() },
            Healthcheck::Check { command, interval, timeout, start_period, start_interval, retries } => {
                let test = match command {
                    Command::Shell(text) => vec!["CMD-SHELL".to_owned(), text.clone()],
                    Command::Exec(args) => ["CMD".to_owned()].into_iter().chain(args.clone()).collect(),
                };
                HealthConfig {
                    test: Some(test),
                    interval: nanos(interval),
                    timeout: nanos(timeout),
                    start_period: nanos(start_period),
                    start_interval: nanos(start_interval),
                    retries: i64::from(*retries),
                }
            }
        }
    }

    /// A command, and its line of history.
    fn run(&self, planner: &mut Planner<'_>, run: &RunCmd, span: Span) -> Result<(Op, String)> {
        if !run.devices.is_empty() {
            return Err(Error::Unimplemented(format!(
                "line {}: RUN --device is not supported yet",
                span.line
            )));
        }
        let insecure = run.security == Security::Insecure;
        if insecure && !planner.options.allowed.insecure {
            return Err(Error::Invalid(format!(
                "line {}: security.insecure is not allowed: build with --allow security.insecure to give that entitlement",
                span.line
            )));
        }
        let mut files = Vec::new();
        let args = match &run.body {
            RunBody::Exec(args) => args.clone(),
            RunBody::Shell(text) => self.shell().into_iter().chain([text.clone()]).collect(),
            RunBody::Script { name, content } => {
                let target = format!("/dev/pipes/{name}");
                files.push(RunFile {
                    target: target.clone(),
                    content: content.clone().into_bytes(),
                    mode: 0o755,
                });
                vec![target]
            }
        };
        let config = &self.image.config;
        let set: Vec<(&str, &str)> =
            self.args.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_deref()?))).collect();
        let declared: Vec<String> = set.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut env = config.env.clone().unwrap_or_default();
        env.retain(|e| !set.iter().any(|(name, _)| e.split_once('=').is_some_and(|(n, _)| n == *name)));
        let by = if declared.is_empty() {
            format!("RUN {}", args.join(" "))
        } else {
            format!("RUN |{} {} {}", declared.len(), declared.join(" "), args.join(" "))
        };
        env.extend(declared);
        let network = match run.network {
            dockerfile::Network::Default => planner.options.network.clone(),
            dockerfile::Network::None => Network::None,
            dockerfile::Network::Host
                if planner.options.network == Network::Host || planner.options.allowed.host_network =>
            {
                Network::Host
            }
            dockerfile::Network::Host => {
                return Err(Error::Invalid(format!(
                    "line {}: network.host is not allowed: build with --allow network.host to give that entitlement",
                    span.line
                )));
            }
        };
        let mut op = Run {
            args,
            env,
            quiet_env: scope::proxies(planner.options, &self.args),
            cwd: if config.working_dir.is_empty() { "/".into() } else { config.working_dir.clone() },
            user: config.user.clone(),
            network,
            insecure,
            hosts: planner.options.hosts.clone(),
            limits: planner.options.limits.clone(),
            files,
            ..Run::default()
        };
        self.mounts(planner, run, &mut op, span)?;
        Ok((Op::Run(Box::new(op)), by))
    }

    /// Labels that the build was asked for.
    pub(super) fn label(&mut self, labels: &BTreeMap<String, String>) {
        if !labels.is_empty() {
            self.config().labels.get_or_insert_default().extend(labels.clone());
        }
    }
}

/// The image without anything in it.
fn nothing(planner: &Planner<'_>, platform: Platform) -> Image {
    let config =
        RunConfig { env: Some(vec![PATH.to_owned()]), working_dir: "/".into(), ..RunConfig::default() };
    Image {
        tree: Tree::Layers(None),
        config: Arc::new(config),
        base: None,
        made: Vec::new(),
        author: None,
        platform,
        stamp: stamp(planner, None),
    }
}

/// The image that a named context is: one of that name, or nothing but its files.
fn of_context(
    planner: &mut Planner<'_>,
    index: usize,
    named: &Named,
    platform: &Platform,
    fresh: bool,
    span: Span,
) -> Result<(Image, Option<StepId>)> {
    let mut image = nothing(planner, platform.clone());
    let (step, by) = match named {
        Named::Image(name) => return Ok((of_base(planner, name, platform, span)?, None)),
        Named::Files(n) => {
            let from = graph::Source::Context(*n);
            let part = graph::Part { from, sources: vec![b".".to_vec()], unpack: false };
            let step = Step { fresh, ..all_of(part, image.stamp, "[context] files".to_owned()) };
            (planner.shared.step(index, step), "COPY . /".to_owned())
        }
        Named::Remote(remote) => (fetched(planner, index, remote), format!("ADD {} /", remote.address())),
    };
    image.tree = Tree::Step(step);
    image.made.push(Made { by, step: Some(step) });
    Ok((image, Some(step)))
}

/// The step that fetches files with a name; what is asked for twice is fetched once.
pub(super) fn fetched(planner: &mut Planner<'_>, index: usize, remote: &Remote) -> StepId {
    if let Some((_, step)) = planner.shared.fetched.iter().find(|(known, _)| known == remote) {
        return *step;
    }
    let from = graph::Source::Remote(Box::new(remote.clone()));
    let part = graph::Part { from, sources: Vec::new(), unpack: true };
    let step = all_of(part, stamp(planner, None), format!("[context] {}", remote.address()));
    let step = planner.shared.step(index, step);
    planner.shared.fetched.push((remote.clone(), step));
    step
}

/// A tree of all files of a source.
fn all_of(part: graph::Part, time: Stamp, name: String) -> Step {
    let copy = Copy { parts: vec![part], dest: b"/".to_vec(), ..Copy::default() };
    Step { base: Tree::Layers(None), op: Op::Copy(Box::new(copy)), name, fresh: false, time }
}

fn of_base(planner: &mut Planner<'_>, name: &str, platform: &Platform, span: Span) -> Result<Image> {
    let base = planner.base(name, platform).map_err(|e| match e {
        Error::Invalid(text) => at(span, &text),
        other => other,
    })?;
    let document = &base.document;
    let mut config = document.config.clone().unwrap_or_default();
    if config.env.is_none() {
        config.env = Some(vec![PATH.to_owned()]);
    }
    let platform = document.platform();
    Ok(Image {
        tree: Tree::Layers(base.chain),
        config: Arc::new(config),
        author: document.author.clone(),
        made: Vec::new(),
        platform,
        stamp: stamp(planner, document.created.as_deref()),
        base: Some(base),
    })
}

/// The time of what a build makes: the one that was asked for, else that of the image below.
fn stamp(planner: &Planner<'_>, created: Option<&str>) -> Stamp {
    let asked = planner.options.args.get("SOURCE_DATE_EPOCH").and_then(|t| t.trim().parse().ok());
    let below = || created.and_then(nanoseconds).unwrap_or(0) / 1_000_000_000;
    asked.map_or_else(|| Stamp::Inherited(below()), Stamp::Fixed)
}

fn set_env(env: &mut Vec<String>, name: &str, value: &str) {
    let entry = format!("{name}={value}");
    match env.iter_mut().find(|e| e.split_once('=').map_or(e.as_str(), |(n, _)| n) == name) {
        Some(old) => *old = entry,
        None => env.push(entry),
    }
}

fn check_signal(signal: &str, span: Span) -> Result<()> {
    let upper = signal.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let known = name.parse::<u8>().is_ok_and(|n| (1..=64).contains(&n))
        || SIGNALS.contains(&name)
        || ["RTMIN", "RTMAX"].iter().any(|rt| {
            name.strip_prefix(rt).is_some_and(|rest| {
                rest.is_empty()
                    || rest.strip_prefix(['+', '-']).is_some_and(|n| n.parse::<u8>().is_ok_and(|n| n <= 15))
            })
        });
    if known { Ok(()) } else { Err(at(span, &format!("invalid signal: {signal}"))) }
}

/// signal(7), without `SIG`.
const SIGNALS: [&str; 34] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE",
    "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];
