use super::super::*;
use super::{kind, wrong};

fn run(text: &str) -> RunCmd {
    match kind(&format!("RUN {text}")) {
        Kind::Run(run) => run,
        other => panic!("{other:?}"),
    }
}

fn mount(text: &str) -> Mount {
    run(&format!("--mount={text} x")).mounts[0].resolve(|v| Ok(v.to_owned())).unwrap()
}

#[test]
fn flags_of_run() {
    let r =
        run("--network=host --security=insecure --device=vendor.com/gpu=all,required --device=name=a/b x y");
    assert_eq!((r.network, r.security), (Network::Host, Security::Insecure));
    assert_eq!(
        r.devices,
        [
            Device { name: "vendor.com/gpu=all".into(), required: true },
            Device { name: "a/b".into(), required: false }
        ]
    );
    assert_eq!(r.body, RunBody::Shell("x y".into()));
    assert_eq!(run("--network=none x").network, Network::None);
    let check = |text: &str, want: &str| {
        assert_eq!(
            wrong(&format!("RUN {text} x")),
            format!("dockerfile parse error on line 1, column 5: {want}")
        );
    };
    check("--network=hots", "invalid network mode \"hots\": want default, none or host");
    check("--security=none", "security \"none\" is not valid: want sandbox or insecure");
    check("--mounts=x", "unknown flag: --mounts (did you mean mount?)");
}

#[test]
fn every_key() {
    let m = mount("type=cache,id=i,target=/t,source=s,from=f,sharing=locked,mode=0755,uid=1,gid=2,ro");
    assert_eq!(
        (m.kind, m.id.as_deref(), m.target.as_str(), m.source.as_str(), m.from.as_deref()),
        (MountKind::Cache, Some("i"), "/t", "s", Some("f"))
    );
    assert_eq!(
        (m.sharing, m.mode, m.uid, m.gid, m.read_only),
        (Sharing::Locked, Some(0o755), Some(1), Some(2), true)
    );
    let m = mount("target=/t");
    assert_eq!((m.kind, m.read_only), (MountKind::Bind, true));
    assert!(!mount("rw,dst=/t").read_only && !mount("type=bind,readonly=false,destination=/t").read_only);
    assert!(
        !mount("type=cache,target=/t").read_only && mount("type=cache,target=/t,readwrite=false").read_only
    );
    assert_eq!(mount("type=tmpfs,target=/t,size=1.5g").size, Some(3 << 29));
    let m = mount("required,type=secret,id=i,env=E");
    assert_eq!((m.required, m.env.as_deref()), (true, Some("E")));
    assert_eq!(mount("type=secret,id=i,env").env.as_deref(), Some(""));
    assert_eq!(mount("TYPE=SSH,required=true").kind, MountKind::Ssh);
    assert_eq!(mount("'type=bind,\"target=/a,b\"'").target, "/a,b");
}

#[test]
fn what_does_not_go() {
    let check = |text: &str, want: &str| {
        let full = wrong(&format!("RUN --mount={text} x"));
        assert_eq!(full, format!("dockerfile parse error on line 1, column 5: {want}"), "{text}");
    };
    check("type=chace", "unsupported mount type \"chace\" (did you mean cache?)");
    check("type=cache,shraing=x", "unexpected key 'shraing' in 'shraing=x' (did you mean sharing?)");
    check("type=cache,sharing=lock", "unsupported sharing value \"lock\" (did you mean locked?)");
    check("target", "invalid field 'target' must be a key=value pair");
    check("type=bind,uid=1,target=/t", "uid not allowed for \"bind\" type mounts");
    check("type=bind,size=1,target=/t", "unexpected key 'size' for mount type 'bind'");
    check("required,target=/t", "unexpected key 'required' for mount type 'bind'");
    check("type=bind,sharing=locked,target=/t", "invalid cache sharing set for bind mount");
    check("type=secret", "invalid secret mount. one of source, target required");
    check("type=secret,id=a,source=b", "both source and id can't be set");
    check("type=secret,id=a,from=b", "secret mount should not have a from");
    check("type=cache,mode=9,target=/t", "invalid value for mode: 9");
    check("type=cache,uid=-1,target=/t", "invalid value for uid: -1");
    check("type=tmpfs,size=x,target=/t", "invalid value for size: x");
    check("from=$x,target=/t", "'from' doesn't support variable expansion, define alias stage instead");
    check(
        "'\"target=/t'",
        "mount \"\\\"target=/t\" has a quote that is not closed or not at the start of a field",
    );
}

#[test]
fn variables_wait() {
    let r = run("--mount=type=$t,target=/${d} x");
    let env = Lookup(|name: &str| Some(if name == "t" { "tmpfs".into() } else { "x".into() }));
    let value = |v: &str| Ok(expand(v, &env, Escape::Backslash, Mode::Word)?.text);
    let m = r.mounts[0].resolve(value).unwrap();
    assert_eq!((m.kind, m.target.as_str()), (MountKind::Tmpfs, "/x"));
    let failed = r.mounts[0].resolve(|v| Ok(v.replace("$t", "nothing")));
    assert_eq!(failed.unwrap_err().to_string(), "unsupported mount type \"nothing\"");
}
