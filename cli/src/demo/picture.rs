//! `demo.svg`: one lane a pair. Left who they are and how they did, in the middle how they connected (milliseconds), right
//! how they played (seconds): round trips, the path in use, every reliable message, and the cut.
//!
//! Colours and type live in [`STYLE`], with a dark set for readers who prefer it; the picture brings its own background.

use crate::demo::record::{CandidateKind, Cut, LineKind, Pair, Path, Record, Side, Span};
use crate::demo::svg::{Outline, Svg};

const WIDTH: f64 = 1280.0;
const LANES_TOP: f64 = 150.0;
const LANE: f64 = 150.0;
const FOOTER: f64 = 108.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = WIDTH - 44.0;

/// A stretch of the picture that stands for time.
#[derive(Debug, Clone, Copy)]
struct Axis {
    left: f64,
    right: f64,
    /// Milliseconds from edge to edge.
    length: f64,
    /// Milliseconds between marks.
    step: f64,
}

impl Axis {
    /// An axis with three to seven marks that reaches a little past `needed` milliseconds.
    fn new(left: f64, right: f64, needed: f64) -> Self {
        let needed = needed.max(1.0) * 1.04;
        let magnitude = 10f64.powf((needed / 7.0).log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0]
            .into_iter()
            .map(|factor| factor * magnitude)
            .find(|step| needed / step <= 7.0)
            .unwrap_or(needed);
        Self {
            left,
            right,
            length: needed,
            step,
        }
    }

    fn x(&self, at_ms: f64) -> f64 {
        self.left + (at_ms / self.length).clamp(0.0, 1.0) * (self.right - self.left)
    }

    fn marks(&self) -> impl Iterator<Item = f64> {
        let (step, length) = (self.step, self.length);
        std::iter::successors(Some(0.0), move |mark| Some(mark + step))
            .take_while(move |mark| *mark <= length)
    }
}

/// Draws the record.
pub(crate) fn draw(record: &Record) -> String {
    let connecting = Axis::new(
        418.0,
        724.0,
        greatest(record.pairs.iter().filter_map(|pair| pair.connect_ms)) * 1.06,
    );
    let playing = Axis::new(
        812.0,
        RIGHT,
        greatest(record.pairs.iter().map(|pair| pair.ended_ms - began(pair))),
    );
    let lanes = lanes_height(record);
    let height = LANES_TOP + lanes + FOOTER;
    let mut svg = Svg::default();
    svg.rect("bg", [0.5, 0.5, WIDTH - 1.0, height - 1.0], 18.0);
    header(&mut svg, record);
    axes(&mut svg, &connecting, &playing, lanes);
    let mut top = LANES_TOP;
    for pair in &record.pairs {
        lane(&mut svg, pair, top, &connecting, &playing);
        top += LANE;
    }
    legend(&mut svg, height);
    let title = format!("rallypoint demo: {}", summary(record));
    svg.finish([WIDTH, height], &title, STYLE)
}

fn lanes_height(record: &Record) -> f64 {
    record.pairs.iter().map(|_| LANE).sum()
}

fn greatest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(1.0, f64::max)
}

/// When the pair began to play.
fn began(pair: &Pair) -> f64 {
    pair.connect_ms.unwrap_or(pair.ended_ms)
}

fn summary(record: &Record) -> String {
    let connected = record
        .pairs
        .iter()
        .filter(|pair| pair.path.is_some())
        .count();
    format!(
        "{connected} of {} pairs of players behind NATs connected",
        record.pairs.len()
    )
}

