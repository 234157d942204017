#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;

use super::*;

/// Ids of an outer and an inner container, and a pod.
const A: &str = "9b0c3a5f4f2a8f7f0e1d2c3b4a5968778695a4b3c2d1e0ff00112233445566aa";
const B: &str = "0bacbe10921c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a0b9c8d7e6f5a4b3c2d1e";
const POD: &str = "57e67067-89e4-4001-bdd4-8632d39ea02b";

/// Path (A, B: containers; P: a pod; Q: the same for systemd), then container and runtime, pod, unit, name.
type Case = (&'static str, &'static str, &'static str, &'static str, &'static str, &'static str);

const CASES: &[Case] = &[
    // Docker, by cgroupfs and by systemd, rootless, with a parent of its own.
    ("/docker/A", "A", "docker", "", "", "9b0c3a5f4f2a"),
    ("/system.slice/docker-A.scope", "A", "docker", "", "", "9b0c3a5f4f2a"),
    (
        "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-A.scope",
        "A",
        "docker",
        "",
        "",
        "9b0c3a5f4f2a",
    ),
    ("/ecs/web/task/A", "A", "", "", "", "9b0c3a5f4f2a"),
    ("/system.slice/docker.service", "", "", "", "docker.service", "docker"),
    // containerd: by systemd, by cgroupfs, and when the two do not agree.
    (
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podQ.slice/cri-containerd-A.scope",
        "A",
        "containerd",
        "P",
        "",
        "9b0c3a5f4f2a",
    ),
    (
        "/kubepods.slice/kubepods-podQ.slice/cri-containerd-A.scope",
        "A",
        "containerd",
        "P",
        "",
        "9b0c3a5f4f2a",
    ),
    ("/kubepods/besteffort/podP/A", "A", "", "P", "", "9b0c3a5f4f2a"),
    ("/kubepods/podP/A", "A", "", "P", "", "9b0c3a5f4f2a"),
    (
        "/system.slice/containerd.service/kubepods-burstable-podQ.slice:cri-containerd:A",
        "A",
        "containerd",
        "P",
        "",
        "9b0c3a5f4f2a",
    ),
    ("/default/A", "A", "", "", "", "9b0c3a5f4f2a"),
    ("/system.slice/nerdctl-A.scope", "A", "containerd", "", "", "9b0c3a5f4f2a"),
    ("/system.slice/containerd.service", "", "", "", "containerd.service", "containerd"),
    // A static pod is named by a hash. A pod without a container.
    (
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podc704ef4c297ab11032b83ce52cbfc87b.slice/cri-containerd-A.scope",
        "A",
        "containerd",
        "c704ef4c297ab11032b83ce52cbfc87b",
        "",
        "9b0c3a5f4f2a",
    ),
    ("/kubepods/burstable/podP", "", "", "P", "", "podP"),
    // CRI-O, with crun's level below, and its watcher, which is not the container.
    (
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podQ.slice/crio-A.scope",
        "A",
        "cri-o",
        "P",
        "",
        "9b0c3a5f4f2a",
    ),
    (
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podQ.slice/crio-A.scope/container",
        "A",
        "cri-o",
        "P",
        "",
        "9b0c3a5f4f2a",
    ),
    ("/kubepods/burstable/podP/crio-A", "A", "cri-o", "P", "", "9b0c3a5f4f2a"),
    (
        "/kubepods.slice/kubepods-podQ.slice/crio-conmon-A.scope",
        "",
        "",
        "P",
        "crio-conmon-A.scope",
        "crio-conmon-A.scope",
    ),
    ("/kubepods/podP/crio-conmon-A", "", "", "P", "", "crio-conmon-A"),
    // podman: root's, rootless, by cgroupfs, in a pod of its own, as a unit.
    ("/machine.slice/libpod-A.scope", "A", "podman", "", "", "9b0c3a5f4f2a"),
    ("/machine.slice/libpod-A.scope/container", "A", "podman", "", "", "9b0c3a5f4f2a"),
    (
        "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-A.scope/container",
        "A",
        "podman",
        "",
        "",
        "9b0c3a5f4f2a",
    ),
    ("/libpod_parent/libpod-A", "A", "podman", "", "", "9b0c3a5f4f2a"),
    ("/machine.slice/machine-libpod_pod_B.slice/libpod-A.scope", "A", "podman", "", "", "9b0c3a5f4f2a"),
    ("/system.slice/nginx.service/libpod-payload-A", "A", "podman", "", "", "9b0c3a5f4f2a"),
    ("/system.slice/nginx.service/runtime", "", "", "", "nginx.service", "nginx"),
    ("/machine.slice/libpod-conmon-A.scope", "", "", "", "libpod-conmon-A.scope", "libpod-conmon-A.scope"),
    ("/libpod_parent/conmon", "", "", "", "", "conmon"),
    // LXC and LXD, of version 3 and 4, and their watcher; Proxmox has a level below.
    ("/lxc/web", "web", "lxc", "", "", "web"),
    ("/lxc/101/ns/system.slice/nginx.service", "101", "lxc", "", "", "101"),
    ("/lxc.payload/web", "web", "lxc", "", "", "web"),
    ("/lxc.payload.web/system.slice/nginx.service", "web", "lxc", "", "", "web"),
    ("/lxc.monitor.web", "", "", "", "", "lxc.monitor.web"),
    // systemd-nspawn, with and without a unit of its own; a virtual machine is none.
    (
        "/machine.slice/systemd-nspawn@web.service/payload/system.slice/nginx.service",
        "web",
        "systemd-nspawn",
        "",
        "",
        "web",
    ),
    (
        "/machine.slice/systemd-nspawn@web.service/supervisor",
        "",
        "",
        "",
        "systemd-nspawn@web.service",
        "systemd-nspawn@web",
    ),
    ("/machine.slice/machine-web\\x2d1.scope/payload", "web-1", "systemd-nspawn", "", "", "web-1"),
    (
        "/machine.slice/machine-qemu\\x2d1\\x2dweb.scope/libvirt/emulator",
        "",
        "",
        "",
        "machine-qemu\\x2d1\\x2dweb.scope",
        "machine-qemu\\x2d1\\x2dweb.scope",
    ),
    // Nested: a container in a container, systemd in one, kind, minikube, docker in a pod.
    ("/docker/B/docker/A", "A", "docker", "", "", "9b0c3a5f4f2a"),
    ("/docker/B/init", "B", "docker", "", "", "0bacbe10921c"),
    ("/system.slice/docker-B.scope/system.slice/nginx.service", "B", "docker", "", "", "0bacbe10921c"),
    (
        "/docker/B/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-podQ.slice/cri-containerd-A.scope",
        "A",
        "containerd",
        "P",
        "",
        "9b0c3a5f4f2a",
    ),
    (
        "/system.slice/docker-B.scope/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podQ.slice/docker-A.scope",
        "A",
        "docker",
        "P",
        "",
        "9b0c3a5f4f2a",
    ),
    ("/system.slice/docker-B.scope/system.slice/kubelet.service", "B", "docker", "", "", "0bacbe10921c"),
    (
        "/kubepods.slice/kubepods-podQ.slice/cri-containerd-B.scope/docker/A",
        "A",
        "docker",
        "P",
        "",
        "9b0c3a5f4f2a",
    ),
    // Units: of the host, with a level below, of a template, of a user, of a session, with an escape.
    ("/system.slice/nginx.service", "", "", "", "nginx.service", "nginx"),
    ("/system.slice/nginx.service/worker", "", "", "", "nginx.service", "nginx"),
    ("/system.slice/system-getty.slice/getty@tty1.service", "", "", "", "getty@tty1.service", "getty@tty1"),
    (
        "/user.slice/user-1000.slice/user@1000.service/app.slice/app-web.service",
        "",
        "",
        "",
        "app-web.service",
        "app-web",
    ),
    (
        "/user.slice/user-1000.slice/user@1000.service/init.scope",
        "",
        "",
        "",
        "user@1000.service",
        "user@1000",
    ),
    ("/user.slice/user-1000.slice/session-3.scope", "", "", "", "session-3.scope", "session-3.scope"),
    ("/init.scope", "", "", "", "init.scope", "init.scope"),
    ("/system.slice/_cpu.service", "", "", "", "cpu.service", "cpu"),
    ("/system.slice/sshd.socket", "", "", "", "sshd.socket", "sshd.socket"),
    // Neither.
    ("/", "", "", "", "", "-"),
    ("/user.slice", "", "", "", "", "user.slice"),
    ("/web/nginx", "", "", "", "", "nginx"),
    ("/docker/9b0c3a5f4f2a", "", "", "", "", "9b0c3a5f4f2a"),
    ("/system.slice/.service", "", "", "", "", ".service"),
    ("/podium/podcast", "", "", "", "", "podcast"),
    ("/x.slice:cri-containerd:short", "", "", "", "", "x.slice:cri-containerd:short"),
];

