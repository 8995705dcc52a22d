//! Checks that bytes are an `event.Events`, and counts what decoding them would make, without
//! decoding: a few bytes on the wire can become hundreds in memory. Called by the `ingest`
//! door, before anything is kept.
//!
//! # Invariants
//! - It takes what prost's decoders take, so that everything journaled can be decoded on the way
//!   out; and nothing more (tests `takes_what_prost_takes`, `each_mistake_is_named`).
//! - It allocates nothing but a count for each type, and looks at each byte once (text twice).
//! - Each event counts once, under the type that `split` gives it (test
//!   `a_tally_agrees_with_the_split`).
//! - It stops at the first event or field beyond the bounds (test `bounds_end_the_scan`).

use super::descriptor::schema;
use super::tally::{Tally, TypeKey};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Fields of one request, all levels and elements of lists together. A decoded field takes
/// around a hundred bytes: with so many, a request takes some 50 MB while it is taken apart.
pub const FIELDS_MAX: usize = 500_000;

/// Levels of messages and groups within each other; prost's own bound.
const DEPTH_MAX: u32 = 100;

/// What a request holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// Its events.
    pub events: usize,
    /// They by type, for the ledger.
    pub tally: Tally,
    /// Its fields, on all levels.
    pub fields: usize,
    /// Whether there is a header.
    pub has_header: bool,
    /// Whether the header's device id is not empty.
    pub has_device_id: bool,
}

/// Why a request is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// It ends within a value, or a value is longer than what holds it.
    #[error("ends too early, at byte {0}")]
    Truncated(usize),
    /// A number that is no varint, or a key that is none.
    #[error("an invalid number at byte {0}")]
    BadNumber(usize),
    /// A field of another kind than its type has.
    #[error("a field of the wrong kind before byte {0}")]
    WrongKind(usize),
    /// Text that is not UTF-8.
    #[error("text that is not UTF-8 before byte {0}")]
    NotUtf8(usize),
    /// More levels within each other than anything here has.
    #[error("nested too deep at byte {0}")]
    TooDeep(usize),
    /// More events than one request may have; a smaller batch may be taken.
    #[error("more than {0} events")]
    TooManyEvents(usize),
    /// More fields than one request may have; a smaller batch may be taken.
    #[error("more than {0} fields")]
    TooManyFields(usize),
}

/// How a field stands on the wire.
#[derive(Debug, Clone, Copy)]
enum Form {
    Varint,
    Fixed32,
    Fixed64,
    Text,
    Bytes,
    /// A message, by its place in [`SHAPES`].
    Message(usize),
}

#[derive(Debug, Clone, Copy)]
struct Field {
    form: Form,
    is_list: bool,
    /// What an event with this field is.
    case: Option<TypeKey>,
}

/// A message's fields by number.
#[derive(Debug, Default)]
struct Shape(Vec<Option<Field>>);

impl Shape {
    fn field(&self, number: u32) -> Option<Field> {
        *self.0.get(usize::try_from(number).ok()?)?
    }
}

/// All messages that an `Events` can hold; the first is `Events`.
static SHAPES: LazyLock<Vec<Shape>> = LazyLock::new(|| {
    let mut places = BTreeMap::new();
    let mut shapes = Vec::new();
    place(&schema().events, &mut places, &mut shapes);
    shapes
});

/// Where a message's shape is, after it was made.
fn place(
    message: &MessageDescriptor,
    places: &mut BTreeMap<String, usize>,
    shapes: &mut Vec<Shape>,
) -> usize {
    if let Some(at) = places.get(message.full_name()) {
        return *at;
    }
    let at = shapes.len();
    places.insert(message.full_name().to_owned(), at);
    shapes.push(Shape::default());
    for field in message.fields() {
        let form = form(&field, places, shapes);
        let number = field.number() as usize;
        let known = &mut shapes[at].0;
        if known.len() <= number {
            known.resize(number + 1, None);
        }
        known[number] = Some(Field {
            form,
            is_list: field.is_list(),
            case: TypeKey::of_case(&field),
        });
    }
    at
}

fn form(
    field: &FieldDescriptor,
    places: &mut BTreeMap<String, usize>,
    shapes: &mut Vec<Shape>,
) -> Form {
    match field.kind() {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => Form::Fixed64,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => Form::Fixed32,
        Kind::Int32
        | Kind::Int64
        | Kind::Uint32
        | Kind::Uint64
        | Kind::Sint32
        | Kind::Sint64
        | Kind::Bool
        | Kind::Enum(_) => Form::Varint,
        Kind::String => Form::Text,
        Kind::Bytes => Form::Bytes,
        Kind::Message(message) => Form::Message(place(&message, places, shapes)),
    }
}

