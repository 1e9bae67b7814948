//! The names of files for messages: a pattern, and what a message may put into it. Without I/O.
//!
//! Publishers choose the values. They are encoded so that none of them reaches another directory, and so that different values of a
//! variable are written differently, within limits that [`file_name`] names.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use amqp_async::Properties;

use super::error::PatternError;
use crate::ids;
use crate::limits::{DATE_BYTES, NAME_BYTES, SHORTENED_BYTES, UNIQUE_BYTES};

/// The header that names the file of which a message was made.
pub(crate) const X_FILENAME: &str = "X-Filename";

/// What stands for an empty routing key.
const EMPTY: &str = "_";

/// What a header's file has in its name, before the extension.
const HEADER: &str = ".header";

/// Returns the name of a file for a message: a path below a directory, with `/` between its names.
///
/// | variable | value |
/// | --- | --- |
/// | `${date}` | the day of the message's timestamp, and without one today, in UTC: `2011-07-14` |
/// | `${msgid}` | the message id |
/// | `${xfilename}` | the header `X-Filename` |
/// | `${routing_key}` | the routing key |
/// | `${unique}` | the time in microseconds, a random number of the process, and a counter: no other name has it |
///
/// `{date}` is the same as `${date}`, and `$$` is a dollar sign. Only a `/` of the pattern begins a sub-directory.
///
/// Values of a message never do. These characters are written as `%` and two hexadecimal digits, on every system: `/`, `\`,
/// `%`, `~`, `:`, `*`, `?`, `"`, `<`, `>`, `|`, control characters of ASCII, and a dot at the beginning or, like a space, at the end
/// of a name. A value that would make a name too long for a file system is cut, and ends with `~` and a hash of the whole value.
///
/// A message without an id has the unique part in place of `${msgid}`, and so has one without a text in `X-Filename`. An empty
/// routing key is `_`, and a value that is `_` is `%5F`. A name that would be that of a [file with a header](header_name) has `%68` in
/// place of the `h` of `header`.
///
/// So different values of a variable are written differently, within these limits:
///
/// * The hash has 64 bits, and is not a cryptographic one. A publisher can make two long values with the same hash.
/// * A file system that ignores case takes `a` and `A` for the same. A [`Writer`](crate::files::Writer) stores them one after the other.
/// * A file system that ignores Unicode normalisation takes both forms of `é` for the same. A writer does not: use `${unique}` there.
/// * Names of Windows devices, such as `CON`, are not encoded. Begin the pattern with a text there.
/// * Control characters beyond ASCII are not encoded.
///
/// ```
/// use amqp_app::files::file_name;
/// use amqp_app::prelude::*;
///
/// let properties = Properties::new().message_id("../7").timestamp(1_310_652_900_u64);
/// let name = file_name("${routing_key}/${date}/{msgid}.xml", "order.created", &properties)?;
/// assert_eq!(name, "order.created/2011-07-14/%2E.%2F7.xml");
/// # Ok::<(), amqp_app::files::PatternError>(())
/// ```
///
/// # Errors
/// [`PatternError`] if the pattern cannot be used.
pub fn file_name(
    pattern: &str,
    routing_key: &str,
    properties: &Properties,
) -> Result<String, PatternError> {
    Ok(Pattern::parse(pattern)?.name(routing_key, properties))
}

/// Returns the name of the file that has the header of a message whose body is in the file `name`: `order.xml` has
/// `order.header.xml`.
pub fn header_name(name: &str) -> String {
    let (stem, extension) = split_extension(name);
    format!("{stem}{HEADER}{extension}")
}

/// Returns whether this is the name of a file that has the header of a message.
pub fn is_header_name(name: &str) -> bool {
    header_dot(name).is_some()
}

/// The place of the dot before `header`, if it is at the end of the name, or before the extension.
fn header_dot(name: &str) -> Option<usize> {
    let begins = name.rfind('/').map_or(0, |slash| slash + 1);
    [name, split_extension(name).0].into_iter().find_map(|name| {
        let dot = name.len().checked_sub(HEADER.len()).filter(|dot| *dot > begins)?;
        // A file system may take both cases for the same.
        name.get(dot..)?.eq_ignore_ascii_case(HEADER).then_some(dot)
    })
}

