//! `--from`: what views make of recordings that are kept here, one of each version of the schema, and which files they
//! refuse. Needs no root.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    fs,
    io::{self, BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// One namespace, recorded for half a second: a listener and a connection that were there before, orderly ends, RSTs of
/// three kinds, a half-closed connection, IPv6.
const V1: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings/v1.parquet");

/// A folder of a test's own, gone at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tcptrace-from-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A test that failed has its own message.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Exit status, stdout, stderr.
fn tcptrace(args: &[&str], from: &Path) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
    let command = command.args(args).arg("--from").arg(from).env("COLUMNS", "200").env("TZ", "UTC");
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn shown(args: &[&str], from: &Path) -> String {
    let (status, stdout, stderr) = tcptrace(args, from);
    assert_eq!(status, Some(0), "{stderr}");
    stdout
}

/// The line that says why, after the one that names the file.
#[track_caller]
fn refused(from: &Path) -> String {
    let (status, stdout, stderr) = tcptrace(&["hist"], from);
    assert_eq!((status, stdout.as_str()), (Some(1), ""), "{stderr}");
    let lines: Vec<&str> = stderr.lines().collect();
    let [what, why, fix] = lines[..] else { panic!("three lines: {stderr}") };
    assert!(what.contains("cannot read") && what.contains(&*from.to_string_lossy()), "{what}");
    assert!(fix.starts_with("fix: "), "{fix}");
    why.to_owned()
}

#[test]
fn the_first_version_is_read() {
    let v1 = Path::new(V1);
    insta::assert_snapshot!("v1_trace", shown(&["trace", "-o", "json"], v1));
    insta::assert_snapshot!("v1_conns", shown(&["conns", "-o", "json"], v1));
    insta::assert_snapshot!("v1_hist", shown(&["hist", "-o", "json"], v1));
    insta::assert_snapshot!("v1_rst", shown(&["rst", "-o", "json"], v1));
}

#[test]
fn formats_and_flags_are_those_of_the_live_views() {
    let v1 = Path::new(V1);
    insta::assert_snapshot!("text_of_conns", shown(&["conns", "--cause", "peer_rst"], v1));
    insta::assert_snapshot!("text_of_hist", shown(&["hist", "0.1", "3", "-L", "8080"], v1));
    insta::assert_snapshot!("csv_of_trace", shown(&["trace", "-o", "csv", "-6", "-T"], v1));
    assert_eq!(shown(&["trace", "--no-header", "-c", "5"], v1).lines().count(), 5);
    // Seconds since the start come first.
    let all = shown(&["trace", "--no-header"], v1);
    let tenth: f64 = all.lines().nth(9).unwrap().split(' ').next().unwrap().parse().unwrap();
    let part = shown(&["trace", "--no-header", "-d", &format!("{}ms", (tenth * 1e3).ceil())], v1);
    assert!((10..all.lines().count()).contains(&part.lines().count()) && all.starts_with(&part), "{part}");
    // Time ends with the recording, however long it might be looked at.
    let totals = |time| shown(&["hist", "0.1", "-o", "csv", "-d", time], v1);
    assert_eq!(totals("1h"), shown(&["hist", "0.1", "-o", "csv"], v1));
    assert!(totals("200ms").lines().count() < totals("1h").lines().count());
    // What was open when it began.
    let open = shown(&["conns", "--live", "--no-header", "-o", "csv"], v1).lines().count();
    assert_eq!(open, shown(&["conns", "--no-header", "-o", "csv"], v1).lines().count() + 2);
}

/// A recording that says the same in lines of JSON gives the same answers.
#[test]
fn lines_of_json_say_the_same() {
    let folder = Folder::new("json");
    let v1 = Path::new(V1);
    for command in ["trace", "conns"] {
        let lines = shown(&[command, "-o", "json"], v1);
        let file = folder.write(command, lines.as_bytes());
        let events =
            |text: &str| text.lines().filter(|line| !line.contains("summary")).map(str::to_owned).collect();
        let (before, after): (Vec<String>, Vec<String>) =
            (events(&lines), events(&shown(&[command, "-o", "json"], &file)));
        assert_eq!(before, after);
    }
    // Those that were open come first, as they did live.
    let open = shown(&["conns", "--live", "-o", "json"], v1);
    let file = folder.write("open", open.as_bytes());
    let again = shown(&["conns", "--live", "-o", "json"], &file);
    let connections = |text: &str| text.lines().filter(|line| !line.contains("summary")).count();
    assert_eq!(connections(&again), connections(&open));
    let rows = |from: &Path| -> Vec<serde_json::Value> {
        let text = shown(&["rst", "-o", "json"], from);
        let rows = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let mut rows: Vec<_> = rows.filter(|row| row["kind"] == "rst").collect();
        for row in &mut rows {
            // The time of lines of JSON begins with the first, and ends with the last.
            for time in ["ts", "interval_us"] {
                row.as_object_mut().unwrap().remove(time);
            }
        }
        rows
    };
    assert_eq!(rows(v1), rows(&folder.0.join("trace")));
    assert_eq!(rows(v1).len(), 6);
}

/// A recording with a long gap: whoever wants tables of all of it can still stop it, and reads them meanwhile.
#[test]
fn a_gap_can_be_left() {
    let folder = Folder::new("gap");
    let line = |year| {
        format!(
            "{{\"ts\":\"{year}-01-01T00:00:00.000000000Z\",\"kind\":\"rst_sent\",\"laddr\":\"127.0.0.1\",\"lport\":1}}\n"
        )
    };
    let file = folder.write("gap", (line(2000) + &line(2200)).as_bytes());
    let mut command = Command::new(env!("CARGO_BIN_EXE_tcptrace"));
    let command = command.args(["hist", "0.1", "--no-header", "--from"]).arg(file);
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut tables = BufReader::new(child.stdout.take().unwrap());
    for _ in 0..100 {
        assert!(tables.read_line(&mut String::new()).unwrap() > 0);
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
        .unwrap();
    // It ends with what it has told.
    io::copy(&mut tables, &mut io::sink()).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_damaged_file_is_refused_by_name() {
    let folder = Folder::new("damaged");
    let whole = fs::read(V1).unwrap();
    // Cut off anywhere.
    for length in [4, 1_000, whole.len() / 2, whole.len() - 1] {
        let why = refused(&folder.write("cut.parquet", &whole[..length]));
        assert!(why.contains("damaged"), "{length}: {why}");
    }
    // Any byte of it another one: the data, their index, the footer. What nobody reads may be damaged.
    let answer = shown(&["trace", "-o", "json"], Path::new(V1));
    let mut seen = 0;
    for at in (0..whole.len()).step_by(97) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        let flipped = folder.write("flipped.parquet", &bytes);
        let (status, stdout, stderr) = tcptrace(&["trace", "-o", "json"], &flipped);
        if status == Some(1) {
            assert!(stderr.contains("flipped.parquet") && stdout.is_empty(), "{at}: {stderr}");
            seen += 1;
        } else {
            assert_eq!((status, &stdout), (Some(0), &answer), "{at}: {stderr}");
        }
    }
    assert!(seen > 50, "{seen} damages were seen");
}

/// Beside whole ones it is named, too, and nothing of it is shown: one that is cut off before anything else is, one whose
/// data are others when its turn comes.
#[test]
fn a_damaged_file_among_others() {
    let folder = Folder::new("damaged-later");
    let whole = fs::read(V1).unwrap();
    folder.write("a.parquet", &whole);
    let cut = folder.write("b.parquet", &whole[..whole.len() / 2]);
    let (status, stdout, stderr) = tcptrace(&["trace"], &folder.0);
    assert_eq!((status, stdout.as_str()), (Some(1), ""));
    assert!(stderr.contains("b.parquet"), "{stderr}");
    fs::remove_file(cut).unwrap();
    let mut bytes = whole;
    bytes[1_000] ^= 0x10;
    folder.write("c.parquet", &bytes);
    let (status, stdout, stderr) = tcptrace(&["trace"], &folder.0);
    assert_eq!(status, Some(1));
    assert!(stderr.contains("c.parquet") && stderr.contains("damaged"), "{stderr}");
    let first = shown(&["trace"], Path::new(V1));
    assert!(!stdout.is_empty() && first.starts_with(&stdout), "{stdout}");
}

#[test]
fn a_foreign_file_is_refused_by_name() {
    let folder = Folder::new("foreign");
    let cases: [(&str, &[u8], &str); 5] = [
        ("empty", b"", "it is empty"),
        ("text", b"hello\n", "line 1 is no event of tcptrace's"),
        ("json", b"{\"a\":1}\n", "line 1 is no event of tcptrace's"),
        ("binary", b"\x7fELF\x02\x01\x01\0\0\xff\xfe\n", ""),
        (
            "state",
            b"{\"ts\":\"2026-01-01T00:00:00.000000000Z\",\"kind\":\"transition\",\"old\":\"CLOSE\",\"new\":\"ASLEEP\"}\n",
            "its new, \"ASLEEP\", makes no sense",
        ),
    ];
    for (name, bytes, expected) in cases {
        let why = refused(&folder.write(name, bytes));
        assert!(why.starts_with("why: ") && why.contains(expected), "{name}: {why}");
    }
    assert!(refused(Path::new("/nonexistent/recording")).contains("No such file"));
    // What has no end, and what nobody may ever write to.
    let fifo = folder.0.join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
    for path in [&fifo, Path::new("/dev/zero")] {
        assert!(refused(path).contains("it is no regular file"));
    }
    let line = "{\"ts\":\"2026-01-01T00:00:00.000000000Z\",\"kind\":\"rst_sent\"}\n";
    let long = [line, "{", &"x".repeat(1 << 20)].concat();
    let why = refused(&folder.write("long", long.as_bytes()));
    assert!(why.contains("line 2: it is longer than 1 MiB"), "{why}");
    let (_, _, stderr) = tcptrace(&["hist"], folder.write("none/notes/.hidden", b"x").parent().unwrap());
    assert!(stderr.contains("it holds no recording"), "{stderr}");
}

/// A line that is cut off because its writer was killed is left out, and that is said.
#[test]
fn a_line_that_is_cut_off() {
    let folder = Folder::new("cut-line");
    let lines = shown(&["trace", "-o", "json"], Path::new(V1));
    let cut = folder.write("trace", &lines.as_bytes()[..lines.len() / 2]);
    let (status, stdout, stderr) = tcptrace(&["trace", "--no-header"], &cut);
    assert_eq!(status, Some(0), "{stderr}");
    assert_eq!(stdout.lines().count(), lines[..lines.len() / 2].lines().count() - 1);
    assert!(stderr.contains("cut off"), "{stderr}");
}

#[test]
fn what_a_recording_cannot_answer_is_said() {
    let folder = Folder::new("commands");
    let of = |command| folder.write(command, shown(&[command, "-o", "json"], Path::new(V1)).as_bytes());
    for (command, from, missing) in
        [("conns", of("trace"), "whole connections"), ("rst", of("conns"), "what happens to connections")]
    {
        let (status, _, stderr) = tcptrace(&[command], &from);
        assert_eq!(status, Some(1), "{stderr}");
        assert!(stderr.contains(&format!("cannot read {missing} from {}", from.display())), "{stderr}");
    }
    for (args, expected) in [
        (&["trace", "-N", "web"][..], "cannot look up network namespace web"),
        (&["doctor"], "doctor looks at a host that runs"),
        (&["serve"], "serve watches the kernel"),
        (&["record", "-O", "x"], "record watches the kernel"),
    ] {
        let (status, stdout, stderr) = tcptrace(args, Path::new(V1));
        assert_eq!((status, stdout.as_str()), (Some(1), ""));
        assert!(
            stderr.contains(expected) && stderr.contains("\nwhy: ") && stderr.contains("\nfix: "),
            "{stderr}"
        );
    }
}
