//! Options of `working`: Buildah's words.

use super::build::{SECRET, SSH};
use super::given::{Agent, Secret};
use super::kinds::{ENV, HOST};
use crate::flags::{BOOL, Flag, INT, Kind, LIST, STRING, STRINGS, flag, options};

const LATER: &str = "is not implemented yet";

const PULL: Kind = Kind::one("string", |v| match v {
    "always" | "missing" | "never" | "true" | "false" => Ok(()),
    _ => Err(format!("{v:?} is none of always, missing and never")),
});

options! {
    /// `working from`.
    FromArgs {
        name: String = flag("name", STRING, "Name of the working container"),
        platform: Option<String> = flag("platform", STRING, "Set platform if server is multi-platform capable"),
        pull: String =
            flag("pull", PULL, "Fetch the image before (\"always\", \"missing\", \"never\")").default("missing"),
        quiet: bool = flag("quiet", BOOL, "Do not show what is fetched").short('q'),
        ; image: String
    }
}

options! {
    /// `working run`.
    RunArgs {
        add_history: bool = flag("add-history", BOOL, "Add the command to the image's history"),
        add_host: Vec<String> = flag("add-host", HOST, "Add a custom host-to-IP mapping (\"host:ip\")"),
        cap_add: Vec<String> = flag("cap-add", LIST, "Add Linux capabilities"),
        cap_drop: Vec<String> = flag("cap-drop", LIST, "Drop Linux capabilities"),
        env: Vec<String> = flag("env", ENV, "Set environment variables").short('e'),
        hostname: String = flag("hostname", STRING, "Host name of the command"),
        interactive: bool = flag("interactive", BOOL, "Pass STDIN to the command").short('i'),
        mount: Vec<String> = flag(
            "mount", LIST,
            "Mount for the command, as RUN --mount has it (\"type=bind|cache|tmpfs|secret|ssh,...\"); a bind mount without \"from\" is of this machine",
        ),
        network: String =
            flag("network", STRING, "Network of the command (\"none\", \"host\", or one by its name)").default("default"),
        secret: Vec<String> = flag(
            "secret", SECRET,
            "Secret that a mount may ask for (format: \"id=mysecret[,src=/local/secret]\" or \"id=mysecret,env=NAME\")",
        ),
        ssh: Vec<String> = flag(
            "ssh", SSH, "SSH agent socket or keys that a mount may ask for (format: \"default|<id>[=<socket>|<key>[,<key>]]\")",
        ),
        tty: bool = flag("tty", BOOL, "Allocate a pseudo-TTY, and pass STDIN if it is one").short('t'),
        user: String = flag("user", STRING, "Username or UID (format: \"<name|uid>[:<group|gid>]\")").short('u'),
        volume: Vec<String> =
            flag("volume", LIST, "Bind mount of this machine (\"source:target[:ro]\")").short('v'),
        workingdir: String = flag("workingdir", STRING, "Working directory of the command").short('w'),
        ; container: String, command: Vec<String>
    }
}

/// Other names, and what `run` does not have yet.
pub(crate) const RUN_LATER: &[Flag] = &[
    flag("workdir", STRING, "Working directory of the command").same_as("workingdir"),
    flag("terminal", BOOL, "Allocate a pseudo-TTY").same_as("tty"),
    flag("isolation", STRING, "Type of isolation").refused("has one kind only: that of RUN in a build"),
];

impl RunArgs {
    /// Whom its mounts may ask for keys.
    pub(crate) fn agents(&self) -> Vec<Agent> {
        self.ssh.iter().filter_map(|text| Agent::read(text).ok()).collect()
    }

    /// What its mounts may ask for.
    pub(crate) fn secrets(&self) -> Vec<Secret> {
        self.secret.iter().filter_map(|s| Secret::read(s).ok()).collect()
    }
}

