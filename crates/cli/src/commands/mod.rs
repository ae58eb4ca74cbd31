//! What each command does.

mod build;
mod container;
mod cp;
mod df;
mod exec;
mod image;
mod info;
mod inspect;
pub(crate) mod layers;
mod lists;
mod login;
mod manifest;
mod network;
mod progress;
mod prune;
mod reach;
mod registry;
mod run;
mod start;
mod system;
mod untar;
mod upkeep;
mod volume;
mod working;

use std::io::Write;

use hyper::Method;
use serde_json::{Map, Value};

use self::inspect::Kind;
use crate::cli::{Action, Global, Names, complete};
use crate::client::{Client, Payload};
use crate::config::Config;
use crate::error::{Failure, Result};
use crate::settings::Target;

/// Carries a command line out; `called` is what the command was called.
pub(crate) async fn run(global: Global, action: Action, called: &str) -> Result<()> {
    let config = Config::load(global.config.as_deref());
    let target = Target::resolve(&global, &config)?;
    if let Action::Complete(words, describe) = &action {
        return completion(&target, &config, words, *describe).await;
    }
    match &action {
        // What is kept here needs no daemon.
        Action::Logout(args) => return login::logout(&config, args),
        Action::Login(args) => login::check(args)?,
        _ => {}
    }
    let client = match target.connect(global.debug).await {
        // The client's own version is known without a daemon.
        Err(e) if matches!(action, Action::Version(_)) => {
            let Action::Version(args) = &action else { return Err(e) };
            return system::version(Err(e), args);
        }
        Err(e) if matches!(action, Action::Run(_)) => return Err(run::wrong(called, "run", e)),
        Err(e) => return Err(registry::without_daemon(&action, e)),
        Ok(client) => client,
    };
    let app = App { client, config, called };
    match action {
        Action::Build(_)
        | Action::Images(_)
        | Action::Load(_)
        | Action::Save(_)
        | Action::Import(_)
        | Action::Tag(_)
        | Action::Rmi(_)
        | Action::History(_)
        | Action::ImageInspect(_)
        | Action::ImagePrune(_)
        | Action::BuilderPrune(_)
        | Action::BuilderDu(_) => images(&app, action).await,
        Action::Pull(_)
        | Action::Push(_)
        | Action::Login(_)
        | Action::Search(_)
        | Action::ManifestInspect(_)
        | Action::ManifestReferrers(_) => registries(&app, action).await,
        Action::VolumeCreate(_)
        | Action::VolumeLs(_)
        | Action::VolumeInspect(_)
        | Action::VolumeRm(_)
        | Action::VolumePrune(_)
        | Action::NetworkCreate(_)
        | Action::NetworkConnect(_)
        | Action::NetworkDisconnect(_)
        | Action::NetworkRm(_)
        | Action::NetworkLs(_)
        | Action::NetworkInspect(_)
        | Action::Ports(_)
        | Action::Inspect(_)
        | Action::Events(_)
        | Action::Info(_)
        | Action::SystemDf(_)
        | Action::SystemPrune(_)
        | Action::SystemGc(_)
        | Action::SystemCheck(_)
        | Action::NetworkPrune(_)
        | Action::Version(_) => others(&app, action).await,
        Action::Look(look) => layers::look(&app, look).await,
        Action::Work(work) => working::work(&app, work).await,
        _ => containers(&app, action).await,
    }
}

/// What every command works with.
pub(crate) struct App<'a> {
    pub(crate) client: Client,
    pub(crate) config: Config,
    /// What the command was called: `docker run`.
    pub(crate) called: &'a str,
}

async fn containers(app: &App<'_>, action: Action) -> Result<()> {
    let c = &app.client;
    match action {
        Action::Run(args) => run::run(app, &args).await,
        Action::Create(args) => run::create(app, &args).await,
        Action::Start(args) => start::start(app, &args).await,
        Action::Attach(args) => start::attach(app, &args).await,
        Action::Exec(args) => exec::exec(app, &args).await,
        Action::Stop(args) => container::stop(c, "stop", &args).await,
        Action::Restart(args) => container::stop(c, "restart", &args).await,
        Action::Kill(args) => container::kill(c, &args).await,
        Action::Rm(args) => container::rm(c, &args).await,
        Action::Ps(args) => lists::ps(app, &args).await,
        Action::Logs(args) => container::logs(c, &args).await,
        Action::Wait(args) => container::wait(c, &args.containers).await,
        Action::Update(args) => container::update(c, &args).await,
        Action::Rename(args) => container::rename(c, &args.container, &args.new_name).await,
        Action::Pause(args) => container::simple(c, "pause", &args.containers).await,
        Action::Unpause(args) => container::simple(c, "unpause", &args.containers).await,
        Action::Top(args) => container::top(c, &args.container, &args.ps_options).await,
        Action::Port(args) => container::port(c, &args.container, args.port.as_deref()).await,
        Action::Diff(args) => container::diff(c, &args.container).await,
        Action::Commit(args) => container::commit(c, &args).await,
        Action::Export(args) => container::export(c, args.output.as_deref(), &args.container).await,
        Action::Cp(args) => cp::cp(c, &args).await,
        Action::ContainerInspect(args) => {
            let size = args.size;
            inspect::inspect(c, &args.names, args.format.as_deref(), Kind::Container { size }).await
        }
        Action::ContainerPrune(args) => prune::containers(app, &args).await,
        _ => Ok(()),
    }
}

