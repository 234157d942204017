//! Other kernels: Debian's own, booted by QEMU, each with the live tests of this checkout as its only program.
//!
//! The guest has no disk: its initramfs holds the test program, tcptrace, the programs that the tests run, their libraries, and
//! `vm-init` as process 1. Everything that is downloaded stays under the target directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use xshell::cmd;

use crate::{
    apt,
    host::{Workspace, program_path},
};

/// The series that are booted unless others are named: the long-term kernels of Debian from the oldest that tcptrace
/// supports, one between, and the newest.
const SERIES: [&str; 5] = ["5.10", "6.1", "6.12", "6.16", "7"];
/// Where Debian has them.
const SUITES: [(&str, &str); 5] = [
    ("debian", "bullseye"),
    ("debian", "bookworm"),
    ("debian-security", "bookworm-security"),
    ("debian", "trixie"),
    ("debian", "trixie-backports"),
];
/// Where QEMU comes from on Debian 12: its own 7.2 makes a guest of 6.12 hang or fault now and then before its first
/// process, 10 does not.
const QEMU_SUITES: [(&str, &str); 3] =
    [("debian", "bookworm"), ("debian-security", "bookworm-security"), ("debian", "bookworm-backports")];
/// What `cargo xtask test` runs on other kernels: every probe and every field, and exact counts under a storm.
pub(crate) const SMOKE: [&str; 9] = [
    "probes_cli::everything",
    "privileges::two",
    "privileges::what",
    "close::the_client",
    "abort::close_with_linger",
    "stop::with_losses",
    "hist_cli::a_leak",
    "rst_cli::",
    "killed_at_any_moment",
];
/// What the numbers of instructions stand between, in docs/kernels.md.
const RECORD: (&str, &str) =
    ("<!-- cargo xtask vm --record writes what follows -->\n", "<!-- up to here -->\n");
/// Modules that the tests need, in the order in which they are loaded.
const MODULES: [&str; 3] = ["inet_diag", "tcp_diag", "tun"];
/// Programs that the tests run. What is not installed here is not there.
const PROGRAMS: [&str; 18] = [
    "sh", "ip", "ss", "curl", "cat", "grep", "head", "tr", "stty", "sleep", "tmux", "true", "env", "uname",
    "setpriv", "unshare", "mount", "bpftool",
];
/// Tests that need programs which are too large for a machine without a disk (bpftrace, servers), or speed that
/// emulation does not have.
const NOT_THERE: [&str; 3] = ["programs::", "agreement::with_bpftrace", "crowd::"];
/// How a machine is run: by the host's processor, or by emulation.
const KVM: &str = "kvm";
const EMULATION: &str = "tcg,thread=multi";
/// How long a kernel may take to its first process under KVM, which some hosts have but cannot do.
const KVM_PATIENCE: Duration = Duration::from_secs(20);
/// How long one kernel may take.
const PATIENCE: Duration = Duration::from_mins(25);

/// A kernel, ready to boot.
struct Kernel {
    version: String,
    image: PathBuf,
    modules: Vec<PathBuf>,
}

/// What one kernel said.
#[derive(Default)]
struct Report {
    /// Tests by name: whether they passed.
    tests: BTreeMap<String, bool>,
    /// Instructions of each program, and how many the verifier went through, if the kernel says it.
    programs: BTreeMap<String, (u64, Option<u64>)>,
    /// Its first process ran.
    begun: bool,
    /// What vm-init said last.
    ended: Option<String>,
    /// The console.
    console: Vec<String>,
}

/// What came of it.
pub(crate) struct Outcome {
    /// Whether every machine ended well.
    pub(crate) good: bool,
    /// Tests that passed, on all kernels.
    pub(crate) passed: u64,
    /// Tests that failed.
    pub(crate) failed: u64,
}

