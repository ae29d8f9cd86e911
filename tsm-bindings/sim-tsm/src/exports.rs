//! The exported functions, and how they read and write what C programs hand them.
//!
//! Invariant: a pointer is read or written only after it has been checked for null, and never
//! beyond what the structure version or the length that came with it allows.

#![expect(unreachable_pub, reason = "reached by their C names, not through the modules")]

mod get;
mod query;
mod send;
mod sign_on;

use std::ffi::{CStr, c_char};

use tsm_bindings::tsm::sys;

use crate::rc;
use crate::store::Name;

/// A return code from a result.
fn code(result: Result<(), i16>) -> i16 {
    result.err().unwrap_or(rc::OK)
}

/// A C string, `None` where the pointer is null.
///
/// # Safety
/// Null, or a C string.
unsafe fn text(pointer: *const c_char) -> Option<Vec<u8>> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    Some(unsafe { CStr::from_ptr(pointer) }.to_bytes().to_vec())
}

/// A structure, or this code where the pointer is null.
///
/// # Safety
/// Null, or pointing to a `T`.
unsafe fn read<T: Copy>(pointer: *const T, otherwise: i16) -> Result<T, i16> {
    if pointer.is_null() {
        return Err(otherwise);
    }
    // SAFETY: the caller's promise; C programs may not have aligned it.
    Ok(unsafe { pointer.read_unaligned() })
}

/// Text into a fixed array, cut to what fits with its NUL.
///
/// # Safety
/// Points to an array of this size.
unsafe fn put<const N: usize>(array: *mut [u8; N], text: &[u8]) {
    let mut bytes = [0; N];
    let used = text.len().min(N - 1);
    bytes[..used].copy_from_slice(&text[..used]);
    // SAFETY: the caller's promise.
    unsafe { array.write_unaligned(bytes) };
}

/// The text of a fixed array, or this code where it has no end.
fn fixed<const N: usize>(array: &[u8; N], otherwise: i16) -> Result<Vec<u8>, i16> {
    let end = array.iter().position(|&byte| byte == 0).ok_or(otherwise)?;
    Ok(array[..end].to_vec())
}

/// The name of an object that is sent: complete, and without wildcards.
///
/// # Safety
/// Null, or pointing to the structure.
unsafe fn object_name(pointer: *const sys::dsmObjName) -> Result<(Name, u8), i16> {
    // SAFETY: the caller's promise.
    let raw = unsafe { read(pointer, rc::NULL_OBJNAME)? };
    let name = Name {
        fs: fixed(&raw.fs, rc::FILESPACE_TOOLONG)?,
        hl: fixed(&raw.hl, rc::HL_TOOLONG)?,
        ll: fixed(&raw.ll, rc::LL_TOOLONG)?,
    };
    if !matches!(raw.objType, sys::OBJ_FILE | sys::OBJ_DIRECTORY) {
        return Err(rc::INVALID_OBJTYPE);
    }
    check_delimiters(&name)?;
    if [&name.fs, &name.hl, &name.ll].iter().any(|part| part.iter().any(|b| b"*?".contains(b))) {
        return Err(rc::WILDCHAR_NOTALLOWED);
    }
    Ok((name, raw.objType))
}

fn check_delimiters(name: &Name) -> Result<(), i16> {
    for (part, otherwise) in [
        (&name.fs, rc::INVALID_FSNAME),
        (&name.hl, rc::INVALID_HLNAME),
        (&name.ll, rc::INVALID_LLNAME),
    ] {
        if part.first() != Some(&b'/') {
            return Err(otherwise);
        }
    }
    Ok(())
}

/// The buffer that a data block describes.
struct Block {
    pointer: *mut sys::DataBlk,
    buffer: *mut u8,
    bytes: usize,
}