/// Letters for what they stand for, where they stand alone.
fn spelled(text: &str) -> String {
    let systemd = POD.replace('-', "_");
    let mut spelled = String::new();
    let mut chars = text.chars().peekable();
    while let Some(letter) = chars.next() {
        let alone = chars.peek().is_none_or(|next| "./".contains(*next));
        match letter {
            'A' if alone => spelled.push_str(A),
            'B' if alone => spelled.push_str(B),
            'P' if alone => spelled.push_str(POD),
            'Q' if alone => spelled.push_str(&systemd),
            other => spelled.push(other),
        }
    }
    spelled
}

#[test]
fn paths_tell_who_runs_there() {
    for (path, container, runtime, pod, unit, name) in CASES {
        let told = CgroupPath::from(&*spelled(path));
        let id = told.container().map_or("", |container| &container.id);
        let by = told.container().and_then(|container| container.runtime).unwrap_or("");
        let found = (id, by, told.pod().unwrap_or(""), told.unit().unwrap_or(""), told.name());
        let [container, pod, unit, name] = [container, pod, unit, name].map(|text| spelled(text));
        assert_eq!(found, (&*container, *runtime, &*pod, &*unit, &*name), "{path}");
        assert_eq!(&*told, spelled(path));
    }
}

/// As /proc/PID/cgroup has them on cgroup v1, where each hierarchy has the same path.
#[test]
fn version_1_has_the_same_paths() {
    let line = format!("4:memory:/kubepods/burstable/pod{POD}/{A}");
    let told = CgroupPath::from(line.rsplit(':').next().unwrap());
    assert_eq!((&*told.container().unwrap().id, told.pod()), (A, Some(POD)));
}

