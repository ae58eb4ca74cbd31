//! What older versions of the API send and see differently, one function per object.

use longshore_api::container::BindOptions;
use longshore_api::image::ContainerOnly;
use longshore_api::{
    ApiVersion, ContainerCreateBody, ContainerInspect, ContainerSummary, ExecCreate, ExecStart, ImageInspect,
    ImageSummary, Info,
};

/// A create body as the newest version would write it.
pub(crate) fn create_body(v: ApiVersion, body: &mut ContainerCreateBody) {
    if let Some(health) = body.config.as_mut().and_then(|c| c.healthcheck.as_mut()).filter(|_| v.below(44)) {
        health.start_interval = 0;
    }
    let Some(host) = &mut body.host_config else { return };
    if v.below(40) && host.ipc_mode.is_empty() {
        host.ipc_mode = "shareable".to_owned();
    }
    if v.below(41) && host.cgroupns_mode.is_empty() {
        host.cgroupns_mode = "host".to_owned();
    }
    if v.below(42) {
        host.console_size = (0, 0);
        if host.memory_swappiness == Some(-1) {
            host.memory_swappiness = None;
        }
    }
    if v.below(43) {
        host.annotations = None;
    }
    for mount in host.mounts.iter_mut().flatten() {
        let bind = &mut mount.bind_options;
        if let Some(options) = bind {
            if v.below(40) {
                options.non_recursive = false;
            }
            if v.below(42) {
                options.create_mountpoint = false;
            }
            if v.below(44) {
                options.read_only_force_recursive = false;
            }
        }
        // Until 1.43 a read-only bind left what is mounted below it writable.
        if v.below(44) && mount.kind == "bind" && mount.read_only {
            bind.get_or_insert_with(BindOptions::default).read_only_non_recursive = true;
        }
        if let Some(volume) = mount.volume_options.as_mut().filter(|_| v.below(45)) {
            volume.subpath.clear();
        }
    }
}

/// An exec request as the newest version would write it.
pub(crate) fn exec_create(v: ApiVersion, body: &mut ExecCreate) {
    if v.below(42) {
        body.console_size = None;
    }
}

/// The same for its start.
pub(crate) fn exec_start(v: ApiVersion, body: &mut ExecStart) {
    if v.below(42) {
        body.console_size = None;
    }
}

/// A container.
pub(crate) fn container(v: ApiVersion, c: &mut ContainerInspect) {
    if v.below(45) {
        let short: String = c.id.chars().take(12).collect();
        for (network, endpoint) in &mut c.network_settings.networks {
            if matches!(network.as_str(), "bridge" | "host" | "none" | "default") {
                continue;
            }
            let aliases = endpoint.aliases.get_or_insert_default();
            for name in [&short, &c.config.hostname] {
                if !name.is_empty() && !aliases.contains(name) {
                    aliases.push(name.clone());
                }
            }
        }
    }
}

/// A container in a list.
pub(crate) fn container_summary(v: ApiVersion, c: &mut ContainerSummary) {
    if v.below(46) {
        c.host_config.annotations.clear();
    }
}

/// An image.
pub(crate) fn image(v: ApiVersion, i: &mut ImageInspect) {
    if v.below(44) {
        i.virtual_size = i.size;
        if i.created.is_empty() {
            i.created = longshore_api::time::ZERO.to_owned();
        }
    }
    if v.below(45) {
        i.container_config = Some(longshore_api::ContainerConfig::default());
    } else {
        i.container.clear();
    }
    if let Some(config) = i.config.as_mut().filter(|_| v.below(50)) {
        config.container_only = Some(ContainerOnly::default());
    }
}

/// An image in a list.
pub(crate) fn image_summary(v: ApiVersion, i: &mut ImageSummary) {
    if v.below(43) {
        let none = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
        let nameless = none(&i.repo_tags) && none(&i.repo_digests);
        if nameless {
            i.repo_tags = Some(vec!["<none>:<none>".to_owned()]);
            i.repo_digests = Some(vec!["<none>@<none>".to_owned()]);
        }
        i.repo_tags = i.repo_tags.take().filter(|l| !l.is_empty());
        i.repo_digests = i.repo_digests.take().filter(|l| !l.is_empty());
    }
    if v.below(44) {
        i.virtual_size = i.size;
    }
    if v.below(51) {
        i.containers = -1;
    }
}