fn header(svg: &mut Svg, record: &Record) {
    svg.text("title", LEFT, 60.0, "Rallypoint");
    svg.text(
        "subtitle",
        LEFT,
        86.0,
        "Players behind NATs find each other by a passphrase and take the best path their NATs allow.",
    );
    let (arrived, sent) = record.pairs.iter().fold((0, 0), |(arrived, sent), pair| {
        let (a, s) = pair.delivered(|side| side.reliable);
        (arrived + a, sent + s)
    });
    let chip = if record.ok { "good" } else { "bad" };
    let verdict = if record.ok {
        format!(
            "every pair on its expected path, {:.1} s",
            record.elapsed_ms / 1000.0
        )
    } else {
        format!("{} expectations failed", record.failures.len())
    };
    svg.circle(&format!("{chip}-fill"), RIGHT - 9.0, 54.0, 9.0);
    let mut sign = Outline::default();
    if record.ok {
        sign.move_to([RIGHT - 13.2, 54.2])
            .line_to([RIGHT - 10.2, 57.2])
            .line_to([RIGHT - 4.8, 51.2]);
    } else {
        sign.move_to([RIGHT - 12.0, 51.0])
            .line_to([RIGHT - 6.0, 57.0])
            .move_to([RIGHT - 6.0, 51.0])
            .line_to([RIGHT - 12.0, 57.0]);
    }
    svg.path("sign", &sign);
    svg.text("verdict end", RIGHT - 27.0, 59.0, &verdict);
    svg.text(
        "subtitle end",
        RIGHT,
        86.0,
        &format!(
            "{} of {} reliable messages in order",
            grouped(arrived),
            grouped(sent)
        ),
    );
}

/// Headings, grid and scales.
fn axes(svg: &mut Svg, connecting: &Axis, playing: &Axis, lanes: f64) {
    let (top, bottom) = (LANES_TOP - 6.0, LANES_TOP + lanes);
    svg.text("heading", LEFT, top - 14.0, "PAIR");
    svg.text("heading", connecting.left, top - 14.0, "CONNECTING");
    svg.text("heading", playing.left, top - 14.0, "PLAYING");
    for (axis, unit, scale) in [(connecting, "ms", 1.0), (playing, "s", 1000.0)] {
        for mark in axis.marks() {
            let x = axis.x(mark);
            svg.stroke("grid", [x, top], [x, bottom + 4.0]);
            let label = short(mark / scale);
            let label = if mark == 0.0 {
                format!("{label} {unit}")
            } else {
                label
            };
            svg.text("axis middle", x, bottom + 22.0, &label);
        }
    }
}

fn lane(svg: &mut Svg, pair: &Pair, top: f64, connecting: &Axis, playing: &Axis) {
    svg.stroke("rule", [LEFT, top], [RIGHT, top]);
    who(svg, pair, top);
    for (side, y) in pair.sides.iter().zip([top + 45.0, top + 99.0]) {
        connect_row(svg, pair, side, y, connecting);
    }
    play(svg, pair, top, playing);
}

/// The left column: names, the path as a small map, figures.
fn who(svg: &mut Svg, pair: &Pair, top: f64) {
    let [a, b] = &pair.sides;
    svg.spans(
        "pair",
        LEFT,
        top + 32.0,
        &[("", a.nat_name), ("times", "  ×  "), ("", b.nat_name)],
    );
    map(svg, pair, top + 70.0);
    let (arrived, sent) = pair.delivered(|side| side.reliable);
    let figures = [
        (
            "connected in",
            pair.connect_ms
                .map_or_else(dash, |ms| format!("{} ms", whole(ms))),
        ),
        (
            "round trip",
            pair.rtt_ms
                .map_or_else(dash, |ms| format!("{} ms", short_ms(ms))),
        ),
        ("lost", format!("{} %", short(pair.loss * 100.0))),
        ("in order", format!("{arrived}/{sent}")),
    ];
    for ((label, value), x) in figures.iter().zip([0.0, 92.0, 174.0, 234.0]) {
        svg.text("figure", LEFT + x, top + 116.0, value);
        svg.text("label", LEFT + x, top + 132.0, label);
    }
}

fn dash() -> String {
    "–".to_owned()
}

