//! What both foreign ABIs are declared with: structures with their layout, symbol tables, and the
//! loading of a library.
//!
//! Invariant: a structure that compiles has exactly the offsets written beside its fields, and a
//! symbol table that exists is complete.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// Size, alignment and fields of a foreign structure, for tests that compare them with a table.
#[derive(Clone, Copy, Debug)]
pub struct StructLayout {
    /// The structure's name.
    pub name: &'static str,
    /// `sizeof`, bytes.
    pub size: usize,
    /// `_Alignof`, bytes.
    pub align: usize,
    /// Name, offset and size (bytes) of each field.
    pub fields: &'static [(&'static str, usize, usize)],
}

/// A foreign structure for which all bytes zero is a valid value.
///
/// # Safety
/// Implement it only for `repr(C)` types of integers, raw pointers, and arrays, structures and
/// unions of those.
pub unsafe trait Zeroed: Copy {
    /// The value with all bytes zero, padding included.
    #[must_use]
    fn zeroed() -> Self {
        // SAFETY: implementors promise that all bytes zero is a valid value.
        unsafe { std::mem::zeroed() }
    }
}

/// Declares `repr(C)` structures as `name = size, align { field: type = offset }` and refuses to
/// compile when the compiler lays one out differently; collects them all in `LAYOUTS`.
macro_rules! c_structs {
    ($($(#[$meta:meta])* struct $name:ident = $size:literal, $align:literal {
        $($field:ident: $ty:ty = $offset:literal,)+
    })+) => {
        $(
            $(#[$meta])*
            #[repr(C)]
            #[derive(Clone, Copy)]
            pub struct $name { $(pub $field: $ty,)+ }

            const _: () = {
                assert!(size_of::<$name>() == $size);
                assert!(align_of::<$name>() == $align);
                $(assert!(std::mem::offset_of!($name, $field) == $offset);)+
            };

            // SAFETY: only integers, raw pointers, and arrays, structures and unions of those.
            unsafe impl $crate::abi::Zeroed for $name {}
        )+

        /// Every structure above.
        pub const LAYOUTS: &[$crate::abi::StructLayout] = &[$(
            $crate::abi::StructLayout {
                name: stringify!($name),
                size: $size,
                align: $align,
                fields: &[$((stringify!($field), $offset, size_of::<$ty>()),)+],
            },
        )+];
    };
}
pub(crate) use c_structs;

/// Declares a table of function pointers, one field for each symbol of the same name, and its
/// resolution from a library, which fails with the names of all that are missing.
macro_rules! symbols {
    ($(#[$meta:meta])* struct $name:ident {
        $($(#[$field_meta:meta])* $symbol:ident: $ty:ty,)+
    }) => {
        $(#[$meta])*
        pub struct $name { $($(#[$field_meta])* pub $symbol: $ty,)+ }

        impl $name {
            /// Looks all symbols up.
            ///
            /// # Safety
            /// The library's functions of these names must have these signatures.
            pub(crate) unsafe fn resolve(
                library: &$crate::abi::Loaded,
            ) -> Result<Self, $crate::abi::LoadError> {
                let mut missing = Vec::new();
                $(
                    let $symbol = {
                        // SAFETY: the caller vouches for the signature; the pointer does not
                        // outlive the library, which is never unloaded.
                        unsafe { library.symbol::<$ty>(stringify!($symbol), &mut missing) }
                    };
                )+
                $(let Some($symbol) = $symbol else { return Err(library.lacks(missing)) };)+
                Ok(Self { $($symbol,)+ })
            }
        }
    };
}
pub(crate) use symbols;

/// Which library to load, and where it may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// What it is, for messages.
    pub(crate) what: &'static str,
    /// Environment variable that names the file instead.
    pub(crate) env: &'static str,
    /// File names tried in this order.
    pub(crate) candidates: &'static [&'static str],
    /// What to do when there is none.
    pub(crate) advice: &'static str,
}

/// Why a library could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// No candidate could be opened.
    #[error(
        "{what} cannot be loaded; tried {}; {advice}, or name the file in {env}",
        Tried(.tried)
    )]
    NotFound {
        /// What was wanted.
        what: &'static str,
        /// Each name tried and the dynamic linker's reason.
        tried: Vec<(PathBuf, String)>,
        /// What to do.
        advice: &'static str,
        /// Environment variable that names the file.
        env: &'static str,
    },
    /// The library lacks functions.
    #[error(
        "{what}: {} lacks {}; it is another library or too old a version",
        .path.display(),
        .missing.join(", ")
    )]
    Symbols {
        /// What was wanted.
        what: &'static str,
        /// The file that was opened.
        path: PathBuf,
        /// The functions it lacks.
        missing: Vec<String>,
    },
    /// A different file of this kind is in use by this process.
    #[error(
        "{what}: {} is loaded already and cannot be replaced by {} in the same process",
        .loaded.display(),
        .wanted.display()
    )]
    Loaded {
        /// What was wanted.
        what: &'static str,
        /// The file in use.
        loaded: PathBuf,
        /// The file asked for.
        wanted: PathBuf,
    },
}

