//! Where our answers may differ from Docker's, and why.

/// A difference that is meant.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// Of which script.
    pub(crate) script: &'static str,
    /// Part of the request.
    pub(crate) request: &'static str,
    /// Where in the answer: the beginning of a path, `*` for one step. With `+` before it, only what Docker does not have.
    pub(crate) at: &'static str,
    /// Why.
    #[allow(dead_code, reason = "shown when the entry is no longer needed")]
    pub(crate) why: &'static str,
}

impl Accepted {
    pub(crate) fn covers(&self, script: &str, request: &str, at: &str) -> bool {
        let mut have = at.split('/');
        (self.script == "*" || self.script == script)
            && request.contains(self.request)
            && self.at.split('/').all(|want| have.next().is_some_and(|h| want == "*" || want == h))
    }
}

const fn accept(
    script: &'static str,
    request: &'static str,
    at: &'static str,
    why: &'static str,
) -> Accepted {
    Accepted { script, request, at, why }
}

const NUMBERS: &str = "a number that is none is the client's mistake, not the server's";
const GO_TYPES: &str = "Go's type names mean nothing to anyone here; the field is named all the same";
const OURS: &str = "what runs here is another program";
const NO_BUILDER: &str = "there is no builder yet";
const STREAMED: &str = "what is wrong with an archive is told in the stream";
const EARLIER: &str = "what can never be started is refused when it is created";
const LATER: &str = "not there yet, and named";
const ONE_SHAPE: &str = "errors of attach have the shape of all others";
const RUNC: &str = "no other program starts the container";
const RUNTIME: &str = "the runtime's name";
const CLIENT: &str = "the client's mistake is answered as one, and named";
const SETTINGS: &str =
    "what only changes settings makes no container and no image, and so is neither run nor cached";
const HISTORY: &str = "history has the words of the file, as BuildKit's has";
const FROM_FILES: &str = "the time is that of the files: the same input gives the same image";
const BLOCKS: &str = "what the disk got back, in blocks, directories and all";

