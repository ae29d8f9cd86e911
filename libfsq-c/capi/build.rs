//! Compiles the one function that stable Rust cannot define and names the shared library.

fn main() {
    println!("cargo::rerun-if-changed=src/variadic.c");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libfsqapi.so.1");
    cc::Build::new().file("src/variadic.c").std("c11").warnings(true).compile("fsqapi_variadic");
}
