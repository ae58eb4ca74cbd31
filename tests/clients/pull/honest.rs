//! A registry that keeps its word.

use longshore_oci::Platform;
use longshore_testkit::registry::{Flaw, Image, Lie, Rule, put_index};

use super::{BOTH, address, image, netns, on_disk, registry, registry_with};
use crate::harness::{Client, Daemon};

#[test]
fn privileged_pull_gives_what_was_pushed() {
    for client in BOTH {
        let d = Daemon::start();
        let registry = registry(&d);
        let pushed = image(&[3, 4, 5]).put(&registry, "zoo/lion", "1");
        let name = registry.reference("zoo/lion", "1");
        let said = d.run(client, ["pull", &name]).ok();
        assert!(said.contains(&format!("Digest: {}", pushed.manifest)), "{said}");
        assert!(said.contains(&format!("Status: Downloaded newer image for {name}")), "{said}");
        assert!(said.ends_with(&name), "{said}");
        assert_eq!(d.inspect("{{.Id}} {{len .RootFS.Layers}}", &name), format!("{} 3", pushed.config));
        let digest = registry.reference("zoo/lion", &pushed.manifest.to_string());
        assert_eq!(d.inspect("{{json .RepoDigests}}", &name), format!("[\"{digest}\"]"));
        assert!(registry.requests().iter().all(|r| !r.has_credentials()));
        // Again: asked, and not fetched.
        registry.forget_requests();
        let said = d.run(client, ["pull", &name]).ok();
        assert!(said.contains(&format!("Status: Image is up to date for {name}")), "{said}");
        assert_eq!(registry.count("GET", "/blobs/"), 0);
        assert_eq!(d.run(client, ["pull", "-q", &name]).ok(), name);
        // Another tag of it has only another name; what the tag moved to replaces it.
        image(&[3, 4, 5]).put(&registry, "zoo/lion", "2");
        d.run(client, ["pull", "-q", &registry.reference("zoo/lion", "2")]).ok();
        assert_eq!(d.docker(["images", "-q"]).ok().lines().count(), 2);
        registry.forget_requests();
        let moved = image(&[3, 4, 8]).put(&registry, "zoo/lion", "1");
        d.run(client, ["pull", "-q", &name]).ok();
        assert_eq!(d.inspect("{{.Id}}", &name), moved.config.to_string());
        assert_eq!(registry.count("GET", "/blobs/"), 2, "a configuration and the one layer that is new");
        d.docker(["rmi", "-f", &pushed.config.to_string(), &moved.config.to_string()]).ok();
        assert_eq!(on_disk(&d), Vec::<String>::new());
        d.finish();
    }
}

#[test]
fn privileged_pull_by_digest() {
    for client in BOTH {
        let d = Daemon::start();
        let registry = registry(&d);
        let pushed = image(&[1]).put(&registry, "zoo/lion", "1");
        let name = registry.reference("zoo/lion", &pushed.manifest.to_string());
        d.run(client, ["pull", &name]).ok();
        assert_eq!(d.inspect("{{.Id}} {{.RepoTags}}", &name), format!("{} []", pushed.config));
        let absent = registry.reference("zoo/lion", &pushed.config.to_string());
        let said = d.run(client, ["pull", &absent]).fails(1);
        assert!(said.contains("manifest unknown"), "{said}");
        let absent = registry.reference("zoo/tiger", "1");
        let said = d.run(client, ["pull", &absent]).fails(1);
        assert!(said.contains("manifest unknown") || said.contains("not found"), "{said}");
        d.finish();
    }
}

#[test]
fn privileged_pull_of_all_tags() {
    for client in BOTH {
        let d = Daemon::start();
        let registry = registry(&d);
        for (tag, seeds) in [("1", &[1][..]), ("2", &[1, 2]), ("same", &[1])] {
            image(seeds).put(&registry, "zoo/lion", tag);
        }
        let repository = registry.reference("zoo/lion", "");
        let repository = repository.trim_end_matches(':');
        d.run(client, ["pull", "-a", repository]).ok();
        let names = d.docker(["images", "--format", "{{.Tag}}", repository]).ok();
        let mut names: Vec<&str> = names.lines().collect();
        names.sort_unstable();
        assert_eq!(names, ["1", "2", "same"]);
        assert_eq!(registry.count("GET", "/blobs/"), 4, "two layers, two configurations");
        d.finish();
    }
}

