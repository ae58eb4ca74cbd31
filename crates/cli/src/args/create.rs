//! Options of `create`; `run` has a few more.

use super::kinds::*;
use crate::flags::{BOOL, Flag, INT, LIST, MAP, STRING, flag, options};

options! {
    /// Options of `create`; `run` has a few more.
    CreateArgs {
        add_host: Vec<String> = flag("add-host", HOST, "Add a custom host-to-IP mapping (host:ip)"),
        annotation: Vec<String> =
            flag("annotation", MAP, "Add an annotation to the container (passed through to the OCI runtime)").shows("map[]"),
        attach: Vec<String> = flag("attach", ATTACH, "Attach to STDIN, STDOUT or STDERR").short('a'),
        blkio_weight: Option<i64> =
            flag("blkio-weight", UINT16, "Block IO (relative weight), between 10 and 1000, or 0 to disable").shows("0"),
        blkio_weight_device: Vec<String> =
            flag("blkio-weight-device", WEIGHT, "Block IO weight (relative device weight)").shows("[]"),
        cap_add: Vec<String> = flag("cap-add", LIST, "Add Linux capabilities"),
        cap_drop: Vec<String> = flag("cap-drop", LIST, "Drop Linux capabilities"),
        cgroup_parent: String = flag("cgroup-parent", STRING, "Optional parent cgroup for the container"),
        cgroupns: String = flag("cgroupns", STRING, concat!(
            "Cgroup namespace to use (host|private)\n",
            "'host':    Run the container in the Docker host's cgroup namespace\n",
            "'private': Run the container in its own private cgroup namespace\n",
            "'':        Use the cgroup namespace as configured by the\n",
            "           default-cgroupns-mode option on the daemon (default)",
        )),
        cidfile: String = flag("cidfile", STRING, "Write the container ID to the file"),
        cpu_period: i64 = flag("cpu-period", INT, "Limit CPU CFS (Completely Fair Scheduler) period"),
        cpu_quota: i64 = flag("cpu-quota", INT, "Limit CPU CFS (Completely Fair Scheduler) quota"),
        cpu_rt_period: i64 = flag("cpu-rt-period", INT, "Limit CPU real-time period in microseconds"),
        cpu_rt_runtime: i64 = flag("cpu-rt-runtime", INT, "Limit CPU real-time runtime in microseconds"),
        cpu_shares: i64 = flag("cpu-shares", INT, "CPU shares (relative weight)").short('c'),
        cpus: Option<String> = flag("cpus", DECIMAL, "Number of CPUs"),
        cpuset_cpus: String = flag("cpuset-cpus", STRING, "CPUs in which to allow execution (0-3, 0,1)"),
        cpuset_mems: String = flag("cpuset-mems", STRING, "MEMs in which to allow execution (0-3, 0,1)"),
        device: Vec<String> = flag("device", LIST, "Add a host device to the container"),
        device_cgroup_rule: Vec<String> =
            flag("device-cgroup-rule", RULE, "Add a rule to the cgroup allowed devices list"),
        device_read_bps: Vec<String> =
            flag("device-read-bps", RATE, "Limit read rate (bytes per second) from a device").shows("[]"),
        device_read_iops: Vec<String> =
            flag("device-read-iops", IOPS, "Limit read rate (IO per second) from a device").shows("[]"),
        device_write_bps: Vec<String> =
            flag("device-write-bps", RATE, "Limit write rate (bytes per second) to a device").shows("[]"),
        device_write_iops: Vec<String> =
            flag("device-write-iops", IOPS, "Limit write rate (IO per second) to a device").shows("[]"),
        disable_content_trust: Option<bool> =
            flag("disable-content-trust", BOOL, "Skip image verification").default("true"),
        dns: Vec<String> = flag("dns", IP, "Set custom DNS servers"),
        dns_option: Vec<String> = flag("dns-option", LIST, "Set DNS options"),
        dns_search: Vec<String> = flag("dns-search", DOMAIN, "Set custom DNS search domains"),
        domainname: String = flag("domainname", STRING, "Container NIS domain name"),
        entrypoint: Option<String> =
            flag("entrypoint", STRING, "Overwrite the default ENTRYPOINT of the image"),
        env: Vec<String> = flag("env", ENV, "Set environment variables").short('e'),
        env_file: Vec<String> = flag("env-file", LIST, "Read in a file of environment variables"),
        expose: Vec<String> = flag("expose", LIST, "Expose a port or a range of ports"),
        gpus: Vec<String> =
            flag("gpus", GPUS, "GPU devices to add to the container ('all' to pass all GPUs)"),
        group_add: Vec<String> = flag("group-add", LIST, "Add additional groups to join"),
        health_cmd: Option<String> = flag("health-cmd", STRING, "Command to run to check health"),
        health_interval: Option<String> =
            flag("health-interval", DURATION, "Time between running the check (ms|s|m|h)").shows("0s"),
        health_retries: Option<i64> =
            flag("health-retries", INT, "Consecutive failures needed to report unhealthy"),
        health_start_interval: Option<String> =
            flag("health-start-interval", DURATION, "Time between running the check during the start period (ms|s|m|h)").shows("0s"),
        health_start_period: Option<String> =
            flag("health-start-period", DURATION, "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h)").shows("0s"),
        health_timeout: Option<String> =
            flag("health-timeout", DURATION, "Maximum time to allow one check to run (ms|s|m|h)").shows("0s"),
        hostname: String = flag("hostname", STRING, "Container host name").short('h'),
        init: Option<bool> =
            flag("init", BOOL, "Run an init inside the container that forwards signals and reaps processes"),
        interactive: bool = flag("interactive", BOOL, "Keep STDIN open even if not attached").short('i'),
        ip: String = flag("ip", STRING, "IPv4 address (e.g., 172.30.100.104)"),
        ip6: String = flag("ip6", STRING, "IPv6 address (e.g., 2001:db8::33)"),
        ipc: String = flag("ipc", STRING, "IPC mode to use"),
        isolation: String = flag("isolation", STRING, "Container isolation technology"),
        kernel_memory: Option<String> = flag("kernel-memory", BYTES, "Kernel memory limit"),
        label: Vec<String> = flag("label", LABEL, "Set meta data on a container").short('l'),
        label_file: Vec<String> = flag("label-file", LIST, "Read in a line delimited file of labels"),
        link: Vec<String> = flag("link", LINK, "Add link to another container"),
        link_local_ip: Vec<String> = flag("link-local-ip", LIST, "Container IPv4/IPv6 link-local addresses"),
        log_driver: String = flag("log-driver", STRING, "Logging driver for the container"),
        log_opt: Vec<String> = flag("log-opt", LIST, "Log driver options"),
        mac_address: String = flag("mac-address", STRING, "Container MAC address (e.g., 92:d0:c6:0a:29:33)"),
        memory: Option<String> = flag("memory", BYTES, "Memory limit").short('m'),
        memory_reservation: Option<String> = flag("memory-reservation", BYTES, "Memory soft limit"),
        memory_swap: Option<String> =
            flag("memory-swap", SWAP, "Swap limit equal to memory plus swap: '-1' to enable unlimited swap"),
        memory_swappiness: Option<i64> =
            flag("memory-swappiness", INT, "Tune container memory swappiness (0 to 100)").default("-1"),
        mount: Vec<String> = flag("mount", MOUNT, "Attach a filesystem mount to the container"),
        name: Option<String> = flag("name", STRING, "Assign a name to the container"),
        network: Vec<String> = flag("network", NETWORK, "Connect a container to a network"),
        network_alias: Vec<String> =
            flag("network-alias", LIST, "Add network-scoped alias for the container"),
        no_healthcheck: bool = flag("no-healthcheck", BOOL, "Disable any container-specified HEALTHCHECK"),
        oom_kill_disable: bool = flag("oom-kill-disable", BOOL, "Disable OOM Killer"),
        oom_score_adj: i64 = flag("oom-score-adj", INT, "Tune host's OOM preferences (-1000 to 1000)"),
        pid: String = flag("pid", STRING, "PID namespace to use"),
        pids_limit: Option<i64> = flag("pids-limit", INT, "Tune container pids limit (set -1 for unlimited)"),
        platform: Option<String> =
            flag("platform", STRING, "Set platform if server is multi-platform capable"),
        privileged: bool = flag("privileged", BOOL, "Give extended privileges to this container"),
        publish: Vec<String> = flag("publish", LIST, "Publish a container's port(s) to the host").short('p'),
        publish_mode: String = flag(
            "publish-mode", STRING,
            "How published ports work: \"nat\" (rules of the firewall) or \"local\" (listeners on the host); Longshore's daemon only",
        ).ours(),
        publish_all: bool = flag("publish-all", BOOL, "Publish all exposed ports to random ports").short('P'),
        pull: String =
            flag("pull", STRING, "Pull image before creating (\"always\", \"missing\", \"never\")").default("missing"),
        quiet: bool = flag("quiet", BOOL, "Suppress the pull output").short('q'),
        read_only: bool = flag("read-only", BOOL, "Mount the container's root filesystem as read only"),
        restart: String =
            flag("restart", STRING, "Restart policy to apply when a container exits").default("no"),
        rm: bool =
            flag("rm", BOOL, "Automatically remove the container and its associated anonymous volumes when it exits"),
        runtime: String = flag("runtime", STRING, "Runtime to use for this container"),
        security_opt: Vec<String> = flag("security-opt", LIST, "Security Options"),
        shm_size: Option<String> = flag("shm-size", BYTES, "Size of /dev/shm"),
        stop_signal: Option<String> = flag("stop-signal", STRING, "Signal to stop the container"),
        stop_timeout: Option<i64> = flag("stop-timeout", INT, "Timeout (in seconds) to stop a container"),
        storage_opt: Vec<String> = flag("storage-opt", LIST, "Storage driver options for the container"),
        sysctl: Vec<String> = flag("sysctl", SYSCTL, "Sysctl options").shows("map[]"),
        tmpfs: Vec<String> = flag("tmpfs", LIST, "Mount a tmpfs directory"),
        tty: bool = flag("tty", BOOL, "Allocate a pseudo-TTY").short('t'),
        ulimit: Vec<String> = flag("ulimit", ULIMIT, "Ulimit options").shows("[]"),
        use_api_socket: bool = flag("use-api-socket", BOOL, "Bind mount Docker API socket and required auth"),
        user: String = flag("user", STRING, "Username or UID (format: <name|uid>[:<group|gid>])").short('u'),
        userns: String = flag("userns", STRING, "User namespace to use"),
        uts: String = flag("uts", STRING, "UTS namespace to use"),
        volume: Vec<String> = flag("volume", LIST, "Bind mount a volume").short('v'),
        volume_driver: String = flag("volume-driver", STRING, "Optional volume driver for the container"),
        volumes_from: Vec<String> =
            flag("volumes-from", LIST, "Mount volumes from the specified container(s)"),
        workdir: String = flag("workdir", STRING, "Working directory inside the container").short('w'),
        ; image: String, command: Vec<String>
    }
}

