//! Options of `build`: docker's own and those of its plugin buildx.

use std::collections::BTreeMap;

use longshore_api::build::BuildAnnotation;
use serde_json::{Value, json};

use super::annotation;
use super::build_cache::{From as CacheFrom, To as CacheTo};
use super::csv;
use super::given::{Additional, AdditionalFrom, Agent, Secret};
use super::kinds::{BYTES, ENV, HOST, LABEL, SWAP, ULIMIT, host};
use super::output::{Made, Output};
use super::{ulimit, units};
use crate::error::Result;
use crate::flags::{BOOL, FILTER, Flag, INT, Kind, STRING, STRINGS, flag, options, values};

const LATER: &str = "is not implemented yet";

const TAG: Kind = Kind::many("list", check_tag);
const REMOVE: Kind = Kind::one("", check_remove);
const ISOLATION: Kind =
    Kind::one("string", |v| only(v, &["", "default"], "other isolation than \"default\""));
const BUILDER: Kind =
    Kind::one("string", |v| only(v, &["", "default"], "a builder other than the daemon itself"));
const CALL: Kind = Kind::one("string", |v| {
    only(v, &["", "build", "check"], "asking about a build in another way than --call=check")
});
const PROGRESS: Kind = Kind::one("string", |v| Progress::read(v).map(drop));
const OUTPUT: Kind = Kind::many("stringArray", |v| Output::read(v).map(drop));
const CONTEXT: Kind = Kind::many("stringArray", |v| Additional::read(v).map(drop));
const ALLOW: Kind = Kind::many("strings", |v| {
    match v.split(',').find(|one| !["network.host", "security.insecure"].contains(one)) {
        Some(one) => Err(format!("invalid entitlement {one:?}: want network.host or security.insecure")),
        None => Ok(()),
    }
});
const ANNOTATION: Kind = Kind::many("stringArray", |v| annotation::read(v).map(drop));
pub(crate) const SSH: Kind = Kind::many("stringArray", |v| Agent::read(v).map(drop));
pub(crate) const SECRET: Kind = Kind::many("stringArray", |v| Secret::read(v).map(drop));
const CACHE_FROM: Kind = Kind::many("stringArray", |v| CacheFrom::read(v).map(drop));
const CACHE_TO: Kind = Kind::many("stringArray", |v| CacheTo::read(v).map(drop));
const PROVENANCE: Kind = Kind::one("string", |v| check_off(v, "provenance"));
const SBOM: Kind = Kind::one("string", |v| check_off(v, "a bill of materials"));
const ATTEST: Kind = Kind::many("stringArray", check_attest);

