//! The live view: what `top` shows, and where in it the user is. It is told what time it is, draws when it is asked to,
//! and touches no terminal.

mod draw;
mod line;

use std::collections::VecDeque;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use rustc_hash::FxHashMap;

pub use line::Line;

use super::report::{Cgroups, Resets, text};
use crate::{
    kernel::clock::Clock,
    model::{
        doctor::Finding,
        event::{Event, Id},
        socket::Socket,
        state::State,
        tally::{Key, Row, Sort, Table},
    },
};

/// Transitions and RSTs kept, to show the last of them and the path of a connection (some 500 KB).
const LINES: usize = 4096;
/// Transitions kept of the connection that is looked at.
const PATH: usize = 256;
/// Seconds that a trend shows.
const TREND: usize = 12;
/// Rows of which a trend is kept.
const TRENDS: usize = 256;
/// The orders that a key goes through.
const SORTS: [Sort; 7] = [
    Sort::Sockets,
    Sort::State(State::CLOSE_WAIT),
    Sort::State(State::TIME_WAIT),
    Sort::Opened,
    Sort::Rst,
    Sort::Oldest,
    Sort::Port,
];

/// What fills the screen.
#[derive(Clone, Debug, PartialEq)]
enum Page {
    /// The rows of `hist`, and the last transitions.
    Ports,
    /// The same by the name of the owner.
    Owners,
    /// The ledger of RSTs.
    Resets,
    /// The last transitions and RSTs.
    Stream,
    /// What is wrong.
    Findings,
    /// The connections of a row.
    Row(Key),
    /// One connection.
    Connection(Id),
    /// The keys.
    Help,
}

/// The pages that have a tab and a number, in their order.
const TABS: [Page; 5] = [Page::Ports, Page::Owners, Page::Resets, Page::Stream, Page::Findings];

/// What stands above all pages.
#[derive(Clone, Debug, Default)]
pub struct Header {
    /// The host's name.
    pub host: String,
    /// The kernel's release.
    pub kernel: String,
    /// Events per second.
    pub rate: u64,
    /// Events lost since the start.
    pub lost: u64,
    /// How much of one CPU tcptrace itself takes, in tenths of a percent.
    pub cpu_permille: u64,
    /// Memory of tcptrace itself, in bytes.
    pub memory: u64,
}

/// What the model says, once a second.
#[derive(Debug)]
pub struct Refresh {
    /// What stands above all.
    pub header: Header,
    /// Rows by port.
    pub ports: Table,
    /// Rows by the owner's name.
    pub owners: Table,
    /// The ledger.
    pub resets: Resets,
    /// What was found wrong in the last seconds that were judged; `None` before the first judgement.
    pub findings: Option<Vec<Finding>>,
    /// The sockets of the row that is looked at (see [`Top::row`]).
    pub sockets: Vec<Socket>,
    /// The connection that is looked at (see [`Top::connection`]), if it still exists.
    pub connection: Option<Socket>,
    /// Now, `CLOCK_MONOTONIC` in ns.
    pub now_ns: u64,
}

/// The view.
pub struct Top {
    clock: Clock,
    color: bool,
    cgroups: Cgroups,
    page: Page,
    /// The pages to go back to.
    behind: Vec<Page>,
    sort: usize,
    filter: String,
    /// The filter is being typed.
    typing: bool,
    over: bool,
    /// The selected line of the page's list, and the first that is shown.
    selected: usize,
    first: usize,
    /// Where the page's list was last drawn: its first row on the screen, and how many.
    list: (u16, usize),
    /// Where the names of the pages were last drawn: columns from, to.
    tabs: Vec<(u16, u16)>,
    shown: Option<Refresh>,
    lines: VecDeque<Line>,
    /// The lines as they were when the view was paused; `None` while it is not.
    held: Option<VecDeque<Line>>,
    path: Vec<Line>,
    trends: FxHashMap<Key, VecDeque<u64>>,
}

impl Top {
    /// An empty view. `color`: whether colours are wanted.
    #[must_use]
    pub fn new(clock: Clock, color: bool, cgroups: Cgroups) -> Self {
        Self {
            clock,
            color,
            cgroups,
            page: Page::Ports,
            behind: Vec::new(),
            sort: 0,
            filter: String::new(),
            typing: false,
            over: false,
            selected: 0,
            first: 0,
            list: (0, 0),
            tabs: Vec::new(),
            shown: None,
            lines: VecDeque::with_capacity(LINES),
            held: None,
            path: Vec::new(),
            trends: FxHashMap::default(),
        }
    }

