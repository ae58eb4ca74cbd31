//! A shell in what a failed command left.

use std::ffi::OsString;

use hyper::Method;

use super::App;
use crate::cli::{self, Action, Parsed};
use crate::client::{Payload, escape};
use crate::commands::run;
use crate::error::{Failure, Result};

/// Opens a shell in the image of what a command left, and removes the image when the user leaves.
///
/// # Errors
/// When the container cannot be made.
pub(super) async fn shell(app: &App<'_>, image: &str, network: &str) -> Result<()> {
    eprintln!(
        "\nA shell in what the failed command left; what RUN --mount showed is not there. Leave it with exit or Ctrl-D."
    );
    let done = in_image(app, image, network).await;
    let path = format!("/images/{}?force=1", escape(image));
    let removed = app.client.call(Method::DELETE, &path, Payload::Empty).await;
    done.and(removed.map(drop))
}

async fn in_image(app: &App<'_>, image: &str, network: &str) -> Result<()> {
    let words = ["longshore", "run", "--rm", "-it", "--network", network, image];
    match cli::parse(words.iter().map(OsString::from).collect())? {
        Parsed::Do(_, Action::Run(args), _) => match run::run(app, &args).await {
            // How the user left it says nothing of the build.
            Err(e) if e.message.is_empty() => Ok(()),
            done => done,
        },
        _ => Err(Failure::new("a shell cannot be opened")),
    }
}
