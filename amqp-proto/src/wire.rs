//! Decodes and encodes the elementary types of the wire format.
//!
//! Consecutive bits of a method share octets, lowest bit first. Any other field starts a new octet. So reader
//! and writer keep the position within the current octet of bits.
//!
//! Parsers have nom's signature. The two primitives are custom: nom's numbers are read byte by byte, and its
//! `take` is not inlined. For a delivery, that would cost as much as the rest of its method.

use alloc::vec::Vec;

use nom::IResult;
use nom::combinator::{flat_map, map};

use crate::{Malformed, RawTable, ShortStr};

/// The elementary types, as the specification names them (AMQP 0-9-1, 4.2.5 and the XML's domains).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Domain {
    /// One bit, packed with its neighbours.
    Bit,
    /// 8 bits.
    Octet,
    /// 16 bits.
    Short,
    /// 32 bits.
    Long,
    /// 64 bits.
    LongLong,
    /// At most 255 bytes.
    ShortStr,
    /// At most 2^32 - 1 bytes.
    LongStr,
    /// A field table.
    Table,
}

/// A field that the specification reserves: ignored when read, zero when written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserved<T>(core::marker::PhantomData<T>);

/// One field of a method.
pub(crate) trait Field<'a>: Sized {
    const DOMAIN: Domain;
    const RESERVED: bool = false;
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed>;
    fn write(&self, writer: &mut Writer<'_>);
}

/// The domain of a field's type, for the table of methods as data.
pub(crate) const fn domain<'a, T: Field<'a>>() -> Domain {
    T::DOMAIN
}

/// Whether a field's type is [`Reserved`], for the table of methods as data.
pub(crate) const fn is_reserved<'a, T: Field<'a>>() -> bool {
    T::RESERVED
}

pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    bits: u8,
    next_bit: u8,
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, bits: 0, next_bit: 0 }
    }

    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes that are not read yet.
    #[inline]
    pub(crate) const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Refuses bytes after the last field.
    #[inline]
    pub(crate) const fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::TrailingBytes) }
    }

    #[inline]
    pub(crate) fn octet(&mut self) -> Result<u8, Malformed> {
        self.parse(map(array, u8::from_be_bytes))
    }

    #[inline]
    pub(crate) fn short(&mut self) -> Result<u16, Malformed> {
        self.parse(map(array, u16::from_be_bytes))
    }

    #[inline]
    pub(crate) fn long(&mut self) -> Result<u32, Malformed> {
        self.parse(map(array, u32::from_be_bytes))
    }

    #[inline]
    pub(crate) fn long_long(&mut self) -> Result<u64, Malformed> {
        self.parse(map(array, u64::from_be_bytes))
    }

    #[inline]
    pub(crate) fn short_str(&mut self) -> Result<ShortStr<'a>, Malformed> {
        let bytes = self.parse(flat_map(array, |[length]| bytes(length.into())))?;
        ShortStr::from_bytes(bytes).map_err(|_| Malformed::Truncated)
    }

    #[inline]
    pub(crate) fn long_str(&mut self) -> Result<&'a [u8], Malformed> {
        self.parse(flat_map(array, |length| bytes(u32::from_be_bytes(length) as usize)))
    }

    #[inline]
    fn bit(&mut self) -> Result<bool, Malformed> {
        if self.next_bit == 0 {
            self.bits = self.octet()?;
        }
        let value = self.bits & (1 << self.next_bit) != 0;
        self.next_bit = (self.next_bit + 1) % 8;
        Ok(value)
    }

    /// Everything inside an envelope is bounded, so that any failure of a parser means "cut short".
    #[inline]
    fn parse<T>(
        &mut self,
        mut parser: impl nom::Parser<&'a [u8], Output = T, Error = ()>,
    ) -> Result<T, Malformed> {
        self.next_bit = 0;
        let (rest, value) = parser.parse(self.rest).map_err(|_| Malformed::Truncated)?;
        self.rest = rest;
        Ok(value)
    }
}

/// A fixed number of bytes.
#[inline]
fn array<const N: usize>(input: &[u8]) -> IResult<&[u8], [u8; N], ()> {
    let (value, rest) = input.split_first_chunk().ok_or(nom::Err::Error(()))?;
    Ok((rest, *value))
}

