//! What a game and a player may be called, the same on both sides of the wire.

use crate::limits;

/// Whether `game` is 1 to 64 of `a-z 0-9 . _ -`.
#[must_use]
pub fn is_game(game: &str) -> bool {
    let known =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    (1..=limits::GAME_BYTES).contains(&game.len()) && game.bytes().all(known)
}

/// Whether `name` may be shown to others: 1 to 64 characters, none of which controls the screen
/// or the direction of writing, no spaces at either end.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let mut chars = 0;
    for character in name.chars() {
        chars += 1;
        if chars > limits::NAME_CHARS || is_unprintable(character) {
            return false;
        }
    }
    chars > 0 && name.trim() == name
}

/// Control characters, line separators, and the invisible and bidirectional formatting characters
/// with which one name is made to look like another.
fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{00AD}'
                | '\u{061C}'
                | '\u{180E}'
                | '\u{200B}'..='\u{200F}'
                | '\u{2028}'..='\u{202E}'
                | '\u{2060}'..='\u{206F}'
                | '\u{FEFF}'
                | '\u{FFF9}'..='\u{FFFB}'
                | '\u{E0000}'..='\u{E007F}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_visible_text() {
        for good in ["Ann", "Żaneta 2", "玩家", "a"] {
            assert!(is_name(good), "{good:?}");
        }
        let long = "x".repeat(limits::NAME_CHARS + 1);
        for bad in [
            "",
            " ",
            " Ann",
            "Ann\n",
            "A\u{202E}nn",
            "A\u{200B}nn",
            "\u{1b}[2J",
            &long,
        ] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn games_are_lower_case_words() {
        assert!(is_game("tank") && is_game("my-game_2.0"));
        assert!(!is_game("") && !is_game("Tank") && !is_game("a b") && !is_game(&"x".repeat(65)));
        assert!(!is_game("a\0b"));
    }
}