options! {
    /// `build`.
    BuildArgs {
        add_host: Vec<String> = flag("add-host", HOST, "Add a custom host-to-IP mapping (\"host:ip\")"),
        annotation: Vec<String> = flag("annotation", ANNOTATION, "Add annotation to the image"),
        allow: Vec<String> = flag(
            "allow", ALLOW, "Allow extra privileged entitlement (\"network.host\", \"security.insecure\")",
        ),
        build_arg: Vec<String> = flag("build-arg", ENV, "Set build-time variables"),
        build_context: Vec<String> = flag(
            "build-context", CONTEXT, "Additional build contexts (e.g., name=path, name=docker-image://image)",
        ),
        cache_from: Vec<String> = flag(
            "cache-from", CACHE_FROM,
            "External cache sources (e.g. \"user/app:cache\", \"type=local,src=path/to/dir\")",
        ),
        cache_to: Vec<String> = flag(
            "cache-to", CACHE_TO,
            "Cache export destinations (e.g. \"type=registry,ref=user/app:cache\", \"type=local,dest=path/to/dir\", \"type=inline\")",
        ),
        cgroup_parent: String =
            flag("cgroup-parent", STRING, "Set the parent cgroup for the \"RUN\" instructions during build"),
        call: Option<String> =
            flag("call", CALL, "Method for evaluating the build (\"build\", \"check\")").shows("build"),
        check: bool = flag("check", BOOL, "Shorthand for \"--call=check\""),
        compress: bool = flag("compress", BOOL, "Compress the build context using gzip (the daemon is on this machine: changes nothing)"),
        cpu_period: i64 = flag("cpu-period", INT, "Limit the CPU CFS (Completely Fair Scheduler) period"),
        cpu_quota: i64 = flag("cpu-quota", INT, "Limit the CPU CFS (Completely Fair Scheduler) quota"),
        cpu_shares: i64 = flag("cpu-shares", INT, "CPU shares (relative weight)").short('c'),
        cpuset_cpus: String = flag("cpuset-cpus", STRING, "CPUs in which to allow execution (0-3, 0,1)"),
        cpuset_mems: String = flag("cpuset-mems", STRING, "MEMs in which to allow execution (0-3, 0,1)"),
        debug_shell: bool = flag("debug-shell", BOOL, "Open a shell in what a failed \"RUN\" left"),
        disable_content_trust: Option<bool> =
            flag("disable-content-trust", BOOL, "Skip image verification").default("true"),
        explain: bool = flag("explain", BOOL, "Say of every step why it was carried out, or why not"),
        file: String =
            flag("file", STRING, "Name of the Dockerfile (Default is \"PATH/Dockerfile\")").short('f'),
        iidfile: Option<String> = flag("iidfile", STRING, "Write the image ID to the file"),
        label: Vec<String> = flag("label", LABEL, "Set metadata for an image"),
        load: bool = flag("load", BOOL, "Shorthand for \"--output=type=docker\""),
        memory: Option<String> = flag("memory", BYTES, "Memory limit").short('m'),
        memory_swap: Option<String> =
            flag("memory-swap", SWAP, "Swap limit equal to memory plus swap: -1 to enable unlimited swap"),
        metadata_file: Option<String> =
            flag("metadata-file", STRING, "Write build result metadata to a file"),
        network: String =
            flag("network", STRING, "Set the networking mode for the \"RUN\" instructions during build").default("default"),
        no_cache: bool = flag("no-cache", BOOL, "Do not use cache when building the image"),
        no_cache_filter: Vec<String> = flag("no-cache-filter", STRINGS, "Do not cache specified stages"),
        output: Vec<String> =
            flag("output", OUTPUT, "Output destination (format: \"type=local,dest=path\", \"type=tar,dest=file\", \"type=oci,dest=file\", \"type=docker[,dest=file]\", \"type=image[,name=NAME][,push=true]\")").short('o'),
        platform: Vec<String> =
            flag("platform", STRINGS, "Set target platform for build; several make an index"),
        progress: Option<String> = flag(
            "progress", PROGRESS,
            "Set type of progress output (\"auto\", \"plain\", \"tty\", \"quiet\", \"rawjson\")",
        ).shows("auto"),
        pull: bool = flag("pull", BOOL, "Always attempt to pull a newer version of the image"),
        push: bool = flag("push", BOOL, "Push what was built to the registries of its tags"),
        quiet: bool =
            flag("quiet", BOOL, "Suppress the build output and print image ID on success").short('q'),
        secret: Vec<String> = flag(
            "secret", SECRET,
            "Secret to expose to the build (format: \"id=mysecret[,src=/local/secret]\" or \"id=mysecret,env=NAME\")",
        ),
        shm_size: Option<String> = flag("shm-size", BYTES, "Size of \"/dev/shm\""),
        squash: bool = flag("squash", BOOL, "Squash newly built layers into a single new layer"),
        ssh: Vec<String> = flag(
            "ssh", SSH, "SSH agent socket or keys to expose to the build (format: \"default|<id>[=<socket>|<key>[,<key>]]\")",
        ),
        tag: Vec<String> =
            flag("tag", TAG, "Name and optionally a tag in the \"name:tag\" format").short('t'),
        target: String = flag("target", STRING, "Set the target build stage to build."),
        ulimit: Vec<String> = flag("ulimit", ULIMIT, "Ulimit options").shows("[]"),
        verify_reproducible: bool = flag(
            "verify-reproducible", BOOL, "Build a second time without the cache, and tell the first file that differs",
        ),
        ; context: String
    }
}

