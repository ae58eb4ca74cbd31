//! `--link` on the default bridge, where containers have no name server: another container's names in `hosts`, and its
//! addresses, ports and environment as variables, as Docker has them. On other networks links are names there.

use std::net::IpAddr;

use longshore_oci::Kind;

use super::files;
use super::ports::parse;
use crate::container::Container;
use crate::model::HostConfig;
use crate::network::is_custom;
use crate::record::Record;
use crate::{Engine, Error, Result};

/// A container as another one sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Linked {
    alias: String,
    /// `/web/db`: the name of the one that is linked to it, and the alias.
    path: String,
    /// Its alias, host name and name, as they stand in `hosts`.
    pub(crate) names: String,
    pub(crate) address: IpAddr,
    exposed: Vec<String>,
    env: Vec<String>,
}

impl Engine {
    /// Looks the containers up that a new one is linked to; from then on they are known by their ids.
    ///
    /// # Errors
    /// In Docker's words.
    pub(crate) fn settle_links(&self, host: &mut HostConfig) -> Result<()> {
        if is_custom(&host.network_mode) {
            return Ok(());
        }
        for link in host.links.iter_mut().flatten() {
            let (name, alias) = split(link);
            let found = self.find(name).map_err(|e| {
                e.with_kind(Kind::Invalid).context(format!("could not get container for {name}"))
            })?;
            if found.record().host.network_mode == "host" || host.network_mode == "host" {
                return Err(Error::conflict(
                    "conflicting options: host type networking can't be used with links. This would result in undefined \
                     behavior",
                ));
            }
            *link = format!("{}:{alias}", found.id);
        }
        Ok(())
    }

    /// The links as clients see them: `/db:/web/alias`.
    pub(crate) fn show_links(&self, record: &mut Record) {
        if is_custom(&record.host.network_mode) {
            return;
        }
        let own = record.name.clone();
        for link in record.host.links.iter_mut().flatten() {
            let (id, alias) = split(link);
            let name = self.find(id).map_or_else(|_| id.to_owned(), |other| other.record().name);
            *link = format!("/{name}:/{own}/{alias}");
        }
    }

    /// What a container that starts is linked to. One that was removed is not there any more.
    ///
    /// # Errors
    /// When one does not run.
    pub(crate) fn linked(&self, record: &Record) -> Result<Vec<Linked>> {
        if is_custom(&record.host.network_mode) {
            return Ok(Vec::new());
        }
        let mut all = Vec::new();
        for link in record.host.links.iter().flatten() {
            let (id, alias) = split(link);
            let Ok(other) = self.find(id) else { continue };
            let path = format!("/{}/{alias}", record.name);
            let other = other.record();
            let address = other.networks.get("bridge").and_then(|e| e.ip_address.parse().ok());
            let (true, Some(address)) = (other.is_running(), address) else {
                let text = format!("Cannot link to a non running container: /{} AS {path}", other.name);
                return Err(Error::internal(text));
            };
            all.push(Linked {
                names: names(alias, &other),
                alias: alias.to_owned(),
                path,
                address,
                exposed: other.config.run.exposed_ports.into_iter().flatten().map(|(key, _)| key).collect(),
                env: other.config.run.env.unwrap_or_default(),
            });
        }
        Ok(all)
    }

    /// Containers that run and are linked to one that has just started learn its address.
    pub(crate) fn tell_linked(&self, c: &Container) {
        let record = c.record();
        let Some(address) = record.networks.get("bridge").and_then(|e| e.ip_address.parse().ok()) else {
            return;
        };
        // At every start: of most containers it takes no more than a look.
        let links = |other: &Container| other.read().record.host.links.iter().flatten().next().is_some();
        for other in self.all().iter().filter(|other| links(other) && other.task().is_some()) {
            let linked = other.record();
            if is_custom(&linked.host.network_mode) {
                continue;
            }
            for link in linked.host.links.iter().flatten() {
                let (id, alias) = split(link);
                if id == c.id
                    && let Err(e) =
                        files::readdress(&self.inner.paths, &linked, &names(alias, &record), address)
                {
                    tracing::warn!(container = linked.id, "telling it where {} is: {e}", record.name);
                }
            }
        }
    }
}

/// Name or id, and the alias: the same if there is none.
fn split(link: &str) -> (&str, &str) {
    let (name, alias) = link.split_once(':').unwrap_or((link, link));
    (name.trim_start_matches('/'), alias.rsplit('/').next().unwrap_or(alias))
}

