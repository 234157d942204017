//! Drawing.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line as Text, Span},
    widgets::Paragraph,
};

use super::{Line, Page, Top, line::end};
use crate::{
    model::{
        doctor::{Finding, Severity},
        event::{Kind, ip},
        socket::Socket,
        state::State,
        tally::{Key, Row, Sort, Table},
    },
    view::{
        cell, diagram,
        report::{
            Resets,
            table::{Column, lay_out},
            text,
        },
    },
};

/// Heights of a trend's column.
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Below so many rows, the page of ports has no room for the last transitions.
const ROOM_FOR_STREAM: u16 = 16;
/// From so many rows on, it has room for owners and RSTs, too.
const ROOM_FOR_ALL: u16 = 30;

const HELP: [&str; 17] = [
    " 1 2 3 4 5, Tab   ports, owners, RSTs, stream, findings",
    " Enter, ->        open: the connections of a port, one connection's page",
    " Esc, <-          back; Esc takes the filter away",
    " up down, j k     move; PgUp PgDn Home End",
    " s S              next, previous order of the rows",
    " /                filter as you type (port, owner, address, state); Enter ends",
    " space, p         pause: the screen stands still, counting goes on",
    " ? h              this page",
    " q, Ctrl-C        end",
    "",
    " 443              a service of this host",
    " to 5432          what a process of this host has open to others",
    " CW+/s CW_AGE     growth of CLOSE_WAIT, and the age of the oldest",
    " TREND            connections opened in each of the last seconds",
    " -                not known; a state's time is known if its beginning was seen",
    "",
    " The mouse selects, opens with a second click, and scrolls.",
];

/// Blue and orange are told apart by nearly everybody; nothing is told by colour alone.
const BLUE: Color = Color::Indexed(75);
const ORANGE: Color = Color::Indexed(208);

impl Top {
    /// Draws all of it.
    pub fn draw(&mut self, frame: &mut Frame<'_>) {
        let rows = Layout::vertical([Constraint::Length(1), Constraint::Length(1), Constraint::Min(0)]);
        let [header, tabs, body] = rows.areas(frame.area());
        self.header(frame, header);
        self.tabs(frame, tabs);
        self.list = (0, 0);
        match self.page.clone() {
            Page::Ports if body.height >= ROOM_FOR_ALL => {
                let constraints =
                    [Constraint::Fill(3), Constraint::Fill(1), Constraint::Fill(1), Constraint::Fill(2)];
                let [ports, owners, resets, stream] = Layout::vertical(constraints).areas(body);
                self.ports(frame, ports);
                self.owner_rows(frame, owners, false);
                self.reset_rows(frame, resets, false);
                self.last(frame, stream);
            }
            Page::Ports if body.height >= ROOM_FOR_STREAM => {
                let [ports, stream] =
                    Layout::vertical([Constraint::Percentage(60), Constraint::Fill(1)]).areas(body);
                self.ports(frame, ports);
                self.last(frame, stream);
            }
            Page::Ports => self.ports(frame, body),
            Page::Owners => self.owner_rows(frame, body, true),
            Page::Resets => self.reset_rows(frame, body, true),
            Page::Stream => self.stream_rows(frame, body),
            Page::Findings => self.finding_rows(frame, body),
            Page::Row(key) => self.socket_rows(frame, body, &key),
            Page::Connection(_) => self.one(frame, body),
            Page::Help => frame.render_widget(Paragraph::new(HELP.join("\n")), body),
        }
    }

