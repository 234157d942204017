//! `tcptrace explain`: what a word means and what to do about it. Needs no root.

use std::io;

use super::lines::colored;
use crate::{
    cli::{Explain, Format},
    kernel,
    model::{event::printable, explain},
    view::{explain as view, output},
};

/// Prints a page, or without a word the index. Returns whether there was something to print.
pub fn run(args: &Explain) -> anyhow::Result<bool> {
    if args.output == Format::Csv {
        anyhow::bail!("explain prints no CSV\nwhy: a page is no table\nfix: tcptrace explain -o json");
    }
    let reasons = kernel::reset_reasons();
    let word = args.word.join(" ");
    let (json, colored) = (args.output == Format::Json, colored(args.color));
    let pages = explain::index();
    let text = if word.trim().is_empty() {
        if json { view::index_json(&pages, &reasons) } else { view::index(&pages, &reasons, colored) }
    } else if let Some(page) = explain::find(&word, &pages, &reasons) {
        if json { view::json(&page) } else { view::text(&page, colored) }
    } else {
        let similar = explain::similar(&word, &pages, &reasons).join(", ");
        let meant = if similar.is_empty() { String::new() } else { format!("did you mean {similar}? ") };
        log::error!(
            "nothing is known of {}\nfix: {meant}`tcptrace explain` lists all words",
            printable(&word)
        );
        return Ok(false);
    };
    match output::print(&text) {
        // Whoever read has read enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(true),
    }
}