#[test]
fn a_container_is_called_by_the_beginning_of_its_id_or_a_whole_name() {
    let called = |path: &str, wanted: &str| CgroupPath::from(&*spelled(path)).is_called(wanted);
    for (path, wanted, meant) in [
        ("/docker/A", A, true),
        ("/docker/A", "9b0c3a5f4f2a", true),
        ("/docker/A", "9b", true),
        ("/docker/A", "0c3a", false),
        ("/docker/A", "", false),
        ("/docker/A", "docker", false),
        ("/docker/B/docker/A", B, false),
        ("/lxc/web", "web", true),
        ("/lxc/web", "we", false),
        ("/system.slice/nginx.service", "nginx", true),
        ("/system.slice/nginx.service", "nginx.service", true),
        ("/system.slice/nginx.service", "ngin", false),
        ("/system.slice/sshd.socket", "sshd", false),
        ("/system.slice/nginx.service/libpod-payload-A", "nginx", false),
        ("/web/nginx", "nginx", false),
    ] {
        assert_eq!(called(path, wanted), meant, "{wanted} in {path}");
    }
}

#[test]
fn cgroups_of_one_container_have_a_home_in_common() {
    let home = |path: &str| CgroupPath::from(&*spelled(path)).home().to_owned();
    assert_eq!(home("/docker/A/init"), home("/docker/A/system.slice/nginx.service"));
    assert_eq!(home("/system.slice/nginx.service/a"), home("/system.slice/nginx.service/b"));
    // Their first twelve digits are the same; they are not.
    let other = format!("{}{}", &A[..12], &B[12..]);
    assert_ne!(home("/docker/A"), home(&format!("/docker/{other}")));
}

proptest! {
    /// Whatever a path is: it is told apart without a panic, and a name is never empty.
    #[test]
    fn any_path_will_do(path in "\\PC*") {
        prop_assert!(!CgroupPath::from(&*path).name().is_empty());
    }

    #[test]
    fn any_parts_will_do(parts in prop::collection::vec(
        prop::sample::select(vec![
            "docker", "lxc", "A", "cri-containerd-A.scope", "podP", "kubepods-podQ.slice", "x.service", "supervisor",
            "lxc.payload.", "machine-.scope", "systemd-nspawn@.service", "_", "-", ".slice:", ".slice::", "é.service",
        ]),
        0..8,
    )) {
        let path = spelled(&format!("/{}", parts.join("/")));
        let told = CgroupPath::from(&*path);
        prop_assert!(told.container().is_none() || told.unit().is_none());
        prop_assert!(!told.name().is_empty() && !told.home().is_empty(), "{}", path);
    }
}