options! {
    /// `builder prune`.
    BuilderPruneArgs {
        all: bool = flag("all", BOOL, "Remove all unused build cache, not just what no image has").short('a'),
        filter: Vec<String> = flag("filter", FILTER, "Provide filter values (e.g. \"until=24h\")"),
        force: bool = flag("force", BOOL, "Do not prompt for confirmation").short('f'),
        keep_storage: Option<String> = flag("keep-storage", BYTES, "Amount of disk space to keep for cache"),
        max_used_space: Option<String> =
            flag("max-used-space", BYTES, "Maximum amount of disk space allowed to keep for cache"),
        min_free_space: Option<String> =
            flag("min-free-space", BYTES, "Target amount of free disk space after pruning"),
        reserved_space: Option<String> =
            flag("reserved-space", BYTES, "Amount of disk space to keep for cache: what was used last stays"),
        ;
    }
}

options! {
    /// `builder du`.
    BuilderDuArgs {
        verbose: bool = flag("verbose", BOOL, "Show the instruction or the name of each entry, too"),
        ;
    }
}

/// Options whose values, once they passed their check, change nothing.
pub(crate) const BUILD_CHECKED: &[Flag] = &[
    flag("attest", ATTEST, "Attestation parameters (disabled ones only, so far)"),
    flag("builder", BUILDER, "Builder to use: \"default\", the daemon"),
    flag("force-rm", REMOVE, "Always remove intermediate containers").default("true"),
    flag("isolation", ISOLATION, "Container isolation technology"),
    flag("provenance", PROVENANCE, "Shorthand for \"--attest=type=provenance\": \"false\" only, so far"),
    flag("rm", REMOVE, "Remove intermediate containers after a successful build").default("true"),
    flag("sbom", SBOM, "Shorthand for \"--attest=type=sbom\": \"false\" only, so far"),
];

/// What is not there yet.
pub(crate) const BUILD_LATER: &[Flag] = &[flag("security-opt", STRINGS, "Security options").refused(LATER)];

/// How a build is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// A display that changes on a terminal, lines elsewhere.
    Auto,
    Plain,
    Tty,
    /// Nothing but the image's id.
    Quiet,
    /// BuildKit's status messages, for programs.
    Raw,
}

impl Progress {
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        Ok(match text {
            "" | "auto" => Self::Auto,
            "plain" => Self::Plain,
            "tty" => Self::Tty,
            "quiet" | "none" => Self::Quiet,
            "rawjson" => Self::Raw,
            _ => return Err(format!("{text:?} is none of auto, plain, tty, quiet and rawjson")),
        })
    }
}

fn only(value: &str, allowed: &[&str], what: &str) -> Result<(), String> {
    if allowed.contains(&value.to_ascii_lowercase().as_str()) {
        return Ok(());
    }
    Err(format!("{what} is not implemented yet"))
}

pub(super) fn check_tag(text: &str) -> Result<(), String> {
    use longshore_oci::ParseReferenceError::Digest;
    let read = text.parse::<longshore_oci::Reference>().and_then(longshore_oci::Reference::for_a_tag);
    read.map(drop).map_err(|e| match e {
        Digest(_) => "invalid reference format".into(),
        e => e.to_string(),
    })
}

fn check_remove(text: &str) -> Result<(), String> {
    values::check_bool(text)?;
    if values::truth(text) == Some(false) {
        return Err("the containers of a build are always removed".into());
    }
    Ok(())
}

/// Attestations that are not wanted are not made.
fn check_off(text: &str, what: &str) -> Result<(), String> {
    if values::truth(text) == Some(false) {
        return Ok(());
    }
    Err(format!("{what} is not implemented yet; \"false\" builds without"))
}

fn check_attest(text: &str) -> Result<(), String> {
    let off = |field: &String| field.strip_prefix("disabled=").and_then(values::truth) == Some(true);
    if csv::fields(text)?.iter().any(off) {
        return Ok(());
    }
    Err("attestations are not implemented yet; \"disabled=true\" builds without".into())
}

impl BuildArgs {
    /// What the image is called, in the order that was given.
    pub(crate) fn names(&self) -> Vec<String> {
        self.tag.iter().cloned().chain(self.outputs().into_iter().flat_map(|o| o.names)).collect()
    }

