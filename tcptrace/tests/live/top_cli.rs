//! `tcptrace top` on a real terminal, that of tmux: keys are sent, and the screen is read.

use std::{
    net::TcpStream,
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    netns::{Netns, scenario},
    process::await_that,
    tcp::{close_in_order, connect, pair, read_to_end},
};

/// A tmux server of its own with one window, in which tcptrace runs. Gone with the value.
struct Terminal {
    socket: String,
}

impl Terminal {
    /// Starts `top` in a window of 80 columns and 24 rows. When it ends the window says so.
    fn start(net: &Netns, args: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let terminal = Self { socket: format!("tcptrace-test-{}-{number}", std::process::id()) };
        let program = env!("CARGO_BIN_EXE_tcptrace");
        // What comes after holds the window open, and shows what became of the terminal.
        let script = format!(
            "{program} top -N {} {args}; echo ended with $?; stty -a | tr ' ;' '\\n' | grep icanon; cat",
            net.inode()
        );
        let out = terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", &script]);
        assert!(out.status.success(), "the live tests need tmux: {out:?}");
        terminal
    }

    fn tmux(&self, args: &[&str]) -> Output {
        let mut command = Command::new("tmux");
        command.args(["-L", &self.socket]).args(args).env_remove("TMUX").env("TERM", "xterm-256color");
        command.output().expect("the live tests need tmux")
    }

    fn screen(&self) -> String {
        String::from_utf8(self.tmux(&["capture-pane", "-p"]).stdout).unwrap()
    }

    fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// Waits until the screen satisfies a predicate, and returns it.
    fn until(&self, what: &str, mut holds: impl FnMut(&str) -> bool) -> String {
        let mut screen = String::new();
        await_that(&format!("{what} on the screen of top"), || {
            screen = self.screen();
            holds(&screen)
        });
        screen
    }

    /// tcptrace's process: what the window's shell runs.
    fn pid(&self) -> Pid {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]).stdout;
        let shell = String::from_utf8(shell).unwrap();
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", shell.trim())).unwrap();
        Pid::from_raw(children.split_whitespace().next().unwrap().parse().unwrap()).unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

/// The row of a port: its cells.
fn row(screen: &str, port: u16) -> Option<Vec<String>> {
    let head: Vec<&str> = screen.lines().nth(2)?.split_whitespace().collect();
    let line = screen.lines().find(|line| line.split_whitespace().next() == Some(&port.to_string()))?;
    let cells: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    (head.len() <= cells.len()).then_some(cells)
}

/// The cell of a column.
fn cell(screen: &str, port: u16, column: &str) -> Option<String> {
    let at = screen.lines().nth(2)?.split_whitespace().position(|name| name == column)?;
    row(screen, port)?.get(at).cloned()
}

#[test]
fn pages_and_keys() {
    scenario(|net| {
        let listener = pair().listener;
        let port = listener.local_addr().unwrap().port();
        let leaked: Vec<TcpStream> = (0..7)
            .map(|_| {
                let (client, server) = connect(&listener);
                drop(client);
                assert_eq!(read_to_end(&server), b"");
                server
            })
            .collect();
        let top = Terminal::start(net, "");
        let screen =
            top.until("seven in CLOSE_WAIT", |screen| cell(screen, port, "CLOSEW").as_deref() == Some("7"));
        assert!(screen.contains("lost 0"), "{screen}");
        assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");

        // The stream, and a connection's own page.
        let (client, server) = connect(&listener);
        let client_port = client.local_addr().unwrap().port();
        close_in_order(client, server);
        top.press("4");
        top.until("the stream", |screen| screen.contains("-> TIME_WAIT"));
        top.press("/");
        for c in client_port.to_string().chars() {
            top.press(&c.to_string());
        }
        top.until("the filter", |screen| screen.contains(&format!("/{client_port}_")));
        top.press("Enter");
        top.press("Enter");
        let screen = top.until("the connection", |screen| screen.contains("(ESTABLISHED)"));
        assert!(screen.contains(&client_port.to_string()) && screen.contains("live-scenario"), "{screen}");
        top.press("Escape");
        top.until("the stream again", |screen| screen.contains("WHAT"));
        top.press("Escape");
        top.until("no filter", |screen| !screen.contains(&format!("/{client_port}")));

        // The connections of a port, from the table.
        top.press("1");
        top.press("/");
        for c in port.to_string().chars() {
            top.press(&c.to_string());
        }
        top.press("Enter");
        top.until("the port alone", |screen| cell(screen, port, "CLOSEW").as_deref() == Some("7"));
        top.press("Home");
        top.press("Enter");
        top.until("its sockets", |screen| screen.contains("STATE") && screen.contains("CLOSE_WAIT"));

        top.press("?");
        top.until("help", |screen| screen.contains("filter as you type"));
        top.press("3");
        top.until("the ledger", |screen| screen.contains("nothing here has"));
        top.press("Escape");
        top.until("the ledger without a filter", |screen| screen.contains("no RST yet"));
        top.press("2");
        top.until("the owners", |screen| screen.contains("COMM"));
        top.press("Space");
        top.until("the pause", |screen| screen.contains("PAUSED"));

        // Another size.
        top.press("1");
        top.tmux(&["resize-window", "-x", "132", "-y", "40"]);
        top.until("more columns", |screen| screen.contains("OPEN/s") && screen.contains("COMM"));

        top.press("q");
        let screen = top.until("the end", |screen| screen.contains("ended with 0"));
        assert!(screen.contains("0 lost"), "{screen}");
        top.until("the terminal as it was", |screen| {
            screen.contains("icanon") && !screen.contains("-icanon")
        });
        drop(leaked);
    });
}

/// However it ends, the terminal is as it was.
#[test]
fn signals_give_the_terminal_back() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        scenario(|net| {
            let kept = pair();
            let top = Terminal::start(net, "");
            top.until("the first table", |screen| screen.contains("OWNER"));
            kill_process(top.pid(), signal).unwrap();
            let screen = top.until("the end", |screen| screen.contains("ended with 0"));
            assert!(!screen.contains("OWNER"), "{screen}");
            top.until("the terminal as it was", |screen| {
                screen.contains("icanon") && !screen.contains("-icanon")
            });
            drop(kept);
        });
    }
}

#[test]
fn colours_are_left_out_if_they_are_not_wanted() {
    scenario(|net| {
        let kept = pair();
        for (args, colored) in [("--color always", true), ("--color never", false)] {
            let top = Terminal::start(net, args);
            top.until("the first table", |screen| screen.contains("OWNER"));
            let escapes = String::from_utf8(top.tmux(&["capture-pane", "-p", "-e"]).stdout).unwrap();
            assert_eq!(escapes.contains("38;5;"), colored, "{escapes:?}");
        }
        drop(kept);
    });
}

/// Without a terminal it says what to do instead.
#[test]
fn no_terminal() {
    for args in [&["top"][..], &["top", "-o", "json"]] {
        let out = Command::new(env!("CARGO_BIN_EXE_tcptrace")).args(args).output().unwrap();
        let told = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(1));
        assert!(told.contains("why:") && told.contains("fix:") && told.contains("tcptrace hist 1"), "{told}");
    }
}
