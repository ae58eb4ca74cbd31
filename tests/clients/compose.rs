//! Projects of Docker Compose: `COMPOSE` says with which command, else it is `docker-compose` from PATH.

use std::fs;
use std::process::{Command, Stdio};

use crate::harness::{Client, Daemon, Done, in_netns, signal, wait_until};
use crate::network::{get, neighbour};
use crate::networks::lookup;

/// A project, and the daemon that runs it.
struct Project {
    daemon: Daemon,
}

impl Project {
    fn new(file: &str) -> Self {
        let daemon = Daemon::start();
        daemon.load("busybox");
        fs::write(daemon.dir().join("compose.yml"), file).expect("compose.yml");
        Self { daemon }
    }

    fn compose(&self, line: &str) -> Done {
        let command = std::env::var("COMPOSE").unwrap_or_else(|_| "docker-compose".to_owned());
        let mut words = command.split_whitespace();
        let mut compose = Command::new(words.next().expect("COMPOSE is a command"));
        compose
            .args(words)
            .args(["-p", "prj", "-f"])
            .arg(self.daemon.dir().join("compose.yml"))
            .args(line.split(' '));
        for (name, value) in self.daemon.command(Client::Docker).get_envs() {
            match value {
                Some(value) => compose.env(name, value),
                None => compose.env_remove(name),
            };
        }
        // With a newer one, docker-compose 1.29 misses a field of images when it recreates a container, Docker's daemon or not.
        compose.env("COMPOSE_API_VERSION", "1.44");
        let done = compose.stdin(Stdio::null()).output().expect("docker-compose: `make test` installs it");
        Done::from(done)
    }

    /// The containers of a service.
    fn containers(&self, service: &str) -> Vec<String> {
        self.compose(&format!("ps -q {service}")).ok().lines().map(str::to_owned).collect()
    }

    /// The one container of a service.
    #[track_caller]
    fn container(&self, service: &str) -> String {
        let all = self.containers(service);
        assert_eq!(all.len(), 1, "{service}");
        all[0].clone()
    }

    fn exec(&self, service: &str, line: &str) -> Done {
        let id = self.container(service);
        self.daemon.docker(["exec", &id].into_iter().chain(line.split(' ')))
    }

    fn lookup(&self, service: &str, name: &str) -> Vec<String> {
        let mut found = lookup(&self.daemon, &self.container(service), name);
        found.sort();
        found
    }

    /// An address of a service on one of the project's networks.
    fn address(&self, service: &str, network: &str, field: &str) -> String {
        let format = format!("{{{{(index .NetworkSettings.Networks \"prj_{network}\").{field}}}}}");
        self.daemon.inspect(&format, &self.container(service))
    }

    /// What the host has of networks.
    fn host(&self) -> String {
        let all = "ip -o link | sed 's/^[0-9]*: //' | sort; ip route; ip -6 route; nft list ruleset";
        in_netns(&self.daemon.netns(), all).ok()
    }

    /// `down`, after which nothing is left.
    fn finish(self, before: &str) {
        self.compose("down").ok();
        assert_eq!(self.daemon.docker(["ps", "-aq"]).ok(), "");
        assert_eq!(self.daemon.docker(["network", "ls", "-q", "--filter", "type=custom"]).ok(), "");
        assert_eq!(self.host(), before);
        self.daemon.finish();
    }
}

const NETWORKS: &str = r#"
services:
  web:
    image: busybox
    command: sh -c 'mkdir /www; echo web > /www/index.html; exec httpd -f -p 80 -h /www'
    ports: ["8080:80"]
    depends_on: [db]
    networks:
      front: { aliases: [www] }
      back: { ipv4_address: 10.91.0.10 }
  db:
    image: busybox
    command: sh -c 'mkdir /www; echo db > /www/index.html; exec httpd -f -p 80 -h /www'
    restart: always
    networks:
      back: { ipv4_address: 10.91.0.20, aliases: [database] }
  client:
    image: busybox
    command: sleep 1000
    depends_on: [web]
    networks: [front]
networks:
  front:
    enable_ipv6: true
    ipam:
      config:
        - subnet: 10.90.0.0/24
        - subnet: fd90::/64
  back:
    internal: true
    ipam:
      config:
        - subnet: 10.91.0.0/24
"#;

