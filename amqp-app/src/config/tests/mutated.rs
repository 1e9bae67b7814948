//! A valid configuration with each single slip: loading never panics, and shows no secret.

use super::{SECRET, WHOLE};
use crate::config::{ConfigOptions, Format};

/// What a slip makes of a byte: what the formats give a meaning, and what they do not.
const REPLACEMENTS: &[u8] = b"\0\t\n\r \"#$',-./0:=@AXZ[\\]_`az{}~";

fn check(text: &str, options: &ConfigOptions) -> bool {
    match options.parse(Format::Toml, text) {
        Ok(config) => {
            assert!(!format!("{config:?}").contains(SECRET), "{text}");
            true
        }
        Err(error) => {
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains(SECRET), "{shown}\n{text}");
            assert!(!error.message().is_empty(), "{text}");
            false
        }
    }
}

#[test]
fn gr_20_no_slip_panics_or_shows_a_secret() {
    let (mut valid, mut invalid) = (0, 0);
    for options in [ConfigOptions::new(), ConfigOptions::new().environment("test")] {
        let mut count = |text: &str| {
            let counter = if check(text, &options) { &mut valid } else { &mut invalid };
            *counter += 1;
        };
        for at in 0..WHOLE.len() {
            let (before, behind) = WHOLE.as_bytes().split_at(at);
            count(&String::from_utf8_lossy(before));
            // One byte is missing, one is doubled, one is another one.
            count(&String::from_utf8_lossy(&[before, &behind[1..]].concat()));
            count(&String::from_utf8_lossy(&[before, &behind[..1], behind].concat()));
            for byte in REPLACEMENTS {
                count(&String::from_utf8_lossy(&[before, &[*byte], &behind[1..]].concat()));
            }
        }
    }
    assert!(valid > 1_000 && invalid > 10_000, "{valid} {invalid}");
}

#[test]
fn gr_20_no_slip_in_a_variable_panics() {
    for name in ["AMQP_APP__CONNECTION__PASSWORD", "AMQP_APP__CONSUME__ORDERS__RETRY__AFTER"] {
        for at in 0..=name.len() {
            for byte in ["", "_", "__", "a", "é", "=", "."] {
                let name = format!("{}{byte}{}", &name[..at], &name[at..]);
                check(WHOLE, &ConfigOptions::new().variables([(name, SECRET)]));
            }
        }
    }
}