struct Tried<'a>(&'a [(PathBuf, String)]);

impl fmt::Display for Tried<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (path, why)) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { ", " };
            write!(f, "{separator}{} ({why})", path.display())?;
        }
        Ok(())
    }
}

/// An open library; stays open for the life of the process.
pub(crate) struct Loaded {
    what: &'static str,
    path: PathBuf,
    library: std::mem::ManuallyDrop<libloading::Library>,
}

impl Loaded {
    /// Opens `explicit`, else the file that the environment names, else the first candidate that
    /// opens.
    ///
    /// # Safety
    /// Runs the constructors of the library and of those it depends on.
    pub(crate) unsafe fn open(wanted: &Wanted, explicit: Option<&Path>) -> Result<Self, LoadError> {
        let named = explicit.map(Path::to_path_buf).or_else(|| from_env(wanted.env));
        let names = named.map_or_else(
            || wanted.candidates.iter().map(PathBuf::from).collect::<Vec<_>>(),
            |path| vec![path],
        );
        let mut tried = Vec::new();
        for path in names {
            // SAFETY: the caller accepts the constructors.
            match unsafe { libloading::Library::new(&path) } {
                // Neither library documents that it survives dlclose: its threads and exit
                // handlers may go on.
                Ok(library) => {
                    let library = std::mem::ManuallyDrop::new(library);
                    return Ok(Self { what: wanted.what, path, library });
                }
                Err(error) => tried.push((path, reason(&error))),
            }
        }
        let Wanted { what, env, advice, .. } = *wanted;
        Err(LoadError::NotFound { what, tried, advice, env })
    }

    /// The file as it was named to the dynamic linker.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Address of a function, or `None` and its name in `missing`.
    ///
    /// # Safety
    /// `T` must be the function pointer type of that symbol.
    pub(crate) unsafe fn symbol<T: Copy>(
        &self,
        name: &'static str,
        missing: &mut Vec<String>,
    ) -> Option<T> {
        // SAFETY: the caller vouches for the type.
        match unsafe { self.library.get::<T>(name) } {
            Ok(symbol) => Some(*symbol),
            Err(_) => {
                missing.push(name.to_owned());
                None
            }
        }
    }

    /// The error for functions that are not there.
    pub(crate) fn lacks(&self, missing: Vec<String>) -> LoadError {
        LoadError::Symbols { what: self.what, path: self.path.clone(), missing }
    }
}

fn from_env(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from)
}

/// The linker's own words; the wrapper's text names only the call.
fn reason(error: &libloading::Error) -> String {
    let text =
        std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    text.trim().to_owned()
}

/// Copies `bytes` and the final NUL into a fixed array of C.
///
/// Returns false, and copies nothing, if they do not fit or contain a NUL.
#[must_use]
pub(crate) fn put_c_string(array: &mut [u8], bytes: &[u8]) -> bool {
    if bytes.len() >= array.len() || bytes.contains(&0) {
        return false;
    }
    let (text, rest) = array.split_at_mut(bytes.len());
    text.copy_from_slice(bytes);
    rest.fill(0);
    true
}

/// The bytes before the first NUL of a fixed array of C; all of it if there is none.
#[must_use]
pub(crate) fn c_string(array: &[u8]) -> &[u8] {
    let end = array.iter().position(|&byte| byte == 0).unwrap_or(array.len());
    &array[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(wanted: &Wanted, explicit: Option<&Path>) -> Vec<String> {
        // SAFETY: none of these files is a library.
        match unsafe { Loaded::open(wanted, explicit) }.err().expect("there is none") {
            LoadError::NotFound { tried, .. } => {
                tried.into_iter().map(|(path, _)| path.display().to_string()).collect()
            }
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_named_file_goes_before_the_environment_and_that_before_the_candidates() {
        // Set by Cargo for its tests, and surely no library.
        let env = "CARGO_MANIFEST_DIR";
        let directory = std::env::var(env).expect("run by Cargo");
        let candidates = &["libnone-a.so.1", "/nonexistent/libnone-b.so"];
        let unset = Wanted { what: "nothing", env: "NO_SUCH_VARIABLE", candidates, advice: "-" };
        assert_eq!(tried(&unset, None), candidates);
        let set = Wanted { env, ..unset };
        assert_eq!(tried(&set, None), [directory]);
        assert_eq!(tried(&set, Some(Path::new("/nonexistent/x.so"))), ["/nonexistent/x.so"]);
    }

    #[test]
    fn fixed_arrays_keep_their_final_nul() {
        let mut array = [0xff; 4];
        assert!(put_c_string(&mut array, b"abc"));
        assert_eq!(c_string(&array), b"abc");
        assert!(put_c_string(&mut array, b""));
        assert_eq!(array, [0; 4]);
        assert!(!put_c_string(&mut array, b"abcd"));
        assert!(!put_c_string(&mut array, b"a\0"));
        assert_eq!(c_string(b"full"), b"full");
    }
}