impl Project {
    /// The project works as its file says.
    fn check(&self) {
        assert_eq!(self.address("web", "back", "IPAddress"), "10.91.0.10");
        assert_eq!(self.address("db", "back", "IPAddress"), "10.91.0.20");
        let own = ["IPAddress", "GlobalIPv6Address"].map(|field| self.address("web", "front", field));
        assert!(own[0].starts_with("10.90.0.") && own[1].starts_with("fd90::"), "{own:?}");
        for name in ["web", "www"] {
            assert_eq!(self.lookup("client", name), own, "{name}");
        }
        for name in ["db", "database"] {
            assert_eq!(self.lookup("web", name), ["10.91.0.20"], "{name}");
            assert!(self.lookup("client", name).is_empty(), "{name} is of another network");
        }
        let page =
            |from: &str, server: &str| self.exec(from, &format!("timeout 3 wget -qO- http://{server}/"));
        wait_until("the services answer", || {
            page("client", "www").stdout == "web\n" && page("web", "database").stdout == "db\n"
        });
        assert_ne!(page("client", "10.91.0.20").code, 0);
        let routes = self.exec("db", "ip route").ok();
        assert!(!routes.contains("default"), "{routes}");
        let world = self.daemon.dir().join("world.netns");
        for server in ["192.0.2.1:8080", "[2001:db8::1]:8080"] {
            wait_until("the published port answers", || get(&world, server).as_deref() == Some("web"));
        }
        for server in ["127.0.0.1:8080", "[::1]:8080"] {
            assert_eq!(get(&self.daemon.netns(), server).as_deref(), Some("web"), "{server}");
        }
    }
}

#[test]
fn privileged_a_compose_project_with_networks() {
    let project = Project::new(NETWORKS);
    neighbour(&project.daemon);
    let before = project.host();
    project.compose("up -d").ok();
    project.check();
    // The same again changes nothing.
    let ids = ["web", "db", "client"].map(|service| project.container(service));
    project.compose("up -d").ok();
    assert_eq!(["web", "db", "client"].map(|service| project.container(service)), ids);
    project.compose("restart -t 0").ok();
    assert_eq!(project.container("web"), ids[0]);
    project.check();
    // One that dies is started by its policy, and found under its names.
    let pid = project.daemon.inspect("{{.State.Pid}}", &ids[1]);
    signal(pid.parse().expect("pid"), "KILL");
    wait_until("it is started again", || {
        let now = project.daemon.inspect("{{.State.Running}} {{.State.Pid}}", &ids[1]);
        now.starts_with("true") && !now.ends_with(&format!(" {pid}"))
    });
    project.check();
    project.compose("up -d -t 0 --force-recreate web").ok();
    assert_ne!(project.container("web"), ids[0]);
    project.check();
    // Several of one service are all told.
    project.compose("up -d --scale client=3").ok();
    assert_eq!(project.containers("client").len(), 3);
    assert_eq!(project.lookup("web", "client").len(), 6);
    project.compose("up -d -t 0 --scale client=1").ok();
    assert_eq!(project.lookup("web", "client").len(), 2);
    project.compose("stop -t 0").ok();
    project.compose("start").ok();
    project.check();
    project.compose("kill").ok();
    project.finish(&before);
}

const HEALTH: &str = r#"
services:
  db:
    image: busybox
    command: sh -c 'sleep 2; mkdir /www; echo db > /www/index.html; touch /ready; exec httpd -f -p 80 -h /www'
    healthcheck:
      test: [CMD, wget, -qO-, "http://127.0.0.1/"]
      interval: 500ms
      timeout: 3s
      retries: 60
  client:
    image: busybox
    command: sh -c 'wget -qO- http://db/ > /page; sleep 1000'
    depends_on:
      db: { condition: service_healthy }
  never:
    image: busybox
    command: sleep 1000
    profiles: [never]
    healthcheck:
      test: "false"
      interval: 200ms
      retries: 2
  after:
    image: busybox
    command: sleep 1000
    profiles: [never]
    depends_on:
      never: { condition: service_healthy }
"#;

#[test]
fn privileged_a_compose_service_waits_until_another_is_healthy() {
    let project = Project::new(HEALTH);
    let before = project.host();
    let health = |service: &str| {
        let filter = format!("label=com.docker.compose.service={service}");
        let id = project.daemon.docker(["ps", "-q", "--filter", &filter]).ok();
        project.daemon.inspect("{{.State.Health.Status}}", &id)
    };
    project.compose("up -d").ok();
    assert_eq!(health("db"), "healthy");
    // It asks once, when it is started.
    wait_until("the client has its page", || project.exec("client", "cat /page").stdout == "db\n");
    // One that is not healthy in the end is not waited for any longer.
    let failed = project.compose("--profile never up -d after").fails(1);
    assert!(failed.contains("unhealthy"), "{failed}");
    assert_eq!(health("never"), "unhealthy");
    project.compose("--profile never down -t 0").ok();
    project.finish(&before);
}