/// So many bytes.
#[inline]
fn bytes(length: usize) -> impl Fn(&[u8]) -> IResult<&[u8], &[u8], ()> {
    move |input| {
        let (value, rest) = input.split_at_checked(length).ok_or(nom::Err::Error(()))?;
        Ok((rest, value))
    }
}

pub(crate) struct Writer<'o> {
    out: &'o mut Vec<u8>,
    next_bit: u8,
}

impl<'o> Writer<'o> {
    #[inline]
    pub(crate) const fn new(out: &'o mut Vec<u8>) -> Self {
        Self { out, next_bit: 0 }
    }

    #[inline]
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.next_bit = 0;
        self.out.extend_from_slice(bytes);
    }

    #[inline]
    pub(crate) fn short_str(&mut self, text: ShortStr<'_>) {
        // A `ShortStr` cannot be longer than its length octet can say.
        self.bytes(&[text.len() as u8]);
        self.bytes(text.as_bytes());
    }

    /// The caller vouches that the length fits: see `frame::write_method`.
    #[inline]
    fn long_str(&mut self, bytes: &[u8]) {
        self.bytes(&(bytes.len() as u32).to_be_bytes());
        self.bytes(bytes);
    }

    #[inline]
    fn bit(&mut self, value: bool) {
        if self.next_bit == 0 {
            self.out.push(0);
        }
        if let Some(last) = self.out.last_mut() {
            *last |= u8::from(value) << self.next_bit;
        }
        self.next_bit = (self.next_bit + 1) % 8;
    }
}

impl<'a> Field<'a> for bool {
    const DOMAIN: Domain = Domain::Bit;
    #[inline]
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        reader.bit()
    }
    #[inline]
    fn write(&self, writer: &mut Writer<'_>) {
        writer.bit(*self);
    }
}

macro_rules! number_field {
    ($type:ty, $domain:ident, $read:ident) => {
        impl<'a> Field<'a> for $type {
            const DOMAIN: Domain = Domain::$domain;
            #[inline]
            fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
                reader.$read()
            }
            #[inline]
            fn write(&self, writer: &mut Writer<'_>) {
                writer.bytes(&self.to_be_bytes());
            }
        }
    };
}

number_field!(u8, Octet, octet);
number_field!(u16, Short, short);
number_field!(u32, Long, long);
number_field!(u64, LongLong, long_long);

impl<'a> Field<'a> for ShortStr<'a> {
    const DOMAIN: Domain = Domain::ShortStr;
    #[inline]
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        reader.short_str()
    }
    #[inline]
    fn write(&self, writer: &mut Writer<'_>) {
        writer.short_str(*self);
    }
}

impl<'a> Field<'a> for &'a [u8] {
    const DOMAIN: Domain = Domain::LongStr;
    #[inline]
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        reader.long_str()
    }
    #[inline]
    fn write(&self, writer: &mut Writer<'_>) {
        writer.long_str(self);
    }
}

impl<'a> Field<'a> for RawTable<'a> {
    const DOMAIN: Domain = Domain::Table;
    #[inline]
    fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        reader.long_str().map(RawTable::new)
    }
    #[inline]
    fn write(&self, writer: &mut Writer<'_>) {
        writer.long_str(self.as_bytes());
    }
}

macro_rules! reserved_field {
    ($type:ty, $domain:ident, $read:ident, $zero:expr) => {
        impl<'a> Field<'a> for Reserved<$type> {
            const DOMAIN: Domain = Domain::$domain;
            const RESERVED: bool = true;
            #[inline]
            fn read(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
                reader.$read()?;
                Ok(Self::default())
            }
            #[inline]
            fn write(&self, writer: &mut Writer<'_>) {
                Field::write(&$zero, writer);
            }
        }
    };
}

reserved_field!(bool, Bit, bit, false);
reserved_field!(u16, Short, short, 0_u16);
reserved_field!(ShortStr<'static>, ShortStr, short_str, ShortStr::EMPTY);
reserved_field!(&'static [u8], LongStr, long_str, [0_u8; 0].as_slice());
