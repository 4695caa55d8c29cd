//! The live view: who sits behind what, the candidates and checks as they come, the path, the pulse of messages.
//!
//! The terminal is given back as it was on every way out: [`View`] does it when dropped, ratatui's hook on a panic.

use std::io;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use crate::demo::record::{CandidateKind, Pair, Path, Side};

/// Rows of a pair in the smallest terminal of 80 x 24.
const LEAST_ROWS: u16 = 5;
/// Round trips shown in the pulse, the newest last.
const PULSE: usize = 16;
const BARS: [&str; 8] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];

/// The terminal, taken over for the demo.
pub(crate) struct View {
    terminal: DefaultTerminal,
}

impl View {
    /// Takes the terminal over.
    pub(crate) fn open() -> io::Result<Self> {
        let terminal = ratatui::try_init()?;
        Ok(Self { terminal })
    }

    pub(crate) fn draw(&mut self, pairs: &[Pair], elapsed: Duration) -> io::Result<()> {
        self.terminal.draw(|frame| draw(frame, pairs, elapsed))?;
        Ok(())
    }

    /// Whether the person asked to end: `q`, Escape, Ctrl-C.
    pub(crate) fn wants_to_end() -> io::Result<bool> {
        while event::poll(Duration::ZERO)? {
            let Event::Key(key) = event::read()? else {
                continue;
            };
            let control = key.modifiers.contains(KeyModifiers::CONTROL);
            let ends = matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
                || (control && key.code == KeyCode::Char('c'));
            if ends && key.kind != KeyEventKind::Release {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Drop for View {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

fn draw(frame: &mut Frame<'_>, pairs: &[Pair], elapsed: Duration) {
    let area = frame.area();
    let [head, body, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Min(LEAST_ROWS),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(head_line(elapsed)), head);
    let rows = pairs.iter().map(|_| Constraint::Fill(1));
    for (pair, area) in pairs.iter().zip(Layout::vertical(rows).split(body).iter()) {
        frame.render_widget(Paragraph::new(lines_of(pair, area)), *area);
    }
    let foot_line =
        Line::from(" ○ own address  ◉ outside of the NAT  ● on the relay      q ends").dim();
    frame.render_widget(Paragraph::new(foot_line), foot);
}

fn head_line(elapsed: Duration) -> Line<'static> {
    Line::from(vec![
        " Rallypoint ".bold(),
        " players behind NATs find their best path".dim(),
        format!("   {:.1} s", elapsed.as_secs_f64()).into(),
    ])
}

fn lines_of<'a>(pair: &'a Pair, area: &Rect) -> Vec<Line<'a>> {
    let [a, b] = &pair.sides;
    let width = usize::from(area.width);
    let mut lines = vec![
        map(pair),
        candidates(a, width),
        candidates(b, width),
        pulse(pair),
    ];
    // What room there is goes to the diary; one row stays empty between pairs.
    let room = usize::from(area.height.saturating_sub(LEAST_ROWS));
    lines.splice(3..3, diary(pair, room));
    lines
}

/// `anna o--|port-restricted|==== direct ====|port-restricted|--o ben   143 ms`.
fn map(pair: &Pair) -> Line<'_> {
    let [a, b] = &pair.sides;
    let (colour, way) = match pair.path {
        Some(path) => (colour_of(path), format!("━━ {path} ━━")),
        None => (Color::DarkGray, "╌╌╌╌╌╌╌╌".to_owned()),
    };
    let mut spans = vec![
        format!(" {} ", a.name).bold(),
        "●─".dim(),
        gate(a),
        Span::styled(way, Style::new().fg(colour).add_modifier(Modifier::BOLD)),
        gate(b),
        "─●".dim(),
        format!(" {}", b.name).bold(),
    ];
    if let Some(connect_ms) = pair.connect_ms {
        spans.push(format!("  {connect_ms:.0} ms").dim());
    }
    Line::from(spans)
}

fn gate(side: &Side) -> Span<'_> {
    let style = if side.nat == "udpblock" {
        Style::new().fg(Color::Red)
    } else {
        Style::new().fg(Color::Blue)
    };
    Span::styled(format!("┃{}┃", side.nat_name), style)
}

fn candidates(side: &Side, width: usize) -> Line<'_> {
    let mut line = vec![format!("   {:<6}", side.name).dim()];
    if side.joined_ms.is_none() {
        line.push("joining the room".dim());
    }
    for candidate in &side.candidates {
        let (sign, colour) = match candidate.kind {
            CandidateKind::Host => ("○", Color::Gray),
            CandidateKind::Reflexive => ("◉", Color::Cyan),
            CandidateKind::Relayed => ("●", Color::Yellow),
        };
        let over = match candidate.transport.as_deref() {
            None | Some("udp") => String::new(),
            Some(transport) => format!(" over {transport}"),
        };
        let sign = Span::styled(sign, Style::new().fg(colour));
        let address = Span::raw(format!(" {}{over}  ", candidate.address));
        // A line that is cut off in the middle of an address would mislead.
        let used: usize = line.iter().map(Span::width).sum();
        if used + sign.width() + address.width() <= width {
            line.extend([sign, address]);
        }
    }
    if side.joined_ms.is_some() && side.gathered_ms.is_none() && side.connected_ms.is_none() {
        line.push("…".dim());
    }
    Line::from(line)
}

