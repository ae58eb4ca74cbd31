//! Containers: create, inspect, list, wait, top, changes, archive, prune.

mod config;
mod host;
mod inspect;
mod small;

pub use config::{ContainerConfig, ContainerCreateBody, ContainerCreated, HealthConfig, NetworkingConfig};
pub use host::{
    BindOptions, ContainerUpdate, ContainerUpdated, DeviceMapping, HostConfig, LogConfig, Mount, PortBinding,
    PortMap, RestartPolicy, ThrottleDevice, TmpfsOptions, Ulimit, VolumeDriverConfig, VolumeOptions,
    WeightDevice,
};
pub use inspect::{
    ContainerInspect, ContainerState, ContainerSummary, EndpointIpam, EndpointSettings, GraphDriver, Health,
    HealthResult, MountPoint, NetworkSettings, Port, SummaryHostConfig, SummaryNetworks,
};
pub use small::{Change, ContainersPruned, PathStat, Top, UpdateResponse, WaitError, WaitResponse};
