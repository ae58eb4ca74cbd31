//! `ports`: who can reach what. Our own; another daemon does not know it.

use hyper::Method;
use longshore_api::reach::{Rule, Span, Through, WayIn, Who};
use serde_json::{Value, json};

use crate::args::networks::PortsArgs;
use crate::client::{Client, Payload, escape};
use crate::error::{Failure, Result};
use crate::format::human::short_id;
use crate::format::{Columns, Row, print_rows};
use crate::tty::printable;

const COLUMNS: Columns = Columns {
    kind: "*way",
    errors: ("template parsing error", "template parsing error"),
    raw: ("", ""),
    all: &[
        ("ID", "CONTAINER ID"),
        ("Container", "CONTAINER"),
        ("Port", "PORT"),
        ("ReachedAt", "REACHED AT"),
        ("Who", "BY WHOM"),
        ("Through", "THROUGH"),
    ],
    default: &["Container", "Port", "ReachedAt", "Who", "Through"],
};

/// `ports`.
pub(crate) async fn ports(c: &Client, args: &PortsArgs) -> Result<()> {
    let names: Vec<String> = args.containers.iter().map(|n| format!("container={}", escape(n))).collect();
    let path = format!("/longshore/ports?{}", names.join("&"));
    let ways: Vec<WayIn> =
        c.json(Method::GET, path.trim_end_matches('?'), Payload::Empty).await.map_err(foreign)?;
    let rows: Vec<Row> = ways.iter().map(|way| row(way, args.no_trunc)).collect();
    print_rows(&COLUMNS, &rows, args.format.as_deref(), None)?;
    let mut told: Vec<String> = ways.iter().flat_map(closed).collect();
    told.sort_unstable();
    told.dedup();
    for text in told {
        eprintln!("WARNING: {}", printable(&text));
    }
    Ok(())
}

/// Docker's daemon has no such page.
fn foreign(e: Failure) -> Failure {
    if e.is_not_found() && e.message.ends_with("page not found") {
        return Failure::new("this daemon cannot tell who reaches what: it is not Longshore's");
    }
    e
}

fn row(way: &WayIn, whole: bool) -> Row {
    let port =
        way.ports.map_or_else(|| "any".to_owned(), |ports| format!("{}/{}", range(ports), way.transport));
    let row = json!({
        "ID": if whole { way.container.clone() } else { short_id(&way.container) },
        "Container": way.name,
        "Port": port,
        "ReachedAt": reached_at(way),
        "Who": who(&way.who),
        "Through": through(way),
    });
    Row::new(row, &Value::Null)
}

fn range(ports: Span) -> String {
    match ports.first == ports.last {
        true => ports.first.to_string(),
        false => format!("{}-{}", ports.first, ports.last),
    }
}

/// `[::]:8080`, or an address alone.
fn reached_at(way: &WayIn) -> String {
    match (way.address.as_str(), way.address_ports) {
        ("", _) => "every address of this host".to_owned(),
        (ip, None) => ip.to_owned(),
        (ip, Some(ports)) if ip.contains(':') => format!("[{ip}]:{}", range(ports)),
        (ip, Some(ports)) => format!("{ip}:{}", range(ports)),
    }
}

fn who(all: &[Who]) -> String {
    if matches!(all, [one] if one.scope == "host") {
        return "this host alone".to_owned();
    }
    let words = all.iter().map(|who| match who.scope.as_str() {
        "everybody" => "everybody who reaches this host".to_owned(),
        "address" => format!("who reaches {}", who.address),
        "host" => "this host".to_owned(),
        "network" => format!("containers of network {}", who.network),
        "route" => format!("everybody with a route to {}", who.subnet),
        "daemon" => "who is in the daemon's own network".to_owned(),
        // Of a newer daemon.
        other => other.to_owned(),
    });
    words.collect::<Vec<_>>().join(", ")
}