/// Player, NAT, internet, NAT, player; and the way the datagrams take.
fn map(svg: &mut Svg, pair: &Pair, y: f64) {
    let (a, b) = (LEFT + 8.0, LEFT + 280.0);
    let (nat_a, nat_b, relay) = (a + 46.0, b - 46.0, (a + b) / 2.0);
    let lift = y - 16.0;
    svg.stroke("wire", [a, y], [nat_a, y]);
    svg.stroke("wire", [nat_b, y], [b, y]);
    if let Some(path) = pair.path {
        let class = path_class(path);
        let mut way = Outline::default();
        if path == Path::Direct {
            way.move_to([nat_a, y]).line_to([nat_b, y]);
        } else {
            way.move_to([nat_a, y])
                .curve_to([nat_a + 34.0, y], [relay - 44.0, lift], [relay, lift])
                .curve_to([relay + 44.0, lift], [nat_b - 34.0, y], [nat_b, y]);
        }
        svg.path(&format!("{class}-line way"), &way);
        if path != Path::Direct {
            svg.rect(
                &format!("{class}-fill"),
                [relay - 23.0, lift - 9.0, 46.0, 18.0],
                9.0,
            );
            svg.text(
                "badge middle",
                relay,
                lift + 4.0,
                if path == Path::Relay { "relay" } else { "tcp" },
            );
        }
    }
    if pair.cut.is_some() {
        svg.stroke("ghost", [nat_a + 6.0, y + 6.0], [nat_b - 6.0, y + 6.0]);
        let mut cross = Outline::default();
        cross
            .move_to([relay - 4.5, y + 1.5])
            .line_to([relay + 4.5, y + 10.5])
            .move_to([relay + 4.5, y + 1.5])
            .line_to([relay - 4.5, y + 10.5]);
        svg.path("cut-line", &cross);
    }
    for (x, side) in [(nat_a, &pair.sides[0]), (nat_b, &pair.sides[1])] {
        let class = if side.nat == "udpblock" {
            "gate shut"
        } else {
            "gate"
        };
        svg.rect(class, [x - 4.0, y - 13.0, 8.0, 26.0], 4.0);
    }
    for x in [a, b] {
        svg.circle("player", x, y, 8.0);
    }
}

/// One player's way to the connection: joining, gathering, checking, and the candidates found on it.
fn connect_row(svg: &mut Svg, pair: &Pair, side: &Side, y: f64, axis: &Axis) {
    svg.text("name end", axis.left - 12.0, y + 9.0, &side.name);
    let end = side.connected_ms.unwrap_or(axis.length);
    let joined = side.joined_ms.unwrap_or(end).min(end);
    let gathered = side.gathered_ms.unwrap_or(end).clamp(joined, end);
    let bar = 10.0;
    svg.rect(
        "track",
        [axis.left, y, axis.right - axis.left, bar],
        bar / 2.0,
    );
    let phases = [
        ("joining", 0.0, joined),
        ("gathering", joined, gathered),
        ("checking", gathered, end),
    ];
    for (class, from, to) in phases {
        svg.rect(
            class,
            [axis.x(from), y, axis.x(to) - axis.x(from), bar],
            0.0,
        );
    }
    if let Some(connected) = side.connected_ms {
        let class = pair.main_path().map_or("track", path_class);
        let x = axis.x(connected);
        svg.rect(&format!("{class}-fill"), [x, y, axis.right - x, bar], 0.0);
        svg.rect(
            &format!("{class}-fill"),
            [axis.right - bar, y, bar + 4.0, bar],
            bar / 2.0,
        );
        svg.circle("halo", x, y + bar / 2.0, 8.0);
        svg.circle(&format!("{class}-fill"), x, y + bar / 2.0, 5.0);
        // Beside the marks of the checks, or below them where there is no room.
        let (anchor, at, below) = if x > axis.right - 60.0 {
            ("end", axis.right, 31.0)
        } else {
            ("", x + 8.0, 26.0)
        };
        svg.text(
            &format!("when {anchor}"),
            at,
            y + below,
            &format!("{} ms", whole(connected)),
        );
    }
    for line in side.diary.iter().filter(|line| line.at_ms <= end) {
        let x = axis.x(line.at_ms);
        match line.kind {
            LineKind::Check => svg.stroke("tick", [x, y + bar + 3.0], [x, y + bar + 7.0]),
            LineKind::Answer => svg.stroke("answer", [x, y + bar + 2.0], [x, y + bar + 9.0]),
            LineKind::Note => {}
        }
    }
    let mut last = f64::NEG_INFINITY;
    for candidate in &side.candidates {
        // Candidates found in the same instant stand beside each other.
        let x = axis.x(candidate.at_ms).max(last + 9.0);
        last = x;
        dot(svg, candidate.kind, x, y - 8.0);
    }
}