/// All of them.
pub(crate) const ACCEPTED: &[Accepted] = &[
    accept("builds", "ENV A=1", "/body/lines", SETTINGS),
    accept(
        "builds",
        "LABEL c=d",
        "/body/lines",
        "as before, and a label that is asked for besides is no step",
    ),
    accept("builds", "ONBUILD", "/body/lines", SETTINGS),
    accept("builds", "/json", "/body/Parent", SETTINGS),
    accept("builds", "/history", "/body/*/Id", SETTINGS),
    accept("builds", "/history", "/body/*/Tags", SETTINGS),
    accept("builds", "/history", "/body/*/CreatedBy", HISTORY),
    accept("builds", "/images/b3:2/history", "/body", "a label that is asked for besides is no step"),
    accept("builds", "/json", "/body/Created", FROM_FILES),
    accept("builds", "/json", "/body/DockerVersion", "BuildKit names none, either"),
    accept("builds", "/json", "+/body/Config/ArgsEscaped", "as in BuildKit's images"),
    accept(
        "builds",
        "echo err",
        "/body/lines/*/stream",
        "what goes to standard error has no colour and no turn of its own",
    ),
    accept("builds", "BAD x", "/body/message", "several instructions are as near"),
    accept("builds", "COPY nosuch", "/body/lines/*/errorDetail/message", "BuildKit's words"),
    accept("builds", "COPY nosuch", "/body/lines/*/error", "BuildKit's words"),
    accept("builds", "<build >", "/body/message", "the same in another order"),
    accept("builds", "<build RUN x", "/body/message", "with the line, and the remedy"),
    accept("builds", "t=UPPER", "/status", CLIENT),
    accept("builds", "t=UPPER", "/body/message", CLIENT),
    accept("builds", "dockerfile=none", "/status", CLIENT),
    accept("builds", "FROM b5", "/body/lines", "a trigger is a step like any other"),
    accept("builds", "memory=x", "/status", NUMBERS),
    accept("builds", "memory=x", "/body/lines", NUMBERS),
    accept("builds", "memory=x", "+/body/message", NUMBERS),
    accept("*", "", "+/headers/Api-Version", "every answer names the daemon, also those about unknown pages"),
    accept("*", "", "+/headers/Docker-Experimental", "as before"),
    accept("*", "", "+/headers/Ostype", "as before"),
    accept("*", "", "+/headers/Server", "as before"),
    accept("*", "", "/body/HostConfig/Runtime", RUNTIME),
    accept("*", "/system/df", "+/body/Longshore", "every byte under the data root, beside what Docker tells"),
    accept("*", "/prune", "/body/SpaceReclaimed", BLOCKS),
    accept("*", "/events", "/body/lines/*/Actor/Attributes/reclaimed", BLOCKS),
    accept("registry", "platform=no/such", "/body/message", "what a platform looks like is said, too"),
    accept("registry", "fromImage=&tag", "/status", CLIENT),
    accept("registry", "fromImage=&tag", "/body/message", CLIENT),
    accept("registry", "/auth BAD", "/status", CLIENT),
    accept("registry", "/auth BAD", "/body/message", CLIENT),
    accept("system", "_ping", "/headers/Builder-Version", NO_BUILDER),
    accept("system", "/version", "/body/Platform/Name", OURS),
    accept("system", "/version", "/body/Components", OURS),
    accept("system", "/version", "/body/Version", OURS),
    accept("system", "/version", "/body/GitCommit", OURS),
    accept("system", "/version", "/body/GoVersion", OURS),
    accept("system", "/version", "/body/BuildTime", OURS),
    accept("system", "/info", "/body/Plugins/Network", LATER),
    accept("system", "/info", "/body/Plugins/Log", LATER),
    accept("system", "/info", "/body/KernelMemoryTCP", "no kernel has it any more on the unified hierarchy"),
    accept("system", "/info", "/body/NGoroutines", OURS),
    accept("system", "/info", "/body/ServerVersion", OURS),
    accept("system", "/info", "/body/Runtimes", OURS),
    accept("system", "/info", "/body/DefaultRuntime", OURS),
    accept("system", "/info", "/body/InitBinary", OURS),
    accept("system", "/info", "/body/RuncCommit", OURS),
    accept("system", "/info", "/body/FirewallBackend/Driver", OURS),
    accept("system", "/info", "/body/CDISpecDirs", LATER),
    accept("system", "/info", "/body/Containerd", OURS),
    accept("system", "/info", "/body/LiveRestoreEnabled", "containers outlive the daemon"),
    accept("system", "since=bad", "/status", NUMBERS),
    accept("system", "since=bad", "/body/message", NUMBERS),
    accept(
        "system",
        r#"events?until=2&filters={"nosuch""#,
        "/status",
        "a filter that nobody knows is no filter",
    ),
    accept("system", r#"events?until=2&filters={"nosuch""#, "/body", "as before"),
    accept("errors", "nosuch/attach", "/headers/Content-Type", ONE_SHAPE),
    accept("errors", "nosuch/attach", "/body", ONE_SHAPE),
    accept("errors", "create []", "/body/message", GO_TYPES),
    accept("errors", r#"create "x""#, "/body/message", GO_TYPES),
    accept("errors", r#"{"Image":7}"#, "/body/message", GO_TYPES),
    accept("errors", r#""Cmd":"#, "/body/message", GO_TYPES),
    accept("errors", r#""Tty":"#, "/body/message", GO_TYPES),
    accept("errors", r#""HostConfig":[]"#, "/body/message", GO_TYPES),
    accept("errors", r#""Memory":"#, "/body/message", GO_TYPES),
    accept("errors", r#"create {"Image":""}"#, "/body/message", "it is the image that is missing"),
    accept("errors", r#"{"exited":["x"]}"#, "/body/message", "Go's function names mean nothing here"),
    accept("errors", "limit=x", "/status", NUMBERS),
    accept("errors", "limit=x", "/body/message", NUMBERS),
    accept("errors", "DriverOpts", "/status", LATER),
    accept("errors", "DriverOpts", "/body", LATER),
    accept("errors", "POST /images/create", "/status", "nothing was asked for: the client's mistake"),
    accept("errors", "POST /images/create", "/body/message", "as before"),
    accept("errors", r#"{"type":["x"]}"#, "/status", "the client's mistake"),
    accept("errors", "GET /containers//slash", "/status", "a name with its slash is found without a detour"),
    accept("errors", "GET /containers//slash", "/headers/Content-Type", "as before"),
    accept("errors", "GET /containers//slash", "/body", "as before"),
    accept("create", r#""NetworkMode":"container:nosuch""#, "/status", EARLIER),
    accept("create", r#""NetworkMode":"container:nosuch""#, "/body", EARLIER),
    accept("create", "80/bad", "/status", EARLIER),
    accept("create", "80/bad", "/body", EARLIER),
    accept("create", "max-size\":\"x", "/status", EARLIER),
    accept("create", "max-size\":\"x", "/body", EARLIER),
    accept("create", "max-file\":\"0", "/status", EARLIER),
    accept("create", "max-file\":\"0", "/body", EARLIER),
    accept("create", r#""Tmpfs":{"/x":"bad"#, "/status", EARLIER),
    accept("create", r#""Tmpfs":{"/x":"bad"#, "/body", EARLIER),
    accept("create", "UsernsMode", "/status", EARLIER),
    accept("create", "UsernsMode", "/body", EARLIER),
    accept("create", "seccomp=bad", "/status", EARLIER),
    accept("create", "seccomp=bad", "/body", EARLIER),
    accept("create", "VolumeOptions", "/body/message", "the words of the other wrong mounts"),
    accept("create", "bad/name", "/body/message", "says in which mount"),
    accept("create", "POST /containers/{id}/start", "/body/message", RUNC),
    accept("create", "GET /containers/{id}/json", "/body/State/Error", RUNC),
    accept(
        "create",
        "GET /containers/{id}/json",
        "/body/ResolvConfPath",
        "a start that failed leaves no files",
    ),
    accept("create", "GET /containers/{id}/json", "/body/HostnamePath", "as before"),
    accept("create", "GET /containers/{id}/json", "/body/HostsPath", "as before"),
    accept("create", "GET /containers/{id}/json", "/body/LogPath", "as before"),
    accept("containers", "unpause", "/status", "a state that forbids it is a conflict, as for all others"),
    accept("containers", "--bad", "/status", LATER),
    accept("containers", "--bad", "/body/message", LATER),
    accept("containers", "stop?signal=BAD", "/status", "the client's mistake"),
    accept("containers", "link=1", "/status", "the message says itself that it is a conflict"),
    accept(
        "containers",
        "web2/json",
        "/body/NetworkSettings/Networks/bridge/DNSNames",
        "a renamed container has no other names",
    ),
    accept("containers", "t=x", "/status", NUMBERS),
    accept("containers", "t=x", "/body/message", NUMBERS),
    accept("containers", "bad-key", "/headers/Content-Type", ONE_SHAPE),
    accept("containers", "bad-key", "/body", ONE_SHAPE),
    accept("execs", "bad-key", "/status", "the client's mistake"),
    accept("execs", r#""Env":["=x"]"#, "/status", EARLIER),
    accept("execs", r#""Env":["=x"]"#, "/body", EARLIER),
    accept("execs", r#""WorkingDir":"rel""#, "/status", EARLIER),
    accept("execs", r#""WorkingDir":"rel""#, "/body", EARLIER),
    accept("execs", "resize", "/body/message", RUNC),
    accept("execs", "UPGRADE /exec/{id}/start {}", "/body/frames", RUNC),
    accept("execs", "GET /exec/{id}/json", "/body/ExitCode", "a working directory that is not there"),
    accept(
        "execs",
        "POST /exec/{id}/start {}",
        "/status",
        "execs are known for a while after their container's end",
    ),
    accept("execs", "POST /exec/{id}/start {}", "/body/message", "as before"),
    accept("files", "archive", "/body/message", "Docker's text has a mistake in it, or Go's words"),
    accept("images", "com:1", "/body/ContainerConfig", "it is not stored twice; Config says the same"),
    accept("images", "com:1", "/body/DockerVersion", OURS),
    accept("images", "{id}", "/body/DockerVersion", OURS),
    accept("images", "imp:1", "/body/DockerVersion", OURS),
    accept("images", "POST /images/busybox/tag", "/status", "a name is needed"),
    accept("images", "POST /images/busybox/tag", "/headers/Content-Type", "as before"),
    accept("images", "POST /images/busybox/tag", "/body", "as before"),
    accept("images", "quiet=0", "/body", "the layer went with the image"),
    accept("images", "quiet=1 <tar>", "/body/errorDetail/message", "says what it is instead"),
    accept("images", "quiet=1 <tar>", "/body/error", "as before"),
    accept("images", "not-a-tar", "/status", STREAMED),
    accept("images", "not-a-tar", "/body", STREAMED),
    accept("logs", "since=10m", "/status", "durations are understood, too"),
    accept("logs", "since=10m", "/headers/Content-Type", "as before"),
    accept("logs", "since=10m", "/body", "as before"),
    accept("logs", "=bad", "/status", NUMBERS),
    accept("logs", "=bad", "/body/message", NUMBERS),
    accept("events", "POST /containers/{id}/start", "/body/message", RUNC),
];