/// The name without its extension, and that with its dot.
fn split_extension(name: &str) -> (&str, &str) {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[file..].rfind('.') {
        Some(dot) if dot > 0 => name.split_at(file + dot),
        _ => (name, ""),
    }
}

/// A pattern that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// Those of the directories, and that of the file.
    names: Vec<Vec<Piece>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Variable(Variable),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variable {
    Date,
    MessageId,
    XFilename,
    RoutingKey,
    Unique,
}

impl Default for Pattern {
    fn default() -> Self {
        let text = Piece::Text("-".to_owned());
        let [key, unique] = [Variable::RoutingKey, Variable::Unique].map(Piece::Variable);
        Self { names: vec![vec![key, text, unique]] }
    }
}

impl Pattern {
    pub(crate) fn parse(pattern: &str) -> Result<Self, PatternError> {
        let names = pattern.split('/').map(|part| parse_name(pattern, part));
        Ok(Self { names: names.collect::<Result<_, _>>()? })
    }

    /// The name for a message.
    pub(crate) fn name(&self, routing_key: &str, properties: &Properties) -> String {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.name_at(since, routing_key, properties)
    }

    fn name_at(&self, now: Duration, routing_key: &str, properties: &Properties) -> String {
        let unique = ids::unique_at(now.as_micros());
        let date = date(properties.timestamp.unwrap_or(now.as_secs()));
        let values = Values { unique, date, routing_key, properties };
        let mut path = String::new();
        for (place, pieces) in self.names.iter().enumerate() {
            if place > 0 {
                path.push('/');
            }
            path.push_str(&values.name(pieces));
        }
        // Twice, if it is at the end and before the extension.
        while let Some(dot) = header_dot(&path) {
            let code = format!("%{:02X}", path.as_bytes()[dot + 1]);
            path.replace_range(dot + 1..dot + 2, &code);
        }
        path
    }
}

fn parse_name(pattern: &str, part: &str) -> Result<Vec<Piece>, PatternError> {
    let owned = || pattern.to_owned();
    if part.is_empty() || part.starts_with('.') {
        return Err(PatternError::Part { pattern: owned(), part: part.to_owned() });
    }
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = part;
    while let Some(character) = rest.chars().next() {
        let after = &rest[character.len_utf8()..];
        let named = match character {
            '{' => after,
            '$' if after.starts_with('{') => &after[1..],
            '$' if after.starts_with('$') => {
                text.push('$');
                rest = &after[1..];
                continue;
            }
            '$' | '}' => return Err(PatternError::Lone { pattern: owned(), character }),
            _ if needs_code(character) && !matches!(character, '%' | '~') => {
                return Err(PatternError::Character { pattern: owned(), character });
            }
            _ => {
                text.push(character);
                rest = after;
                continue;
            }
        };
        let Some((name, after)) = named.split_once('}') else {
            return Err(PatternError::Unclosed { pattern: owned(), rest: rest.to_owned() });
        };
        let variable = match name {
            "date" => Variable::Date,
            "msgid" => Variable::MessageId,
            "xfilename" => Variable::XFilename,
            "routing_key" => Variable::RoutingKey,
            "unique" => Variable::Unique,
            _ => return Err(PatternError::Unknown { pattern: owned(), name: name.to_owned() }),
        };
        if !text.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
        }
        pieces.push(Piece::Variable(variable));
        rest = after;
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    let least: usize = pieces.iter().map(Piece::least).sum();
    if least > NAME_BYTES {
        return Err(PatternError::TooLong { pattern: owned(), part: part.to_owned() });
    }
    Ok(pieces)
}

impl Piece {
    /// The bytes that it needs at least, however long its value is.
    fn least(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Variable(Variable::Date) => DATE_BYTES,
            Self::Variable(Variable::Unique) => UNIQUE_BYTES,
            Self::Variable(_) => SHORTENED_BYTES,
        }
    }
}

/// What a message and the time say.
struct Values<'a> {
    unique: String,
    date: String,
    routing_key: &'a str,
    properties: &'a Properties,
}

