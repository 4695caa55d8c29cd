//! Answers for people: one fact a line, lists in columns. Users' names are theirs to choose, so nothing of them reaches the
//! terminal as it is.

use turn_relay::admin::{
    AllocationEntry, AllocationPage, Blocks, Drained, Levels, MissingShard, Quotas, ReloadOutcome,
    ShardState, Status, Unblocked, UserKicked,
};

/// A text without anything that a terminal obeys.
pub(super) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() {
                c.escape_debug().to_string()
            } else {
                c.to_string()
            }
        })
        .collect()
}

pub(super) fn status(status: &Status) -> String {
    let state = match (status.ready, status.draining, status.drain_seconds_left) {
        (_, true, Some(left)) => format!("draining, ends what is left in {left} s"),
        (_, true, None) => "draining".to_owned(),
        (true, false, _) => "ready".to_owned(),
        (false, false, _) => "not ready".to_owned(),
    };
    let mut lines = vec![
        format!(
            "rallypoint-turn {} ({}), up for {}: {state}",
            plain(&status.version),
            plain(&status.revision),
            duration(status.uptime_seconds)
        ),
        format!(
            "{} users, {} of them kept out",
            status.users, status.blocked_users
        ),
    ];
    let mut rows = vec![row([
        "shard",
        "allocations",
        "permissions",
        "channels",
        "TCP peers",
        "ports",
        "state",
    ]
    .map(str::to_owned))];
    for shard in &status.shards {
        let state = name_of(shard.state);
        let levels = shard.levels.as_ref();
        rows.push(levels_row(&shard.shard.to_string(), levels, state));
    }
    rows.push(levels_row("all", Some(&status.totals), ""));
    lines.extend(columns(&rows));
    lines.join("\n")
}

fn levels_row(name: &str, levels: Option<&Levels>, state: &str) -> Vec<String> {
    let of = |level: fn(&Levels) -> usize| {
        levels.map_or_else(|| "-".to_owned(), |levels| level(levels).to_string())
    };
    let ports = levels.map_or_else(
        || "-".to_owned(),
        |levels| format!("{}/{}", levels.ports_in_use, levels.ports_limit),
    );
    row([
        name.to_owned(),
        of(|levels| levels.allocations),
        of(|levels| levels.permissions),
        of(|levels| levels.channels),
        of(|levels| levels.peer_connections),
        ports,
        state.to_owned(),
    ])
}

/// Shards that have not answered.
pub(super) fn not_ok(status: &Status) -> Vec<MissingShard> {
    let missing = status
        .shards
        .iter()
        .filter(|shard| shard.state != ShardState::Ok);
    missing
        .map(|shard| MissingShard {
            shard: shard.shard,
            state: shard.state,
        })
        .collect()
}

pub(super) fn missing(missing: &[MissingShard]) -> String {
    let each = missing
        .iter()
        .map(|missing| format!("shard {} is {}", missing.shard, name_of(missing.state)));
    each.collect::<Vec<_>>().join(", ")
}

fn name_of(state: ShardState) -> &'static str {
    match state {
        ShardState::Ok => "ok",
        ShardState::Gone => "gone",
        ShardState::Silent => "silent",
    }
}

pub(super) fn allocations(page: &AllocationPage) -> String {
    if page.allocations.is_empty() {
        return "no allocations".to_owned();
    }
    let mut rows = vec![row([
        "id",
        "user",
        "client",
        "over",
        "relayed",
        "age",
        "to peers",
        "to client",
    ]
    .map(str::to_owned))];
    rows.extend(page.allocations.iter().map(allocation));
    let mut lines = columns(&rows);
    let more = if page.next.is_some() {
        ", and there are more"
    } else {
        ""
    };
    lines.push(format!("{} allocations{more}", page.allocations.len()));
    lines.join("\n")
}

