//! `top` from recorded events, on a terminal that is memory.

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind},
};

use super::{
    report::{cgroups, counted, resets, sockets},
    *,
};
use crate::{
    model::{
        doctor::{Facts, Finding, Limits, facts::Namespace, judge},
        health::{Health, Sockstat, Sysctls},
        socket::Socket,
        tally::{By, Sort},
    },
    view::top::{Header, Refresh, Top},
};

const NOW_NS: u64 = START_NS + 2_000_000_000;

/// The view after all recorded events.
fn top() -> Top {
    let mut top = Top::new(clock(), false, cgroups());
    for event in events() {
        top.event(&event);
    }
    refresh(&mut top);
    top
}

/// What the model says a second later.
fn refresh(top: &mut Top) {
    let mut tally = counted(By::Port);
    let now_ns = NOW_NS;
    let ports = tally.table(sockets().into_iter(), top.sort(), 100, now_ns);
    let owners = tally.standing(By::Comm, sockets().into_iter(), Sort::Sockets, 100, now_ns);
    let header = Header {
        host: "web1".to_owned(),
        kernel: "6.18.44".to_owned(),
        rate: 1234,
        lost: 5,
        cpu_permille: 12,
        memory: 44 << 20,
    };
    let of_row: Vec<Socket> = match top.row() {
        Some(key) => tally.of_row(key, sockets().into_iter(), now_ns).take(30).collect(),
        None => Vec::new(),
    };
    let connection = top.connection().and_then(|id| tally.socket(id, sockets().into_iter(), now_ns));
    let findings = Some(findings());
    let sockets = of_row;
    top.refresh(Refresh { header, ports, owners, resets: resets(), findings, sockets, connection, now_ns });
}

/// Two findings, of a host that is given as facts.
fn findings() -> Vec<Finding> {
    let namespace = |orphans, pages| Namespace {
        latest: Health {
            sockstat: Sockstat { orphans, time_wait: 0, pages },
            sysctls: Sysctls(vec![("tcp_max_orphans", vec![1000]), ("tcp_mem", vec![100, 200, 300])]),
            ..Health::default()
        },
        ..Namespace::default()
    };
    judge(&Facts { namespaces: vec![namespace(900, 310)], ..Facts::default() }, &Limits::default())
}

fn press(top: &mut Top, keys: &str) {
    for c in keys.chars() {
        let code = match c {
            '\n' => KeyCode::Enter,
            '\t' => KeyCode::Tab,
            '\u{1b}' => KeyCode::Esc,
            'v' => KeyCode::Down,
            '^' => KeyCode::Up,
            c => KeyCode::Char(c),
        };
        top.key(KeyEvent::new(code, KeyModifiers::NONE));
    }
}

fn screen(top: &mut Top, columns: u16, rows: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| top.draw(frame)).unwrap();
    terminal.backend().to_string()
}

/// The page after these keys, at three sizes.
fn page(keys: &str) -> String {
    let mut text = String::new();
    for (columns, rows) in [(80, 24), (132, 40), (60, 14)] {
        let mut top = top();
        press(&mut top, keys);
        refresh(&mut top);
        text.push_str(&screen(&mut top, columns, rows));
        text.push('\n');
    }
    text
}

#[test]
fn ports() {
    insta::assert_snapshot!(page(""));
}

#[test]
fn owners() {
    insta::assert_snapshot!(page("2"));
}

#[test]
fn the_ledger() {
    insta::assert_snapshot!(page("3v"));
}

#[test]
fn the_stream() {
    insta::assert_snapshot!(page("4v"));
}

#[test]
fn what_is_wrong() {
    insta::assert_snapshot!(page("5v"));
}

#[test]
fn the_connections_of_a_port() {
    insta::assert_snapshot!(page("\n"));
}

/// The connection whose RST was the last, and its way.
#[test]
fn a_connection() {
    insta::assert_snapshot!(page("4/LAST_ACK\n\n"));
}

#[test]
fn help() {
    insta::assert_snapshot!(page("?"));
}