/// Boots the kernels and runs the live tests whose names contain one of `tests`, or all. Prints a table. With `record`, the
/// numbers of instructions go into docs/kernels.md.
pub(crate) fn run(workspace: &Workspace, series: &[String], tests: &[&str], record: bool) -> Result<Outcome> {
    qemu(workspace)?;
    let series: Vec<&str> = match series {
        [] => SERIES.to_vec(),
        named => named.iter().map(String::as_str).collect(),
    };
    let directory = workspace.target_dir()?.join("vm");
    let programs = build(workspace)?;
    let archive = Archive::open(workspace, &directory)?;
    let mut accelerator = if Path::new("/dev/kvm").exists() { KVM } else { EMULATION };
    let mut reports = Vec::new();
    for series in series {
        let kernel = archive.newest(series)?;
        println!("xtask: == kernel {}", kernel.version);
        let initramfs = directory.join(format!("initramfs-{}", kernel.version));
        fs::write(&initramfs, pack(&kernel, &programs, tests)?)?;
        let started = Instant::now();
        let report = boot(&kernel, &initramfs, &mut accelerator)?;
        fs::remove_file(&initramfs)?;
        println!(
            "xtask: {}: {} passed, {} failed, {:.0} s",
            kernel.version,
            report.tests.values().filter(|passed| **passed).count(),
            report.tests.values().filter(|passed| !**passed).count(),
            started.elapsed().as_secs_f64()
        );
        let log = directory.join(format!("{}.log", kernel.version));
        fs::write(&log, report.console.join("\n"))?;
        if report.ended.as_deref() != Some("0") {
            println!("xtask: the console is in {}", log.display());
        }
        reports.push((kernel.version, report));
    }
    print_table(&reports);
    print!("{}", table_of_programs(&reports));
    if record {
        let path = workspace.root.join("docs/kernels.md");
        let text = fs::read_to_string(&path)?;
        let text = recorded(&text, &table_of_programs(&reports))
            .with_context(|| format!("{} lacks the marks {RECORD:?}", path.display()))?;
        fs::write(&path, text)?;
    }
    let results = || reports.iter().flat_map(|(_, report)| report.tests.values());
    let good = |report: &Report| {
        report.ended.as_deref() == Some("0") && !report.tests.is_empty() && !report.programs.is_empty()
    };
    Ok(Outcome {
        good: reports.iter().all(|(_, report)| good(report)),
        passed: results().filter(|passed| **passed).count() as u64,
        failed: results().filter(|passed| !**passed).count() as u64,
    })
}

/// The text with what stands between the marks replaced.
fn recorded(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(RECORD.0)?;
    let (_, after) = rest.split_once(RECORD.1)?;
    Some(format!("{before}{}{table}{}{after}", RECORD.0, RECORD.1))
}

/// A version without what only Debian knows.
fn short(version: &str) -> &str {
    version.split(['+', '-']).next().unwrap_or(version)
}

/// In Markdown: each program on each kernel.
fn table_of_programs(reports: &[(String, Report)]) -> String {
    let names: BTreeSet<&String> = reports.iter().flat_map(|(_, report)| report.programs.keys()).collect();
    let mut table = String::from("| instructions / verified |");
    table.extend(reports.iter().map(|(version, _)| format!(" {} |", short(version))));
    table.push_str("\n|---|");
    table.push_str(&"---|".repeat(reports.len()));
    for name in names {
        let cell = |(_, report): &(String, Report)| match report.programs.get(name) {
            Some((instructions, Some(verified))) => format!(" {instructions} / {verified} |"),
            Some((instructions, None)) => format!(" {instructions} / - |"),
            None => " not needed |".to_owned(),
        };
        table.extend(["\n| `", name, "` |"]);
        table.extend(reports.iter().map(cell));
    }
    table.push('\n');
    table
}

fn print_table(reports: &[(String, Report)]) {
    let names: BTreeSet<&String> = reports.iter().flat_map(|(_, report)| report.tests.keys()).collect();
    let width = names.iter().map(|name| name.len()).max().unwrap_or(0);
    let head: Vec<String> = reports.iter().map(|(version, _)| format!("{:>9}", short(version))).collect();
    println!("{:width$} {}", "", head.join(" "));
    for name in names {
        let cell = |report: &Report| match report.tests.get(name) {
            Some(true) => "ok",
            Some(false) => "FAILED",
            None => "-",
        };
        let cells: Vec<String> = reports.iter().map(|(_, report)| format!("{:>9}", cell(report))).collect();
        println!("{name:width$} {}", cells.join(" "));
    }
}

