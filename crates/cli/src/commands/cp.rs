//! `cp`: files between this machine and a container.

use crate::cli::CpArgs;
use crate::client::Client;
use crate::error::{Failure, Result};

/// `cp`.
pub(crate) async fn cp(_c: &Client, args: &CpArgs) -> Result<()> {
    let _ = (args.archive, args.follow_link, args.quiet);
    Err(Failure::new(format!(
        "cp {} {} is not implemented yet: use the docker command line",
        args.source, args.destination
    )))
}
