//! Checks which encoded properties RabbitMQ can read.

use amqp_proto::{RawProperties, ReplyCode, TABLE_DEPTH_MAX};

use super::refusal::Refusal;

/// Refuses properties for which RabbitMQ closes the connection: those that it cannot parse, and those with a type or a
/// number that it does not know. RabbitMQ does not check that texts are UTF-8, nor how deep tables are nested.
pub(super) fn check_properties(properties: RawProperties<'_>) -> Result<(), Refusal> {
    let readable = properties.decode().is_ok_and(|view| {
        view.headers.is_none_or(|headers| is_readable(headers.as_bytes(), true, TABLE_DEPTH_MAX))
    });
    if readable {
        return Ok(());
    }
    Err(Refusal::connection(ReplyCode::INTERNAL_ERROR, "properties that cannot be read"))
}

/// Returns whether RabbitMQ reads the fields of a table (`named`) or the values of an array. What is nested deeper than
/// `levels` is not checked.
fn is_readable(bytes: &[u8], named: bool, levels: usize) -> bool {
    let Some(inner) = levels.checked_sub(1) else { return true };
    let mut rest = bytes;
    while !rest.is_empty() {
        if named && take_name(&mut rest).is_none() {
            return false;
        }
        if take_value(&mut rest, inner) != Some(true) {
            return false;
        }
    }
    true
}

fn take_name(rest: &mut &[u8]) -> Option<()> {
    let [length] = take(rest)?;
    take_slice(rest, length.into())?;
    Some(())
}

/// Takes a value. Returns whether RabbitMQ reads it, `None` if it is truncated.
fn take_value(rest: &mut &[u8], levels: usize) -> Option<bool> {
    let [kind] = take(rest)?;
    Some(match kind {
        b'V' => true,
        b't' | b'b' | b'B' => take::<1>(rest).is_some(),
        b's' | b'u' => take::<2>(rest).is_some(),
        b'I' | b'i' => take::<4>(rest).is_some(),
        b'D' => take::<5>(rest).is_some(),
        b'l' | b'L' | b'T' => take::<8>(rest).is_some(),
        b'f' => f32::from_be_bytes(take(rest)?).is_finite(),
        b'd' => f64::from_be_bytes(take(rest)?).is_finite(),
        b'S' | b'x' | b'A' | b'F' => {
            let length = u32::from_be_bytes(take(rest)?);
            let value = take_slice(rest, length as usize)?;
            match kind {
                b'A' => is_readable(value, false, levels),
                b'F' => is_readable(value, true, levels),
                _ => true,
            }
        }
        _ => false,
    })
}

fn take<const COUNT: usize>(rest: &mut &[u8]) -> Option<[u8; COUNT]> {
    take_slice(rest, COUNT)?.try_into().ok()
}

fn take_slice<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}
