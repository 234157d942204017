//! The program as a user meets it before it has watched anything: its help, and what it says when it is used
//! wrongly or may not run. Needs no root; as root it gives its rights away where a test is about lacking them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fmt::Write as _,
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tcptrace");

/// What a run came to.
struct Run {
    status: Option<i32>,
    stdout: String,
    stderr: String,
}

fn run(mut command: Command) -> Run {
    let output = command.env("COLUMNS", "80").env_remove("NO_COLOR").stdin(Stdio::null()).output().unwrap();
    Run {
        status: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn tcptrace(args: &[&str]) -> Run {
    let mut command = Command::new(PROGRAM);
    command.args(args);
    run(command)
}

// Help.

#[track_caller]
fn help(args: &[&str]) -> String {
    let run = tcptrace(args);
    assert_eq!((run.status, run.stderr.as_str()), (Some(0), ""));
    for line in run.stdout.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    run.stdout
}

#[test]
fn help_of_the_program() {
    insta::assert_snapshot!(help(&["--help"]));
}

#[test]
fn help_of_explain() {
    insta::assert_snapshot!(help(&["explain", "--help"]));
}

#[test]
fn help_of_trace() {
    insta::assert_snapshot!(help(&["trace", "--help"]));
}

#[test]
fn help_of_conns() {
    insta::assert_snapshot!(help(&["conns", "--help"]));
}

#[test]
fn help_of_hist() {
    insta::assert_snapshot!(help(&["hist", "--help"]));
}

#[test]
fn help_of_record() {
    insta::assert_snapshot!(help(&["record", "--help"]));
}

#[test]
fn help_of_rst() {
    insta::assert_snapshot!(help(&["rst", "--help"]));
}

#[test]
fn help_of_doctor() {
    insta::assert_snapshot!(help(&["doctor", "--help"]));
}

#[test]
fn help_of_probes() {
    insta::assert_snapshot!(help(&["probes", "--help"]));
}

#[test]
fn help_of_serve() {
    insta::assert_snapshot!(help(&["serve", "--help"]));
}

#[test]
fn help_of_top() {
    insta::assert_snapshot!(help(&["top", "--help"]));
}

#[test]
fn short_help_and_the_help_command_say_the_same() {
    assert_eq!(help(&["-h"]), help(&["--help"]));
    assert_eq!(help(&["trace", "-h"]), help(&["trace", "--help"]));
    assert_eq!(help(&["help"]), help(&["--help"]));
    assert_eq!(help(&["help", "trace"]), help(&["trace", "--help"]));
}

#[test]
fn trace_is_what_the_program_does_by_itself() {
    let flags = |help: String| help.split_once("\nEvents:\n").unwrap().1.to_owned();
    assert_eq!(flags(help(&["--help"])), flags(help(&["trace", "--help"])));
}

#[test]
fn version() {
    for flag in ["-V", "--version"] {
        let run = tcptrace(&[flag]);
        assert_eq!(run.status, Some(0));
        assert_eq!(run.stdout, format!("tcptrace {}\n", env!("CARGO_PKG_VERSION")));
    }
}

// Wrong usage.

/// What is said on stderr; on stdout nothing is.
#[track_caller]
fn refused(args: &[&str]) -> String {
    let run = tcptrace(args);
    assert_eq!((run.status, run.stdout.as_str()), (Some(2), ""), "{args:?}: {}", run.stderr);
    assert!(run.stderr.starts_with("error: "), "{}", run.stderr);
    run.stderr
}

#[test]
fn wrong_usage_is_pointed_at() {
    let mut told = String::new();
    for args in [
        &["-L", "80,9x"][..],
        &["-D", "8099-8000"],
        &["-P", "80,,443"],
        &["--raddr", "10.0.0.5,10.0.0.300"],
        &["--laddr", "10.0.0.0/33"],
        &["--addr", "example.org"],
        &["-p", "4123,nginx"],
        &["--uid", "root"],
        &["--state", "close-wait,OPEN"],
        &["-N", "web,"],
    ] {
        let stderr = refused(args);
        assert!(stderr.contains('^'), "{stderr}");
        let _ = writeln!(told, "$ tcptrace {}\n{stderr}", args.join(" "));
    }
    insta::assert_snapshot!(told);
}

#[test]
fn the_carets_stand_under_what_is_wrong() {
    for (args, wrong) in [
        (["-L", "80,9x,443"], "9x"),
        (["-L", "99-80"], "99-80"),
        (["--addr", "::1,żółw,10.0.0.1"], "żółw"),
        (["--state", "estab,OPEN"], "OPEN"),
    ] {
        let stderr = refused(&args);
        let lines: Vec<&str> = stderr.lines().collect();
        let carets = lines.iter().position(|line| line.trim_start().starts_with('^')).unwrap();
        let pointed: String = lines[carets - 1]
            .chars()
            .zip(lines[carets].chars())
            .filter(|(_, caret)| *caret == '^')
            .map(|(c, _)| c)
            .collect();
        assert_eq!(pointed, wrong, "{stderr}");
    }
}

#[test]
fn wrong_usage_is_explained() {
    let mut told = String::new();
    for args in [
        &["-d", "soon"][..],
        &["-d", "0"],
        &["--buffer", "1T"],
        &["--buffer", "100"],
        &["-c", "0"],
        &["-o", "xml"],
        &["--color", "blue"],
        &["--bogus"],
        &["watch"],
        &["-L"],
        &["-4", "-6"],
        &["-t", "-T"],
        &["-q", "-v"],
        &["-L", "80", "-L", "443"],
        &["-L", "80", "trace"],
        &["doctor", "--set", "close-wait-leak"],
        &["doctor", "--set", "close-wait.age=1s"],
        &["doctor", "--set", "close-wait-leak.count=1"],
        &["doctor", "--set", "close-wait-leak.age=old"],
        &["serve", "--listen", "localhost"],
        &["serve", "--tls-cert", "host.pem"],
    ] {
        let _ = writeln!(told, "$ tcptrace {}\n{}", args.join(" "), refused(args));
    }
    insta::assert_snapshot!(told);
}

// What is not there.

/// `tcptrace: …`, `why: …`, `fix: …`.
#[track_caller]
fn three_lines(run: &Run) -> [String; 3] {
    assert_eq!((run.status, run.stdout.as_str()), (Some(1), ""), "{}", run.stderr);
    let lines: Vec<&str> = run.stderr.lines().collect();
    assert_eq!(lines.len(), 3, "{}", run.stderr);
    for (line, begins) in lines.iter().zip(["tcptrace: ", "why: ", "fix: "]) {
        assert!(line.starts_with(begins) && line.len() > begins.len(), "{}", run.stderr);
    }
    [0, 1, 2].map(|line| lines[line].to_owned())
}

#[test]
fn a_network_namespace_that_is_not_there_is_named() {
    for (name, why) in [
        ("no-such-netns", "/run/netns/no-such-netns does not exist"),
        ("/nowhere/net", "/nowhere/net does not exist"),
        ("pid:x", "what follows pid: is no number"),
        ("pid:4194305", "/proc/4194305/ns/net does not exist"),
    ] {
        let [what, told, fix] = three_lines(&tcptrace(&["-N", name]));
        assert_eq!(what, format!("tcptrace: no network namespace {name}"));
        assert_eq!(told, format!("why: {why}"));
        assert!(fix.contains("ip netns list"), "{fix}");
        three_lines(&tcptrace(&["trace", "--netns", name]));
    }
}

#[test]
fn a_cgroup_that_is_not_there_is_named() {
    let [what, why, fix] = three_lines(&tcptrace(&["--cgroup", "/no/such/cgroup"]));
    assert_eq!(what, "tcptrace: no cgroup /no/such/cgroup");
    assert!(why.contains("/no/such/cgroup") || why.contains("no cgroup2 tree"), "{why}");
    assert!(fix.contains("/proc/PID/cgroup"), "{fix}");
}

#[test]
fn settings_of_doctor_that_cannot_be_read_are_named() {
    let directory = std::env::temp_dir().join(format!("tcptrace-cli-{}-settings", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let mut told = String::new();
    for (name, text) in [
        ("form", "close-wait-leak = 5"),
        ("syntax", "[close-wait-leak]\nage = "),
        ("rule", "[close-wait]\nage = \"30s\""),
        ("value", "[close-wait-leak]\nage = \"old\""),
        ("kind", "[close-wait-leak]\nage = [30]"),
    ] {
        let path = directory.join(name);
        fs::write(&path, text).unwrap();
        let lines = three_lines(&tcptrace(&["doctor", "--config", path.to_str().unwrap()]));
        let _ = writeln!(told, "{}\n", lines.join("\n").replace(directory.to_str().unwrap(), "DIR"));
    }
    fs::remove_dir_all(&directory).unwrap();
    let missing = three_lines(&tcptrace(&["doctor", "--config", "/no/such/file"]));
    let _ = writeln!(told, "{}", missing.join("\n"));
    insta::assert_snapshot!(told);
}

#[test]
fn doctor_prints_no_csv() {
    let [what, why, fix] = three_lines(&tcptrace(&["doctor", "-o", "csv"]));
    assert_eq!(what, "tcptrace: doctor prints no CSV");
    assert!(why.contains("no table") && fix == "fix: tcptrace doctor -o json", "{why} {fix}");
}

// What `serve` does not do.

/// `three_lines` of a `serve`, and that the second has some words, and the third.
#[track_caller]
fn does_not_serve(args: &[&str], what: &str, why: &str, fix: &str) {
    let lines = three_lines(&tcptrace(&[&["serve", "--listen", "127.0.0.1:0"], args].concat()));
    assert_eq!(lines[0], format!("tcptrace: {what}"));
    assert!(lines[1].contains(why) && lines[2].contains(fix), "{lines:?}");
}

#[test]
fn metrics_are_not_given_to_whoever_comes() {
    for address in ["0.0.0.0:9469", "[::]:9469", "192.0.2.1:9469", "[::ffff:10.0.0.5]:9469"] {
        let [what, why, fix] = three_lines(&tcptrace(&["serve", "--listen", address]));
        assert_eq!(what, format!("tcptrace: will not listen on {address}"));
        assert!(why.contains("could read"), "{why}");
        assert!(
            fix.contains("--tls-cert") && fix.contains("--token-file") && fix.contains("--insecure"),
            "{fix}"
        );
    }
}

#[test]
fn a_port_or_address_that_cannot_be_had_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let [what, why, fix] = three_lines(&tcptrace(&["serve", "--listen", &address]));
    assert_eq!(what, format!("tcptrace: cannot listen on {address}"));
    assert!(why.contains("in use") && fix.contains("ss -ltnp"), "{why} {fix}");
    // TEST-NET-1 is nobody's.
    let [_, why, fix] = three_lines(&tcptrace(&["serve", "--listen", "192.0.2.1:9469", "--insecure", "-q"]));
    assert!(why.contains("assign") && fix.contains("ip addr"), "{why} {fix}");
}

#[test]
fn tokens_and_keys_that_are_of_no_use_are_named() {
    let directory = std::env::temp_dir().join(format!("tcptrace-serve-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let file = |name: &str, text: &str, mode| {
        let path = directory.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let open = file("open", "secret", 0o644);
    let empty = file("empty", " \n", 0o600);
    let words = file("words", "two words\n", 0o600);
    let no_pem = file("pem", "no PEM\n", 0o600);
    let (what, fix) = (format!("will not use the token in {open}"), format!("chmod o= {open}"));
    does_not_serve(&["--token-file", &open], &what, "no secret", &fix);
    for path in [&empty, &words] {
        let what = format!("cannot use the token in {path}");
        does_not_serve(&["--token-file", path], &what, "one word of ASCII", "openssl rand");
    }
    let missing = "/no/such/file";
    let what = format!("cannot read the token in {missing}");
    does_not_serve(&["--token-file", missing], &what, "No such file", "that is there");
    let what = format!("cannot read the certificate in {missing}");
    does_not_serve(&["--tls-cert", missing, "--tls-key", &no_pem], &what, "No such file", "that is there");
    let what = format!("cannot use the certificate in {no_pem}");
    does_not_serve(&["--tls-cert", &no_pem, "--tls-key", &no_pem], &what, "none in it", "PEM");
    does_not_serve(&["-o", "json"], "serve prints nothing", "/metrics", "leave out -o");
    fs::remove_dir_all(&directory).unwrap();
}

// Without rights.

/// A copy of the program that anybody may run; gone when dropped.
struct Copy {
    directory: PathBuf,
}

impl Copy {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("tcptrace-cli-{}-{name}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        let copy = Self { directory };
        // By another process: a file that this one writes may be open in a child that another test starts, and then
        // it cannot be run.
        let copied = Command::new("cp").arg(PROGRAM).arg(copy.program()).status().unwrap();
        assert!(copied.success());
        fs::set_permissions(copy.program(), fs::Permissions::from_mode(0o755)).unwrap();
        copy
    }

    fn program(&self) -> PathBuf {
        self.directory.join("tcptrace")
    }

    /// A run by a user without any rights.
    fn run(&self, args: &[&str]) -> Run {
        let mut command = Command::new(self.program());
        command.args(args).current_dir("/");
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        run(command)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

const NOBODY: u32 = 65534;

fn is_root() -> bool {
    Path::new("/proc/self").metadata().unwrap().uid() == 0
}

#[test]
fn a_user_without_rights_is_told_which_and_what_to_do() {
    let copy = Copy::new("rights");
    for (args, fix) in [
        (&[][..], "fix: sudo tcptrace"),
        (&["-L", "443", "--state", "close-wait"], "fix: sudo tcptrace -L 443 --state close-wait"),
        (&["trace", "-o", "json"], "fix: sudo tcptrace trace -o json"),
        (&["doctor", "-d", "1m"], "fix: sudo tcptrace doctor -d 1m"),
    ] {
        let lines = three_lines(&copy.run(args));
        assert_eq!(lines[0], "tcptrace: cannot watch the kernel: CAP_BPF and CAP_PERFMON are missing");
        assert!(lines[1].contains("CAP_BPF and CAP_PERFMON"), "{}", lines[1]);
        assert_eq!(lines[2], fix);
    }
}

#[test]
fn the_command_that_helps_can_be_pasted_into_a_shell() {
    let copy = Copy::new("quotes");
    let [.., fix] = three_lines(&copy.run(&["--comm", "Web Content;id"]));
    assert_ne!(fix, "fix: sudo tcptrace --comm Web Content;id");
    // The rest of the line is the same command for sh.
    let command = fix.replace("fix: sudo tcptrace ", "printf '%s\\n' ");
    let output = Command::new("sh").args(["-c", &command]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "--comm\nWeb Content;id\n");
}

#[test]
fn an_error_has_three_lines_whatever_the_user_wrote() {
    let copy = Copy::new("lines");
    for args in [["-N", "one\ntwo"], ["--cgroup", "/one\ntwo"], ["--comm", "one\ntwo"]] {
        three_lines(&copy.run(&args));
    }
}

#[test]
fn a_file_that_is_no_network_namespace_is_named() {
    // Where it is taken for one, this stops at the rights.
    let copy = Copy::new("netns");
    for path in ["/etc/passwd", "/proc/self/ns/mnt", "/"] {
        let [what, ..] = three_lines(&copy.run(&["-N", path]));
        assert_eq!(what, format!("tcptrace: no network namespace {path}"));
    }
}

#[test]
fn help_and_wrong_usage_need_no_rights() {
    let copy = Copy::new("help");
    assert_eq!(copy.run(&["--help"]).stdout, help(&["--help"]));
    assert_eq!(copy.run(&["-L", "x"]).status, Some(2));
    three_lines(&copy.run(&["-N", "no-such-netns"]));
}

#[test]
fn nobody_reads_the_help_and_nothing_panics() {
    let mut child = Command::new(PROGRAM)
        .arg("--help")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn rules_are_listed_without_rights() {
    let copy = Copy::new("rules");
    let rules = copy.run(&["doctor", "--rules"]);
    assert_eq!((rules.status, rules.stderr.as_str()), (Some(0), ""));
    assert!(rules.stdout.lines().all(|line| line.chars().count() <= 100), "{}", rules.stdout);
    // What is a heading there is a word that is explained.
    let names: Vec<&str> =
        rules.stdout.lines().filter(|line| !line.contains(' ') && !line.is_empty()).collect();
    assert!(names.contains(&"close-wait-leak") && names.len() >= 25, "{names:?}");
    for name in names {
        let page = copy.run(&["explain", name]);
        assert!(page.status == Some(0) && page.stdout.starts_with(&format!("{name}: a finding")), "{name}");
    }
}

#[test]
fn words_are_explained_without_rights() {
    let copy = Copy::new("explain");
    let page = copy.run(&["explain", "close-wait"]);
    assert_eq!((page.status, page.stderr.as_str()), (Some(0), ""));
    assert!(page.stdout.starts_with("CLOSE_WAIT: a state\n"), "{}", page.stdout);
    let index = copy.run(&["explain"]);
    // The running kernel's own reasons are among the words.
    assert!(index.stdout.contains("handshake") && index.stdout.contains("peer_rst"), "{}", index.stdout);
    let unknown = copy.run(&["explain", "time_wiat"]);
    assert_eq!((unknown.status, unknown.stdout.as_str()), (Some(2), ""));
    let expected = "tcptrace: nothing is known of time_wiat\nfix: did you mean TIME_WAIT";
    assert!(unknown.stderr.starts_with(expected), "{}", unknown.stderr);
}
