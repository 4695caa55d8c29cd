//! `rallypoint demo`: four pairs of players behind emulated NATs, from nothing to encrypted messages, and through a cut.
//!
//! - [`pairs`]: who sits behind what, and what theory promises them.
//! - [`home`]: a NAT'd network of real loopback sockets for the SDK.
//! - [`player`]: a player's thread, reporting what happens.
//! - [`board`] and [`record`]: the reports, gathered and judged.
//! - [`view`], [`words`], [`picture`]: told live, in lines, as `demo.svg`.

mod board;
mod home;
mod pairs;
mod picture;
mod player;
mod record;
mod svg;
mod view;
mod words;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use net_io::clock;
use tokio::runtime::Runtime;

use crate::args::DemoArgs;
use crate::output;
use crate::services::{Ports, Services, ServicesError};
use board::{Board, Happening};
use home::{Home, Line};
use pairs::PAIRS;
use player::Seat;
use record::Record;
use view::View;

/// Between two pairs' starts, so that one pair's figures are not the other's load.
const STAGGER: Duration = Duration::from_millis(300);
/// When a player gives up. An idle machine needs a quarter of it.
const DEADLINE: Duration = Duration::from_secs(25);
/// Between two drawings of the view.
const REDRAW: Duration = Duration::from_millis(50);

/// Why the demo did not end well.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The services did not start.
    #[error(transparent)]
    Services(#[from] ServicesError),
    /// The system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was to be done.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody asked to end.
    #[error("ended before the players were done")]
    Interrupted,
    /// A pair did not do what it should.
    #[error("the demo failed:\n  {}", .0.join("\n  "))]
    Expectations(Vec<String>),
}

/// Runs the demo.
///
/// # Errors
/// What failed: a service, the terminal, a file, or an expectation.
pub fn run(args: &DemoArgs) -> Result<(), DemoError> {
    std::fs::create_dir_all(&args.out).map_err(|source| failed(args.out.display(), source))?;
    let started = clock::mono();
    let runtime = Runtime::new().map_err(|source| failed("cannot start a runtime", source))?;
    let services = runtime.block_on(Services::start(Ports::any_on_loopback()))?;
    let outcome = watch(args, &runtime, &services.signal_url(), started);
    runtime.block_on(services.shutdown());
    let record = outcome?;

    let svg = args.out.join("demo.svg");
    let json = args.out.join("demo.json");
    write(&svg, picture::draw(&record))?;
    write(&json, json_of(&record))?;
    output::line("");
    output::line(&words::table(&record));
    output::line(&format!("wrote {} and {}", svg.display(), json.display()));
    if record.ok {
        output::line(&format!(
            "every pair took its expected path, in {:.1} s",
            record.elapsed_ms / 1000.0
        ));
        Ok(())
    } else {
        Err(DemoError::Expectations(record.failures))
    }
}

/// Lets everybody play and follows them.
fn watch(
    args: &DemoArgs,
    runtime: &Runtime,
    signal_url: &str,
    started: Instant,
) -> Result<Record, DemoError> {
    let interrupted = interruption(runtime);
    let (sender, happenings) = channel();
    let players = seat_players(signal_url, &sender, &interrupted)?;
    drop(sender);
    let mut board = Board::new(&PAIRS);
    let followed = if args.is_live() {
        follow_live(&mut board, &happenings, &interrupted, started)
    } else {
        follow_in_lines(&mut board, &happenings, &interrupted)
    };
    // Players that are still there see their deadline or the end of the process; waiting for them would hang a Ctrl-C.
    followed?;
    for player in players {
        let _ = player.join();
    }
    Ok(judge(
        board.finish(),
        clock::mono().saturating_duration_since(started),
    ))
}

fn judge(pairs: Vec<record::Pair>, elapsed: Duration) -> Record {
    let failures: Vec<_> = pairs.iter().flat_map(record::Pair::failures).collect();
    Record {
        version: env!("CARGO_PKG_VERSION"),
        network: "loopback, NATs emulated (RFC 4787)",
        elapsed_ms: elapsed.as_secs_f64() * 1000.0,
        ok: failures.is_empty(),
        failures,
        pairs,
    }
}

/// Raised by SIGINT or SIGTERM.
fn interruption(runtime: &Runtime) -> Arc<AtomicBool> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&interrupted);
    runtime.spawn(async move {
        ops::shutdown::signal().await;
        raised.store(true, Ordering::SeqCst);
    });
    interrupted
}

