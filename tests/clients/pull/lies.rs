//! A registry that lies, end to end: each lie ends in an error, nothing is left of it, what is there stays, and the next
//! attempt succeeds.

use longshore_oci::Digest;
use longshore_testkit::registry::{Document, Hostile, Lie, Rule};

use super::{BOTH, image, on_disk, registry, registry_with};
use crate::harness::Daemon;

#[test]
fn privileged_atk_32_a_pull_that_is_lied_to_leaves_nothing() {
    let d = Daemon::start();
    let registry = registry_with(&d, |b| b.basic("ann", "s3cret:word"));
    let other = registry_with(&d, |b| b.on(std::net::Ipv4Addr::new(127, 0, 0, 2)));
    let host = registry.host();
    d.docker(["login", "-u", "ann", "-p", "s3cret:word", &host]).ok();
    // What shares its first layer with the other image.
    image(&[3]).put(&registry, "zoo/before", "1");
    d.docker(["pull", "-q", &registry.reference("zoo/before", "1")]).ok();
    let pushed = image(&[3, 4, 5, 6]).put(&registry, "zoo/lion", "1");
    image(&[3, 4, 5, 6]).put(&other, "zoo/lion", "1");
    let name = registry.reference("zoo/lion", "1");
    let before = (on_disk(&d), d.docker(["images", "-a", "--no-trunc"]).ok());
    let layer = |lie| Rule::blobs(lie).path(pushed.layers[3]);
    let realm = format!("Bearer realm=\"{}/token\",service=\"x\"", other.origin());
    let index = Document::new("application/vnd.oci.image.index.v1+json", image(&[1]).manifest().to_string());
    let lies = [
        ("other bytes", layer(Lie::OtherBytes)),
        ("other bytes of the configuration", Rule::blobs(Lie::OtherBytes).path(pushed.config)),
        ("short", layer(Lie::Short(1000))),
        ("long", layer(Lie::Long(1000))),
        ("another manifest", Rule::manifests(Lie::OtherBytes)),
        ("another digest", Rule::manifests(Lie::DigestHeader(Some(Digest::of(b"").to_string())))),
        (
            "another type",
            Rule::manifests(Lie::ContentType(Some("application/vnd.oci.image.index.v1+json".into()))),
        ),
        ("an index that is a manifest", Rule::manifests(Lie::OtherDocument(index))),
        ("endless manifest", Rule::manifests(Lie::Endless)),
        ("403", layer(Lie::Status(403, None))),
        ("404", layer(Lie::Status(404, None))),
        ("503 for a day", layer(Lie::Status(503, Some("86400".into())))),
        ("closed", layer(Lie::Close)),
        ("mail", layer(Lie::Raw(b"220 mail.example\r\n".to_vec()))),
        ("redirected for ever", layer(Lie::RedirectLoop)),
        ("redirected to a file", layer(Lie::Redirect(307, Some("file:///etc/shadow".into())))),
        ("a token server elsewhere", layer(Lie::Challenge(vec![realm]))),
        ("401 for ever", layer(Lie::Status(401, None))),
    ];
    for (i, (what, rule)) in lies.into_iter().enumerate() {
        registry.lie(rule);
        let done = d.run(BOTH[i % 2], ["pull", &name]);
        assert_eq!(done.code, 1, "{what}: {} {}", done.stdout, done.stderr);
        assert!(!done.stderr.contains("s3cret"), "{what}: {}", done.stderr);
        let last = done.stderr.lines().last().unwrap_or_default();
        assert!(last.len() > 20 && last.len() < 1000, "{what}: {}", done.stderr);
        let after = (on_disk(&d), d.docker(["images", "-a", "--no-trunc"]).ok());
        assert_eq!(after, before, "{what}");
        registry.be_honest();
    }
    // A redirect to another host is none, but no password goes there.
    registry.lie(layer(Lie::RedirectToHost(307, other.origin().into())));
    d.docker(["pull", "-q", &name]).ok();
    assert_eq!(d.inspect("{{.Id}}", &name), pushed.config.to_string());
    assert_eq!(other.requests().len(), 1);
    assert!(!other.requests()[0].has_credentials());
    assert!(!d.log().contains("s3cret") && !d.log().contains("YW5uO"), "a password in the log");
    d.finish();
}

