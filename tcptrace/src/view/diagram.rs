//! The state machine of RFC 9293, with a connection's way through it.

use crate::model::state::State;

/// Every name has a blank or a line at either side, where its marks go.
const DIAGRAM: [&str; 17] = [
    "           connect   CLOSE   listen",
    "           .-----------+-----------.",
    "           v                       v",
    "        SYN_SENT                LISTEN",
    "           |                       | SYN",
    "           | SYN+ACK            SYN_RECV",
    "           |                       | ACK",
    "           '---->  ESTABLISHED  <--'",
    "            close |           | FIN",
    "                  v           v",
    "   .----  FIN_WAIT1 -.    CLOSE_WAIT",
    "   | ACK      | FIN  |        | close",
    "   v          v      |        v",
    "FIN_WAIT2  CLOSING   | FIN LAST_ACK",
    "   | FIN      | ACK  | +ACK   | ACK",
    "   '--->  TIME_WAIT <'        v",
    "              '-- 60 s -->  CLOSED",
];

/// The lines of the diagram. The state that the connection is in stands in `[]`, those that it has been in in `()`, so
/// that no colour is needed to tell them. Of each line also says whether the state stands there.
pub(super) fn lines(now: Option<State>, visited: &[State]) -> Vec<(String, bool)> {
    let mut drawn: Vec<(String, bool)> = DIAGRAM.iter().map(|line| (format!(" {line} "), false)).collect();
    for state in State::all() {
        let name = if state == State::CLOSE { "CLOSED" } else { state.name() };
        let (before, after) = match state {
            state if now == Some(state) => ('[', ']'),
            // Every connection begins there.
            State::CLOSE => continue,
            state if visited.contains(&state) => ('(', ')'),
            _ => continue,
        };
        let found = drawn.iter_mut().find_map(|(line, here)| {
            let at = whole_word(line, name)?;
            Some((line, here, at))
        });
        if let Some((line, here, at)) = found {
            let mut marked: Vec<char> = line.chars().collect();
            if let Some(slot) = at.checked_sub(1).and_then(|at| marked.get_mut(at)) {
                *slot = before;
            }
            if let Some(slot) = marked.get_mut(at + name.len()) {
                *slot = after;
            }
            *line = marked.into_iter().collect();
            *here |= now == Some(state);
        }
    }
    drawn
}

/// Where the name stands by itself.
fn whole_word(line: &str, name: &str) -> Option<usize> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    line.match_indices(name).map(|(at, _)| at).find(|at| {
        let before = line.get(..*at).and_then(|text| text.chars().next_back());
        let after = line.get(at + name.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_can_be_marked() {
        for state in State::all().filter(|state| *state != State::NEW_SYN_RECV) {
            let drawn = lines(Some(state), &[]);
            let marked: Vec<&(String, bool)> = drawn.iter().filter(|(_, here)| *here).collect();
            assert_eq!(marked.len(), 1, "{state}");
            let name = if state == State::CLOSE { "CLOSED" } else { state.name() };
            assert!(
                marked.iter().all(|(line, _)| line.contains(&format!("[{name}]"))),
                "{state}: {marked:?}"
            );
            let visited = lines(None, &[state]).iter().any(|(line, _)| line.contains(&format!("({name})")));
            assert_eq!(visited, state != State::CLOSE, "{state}");
        }
    }

    #[test]
    fn it_fits() {
        assert!(lines(None, &[]).iter().all(|(line, _)| line.chars().count() <= 42));
        assert!(lines(None, &[]).len() <= 18);
    }
}