/// Finds QEMU, or installs it.
fn qemu(workspace: &Workspace) -> Result<()> {
    if program_path("qemu-system-x86_64").is_none() {
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        if release.contains("VERSION_CODENAME=bookworm") {
            let directory = workspace.target_dir()?.join("vm/qemu-apt");
            let config = apt_config(&directory, &QEMU_SUITES)?;
            let setting = format!("APT_CONFIG={}", config.display());
            println!("xtask: installing qemu-system-x86 from bookworm-backports");
            let get = |args: &[&str]| -> Result<()> {
                let env =
                    workspace.as_root("env")?.args([&*setting, "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
                Ok(env.args(["-qq"]).args(args).quiet().run()?)
            };
            get(&["update"])?;
            let install =
                ["install", "-y", "--no-install-recommends", "--no-remove", "-t", "bookworm-backports"];
            get(&[&install[..], &["qemu-system-x86"]].concat())?;
        } else {
            apt::install(workspace, &["qemu-system-x86"])?;
        }
    }
    let wanted = ["xz", "dpkg-deb", "apt-get", "apt-cache", "ldd"];
    if let Some(missing) = wanted.iter().find(|program| program_path(program).is_none()) {
        bail!("there is no {missing}: kernels come from Debian's archive, by Debian's programs");
    }
    Ok(())
}

/// What the guest runs.
struct Programs {
    init: PathBuf,
    live: PathBuf,
    tcptrace: PathBuf,
}

fn build(workspace: &Workspace) -> Result<Programs> {
    let sh = &workspace.sh;
    cmd!(sh, "cargo build --quiet --package xtask --bin vm-init").run()?;
    let told = cmd!(sh, "cargo test --quiet --package tcptrace --test live --no-run --message-format json")
        .read()?;
    // An object for each artifact; the test program is the one with an executable whose target is `live`.
    let executable = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let live = message["target"]["name"] == "live";
        message["executable"].as_str().filter(|_| live).map(str::to_owned)
    };
    let live = told.lines().find_map(executable).context("cargo did not say where the live tests are")?;
    let debug = workspace.target_dir()?.join("debug");
    Ok(Programs { init: debug.join("vm-init"), live: live.into(), tcptrace: debug.join("tcptrace") })
}

/// Debian's archive, by an apt of its own: what is installed here is not touched.
struct Archive<'a> {
    workspace: &'a Workspace,
    directory: PathBuf,
    config: PathBuf,
    /// Names of kernel packages.
    packages: Vec<String>,
}

impl<'a> Archive<'a> {
    fn open(workspace: &'a Workspace, directory: &Path) -> Result<Self> {
        let config = apt_config(&directory.join("apt"), &SUITES)?;
        let mut archive = Self { workspace, directory: directory.to_owned(), config, packages: Vec::new() };
        let sh = &workspace.sh;
        if let Err(error) = cmd!(sh, "apt-get update -qq").env("APT_CONFIG", &archive.config).quiet().run() {
            eprintln!(
                "xtask: the archive cannot be read ({error}): kernels that were downloaded before will do"
            );
        }
        let found = cmd!(sh, "apt-cache search -n ^linux-(image|binary|modules)-[0-9].*-cloud-amd64$")
            .env("APT_CONFIG", &archive.config)
            .quiet()
            .read()?;
        archive.packages =
            found.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
        Ok(archive)
    }

    /// The newest kernel of a series (`6.12`, or `7` for any 7.x).
    fn newest(&self, series: &str) -> Result<Kernel> {
        let version = |package: &String| {
            let bare = package.strip_prefix("linux-image-").or(package.strip_prefix("linux-binary-"))?;
            let version = bare.strip_suffix("-cloud-amd64")?;
            let rest = version.strip_prefix(series)?;
            rest.starts_with('.').then(|| version.to_owned())
        };
        let newest = self.packages.iter().filter_map(version).max_by_key(|version| numbers(version));
        let version = newest.with_context(|| format!("Debian has no kernel of the series {series}"))?;
        let directory = self.directory.join("kernels").join(&version);
        if !directory.join("complete").exists() {
            self.download(&version, &directory)?;
        }
        let modules = MODULES.iter().enumerate().map(|(at, name)| directory.join(format!("{at}-{name}.ko")));
        Ok(Kernel {
            image: directory.join("vmlinuz"),
            modules: modules.filter(|module| module.exists()).collect(),
            version,
        })
    }