/// The daemon's description.
pub(crate) fn info(v: ApiVersion, i: &mut Info) {
    if v.below(42) {
        i.kernel_memory = true;
    }
    if v.below(47) {
        for list in i.registry_config.iter_mut() {
            list.nondistributable_cidrs = Some(serde_json::Value::Null);
            list.nondistributable_hostnames = Some(serde_json::Value::Null);
        }
    }
    if v.below(49) {
        i.firewall_backend = None;
        for commit in [&mut i.containerd_commit, &mut i.runc_commit, &mut i.init_commit] {
            commit.expected = Some(commit.id.clone()).filter(|id| !id.is_empty());
        }
    }
    if v.below(50) {
        i.bridge_nf_iptables = Some(false);
        i.bridge_nf_ip6tables = Some(false);
    }
}

#[cfg(test)]
mod tests {
    use longshore_api::container::{EndpointSettings, Mount};
    use longshore_api::{HostConfig, json};

    use super::*;

    fn v(minor: u16) -> ApiVersion {
        ApiVersion::new(1, minor)
    }

    #[test]
    fn old_image_lists() {
        let made = || ImageSummary {
            repo_tags: Some(vec![]),
            repo_digests: Some(vec![]),
            size: 7,
            containers: 2,
            ..ImageSummary::default()
        };
        let mut old = made();
        image_summary(v(24), &mut old);
        assert_eq!(old.repo_tags.unwrap(), ["<none>:<none>"]);
        assert_eq!(old.repo_digests.unwrap(), ["<none>@<none>"]);
        assert_eq!((old.virtual_size, old.containers), (7, -1));
        let mut tagged = ImageSummary { repo_tags: Some(vec!["a:1".into()]), ..made() };
        image_summary(v(42), &mut tagged);
        assert_eq!((tagged.repo_tags.unwrap().len(), tagged.repo_digests), (1, None));
        let mut new = made();
        image_summary(v(51), &mut new);
        assert_eq!(new, made());
    }

    #[test]
    fn old_image_configs_show_container_fields() {
        let mut image_ = ImageInspect { config: Some(Default::default()), size: 5, ..Default::default() };
        image(v(43), &mut image_);
        let json = serde_json::to_value(&image_).unwrap();
        assert_eq!(json["VirtualSize"], 5);
        assert_eq!(json["Config"]["AttachStdin"], false);
        let mut image_ = ImageInspect { config: Some(Default::default()), ..Default::default() };
        image(v(50), &mut image_);
        let json = serde_json::to_value(&image_).unwrap();
        assert!(json["Config"].get("Hostname").is_none() && json.get("VirtualSize").is_none());
    }

    #[test]
    fn old_containers_answer_to_their_id() {
        let mut c = ContainerInspect { id: "2bed400ea53ea1650660".into(), ..Default::default() };
        c.config.hostname = "2bed400ea53e".into();
        let www = EndpointSettings { aliases: Some(vec!["www".into()]), ..Default::default() };
        c.network_settings.networks =
            [("net1".to_owned(), www), ("bridge".to_owned(), EndpointSettings::default())].into();
        let new = c.clone();
        container(v(44), &mut c);
        let networks = &c.network_settings.networks;
        assert_eq!(networks["net1"].aliases.as_deref().unwrap(), ["www", "2bed400ea53e"]);
        assert_eq!(networks["bridge"].aliases, None);
        let mut same = new.clone();
        container(v(45), &mut same);
        assert_eq!(same, new);
    }

    #[test]
    fn old_create_bodies_keep_their_meaning() {
        let host: HostConfig =
            json::from_slice(br#"{"Mounts":[{"Type":"bind","ReadOnly":true}],"Annotations":{"a":"b"}}"#)
                .unwrap();
        let body = |minor| {
            let mut b = ContainerCreateBody { host_config: Some(host.clone()), ..Default::default() };
            create_body(v(minor), &mut b);
            b.host_config.unwrap()
        };
        let old = body(39);
        assert_eq!((old.ipc_mode.as_str(), old.cgroupns_mode.as_str()), ("shareable", "host"));
        assert!(old.annotations.is_none());
        let bind = |h: &HostConfig| -> Option<BindOptions> {
            h.mounts.as_ref().and_then(|m: &Vec<Mount>| m[0].bind_options.clone())
        };
        assert!(bind(&old).unwrap().read_only_non_recursive);
        assert_eq!(bind(&body(44)), None);
        assert_eq!(body(51), host);
    }
}