#[test]
fn privileged_pull_chooses_the_platform() {
    for client in BOTH {
        let d = Daemon::start();
        let registry = registry(&d);
        let host = Platform::host();
        let own = image(&[1]).put(&registry, "zoo/lion", "");
        let other = image(&[2]).with("architecture", "s390x".into()).put(&registry, "zoo/lion", "");
        let platforms = [("linux", "s390x", &other), (host.os.as_str(), host.architecture.as_str(), &own)];
        let index = put_index(&registry, "zoo/lion", "1", &platforms);
        let name = registry.reference("zoo/lion", "1");
        let said = d.run(client, ["pull", &name]).ok();
        assert!(said.contains(&format!("Digest: {index}")), "{said}");
        assert_eq!(d.inspect("{{.Id}}", &name), own.config.to_string());
        d.run(client, ["pull", "--platform", "linux/s390x", &name]).ok();
        assert_eq!(d.inspect("{{.Id}} {{.Architecture}}", &name), format!("{} s390x", other.config));
        let said = d.run(client, ["pull", "--platform", "linux/z80", &name]).fails(1);
        assert!(said.contains("no matching manifest for linux/z80"), "{said}");
        d.finish();
    }
}

/// What is wanted several times at once is fetched once.
#[test]
fn privileged_pulls_at_once_fetch_every_blob_once() {
    let d = Daemon::start();
    let registry = registry(&d);
    let names: Vec<(String, String)> = (0..4)
        .map(|n| {
            let repo = format!("zoo/animal{n}");
            // Three layers are all images', one is its own; two of the images are the same.
            let pushed = image(&[3, 4, 5, 100 + n / 2]).put(&registry, &repo, "1");
            (registry.reference(&repo, "1"), pushed.config.to_string())
        })
        .collect();
    // So slow that they meet.
    registry.lie(Rule::blobs(Lie::SlowHead(std::time::Duration::from_micros(500))));
    std::thread::scope(|scope| {
        for (i, (name, _)) in names.iter().enumerate() {
            let d = &d;
            scope.spawn(move || d.run(BOTH[i % 2], ["pull", "-q", name]).ok());
        }
    });
    for (name, id) in &names {
        assert_eq!(d.inspect("{{.Id}}", name), *id);
    }
    let mut fetched: Vec<String> = registry
        .requests()
        .iter()
        .filter(|r| r.method == "GET")
        .filter_map(|r| Some(r.target.split_once("/blobs/")?.1.to_owned()))
        .collect();
    let all = fetched.len();
    fetched.sort_unstable();
    fetched.dedup();
    // The layers; configurations are small, and not waited for.
    let layers: usize = 5;
    assert!(fetched.len() == layers + 2 && all <= layers + 4, "{all} requests for {} blobs", fetched.len());
    d.finish();
}

#[test]
fn privileged_a_broken_pull_goes_on_where_it_broke() {
    for client in BOTH {
        let d = Daemon::start();
        let registry = registry(&d);
        let big = crate::kills::image_of(1, 7);
        let pushed = big.put(&registry, "zoo/lion", "1");
        let size = big.layers[0].blob.len();
        registry.lie(Rule::blobs(Lie::ResetAfter(size / 2)).path(pushed.layers[0]).times(1));
        let name = registry.reference("zoo/lion", "1");
        d.run(client, ["pull", "-q", &name]).ok();
        assert_eq!(d.inspect("{{.Id}}", &name), pushed.config.to_string());
        let requests = registry.requests();
        let ranges: Vec<_> = requests.iter().filter_map(|r| r.header("range")).collect();
        assert_eq!(ranges.len(), 1, "{ranges:?}");
        d.finish();
    }
}

