//! Compiles the few lines of C between libjpeg-turbo and `src/jpeg/`.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=src/jpeg/codec.c");
    let mut build = cc::Build::new();
    // Set by mozjpeg-sys, which builds the library.
    for folder in env::split_paths(&env::var_os("DEP_JPEG_INCLUDE").unwrap_or_default()) {
        build.include(folder);
    }
    build.file("src/jpeg/codec.c").compile("loader_jpeg");
}