#[test]
fn privileged_atk_22_hostile_images_end_to_end() {
    let d = Daemon::start();
    let registry = registry(&d);
    let mut wrong = Vec::new();
    for hostile in [
        Hostile::SchemaOne,
        Hostile::ManifestAndIndex,
        Hostile::TypesDiffer,
        Hostile::NestedIndexes,
        Hostile::NoSuchPlatform,
        Hostile::ForeignLayer,
        Hostile::DigestIsPath,
        Hostile::LayerSaidShorter,
        Hostile::TenThousandLayers,
        Hostile::Artifact,
        Hostile::ConfigNotJson,
        Hostile::DiffIdWrong,
        Hostile::DiffIdsTooMany,
        Hostile::GzipTrailingGarbage,
        Hostile::ZstdHugeWindow,
        Hostile::LayerNotTar,
        Hostile::LayerEscapes,
    ] {
        let repo = format!("evil/{}", format!("{hostile:?}").to_lowercase());
        hostile.put(&registry, &repo, "1", "http://127.0.0.2:1");
        let done = d.docker(["pull", &registry.reference(&repo, "1")]);
        if done.code != 1 || done.stderr.lines().last().unwrap_or_default().len() < 20 {
            wrong.push(format!("{hostile:?}: {} {:?}", done.code, done.stderr));
        }
        let left = on_disk(&d);
        if !left.is_empty() {
            wrong.push(format!("{hostile:?} left {left:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(d.docker(["images", "-aq"]).ok(), "");
    d.finish();
}

#[test]
fn privileged_a_push_that_is_lied_to_says_so() {
    let d = Daemon::start();
    let registry = registry(&d);
    let file = d.dir().join("image.tar");
    let name = registry.reference("zoo/lion", "1");
    std::fs::write(&file, image(&[2, 5, 8]).archive(&[&name])).expect("archive");
    d.docker(["load", "-q", "-i", file.to_str().expect("utf-8")]).ok();
    let before = on_disk(&d);
    let digest = Digest::of(b"another").to_string();
    let lies = [
        ("refused", Rule::uploads(Lie::RefuseAfter(1000, 403))),
        ("too large", Rule::uploads(Lie::RefuseAfter(1000, 413))),
        ("nowhere", Rule::upload_starts(Lie::Location(None))),
        (
            "to the keys of the machine",
            Rule::upload_starts(Lie::Location(Some("http://169.254.169.254/".into()))),
        ),
        ("it kept nothing", Rule::uploads(Lie::Created).method(&["PUT"])),
        ("it has what it has not", Rule::blob_heads(Lie::Has)),
        ("another manifest", Rule::manifest_puts(Lie::DigestHeader(Some(digest)))),
        ("no manifest", Rule::manifest_puts(Lie::Status(400, None))),
    ];
    for (i, (what, rule)) in lies.into_iter().enumerate() {
        registry.lie(rule);
        let done = d.run(BOTH[i % 2], ["push", &name]);
        assert_eq!(done.code, 1, "{what}: {} {}", done.stdout, done.stderr);
        assert!(done.stderr.lines().last().unwrap_or_default().len() > 20, "{what}: {}", done.stderr);
        // A layer that was being compressed at that moment is finished first.
        crate::harness::wait_until(&format!("{what}: nothing is under way"), || {
            crate::powercut::check::names(&d, "content/ingest").is_empty()
        });
        registry.be_honest();
    }
    for client in BOTH {
        d.run(client, ["push", "-q", &name]).ok();
    }
    assert_eq!(registry.tags("zoo/lion"), ["1"]);
    assert!(on_disk(&d).len() >= before.len());
    d.docker(["rmi", &name]).ok();
    assert_eq!(on_disk(&d), Vec::<String>::new());
    d.finish();
}
