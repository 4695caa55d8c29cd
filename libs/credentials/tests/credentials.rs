//! Minting and verifying, with values computed elsewhere.
//!
//! The passwords come from Python:
//! `base64.b64encode(hmac.new(key, username, hashlib.sha1).digest())`.

use credentials::{Credential, CredentialError, Secret, Secrets, mint};
use proptest::prelude::*;

const EXPIRY: u64 = 1_700_000_000;
const CURRENT: &[u8] = b"a secret of thirty-two bytes ....";
const PREVIOUS: &[u8] = b"the secret of last month, rotated";

fn secret(id: Option<&str>, key: &[u8]) -> Secret {
    Secret {
        id: id.map(Into::into),
        key: key.into(),
    }
}

fn rotated() -> Secrets {
    Secrets::new(vec![
        secret(Some("k1"), CURRENT),
        secret(Some("k0"), PREVIOUS),
    ])
}

fn passwords(secrets: &Secrets, username: &str) -> Vec<String> {
    let candidates = secrets
        .password_for(username, EXPIRY - 1)
        .expect("a good username");
    candidates
        .passwords()
        .map(|password| password.as_str().to_owned())
        .collect()
}

#[test]
fn minted_credentials_have_the_common_form() {
    for (id, key, username, password) in [
        (
            Some("k1"),
            CURRENT,
            "1700000000:k1:alice",
            "V5oYy1Nf96toSJs4Fr/uI4bemBo=",
        ),
        (
            None,
            CURRENT,
            "1700000000:alice",
            "QCtUebDY9e1eKgztxJe5CE77Rhc=",
        ),
        (
            Some("k0"),
            PREVIOUS,
            "1700000000:k0:alice",
            "1pJiwcmUzTVCTmAbUd18Q4XcrI0=",
        ),
    ] {
        let expected = Credential {
            username: username.into(),
            password: password.into(),
        };
        assert_eq!(mint(&secret(id, key), "alice", EXPIRY), expected);
    }
}

#[test]
fn known_key_id_means_exactly_that_secret() {
    assert_eq!(
        passwords(&rotated(), "1700000000:k1:alice"),
        ["V5oYy1Nf96toSJs4Fr/uI4bemBo="]
    );
    assert_eq!(
        passwords(&rotated(), "1700000000:k0:alice"),
        ["1pJiwcmUzTVCTmAbUd18Q4XcrI0="]
    );
}

#[test]
fn without_a_known_key_id_every_listed_secret_is_tried() {
    for username in [
        "1700000000:alice",
        "1700000000:k9:alice",
        "1700000000",
        "1700000000:",
    ] {
        let expected: Vec<_> = [CURRENT, PREVIOUS]
            .map(|key| hmac_of(key, username))
            .into_iter()
            .collect();
        assert_eq!(passwords(&rotated(), username), expected, "{username}");
    }
    assert!(passwords(&rotated(), "1700000000").contains(&"qV1BsmQtJInCMVODWRIJHvuA9e0=".into()));
}

#[test]
fn retired_secret_no_longer_opens_anything() {
    let old = mint(&secret(Some("k0"), PREVIOUS), "alice", EXPIRY);
    assert!(passwords(&rotated(), &old.username).contains(&old.password));
    let after = Secrets::new(vec![secret(Some("k1"), CURRENT)]);
    assert!(!passwords(&after, &old.username).contains(&old.password));
}

#[test]
fn credential_is_good_until_the_second_of_its_expiry() {
    let at = |now| {
        rotated()
            .password_for("1700000000:k1:alice", now)
            .map(|found| found.expiry())
    };
    assert_eq!(at(0), Ok(EXPIRY));
    assert_eq!(at(EXPIRY - 1), Ok(EXPIRY));
    assert_eq!(at(EXPIRY), Err(CredentialError::Expired));
    assert_eq!(at(u64::MAX), Err(CredentialError::Expired));
}