    fn style(&self, color: Color) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new() }
    }

    fn header(&self, frame: &mut Frame<'_>, area: Rect) {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let Some(shown) = &self.shown else {
            frame.render_widget(Paragraph::new("tcptrace: looking at the sockets that exist"), area);
            return;
        };
        let header = &shown.header;
        let mut spans = vec![
            Span::styled(format!("tcptrace {}", header.host), bold.patch(self.style(BLUE))),
            Span::raw(format!("  {} ev/s", header.rate)),
        ];
        let lost = format!("  lost {}", header.lost);
        let alarm = bold.patch(self.style(ORANGE));
        spans.push(if header.lost > 0 { Span::styled(lost, alarm) } else { Span::raw(lost) });
        spans.push(Span::raw(format!(
            "  cpu {}.{}%  rss {}M",
            header.cpu_permille / 10,
            header.cpu_permille % 10,
            header.memory >> 20
        )));
        spans.push(Span::raw(format!("  {} sockets", shown.ports.total.total())));
        if self.held.is_some() {
            spans.push(Span::styled("  PAUSED", alarm));
        }
        spans.push(Span::raw(format!("  {}", header.kernel)));
        frame.render_widget(Paragraph::new(Text::from(spans)), area);
    }

    fn tabs(&mut self, frame: &mut Frame<'_>, area: Rect) {
        self.tabs.clear();
        let mut spans = Vec::new();
        let mut column = 0;
        let root = self.behind.first().unwrap_or(&self.page);
        let pages = [
            ("1 ports", Page::Ports),
            ("2 owners", Page::Owners),
            ("3 RSTs", Page::Resets),
            ("4 stream", Page::Stream),
            ("5 findings", Page::Findings),
        ];
        let findings = self.shown.iter().filter_map(|shown| shown.findings.as_ref());
        let found: usize = findings.map(Vec::len).sum();
        for (name, page) in &pages {
            let here = page == root;
            let found = if *page == Page::Findings { found } else { 0 };
            let style = if here { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
            let style = if found > 0 { style.patch(self.style(ORANGE)) } else { style };
            let text = if found > 0 { format!(" {name}: {found} ") } else { format!(" {name} ") };
            let width = u16::try_from(text.len()).unwrap_or(0);
            self.tabs.push((column, column + width));
            column += width;
            spans.push(Span::styled(text, style));
        }
        let sort = match self.sort() {
            Sort::Sockets => "sockets".to_owned(),
            Sort::State(state) => state.to_string(),
            Sort::Opened => "opened".to_owned(),
            Sort::Closed => "closed".to_owned(),
            Sort::Rst => "RSTs".to_owned(),
            Sort::Oldest => "age of CLOSE_WAIT".to_owned(),
            Sort::Port => "port".to_owned(),
        };
        spans.push(Span::raw(format!(" by {sort}  ")));
        if self.typing || !self.filter.is_empty() {
            let cursor = if self.typing { "_" } else { "" };
            let style = Style::new().add_modifier(Modifier::BOLD);
            spans.push(Span::styled(format!("/{}{cursor}  ", self.filter), style));
        }
        spans.push(Span::raw("? help  q quit"));
        frame.render_widget(Paragraph::new(Text::from(spans)), area);
    }

    /// Draws lines of a table with its heading; `marks` are the lines that stand out.
    fn list(
        &mut self,
        frame: &mut Frame<'_>,
        area: Rect,
        table: &(Vec<Column>, Vec<Vec<String>>),
        marks: impl Fn(usize) -> bool,
        selectable: bool,
    ) {
        let room = usize::from(area.width);
        let height = usize::from(area.height.saturating_sub(1));
        let (columns, rows) = table;
        if selectable {
            self.selected = self.selected.min(rows.len().saturating_sub(1));
            self.first = self.first.clamp((self.selected + 1).saturating_sub(height.max(1)), self.selected);
            self.list = (area.y + 1, height.min(rows.len() - self.first.min(rows.len())));
        }
        let first = if selectable { self.first } else { 0 };
        let shown: Vec<Vec<String>> = rows.iter().skip(first).take(height).cloned().collect();
        let lines = lay_out(columns, &shown, Some(room), true);
        let bold = Style::new().add_modifier(Modifier::BOLD).patch(self.style(BLUE));
        let mut drawn = Vec::new();
        for (index, line) in lines.into_iter().enumerate() {
            let at = (first + index).checked_sub(1);
            let mut style = match at {
                None => bold,
                Some(_) if index == 0 => bold,
                Some(at) if marks(at) => self.style(ORANGE).add_modifier(Modifier::BOLD),
                Some(_) => Style::new(),
            };
            let mut line = line;
            if selectable && index > 0 && at == Some(self.selected) {
                style = style.add_modifier(Modifier::REVERSED);
                line.push_str(&" ".repeat(room.saturating_sub(line.chars().count())));
            }
            drawn.push(Text::styled(line, style));
        }
        frame.render_widget(Paragraph::new(drawn), area);
    }

    fn nothing(&self, frame: &mut Frame<'_>, area: Rect, text: &str) {
        let filtered = format!("nothing here has {}; Esc takes the filter away", self.filter);
        let text = if self.filter.is_empty() { text } else { &filtered };
        frame.render_widget(Paragraph::new(text), area);
    }

    /// The rows as a table of their own.
    fn table_of<'a>(&self, table: &Table, rows: impl Iterator<Item = &'a Row>) -> Table {
        let other = table.other.clone().filter(|_| self.filter.is_empty());
        Table { rows: rows.cloned().collect(), other, ..table.clone() }
    }

    fn ports(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let Some(shown) = &self.shown else { return };
        let table = self.table_of(&shown.ports, self.rows());
        if table.rows.is_empty() {
            self.nothing(frame, area, "no socket, and nothing happens");
            return;
        }
        let cgroups = &mut self.cgroups;
        let (mut columns, mut rows) = text::ports(&table, false, &mut |key| text::label(key, cgroups));
        let at = columns.len() - 1;
        columns.insert(at, Column { names: ("TREND", "TREND"), right: false, gives_way: 4 });
        for (cells, row) in rows.iter_mut().zip(&table.rows) {
            cells.insert(at, self.trend(&row.key));
        }
        for cells in rows.iter_mut().skip(table.rows.len()) {
            cells.insert(at, String::new());
        }
        // What an application must mend.
        let leaks = |at: usize| table.rows.get(at).is_some_and(|row| row.close_wait_growth > 0);
        self.list(frame, area, &(columns, rows), leaks, true);
    }

    fn trend(&self, key: &Key) -> String {
        let Some(trend) = self.trends.get(key) else { return String::new() };
        let most = trend.iter().copied().max().unwrap_or(0).max(1);
        let height = |count: &u64| {
            let at = usize::try_from(count * 7 / most).unwrap_or(7);
            HEIGHTS.get(at).copied().unwrap_or(' ')
        };
        trend.iter().map(height).collect()
    }

    fn owner_rows(&mut self, frame: &mut Frame<'_>, area: Rect, alone: bool) {
        let Some(shown) = &self.shown else { return };
        let table = self.table_of(&shown.owners, self.owners());
        if table.rows.is_empty() {
            self.nothing(frame, area, "no socket");
            return;
        }
        let total = self.filter.is_empty();
        let cgroups = &mut self.cgroups;
        let (mut columns, mut rows) = text::ports(&table, total, &mut |key| text::label(key, cgroups));
        // What happens is not counted by owner.
        for name in ["OPENED/s", "CLOSED/s", "RST/s", "CLOSE_WAIT+/s"] {
            if let Some(at) = columns.iter().position(|column| column.names.0 == name) {
                columns.remove(at);
                for cells in rows.iter_mut().filter(|cells| at < cells.len()) {
                    cells.remove(at);
                }
            }
        }
        self.list(frame, area, &(columns, rows), |_| false, alone);
    }

    fn reset_rows(&mut self, frame: &mut Frame<'_>, area: Rect, alone: bool) {
        let Some(shown) = &self.shown else { return };
        let rows: Vec<_> = self.resets().cloned().collect();
        if rows.is_empty() {
            self.nothing(frame, area, "no RST yet");
            return;
        }
        let below = Constraint::Length(if alone { 3 } else { 0 });
        let [list, meaning] = Layout::vertical([Constraint::Fill(1), below]).areas(area);
        let resets = Resets { rows, ..shown.resets.clone() };
        let table = text::ledger(&resets, self.clock);
        self.list(frame, list, &table, |_| false, alone);
        if let Some(row) = resets.rows.get(self.selected) {
            let paragraph = Paragraph::new(crate::view::report::explanation(row));
            frame.render_widget(paragraph.wrap(ratatui::widgets::Wrap { trim: true }), meaning);
        }
    }

    /// What is wrong, and all about the selected one.
    fn finding_rows(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let Some(shown) = &self.shown else { return };
        let findings: Vec<_> = self.findings().cloned().collect();
        if findings.is_empty() {
            let judged = shown.findings.is_some();
            let text = if judged { "nothing wrong in the last 10 s" } else { "looking for 10 s first" };
            self.nothing(frame, area, text);
            return;
        }
        let column = |name| Column { names: (name, name), right: false, gives_way: 0 };
        let columns = vec![column("SEVERITY"), column("FINDING"), column("WHAT")];
        let cells = |finding: &Finding| {
            vec![finding.severity.name().to_owned(), finding.rule.to_owned(), finding.title.clone()]
        };
        let rows: Vec<_> = findings.iter().map(cells).collect();
        let height = u16::try_from(rows.len() + 1).unwrap_or(u16::MAX).min(area.height / 2);
        let [list, below] =
            Layout::vertical([Constraint::Length(height + 1), Constraint::Fill(1)]).areas(area);
        let critical =
            |at: usize| findings.get(at).is_some_and(|finding| finding.severity == Severity::Critical);
        self.list(frame, list, &(columns, rows), critical, true);
        if let Some(finding) = findings.get(self.selected) {
            let width = usize::from(area.width);
            let names = findings.iter().map(|finding| finding.rule.len()).max().unwrap_or_default();
            let cut = "SEVERITY ".len() + names + 1 + finding.title.chars().count() > width;
            let text = crate::view::doctor::details(finding, width, cut);
            frame.render_widget(Paragraph::new(text), below);
        }
    }

    fn lines<'a>(
        &self,
        lines: impl Iterator<Item = &'a Line>,
        width: u16,
    ) -> (Vec<Column>, Vec<Vec<String>>) {
        let column = |name, right, gives_way| Column { names: (name, name), right, gives_way };
        let columns = vec![
            column("TIME", false, 1),
            column("LOCAL", false, 0),
            column("PEER", false, 0),
            column("WHAT", false, 0),
            column("MS", true, 3),
            column("CAUSE", false, 4),
            column("OWNER", false, 2),
        ];
        let room = address_room(width);
        let cells = |line: &Line| {
            let mut time = String::new();
            cell::time_of_day(&mut time, self.clock.wall_ns(line.ts_ns));
            let cause = line.cause.map_or("", crate::model::cause::Cause::name).to_owned();
            vec![time, line.local(room), line.peer(room), line.what(), line.millis(), cause, line.owner()]
        };
        (columns, lines.map(cells).collect())
    }

    fn stream_rows(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let kinds: Vec<Kind> = self.stream().map(|line| line.kind).collect();
        if kinds.is_empty() {
            self.nothing(frame, area, "nothing has happened yet");
            return;
        }
        // Only what is on the screen is written out.
        let height = usize::from(area.height.saturating_sub(1));
        self.selected = self.selected.min(kinds.len() - 1);
        self.first = self.first.clamp((self.selected + 1).saturating_sub(height.max(1)), self.selected);
        let (first, selected) = (self.first, self.selected);
        let table = self.lines(self.stream().skip(first).take(height), area.width);
        let reset = |at: usize| {
            kinds.get(first + at).is_some_and(|kind| matches!(kind, Kind::RstSent | Kind::RstReceived))
        };
        (self.first, self.selected) = (0, selected - first);
        self.list(frame, area, &table, reset, true);
        (self.first, self.selected) = (first, selected);
    }

    /// The last transitions, below something else.
    fn last(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let height = usize::from(area.height.saturating_sub(1));
        let table = self.lines(self.stream().take(height), area.width);
        let kinds: Vec<Kind> = self.stream().take(height).map(|line| line.kind).collect();
        let reset =
            |at: usize| kinds.get(at).is_some_and(|kind| matches!(kind, Kind::RstSent | Kind::RstReceived));
        self.list(frame, area, &table, reset, false);
    }

    fn socket_rows(&mut self, frame: &mut Frame<'_>, area: Rect, key: &Key) {
        let Some(shown) = &self.shown else { return };
        let column = |name, right, gives_way| Column { names: (name, name), right, gives_way };
        let columns = vec![
            column("STATE", false, 0),
            column("FOR", true, 0),
            column("LOCAL", false, 0),
            column("PEER", false, 0),
            column("ROLE", false, 1),
            column("OWNER", false, 2),
        ];
        let now_ns = shown.now_ns;
        let room = address_room(area.width);
        let cells = |socket: &Socket| {
            vec![
                socket.state.to_string(),
                socket.age_ns(now_ns).map_or_else(|| "-".to_owned(), text::duration),
                end(ip(socket.tuple.laddr), socket.tuple.lport, room),
                end(ip(socket.tuple.raddr), socket.tuple.rport, room),
                socket.role.map_or("-", crate::model::event::Role::name).to_owned(),
                text::owner(socket.owner, 1),
            ]
        };
        let rows: Vec<_> = self.sockets().map(cells).collect();
        let waits: Vec<bool> = self.sockets().map(|socket| socket.state == State::CLOSE_WAIT).collect();
        let [title, list] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
        let name = text::label(key, &mut self.cgroups);
        let name = if matches!(key, Key::Server { .. }) { format!("port {name}") } else { name };
        let title_text = format!("{name}: {} sockets, those longest in their state first", rows.len());
        frame.render_widget(Paragraph::new(title_text), title);
        let wait = |at: usize| waits.get(at).copied().unwrap_or(false);
        self.list(frame, list, &(columns, rows), wait, true);
    }

    /// A connection's own page.
    fn one(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let Some(shown) = &self.shown else { return };
        let last = self.path.iter().rev().find(|line| line.kind == Kind::Transition);
        let now = last.and_then(|line| line.new).or(shown.connection.map(|socket| socket.state));
        let mut visited: Vec<State> = self
            .path
            .iter()
            .filter(|line| line.kind == Kind::Transition)
            .flat_map(|line| [line.old, line.new])
            .flatten()
            .collect();
        visited.retain(|state| Some(*state) != now);
        let wide = area.width >= 78;
        let constraints = if wide {
            [Constraint::Length(42), Constraint::Fill(1)]
        } else {
            [Constraint::Length(0), Constraint::Fill(1)]
        };
        let [left, right] = Layout::horizontal(constraints).areas(area);
        let here = Style::new().add_modifier(Modifier::BOLD).patch(self.style(ORANGE));
        let drawn: Vec<Text<'_>> = diagram::lines(now, &visited)
            .into_iter()
            .map(|(line, marked)| Text::styled(line, if marked { here } else { Style::new() }))
            .collect();
        frame.render_widget(Paragraph::new(drawn), left);

        let mut lines: Vec<String> = Vec::new();
        let tuple = shown.connection.map(|socket| socket.tuple).or(last.map(|line| line.tuple));
        if let Some(tuple) = tuple {
            lines.push(format!("local  {}", end(ip(tuple.laddr), tuple.lport, 24)));
            lines.push(format!("peer   {}", end(ip(tuple.raddr), tuple.rport, 24)));
        }
        let socket = shown.connection;
        let owner = match (last.and_then(|line| line.owner), socket.and_then(|socket| socket.owner)) {
            (_, Some(owner)) => text::owner(Some(owner), 1),
            (Some((pid, comm)), None) => format!("{comm}/{pid}"),
            (None, None) => "-".to_owned(),
        };
        lines.push(format!("owner  {owner}"));
        if let Some(role) = socket.and_then(|socket| socket.role) {
            lines.push(format!("role   {}", role.name()));
        }
        let state = now.map_or("-", State::name);
        let age = socket.and_then(|socket| socket.age_ns(shown.now_ns)).map(text::duration);
        lines.push(match (&age, socket) {
            (Some(age), _) => format!("in     {state} for {age}"),
            (None, Some(_)) => format!("in     {state}"),
            (None, None) => format!("ended  in {state}"),
        });
        if let Some(cause) = self.path.iter().rev().find_map(|line| line.cause) {
            lines.push(format!("cause  {}", cause.name()));
        }
        lines.push(String::new());
        let room = usize::from(area.height).saturating_sub(lines.len());
        for line in self.path.iter().skip(self.path.len().saturating_sub(room)) {
            let mut time = String::new();
            cell::time_of_day(&mut time, self.clock.wall_ns(line.ts_ns));
            let what = match (line.kind, line.new) {
                (Kind::Transition, new) if new == line.old => "(orphaned)".to_owned(),
                (Kind::Transition, Some(new)) => new.name().to_owned(),
                _ => line.what(),
            };
            lines.push(match line.in_state_ns {
                Some(_) => format!("{time} {what:<11} +{} ms", line.millis()),
                None => format!("{time} {what}"),
            });
        }
        if self.path.is_empty() {
            lines.push("no transition seen yet".to_owned());
        }
        frame.render_widget(Paragraph::new(lines.into_iter().map(Text::from).collect::<Vec<_>>()), right);
    }
}

/// Columns for an address, by those of the screen: room for every IPv6 address only on a wide one.
fn address_room(width: u16) -> usize {
    if width < 130 { 18 } else { 39 }
}