/// The place of `Events` in [`SHAPES`].
const EVENTS: usize = 0;

/// Numbers of the fields that the door asks about.
static NUMBERS: LazyLock<Numbers> = LazyLock::new(|| {
    let number = |message: &MessageDescriptor, name: &str| {
        let field = message.get_field_by_name(name);
        field.map_or(0, |field| field.number())
    };
    let header = schema().events.get_field_by_name("header");
    let device_id = header.as_ref().and_then(|header| match header.kind() {
        Kind::Message(message) => Some(number(&message, "deviceId")),
        _ => None,
    });
    Numbers {
        header: header.map_or(0, |header| header.number()),
        events: number(&schema().events, "events"),
        device_id: device_id.unwrap_or(0),
    }
});

struct Numbers {
    header: u32,
    events: u32,
    device_id: u32,
}

/// Looks through a request.
///
/// # Errors
/// What is wrong with it first; the two bounds are those of one request, and a retry with
/// fewer events in it may be taken.
pub fn request(bytes: &[u8], events_max: usize) -> Result<Found, ScanError> {
    let mut scan = Scan {
        bytes,
        at: 0,
        found: Found::default(),
        events_max,
        shapes: &SHAPES,
        numbers: &NUMBERS,
    };
    scan.message(EVENTS, bytes.len(), DEPTH_MAX, Part::Events)?;
    Ok(scan.found)
}

/// What of the request is looked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Events,
    Header,
    Other,
}

// Of keys (protobuf.dev/programming-guides/encoding).
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
const GROUP_START: u64 = 3;
const GROUP_END: u64 = 4;
const FIXED32: u64 = 5;

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    found: Found,
    events_max: usize,
    shapes: &'a [Shape],
    numbers: &'a Numbers,
}