options! {
    /// What `run` has besides.
    RunOptions {
        detach: bool = flag("detach", BOOL, "Run container in background and print container ID").short('d'),
        detach_keys: Option<String> =
            flag("detach-keys", STRING, "Override the key sequence for detaching a container"),
        sig_proxy: bool = flag("sig-proxy", BOOL, "Proxy received signals to the process").default("true"),
        ;
    }
}

/// Other spellings, and options that this engine cannot have.
pub(crate) const HIDDEN: &[Flag] = &[
    flag("dns-opt", LIST, "Set DNS options").same_as("dns-option"),
    flag("net", NETWORK, "Connect a container to a network").same_as("network"),
    flag("net-alias", LIST, "Add network-scoped alias for the container").same_as("network-alias"),
    flag("cpu-count", INT, "CPU count (Windows only)").refused(WINDOWS),
    flag("cpu-percent", INT, "CPU percent (Windows only)").refused(WINDOWS),
    flag("io-maxbandwidth", BYTES, "Maximum IO bandwidth limit (Windows only)").refused(WINDOWS),
    flag("io-maxiops", UINT, "Maximum IOps limit (Windows only)").refused(WINDOWS),
];

/// The option of `run` whose text differs from that of `create`.
pub(crate) const RUN_PULL: &[Flag] =
    &[flag("pull", STRING, "Pull image before running (\"always\", \"missing\", \"never\")")
        .default("missing")];