async fn images(app: &App<'_>, action: Action) -> Result<()> {
    let c = &app.client;
    match action {
        Action::Build(args) => build::build(app, &args).await,
        Action::Images(args) => lists::images(app, &args).await,
        Action::Load(args) => image::load(c, &args).await,
        Action::Save(args) => image::save(c, &args).await,
        Action::Import(args) => image::import(c, &args).await,
        Action::Tag(args) => image::tag(c, &args).await,
        Action::Rmi(args) => image::rmi(c, &args).await,
        Action::History(args) => lists::history(c, &args).await,
        Action::ImageInspect(args) => {
            let kind = Kind::Image { platform: args.platform };
            inspect::inspect(c, &args.names, args.format.as_deref(), kind).await
        }
        Action::ImagePrune(args) => prune::images(app, &args).await,
        Action::BuilderPrune(args) => prune::build_cache(app, &args).await,
        Action::BuilderDu(args) => df::build_cache(c, &args).await,
        _ => Ok(()),
    }
}

async fn registries(app: &App<'_>, action: Action) -> Result<()> {
    match action {
        Action::Pull(args) => registry::pull(app, &args).await,
        Action::Push(args) => registry::push(app, &args).await,
        Action::Login(args) => login::login(app, &args).await,
        Action::Search(args) => registry::search(app, &args).await,
        Action::ManifestInspect(args) => manifest::inspect(app, &args).await,
        Action::ManifestReferrers(args) => manifest::referrers(app, &args).await,
        _ => Ok(()),
    }
}

async fn others(app: &App<'_>, action: Action) -> Result<()> {
    let c = &app.client;
    match action {
        Action::VolumeCreate(args) => volume::create(c, &args).await,
        Action::VolumeLs(args) => lists::volumes(app, &args).await,
        Action::VolumeInspect(args) => {
            inspect::inspect(c, &args.names, args.format.as_deref(), Kind::Volume).await
        }
        Action::VolumeRm(args) => volume::rm(c, &args).await,
        Action::VolumePrune(args) => prune::volumes(app, &args).await,
        Action::NetworkCreate(args) => network::create(c, &args).await,
        Action::NetworkConnect(args) => network::connect(c, &args).await,
        Action::NetworkDisconnect(args) => network::disconnect(c, &args).await,
        Action::NetworkRm(args) => network::rm(c, &args).await,
        Action::NetworkLs(args) => lists::networks(app, &args).await,
        Action::NetworkInspect(args) => {
            let kind = Kind::Network { verbose: args.verbose };
            inspect::inspect(c, &args.names, args.format.as_deref(), kind).await
        }
        Action::Ports(args) => reach::ports(c, &args).await,
        Action::Inspect(args) => inspect::any(c, &args).await,
        Action::Events(args) => system::events(c, &args).await,
        Action::SystemCheck(args) => upkeep::check(c, &args).await,
        Action::SystemGc(args) => upkeep::gc(c, &args).await,
        Action::SystemPrune(args) => prune::system(app, &args).await,
        Action::NetworkPrune(args) => prune::networks(app, &args).await,
        Action::SystemDf(args) => df::df(c, &args).await,
        Action::Info(args) => info::info(c, &args).await,
        Action::Version(args) => system::version(system::ask(c).await, &args),
        _ => Ok(()),
    }
}

async fn completion(target: &Target, config: &Config, words: &[String], describe: bool) -> Result<()> {
    let current = words.last().map_or("", String::as_str);
    let current = current.split_once('=').filter(|_| current.starts_with('-')).map_or(current, |(_, v)| v);
    let answer = match complete::place(words) {
        complete::Place::Known(answer) => answer,
        complete::Place::Names(Names::Registries, given) => {
            complete::chosen(config.registries(), &given, current)
        }
        complete::Place::Names(what, given) => match target.reach().await {
            Ok(client) => complete::ask(&client, what, &given, current).await,
            Err(_) => complete::Answer::default(),
        },
    };
    crate::streams::show(longshore_api::stream::Stream::Stdout, answer.text(describe).as_bytes())
}

/// Does `f` for every name, goes on after failures, and fails if one did.
async fn each<F>(names: &[String], mut f: impl FnMut(String) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let mut failed = None;
    for name in names {
        if let Err(e) = f(name.clone()).await {
            eprintln!("{}", crate::tty::printable(&e.message));
            failed = Some(e.code);
        }
    }
    failed.map_or(Ok(()), |code| Err(Failure::exit(code)))
}

/// Prints a line to standard output.
pub(crate) fn say(text: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::exit(141)),
        Err(e) => Err(Failure::new(format!("write output: {e}"))),
        Ok(()) => Ok(()),
    }
}

/// `--filter key=value` as the API takes it.
fn filters(values: &[String]) -> Result<String> {
    if values.is_empty() {
        return Ok(String::new());
    }
    let mut map: Map<String, Value> = Map::new();
    for text in values {
        // Their form was checked with the options; an empty one is none.
        let Some((key, value)) = text.split_once('=') else { continue };
        let list = map.entry(key.trim().to_ascii_lowercase()).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(list) = list {
            list.push(Value::from(value.trim()));
        }
    }
    Ok(Value::Object(map).to_string())
}

/// Sends a request and throws the answer's body away.
async fn drop_answer(c: &Client, method: Method, path: &str, payload: Payload) -> Result<()> {
    crate::client::read(c.call(method, path, payload).await?).await.map(drop)
}
