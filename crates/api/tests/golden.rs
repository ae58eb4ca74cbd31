//! The types write exactly what the reference daemon answered: decoding an answer and encoding it
//! again changes nothing, `null`, `[]` and absent included.

#![allow(clippy::unwrap_used, reason = "tests")]

use longshore_api::container::ContainerCreateBody;
use longshore_api::{
    Change, ContainerInspect, ContainerSummary, ContainersPruned, Event, ExecInspect, HistoryItem,
    ImageDelete, ImageInspect, ImageSummary, Info, JsonMessage, NetworkInspect, PathStat, Top, Version,
    VolumeList, WaitResponse, json,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

#[track_caller]
fn same<T: DeserializeOwned + Serialize>(text: &str) {
    let before: Value = serde_json::from_str(text).unwrap();
    let typed: T = json::from_slice(text.as_bytes()).unwrap();
    let after = serde_json::to_value(&typed).unwrap();
    assert_same(&before, &after, "");
}

/// Says where two documents differ instead of printing both.
#[track_caller]
fn assert_same(a: &Value, b: &Value, at: &str) {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            for key in x.keys().chain(y.keys()) {
                let (left, right) = (x.get(key), y.get(key));
                assert!(left.is_some() && right.is_some(), "{at}/{key}: {left:?} became {right:?}");
                assert_same(&x[key], &y[key], &format!("{at}/{key}"));
            }
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            for (i, (left, right)) in x.iter().zip(y).enumerate() {
                assert_same(left, right, &format!("{at}/{i}"));
            }
        }
        _ => assert_eq!(a, b, "{at}"),
    }
}

macro_rules! golden {
    ($($name:ident: $ty:ty = $file:literal;)*) => {$(
        #[test]
        fn $name() {
            same::<$ty>(include_str!(concat!("fixtures/", $file)));
        }
    )*};
}

golden! {
    container_running: ContainerInspect = "container-running.json";
    container_created: ContainerInspect = "container-created.json";
    container_exited: ContainerInspect = "container-exited.json";
    containers_with_size: Vec<ContainerSummary> = "containers-size.json";
    containers_all: Vec<ContainerSummary> = "containers-all.json";
    top: Top = "top.json";
    changes: Vec<Change> = "changes.json";
    containers_pruned: ContainersPruned = "prune-containers.json";
    exec_before: ExecInspect = "exec-before.json";
    exec_after: ExecInspect = "exec-after.json";
    image: ImageInspect = "image.json";
    images: Vec<ImageSummary> = "images.json";
    images_old: Vec<ImageSummary> = "images-1.24.json";
    image_delete: Vec<ImageDelete> = "image-delete.json";
    history: Vec<HistoryItem> = "history.json";
    volumes: VolumeList = "volumes.json";
    networks: Vec<NetworkInspect> = "networks.json";
    version: Version = "version.json";
    info: Info = "info.json";
    events: Vec<Event> = "events.json";
}

#[test]
fn small_answers() {
    same::<WaitResponse>(r#"{"StatusCode":0}"#);
    same::<WaitResponse>(r#"{"Error":{"Message":"x"},"StatusCode":1}"#);
    same::<JsonMessage>(r#"{"errorDetail":{"message":"unexpected EOF"},"error":"unexpected EOF"}"#);
    same::<JsonMessage>(r#"{"status":"Loading layer","progressDetail":{"current":1,"total":2},"id":"a"}"#);
    same::<JsonMessage>(r#"{"stream":"Loaded image: busybox:latest\n"}"#);
}

#[test]
fn path_stat_header() {
    let header = "eyJuYW1lIjoicGFzc3dkIiwic2l6ZSI6MzQwLCJtb2RlIjo0MjAsIm10aW1lIjoiMjAyMy0xMS0xNFQyMjoxMzoyMFoiLCJsaW5rVGFyZ2V0IjoiIn0=";
    let stat = PathStat::from_header(header).unwrap();
    assert_eq!((stat.name.as_str(), stat.size, stat.mode), ("passwd", 340, 0o644));
    assert_eq!(stat.to_header(), header);
}

#[test]
fn create_body_as_clients_send_it() {
    let body = ContainerCreateBody::from_slice(
        br#"{"image":"nginx","Cmd":"ls","Env":["A=1"],"ExposedPorts":{"80/tcp":{}},
            "HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"18080"}]},"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":2}},
            "NetworkingConfig":{"EndpointsConfig":{"net1":{"Aliases":["www"]}}}}"#,
    )
    .unwrap();
    let config = body.config.clone().unwrap();
    assert_eq!(config.image, "nginx");
    assert_eq!(config.cmd.unwrap().0, ["ls"]);
    let host = body.host_config.clone().unwrap();
    assert_eq!(host.port_bindings.unwrap()["80/tcp"].as_ref().unwrap()[0].host_port, "18080");
    assert_eq!(host.restart_policy.maximum_retry_count, 2);
    let networks = body.networking_config.clone().unwrap().endpoints_config;
    assert_eq!(networks["net1"].aliases.as_deref().unwrap(), ["www"]);

    // What a client of ours sends is read back the same.
    let sent = serde_json::to_vec(&body).unwrap();
    assert_eq!(ContainerCreateBody::from_slice(&sent).unwrap(), body);
}

#[test]
fn atk_36_empty_and_double_bodies_have_one_meaning() {
    for empty in ["{}", r#"{"HostConfig":{}}"#, r#"{"Nonsense":1}"#] {
        assert!(ContainerCreateBody::from_slice(empty.as_bytes()).unwrap().config.is_none(), "{empty}");
    }
    assert!(ContainerCreateBody::from_slice(b"").unwrap_err().is_empty_input());
    let twice = br#"{"Image":"a","HostConfig":{"Privileged":false},"hostconfig":{"privileged":true,"PRIVILEGED":false}}"#;
    let body = ContainerCreateBody::from_slice(twice).unwrap();
    assert!(!body.host_config.unwrap().privileged);
    assert!(ContainerCreateBody::from_slice(br#"{"Image":"a"}{"Image":"b"}"#).is_err());
}
