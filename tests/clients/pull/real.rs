//! Real registries, and other programs that read what we write and write what we read.

use std::path::Path;
use std::process::Command;

use longshore_testkit::registry::{Image, Layer};

use super::{BOTH, address};
use crate::harness::{Client, Daemon, Done};
use crate::registry_server::{Door, PASSWORD, Registry, USER};

/// A program in the daemon's network.
fn there(d: &Daemon, program: &str, args: &[&str]) -> Done {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", d.netns().display())).arg(program).args(args);
    let out = command.output().unwrap_or_else(|e| panic!("{program}: {e}: `make test` installs it"));
    Done {
        code: out.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

/// Forty layers, each with a file of its own and one that all of them change.
fn forty_layers() -> Image {
    (0..40).fold(Image::new(), |image, n| {
        let (name, text) = (format!("layer{n}"), format!("{n}\n"));
        let layer = Layer::tar(&[(&name, text.as_bytes()), ("last", text.as_bytes())]);
        // Not in zstd: the second reader does not know it.
        image.layer(if n % 2 == 0 { layer.gzip() } else { layer })
    })
}

/// A daemon and a registry with TLS and a password, whose authority the daemon trusts.
fn secure() -> (Daemon, Registry) {
    let mut d = Daemon::start();
    let ip = address(&d).to_string();
    let registry = Registry::start_at(&d.netns(), Door::Secure, &ip);
    d.terminate();
    let certs = d.dir().join("certs.d").join(registry.address());
    std::fs::create_dir_all(&certs).expect("folder");
    std::fs::copy(registry.ca(), certs.join("ca.crt")).expect("certificate");
    let config = d.dir().join("daemon.json");
    let text = serde_json::json!({"certs-dirs": [d.dir().join("certs.d")]});
    std::fs::write(&config, text.to_string()).expect("configuration");
    d.add_args(&["--config-file", config.to_str().expect("utf-8")]);
    d.launch();
    (d, registry)
}

#[test]
fn privileged_forty_layers_go_there_and_come_back() {
    let (d, registry) = secure();
    let image = forty_layers();
    let id = longshore_oci::Digest::of(&image.config_bytes()).to_string();
    let file = d.dir().join("forty.tar");
    std::fs::write(&file, image.archive(&["forty:1"])).expect("archive");
    d.docker(["load", "-q", "-i", file.to_str().expect("utf-8")]).ok();
    let certs = d.dir().join("certs.d").join(registry.address());
    let (certs, creds) = (certs.to_str().expect("utf-8").to_owned(), format!("{USER}:{PASSWORD}"));
    for (i, client) in BOTH.into_iter().enumerate() {
        let name = registry.name(&format!("made/forty{i}:1"));
        d.docker(["tag", "forty:1", &name]).ok();
        let said = d.run(client, ["push", &name]).fails(1);
        assert!(said.to_lowercase().contains("unauthorized") || said.contains("no basic auth"), "{said}");
        d.run(client, ["login", "-u", USER, "-p", PASSWORD, registry.address()]).ok();
        d.run(client, ["push", &name]).ok();
        let digest = d.inspect("{{index .RepoDigests 0}}", &name);
        let digest = digest.rsplit_once('@').expect("a digest").1.to_owned();

        // skopeo and umoci read it: the same digests, the same files.
        let source = format!("docker://{name}");
        let raw =
            there(&d, "skopeo", &["inspect", "--raw", "--creds", &creds, "--cert-dir", &certs, &source]);
        let raw = raw.ok();
        assert_eq!(longshore_oci::Digest::of(raw.as_bytes()).to_string(), digest);
        let manifest: serde_json::Value = serde_json::from_str(&raw).expect("JSON");
        assert_eq!(manifest["config"]["digest"], id.as_str());
        assert_eq!(manifest["layers"].as_array().map(Vec::len), Some(40));
        let layout = d.dir().join(format!("layout{i}"));
        let to = format!("oci:{}:1", layout.display());
        there(&d, "skopeo", &["copy", "-q", "--src-creds", &creds, "--src-cert-dir", &certs, &source, &to])
            .ok();
        let bundle = d.dir().join(format!("bundle{i}"));
        let umoci = |args: &[&str]| there(&d, "umoci", args).ok();
        umoci(&[
            "raw",
            "unpack",
            "--image",
            &format!("{}:1", layout.display()),
            bundle.to_str().expect("utf-8"),
        ]);
        assert_tree(&bundle);

        // Back by skopeo under another name, with other compression: it is the same image.
        let back = registry.name(&format!("back/forty{i}:1"));
        let to = format!("docker://{back}");
        let from = format!("oci:{}:1", layout.display());
        let mut args = vec!["copy", "-q", "--dest-creds", &creds, "--dest-cert-dir", &certs];
        if client == Client::Longshore {
            args.extend(["--dest-compress", "--dest-compress-format", "zstd"]);
        }
        args.extend([from.as_str(), &to]);
        there(&d, "skopeo", &args).ok();
        d.docker(["rmi", &name]).ok();
        if i == 1 {
            // Now all of it has to come.
            d.docker(["rmi", "forty:1"]).ok();
            assert_eq!(super::on_disk(&d), Vec::<String>::new());
        }
        d.run(client, ["pull", "-q", &back]).ok();
        assert_eq!(d.inspect("{{.Id}} {{len .RootFS.Layers}}", &back), format!("{id} 40"));
        d.docker(["rmi", &back]).ok();
        d.run(client, ["logout", registry.address()]).ok();
    }
    d.finish();
}

/// Every layer's file is there, and of the one that all changed, the last state.
fn assert_tree(root: &Path) {
    for n in 0..40 {
        assert_eq!(std::fs::read_to_string(root.join(format!("layer{n}"))).expect("file"), format!("{n}\n"));
    }
    assert_eq!(std::fs::read_to_string(root.join("last")).expect("file"), "39\n");
}

/// An image of several hundred megabytes in a plain registry, by both command lines.
#[test]
fn privileged_a_real_image_there_and_back() {
    let d = Daemon::start();
    let registry = Registry::start(&d.netns(), Door::Plain);
    d.load("debian");
    let id = d.inspect("{{.Id}}", "debian");
    let layers = d.inspect("{{json .RootFS.Layers}}", "debian");
    for client in BOTH {
        let name = registry.name("linux/debian:1");
        d.docker(["tag", &id, &name]).ok();
        d.run(client, ["push", "-q", &name]).ok();
        let tags = d.docker(["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok();
        let mut args = vec!["rmi"];
        args.extend(tags.lines());
        d.docker(args).ok();
        assert_eq!(super::on_disk(&d), Vec::<String>::new());
        d.run(client, ["pull", "-q", &name]).ok();
        assert_eq!(
            (d.inspect("{{.Id}}", &name), d.inspect("{{json .RootFS.Layers}}", &name)),
            (id.clone(), layers.clone())
        );
        assert_eq!(
            d.docker(["run", "--rm", "--network", "none", &name, "cat", "/etc/debian_version"])
                .ok()
                .split('.')
                .count(),
            2
        );
    }
    d.finish();
}