fn allocation(entry: &AllocationEntry) -> Vec<String> {
    // Eight digits tell clients apart as well, for the eye.
    let hash = entry.client.hash.get(..8).unwrap_or(&entry.client.hash);
    let relayed: Vec<String> = entry.relayed.iter().map(|addr| plain(addr)).collect();
    let tcp = if entry.relays == "tcp" { " (TCP)" } else { "" };
    row([
        plain(&entry.id),
        plain(&entry.user),
        format!("{} {}", plain(&entry.client.network), plain(hash)),
        plain(&entry.transport),
        format!("{}{tcp}", relayed.join(" ")),
        duration(entry.age_seconds),
        bytes(entry.traffic.to_peer_bytes),
        bytes(entry.traffic.to_client_bytes),
    ])
}

pub(super) fn kicked(kicked: &UserKicked) -> String {
    let (ended, user) = (kicked.ended, plain(&kicked.user));
    match kicked.blocked_seconds {
        Some(seconds) => format!(
            "ended {ended} allocations of {user}, kept out for {}",
            duration(seconds)
        ),
        None => format!("ended {ended} allocations of {user}, who may come back"),
    }
}

pub(super) fn blocks(blocks: &Blocks) -> String {
    if blocks.blocked.is_empty() {
        return "nobody is kept out".to_owned();
    }
    let rows = blocks
        .blocked
        .iter()
        .map(|(user, left)| row([plain(user), duration(*left)]));
    columns(&rows.collect::<Vec<_>>()).join("\n")
}

pub(super) fn unblocked(unblocked: &Unblocked) -> String {
    let user = plain(&unblocked.user);
    if unblocked.was_blocked {
        format!("{user} may come back")
    } else {
        format!("{user} was not kept out")
    }
}

pub(super) fn quotas(quotas: &Quotas) -> String {
    let rows = quotas.quotas.iter().map(|(key, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), plain);
        row([plain(key), value])
    });
    let mut lines = columns(&rows.collect::<Vec<_>>());
    lines.push(plain(&quotas.note));
    lines.join("\n")
}

pub(super) fn drained(drained: &Drained) -> String {
    let left = drained.allocations;
    match (drained.draining, drained.seconds_left) {
        (true, Some(seconds)) => format!(
            "draining: {left} allocations left, ended in {}",
            duration(seconds)
        ),
        (true, None) => format!("draining: {left} allocations left"),
        (false, _) => format!("not draining: {left} allocations"),
    }
}

pub(super) fn reloaded(outcome: &ReloadOutcome) -> String {
    let list = |keys: &[String]| {
        if keys.is_empty() {
            "nothing".to_owned()
        } else {
            plain(&keys.join(", "))
        }
    };
    let changed = format!("changed: {}", list(&outcome.changed));
    if outcome.need_restart.is_empty() {
        return changed;
    }
    format!(
        "{changed}\nwaits for a restart: {}",
        list(&outcome.need_restart)
    )
}

fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

fn bytes(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units.into_iter().find(|(size, _)| bytes >= *size);
    match unit {
        Some((size, name)) => {
            let tenths = bytes / (size / 10).max(1);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

fn row<const N: usize>(cells: [String; N]) -> Vec<String> {
    cells.to_vec()
}

/// Rows whose cells begin below each other.
fn columns(rows: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths);
        let padded = cells.map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable() {
        let durations = [0, 59, 61, 3_600, 90_061].map(duration);
        let expected = ["0 s", "59 s", "1 min 1 s", "1 h 0 min", "1 d 1 h"];
        assert_eq!(durations, expected);
        let sizes = [0, 1_023, 1_536, 5 << 20, 3 << 30].map(bytes);
        assert_eq!(sizes, ["0 B", "1023 B", "1.5 KiB", "5.0 MiB", "3.0 GiB"]);
    }

    #[test]
    fn nothing_of_a_name_is_obeyed_by_a_terminal() {
        assert_eq!(plain("a\u{1b}[31m\nb\u{9b}ü"), "a\\u{1b}[31m\\nb\\u{9b}ü");
    }

    #[test]
    fn columns_begin_below_each_other() {
        let rows = [
            row(["a", "b"].map(str::to_owned)),
            row(["ääää", "c"].map(str::to_owned)),
        ];
        assert_eq!(columns(&rows), ["a     b", "ääää  c"]);
    }
}