impl Scan<'_> {
    /// One message, from here to `end`. `depth` is how many levels it may still open.
    fn message(
        &mut self,
        shape: usize,
        end: usize,
        depth: u32,
        part: Part,
    ) -> Result<(), ScanError> {
        while self.at < end {
            let (number, wire) = self.key(end)?;
            self.count()?;
            match self.shapes[shape].field(number) {
                Some(field) => self.field(field, number, wire, end, depth, part)?,
                None => self.skip(number, wire, end, depth)?,
            }
        }
        Ok(())
    }

    /// An event: a case that is known counts, the last one as in any decoder, and before
    /// anything that is not.
    fn event(&mut self, shape: usize, end: usize, depth: u32) -> Result<(), ScanError> {
        self.found.events += 1;
        if self.found.events > self.events_max {
            return Err(ScanError::TooManyEvents(self.events_max));
        }
        let mut is = TypeKey::NONE;
        while self.at < end {
            let (number, wire) = self.key(end)?;
            self.count()?;
            if let Some(field) = self.shapes[shape].field(number) {
                is = field.case.unwrap_or(is);
                self.field(field, number, wire, end, depth, Part::Other)?;
            } else {
                if is == TypeKey::NONE {
                    is = TypeKey::UNKNOWN;
                }
                self.skip(number, wire, end, depth)?;
            }
        }
        self.found.tally.add(is, 1);
        Ok(())
    }

    /// The value of a field that this build knows.
    fn field(
        &mut self,
        field: Field,
        number: u32,
        wire: u64,
        end: usize,
        depth: u32,
        part: Part,
    ) -> Result<(), ScanError> {
        if wire != form_wire(field.form) {
            return if wire == LENGTH && field.is_list {
                self.packed(field.form, end)
            } else {
                Err(ScanError::WrongKind(self.at))
            };
        }
        match field.form {
            Form::Varint => self.varint(end).map(drop),
            Form::Fixed32 => self.pass(4, end),
            Form::Fixed64 => self.pass(8, end),
            Form::Bytes => self.length(end).map(drop),
            Form::Text => {
                let text = self.length(end)?;
                if std::str::from_utf8(text).is_err() {
                    return Err(ScanError::NotUtf8(self.at));
                }
                let is_filled = !text.is_empty();
                if part == Part::Header && number == self.numbers.device_id {
                    // The last one counts, as in any decoder.
                    self.found.has_device_id = is_filled;
                }
                Ok(())
            }
            Form::Message(inner) => {
                let depth = depth.checked_sub(1).ok_or(ScanError::TooDeep(self.at))?;
                let inner_end = self.inner_end(end)?;
                match part {
                    Part::Events if number == self.numbers.events => {
                        self.event(inner, inner_end, depth)
                    }
                    Part::Events if number == self.numbers.header => {
                        self.found.has_header = true;
                        self.message(inner, inner_end, depth, Part::Header)
                    }
                    _ => self.message(inner, inner_end, depth, Part::Other),
                }
            }
        }
    }

    /// One more field.
    fn count(&mut self) -> Result<(), ScanError> {
        self.found.fields += 1;
        if self.found.fields > FIELDS_MAX {
            return Err(ScanError::TooManyFields(FIELDS_MAX));
        }
        Ok(())
    }

    /// Numbers of a list, one after the other without keys.
    fn packed(&mut self, form: Form, end: usize) -> Result<(), ScanError> {
        let end = self.inner_end(end)?;
        while self.at < end {
            self.count()?;
            match form {
                Form::Varint => {
                    self.varint(end)?;
                }
                Form::Fixed32 => self.pass(4, end)?,
                Form::Fixed64 => self.pass(8, end)?,
                Form::Text | Form::Bytes | Form::Message(_) => {
                    return Err(ScanError::WrongKind(self.at));
                }
            }
        }
        Ok(())
    }

    /// The value of a field that this build does not know.
    fn skip(&mut self, number: u32, wire: u64, end: usize, depth: u32) -> Result<(), ScanError> {
        if depth == 0 {
            return Err(ScanError::TooDeep(self.at));
        }
        match wire {
            VARINT => self.varint(end).map(drop),
            FIXED64 => self.pass(8, end),
            LENGTH => self.length(end).map(drop),
            FIXED32 => self.pass(4, end),
            GROUP_START => loop {
                let (inner, wire) = self.key(end)?;
                self.count()?;
                if wire == GROUP_END {
                    if inner != number {
                        return Err(ScanError::WrongKind(self.at));
                    }
                    return Ok(());
                }
                self.skip(inner, wire, end, depth - 1)?;
            },
            _ => Err(ScanError::WrongKind(self.at)),
        }
    }

    fn key(&mut self, end: usize) -> Result<(u32, u64), ScanError> {
        let at = self.at;
        let key = self.varint(end)?;
        let key = u32::try_from(key).map_err(|_| ScanError::BadNumber(at))?;
        let (number, wire) = (key >> 3, u64::from(key & 7));
        if number == 0 || wire > FIXED32 {
            return Err(ScanError::BadNumber(at));
        }
        Ok((number, wire))
    }

    fn varint(&mut self, end: usize) -> Result<u64, ScanError> {
        let from = self.at;
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(end)?;
            // The tenth byte has one bit left.
            if shift == 63 && byte > 1 {
                return Err(ScanError::BadNumber(from));
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(ScanError::BadNumber(from))
    }

    fn byte(&mut self, end: usize) -> Result<u8, ScanError> {
        let byte = (self.at < end).then(|| self.bytes.get(self.at).copied());
        let byte = byte.flatten().ok_or(ScanError::Truncated(self.at))?;
        self.at += 1;
        Ok(byte)
    }

    fn pass(&mut self, count: usize, end: usize) -> Result<(), ScanError> {
        if end - self.at < count {
            return Err(ScanError::Truncated(self.at));
        }
        self.at += count;
        Ok(())
    }

    /// Where a length-delimited value ends that begins here.
    fn inner_end(&mut self, end: usize) -> Result<usize, ScanError> {
        let length = self.varint(end)?;
        let room = (end - self.at) as u64;
        if length > room {
            return Err(ScanError::Truncated(self.at));
        }
        // It is at most the room, which is a usize.
        Ok(self.at + length as usize)
    }

    /// A length-delimited value.
    fn length(&mut self, end: usize) -> Result<&[u8], ScanError> {
        let inner_end = self.inner_end(end)?;
        let from = std::mem::replace(&mut self.at, inner_end);
        self.bytes
            .get(from..inner_end)
            .ok_or(ScanError::Truncated(from))
    }
}

fn form_wire(form: Form) -> u64 {
    match form {
        Form::Varint => VARINT,
        Form::Fixed32 => FIXED32,
        Form::Fixed64 => FIXED64,
        Form::Text | Form::Bytes | Form::Message(_) => LENGTH,
    }
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
