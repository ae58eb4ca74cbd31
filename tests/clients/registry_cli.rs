//! Our command line and the real one with images that come from and go to a registry.

use std::process::Command;

use crate::harness::make_netns;
use crate::registry_server::{Door, PASSWORD, Registry, USER};

#[test]
fn privileged_registries_of_tests_are_real() {
    let dir = tempfile::Builder::new().prefix("longshore-test-").tempdir().expect("temporary folder");
    let netns = dir.path().join("netns");
    make_netns(&netns);
    let ask = |registry: &Registry, path: &str, args: &[&str]| {
        let scheme = if registry.ca().exists() { "https" } else { "http" };
        let out = Command::new("nsenter")
            .arg(format!("--net={}", netns.display()))
            .args(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}"])
            .args(args)
            .arg(format!("{scheme}://{}{path}", registry.address()))
            .output()
            .expect("curl");
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let status = |registry: &Registry, args: &[&str]| ask(registry, "/v2/", args);
    let credentials = format!("{USER}:{PASSWORD}");
    let plain = Registry::start(&netns, Door::Plain);
    assert_eq!(status(&plain, &[]), "200");
    assert_eq!(ask(&plain, "/v2/a/b/blobs/uploads/", &["-X", "POST"]), "202");
    assert!(plain.storage().join("docker/registry/v2/repositories/a/b").exists(), "{}", plain.name("a/b"));
    let password = Registry::start(&netns, Door::Password);
    assert_eq!(status(&password, &[]), "401");
    assert_eq!(status(&password, &["-u", &credentials]), "200");
    let secure = Registry::start(&netns, Door::Secure);
    let ca = secure.ca();
    let ca = ca.to_str().expect("utf-8");
    assert_eq!(status(&secure, &[]), "000", "nobody vouches for it");
    assert_eq!(status(&secure, &["--cacert", ca]), "401");
    assert_eq!(status(&secure, &["--cacert", ca, "-u", &credentials]), "200");
    assert!(secure.log().contains("401"), "{}", secure.log());
    drop((plain, password, secure));
    let unmounted = Command::new("umount").arg(&netns).status().expect("umount");
    assert!(unmounted.success());
}