options! {
    /// `working copy` and `working add`.
    CopyArgs {
        add_history: bool = flag("add-history", BOOL, "Add the copy to the image's history"),
        checksum: String = flag("checksum", STRING, "Checksum of a source that is fetched"),
        chmod: String = flag("chmod", STRING, "Permissions of what is copied (\"755\", \"u=rwX,go=rX\")"),
        chown: String = flag("chown", STRING, "Owner of what is copied (\"user[:group]\")"),
        contextdir: String = flag("contextdir", STRING, "Directory that the sources are in"),
        exclude: Vec<String> = flag("exclude", LIST, "Pattern of what is left out"),
        from: String = flag("from", STRING, "Working container or image that the sources are in"),
        ignorefile: String =
            flag("ignorefile", STRING, "File with patterns of what is left out (Default is \"CONTEXTDIR/.dockerignore\")"),
        keep_git_dir: bool = flag("keep-git-dir", BOOL, "Keep .git of a repository that is fetched"),
        parents: bool = flag("parents", BOOL, "Keep the directories that lead to a source"),
        platform: Option<String> = flag("platform", STRING, "Platform of the image that --from names"),
        pull: String =
            flag("pull", PULL, "Fetch the image of --from before (\"always\", \"missing\", \"never\")").default("missing"),
        quiet: bool = flag("quiet", BOOL, "Do not print a digest of what was copied").short('q'),
        ; container: String, paths: Vec<String>
    }
}

options! {
    /// `working config`.
    ConfigArgs {
        add_history: bool = flag("add-history", BOOL, "Add the changes to the image's history"),
        annotation: Vec<String> = flag(
            "annotation", LIST, "Add an annotation to the image's manifest (\"key=value\"; \"key-\" takes it away, \"-\" all)",
        ).short('a'),
        arch: Option<String> = flag("arch", STRING, "Set architecture of the image"),
        author: Option<String> = flag("author", STRING, "Set image author contact"),
        cmd: Option<String> = flag("cmd", STRING, "Set the default command"),
        comment: Option<String> = flag("comment", STRING, "Set a comment in the image"),
        created_by: Option<String> = flag("created-by", STRING, "Set what the history says of the image's layer"),
        domainname: Option<String> = flag("domainname", STRING, "Set the NIS domain of commands that are run"),
        entrypoint: Option<String> =
            flag("entrypoint", STRING, "Set the entry point: a JSON list, or a line for the shell"),
        env: Vec<String> =
            flag("env", LIST, "Set a variable (\"NAME=value\"; \"NAME-\" takes it away, \"-\" all)").short('e'),
        healthcheck: Option<String> =
            flag("healthcheck", STRING, "Set the health check (\"CMD ...\", \"CMD-SHELL ...\", \"NONE\")"),
        healthcheck_interval: Option<String> = flag("healthcheck-interval", STRING, "Set the time between two checks"),
        healthcheck_retries: Option<i64> = flag("healthcheck-retries", INT, "Set how many failures in a row count"),
        healthcheck_start_interval: Option<String> =
            flag("healthcheck-start-interval", STRING, "Set the time between two checks at the start"),
        healthcheck_start_period: Option<String> =
            flag("healthcheck-start-period", STRING, "Set the time for which failures do not count"),
        healthcheck_timeout: Option<String> = flag("healthcheck-timeout", STRING, "Set how long one check may take"),
        hostname: Option<String> = flag("hostname", STRING, "Set the host name of commands that are run"),
        label: Vec<String> =
            flag("label", LIST, "Add a label (\"key=value\"; \"key-\" takes it away, \"-\" all)").short('l'),
        onbuild: Vec<String> = flag("onbuild", LIST, "Add an instruction for images that are built on this one (\"-\": none)"),
        os: Option<String> = flag("os", STRING, "Set operating system of the image"),
        os_version: Option<String> = flag("os-version", STRING, "Set version of the operating system"),
        port: Vec<String> = flag("port", STRINGS, "Expose a port (\"80/tcp\"; \"80/tcp-\" takes it away, \"-\" all)").short('p'),
        shell: Option<String> = flag("shell", STRING, "Set the shell for commands"),
        stop_signal: Option<String> = flag("stop-signal", STRING, "Set the signal that stops a container"),
        user: Option<String> = flag("user", STRING, "Set the user (\"<name|uid>[:<group|gid>]\")").short('u'),
        variant: Option<String> = flag("variant", STRING, "Set variant of the architecture"),
        volume: Vec<String> = flag("volume", LIST, "Add a volume (\"/path\"; \"/path-\" takes it away, \"-\" all)").short('v'),
        workingdir: Option<String> = flag("workingdir", STRING, "Set the working directory"),
        ; container: String
    }
}

