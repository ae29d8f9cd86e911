//! Messages: the level, the callbacks, and how the library itself logs.
//!
//! Invariant: the library logs through the public name `api_error` only, which asks the public
//! name `api_msg_get_level`, so that a neighbouring library that defines them governs both.

use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::atomic::{AtomicI32, Ordering};

const LEVEL_ERROR: c_int = 2;
const LEVEL_NORMAL: c_int = 4;

static LEVEL: AtomicI32 = AtomicI32::new(LEVEL_NORMAL);

/// `api_log_callback_t`, opaque here: its last argument is a `va_list`, so only C can call it.
pub type Callback = *mut c_void;

// variadic.c
unsafe extern "C" {
    fn fsqapi_error_body();
    fn fsqapi_log(level: c_int, err: c_int, text: *const c_char);
    fn fsqapi_error_callback_swap(callback: Callback) -> Callback;
    fn fsqapi_info_callback_swap(callback: Callback) -> Callback;
}

/// Tells a message: `api_error(level, err, fmt, ...)`. The jump hands all arguments, those that
/// Rust cannot name included, to the body in C.
///
/// # Safety
/// `fmt` is NULL or a format string, and behind it are the arguments that it names.
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn api_error(level: c_int, err: c_int, fmt: *const c_char) {
    #[cfg(target_arch = "x86_64")]
    std::arch::naked_asm!("jmp {body}", body = sym fsqapi_error_body);
    #[cfg(target_arch = "aarch64")]
    std::arch::naked_asm!("b {body}", body = sym fsqapi_error_body);
}

/// The level up to which messages are told.
#[unsafe(no_mangle)]
pub extern "C" fn api_msg_get_level() -> c_int {
    LEVEL.load(Ordering::Relaxed)
}

/// Sets the level up to which messages are told.
#[unsafe(no_mangle)]
pub extern "C" fn api_msg_set_level(level: c_int) {
    LEVEL.store(level, Ordering::Relaxed);
}

/// Sets who gets API_MSG_WARN and graver, NULL for standard error; returns who did before.
///
/// # Safety
/// `callback` is NULL or a function of the type `api_log_callback_t` that does not unwind.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn api_error_callback_set(callback: Callback) -> Callback {
    // SAFETY: only stores it.
    unsafe { fsqapi_error_callback_swap(callback) }
}

/// Sets who gets API_MSG_NORMAL and below, NULL for standard error; returns who did before.
///
/// # Safety
/// As for [`api_error_callback_set`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn api_info_callback_set(callback: Callback) -> Callback {
    // SAFETY: only stores it.
    unsafe { fsqapi_info_callback_swap(callback) }
}

/// Logs one of our own failures. The text says it all, so no errno is added to it.
pub(crate) fn error(text: &str) {
    let Ok(line) = CString::new(format!("libfsqapi: {}", text.replace('\0', "?"))) else { return };
    // SAFETY: `line` is a C string that outlives the call.
    unsafe { fsqapi_log(LEVEL_ERROR, 0, line.as_ptr()) };
}
