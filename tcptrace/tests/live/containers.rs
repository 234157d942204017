//! Containers and units, by control groups that are named as runtimes and systemd name them.

use std::{
    net::TcpListener,
    process::{Command, Stdio},
};

use crate::{
    close::PASSIVE_CLIENT,
    owners::Cgroup,
    support::{
        actor::Actor,
        event::Event,
        netns::scenario,
        process::{Process, lines_of},
        serve::{Metrics, Serve},
        story::End,
        tables::{Tables, sockets},
        trace::{Trace, await_attached},
    },
};

const ID: &str = "9b0c3a5f4f2a8f7f0e1d2c3b4a5968778695a4b3c2d1e0ff00112233445566aa";
const OTHER: &str = "0bacbe10921c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a0b9c8d7e6f5a4b3c2d1e";
const POD: &str = "57e67067-89e4-4001-bdd4-8632d39ea02b";

/// Control groups below one of our own; the children go first.
struct Tree(Vec<Cgroup>);

impl Tree {
    /// A path below, level by level.
    fn of(path: &str) -> Self {
        let mut levels = vec![Cgroup::below(None)];
        for name in path.split('/') {
            let level = Cgroup::named(levels.last(), name);
            levels.push(level);
        }
        Self(levels)
    }

    fn leaf(&self) -> &Cgroup {
        self.0.last().unwrap()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        while let Some(level) = self.0.pop() {
            drop(level);
        }
    }
}

/// An actor that works in a control group from here on.
fn within(group: &Cgroup, name: &str) -> Actor {
    let actor = Actor::start(name);
    group.take(actor.pid());
    actor
}

/// A connection of an actor's to a listener, whose end closes first.
fn one_connection(actor: &Actor) -> End {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let (socket, end) = actor.connect(listener.local_addr().unwrap().port());
    drop(listener.accept().unwrap());
    actor.read_to_end(socket);
    actor.close(socket);
    end
}

fn told(event: &Event) -> [Option<&str>; 4] {
    ["container", "container_runtime", "pod", "unit"].map(|name| event.text(name))
}

/// A container that starts while tcptrace runs, and is gone before the next one: every transition is told, and none of
/// another's.
#[test]
fn the_transitions_of_a_container() {
    let pod = format!("kubepods.slice/kubepods-pod{}.slice/cri-containerd-{ID}.scope", POD.replace('-', "_"));
    for (path, wanted, expected) in [
        (format!("docker-{ID}.scope/init"), "9b0c3a5f4f2a", [Some(ID), Some("docker"), None, None]),
        (pod, ID, [Some(ID), Some("containerd"), Some(POD), None]),
        ("lxc.payload.web".to_owned(), "other,web", [Some("web"), Some("lxc"), None, None]),
        ("system.slice/nginx.service".to_owned(), "nginx", [None, None, None, Some("nginx.service")]),
    ] {
        scenario(|net| {
            let trace = Trace::of(net, &["--container", wanted]);
            for _ in 0..2 {
                // Its path is not known yet, and the other's was just looked for.
                let tree = Tree::of(&format!("docker-{OTHER}.scope"));
                let other = within(tree.leaf(), "other");
                one_connection(&other);
                other.exit();
            }
            let tree = Tree::of(&path);
            let inside = within(tree.leaf(), "inside");
            let end = one_connection(&inside);
            let log = trace.tells_of_others(&[(end, PASSIVE_CLIENT)]);
            for event in &log.events {
                assert_eq!(told(event), expected, "{event:?}");
            }
            inside.exit();
        });
    }
}

/// A container's control groups are one row, a unit another; with a filter the other is not there.
#[test]
fn rows_of_containers() {
    scenario(|net| {
        let mut tree = Tree::of(&format!("docker-{ID}.scope/one"));
        tree.0.push(Cgroup::named(tree.0.get(1), "two"));
        let unit = Tree::of("system.slice/nginx.service");
        let actors = [within(&tree.0[2], "one"), within(tree.leaf(), "two"), within(unit.leaf(), "nginx")];
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        for actor in &actors {
            actor.connect(port);
        }
        let nets = net.inode().to_string();
        let rows = |args: &[&str]| -> Vec<(String, u64)> {
            let flags = [&["hist", "1", "1", "--by", "container"], args].concat();
            let hist = Tables::start(&nets, &flags);
            let table = hist.until("a table", |_| true);
            let called = |row: &Event| {
                let [container, runtime, _, unit] = told(row);
                assert_eq!(container.is_some(), runtime == Some("docker"), "{row:?}");
                container.or(unit).map(|name| (name.to_owned(), sockets(row, "ESTABLISHED")))
            };
            table.iter().filter(|row| row.kind() == "container").filter_map(called).collect()
        };
        let docker = (ID.to_owned(), 2);
        let nginx = ("nginx.service".to_owned(), 1);
        assert_eq!(rows(&[]), [docker.clone(), nginx.clone()]);
        assert_eq!(rows(&["--container", "9b0c"]), std::slice::from_ref(&docker));
        assert_eq!(rows(&["--container", "nginx"]), [nginx]);
        // Also what is below a control group belongs to it.
        assert_eq!(rows(&["--cgroup", &tree.0[1].name()]), [docker]);
        for actor in actors {
            actor.exit();
        }
    });
}

/// A container's control groups have one label in metrics, a unit another.
#[test]
fn the_label() {
    scenario(|net| {
        let mut tree = Tree::of(&format!("docker-{ID}.scope/one"));
        tree.0.push(Cgroup::named(tree.0.get(1), "two"));
        let unit = Tree::of("system.slice/nginx.service");
        let serve = Serve::of(net, &["--by-container"]);
        let actors = [within(&tree.0[2], "one"), within(tree.leaf(), "two"), within(unit.leaf(), "nginx")];
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        for actor in &actors {
            actor.connect(port);
        }
        let port = port.to_string();
        let count = |metrics: &Metrics, name, container| {
            metrics.sum(name, &[("port", &port), ("role", "client"), ("container", container)])
        };
        let opened = "tcptrace_connections_opened_total";
        let metrics = serve.until("all are counted", |metrics| {
            count(metrics, opened, ID) == 2 && count(metrics, opened, "nginx.service") == 1
        });
        let all = metrics.sum("tcptrace_sockets", &[("port", &port), ("role", "client")]);
        let of = |container| count(&metrics, "tcptrace_sockets", container);
        assert_eq!((all, of(ID), of("nginx.service")), (3, 2, 1), "{metrics}");
        for actor in actors {
            actor.exit();
        }
        serve.stop();
    });
}

/// What people are shown with `-w`: the first digits, or the unit without `.service`.
#[test]
fn the_column() {
    scenario(|net| {
        let trees = [Tree::of(&format!("docker-{ID}.scope")), Tree::of("system.slice/nginx.service")];
        for args in [&["trace", "-w"] as &[&str], &["conns", "-w"]] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
            command.args(args).args(["-v", "-N", &net.inode().to_string()]);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let (mut process, pipes) = Process::start(&mut command);
            let out = lines_of(pipes.stdout.unwrap());
            await_attached(&lines_of(pipes.stderr.unwrap()));
            for tree in &trees {
                let actor = within(tree.leaf(), "inside");
                one_connection(&actor);
                actor.exit();
            }
            for name in ["9b0c3a5f4f2a", "nginx"] {
                let shown = |line: &String| line.split_whitespace().any(|word| word == name);
                assert!(out.wait(|lines| lines.lines.iter().any(shown)), "{args:?}: no {name}");
            }
            process.terminate();
        }
    });
}