#[test]
fn privileged_passwords_and_tokens() {
    for client in BOTH {
        let d = Daemon::start();
        let other = registry(&d);
        let basic = registry_with(&d, |b| b.basic("ann", "s3cret:word"));
        let token = registry_with(&d, |b| b.token("ann", "s3cret:word", false));
        for registry in [&basic, &token] {
            image(&[1]).put(registry, "zoo/lion", "1");
            let name = registry.reference("zoo/lion", "1");
            let said = d.run(client, ["pull", &name]).fails(1);
            assert!(said.contains("unauthorized") || said.contains("denied"), "{said}");
            let host = registry.host();
            let login = |password: &str| d.run(client, ["login", "-u", "ann", "-p", password, &host]);
            let said = login("wrong").fails(1);
            assert!(said.contains("unauthorized"), "{said}");
            assert!(login("s3cret:word").ok().contains("Login Succeeded"));
            d.run(client, ["pull", &name]).ok();
            let tagged = registry.reference("zoo/tiger", "1");
            d.docker(["tag", &name, &tagged]).ok();
            d.run(client, ["push", "-q", &tagged]).ok();
            assert_eq!(registry.tags("zoo/tiger"), ["1"]);
            d.docker(["rmi", &name, &tagged]).ok();
            d.run(client, ["logout", &host]).ok();
            d.run(client, ["pull", &name]).fails(1);
        }
        // What one of them knows, no other is told.
        image(&[2]).put(&other, "zoo/lion", "1");
        d.run(client, ["pull", "-q", &other.reference("zoo/lion", "1")]).ok();
        assert!(other.requests().iter().all(|r| !r.has_credentials()));
        assert!(!d.log().contains("s3cret"), "a password in the log");
        d.finish();
    }
}

/// `docker.io` is asked at its mirror; where that has failed, itself, which is nowhere here.
#[test]
fn privileged_mirrors() {
    let mut d = Daemon::start();
    let (mirror, second) = (registry(&d), registry(&d));
    d.terminate();
    let config = d.dir().join("daemon.json");
    let text = serde_json::json!({
        "registry-mirrors": [mirror.origin(), second.origin()],
        "mirrors": {"quay.example": [format!("{}/quay", second.origin())]},
    });
    std::fs::write(&config, text.to_string()).expect("configuration");
    d.add_args(&["--config-file", config.to_str().expect("utf-8")]);
    d.launch();
    let hub = image(&[1]).put(&mirror, "library/lion", "1");
    d.docker(["pull", "lion:1"]).ok();
    assert_eq!(d.inspect("{{.Id}} {{.RepoTags}}", "lion:1"), format!("{} [lion:1]", hub.config));
    assert!(second.requests().is_empty());
    // The first has not got it, or is broken: the second.
    let only_second = image(&[2]).put(&second, "library/tiger", "1");
    d.docker(["pull", "-q", "tiger:1"]).ok();
    assert_eq!(d.inspect("{{.Id}}", "tiger:1"), only_second.config.to_string());
    image(&[4]).put(&mirror, "library/bear", "1");
    let bear = image(&[4]).put(&second, "library/bear", "1");
    mirror.lie(Rule::any(Lie::OtherBytes));
    d.docker(["pull", "-q", "bear:1"]).ok();
    assert_eq!(d.inspect("{{.Id}}", "bear:1"), bear.config.to_string());
    // Another registry's, below a prefix.
    let quay = image(&[5]).put(&second, "quay/zoo/lion", "1");
    d.run(Client::Longshore, ["pull", "-q", "quay.example/zoo/lion:1"]).ok();
    assert_eq!(d.inspect("{{.Id}}", "quay.example/zoo/lion:1"), quay.config.to_string());
    let said = d.docker(["pull", "nowhere:1"]).fails(1);
    assert!(said.contains("docker.io"), "{said}");
    d.finish();
}