fn names(alias: &str, other: &Record) -> String {
    let mut names = format!("{alias} {}", other.config.hostname);
    if alias != other.name {
        names.push(' ');
        names.push_str(&other.name);
    }
    names
}

impl Linked {
    /// The variables that tell of it: `DB_PORT=tcp://172.17.0.2:5432`, `DB_PORT_5432_TCP_ADDR=172.17.0.2`, `DB_NAME=/web/db`,
    /// `DB_ENV_USER=me`.
    pub(crate) fn environment(&self) -> Vec<String> {
        let alias = self.alias.to_uppercase().replace('-', "_");
        let ip = self.address;
        let mut ports: Vec<(u16, String)> = Vec::new();
        for key in &self.exposed {
            if let Ok((range, proto)) = parse(key) {
                ports.extend(range.map(|port| (port, proto.clone())));
            }
        }
        ports.sort_unstable();
        let mut out = Vec::new();
        if let Some((port, proto)) = ports.first() {
            out.push(format!("{alias}_PORT={proto}://{ip}:{port}"));
        }
        let follows = |a: &(u16, String), b: &(u16, String)| a.0.checked_add(1) == Some(b.0) && a.1 == b.1;
        for row in ports.chunk_by(follows) {
            if let [(first, proto), .., (last, _)] = row {
                let name = format!("{alias}_PORT_{first}_{}", proto.to_uppercase());
                out.push(format!("{name}_START={proto}://{ip}:{first}"));
                out.push(format!("{name}_PORT_START={first}"));
                out.push(format!("{name}_END={proto}://{ip}:{last}"));
                out.push(format!("{name}_PORT_END={last}"));
            }
        }
        for (port, proto) in &ports {
            let name = format!("{alias}_PORT_{port}_{}", proto.to_uppercase());
            out.push(format!("{name}={proto}://{ip}:{port}"));
            out.push(format!("{name}_ADDR={ip}"));
            out.push(format!("{name}_PORT={port}"));
            out.push(format!("{name}_PROTO={proto}"));
        }
        out.push(format!("{alias}_NAME={}", self.path));
        // What every container has says nothing of this one.
        let telling = self.env.iter().filter_map(|entry| entry.split_once('='));
        let telling = telling.filter(|(key, _)| !["HOME", "PATH"].contains(key));
        out.extend(telling.map(|(key, value)| format!("{alias}_ENV_{key}={value}")));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_dockers() {
        let linked = Linked {
            alias: "my-db".into(),
            path: "/web/my-db".into(),
            names: String::new(),
            address: [172, 17, 0, 2].into(),
            exposed: vec!["5432/tcp".into(), "53/udp".into(), "5433/tcp".into()],
            env: vec!["PATH=/bin".into(), "POSTGRES_USER=me".into(), "bare".into()],
        };
        assert_eq!(
            linked.environment(),
            [
                "MY_DB_PORT=udp://172.17.0.2:53",
                "MY_DB_PORT_5432_TCP_START=tcp://172.17.0.2:5432",
                "MY_DB_PORT_5432_TCP_PORT_START=5432",
                "MY_DB_PORT_5432_TCP_END=tcp://172.17.0.2:5433",
                "MY_DB_PORT_5432_TCP_PORT_END=5433",
                "MY_DB_PORT_53_UDP=udp://172.17.0.2:53",
                "MY_DB_PORT_53_UDP_ADDR=172.17.0.2",
                "MY_DB_PORT_53_UDP_PORT=53",
                "MY_DB_PORT_53_UDP_PROTO=udp",
                "MY_DB_PORT_5432_TCP=tcp://172.17.0.2:5432",
                "MY_DB_PORT_5432_TCP_ADDR=172.17.0.2",
                "MY_DB_PORT_5432_TCP_PORT=5432",
                "MY_DB_PORT_5432_TCP_PROTO=tcp",
                "MY_DB_PORT_5433_TCP=tcp://172.17.0.2:5433",
                "MY_DB_PORT_5433_TCP_ADDR=172.17.0.2",
                "MY_DB_PORT_5433_TCP_PORT=5433",
                "MY_DB_PORT_5433_TCP_PROTO=tcp",
                "MY_DB_NAME=/web/my-db",
                "MY_DB_ENV_POSTGRES_USER=me",
            ]
        );
        for (link, want) in
            [("db", ("db", "db")), ("/db:x", ("db", "x")), ("db:/web/x", ("db", "x")), ("", ("", ""))]
        {
            assert_eq!(split(link), want);
        }
    }
}
