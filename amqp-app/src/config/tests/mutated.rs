//! A valid configuration with each single slip: loading never panics, and shows no secret.

use super::{SECRET, WHOLE};
use crate::config::{ConfigOptions, Format};
use crate::limits::CONFIG_FILE_BYTES;

/// What a slip makes of a byte: what the formats give a meaning, and what they do not.
const REPLACEMENTS: &[u8] = b"\0\t\n\r \"#$',-./0:;<=>@AXZ[\\]_`az{}~";

fn check(format: Format, text: &str, options: &ConfigOptions) -> bool {
    match options.parse(format, text) {
        Ok(config) => {
            let shown = format!("{config:?} {:?}", config.ignored());
            assert!(!shown.contains(SECRET), "{shown}\n{text}");
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

/// Parses a text with each single slip, in each environment.
pub(super) fn slips(format: Format, whole: &str) {
    let (mut valid, mut invalid) = (0, 0);
    for options in [ConfigOptions::new(), ConfigOptions::new().environment("test")] {
        let mut count = |text: &[u8]| {
            let is_valid = check(format, &String::from_utf8_lossy(text), &options);
            *if is_valid { &mut valid } else { &mut invalid } += 1;
        };
        for at in 0..whole.len() {
            let (before, behind) = whole.as_bytes().split_at(at);
            count(before);
            // One byte is missing, one is doubled, one is another one.
            count(&[before, &behind[1..]].concat());
            count(&[before, &behind[..1], behind].concat());
            for byte in REPLACEMENTS {
                count(&[before, &[*byte], &behind[1..]].concat());
            }
        }
    }
    assert!(valid > 1_000 && invalid > 1_000, "{valid} {invalid}");
}

#[test]
fn gr_20_no_slip_panics_or_shows_a_secret() {
    slips(Format::Toml, WHOLE);
}

#[test]
fn gr_20_no_slip_in_a_variable_panics() {
    for name in ["AMQP_APP__CONNECTION__PASSWORD", "AMQP_APP__CONSUME__ORDERS__RETRY__AFTER"] {
        for at in 0..=name.len() {
            for byte in ["", "_", "__", "a", "é", "=", "."] {
                let name = format!("{}{byte}{}", &name[..at], &name[at..]);
                let options = ConfigOptions::new().variables([(name, SECRET)]);
                check(Format::Toml, WHOLE, &options);
            }
        }
    }
}

/// What is nested as deeply as a file can be long is an error, and overflows no stack.
#[test]
fn gr_20_deep_nesting_is_an_error() {
    let depth = CONFIG_FILE_BYTES / 3;
    for text in [
        format!("settings.a = {}", "[".repeat(depth)),
        format!("settings.a = {}1{}", "[".repeat(depth), "]".repeat(depth)),
        format!("settings.a = {}", "{a=".repeat(depth)),
        format!("settings{} = 1", ".a".repeat(depth)),
        format!("[settings{}]\nb = 1", ".a".repeat(depth)),
        format!("settings.x = {{ a{} = 1 }}", ".a".repeat(depth)),
    ] {
        let start = &text[..20];
        assert!(!check(Format::Toml, &text, &ConfigOptions::new()), "{start}");
    }
    let name = format!("AMQP_APP__SETTINGS{}", "__A".repeat(depth));
    assert!(!check(Format::Toml, "", &ConfigOptions::new().variables([(name, "1")])));
}