    fn download(&self, version: &str, directory: &Path) -> Result<()> {
        let sh = &self.workspace.sh;
        let unpacked = directory.join("unpacked");
        fs::create_dir_all(&unpacked)?;
        // Images moved to linux-binary-*, modules to linux-modules-*; the older packages have both.
        let wanted = ["binary", "modules", "image"].map(|part| format!("linux-{part}-{version}-cloud-amd64"));
        for name in wanted.iter().filter(|name| self.packages.contains(name)) {
            let _directory = sh.push_dir(directory);
            cmd!(sh, "apt-get download -qq {name}").env("APT_CONFIG", &self.config).quiet().run()?;
        }
        for package in
            files(directory)?.iter().filter(|path| path.extension().is_some_and(|end| end == "deb"))
        {
            cmd!(sh, "dpkg-deb --extract {package} {unpacked}").quiet().run()?;
            fs::remove_file(package)?;
        }
        let all = all_files(&unpacked)?;
        let named = |start: &str| {
            let is_it = |path: &&PathBuf| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start))
            };
            all.iter().find(is_it).cloned()
        };
        let image =
            named("vmlinuz").with_context(|| format!("there is no image in the packages of {version}"))?;
        fs::copy(image, directory.join("vmlinuz"))?;
        for (at, name) in MODULES.iter().enumerate() {
            let to = directory.join(format!("{at}-{name}.ko"));
            if let Some(plain) = named(&format!("{name}.ko")) {
                if plain.extension().is_some_and(|end| end == "xz") {
                    let mut unpack =
                        Command::new("xz").arg("-dc").arg(&plain).stdout(fs::File::create(&to)?).spawn()?;
                    if !unpack.wait()?.success() {
                        bail!("{} cannot be unpacked", plain.display());
                    }
                } else {
                    fs::copy(plain, to)?;
                }
            }
        }
        fs::remove_dir_all(unpacked)?;
        Ok(fs::write(directory.join("complete"), "")?)
    }
}

/// A configuration by which apt reads these suites, and nothing of this host's but what is installed.
fn apt_config(directory: &Path, suites: &[(&str, &str)]) -> Result<PathBuf> {
    for below in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(directory.join(below))?;
    }
    let key = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let line = |(archive, suite): &(&str, &str)| {
        format!("deb [arch=amd64 signed-by={key}] http://deb.debian.org/{archive} {suite} main\n")
    };
    fs::write(directory.join("sources.list"), suites.iter().map(line).collect::<String>())?;
    let config = directory.join("apt.conf");
    let at = directory.display();
    fs::write(
        &config,
        format!(
            "Dir::Etc::sourcelist \"{at}/sources.list\";\nDir::Etc::sourceparts \"-\";\nDir::State::Lists \"{at}/lists\";\n\
             Dir::Cache \"{at}/cache\";\nAPT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n"
        ),
    )?;
    Ok(config)
}

/// The numbers in a version, for comparing.
fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    Ok(fs::read_dir(directory)?
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .map(|entry| entry.path())
        .collect())
}