/// A candidate: a ring, a ring with a core, a full dot; the further away the address, the fuller.
fn dot(svg: &mut Svg, kind: CandidateKind, x: f64, y: f64) {
    match kind {
        CandidateKind::Host => svg.circle("ring", x, y, 3.2),
        CandidateKind::Reflexive => {
            svg.circle("ring", x, y, 3.2);
            svg.circle("core", x, y, 1.4);
        }
        CandidateKind::Relayed => svg.circle("full", x, y, 3.8),
    }
}

/// The right column.
fn play(svg: &mut Svg, pair: &Pair, top: f64, axis: &Axis) {
    let zero = began(pair);
    if pair.path.is_none() {
        svg.text("failed", axis.left, top + 80.0, "never connected");
        return;
    }
    if let Some(cut) = pair.cut {
        silence(svg, &cut, zero, top, axis);
    }
    round_trips(svg, pair, zero, top, axis);
    band(svg, pair, zero, top + 84.0, axis);
    for (side, y) in pair.sides.iter().zip([top + 102.0, top + 117.0]) {
        messages(svg, pair, side, zero, y, axis);
    }
    if let Some(cut) = pair.cut {
        cut_marks(svg, &cut, zero, top, axis);
    }
}

/// The time between the cut and the first message over the other path, as a shade behind everything.
fn silence(svg: &mut Svg, cut: &Cut, zero: f64, top: f64, axis: &Axis) {
    let Some(moved) = cut.moved_ms else {
        return;
    };
    let (from, to) = (axis.x(cut.at_ms - zero), axis.x(moved - zero));
    svg.rect("silence", [from, top + 14.0, to - from, 118.0], 0.0);
}

fn cut_marks(svg: &mut Svg, cut: &Cut, zero: f64, top: f64, axis: &Axis) {
    let x = axis.x(cut.at_ms - zero);
    svg.stroke("cut-dash", [x, top + 14.0], [x, top + 132.0]);
    svg.text(
        "cut-label end",
        x - 7.0,
        top + 24.0,
        "direct path cut at the NAT",
    );
    if let Some((moved, gap)) = cut.moved_ms.zip(cut.gap_ms) {
        let x = axis.x(moved - zero);
        svg.text(
            "note",
            x + 7.0,
            top + 24.0,
            &format!("over the relay after {} ms of silence", whole(gap)),
        );
    }
}

/// Round trips as a line with its shade; the line takes the colour of the path it was measured on.
fn round_trips(svg: &mut Svg, pair: &Pair, zero: f64, top: f64, axis: &Axis) {
    let mut samples: Vec<(f64, f64)> = pair
        .sides
        .iter()
        .flat_map(|side| side.rtt.iter().copied())
        .collect();
    samples.sort_by(|a, b| a.0.total_cmp(&b.0));
    let samples = smoothed(&samples, axis.length / 64.0);
    let (floor, ceiling) = (top + 74.0, top + 34.0);
    let mut values: Vec<f64> = samples.iter().map(|sample| sample.1).collect();
    values.sort_by(f64::total_cmp);
    // One outlier must not flatten the rest: the scale ends a little above what 19 of 20 stay under.
    let Some(high) = values.get(values.len() * 19 / 20) else {
        return;
    };
    svg.text("tiny end", axis.left - 8.0, floor - 2.0, "round trip");
    let y = |rtt: f64| floor - (rtt / (high * 1.5)).min(1.0) * (floor - ceiling);
    for span in &pair.spans {
        let inside: Vec<[f64; 2]> = samples
            .iter()
            .filter(|(at, _)| (span.from_ms..span.to_ms).contains(at))
            .map(|(at, rtt)| [axis.x(at - zero), y(*rtt)])
            .collect();
        let (Some(first), Some(last)) = (inside.first(), inside.last()) else {
            continue;
        };
        let class = path_class(span.path);
        let (mut line, mut shade) = (Outline::default(), Outline::default());
        shade.move_to([first[0], floor]);
        line.move_to(*first);
        for point in &inside {
            line.line_to(*point);
            shade.line_to(*point);
        }
        shade.line_to([last[0], floor]).close();
        svg.path(&format!("{class}-shade"), &shade);
        svg.path(&format!("{class}-line rtt"), &line);
    }
}