#[test]
fn a_filter_while_it_is_typed() {
    let mut top = top();
    press(&mut top, "/php");
    let typed = screen(&mut top, 80, 24);
    assert!(typed.contains("/php_") && typed.contains("php-fpm"), "{typed}");
    assert!(!typed.contains("nginx/4123"), "{typed}");
    // A letter that is a command elsewhere is text here.
    press(&mut top, "q");
    assert!(!top.over() && screen(&mut top, 80, 24).contains("/phpq_"));
    press(&mut top, "\u{1b}");
    assert!(screen(&mut top, 80, 24).contains("nginx/4123"));
}

#[test]
fn the_order_changes_at_once() {
    let mut top = top();
    let place = |top: &mut Top, text: &str| {
        let screen = screen(top, 100, 24);
        screen.lines().position(|line| line.contains(text)).unwrap()
    };
    assert!(place(&mut top, "nginx/4123") < place(&mut top, "php-fpm8.2/5000"));
    // Backwards from `sockets` is `port`, then the age of CLOSE_WAIT, then RSTs.
    press(&mut top, "S");
    assert_eq!(top.sort(), Sort::Port);
    assert!(screen(&mut top, 100, 24).contains("by port"));
    press(&mut top, "ss");
    assert_eq!(top.sort(), Sort::State(State::CLOSE_WAIT));
}

/// While it is paused the screen stands still, but for what says that tcptrace is well.
#[test]
fn a_pause() {
    let mut top = top();
    press(&mut top, "4 ");
    let before = screen(&mut top, 80, 24);
    assert!(before.contains("PAUSED"), "{before}");
    assert!(!top.follows_events());
    top.event(&transition(3_000_000, State::ESTABLISHED, State::FIN_WAIT1));
    refresh(&mut top);
    assert_eq!(screen(&mut top, 80, 24), before);
    press(&mut top, " ");
    assert_ne!(screen(&mut top, 80, 24), before);
}

#[test]
fn the_mouse() {
    let mut top = top();
    screen(&mut top, 80, 24);
    let click = |top: &mut Top, column, row| {
        let kind = MouseEventKind::Down(MouseButton::Left);
        top.mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE });
        screen(top, 80, 24)
    };
    // The second row; once more opens it.
    click(&mut top, 5, 4);
    assert_eq!(top.row(), None);
    click(&mut top, 5, 4);
    assert!(top.row().is_some());
    // The name of a page.
    assert!(click(&mut top, 22, 1).contains("REASON"));
    assert_eq!(top.row(), None);
    top.mouse(MouseEvent {
        kind: MouseEventKind::ScrollDown,
        column: 0,
        row: 9,
        modifiers: KeyModifiers::NONE,
    });
    screen(&mut top, 80, 24);
}

#[test]
fn ctrl_c_ends_it() {
    let mut top = top();
    top.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
    assert!(top.over());
}

/// Whatever the keys and whatever the size, it draws.
#[test]
fn no_size_and_no_key_is_too_much() {
    for (columns, rows) in [(1, 1), (2, 3), (10, 5), (300, 100), (80, 2)] {
        let mut top = top();
        for key in "v\n\u{1b}12\t3v\n4v\n\n?v^\n\u{1b}5v1sssssss/x\n".chars() {
            press(&mut top, &key.to_string());
            refresh(&mut top);
            screen(&mut top, columns, rows);
        }
    }
}

/// Without colours none is written, and what they told is told by letters and marks as well.
#[test]
fn colours_only_where_they_are_wanted() {
    for color in [false, true] {
        let mut top = Top::new(clock(), color, cgroups());
        refresh(&mut top);
        let mut terminal = Terminal::new(TestBackend::new(100, 24)).unwrap();
        terminal.draw(|frame| top.draw(frame)).unwrap();
        let cells = &terminal.backend().buffer().content;
        let colored = cells.iter().any(|cell| cell.fg != ratatui::style::Color::Reset);
        assert_eq!(colored, color);
    }
}