    /// Takes an event.
    pub fn event(&mut self, event: &Event) {
        let line = Line::of(event);
        if let Page::Connection(id) = self.page
            && line.id == Some(id)
            && self.path.len() < PATH
        {
            self.path.push(line.clone());
        }
        if self.lines.len() >= LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Takes what the model says.
    pub fn refresh(&mut self, mut refresh: Refresh) {
        self.trends.retain(|key, _| refresh.ports.rows.iter().any(|row| row.key == *key));
        for row in refresh.ports.rows.iter().take(TRENDS) {
            let trend = self.trends.entry(row.key).or_default();
            if trend.len() >= TREND {
                trend.pop_front();
            }
            trend.push_back(row.opened);
        }
        if self.held.is_some()
            && let Some(shown) = self.shown.take()
        {
            // Only what says that tcptrace is well goes on.
            refresh = Refresh { header: refresh.header, ..shown };
        }
        self.shown = Some(refresh);
    }

    /// Whether the user has had enough.
    #[must_use]
    pub fn over(&self) -> bool {
        self.over
    }

    /// The order of the rows.
    #[must_use]
    pub fn sort(&self) -> Sort {
        SORTS.get(self.sort).copied().unwrap_or_default()
    }

    /// The row whose connections are looked at.
    #[must_use]
    pub fn row(&self) -> Option<&Key> {
        let in_row = |page: &Page| matches!(page, Page::Row(_));
        match [&self.page].into_iter().chain(self.behind.iter().rev()).find(|page| in_row(page)) {
            Some(Page::Row(key)) => Some(key),
            _ => None,
        }
    }

    /// The connection that is looked at.
    #[must_use]
    pub fn connection(&self) -> Option<Id> {
        if let Page::Connection(id) = self.page { Some(id) } else { None }
    }

    /// Whether each event changes what is on the screen.
    #[must_use]
    pub fn follows_events(&self) -> bool {
        let still =
            matches!(self.page, Page::Help | Page::Row(_) | Page::Owners | Page::Resets | Page::Findings);
        self.held.is_none() && !still
    }

    /// A key was pressed.
    pub fn key(&mut self, key: KeyEvent) {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && matches!(key.code, KeyCode::Char('c')) {
            self.over = true;
            return;
        }
        if self.typing {
            self.type_filter(key.code);
            return;
        }
        match key.code {
            KeyCode::Char('q') => self.over = true,
            KeyCode::Esc | KeyCode::Backspace | KeyCode::Left => self.back(key.code == KeyCode::Esc),
            KeyCode::Char(digit @ '1'..='5') => self.turn_to_tab(digit as usize - '1' as usize),
            KeyCode::Tab => self.turn_by(1),
            KeyCode::BackTab => self.turn_by(TABS.len() - 1),
            KeyCode::Char('?' | 'h') => self.open(Page::Help),
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('s' | '>') => self.sort = (self.sort + 1) % SORTS.len(),
            KeyCode::Char('S' | '<') => self.sort = (self.sort + SORTS.len() - 1) % SORTS.len(),
            KeyCode::Char(' ' | 'p') => self.pause(),
            KeyCode::Enter | KeyCode::Right => self.enter(),
            KeyCode::Up | KeyCode::Char('k') => self.move_by(-1),
            KeyCode::Down | KeyCode::Char('j') => self.move_by(1),
            KeyCode::PageUp => self.move_by(-self.page_length()),
            KeyCode::PageDown => self.move_by(self.page_length()),
            KeyCode::Home | KeyCode::Char('g') => self.selected = 0,
            KeyCode::End | KeyCode::Char('G') => self.move_by(isize::MAX),
            _ => {}
        }
        if let Some(shown) =
            self.shown.as_mut().filter(|_| matches!(key.code, KeyCode::Char('s' | 'S' | '<' | '>')))
        {
            let sort = SORTS.get(self.sort).copied().unwrap_or_default();
            crate::model::tally::sort_rows(&mut shown.ports.rows, sort);
            crate::model::tally::sort_rows(&mut shown.owners.rows, sort);
        }
    }

    /// The mouse was used.
    pub fn mouse(&mut self, mouse: MouseEvent) {
        match mouse.kind {
            MouseEventKind::ScrollUp => self.move_by(-3),
            MouseEventKind::ScrollDown => self.move_by(3),
            MouseEventKind::Down(MouseButton::Left) => {
                let (top, count) = self.list;
                if let Some(index) =
                    mouse.row.checked_sub(top).map(usize::from).filter(|index| *index < count)
                {
                    let line = self.first + index;
                    if self.selected == line {
                        self.enter();
                    } else {
                        self.selected = line;
                    }
                } else if mouse.row == 1
                    && let Some(tab) =
                        self.tabs.iter().position(|(from, to)| (*from..*to).contains(&mouse.column))
                {
                    self.turn_to_tab(tab);
                }
            }
            _ => {}
        }
    }

    fn type_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => _ = self.filter.pop(),
            KeyCode::Char(c) => self.filter.push(c),
            _ => {}
        }
        self.selected = 0;
    }

    fn turn_by(&mut self, tabs: usize) {
        let at = TABS.iter().position(|page| *page == self.page).unwrap_or(0);
        self.turn_to_tab((at + tabs) % TABS.len());
    }

    fn turn_to_tab(&mut self, tab: usize) {
        if let Some(page) = TABS.get(tab) {
            self.behind.clear();
            self.page = page.clone();
            (self.selected, self.first) = (0, 0);
        }
    }

    fn open(&mut self, page: Page) {
        if self.page != page {
            let page = std::mem::replace(&mut self.page, page);
            self.behind.push(page);
            (self.selected, self.first) = (0, 0);
        }
    }

    /// Goes back; where there is nothing to go back to, takes the filter away.
    fn back(&mut self, clear: bool) {
        match self.behind.pop() {
            Some(page) => {
                self.page = page;
                (self.selected, self.first) = (0, 0);
            }
            None if clear => self.filter.clear(),
            None => {}
        }
    }

    fn pause(&mut self) {
        self.held = if self.held.is_some() { None } else { Some(self.lines.clone()) };
    }

    /// Opens what is selected.
    fn enter(&mut self) {
        let selected = self.selected;
        let page = match &self.page {
            Page::Ports => self.rows().nth(selected).map(|row| Page::Row(row.key)),
            Page::Stream => self.stream().nth(selected).and_then(|line| line.id).map(Page::Connection),
            Page::Row(_) => self.sockets().nth(selected).and_then(|socket| socket.id).map(Page::Connection),
            _ => None,
        };
        if let Some(Page::Connection(id)) = page {
            self.path = self.lines.iter().filter(|line| line.id == Some(id)).cloned().collect();
        }
        if let Some(page) = page {
            self.open(page);
        }
    }

    fn page_length(&self) -> isize {
        isize::try_from(self.list.1.max(1)).unwrap_or(1)
    }

    fn move_by(&mut self, lines: isize) {
        let last = self.length().saturating_sub(1);
        self.selected = self.selected.min(last).saturating_add_signed(lines).min(last);
    }

    /// Lines in the page's list.
    fn length(&self) -> usize {
        match self.page {
            Page::Ports => self.rows().count(),
            Page::Owners => self.owners().count(),
            Page::Resets => self.resets().count(),
            Page::Stream => self.stream().count(),
            Page::Findings => self.findings().count(),
            Page::Row(_) => self.sockets().count(),
            Page::Connection(_) | Page::Help => 0,
        }
    }

    fn matches(&self, text: &str) -> bool {
        self.filter.is_empty() || text.to_lowercase().contains(&self.filter.to_lowercase())
    }

    fn is_wanted(&self, row: &Row) -> bool {
        let owner = text::owner(row.owner, 1);
        let port = row.key.port().map(|port| port.to_string()).unwrap_or_default();
        let state = |state: &State| row.in_state(*state) > 0 && self.matches(state.name());
        self.matches(&owner) || self.matches(&port) || State::LIFE.iter().any(state)
    }

    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.shown.iter().flat_map(|shown| &shown.ports.rows).filter(|row| self.is_wanted(row))
    }

    fn owners(&self) -> impl Iterator<Item = &Row> {
        self.shown.iter().flat_map(|shown| &shown.owners.rows).filter(|row| self.is_wanted(row))
    }

    fn resets(&self) -> impl Iterator<Item = &crate::model::tally::Reset> {
        self.shown.iter().flat_map(|shown| &shown.resets.rows).filter(|row| {
            let key = &row.key;
            let port = key.lport.or(key.rport).map(|port| port.to_string()).unwrap_or_default();
            let peer = key.raddr.map(|addr| crate::model::event::ip(addr).to_string()).unwrap_or_default();
            let state = key.prev_state.map_or("", State::name);
            let words = [text::owner(row.owner, 1), port, peer, state.to_owned()];
            words.iter().any(|word| self.matches(word))
                || key.reason.as_ref().is_some_and(|reason| self.matches(reason))
        })
    }

    fn sockets(&self) -> impl Iterator<Item = &Socket> {
        self.shown.iter().flat_map(|shown| &shown.sockets).filter(|socket| {
            let words = [
                crate::model::event::ip(socket.tuple.raddr).to_string(),
                socket.tuple.rport.to_string(),
                socket.tuple.lport.to_string(),
                text::owner(socket.owner, 1),
                socket.state.name().to_owned(),
            ];
            words.iter().any(|word| self.matches(word))
        })
    }

    fn findings(&self) -> impl Iterator<Item = &Finding> {
        let all = self.shown.iter().filter_map(|shown| shown.findings.as_ref()).flatten();
        all.filter(|finding| self.matches(&finding.title) || self.matches(finding.rule))
    }

    /// The last transitions and RSTs, the newest first.
    fn stream(&self) -> impl Iterator<Item = &Line> {
        let lines = self.held.as_ref().unwrap_or(&self.lines);
        lines
            .iter()
            .rev()
            .filter(|line| self.filter.is_empty() || line.words().iter().any(|word| self.matches(word)))
    }
}
