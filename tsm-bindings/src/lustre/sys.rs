//! The raw C ABI of `liblustreapi.so` on x86-64: constants, structures, function types.
//!
//! Owns nothing but facts; [`super::result`] is what calls them. The HSM part of this interface
//! has been the same since Lustre 2.5. Invariant: every structure has the offsets noted at its
//! fields, or this file does not compile.

#![allow(non_camel_case_types, missing_docs)]

use std::ffi::{c_char, c_int};

use libc::mode_t;

use crate::abi::{c_structs, symbols};

/// Most files in one request: the kernel refuses 53, and Lustre's own tools stop here.
pub const FILES_PER_REQUEST_MAX: usize = 50;
/// Size of the buffers for paths and names that the library fills, bytes.
pub const PATH_BYTES: usize = 4096;

/// `hr_action`, `hca_action`: nothing.
pub const HUA_NONE: u32 = 1;
/// `hr_action`: copy to the archive.
pub const HUA_ARCHIVE: u32 = 10;
/// `hr_action`: copy back.
pub const HUA_RESTORE: u32 = 11;
/// `hr_action`: free the space in the file system.
pub const HUA_RELEASE: u32 = 12;
/// `hr_action`: remove from the archive.
pub const HUA_REMOVE: u32 = 13;
/// `hr_action`: forget a request.
pub const HUA_CANCEL: u32 = 14;
/// `hca_state`: in the queue; also that of a file without any request.
pub const HPS_WAITING: u32 = 1;
/// `hca_state`: with the copytool.
pub const HPS_RUNNING: u32 = 2;
/// `hus_states`: the archive may have a copy.
pub const HS_EXISTS: u32 = 0x01;
/// `hus_states`: changed since.
pub const HS_DIRTY: u32 = 0x02;
/// `hus_states`: its content is in the archive only.
pub const HS_RELEASED: u32 = 0x04;
/// `hus_states`: the archive has a complete copy.
pub const HS_ARCHIVED: u32 = 0x08;
/// `hus_states`: never to be released.
pub const HS_NORELEASE: u32 = 0x10;
/// `hus_states`: never to be archived.
pub const HS_NOARCHIVE: u32 = 0x20;
/// `hus_states`: the copy is lost.
pub const HS_LOST: u32 = 0x40;
/// `hr_flags`: also where it seems unnecessary.
pub const HR_FORCE_ACTION: u64 = 1;
/// `length` of an extent: to the end of the file.
pub const TO_THE_END: u64 = u64::MAX;
/// Stripe count or size: as the file system has it.
pub const LAYOUT_DEFAULT: u64 = 0x1000_0000_0000_0002;
/// Stripe count: one stripe on each OST.
pub const LAYOUT_WIDE: u64 = 0x1000_0000_0000_0003;
/// Stripe count: most that a file's layout can count, since all ones mean all OSTs.
pub const STRIPES_MAX: u16 = u16::MAX - 1;
/// Stripe sizes are multiples of this, bytes.
pub const STRIPE_UNIT_BYTES: u32 = 64 << 10;
/// Longest name of a pool, bytes.
pub const POOL_BYTES_MAX: usize = 15;
/// Level of `llapi_msg_set_level`: print nothing.
pub const MSG_OFF: c_int = 0;
/// Level of `llapi_msg_set_level`: print errors.
pub const MSG_ERROR: c_int = 2;
/// Level of `llapi_msg_set_level` at the start.
pub const MSG_NORMAL: c_int = 4;

c_structs! {
    /// Identity of a file. The library may treat it as unaligned, and only ever gets pointers.
    struct lu_fid = 16, 8 {
        f_seq: u64 = 0,
        f_oid: u32 = 8,
        f_ver: u32 = 12,
    }

    /// A part of a file.
    struct hsm_extent = 16, 8 {
        offset: u64 = 0,
        length: u64 = 8,
    }

    /// What the server knows of a file. It never fills the fields of work in progress.
    struct hsm_user_state = 32, 8 {
        hus_states: u32 = 0,
        hus_archive_id: u32 = 4,
        hus_in_progress_state: u32 = 8,
        hus_in_progress_action: u32 = 12,
        hus_in_progress_location: hsm_extent = 16,
    }

    /// Beginning of a request.
    struct hsm_request = 24, 8 {
        hr_action: u32 = 0,
        hr_archive_id: u32 = 4,
        hr_flags: u64 = 8,
        hr_itemcount: u32 = 16,
        hr_data_len: u32 = 20,
    }

    /// A file of a request.
    struct hsm_user_item = 32, 8 {
        hui_fid: lu_fid = 0,
        hui_extent: hsm_extent = 16,
    }

    /// A request with room for [`FILES_PER_REQUEST_MAX`] files; the count says how many there are.
    struct hsm_user_request = 1624, 8 {
        hur_request: hsm_request = 0,
        hur_user_item: [hsm_user_item; FILES_PER_REQUEST_MAX] = 24,
    }

    /// The request that a file is in.
    struct hsm_current_action = 24, 8 {
        hca_state: u32 = 0,
        hca_action: u32 = 4,
        hca_location: hsm_extent = 8,
    }
}

symbols! {
    /// The functions that this crate calls.
    struct Symbols {
        llapi_search_mounts:
            unsafe extern "C" fn(*const c_char, c_int, *mut c_char, *mut c_char) -> c_int,
        llapi_search_fsname: unsafe extern "C" fn(*const c_char, *mut c_char) -> c_int,
        llapi_path2fid: unsafe extern "C" fn(*const c_char, *mut lu_fid) -> c_int,
        llapi_fd2fid: unsafe extern "C" fn(c_int, *mut lu_fid) -> c_int,
        llapi_hsm_request:
            unsafe extern "C" fn(*const c_char, *const hsm_user_request) -> c_int,
        llapi_hsm_state_get: unsafe extern "C" fn(*const c_char, *mut hsm_user_state) -> c_int,
        llapi_hsm_state_get_fd: unsafe extern "C" fn(c_int, *mut hsm_user_state) -> c_int,
        llapi_hsm_current_action:
            unsafe extern "C" fn(*const c_char, *mut hsm_current_action) -> c_int,
        llapi_msg_set_level: unsafe extern "C" fn(c_int),
    }
}

/// A layout in the making; only the library looks inside.
#[repr(C)]
pub struct llapi_layout {
    _inside: [u8; 0],
}

symbols! {
    /// The functions that give new files a layout, since Lustre 2.7. All of them return -1 or null
    /// and set `errno`.
    struct LayoutSymbols {
        llapi_layout_alloc: unsafe extern "C" fn() -> *mut llapi_layout,
        llapi_layout_free: unsafe extern "C" fn(*mut llapi_layout),
        llapi_layout_stripe_count_set: unsafe extern "C" fn(*mut llapi_layout, u64) -> c_int,
        llapi_layout_stripe_size_set: unsafe extern "C" fn(*mut llapi_layout, u64) -> c_int,
        llapi_layout_pool_name_set:
            unsafe extern "C" fn(*mut llapi_layout, *const c_char) -> c_int,
        llapi_layout_file_open:
            unsafe extern "C" fn(*const c_char, c_int, mode_t, *const llapi_layout) -> c_int,
    }
}