    /// An option that Docker's classic builder does not know.
    pub(crate) fn ours_alone(&self) -> Option<&'static str> {
        let options = [
            ("--annotation", !self.annotations().is_empty()),
            ("--secret", !self.secret.is_empty()),
            ("--ssh", !self.ssh.is_empty()),
            ("--allow", !self.allow.is_empty()),
            ("--no-cache-filter", !self.no_cache_filter.is_empty()),
            ("--cache-from", !self.cache_from.is_empty()),
            ("--cache-to", !self.cache_to.is_empty()),
            ("--explain", self.explain),
            ("--verify-reproducible", self.verify_reproducible),
            ("--debug-shell", self.debug_shell),
        ];
        options.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
    }

    /// Whom commands may ask for keys.
    pub(crate) fn agents(&self) -> Vec<Agent> {
        self.ssh.iter().filter_map(|text| Agent::read(text).ok()).collect()
    }

    /// The contexts with names, the last of a name.
    pub(crate) fn additional(&self) -> BTreeMap<String, AdditionalFrom> {
        let all = self.build_context.iter().filter_map(|text| Additional::read(text).ok());
        all.map(|one| (one.name, one.from)).collect()
    }

    /// What manifests and the index say besides.
    pub(crate) fn annotations(&self) -> Vec<BuildAnnotation> {
        let own = self.annotation.iter().filter_map(|text| annotation::read(text).ok()).flatten();
        own.chain(self.outputs().into_iter().flat_map(|output| output.annotations)).collect()
    }

    /// What becomes of what is built.
    pub(crate) fn outputs(&self) -> Vec<Output> {
        self.output.iter().filter_map(|o| Output::read(o).ok()).collect()
    }

    /// Whether the daemon keeps an image.
    pub(crate) fn records(&self) -> bool {
        let outputs = self.outputs();
        let wanted = outputs.iter().any(|o| matches!(o.made, Made::Image { .. }));
        outputs.is_empty() || wanted || self.push || self.load
    }

    /// The Dockerfile is looked at and not built.
    pub(crate) fn checks(&self) -> bool {
        self.check || self.call.as_deref() == Some("check")
    }

    /// What commands may ask for.
    pub(crate) fn secrets(&self) -> Vec<Secret> {
        self.secret.iter().filter_map(|s| Secret::read(s).ok()).collect()
    }

    /// Where the cache comes from, besides the daemon's own.
    pub(crate) fn cache_from(&self) -> Vec<CacheFrom> {
        self.cache_from.iter().filter_map(|f| CacheFrom::read(f).ok()).flatten().collect()
    }

    /// Where the cache goes.
    pub(crate) fn cache_to(&self) -> Vec<CacheTo> {
        self.cache_to.iter().filter_map(|t| CacheTo::read(t).ok()).flatten().collect()
    }

    /// Whether registries get it.
    pub(crate) fn pushes(&self) -> bool {
        self.push || self.outputs().iter().any(|o| o.made == Made::Image { push: true })
    }

    /// The parameters of Docker's `POST /build`. `own` is what this program's environment says, `proxies` are variables
    /// for commands where no option has them.
    pub(crate) fn parameters(
        &self,
        dockerfile: &str,
        platform: &str,
        own: impl Fn(&str) -> Option<String>,
        proxies: &[(String, String)],
    ) -> Result<Vec<(&'static str, String)>> {
        let bytes = |v: &Option<String>| v.as_deref().map_or(Ok(0), units::bytes_or_unlimited);
        let number = |n: i64| if n == 0 { String::new() } else { n.to_string() };
        let flag = |on: bool| if on { "1".to_owned() } else { String::new() };
        let hosts = self.add_host.iter().map(|h| host(h)).collect::<Result<Vec<_>, _>>()?;
        let ulimits = self.ulimit.iter().map(|u| ulimit::parse(u)).collect::<Result<Vec<_>, _>>()?;
        let mut out = vec![
            ("dockerfile", dockerfile.to_owned()),
            ("check", flag(self.checks())),
            ("explain", flag(self.explain)),
            ("squash", flag(self.squash)),
            ("keepfailed", flag(self.debug_shell)),
            ("nocache", flag(self.no_cache)),
            ("pull", flag(self.pull)),
            ("rm", flag(true)),
            ("forcerm", flag(true)),
            ("target", self.target.clone()),
            ("platform", platform.to_owned()),
            ("networkmode", self.network.clone()),
            ("extrahosts", hosts.join(",")),
            ("memory", number(bytes(&self.memory)?)),
            ("memswap", number(bytes(&self.memory_swap)?)),
            ("cpushares", number(self.cpu_shares)),
            ("cpuperiod", number(self.cpu_period)),
            ("cpuquota", number(self.cpu_quota)),
            ("cpusetcpus", self.cpuset_cpus.clone()),
            ("cpusetmems", self.cpuset_mems.clone()),
            ("shmsize", number(bytes(&self.shm_size)?)),
            ("cgroupparent", self.cgroup_parent.clone()),
            ("buildargs", object(&self.arguments(own, proxies))),
            ("labels", object(&self.labels())),
            ("ulimits", if ulimits.is_empty() { String::new() } else { Value::from(ulimits).to_string() }),
        ];
        if !self.records() {
            out.push(("norecord", "1".to_owned()));
        }
        let made: Vec<Made> = self.outputs().into_iter().map(|o| o.made).collect();
        if made.iter().any(|m| matches!(m, Made::Folder(_) | Made::Tar(_))) {
            out.push(("export", "tree".to_owned()));
        }
        if made.iter().any(|m| matches!(m, Made::Archive(_))) {
            out.push(("export", "archive".to_owned()));
        }
        let allowed = self.allow.iter().flat_map(|all| all.split(','));
        out.extend(allowed.map(|one| ("allow", one.to_owned())));
        out.extend(self.no_cache_filter.iter().map(|stage| ("nocachefilter", stage.clone())));
        out.extend(self.names().into_iter().map(|name| ("t", name)));
        out.retain(|(_, value)| !value.is_empty());
        Ok(out)
    }

    /// A name alone takes this program's value; without one it takes nothing, not even a proxy's.
    fn arguments(
        &self,
        own: impl Fn(&str) -> Option<String>,
        proxies: &[(String, String)],
    ) -> BTreeMap<String, Value> {
        let mut out: BTreeMap<String, Value> =
            proxies.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        for text in &self.build_arg {
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (text.as_str(), own(text)),
            };
            out.insert(name.to_owned(), json!(value));
        }
        out
    }

    fn labels(&self) -> BTreeMap<String, Value> {
        let pair = |text: &String| {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            (name.to_owned(), json!(value))
        };
        self.label.iter().map(pair).collect()
    }
}

