//! The binary `fsq-bench`; everything is in the library, where tests reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    fsq_bench::cli::main()
}
