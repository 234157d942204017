//! A table that fits the terminal: long names of columns if there is room, then short ones; then columns give way.

/// A column.
pub(in crate::view) struct Column {
    /// Its name, and a shorter one.
    pub(in crate::view) names: (&'static str, &'static str),
    /// Whether its cells stand at the right.
    pub(in crate::view) right: bool,
    /// The columns give way in this order, smallest first; 0 never does.
    pub(in crate::view) gives_way: u8,
}

/// Lays out cells under the names of their columns, in `room` characters, if that is limited. Lines have no blanks at
/// their ends.
pub(in crate::view) fn lay_out(
    columns: &[Column],
    rows: &[Vec<String>],
    room: Option<usize>,
    header: bool,
) -> Vec<String> {
    let mut shown: Vec<usize> = (0..columns.len()).collect();
    let mut short = false;
    let width = |index: usize, short: bool| {
        let cells = rows.iter().filter_map(|row| row.get(index)).map(|cell| cell.chars().count());
        let name = columns.get(index).map_or(0, |column| name(column, short).len());
        cells.max().unwrap_or(0).max(name)
    };
    let total = |shown: &[usize], short: bool| {
        shown.iter().map(|index| width(*index, short) + 1).sum::<usize>().saturating_sub(1)
    };
    if let Some(room) = room {
        short = total(&shown, false) > room;
        while total(&shown, short) > room {
            let gives_way = |index: &&usize| columns.get(**index).map_or(0, |column| column.gives_way);
            let Some(index) =
                shown.iter().filter(|index| gives_way(index) > 0).min_by_key(gives_way).copied()
            else {
                break;
            };
            shown.retain(|kept| *kept != index);
        }
    }
    let widths: Vec<(usize, usize)> = shown.iter().map(|index| (*index, width(*index, short))).collect();
    let line = |cell: &dyn Fn(usize) -> String| {
        let mut line = String::new();
        for (index, width) in &widths {
            let (cell, width) = (cell(*index), *width);
            let right = columns.get(*index).is_some_and(|column| column.right);
            let gap = " ".repeat(width.saturating_sub(cell.chars().count()));
            let (before, after) = if right { (&*gap, "") } else { ("", &*gap) };
            line.extend([before, &cell, after, " "]);
        }
        line.truncate(line.trim_end().len());
        cut(line, room)
    };
    let names = |index: usize| columns.get(index).map_or("", |column| name(column, short)).to_owned();
    let head = header.then(|| line(&names));
    let body = rows.iter().map(|row| line(&|index| row.get(index).cloned().unwrap_or_default()));
    head.into_iter().chain(body).collect()
}

fn name(column: &Column, short: bool) -> &'static str {
    if short { column.names.1 } else { column.names.0 }
}

/// The line, with its end cut off if there is no room for it.
pub(super) fn cut(mut line: String, room: Option<usize>) -> String {
    if let Some(room) = room {
        let (at, mark) = crate::view::cell::cut(&line, room);
        line.truncate(at);
        line.push_str(mark);
    }
    line
}