fn all_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in files(directory)? {
        if path.is_dir() && !path.is_symlink() {
            found.extend(all_files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

/// The initramfs.
fn pack(kernel: &Kernel, programs: &Programs, tests: &[&str]) -> Result<Vec<u8>> {
    let mut archive = Cpio::default();
    archive.file("/init", 0o755, &fs::read(&programs.init)?);
    for module in &kernel.modules {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        archive.file(&format!("/modules/{name}"), 0o644, &fs::read(module)?);
    }
    let live = "/live";
    archive.file(live, 0o755, &stripped(&programs.live)?);
    // The tests know it by its path.
    let tcptrace = programs.tcptrace.to_string_lossy();
    archive.file(&tcptrace, 0o755, &stripped(&programs.tcptrace)?);
    let skipped = NOT_THERE.iter().flat_map(|test| ["--skip", test]);
    let tests: Vec<&str> =
        [live, "--color", "never"].into_iter().chain(tests.iter().copied()).chain(skipped).collect();
    let commands: [&[&str]; 3] =
        [&["ip", "link", "set", "lo", "up"], &[&*tcptrace, "probes", "-o", "json"], &tests];
    let commands = commands.map(|words| words.join("\n") + "\n");
    archive.file("/commands", 0o644, commands.join("\n").as_bytes());

    let mut libraries = BTreeSet::new();
    for program in [&programs.init, &programs.live, &programs.tcptrace] {
        libraries.extend(libraries_of(program)?);
    }
    for name in PROGRAMS {
        if let Some(program) = program_path(name) {
            libraries.extend(libraries_of(&program)?);
            archive.file(&format!("/bin/{name}"), 0o755, &fs::read(&program)?);
        }
    }
    for library in libraries {
        archive.file(&library.to_string_lossy(), 0o755, &fs::read(&library)?);
    }
    for terminal in ["x/xterm-256color", "s/screen", "t/tmux-256color", "s/screen-256color", "l/linux"] {
        for place in ["/lib/terminfo", "/usr/share/terminfo"] {
            if let Ok(description) = fs::read(format!("{place}/{terminal}")) {
                archive.file(&format!("/lib/terminfo/{terminal}"), 0o644, &description);
                break;
            }
        }
    }
    archive.file("/etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\n");
    archive.file("/etc/group", 0o644, b"root:x:0:\n");
    Ok(archive.finish())
}

/// The program without what is only for debuggers: it has to be loaded whole.
fn stripped(program: &Path) -> Result<Vec<u8>> {
    let to = program.with_extension("stripped");
    let done = Command::new("strip").args(["--strip-debug", "-o"]).arg(&to).arg(program).status();
    let bytes = match done {
        Ok(status) if status.success() => fs::read(&to)?,
        _ => fs::read(program)?,
    };
    let _ = fs::remove_file(to);
    Ok(bytes)
}

/// The libraries that the loader would load, and the loader.
fn libraries_of(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(program).output().context("cannot run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    // `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)`, and the loader without an arrow.
    let path = |line: &str| {
        let after = line.split_once("=>").map_or(line, |(_, path)| path);
        after.split_whitespace().next().filter(|path| path.starts_with('/')).map(PathBuf::from)
    };
    Ok(text.lines().filter_map(path).collect())
}

/// An archive in the format of the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
#[derive(Default)]
struct Cpio {
    bytes: Vec<u8>,
    directories: BTreeSet<String>,
    entries: u32,
}

impl Cpio {
    fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        let path = path.trim_start_matches('/');
        for (at, _) in path.match_indices('/') {
            if self.directories.insert(path[..at].to_owned()) {
                self.entry(&path[..at], 0o040_755, &[]);
            }
        }
        self.entry(path, 0o100_000 | mode, content);
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let (name, size) = (path.len() + 1, content.len());
        let fields = [self.entries as usize, mode as usize, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0]
            .map(|field| format!("{field:08x}"));
        self.bytes.extend_from_slice(b"070701");
        self.bytes.extend_from_slice(fields.concat().as_bytes());
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

/// Boots, and listens until the machine is off. A machine that dies before its first process proves nothing about us and is booted
/// once more, said aloud; without KVM, if that was to blame.
fn boot(kernel: &Kernel, initramfs: &Path, accelerator: &mut &'static str) -> Result<Report> {
    let mut attempt = 1;
    loop {
        let report = boot_once(kernel, initramfs, accelerator)?;
        if report.begun || attempt == 3 {
            return Ok(report);
        }
        println!(
            "xtask: {} under {accelerator} died before its first process; it is booted again",
            kernel.version
        );
        *accelerator = EMULATION;
        attempt += 1;
    }
}

fn boot_once(kernel: &Kernel, initramfs: &Path, accelerator: &str) -> Result<Report> {
    let mut machine = Machine(
        Command::new("qemu-system-x86_64")
            .args(["-accel", accelerator, "-cpu", "max", "-smp", "2", "-m", "2048", "-kernel"])
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(initramfs)
            .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off"])
            .args(["-nographic", "-no-reboot", "-net", "none"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .context("cannot run qemu-system-x86_64")?,
    );
    let lines = lines_of(machine.0.stdout.take().context("no console")?);
    let started = Instant::now();
    let patience = if accelerator == KVM { KVM_PATIENCE } else { PATIENCE };
    let mut deadline = started + patience;
    let mut report = Report::default();
    while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        if line.contains("vm-init: begun") {
            report.begun = true;
            deadline = started + PATIENCE;
        }
        if let Some((name, instructions)) = program_of(&line) {
            report.programs.insert(name, instructions);
        }
        if let Some((name, passed)) = result_of(&line) {
            println!("xtask: {}: {name}: {}", kernel.version, if passed { "ok" } else { "FAILED" });
            report.tests.insert(name, passed);
        }
        if let Some(code) = line.trim().strip_prefix("vm-init: ended with ") {
            report.ended = Some(code.to_owned());
        }
        report.console.push(line);
    }
    if Instant::now() >= deadline && report.begun {
        println!("xtask: {} has not ended after {PATIENCE:?}", kernel.version);
    }
    Ok(report)
}

/// A machine that ends with this program.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn lines_of(console: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut console = BufReader::new(console);
        let mut line = Vec::new();
        while console.by_ref().read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if sender.send(text).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The name of a test, and whether it passed, from a line of libtest's.
fn result_of(line: &str) -> Option<(String, bool)> {
    let (name, result) = line.strip_prefix("test ")?.split_once(" ... ")?;
    match result.trim() {
        "ok" => Some((name.to_owned(), true)),
        "FAILED" => Some((name.to_owned(), false)),
        _ => None,
    }
}

/// The name of a program and its instructions, from a line of `tcptrace probes -o json`.
fn program_of(line: &str) -> Option<(String, (u64, Option<u64>))> {
    let line: Value = serde_json::from_str(line.trim()).ok()?;
    let instructions = line["insns"].as_u64().filter(|_| line["kind"] == "probe")?;
    Some((line["name"].as_str()?.to_owned(), (instructions, line["verified_insns"].as_u64())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_the_newest_by_number() {
        let mut versions = vec!["6.12.9+deb13", "6.12.117+deb13", "6.12.48+deb13"];
        versions.sort_by_key(|version| numbers(version));
        assert_eq!(versions, ["6.12.9+deb13", "6.12.48+deb13", "6.12.117+deb13"]);
    }

    #[test]
    fn results_are_read() {
        assert_eq!(result_of("test close::a ... ok"), Some(("close::a".to_owned(), true)));
        assert_eq!(result_of("test close::b ... FAILED"), Some(("close::b".to_owned(), false)));
        for line in ["test x ... ignored", "test result: ok. 1 passed", "", "a test b ... ok"] {
            assert_eq!(result_of(line), None, "{line}");
        }
    }

    #[test]
    fn programs_are_read_and_recorded() {
        let line = r#"{"attached":true,"insns":7,"kind":"probe","name":"a","verified_insns":9}"#;
        assert_eq!(program_of(line), Some(("a".to_owned(), (7, Some(9)))));
        assert_eq!(program_of(r#"{"attached":false,"kind":"probe","name":"a"}"#), None);
        let text = format!("before\n{}old\n{}after\n", RECORD.0, RECORD.1);
        let expected = format!("before\n{}new\n{}after\n", RECORD.0, RECORD.1);
        assert_eq!(recorded(&text, "new\n"), Some(expected));
        assert_eq!(recorded("no marks", "new"), None);
    }

    #[test]
    fn an_archive_has_each_directory_once() {
        let mut archive = Cpio::default();
        archive.file("/a/b/c", 0o644, b"12345");
        archive.file("/a/b/d", 0o644, b"");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let heads = bytes.windows(6).filter(|window| *window == b"070701").count();
        // a, a/b, a/b/c, a/b/d, TRAILER!!!
        assert_eq!(heads, 5);
    }
}