/// Medians over stretches of `width` milliseconds.
fn smoothed(samples: &[(f64, f64)], width: f64) -> Vec<(f64, f64)> {
    let stretch = |at: f64| (at / width).floor();
    samples
        .chunk_by(|a, b| stretch(a.0) == stretch(b.0))
        .filter_map(|chunk| {
            let middle = chunk.get(chunk.len() / 2)?;
            let rtt = crate::output::median(chunk.iter().map(|sample| sample.1))?;
            Some((middle.0, rtt))
        })
        .collect()
}

/// The path in use, as a band.
fn band(svg: &mut Svg, pair: &Pair, zero: f64, y: f64, axis: &Axis) {
    for Span {
        path,
        from_ms,
        to_ms,
    } in &pair.spans
    {
        // A path that was cut is in use a while longer, and carries nothing.
        let dead_from = pair
            .cut
            .map_or(*to_ms, |cut| cut.at_ms.clamp(*from_ms, *to_ms));
        let alive_to = if *path == Path::Direct {
            dead_from
        } else {
            *to_ms
        };
        let (from, to) = (axis.x(from_ms - zero), axis.x(alive_to - zero));
        let class = path_class(*path);
        svg.rect(&format!("{class}-fill"), [from, y, to - from, 12.0], 2.0);
        svg.rect(
            &format!("{class}-shade"),
            [to, y, axis.x(to_ms - zero) - to, 12.0],
            2.0,
        );
        let label = path.to_string();
        if to - from > 70.0 {
            svg.text("band", from + 8.0, y + 9.4, &label);
        }
    }
}

/// Each reliable message of one direction as a hairline where it arrived.
fn messages(svg: &mut Svg, pair: &Pair, side: &Side, zero: f64, y: f64, axis: &Axis) {
    for span in &pair.spans {
        let mut hairs = Outline::default();
        for at in &side.arrivals_ms {
            if (span.from_ms..span.to_ms).contains(at) {
                let x = axis.x(at - zero);
                hairs.move_to([x, y]).line_to([x, y + 10.0]);
            }
        }
        svg.path(&format!("{}-line hair", path_class(span.path)), &hairs);
    }
    svg.text(
        "tiny end",
        axis.left - 8.0,
        y + 9.0,
        &format!("to {}", side.name),
    );
}

fn legend(svg: &mut Svg, height: f64) {
    let y = height - 44.0;
    let mut x = LEFT;
    for (kind, label, width) in [
        (CandidateKind::Host, "own address", 106.0),
        (CandidateKind::Reflexive, "outside of the NAT", 146.0),
        (CandidateKind::Relayed, "on the relay", 112.0),
    ] {
        dot(svg, kind, x + 4.0, y - 4.0);
        svg.text("legend", x + 15.0, y, label);
        x += width;
    }
    for (class, label, width) in [
        ("joining", "joining", 76.0),
        ("gathering", "gathering", 90.0),
        ("checking", "checking", 92.0),
        ("direct-fill", "direct", 72.0),
        ("relay-fill", "relay", 66.0),
        ("tcp-fill", "relay over tcp", 120.0),
    ] {
        svg.rect(class, [x, y - 9.0, 14.0, 10.0], 3.0);
        svg.text("legend", x + 20.0, y, label);
        x += width;
    }
    svg.stroke("hairs", [x + 4.0, y - 9.0], [x + 4.0, y + 1.0]);
    svg.stroke("hairs", [x + 9.0, y - 9.0], [x + 9.0, y + 1.0]);
    svg.text("legend", x + 18.0, y, "a reliable message arrives");
    svg.text(
        "legend",
        LEFT,
        y + 22.0,
        "STUN, TURN and signaling servers, SDK and sockets are real, on loopback; the NATs are emulated after RFC 4787. \
         Drawn by  rallypoint demo.",
    );
}

fn path_class(path: Path) -> &'static str {
    match path {
        Path::Direct => "direct",
        Path::Relay => "relay",
        Path::RelayOverTcp => "tcp",
    }
}

fn whole(value: f64) -> String {
    format!("{value:.0}")
}

/// Two digits that matter, as round trips on one machine and across an ocean both need.
fn short_ms(value: f64) -> String {
    if value < 10.0 {
        format!("{value:.2}")
    } else {
        whole(value)
    }
}

fn short(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

fn grouped(count: u32) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Light colours, and dark ones for who prefers them.
const STYLE: &str = include_str!("picture.css");

#[cfg(test)]
#[path = "picture/tests.rs"]
mod tests;