#[test]
fn privileged_certificates_are_checked() {
    let mut d = Daemon::start();
    let address = address(&d);
    let secure = registry_with(&d, |b| b.tls().on(address));
    let plain = registry_with(&d, |b| b.on(address));
    for registry in [&secure, &plain] {
        image(&[1]).put(registry, "zoo/lion", "1");
    }
    let pull = |d: &Daemon, registry: &longshore_testkit::registry::Registry| {
        d.docker(["pull", "-q", &registry.reference("zoo/lion", "1")])
    };
    let said = pull(&d, &secure).fails(1);
    assert!(said.contains("certificate"), "{said}");
    let said = pull(&d, &plain).fails(1);
    assert!(said.contains("insecure-registries") || said.contains("HTTP response to HTTPS client"), "{said}");
    assert!(plain.requests().is_empty(), "nothing is asked without TLS");
    // With the authority's certificate in the registry's folder.
    let certs = d.dir().join("certs.d").join(secure.host());
    std::fs::create_dir_all(&certs).expect("folder");
    std::fs::write(certs.join("ca.crt"), secure.ca().expect("TLS")).expect("certificate");
    let config = d.dir().join("daemon.json");
    let text = serde_json::json!({"certs-dirs": [d.dir().join("certs.d")]});
    std::fs::write(&config, text.to_string()).expect("configuration");
    d.terminate();
    d.add_args(&["--config-file", config.to_str().expect("utf-8")]);
    d.launch();
    pull(&d, &secure).ok();
    pull(&d, &plain).fails(1);
    // The authority does not make a bad certificate good.
    for flaw in [Flaw::Expired, Flaw::NotYet, Flaw::OtherName] {
        let flawed = registry_with(&d, |b| b.flawed(flaw).on(address));
        let certs = d.dir().join("certs.d").join(flawed.host());
        std::fs::create_dir_all(&certs).expect("folder");
        std::fs::write(certs.join("ca.crt"), flawed.ca().expect("TLS")).expect("certificate");
        let said = pull(&d, &flawed).fails(1);
        assert!(said.contains("certificate"), "{flaw:?}: {said}");
        assert!(flawed.requests().is_empty(), "{flaw:?}");
    }
    d.docker(["rmi", &secure.reference("zoo/lion", "1")]).ok();
    // Or by name, whatever it shows.
    std::fs::remove_dir_all(d.dir().join("certs.d")).expect("folder");
    d.terminate();
    d.add_args(&["--insecure-registry", &secure.host(), "--insecure-registry", &plain.host()]);
    d.launch();
    pull(&d, &secure).ok();
    pull(&d, &plain).ok();
    d.finish();
}

#[test]
fn privileged_push_sends_what_is_missing_and_mounts_the_rest() {
    for client in BOTH {
        let d = Daemon::start();
        let registry = registry(&d);
        let pushed = image(&[3, 4, 5]).put(&registry, "zoo/lion", "1");
        let lion = registry.reference("zoo/lion", "1");
        d.run(client, ["pull", "-q", &lion]).ok();
        // The same under another name: nothing is sent but the configuration, if that.
        let tiger = registry.reference("zoo/tiger", "1");
        d.docker(["tag", &lion, &tiger]).ok();
        registry.forget_requests();
        let said = d.run(client, ["push", &tiger]).ok();
        assert!(said.contains("Mounted from zoo/lion"), "{said}");
        assert!(said.contains(&format!("1: digest: {}", pushed.manifest)), "{said}");
        assert_eq!(registry.count("POST", "mount="), 3);
        let uploaded: u64 =
            registry.requests().iter().filter(|r| r.target.contains("/uploads/")).map(|r| r.received).sum();
        assert!(uploaded < 2000, "{uploaded} bytes were sent");
        assert_eq!(registry.manifest("zoo/tiger", "1").expect("pushed").0, pushed.manifest);
        // Again: there already.
        registry.forget_requests();
        let said = d.run(client, ["push", &tiger]).ok();
        assert!(said.contains("Layer already exists"), "{said}");
        assert_eq!(registry.count("POST", ""), 0);
        assert_eq!(registry.open_uploads(), 0);
        d.finish();
    }
}

#[test]
fn privileged_images_of_all_origins_are_pushed_pulled_and_run() {
    for client in BOTH {
        let d = Daemon::start();
        let registry = registry(&d);
        d.load("busybox");
        d.docker(["run", "--name", "box", "busybox", "sh", "-c", "echo made > /made; rm /bin/wget"]).ok();
        d.docker(["commit", "-c", "CMD cat /made", "box", "committed"]).ok();
        let tree = d.dir().join("tree.tar");
        d.docker(["export", "-o", tree.to_str().expect("utf-8"), "box"]).ok();
        d.docker(["import", "-c", "CMD [\"cat\",\"/made\"]", tree.to_str().expect("utf-8"), "imported"]).ok();
        d.docker(["rm", "box"]).ok();
        for (from, want) in [("committed", "made"), ("imported", "made")] {
            let id = d.inspect("{{.Id}}", from);
            let name = registry.reference(&format!("made/{from}"), "1");
            d.docker(["tag", from, &name]).ok();
            d.run(client, ["push", "-q", &name]).ok();
            let (digest, _) = registry.manifest(&format!("made/{from}"), "1").expect("pushed");
            assert!(d.inspect("{{.RepoDigests}}", &name).contains(&digest.to_string()));
            d.docker(["rmi", from, &name]).ok();
            // Missing, so it is pulled.
            assert_eq!(d.run(client, ["run", "--rm", &name]).ok(), want);
            assert_eq!(d.inspect("{{.Id}}", &name), id);
        }
        d.finish();
    }
}