impl Block {
    /// # Safety
    /// Null, or pointing to a data block whose buffer has the length it says.
    unsafe fn new(pointer: *mut sys::DataBlk) -> Result<Self, i16> {
        // SAFETY: the caller's promise.
        let block = unsafe { read(pointer, rc::NULL_DATABLKPTR)? };
        if block.stVersion > 3 {
            return Err(rc::WRONG_VERSION_PARM);
        }
        if block.bufferLen == 0 {
            return Err(rc::ZERO_BUFLEN);
        }
        if block.bufferPtr.is_null() {
            return Err(rc::NULL_BUFPTR);
        }
        let (buffer, bytes) = (block.bufferPtr.cast::<u8>(), block.bufferLen as usize);
        Ok(Self { pointer, buffer, bytes })
    }

    fn data(&self) -> &[u8] {
        // SAFETY: `new` was promised that the buffer has this length.
        unsafe { std::slice::from_raw_parts(self.buffer, self.bytes) }
    }

    fn room(&mut self) -> &mut [u8] {
        // SAFETY: as above; the buffer is the caller's to be filled.
        unsafe { std::slice::from_raw_parts_mut(self.buffer, self.bytes) }
    }

    fn set_bytes(&mut self, bytes: usize) {
        // SAFETY: `new` was promised a data block.
        unsafe { (&raw mut (*self.pointer).numBytes).write_unaligned(bytes as u32) };
    }

    /// Copies the beginning of a structure into the buffer.
    fn fill<T: Copy>(&mut self, value: &T, bytes: usize) -> Result<(), i16> {
        assert!(bytes <= size_of::<T>(), "no more than there is");
        if self.bytes < bytes {
            return Err(rc::BUFF_TOO_SMALL);
        }
        let from = std::ptr::from_ref(value).cast::<u8>();
        // SAFETY: both sides have at least this many bytes and cannot overlap.
        unsafe { std::ptr::copy_nonoverlapping(from, self.buffer, bytes) };
        self.set_bytes(bytes);
        Ok(())
    }

    /// The version that the structure in the buffer claims to have.
    fn claimed_version(&self) -> Result<u16, i16> {
        match *self.data() {
            [low, high, ..] => Ok(u16::from_le_bytes([low, high])),
            _ => Err(rc::BUFF_TOO_SMALL),
        }
    }
}

/// Days since 1970 of a date in the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March here, so that the leap day is the last day of one.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date of so many seconds since 1970.
fn date(seconds: u64) -> sys::dsmDate {
    let (day, second) = ((seconds / 86_400) as i64, seconds % 86_400);
    // The first guess at the year is at most one too high.
    let mut year = 1970 + day / 365;
    while days(year, 1, 1) > day {
        year -= 1;
    }
    let month = (1..=12).rev().find(|&month| days(year, month, 1) <= day).unwrap_or(1);
    sys::dsmDate {
        year: year as u16,
        month: month as u8,
        day: (day - days(year, month, 1) + 1) as u8,
        hour: (second / 3600) as u8,
        minute: (second / 60 % 60) as u8,
        second: (second % 60) as u8,
    }
}

/// Seconds since 1970 of a bound; those that stand for none are beyond all times.
fn seconds(date: sys::dsmDate) -> u64 {
    if date.year < 1970 {
        return 0;
    }
    let day = days(date.year.into(), date.month.max(1).into(), date.day.max(1).into());
    let second = u64::from(date.hour) * 3600 + u64::from(date.minute) * 60;
    day as u64 * 86_400 + second + u64::from(date.second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (at, expected) in [
            (0, (1970, 1, 1, 0, 0, 0)),
            (951_782_399, (2000, 2, 28, 23, 59, 59)),
            (951_782_400, (2000, 2, 29, 0, 0, 0)),
            (951_868_800, (2000, 3, 1, 0, 0, 0)),
            (1_735_689_599, (2024, 12, 31, 23, 59, 59)),
            (4_107_542_400, (2100, 3, 1, 0, 0, 0)),
        ] {
            let d = date(at);
            assert_eq!((d.year, d.month, d.day, d.hour, d.minute, d.second), expected, "{at}");
            assert_eq!(seconds(d), at);
        }
    }
}