fn object(map: &BTreeMap<String, Value>) -> String {
    if map.is_empty() { String::new() } else { json!(map).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::{Options as _, parse};

    fn read(line: &str) -> Result<BuildArgs, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let flags: Vec<Flag> =
            BuildArgs::FLAGS.iter().chain(BUILD_CHECKED).chain(BUILD_LATER).copied().collect();
        parse(&flags, &words, true).map(|m| BuildArgs::from_matches(&m))
    }

    fn check(line: &str, want: &[(&str, &str)]) {
        let own = |name: &str| (name == "OWN").then(|| "mine".to_owned());
        let args = read(line).unwrap();
        let mut got = args.parameters("Dockerfile", "", own, &[("http_proxy".into(), "p".into())]).unwrap();
        let always = [
            ("dockerfile", "Dockerfile"),
            ("rm", "1"),
            ("forcerm", "1"),
            ("networkmode", "default"),
            ("buildargs", r#"{"http_proxy":"p"}"#),
        ];
        got.retain(|(k, v)| !always.contains(&(*k, v.as_str())));
        let got: Vec<(&str, &str)> = got.iter().map(|(k, v)| (*k, v.as_str())).collect();
        assert_eq!(got, want, "{line}");
    }

    #[test]
    fn options_become_parameters() {
        check(".", &[]);
        check("-t a -t b:1 .", &[("t", "a"), ("t", "b:1")]);
        check("-o type=image,\"name=x,y\",push=true .", &[("t", "x"), ("t", "y")]);
        check("--squash .", &[("squash", "1")]);
        check("--no-cache --pull --target x .", &[("nocache", "1"), ("pull", "1"), ("target", "x")]);
        check("--network none .", &[("networkmode", "none")]);
        check(
            "--allow network.host,security.insecure .",
            &[("allow", "network.host"), ("allow", "security.insecure")],
        );
        check("--add-host a:1.2.3.4 --add-host b=::1 .", &[("extrahosts", "a:1.2.3.4,b:::1")]);
        check(
            "-m 1g --memory-swap -1 -c 5 --cpu-period 1000 --cpu-quota 2000 --cpuset-cpus 0 --cpuset-mems 1 .",
            &[
                ("memory", "1073741824"),
                ("memswap", "-1"),
                ("cpushares", "5"),
                ("cpuperiod", "1000"),
                ("cpuquota", "2000"),
                ("cpusetcpus", "0"),
                ("cpusetmems", "1"),
            ],
        );
        check(
            "--shm-size 1m --cgroup-parent x.slice .",
            &[("shmsize", "1048576"), ("cgroupparent", "x.slice")],
        );
        check("--ulimit nofile=1:2 .", &[("ulimits", r#"[{"Name":"nofile","Soft":1,"Hard":2}]"#)]);
        check("--label a=b=c --label d .", &[("labels", r#"{"a":"b=c","d":""}"#)]);
        check(
            "--build-arg A=1 --build-arg OWN --build-arg NONE --build-arg http_proxy .",
            &[("buildargs", r#"{"A":"1","NONE":null,"OWN":"mine","http_proxy":null}"#)],
        );
        check("--load --rm --force-rm --isolation default --call build --provenance=false --sbom=0 .", &[]);
        check("--attest type=provenance,disabled=true -o type=docker --compress .", &[]);
        check("-o out .", &[("norecord", "1"), ("export", "tree")]);
        check("-o out -o - --load .", &[("export", "tree")]);
        check("-o type=oci,dest=x,name=y .", &[("norecord", "1"), ("export", "archive"), ("t", "y")]);
    }

    #[test]
    fn what_is_done_with_an_image() {
        for (line, names, push) in [
            (".", &[][..], false),
            ("--push -t a .", &["a"], true),
            ("-o type=registry,name=a .", &["a"], true),
            ("-o type=image,push=false .", &[], false),
        ] {
            let args = read(line).unwrap();
            assert_eq!(
                (args.names().as_slice(), args.pushes()),
                (names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>().as_slice(), push),
                "{line}"
            );
        }
    }

    #[test]
    fn what_is_wrong_or_not_there_yet_is_named() {
        for (line, want) in [
            ("--secret src=x .", "a secret needs an id"),
            ("--secret id=x,env=A,src=b .", "a secret comes from a file or from a variable"),
            ("--ssh a= .", "invalid ssh agent \"a=\""),
            ("--ssh a=b,,c .", "invalid ssh agent \"a=b,,c\""),
            ("--allow all .", "invalid entitlement \"all\""),
            ("--cache-from type=s3 .", "type=s3 is not implemented yet"),
            ("--cache-to type=inline,mode=max .", "mode=max: an image has room"),
            ("--annotation a .", "invalid annotation \"a\", expected key=value"),
            ("--build-context a .", "invalid context value: a, expected key=value"),
            ("--build-context a=ftp://x .", "context a: ftp:// is not fetched"),
            ("--build-context a=oci-layout://:1 .", "an oci-layout needs a path"),
            ("--build-context a=oci-layout://x@1 .", "context a: "),
            ("--security-opt a .", "--security-opt is not implemented yet"),
            (
                "--call outline .",
                "asking about a build in another way than --call=check is not implemented yet",
            ),
            ("--builder other .", "a builder other than the daemon itself is not implemented yet"),
            ("--isolation process .", "other isolation than \"default\" is not implemented yet"),
            ("-o type=tar .", "type=tar needs dest=FILE"),
            ("-o name=x .", "type is required for output"),
            ("-o type=image,push=x .", "push=x is neither true nor false"),
            ("--provenance=mode=max .", "provenance is not implemented yet"),
            ("--sbom=true .", "a bill of materials is not implemented yet"),
            ("--attest type=sbom .", "attestations are not implemented yet"),
            ("--rm=false .", "the containers of a build are always removed"),
            ("--progress x .", "\"x\" is none of auto, plain, tty, quiet and rawjson"),
            ("-t A .", "invalid argument \"A\" for \"-t, --tag\" flag: invalid reference format"),
            ("--build-arg =x .", "invalid environment variable: =x"),
            ("-m x .", "invalid size: 'x'"),
            ("--nope .", "unknown flag: --nope"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(want), "{line}: {error}");
        }
    }
}