impl Values<'_> {
    /// A name of the pattern, with the values in it.
    fn name(&self, pieces: &[Piece]) -> String {
        let last = pieces.len() - 1;
        let mut written: Vec<(Cow<'_, str>, bool)> = Vec::new();
        for (place, piece) in pieces.iter().enumerate() {
            written.push(match piece {
                Piece::Text(text) => (Cow::Borrowed(text.as_str()), false),
                Piece::Variable(variable) => match self.value(*variable) {
                    Some(value) => (Cow::Owned(encode(value, place == 0, place == last)), true),
                    None if *variable == Variable::Date => (Cow::Borrowed(&*self.date), false),
                    None if *variable == Variable::RoutingKey => (Cow::Borrowed(EMPTY), true),
                    None => (Cow::Borrowed(&*self.unique), *variable != Variable::Unique),
                },
            });
        }
        let length: usize = written.iter().map(|(text, _)| text.len()).sum();
        if length > NAME_BYTES {
            let values = written.iter().filter(|(_, is_value)| *is_value).count().max(1);
            let fixed: usize =
                written.iter().filter(|(_, is_value)| !is_value).map(|(text, _)| text.len()).sum();
            let share = NAME_BYTES.saturating_sub(fixed) / values;
            for (text, is_value) in &mut written {
                if *is_value && text.len() > share {
                    *text = Cow::Owned(shorten(text, share));
                }
            }
        }
        written.iter().map(|(text, _)| &**text).collect()
    }

    /// What the message says. `None` for what it does not say.
    fn value(&self, variable: Variable) -> Option<&str> {
        let text = match variable {
            Variable::Date | Variable::Unique => return None,
            Variable::MessageId => self.properties.message_id.as_deref(),
            Variable::XFilename => {
                self.properties.headers.as_ref().and_then(|it| it.get(X_FILENAME)?.as_str())
            }
            Variable::RoutingKey => Some(self.routing_key),
        };
        text.filter(|text| !text.is_empty())
    }
}

/// Whether a character of a value is written in hexadecimal digits.
fn needs_code(character: char) -> bool {
    character.is_ascii_control()
        || matches!(character, '/' | '\\' | '%' | '~' | ':' | '*' | '?' | '"' | '<' | '>' | '|')
}

fn encode(value: &str, is_first: bool, is_last: bool) -> String {
    let mut encoded = String::with_capacity(value.len());
    for (place, character) in value.char_indices() {
        let begins = is_first && place == 0 && character == '.';
        let ends = is_last
            && place + character.len_utf8() == value.len()
            && matches!(character, '.' | ' ');
        if begins || ends || value == EMPTY || needs_code(character) {
            // All of these are ASCII.
            let _ = write!(encoded, "%{:02X}", u32::from(character));
        } else {
            encoded.push(character);
        }
    }
    encoded
}

/// Cuts an encoded value to this many bytes. What is cut off is in the hash.
pub(crate) fn shorten(encoded: &str, most: usize) -> String {
    let mut end = most.saturating_sub(SHORTENED_BYTES);
    while !encoded.is_char_boundary(end) {
        end -= 1;
    }
    // Not within `%2F`.
    for back in 1..=2 {
        if end >= back && encoded.as_bytes()[end - back] == b'%' {
            end -= back;
            break;
        }
    }
    format!("{}~{:016x}", &encoded[..end], hash(encoded.as_bytes()))
}

/// FNV-1a: the same in every process and version, unlike those of the standard library.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, mix)
}

