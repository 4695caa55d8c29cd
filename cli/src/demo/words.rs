//! The demo in words: a line for each happening, and the table at the end.

use crate::demo::board::{Board, Happening, What};
use crate::demo::record::{Pair, Path, Record};

/// What happened, as `--plain` says it; the steady flow of messages says nothing.
pub(crate) fn line_of(board: &Board, happening: &Happening) -> Option<String> {
    let pair = board.pairs.get(happening.pair)?;
    let side = pair.sides.get(happening.side)?;
    let text = match &happening.what {
        What::Started => format!("sets out from behind {}", article(side.nat_name)),
        What::Joined => "is in the room".to_owned(),
        What::Candidate {
            kind,
            address,
            transport,
        } => match transport {
            Some(transport) => format!("candidate {kind} {address} over {transport}"),
            None => format!("candidate {kind} {address}"),
        },
        What::Gathered => "has gathered all candidates".to_owned(),
        What::Diary(_, text) => text.clone(),
        What::Connected(_, path) => format!("CONNECTED {path}"),
        What::Moved(_, path) => format!("PATH CHANGED to {path}"),
        What::Cut => "CUT: the NAT lets nothing more through to the other player".to_owned(),
        What::Failed(reason) => format!("FAILED: {reason}"),
        What::Left => "leaves".to_owned(),
        What::ReliableSent
        | What::ReliableArrived(_)
        | What::UnreliableSent
        | What::UnreliableArrived(_)
        | What::Echoed(_) => return None,
    };
    let at_ms = board.time_of(happening.pair, happening.at);
    Some(format!("{at_ms:>8.1} ms  {:<6} {text}", side.name))
}

fn article(nat: &str) -> String {
    match nat {
        "UDP blocked" => "a firewall that blocks UDP".to_owned(),
        _ if nat.starts_with('a') => format!("an {nat} NAT"),
        _ => format!("a {nat} NAT"),
    }
}

/// The table, and what is to be said below it.
pub(crate) fn table(record: &Record) -> String {
    let head = ["pair", "path", "connect", "rtt", "lost", "in order"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(record.pairs.iter().map(row));
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<_> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
        if number == 0 {
            text += &"─".repeat(widths.iter().sum::<usize>() + 2 * (widths.len() - 1));
            text.push('\n');
        }
    }
    for pair in &record.pairs {
        if let Some(said) = about_cut(pair) {
            text += &format!("\n{said}\n");
        }
    }
    text
}

fn row(pair: &Pair) -> [String; 6] {
    let (arrived, sent) = pair.delivered(|side| side.reliable);
    let in_order = pair.sides.iter().all(|side| side.reliable.in_order);
    let millis = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.digits$} ms"))
    };
    [
        pair.name.clone(),
        path_cell(pair),
        millis(pair.connect_ms, 0),
        millis(pair.rtt_ms, 2),
        format!("{:.1}%", pair.loss * 100.0),
        format!(
            "{arrived}/{sent}{}",
            if in_order { "" } else { " NOT in order" }
        ),
    ]
}

fn path_cell(pair: &Pair) -> String {
    let name = |path: Option<Path>| path.map_or_else(|| "none".to_owned(), |path| path.to_string());
    if pair.cut.is_some() {
        format!("{} → {}", name(pair.main_path()), name(pair.path))
    } else {
        name(pair.path)
    }
}

fn about_cut(pair: &Pair) -> Option<String> {
    let cut = pair.cut?;
    let (arrived, sent) = pair.delivered(|side| side.reliable);
    let cut_of = format!("The direct path of {} was cut during play", pair.name);
    let (Some(moved), Some(gap)) = (cut.moved_ms, cut.gap_ms) else {
        return Some(format!("{cut_of}, and play did not go on."));
    };
    Some(format!(
        "{cut_of}:\non the {} after {:.0} ms, {gap:.0} ms of silence, {arrived} of {sent} reliable messages arrived.",
        pair.path.unwrap_or(Path::Relay),
        moved - cut.at_ms,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::pairs::PAIRS;
    use crate::demo::record::Cut;

    #[test]
    fn table_is_aligned_and_tells_of_the_cut() {
        let mut pairs = Board::new(&PAIRS).pairs;
        pairs[0].path = Some(Path::Relay);
        pairs[0].connect_ms = Some(143.2);
        pairs[0].cut = Some(Cut {
            at_ms: 1600.0,
            moved_ms: Some(2060.0),
            gap_ms: Some(461.4),
        });
        let record = Record {
            version: "0",
            network: "loopback",
            elapsed_ms: 6000.0,
            ok: true,
            failures: Vec::new(),
            pairs,
        };
        let table = table(&record);
        let lines: Vec<_> = table.lines().collect();
        assert!(lines[0].starts_with("pair"));
        let column = lines[0].find("connect").expect("the head");
        let cell: String = lines[2].chars().skip(column).take(6).collect();
        assert_eq!(cell, "143 ms", "{table}");
        assert!(
            table.contains("on the relay after 460 ms, 461 ms of silence"),
            "{table}"
        );
    }
}
