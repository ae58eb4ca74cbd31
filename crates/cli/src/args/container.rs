//! Options of the commands about containers.

use super::kinds::{ENV, EXPERIMENTAL, FORMAT};
use crate::flags::{BOOL, FILTER, Flag, INT, LIST, STRING, flag, options};

options! {
    /// Commands whose arguments are containers, without options.
    Names {
        ; containers: Vec<String>
    }
}

options! {
    /// `start`.
    StartArgs {
        attach: bool = flag("attach", BOOL, "Attach STDOUT/STDERR and forward signals").short('a'),
        detach_keys: Option<String> =
            flag("detach-keys", STRING, "Override the key sequence for detaching a container"),
        interactive: bool = flag("interactive", BOOL, "Attach container's STDIN").short('i'),
        ; containers: Vec<String>
    }
}

options! {
    /// `stop` and `restart`.
    StopArgs {
        signal: String = flag("signal", STRING, "Signal to send to the container").short('s'),
        timeout: Option<i64> =
            flag("timeout", INT, "Seconds to wait before killing the container").short('t'),
        ; containers: Vec<String>
    }
}

options! {
    /// `kill`.
    KillArgs {
        signal: String = flag("signal", STRING, "Signal to send to the container").short('s'),
        ; containers: Vec<String>
    }
}

options! {
    /// `rm`.
    RmArgs {
        force: bool =
            flag("force", BOOL, "Force the removal of a running container (uses SIGKILL)").short('f'),
        link: bool = flag("link", BOOL, "Remove the specified link").short('l'),
        volumes: bool =
            flag("volumes", BOOL, "Remove anonymous volumes associated with the container").short('v'),
        ; containers: Vec<String>
    }
}

options! {
    /// `ps`.
    PsArgs {
        all: bool = flag("all", BOOL, "Show all containers (default shows just running)").short('a'),
        filter: Vec<String> = flag("filter", FILTER, "Filter output based on conditions provided").short('f'),
        format: Option<String> = flag("format", STRING, FORMAT),
        last: i64 =
            flag("last", INT, "Show n last created containers (includes all states)").short('n').default("-1"),
        latest: bool =
            flag("latest", BOOL, "Show the latest created container (includes all states)").short('l'),
        no_trunc: bool = flag("no-trunc", BOOL, "Don't truncate output"),
        quiet: bool = flag("quiet", BOOL, "Only display container IDs").short('q'),
        size: bool = flag("size", BOOL, "Display total file sizes").short('s'),
        ;
    }
}

options! {
    /// `logs`.
    LogsArgs {
        details: bool = flag("details", BOOL, "Show extra details provided to logs"),
        follow: bool = flag("follow", BOOL, "Follow log output").short('f'),
        since: String =
            flag("since", STRING, "Show logs since timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\" for 42 minutes)"),
        tail: String =
            flag("tail", STRING, "Number of lines to show from the end of the logs").short('n').default("all"),
        timestamps: bool = flag("timestamps", BOOL, "Show timestamps").short('t'),
        until: String =
            flag("until", STRING, "Show logs before a timestamp (e.g. \"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\" for 42 minutes)"),
        ; container: String
    }
}

options! {
    /// `attach`.
    AttachArgs {
        detach_keys: Option<String> =
            flag("detach-keys", STRING, "Override the key sequence for detaching a container"),
        no_stdin: bool = flag("no-stdin", BOOL, "Do not attach STDIN"),
        sig_proxy: bool =
            flag("sig-proxy", BOOL, "Proxy all received signals to the process").default("true"),
        ; container: String
    }
}

options! {
    /// `exec`.
    ExecArgs {
        detach: bool = flag("detach", BOOL, "Detached mode: run command in the background").short('d'),
        detach_keys: Option<String> =
            flag("detach-keys", STRING, "Override the key sequence for detaching a container"),
        env: Vec<String> = flag("env", ENV, "Set environment variables").short('e'),
        env_file: Vec<String> = flag("env-file", LIST, "Read in a file of environment variables"),
        interactive: bool = flag("interactive", BOOL, "Keep STDIN open even if not attached").short('i'),
        privileged: bool = flag("privileged", BOOL, "Give extended privileges to the command"),
        tty: bool = flag("tty", BOOL, "Allocate a pseudo-TTY").short('t'),
        user: String =
            flag("user", STRING, "Username or UID (format: \"<name|uid>[:<group|gid>]\")").short('u'),
        workdir: String = flag("workdir", STRING, "Working directory inside the container").short('w'),
        ; container: String, command: Vec<String>
    }
}

options! {
    /// `commit`.
    CommitArgs {
        author: String =
            flag("author", STRING, "Author (e.g., \"John Hannibal Smith <hannibal@a-team.com>\")").short('a'),
        change: Vec<String> =
            flag("change", LIST, "Apply Dockerfile instruction to the created image").short('c'),
        message: String = flag("message", STRING, "Commit message").short('m'),
        pause: bool = flag("pause", BOOL, "Pause container during commit").short('p').default("true"),
        ; container: String, reference: Option<String>
    }
}

options! {
    /// `export`.
    ExportArgs {
        output: Option<String> = flag("output", STRING, "Write to a file, instead of STDOUT").short('o'),
        ; container: String
    }
}

options! {
    /// `cp`.
    CpArgs {
        archive: bool = flag("archive", BOOL, "Archive mode (copy all uid/gid information)").short('a'),
        follow_link: bool = flag("follow-link", BOOL, "Always follow symbol link in SRC_PATH").short('L'),
        quiet: bool =
            flag("quiet", BOOL, "Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached").short('q'),
        ; source: String, destination: String
    }
}

/// Older spellings of the options of `stop` and `restart`.
pub(crate) const STOP_OLD: &[Flag] = &[flag("time", INT, "Seconds to wait before killing the container")
    .same_as("timeout")
    .deprecated("use --timeout instead")];

/// Options of Docker's experimental mode.
pub(crate) const START_LATER: &[Flag] = &[
    flag("checkpoint", STRING, "Restore from this checkpoint").refused(EXPERIMENTAL),
    flag("checkpoint-dir", STRING, "Use a custom checkpoint storage directory").refused(EXPERIMENTAL),
];

options! {
    /// `top`.
    TopArgs {
        ; container: String, ps_options: Vec<String>
    }
}

options! {
    /// `port`.
    PortArgs {
        ; container: String, port: Option<String>
    }
}

options! {
    /// `rename`.
    RenameArgs {
        ; container: String, new_name: String
    }
}

options! {
    /// `diff`.
    DiffArgs {
        ; container: String
    }
}