/// The day of a time, in UTC (the proleptic Gregorian calendar; algorithm `civil_from_days` of Howard Hinnant).
fn date(seconds: u64) -> String {
    // Days since 1 March of year 0, and eras of 400 years.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + next)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use amqp_async::{FieldTable, FieldValue, Properties};

    use super::{Pattern, date, header_name, is_header_name};
    use crate::files::PatternError;
    use crate::limits::{DATE_BYTES, NAME_BYTES, UNIQUE_BYTES};

    fn named(x_filename: impl Into<FieldValue>) -> Properties {
        Properties::new().headers(FieldTable::from([("X-Filename", x_filename.into())]))
    }

    fn name(pattern: &str, key: &str, properties: &Properties) -> String {
        let now = Duration::from_micros(1_310_652_900_123_456);
        Pattern::parse(pattern).unwrap().name_at(now, key, properties)
    }

    #[test]
    fn a_pattern_has_the_variables_of_the_original() {
        let properties = named("in.xml").message_id("myid").timestamp(1_310_652_900_u64);
        for (pattern, expected) in [
            ("foo", "foo"),
            ("foo/bar/baz.xml", "foo/bar/baz.xml"),
            ("${date}", "2011-07-14"),
            ("{date}/${msgid}.{xfilename}", "2011-07-14/myid.in.xml"),
            ("${routing_key}/{routing_key}", "order.created/order.created"),
            ("$$1 %-{msgid}", "$1 %-myid"),
        ] {
            assert_eq!(name(pattern, "order.created", &properties), expected, "{pattern}");
        }
        let default = Pattern::default();
        assert_eq!(default, Pattern::parse("${routing_key}-${unique}").unwrap());
        let unique = name("${unique}", "", &properties);
        assert!(unique.starts_with("1310652900123456-") && !unique.contains('.'), "{unique}");
        assert!(unique.len() <= UNIQUE_BYTES);
    }

    #[test]
    fn a_pattern_that_cannot_be_used_is_an_error_with_what_is_legal() {
        for (pattern, expected) in [
            ("${foo}", "unknown variable \"foo\": the variables are ${date}, ${msgid}"),
            ("{}", "unknown variable \"\""),
            ("${Date}", "unknown variable \"Date\""),
            ("a-${date", "the brace of \"${date\" is not closed"),
            ("{msgid", "the brace of \"{msgid\" is not closed"),
            ("${a/b}", "the brace of \"${a\" is not closed"),
            ("$date", "a '$' that belongs to no variable: the variables are ${date}"),
            ("date}", "a '}' that belongs to no variable"),
            ("", "must not be empty"),
            ("/etc/passwd", "must not be empty"),
            ("a//b", "must not be empty"),
            ("a/", "must not be empty"),
            ("../a", "nor begin with a dot: \"..\""),
            ("a/./b", "nor begin with a dot: \".\""),
            (".${unique}", "nor begin with a dot"),
            ("a\0b", "'\\0' is not allowed"),
            ("a\\b", "'\\\\' is not allowed"),
            ("a:b", "':' is not allowed"),
            (&"x".repeat(NAME_BYTES + 1), "may become longer than"),
            (&"${unique}".repeat(5), "may become longer than"),
        ] {
            let error = Pattern::parse(pattern).unwrap_err();
            assert!(error.to_string().contains(expected), "{pattern}: {error}");
            assert!(error.to_string().starts_with(&format!("pattern {pattern:?}: ")), "{error}");
        }
        let unknown = PatternError::Unknown { pattern: "{x}".into(), name: "x".into() };
        assert_eq!(Pattern::parse("{x}"), Err(unknown));
        assert!(Pattern::parse("{date}-{msgid}-{xfilename}-{routing_key}-{unique}").is_ok());
    }

    #[test]
    fn what_a_message_says_stays_within_its_name() {
        for (value, expected) in [
            ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd"),
            ("/etc/passwd", "%2Fetc%2Fpasswd"),
            (".", "%2E"),
            ("..", "%2E%2E"),
            (".hidden", "%2Ehidden"),
            ("a/b", "a%2Fb"),
            ("a\\b", "a%5Cb"),
            ("a%2Fb", "a%252Fb"),
            ("a\0b\n", "a%00b%0A"),
            ("C:", "C%3A"),
            ("end. ", "end.%20"),
            ("<id@host>", "%3Cid@host%3E"),
            ("Übergröße.xml", "Übergröße.xml"),
            ("${date}", "${date}"),
            ("x.header.xml", "x.%68eader.xml"),
            ("x.header", "x.%68eader"),
            ("x.HEADER", "x.%48EADER"),
            ("x.header.header", "x.%68eader.%68eader"),
            ("x.header.header.xml", "x.header.%68eader.xml"),
            (".header", "%2Eheader"),
            ("a~0123456789abcdef", "a%7E0123456789abcdef"),
            ("_", "%5F"),
            ("__", "__"),
        ] {
            assert_eq!(name("${xfilename}", "", &named(value)), expected);
            assert_eq!(name("${msgid}", "", &Properties::new().message_id(value)), expected);
            assert_eq!(name("${routing_key}", value, &Properties::new()), expected);
        }
        assert_eq!(name("x-${routing_key}-x", ".", &Properties::new()), "x-.-x");
        assert_eq!(name("${routing_key}", "", &Properties::new()), "_");
        assert_eq!(name("${msgid}~1", "", &Properties::new().message_id("~")), "%7E~1");
        // Nothing that is missing lets two messages have one name.
        let none = [Properties::new(), Properties::new().message_id(""), named(""), named(7)];
        let names = none.iter().flat_map(|none| {
            ["${msgid}.xml", "${xfilename}.xml"].map(|pattern| name(pattern, "", none))
        });
        let names: BTreeSet<_> = names.collect();
        assert_eq!(names.len(), 8);
        assert!(names.iter().all(|name| name.starts_with("1310652900123456-")), "{names:?}");
    }

    #[test]
    fn a_long_value_is_cut_and_has_a_hash() {
        let names: BTreeSet<_> = ["a", "b"]
            .into_iter()
            .map(|end| name("{xfilename}.xml", "", &named("Ü".repeat(5_000) + end)))
            .collect();
        assert_eq!(names.len(), 2);
        for name in names {
            assert!(name.len() <= NAME_BYTES && name.len() > NAME_BYTES - 5, "{name}");
            assert!(name.ends_with(".xml") && name.contains('~'));
            // No other value is written as it is.
            let again = super::file_name("{xfilename}", "", &named(&*name)).unwrap();
            assert_ne!(again, name);
            let (cut, _) = name.split_once('~').unwrap();
            assert_eq!(cut, "Ü".repeat(cut.matches('Ü').count()));
        }
    }

    #[test]
    fn a_header_has_the_name_of_its_body_with_header_before_the_extension() {
        for (name, expected) in [
            ("foo.xml", "foo.header.xml"),
            ("foo", "foo.header"),
            ("a.b/foo", "a.b/foo.header"),
            ("a.b/foo.tar.gz", "a.b/foo.tar.header.gz"),
            ("order.created-1-2", "order.header.created-1-2"),
            ("foo.", "foo.header."),
        ] {
            assert_eq!(header_name(name), expected);
            assert!(is_header_name(expected) && !is_header_name(name), "{name}");
        }
    }

    #[test]
    fn the_date_is_that_of_the_timestamp_or_today() {
        for (seconds, expected) in [
            (0, "1970-01-01"),
            (86_399, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_310_652_900, "2011-07-14"),
            (1_735_603_200, "2024-12-31"),
            (4_107_542_400, "2100-03-01"),
            (253_402_300_800, "10000-01-01"),
        ] {
            assert_eq!(date(seconds), expected);
            let properties = Properties::new().timestamp(seconds);
            assert_eq!(name("{date}", "", &properties), expected);
        }
        assert!(date(u64::MAX).len() <= DATE_BYTES);
        assert_eq!(name("{date}", "", &Properties::new()), "2011-07-14", "that of the clock");
    }

    #[test]
    fn unique_names_do_not_repeat_among_threads() {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(|| {
                    let pattern = Pattern::default();
                    let name = |_| pattern.name("key", &Properties::new());
                    (0..5_000).map(name).collect::<Vec<_>>()
                })
            })
            .collect();
        let names: BTreeSet<_> = threads.into_iter().flat_map(|it| it.join().unwrap()).collect();
        assert_eq!(names.len(), 20_000);
    }

    /// Any text is a name within the directory, and different texts have different names.
    #[test]
    fn no_text_of_a_message_leaves_its_directory() {
        let alphabet = [
            "/", "..", ".", "\0", "\\", "%", "%2F", "a", "~", "é", "𝄞", ".header", ".xml", " ",
            "$", "{", "_",
        ];
        let mut seed = 7_u64;
        let mut random = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(seed >> 33).unwrap() % below
        };
        let (mut values, mut names) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..20_000 {
            let length = match random(10) {
                0 => random(400),
                _ => random(8),
            };
            let value: String = (0..=length).map(|_| alphabet[random(alphabet.len())]).collect();
            let name = name("in/${xfilename}", "", &named(value.as_str()));
            let (directory, file) = name.split_once('/').unwrap();
            assert_eq!(directory, "in");
            assert!(!file.contains(['/', '\\', '\0']) && !file.starts_with('.'), "{name}");
            assert!(!file.is_empty() && !is_header_name(file), "{value:?}: {name}");
            assert!(header_name(file).len() <= 255, "{name}");
            values.insert(value);
            // Also where a file system ignores trailing dots and spaces.
            names.insert(file.trim_end_matches(['.', ' ']).to_owned());
        }
        assert_eq!(values.len(), names.len());
    }
}