fn through(way: &WayIn) -> String {
    let own = match &way.through {
        Through { rule: Some(rule), .. } => named(rule),
        Through { listener: true, .. } => "a listener of the daemon".to_owned(),
        Through { host_network: true, .. } => match way.who.iter().any(|who| who.scope == "daemon") {
            true => "the daemon's own network".to_owned(),
            false => "the host's own network".to_owned(),
        },
        Through { parent, .. } if !parent.is_empty() => format!("the network of {parent}"),
        Through { bridge, .. } => format!("bridge {bridge}"),
    };
    let others = way.gates.iter().filter(|gate| gate.open).map(|gate| named(&gate.chain));
    std::iter::once(own).chain(others).collect::<Vec<_>>().join("; our rules in ")
}

fn named(rule: &Rule) -> String {
    format!("{} {} of table {} {}", rule.kind, rule.name, rule.family, rule.table)
}

/// What may be stopped by a firewall in which we have no say.
fn closed(way: &WayIn) -> impl Iterator<Item = String> {
    let closed = way.gates.iter().filter(|gate| !gate.open);
    closed.map(|gate| {
        format!(
            "{} drops what comes to container {} unless it is allowed there",
            named(&gate.chain),
            way.name
        )
    })
}

#[cfg(test)]
mod tests {
    use longshore_api::reach::Gate;

    use super::*;

    #[test]
    fn ways_in_words() {
        let who = |scope: &str| Who { scope: scope.into(), ..Who::default() };
        let rule = |kind: &str, name: &str| Rule {
            family: "inet".into(),
            table: "longshore".into(),
            kind: kind.into(),
            name: name.into(),
        };
        let mut way = WayIn {
            name: "web".into(),
            transport: "tcp".into(),
            ports: Some(Span { first: 80, last: 81 }),
            address: "::".into(),
            address_ports: Some(Span { first: 8080, last: 8081 }),
            who: vec![who("everybody")],
            through: Through { rule: Some(rule("map", "publish6")), ..Through::default() },
            ..WayIn::default()
        };
        let cells = |way: &WayIn| {
            let value = row(way, false).into_value();
            ["Port", "ReachedAt", "Who", "Through"].map(|key| value[key].as_str().unwrap_or("?").to_owned())
        };
        let published = "map publish6 of table inet longshore";
        assert_eq!(
            cells(&way),
            ["80-81/tcp", "[::]:8080-8081", "everybody who reaches this host", published]
        );
        way.gates = vec![
            Gate {
                chain: Rule { family: "ip".into(), table: "fw".into(), ..rule("chain", "fwd") },
                open: true,
            },
            Gate {
                chain: Rule { table: "firewalld".into(), ..rule("chain", "filter_FORWARD") },
                open: false,
            },
        ];
        assert_eq!(cells(&way)[3], format!("{published}; our rules in chain fwd of table ip fw"));
        assert_eq!(
            closed(&way).collect::<Vec<_>>(),
            [
                "chain filter_FORWARD of table inet firewalld drops what comes to container web unless it is allowed there"
            ]
        );
        let network = Who { network: "app".into(), ..who("network") };
        let direct = WayIn {
            address: "172.18.0.2".into(),
            who: vec![network, who("host")],
            through: Through { bridge: "br-1".into(), ..Through::default() },
            ..WayIn::default()
        };
        let words = ["any", "172.18.0.2", "containers of network app, this host", "bridge br-1"];
        assert_eq!(cells(&direct), words);
        let alone = WayIn { who: vec![who("host")], ..direct };
        assert_eq!(cells(&alone)[2], "this host alone");
        let through = Through { host_network: true, ..Through::default() };
        let host = WayIn { through, who: vec![who("everybody")], ..WayIn::default() };
        let words = [
            "any",
            "every address of this host",
            "everybody who reaches this host",
            "the host's own network",
        ];
        assert_eq!(cells(&host), words);
    }
}
