//! `exec`.

use hyper::Method;
use longshore_api::{ExecInspect, IdResponse};
use serde_json::json;

use super::App;
use crate::args::container::ExecArgs;
use crate::args::env;
use crate::client::{Payload, escape};
use crate::error::{Failure, Result};
use crate::keys::Keys;
use crate::streams::{self, End, Resize, Session};
use crate::tty;

/// `exec`.
pub(crate) async fn exec(app: &App<'_>, args: &ExecArgs) -> Result<()> {
    let c = &app.client;
    let env = env::variables(&args.env_file, &args.env)?;
    // A container that is not there is told before anything about this terminal.
    let found = c.value(&format!("/containers/{}/json", escape(&args.container))).await;
    if args.tty && args.interactive && !args.detach && !tty::stdin_is_terminal() {
        return Err(found.err().unwrap_or_else(|| Failure::new("the input device is not a TTY")));
    }
    found?;
    let keys = app.config.detach_keys(args.detach_keys.as_deref());
    let size = args.tty.then(tty::size).flatten().map(|(h, w)| [h, w]);
    let attach = !args.detach;
    let mut body = json!({
        "User": args.user, "Privileged": args.privileged, "Tty": args.tty,
        "AttachStdin": args.interactive && attach, "AttachStdout": attach, "AttachStderr": attach,
        "DetachKeys": keys, "Env": env, "WorkingDir": args.workdir, "Cmd": args.command,
    });
    let mut begin = json!({"Detach": args.detach, "Tty": args.tty});
    if let Some(size) = size {
        body["ConsoleSize"] = json!(size);
        begin["ConsoleSize"] = json!(size);
    }
    let path = format!("/containers/{}/exec", escape(&args.container));
    let made: IdResponse = c.json(Method::POST, &path, Payload::Json(body)).await?;
    let start = format!("/exec/{}/start", made.id);
    if args.detach {
        return super::drop_answer(c, Method::POST, &start, Payload::Json(begin)).await;
    }
    let hijacked = c.hijack(&start, Payload::Json(begin)).await?;
    let following = args.tty.then(|| Resize::Exec(made.id.clone()).follow(c));
    let session = Session { tty: args.tty, stdin: args.interactive, keys: Keys::new(keys) };
    let end = streams::run(hijacked, &session).await;
    following.into_iter().for_each(|t| t.abort());
    if end? == End::Detached {
        return Err(streams::left_behind());
    }
    let end: ExecInspect = c.json(Method::GET, &format!("/exec/{}/json", made.id), Payload::Empty).await?;
    match end.exit_code.unwrap_or(0) {
        0 => Ok(()),
        code => Err(Failure::exit(code)),
    }
}
