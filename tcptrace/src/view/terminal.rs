//! The terminal as a screen: taken, and given back whatever happens.

use std::{cell::RefCell, io, io::Write, rc::Rc};

use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::Show,
        event::{DisableMouseCapture, EnableMouseCapture},
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};

use super::output;

/// What is drawn, in memory until [`Output`](output::Output) takes it.
#[derive(Clone, Default)]
pub struct Canvas(Rc<RefCell<Vec<u8>>>);

impl Write for Canvas {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The terminal, while it is a screen. Dropping it gives the terminal back; so does a panic.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Canvas>>,
    canvas: Canvas,
}

impl Screen {
    /// Takes the terminal.
    pub fn take() -> io::Result<Self> {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
        let canvas = Canvas::default();
        let terminal = Terminal::new(CrosstermBackend::new(canvas.clone()))?;
        let mut screen = Self { terminal, canvas };
        screen.enter()?;
        Ok(screen)
    }

    /// Takes the terminal anew, after it was given back.
    pub fn enter(&mut self) -> io::Result<()> {
        enable_raw_mode()?;
        execute!(self.canvas, EnterAlternateScreen, EnableMouseCapture)?;
        self.terminal.clear()
    }

    /// Gives the terminal back until [`enter`](Self::enter).
    pub fn leave(&mut self) {
        give_back();
    }

    /// Draws; only what changed is written.
    pub fn draw(&mut self, view: &mut super::top::Top) -> io::Result<()> {
        self.terminal.draw(|frame| view.draw(frame))?;
        Ok(())
    }

    /// Appends what was drawn since this was last called.
    pub fn take_drawn(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.canvas.0.borrow_mut());
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// There is nobody left to tell if that fails.
fn give_back() {
    let _ = disable_raw_mode();
    let mut out = Vec::new();
    let _ = execute!(out, DisableMouseCapture, LeaveAlternateScreen, Show);
    output::write_now(&out);
}
