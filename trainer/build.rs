//! Checks the libtorch that torch-sys found, compiles the C++ shim (cpp/) against it and tells the linker where
//! the programs look for it at run time.

use std::path::Path;
use std::{env, fs, process};

/// The libtorch that tch 0.24 was generated for.
const LIBTORCH: &str = "2.11.";

fn main() {
    println!("cargo:rerun-if-changed=cpp");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let Some(lib) = env::var("DEP_TCH_LIBTORCH_LIB").ok() else {
        stop(
            "torch-sys did not say where libtorch is; run tools/setup.sh or set LIBTORCH to a libtorch 2.11 folder",
        )
    };
    let Some(root) = Path::new(&lib).parent() else { stop(&format!("{lib} is no libtorch library folder")) };
    check_version(root);

    let include = root.join("include");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .warnings(false)
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        // Declarations of Gloo first: libtorch's headers name them, its wheel does not hold them.
        .include("cpp")
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .files(["cpp/shim.cpp", "cpp/collectives.cpp", "cpp/device.cpp", "cpp/profiler.cpp"])
        .compile("torch_shim");

    use_lld();
    // The .torch folder next to the checkout's target folder first, so that a moved checkout still runs, then the
    // libtorch this was built against.
    let program = if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "macos") {
        "@loader_path"
    } else {
        "$ORIGIN"
    };
    let near =
        ["../../.torch/torch/lib", "../../../.torch/torch/lib"].map(|folder| format!("{program}/{folder}"));
    for folder in near.iter().chain([&lib]) {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
    }
}

/// Links with rustc's own lld where it is not the default linker: GNU's follows libtorch.so to libtorch_cuda.so, whose own
/// dependencies are not installed.
fn use_lld() {
    let target = |name: &str| env::var(name).unwrap_or_default();
    if target("CARGO_CFG_TARGET_OS") != "linux" || target("CARGO_CFG_TARGET_ARCH") == "x86_64" {
        return;
    }
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let Ok(output) = process::Command::new(rustc).args(["--print", "sysroot"]).output() else { return };
    let sysroot = String::from_utf8_lossy(&output.stdout);
    let folder = Path::new(sysroot.trim()).join("lib/rustlib").join(target("TARGET")).join("bin/gcc-ld");
    if folder.is_dir() {
        println!("cargo:rustc-link-arg=-fuse-ld=lld");
        println!("cargo:rustc-link-arg=-B{}", folder.display());
    }
}

/// The Python wheel writes its version into version.py, the plain libtorch archive into build-version.
fn check_version(root: &Path) {
    let found = fs::read_to_string(root.join("version.py"))
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("__version__"))?;
            line.split('\'').nth(1).map(str::to_owned)
        })
        .or_else(|| fs::read_to_string(root.join("build-version")).ok());
    match found {
        Some(version) if version.trim().starts_with(LIBTORCH) => {}
        Some(version) => stop(&format!(
            "libtorch in {} is {}, and this needs {LIBTORCH}x; run tools/setup.sh or point LIBTORCH at one",
            root.display(),
            version.trim()
        )),
        None => stop(&format!(
            "{} has neither version.py nor build-version, so it is no libtorch; run tools/setup.sh",
            root.display()
        )),
    }
}

fn stop(why: &str) -> ! {
    eprintln!("error: {why}");
    process::exit(1)
}