/// A client that goes away takes its pull along.
#[test]
fn privileged_a_client_that_leaves_ends_its_pull() {
    let d = Daemon::start();
    let registry = registry(&d);
    let pushed = image(&[3, 4]).put(&registry, "zoo/lion", "1");
    registry.lie(Rule::blobs(Lie::StallAfter(1000)).path(pushed.layers[1]));
    let name = registry.reference("zoo/lion", "1");
    for client in BOTH {
        registry.forget_requests();
        let mut child = d
            .command(client)
            .args(["pull", &name])
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("client");
        crate::harness::wait_until("the layer is asked for", || {
            registry.count("GET", &pushed.layers[1].hex()) > 0
        });
        crate::harness::signal(child.id(), "INT");
        child.wait().expect("client");
        crate::harness::wait_until("nothing is left", || on_disk(&d).is_empty());
        crate::harness::wait_until("nobody waits for the layer", || {
            registry.requests().iter().all(|r| r.status != 0)
        });
    }
    registry.be_honest();
    d.docker(["pull", "-q", &name]).ok();
    assert_eq!(d.inspect("{{.Id}}", &name), pushed.config.to_string());
    d.finish();
}

/// A registry sends to the address where machines of a cloud get their keys: nobody is asked there, though it answers.
#[test]
fn privileged_atk_29_the_keys_of_the_machine() {
    let d = Daemon::start();
    crate::harness::in_netns(&d.netns(), "ip address add 169.254.169.254/32 dev lo").ok();
    let registry = registry(&d);
    let metadata = registry_with(&d, |b| b.on(std::net::Ipv4Addr::new(169, 254, 169, 254)));
    let pushed = image(&[1]).put(&registry, "zoo/lion", "1");
    image(&[1]).put(&metadata, "zoo/lion", "1");
    let name = registry.reference("zoo/lion", "1");
    let to = metadata.origin();
    for rule in [
        Rule::blobs(Lie::RedirectToHost(307, to.into())).path(pushed.layers[0]),
        Rule::manifests(Lie::RedirectToHost(307, to.into())),
        Rule::any(Lie::Challenge(vec![format!("Bearer realm=\"{to}/token\",service=\"x\"")])),
        Rule::blobs(Lie::Redirect(302, Some(format!("http://localtest.example:{}/x", 1))))
            .path(pushed.layers[0]),
    ] {
        registry.lie(rule);
        d.docker(["pull", "-q", &name]).fails(1);
        registry.be_honest();
    }
    assert!(metadata.requests().is_empty(), "{:?}", metadata.requests());
    d.docker(["pull", "-q", &name]).ok();
    drop(netns(&d));
    d.finish();
}

/// An artifact that refers to an image is no image, and says so.
#[test]
fn privileged_what_is_no_image_is_refused() {
    let d = Daemon::start();
    let registry = registry(&d);
    let image: Image = image(&[1]);
    image.put_blobs(&registry, "zoo/lion");
    let mut manifest = image.manifest();
    manifest["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json".into();
    let document = longshore_testkit::registry::Document::new(
        "application/vnd.oci.image.manifest.v1+json",
        manifest.to_string(),
    );
    registry.put_manifest("zoo/lion", "chart", document);
    for client in BOTH {
        let said = d.run(client, ["pull", &registry.reference("zoo/lion", "chart")]).fails(1);
        assert!(said.contains("unsupported media type application/vnd.cncf.helm.config.v1+json"), "{said}");
    }
    assert_eq!(on_disk(&d), Vec::<String>::new());
    d.finish();
}
