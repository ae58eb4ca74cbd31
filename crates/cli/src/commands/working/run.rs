//! `working run`.

use hyper::Method;
use longshore_api::IdResponse;
use longshore_api::working::{RunCommand, RunState};

use super::{ours, path, users};
use crate::args::env;
use crate::args::working::RunArgs;
use crate::client::{Payload, escape, query};
use crate::commands::App;
use crate::commands::build::{keys, secrets};
use crate::error::{Context, Failure, Result};
use crate::keys::Keys;
use crate::streams::{self, Resize, Session};
use crate::tty;

/// The status for what is not the command's doing.
const WRONG: i32 = 125;

/// `working run`.
pub(super) async fn run(app: &App<'_>, args: &RunArgs) -> Result<()> {
    let done = follow(app, args).await;
    done.map_err(|e| match e.code {
        // A message with the usual status is of our own making.
        1 if !e.message.is_empty() => ours(e).with_code(WRONG),
        _ => e,
    })
}

async fn follow(app: &App<'_>, args: &RunArgs) -> Result<()> {
    let c = &app.client;
    let terminal = tty::stdin_is_terminal();
    if args.tty && args.interactive && !terminal {
        return Err(Failure::new("the input device is not a TTY"));
    }
    let stdin = args.interactive || (args.tty && terminal);
    // They last as long as the command.
    let (agents, _started) = keys::sockets(&args.agents())?;
    let command = RunCommand {
        agents,
        cmd: command(&args.command)?,
        cap_add: args.cap_add.clone(),
        cap_drop: args.cap_drop.clone(),
        env: env::variables(&[], &args.env)?.into_iter().filter(|e| e.contains('=')).collect(),
        user: args.user.clone(),
        working_dir: args.workingdir.clone(),
        hostname: args.hostname.clone(),
        network: args.network.clone(),
        hosts: args.add_host.clone(),
        binds: args.volume.iter().map(|v| whole(v)).collect::<Result<_>>()?,
        mounts: args.mount.iter().map(|m| whole_mount(m)).collect::<Result<_>>()?,
        secrets: secrets::encoded(&args.secrets())?,
        tty: args.tty,
        attach_stdin: stdin,
        add_history: args.add_history,
    };
    let command = serde_json::to_value(command).context(|| "write the command".into())?;
    let users = users(app).await?;
    let made =
        c.call_as_all(&users, Method::POST, &path(&args.container, "run"), Payload::Json(command)).await?;
    let made: IdResponse = longshore_api::json::from_slice(&crate::client::read(made).await?)
        .map_err(|e| Failure::new(format!("the daemon's answer is not understood: {e}")))?;
    let at = format!("/longshore/working/run/{}", escape(&made.id));
    let size = args.tty.then(tty::size).flatten();
    let (h, w) = size.map(|(h, w)| (h.to_string(), w.to_string())).unwrap_or_default();
    let hijacked = c.hijack(&query(&format!("{at}/start"), &[("h", &h), ("w", &w)]), Payload::Empty).await?;
    let following = args.tty.then(|| Resize::Working(made.id.clone()).follow(c));
    let session = Session { tty: args.tty, stdin, keys: Keys::none() };
    let end = streams::run(hijacked, &session).await;
    following.into_iter().for_each(|t| t.abort());
    end?;
    let state: RunState = c.json(Method::GET, &at, Payload::Empty).await?;
    match (state.exit_code, state.error.as_str()) {
        (Some(0), "") => Ok(()),
        (Some(code), "") => Err(Failure::exit(code)),
        (code, error) => {
            let error =
                if error.is_empty() { "the daemon does not know how the command ended" } else { error };
            Err(Failure::new(format!("Error response from daemon: {error}")).with_code(code.unwrap_or(WRONG)))
        }
    }
}

/// A text that begins with a path of this machine, which may be relative: `./x`.
fn whole(text: &str) -> Result<String> {
    if !text.starts_with("./") && !text.starts_with("../") && text != "." && !text.starts_with(".:") {
        return Ok(text.to_owned());
    }
    let here = std::env::current_dir().context(|| "find the current directory".into())?;
    let here = here.to_str().ok_or_else(|| Failure::new("the current directory's name is not text"))?;
    Ok(format!("{here}/{text}"))
}

/// `RUN --mount`, its source from the root on where it is of this machine.
fn whole_mount(text: &str) -> Result<String> {
    let fields: Vec<&str> = text.split(',').collect();
    if fields.iter().any(|field| field.starts_with("from=")) {
        return Ok(text.to_owned());
    }
    let field = |field: &&str| match field.split_once('=') {
        Some((key @ ("src" | "source"), value)) => Ok(format!("{key}={}", whole(value)?)),
        _ => Ok((*field).to_owned()),
    };
    Ok(fields.iter().map(field).collect::<Result<Vec<_>>>()?.join(","))
}

/// The command after `--`, if that stands there.
fn command(words: &[String]) -> Result<Vec<String>> {
    let words = match words.split_first() {
        Some((first, rest)) if first == "--" => rest,
        _ => words,
    };
    match words {
        [] => Err(Failure::new("no command was given: longshore working run CONTAINER -- COMMAND")),
        words => Ok(words.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_mounts_may_be_relative() {
        let here = std::env::current_dir().unwrap().display().to_string();
        assert_eq!(whole("./x:/y:ro").unwrap(), format!("{here}/./x:/y:ro"));
        assert_eq!(whole(".:/y").unwrap(), format!("{here}/.:/y"));
        assert_eq!(whole("/x:/y").unwrap(), "/x:/y");
        assert_eq!(whole(".hidden:/y").unwrap(), ".hidden:/y");
        assert_eq!(
            whole_mount("type=bind,src=../x,dst=/y").unwrap(),
            format!("type=bind,src={here}/../x,dst=/y")
        );
        let image = "type=bind,from=image,src=./x,dst=/y";
        assert_eq!(whole_mount(image).unwrap(), image);
        assert_eq!(command(&["--".into(), "a".into(), "--".into()]).unwrap(), ["a", "--"]);
        assert!(command(&["--".into()]).is_err());
    }
}