/// A thread that starts each pair in its turn.
fn seat_players(
    signal_url: &str,
    happenings: &Sender<Happening>,
    interrupted: &Arc<AtomicBool>,
) -> Result<Vec<JoinHandle<()>>, DemoError> {
    let mut threads = Vec::new();
    let begin = clock::mono();
    for (pair, plan) in PAIRS.iter().enumerate() {
        let done = Arc::new(AtomicU8::new(0));
        let room = format!("demo-{}", random_word()?);
        for (side, (name, nat)) in plan.names.into_iter().zip(plan.nats).enumerate() {
            let number = u8::try_from(2 * pair + side).unwrap_or(u8::MAX);
            let seat = Seat {
                pair,
                side,
                name,
                signal: signal_url.to_owned(),
                room: room.clone(),
                home: Home::new(nat, Line::of_home(number), random_seed()?),
                cuts: plan.cut && side == 0,
                deadline: begin + DEADLINE,
                interrupted: Arc::clone(interrupted),
                happenings: happenings.clone(),
                done: Arc::clone(&done),
            };
            let turn = STAGGER * u32::try_from(pair).unwrap_or(0);
            let thread = std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || {
                    std::thread::sleep(turn);
                    player::play(seat);
                });
            threads.push(thread.map_err(|source| failed("cannot start a player", source))?);
        }
    }
    Ok(threads)
}

fn follow_in_lines(
    board: &mut Board,
    happenings: &Receiver<Happening>,
    interrupted: &AtomicBool,
) -> Result<(), DemoError> {
    let mut last_pair = usize::MAX;
    follow(board, happenings, interrupted, |board, news| {
        for happening in news {
            let Some(line) = words::line_of(board, happening) else {
                continue;
            };
            if happening.pair != last_pair {
                last_pair = happening.pair;
                let name = board.pairs.get(last_pair).map(|pair| pair.name.as_str());
                output::line(&format!("-- {}", name.unwrap_or_default()));
            }
            output::line(&line);
        }
        Ok(())
    })
}

fn follow_live(
    board: &mut Board,
    happenings: &Receiver<Happening>,
    interrupted: &AtomicBool,
    started: Instant,
) -> Result<(), DemoError> {
    let mut view = View::open().map_err(|source| failed("the terminal", source))?;
    follow(board, happenings, interrupted, |board, _| {
        board.pairs.iter_mut().for_each(board::summarise);
        let elapsed = clock::mono().saturating_duration_since(started);
        view.draw(&board.pairs, elapsed)
            .map_err(|source| failed("the terminal", source))?;
        if View::wants_to_end().map_err(|source| failed("the terminal", source))? {
            return Err(DemoError::Interrupted);
        }
        Ok(())
    })
}

/// Applies what happens until all players have left, and shows each step.
fn follow(
    board: &mut Board,
    happenings: &Receiver<Happening>,
    interrupted: &AtomicBool,
    mut show: impl FnMut(&mut Board, &[Happening]) -> Result<(), DemoError>,
) -> Result<(), DemoError> {
    while !board.is_over() {
        let mut news = Vec::new();
        match happenings.recv_timeout(REDRAW) {
            Ok(first) => {
                // The view is drawn once for all that came in the meantime.
                std::thread::sleep(REDRAW / 2);
                news.push(first);
                news.extend(happenings.try_iter());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        for happening in &news {
            board.apply(happening);
        }
        show(board, &news)?;
        if interrupted.load(Ordering::SeqCst) {
            return Err(DemoError::Interrupted);
        }
    }
    Ok(())
}

fn random_seed() -> Result<[u8; 32], DemoError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| failed("no randomness", io::Error::other(error)))?;
    Ok(seed)
}

fn random_word() -> Result<String, DemoError> {
    let seed = random_seed()?;
    Ok(seed
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

fn json_of(record: &Record) -> String {
    let mut text = serde_json::to_string_pretty(record).expect("a record is plain data");
    text.push('\n');
    text
}

fn write(path: &Path, text: String) -> Result<(), DemoError> {
    std::fs::write(path, text).map_err(|source| failed(path.display(), source))
}

fn failed(what: impl ToString, source: io::Error) -> DemoError {
    DemoError::System {
        what: what.to_string(),
        source,
    }
}
