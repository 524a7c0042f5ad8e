//! Compiles `src/codec.c`, the C code between libjpeg-turbo and `src/ffi.rs`.

use std::env;

fn main() {
    const FILE: &str = "src/codec.c";
    println!("cargo:rerun-if-changed={FILE}");
    let mut build = cc::Build::new();
    // mozjpeg-sys, which builds the library, sets this variable.
    for folder in env::split_paths(&env::var_os("DEP_JPEG_INCLUDE").unwrap_or_default()) {
        build.include(folder);
    }
    build.file(FILE).compile("simzss_jpeg");
}
