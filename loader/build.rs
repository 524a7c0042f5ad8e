//! Compiles the C code between libjpeg-turbo and `src/jpeg/`.

use std::env;

fn main() {
    const FILES: [&str; 3] = ["src/jpeg/codec.c", "src/jpeg/codes.c", "src/jpeg/entropy.c"];
    for file in FILES.iter().chain(&["src/jpeg/codes.h", "src/jpeg/entropy.h"]) {
        println!("cargo:rerun-if-changed={file}");
    }
    let mut build = cc::Build::new();
    // mozjpeg-sys, which builds the library, sets this variable.
    for folder in env::split_paths(&env::var_os("DEP_JPEG_INCLUDE").unwrap_or_default()) {
        build.include(folder);
    }
    build.files(FILES).compile("loader_jpeg");
}