#[test]
fn usernames_of_another_form_are_malformed() {
    for username in [
        "alice",
        "",
        ":",
        "k1:alice",
        "17000x0000:k1:alice",
        "99999999999999999999:alice",
    ] {
        let refused = rotated().password_for(username, 0).map(|_| ());
        assert_eq!(refused, Err(CredentialError::Malformed), "{username:?}");
        assert_eq!(
            rotated().subject(username),
            Err(CredentialError::Malformed),
            "{username:?}"
        );
    }
}

#[test]
fn without_secrets_nothing_is_good() {
    let refused = Secrets::default()
        .password_for("1700000000:alice", 0)
        .map(|_| ());
    assert_eq!(refused, Err(CredentialError::UnknownKey));
    assert!(Secrets::default().is_empty());
}

#[test]
fn one_subject_is_one_user_whatever_expiry_and_key() {
    for (username, subject) in [
        ("1700000000:k1:alice", "alice"),
        ("1800000000:k0:alice", "alice"),
        ("5:alice", "alice"),
        ("1700000000:k1:room:7", "room:7"),
        ("1700000000:k9:alice", "k9:alice"),
        ("1700000000:", "1700000000:"),
        ("1700000000:k1:", "1700000000:k1:"),
        ("1700000000", "1700000000"),
    ] {
        assert_eq!(rotated().subject(username), Ok(subject), "{username}");
        let found = rotated()
            .password_for(username, 0)
            .map(|found| found.subject().to_owned());
        assert_eq!(found.as_deref(), Ok(subject), "{username}");
    }
}

#[test]
fn first_of_two_secrets_with_one_id_counts() {
    let twice = Secrets::new(vec![
        secret(Some("k"), CURRENT),
        secret(Some("k"), PREVIOUS),
    ]);
    assert_eq!(
        passwords(&twice, "1700000000:k:x"),
        [hmac_of(CURRENT, "1700000000:k:x")]
    );
}

#[test]
fn nothing_printed_holds_a_secret_or_a_password() {
    let credential = mint(&secret(Some("k1"), CURRENT), "alice", EXPIRY);
    let secrets = rotated();
    let candidates = secrets.password_for(&credential.username, 0).expect("good");
    let password = candidates.passwords().next().expect("one");
    let printed = format!("{secrets:?} {candidates:?} {credential:?} {password:?}");
    assert!(!printed.contains(&credential.password), "{printed}");
    assert!(!printed.contains("thirty-two"), "{printed}");
    assert!(!printed.contains("97, 32, 115"), "{printed}");
}

proptest! {
    #[test]
    fn what_is_minted_is_found(
        subject in "[^:]{1,40}(:[^:]{0,9})?",
        expiry in 1..u64::MAX,
        index in 0..2_usize,
    ) {
        let listed = [secret(Some("k1"), CURRENT), secret(Some("k0"), PREVIOUS)];
        let credential = mint(&listed[index], &subject, expiry);
        let secrets = Secrets::new(listed.to_vec());
        let found = secrets.password_for(&credential.username, expiry - 1).expect("good");
        prop_assert_eq!(found.subject(), subject.as_str());
        prop_assert_eq!(found.expiry(), expiry);
        let passwords: Vec<_> = found.passwords().collect();
        prop_assert_eq!(passwords.len(), 1);
        prop_assert_eq!(passwords[0].as_str(), credential.password);
    }

    #[test]
    fn no_username_panics(username in ".{0,80}", now: u64) {
        let _ = rotated().password_for(&username, now);
        let _ = rotated().subject(&username);
    }
}

/// The password by the definition, through [`mint`] with a secret that has no id.
fn hmac_of(key: &[u8], username: &str) -> String {
    let (expiry, subject) = username.split_once(':').unwrap_or((username, ""));
    if username.contains(':') {
        return mint(
            &secret(None, key),
            subject,
            expiry.parse().expect("a number"),
        )
        .password;
    }
    // `mint` always writes a colon; these two are Python's.
    match key {
        CURRENT => "qV1BsmQtJInCMVODWRIJHvuA9e0=".into(),
        _ => "GcS4rK4NLa+RdbgI0x9jukJw+6s=".into(),
    }
}