/// What `config` does not have yet.
pub(crate) const CONFIG_LATER: &[Flag] = &[
    flag("history-comment", STRING, "Set the comment of the last line of history")
        .refused("is called --comment here"),
    flag("os-feature", LIST, "Set a feature of the operating system").refused(LATER),
    flag("unsetlabel", LIST, "Take a label away").refused("is written --label KEY- here"),
];

options! {
    /// `working commit`.
    CommitArgs {
        iidfile: Option<String> = flag("iidfile", STRING, "Write the image ID to the file"),
        rm: bool = flag("rm", BOOL, "Remove the working container when the image is there"),
        source_date_epoch: Option<i64> = flag(
            "source-date-epoch", INT,
            "Set the time of the image and its history, in seconds since 1970 (Default is $SOURCE_DATE_EPOCH, or now)",
        ),
        squash: bool = flag("squash", BOOL, "Make one layer of all, those of the image below included"),
        timestamp: Option<i64> =
            flag("timestamp", INT, "Set all times, those of the layer's files too, in seconds since 1970"),
        ; container: String, image: Option<String>
    }
}

/// Nothing but the image's id is printed anyway.
pub(crate) const COMMIT_CHECKED: &[Flag] =
    &[flag("quiet", BOOL, "Print nothing but the image ID").short('q')];

/// What `commit` does not have yet.
pub(crate) const COMMIT_LATER: &[Flag] = &[flag("format", STRING, "Format of the manifest")
    .short('f')
    .refused("is not a matter of commits: images are kept without a manifest")];

options! {
    /// `working ls`.
    LsArgs {
        all: bool = flag("all", BOOL, "Also show other containers").short('a'),
        format: Option<String> = flag("format", STRING, "Format output using a Go template"),
        json: bool = flag("json", BOOL, "Print a JSON list"),
        noheading: bool = flag("noheading", BOOL, "Do not print column headings").short('n'),
        notruncate: bool = flag("notruncate", BOOL, "Do not truncate IDs"),
        quiet: bool = flag("quiet", BOOL, "Only display container IDs").short('q'),
        ;
    }
}

options! {
    /// `working rm` and `working umount`.
    AllArgs {
        all: bool = flag("all", BOOL, "All working containers").short('a'),
        ; containers: Vec<String>
    }
}

options! {
    /// `working mount`.
    MountArgs {
        ; containers: Vec<String>
    }
}

options! {
    /// `working inspect`.
    InspectArgs {
        format: Option<String> = flag("format", STRING, "Format output using a Go template").short('f'),
        ; containers: Vec<String>
    }
}

options! {
    /// `working rename`.
    RenameArgs {
        ; container: String, new_name: String
    }
}

/// What is done with working containers.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    From(FromArgs),
    Run(RunArgs),
    Copy(CopyArgs),
    Add(CopyArgs),
    Config(Box<ConfigArgs>),
    Commit(CommitArgs),
    Ls(LsArgs),
    Rm(AllArgs),
    Mount(MountArgs),
    Unmount(AllArgs),
    Inspect(InspectArgs),
    Rename(RenameArgs),
}
