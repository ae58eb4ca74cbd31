//! `login` and `logout`.

use std::io::Read as _;

use hyper::Method;
use longshore_api::stream::Stream;
use serde::Deserialize;

use super::registry::note;
use super::{App, say};
use crate::args::registry::{LoginArgs, LogoutArgs};
use crate::client::{Payload, read};
use crate::config::Config;
use crate::credentials::{Credentials, HUB_KEY, hostname};
use crate::error::{Context, Failure, Result};
use crate::flags::values::truth;
use crate::prompt::{self, Echo};
use crate::tty;

/// Longest password.
const MAX_PASSWORD: u64 = 64 << 10;

/// The daemon's answer to a login that succeeded.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Answer {
    status: String,
    identity_token: String,
}

/// Fails where the options contradict each other.
pub(crate) fn check(args: &LoginArgs) -> Result<()> {
    for (wrong, message) in [
        (
            args.password_stdin.is_some() && args.password.is_some(),
            "conflicting options: cannot specify both --password and --password-stdin",
        ),
        (
            args.password_stdin.is_some() && args.username.is_none(),
            "the --password-stdin option requires --username to be set",
        ),
        (args.username.as_deref() == Some(""), "username is empty"),
        (args.password.as_deref() == Some(""), "password is empty"),
    ] {
        if wrong {
            return Err(Failure::new(message));
        }
    }
    if args.password.is_some() {
        eprintln!("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    }
    Ok(())
}

/// `login`, whose options were checked.
pub(crate) async fn login(app: &App<'_>, args: &LoginArgs) -> Result<()> {
    let mut password = args.password.clone().unwrap_or_default();
    if args.password_stdin == Some(true) {
        password = password_from_stdin()?;
    }
    let username = args.username.clone().unwrap_or_default();
    let server = match args.server.as_deref() {
        None | Some("" | "docker.io" | HUB_KEY) => HUB_KEY.to_owned(),
        Some(server) => hostname(server),
    };
    let mut known = Credentials { server: server.clone(), ..Credentials::default() };
    if username.is_empty() && password.is_empty() {
        let (stored, problem) = app.config.credentials(&server);
        if let Some(e) = problem {
            eprintln!("WARNING: {}", tty::printable(&e));
        } else {
            known = Credentials { server: server.clone(), identity_token: String::new(), ..stored };
        }
        if !known.username.is_empty() && !known.password.is_empty() && again(app, &known).await? {
            return Ok(());
        }
    }
    if (username.is_empty() || password.is_empty()) && !tty::stdin_is_terminal() {
        return Err(Failure::new("Error: Cannot perform an interactive login from a non TTY device"));
    }
    let web = std::env::var("DOCKER_CLI_DISABLE_OAUTH_LOGIN").is_ok_and(|v| truth(&v) == Some(true));
    if server == HUB_KEY && username.is_empty() && password.is_empty() && !web {
        eprintln!("Web-based login is not implemented yet - falling back to command line login...\n");
    }
    let given = prompt(Some(&username), Some(&password), &known.username, &server).await?;
    let answer = try_login(app, &given).await?;
    remember(app, given, &answer)?;
    say_status(&answer)
}

fn password_from_stdin() -> Result<String> {
    let mut text = Vec::new();
    let read = std::io::stdin().lock().take(MAX_PASSWORD + 1).read_to_end(&mut text);
    read.context(|| "read the password".into())?;
    if text.len() as u64 > MAX_PASSWORD {
        return Err(Failure::new(format!(
            "the password on standard input is longer than {MAX_PASSWORD} bytes"
        )));
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

/// Tries the credentials that are kept already; says whether they are still good.
async fn again(app: &App<'_>, known: &Credentials) -> Result<bool> {
    eprintln!("Authenticating with existing credentials... [Username: {}]", tty::printable(&known.username));
    note(
        Stream::Stderr,
        "To login with a different account, run 'docker logout' followed by 'docker login'",
    )?;
    eprint!("\n\n");
    match try_login(app, known).await {
        Ok(answer) => {
            remember(app, known.clone(), &answer)?;
            say_status(&answer)?;
            Ok(true)
        }
        Err(e) if e.status == Some(401) => {
            eprintln!("Stored credentials invalid or expired");
            Ok(false)
        }
        Err(e) => {
            eprintln!("Login did not succeed, error: {}", tty::printable(&e.message));
            Ok(false)
        }
    }
}

async fn try_login(app: &App<'_>, credentials: &Credentials) -> Result<Answer> {
    let body = Payload::Json(credentials.json());
    let body = read(app.client.call(Method::POST, "/auth", body).await?).await?;
    if body.is_empty() {
        return Ok(Answer::default());
    }
    longshore_api::json::from_slice(&body)
        .map_err(|e| Failure::new(format!("the daemon's answer is not understood: {e}")))
}

fn remember(app: &App<'_>, mut credentials: Credentials, answer: &Answer) -> Result<()> {
    if !answer.identity_token.is_empty() {
        credentials.password.clear();
        credentials.identity_token.clone_from(&answer.identity_token);
    }
    app.config.keep(&credentials).map_err(|e| Failure::new(format!("Error saving credentials: {e}")))
}

fn say_status(answer: &Answer) -> Result<()> {
    if answer.status.is_empty() { Ok(()) } else { say(&tty::printable(&answer.status)) }
}

/// Asks for what is not given; a name that is known already may be taken as it is.
pub(super) async fn prompt(
    username: Option<&str>,
    password: Option<&str>,
    known: &str,
    server: &str,
) -> Result<Credentials> {
    let mut username = username.unwrap_or_default().trim().to_owned();
    let known = known.trim();
    if username.is_empty() {
        if server == HUB_KEY {
            say("Log in with your Docker ID or email address to push and pull images from Docker Hub. \
                 If you don't have a Docker ID, head over to https://hub.docker.com/ to create one.")?;
            if std::env::var("DOCKER_CLI_HINTS").map_or(true, |v| truth(&v) != Some(false)) {
                say("You can log in with your password or a Personal Access Token (PAT). \
                     Using a limited-scope PAT grants better security and is required for organizations using SSO. \
                     Learn more at https://docs.docker.com/go/access-tokens/\n")?;
            }
        }
        let question = if known.is_empty() {
            "Username: ".to_owned()
        } else {
            format!("Username ({}): ", tty::printable(known))
        };
        username = prompt::ask(&question, Echo::On).await?;
        if username.is_empty() {
            known.clone_into(&mut username);
        }
        if username.is_empty() {
            return Err(Failure::new("Error: Non-null Username Required"));
        }
    }
    let mut password = password.unwrap_or_default().trim().to_owned();
    if password.is_empty() {
        if server == HUB_KEY {
            note(
                Stream::Stderr,
                "A Personal Access Token (PAT) can be used instead.\n\
                 To create a PAT, visit \x1b[4mhttps://app.docker.com/settings\x1b[0m\n\n",
            )?;
        }
        password = prompt::ask("Password: ", Echo::Off).await?;
        say("")?;
        if password.is_empty() {
            return Err(Failure::new("Error: Password Required"));
        }
    }
    Ok(Credentials { username, password, server: server.to_owned(), ..Credentials::default() })
}

/// `logout`; needs no daemon.
pub(crate) fn logout(config: &Config, args: &LogoutArgs) -> Result<()> {
    let (shown, names) = match args.server.as_deref().unwrap_or_default() {
        "" => (HUB_KEY.to_owned(), vec![HUB_KEY.to_owned()]),
        server => {
            let host = hostname(server);
            // Those under which it may have been kept of old.
            let urls = ["http://", "https://"].map(|scheme| format!("{scheme}{host}"));
            let mut names = vec![server.to_owned(), host.clone()];
            names.extend(urls);
            names.dedup();
            (host, names)
        }
    };
    say(&format!("Removing login credentials for {}", tty::printable(&shown)))?;
    let failed: Vec<(&String, String)> =
        names.iter().filter_map(|name| config.forget(name).err().map(|e| (name, e))).collect();
    if failed.len() == names.len() {
        eprintln!("WARNING: could not erase credentials:");
        for (name, e) in failed {
            eprintln!("{}: {}", tty::printable(name), tty::printable(&e));
        }
    }
    Ok(())
}
