//! Options of the commands about registries.

use crate::error::{Failure, Result};
use crate::flags::values::truth;
use crate::flags::{BOOL, FILTER, INT, STRING, flag, options};

options! {
    /// `pull`.
    PullArgs {
        all_tags: bool = flag("all-tags", BOOL, "Download all tagged images in the repository").short('a'),
        disable_content_trust: Option<bool> =
            flag("disable-content-trust", BOOL, "Skip image verification").default("true"),
        platform: Option<String> =
            flag("platform", STRING, "Set platform if server is multi-platform capable"),
        quiet: bool = flag("quiet", BOOL, "Suppress verbose output").short('q'),
        ; name: String
    }
}

options! {
    /// `push`.
    PushArgs {
        all_tags: bool = flag("all-tags", BOOL, "Push all tags of an image to the repository").short('a'),
        disable_content_trust: Option<bool> =
            flag("disable-content-trust", BOOL, "Skip image signing").default("true"),
        platform: String = flag("platform", STRING, concat!(
            "Push a platform-specific manifest as a single-platform image to the registry.\n",
            "Image index won't be pushed, meaning that other manifests, including attestations won't be preserved.\n",
            "'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)",
        )),
        quiet: bool = flag("quiet", BOOL, "Suppress verbose output").short('q'),
        ; name: String
    }
}

options! {
    /// `login`.
    LoginArgs {
        password: Option<String> =
            flag("password", STRING, "Password or Personal Access Token (PAT)").short('p'),
        password_stdin: Option<bool> =
            flag("password-stdin", BOOL, "Take the Password or Personal Access Token (PAT) from stdin"),
        username: Option<String> = flag("username", STRING, "Username").short('u'),
        ; server: Option<String>
    }
}

options! {
    /// `logout`.
    LogoutArgs {
        ; server: Option<String>
    }
}

options! {
    /// `search`.
    SearchArgs {
        filter: Vec<String> = flag("filter", FILTER, "Filter output based on conditions provided").short('f'),
        format: Option<String> = flag("format", STRING, "Pretty-print search using a Go template"),
        limit: i64 = flag("limit", INT, "Max number of search results"),
        no_trunc: bool = flag("no-trunc", BOOL, "Don't truncate output"),
        ; term: String
    }
}

options! {
    /// `manifest inspect`.
    ManifestInspectArgs {
        insecure: bool = flag("insecure", BOOL, "Allow communication with an insecure registry"),
        verbose: bool =
            flag("verbose", BOOL, "Output additional info including layers and platform").short('v'),
        ; names: Vec<String>
    }
}

options! {
    /// `manifest referrers`.
    ReferrersArgs {
        artifact_type: String =
            flag("artifact-type", STRING, "Show what is of this type only (e.g., \"application/spdx+json\")"),
        format: Option<String> = flag("format", STRING, "Pretty-print referrers using a Go template"),
        ; name: String
    }
}

/// Fails where signatures of images are to be verified: by the option, else by the environment.
pub(crate) fn no_content_trust(disabled: Option<bool>) -> Result<()> {
    let wanted = std::env::var("DOCKER_CONTENT_TRUST").unwrap_or_default();
    match disabled {
        Some(false) => {
            Err(Failure::new("content trust (--disable-content-trust=false) is not implemented yet"))
        }
        None if !wanted.is_empty() && truth(&wanted) != Some(false) => Err(Failure::new(
            "content trust (DOCKER_CONTENT_TRUST) is not implemented yet; --disable-content-trust does without",
        )),
        _ => Ok(()),
    }
}