/// The newest entries of both diaries, in the order they were made.
fn diary(pair: &Pair, room: usize) -> Vec<Line<'_>> {
    let mut entries: Vec<_> = pair
        .sides
        .iter()
        .flat_map(|side| {
            side.diary
                .iter()
                .map(move |line| (line.at_ms, side, &line.text))
        })
        .collect();
    entries.sort_by(|a, b| a.0.total_cmp(&b.0));
    let skipped = entries.len().saturating_sub(room);
    entries
        .into_iter()
        .skip(skipped)
        .map(|(at_ms, side, text)| {
            Line::from(format!("   {at_ms:>6.0} ms  {}: {text}", side.name)).dim()
        })
        .collect()
}

fn pulse(pair: &Pair) -> Line<'_> {
    let [a, _] = &pair.sides;
    let Some(rtt) = pair.rtt_ms else {
        return Line::default();
    };
    let from = a.rtt.len().saturating_sub(PULSE);
    let shown = a.rtt.get(from..).unwrap_or_default();
    let top = shown.iter().map(|(_, rtt)| *rtt).fold(2.0 * rtt, f64::max);
    let bars: String = shown.iter().map(|(_, rtt)| bar(*rtt / top)).collect();
    let (reliable, sent) = pair.delivered(|side| side.reliable);
    let colour = pair.path.map_or(Color::DarkGray, colour_of);
    let mut spans = vec![
        format!("   rtt {rtt:.2} ms ").into(),
        Span::styled(format!("{bars:<PULSE$}"), Style::new().fg(colour)),
        format!("  reliable {reliable}/{sent}").into(),
        format!("  lost {:.1}%", pair.loss * 100.0).dim(),
    ];
    match pair.cut {
        Some(cut) if cut.moved_ms.is_none() => spans.push("  PATH CUT".red().bold()),
        Some(cut) => {
            let gap = cut.gap_ms.unwrap_or_default();
            spans.push(format!("  cut: {gap:.0} ms").fg(Color::Yellow));
        }
        None => {}
    }
    Line::from(spans)
}

fn bar(share: f64) -> &'static str {
    let step = BARS
        .iter()
        .scan(0.0, |edge, bar| {
            *edge += 1.0 / 8.0;
            Some((*edge, *bar))
        })
        .find(|(edge, _)| share <= *edge);
    step.map_or("█", |(_, bar)| bar)
}

fn colour_of(path: Path) -> Color {
    match path {
        Path::Direct => Color::Green,
        Path::Relay => Color::Yellow,
        Path::RelayOverTcp => Color::Magenta,
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::demo::board::Board;
    use crate::demo::pairs::PAIRS;
    use crate::demo::record::{
        Candidate, Cut, Line as DiaryLine, LineKind, Span as PathSpan, Tally,
    };

    fn shown(pairs: &[Pair], width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("in memory");
        terminal
            .draw(|frame| draw(frame, pairs, Duration::from_millis(2300)))
            .expect("drawn");
        terminal.backend().to_string()
    }

    #[test]
    fn smallest_terminal_shows_every_pair() {
        let pairs = Board::new(&PAIRS).pairs;
        let shown = shown(&pairs, 80, 24);
        for text in [
            "2.3 s",
            "anna",
            "hugo",
            "full cone",
            "UDP blocked",
            "joining the room",
        ] {
            assert!(shown.contains(text), "{text} is missing in\n{shown}");
        }
    }

    #[test]
    fn pair_at_play_shows_candidates_checks_path_and_pulse() {
        let mut pairs = Board::new(&PAIRS).pairs;
        let pair = &mut pairs[0];
        pair.path = Some(Path::Relay);
        pair.connect_ms = Some(143.0);
        pair.rtt_ms = Some(0.42);
        pair.spans = vec![PathSpan {
            path: Path::Relay,
            from_ms: 0.0,
            to_ms: f64::INFINITY,
        }];
        pair.cut = Some(Cut {
            at_ms: 1.0,
            moved_ms: Some(2.0),
            gap_ms: Some(461.0),
        });
        let side = &mut pair.sides[0];
        side.joined_ms = Some(5.0);
        side.candidates.push(Candidate {
            at_ms: 6.0,
            kind: CandidateKind::Reflexive,
            address: "127.0.0.11:12345".to_owned(),
            transport: None,
        });
        side.diary.push(DiaryLine {
            at_ms: 12.0,
            kind: LineKind::Check,
            text: "the pair was checked".to_owned(),
        });
        side.rtt = vec![(1.0, 0.2), (2.0, 0.9)];
        side.reliable = Tally {
            sent: 7,
            received: 0,
            in_order: true,
        };
        let shown = shown(&pairs, 80, 50);
        for text in [
            "━━ relay ━━",
            "143 ms",
            "127.0.0.11:12345",
            "the pair was checked",
            "cut: 461 ms",
            "reliable 0/7",
            "█",
        ] {
            assert!(shown.contains(text), "{text} is missing in\n{shown}");
        }
    }

    #[test]
    fn tiny_terminal_is_no_panic() {
        let pairs = Board::new(&PAIRS).pairs;
        for (width, height) in [(1, 1), (10, 3), (79, 8)] {
            shown(&pairs, width, height);
        }
    }
}
