//! Exit codes and help of all commands, and options without effect.

use std::fs;

use crate::eval_command::{photo, run, text, trainer, voc};

#[test]
fn wrong_use_ends_with_exit_code_2_and_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("run.toml");
    fs::write(&settings, "steps = 3\n").unwrap();
    let (here, settings) = (text(folder.path()), text(&settings));
    let no_model = "error: missing --checkpoint or --clip\n";
    for (arguments, message) in [
        (vec!["eval", "segmentation", "--data", here, "--dataset", "voc20"], no_model),
        (vec!["eval", "classification", "--data", here], no_model),
        (vec!["eval", "retrieval", "--data", here], no_model),
        (vec!["eval", "retrieval", "--data", settings, "--clip", "x"], "add --images DIR"),
        (
            vec!["eval", "segmentation", "--data", here, "--dataset", "voc", "--check"],
            "option `dataset` is voc; it must be one of folder, voc20",
        ),
        (
            vec!["train", "--config", settings],
            "error: option `out` (run folder) is missing; add --set out=DIR\n",
        ),
        (
            vec!["train", "--config", settings, "--set", "seed=1", "--set", "text.widht=64"],
            "error: option `text.widht` is unknown; did you mean `text.width`?",
        ),
        (vec!["bench", "--config", settings, "--set", "stepz=1"], "did you mean `steps`?"),
        (vec!["bench", "--objectives", "clip", "--size", "100"], "needs a multiple of its patch size, 16 px"),
        (
            vec!["bench", "--precision", "float16"],
            "[possible values: auto, float32, bfloat16, bfloat16-vision, float8-vision]",
        ),
        (vec!["bench", "--device", "gpu"], "option `device` is gpu; it must be auto, cpu, cuda or cuda:N"),
        (
            vec!["segment", "x.jpg", "--out", "y", "--checkpoint", "z"],
            "missing --classes, --class-file or --refer",
        ),
        (vec!["classes", "--out", "y", "--checkpoint", "z"], "missing --classes or --class-file"),
        (vec!["eval", "referring", "--data", here], no_model),
        (
            vec!["pretrain", "--shards", here, "--out", "y", "--width", "65"],
            "option `--width` must be a multiple of 64",
        ),
        (vec!["embed", "--text", "a cat", "--out", "y"], "error: missing --checkpoint or --text-tower"),
    ] {
        let (code, printed) = trainer(&arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {printed}");
        assert!(printed.contains(message), "{arguments:?}: {printed}");
    }
    // What cannot be read is a failure, not wrong use.
    for (arguments, message) in [
        (vec!["train", "--config", "gone.toml"], "error: gone.toml does not exist\n"),
        (
            vec!["serve", "--checkpoint", "gone", "--words", "cat"],
            "error: gone does not exist; give a run folder",
        ),
        (vec!["eval", "table", "gone.json"], "error: gone.json does not exist\n"),
    ] {
        let (code, printed) = trainer(&arguments);
        assert_eq!((code, printed.contains(message)), (Some(1), true), "{arguments:?}: {printed}");
    }
}

/// Two options of which one has no effect beside the other: the user meant something else.
#[test]
fn no_option_is_ignored_silently() {
    let folder = tempfile::tempdir().unwrap();
    voc(folder.path(), 1);
    let here = text(folder.path());
    let voc20 = ["eval", "segmentation", "--data", here, "--dataset", "voc20", "--checkpoint", "run"];
    let own = ["eval", "segmentation", "--data", here, "--checkpoint", "run"];
    let retrieval = ["eval", "retrieval", "--data", here, "--checkpoint", "run"];
    let classification = ["eval", "classification", "--data", here, "--checkpoint", "run"];
    let embed = ["embed", "--out", "out"];
    let captions = [&embed[..], &["--text", "a cat"]].concat();
    let of_run = [&captions[..], &["--checkpoint", "run"]].concat();
    let cases: &[(&[&str], &[&str], &str)] = &[
        (&own, &["--quick-gelu"], "--quick-gelu & cannot be used with & --checkpoint"),
        (&retrieval, &["--quick-gelu"], "--quick-gelu & cannot be used with & --checkpoint"),
        (&own, &["--vision-heads", "2"], "--vision-heads & cannot be used with & --checkpoint"),
        (&classification, &["--text-heads", "2"], "--text-heads & cannot be used with & --checkpoint"),
        // Whole images have no patch features.
        (&classification, &["--dense", "values"], "unexpected argument '--dense'"),
        (&voc20, &["--threshold", "0.3"], "--threshold has an effect only with --background threshold"),
        (&voc20, &["--scale", "30"], "--scale has an effect only with --background threshold"),
        (&voc20, &["--worst", "3"], "--out <DIR>"),
        (&retrieval, &["--captions", "2"], "--images <DIR>"),
        (&of_run, &["--position", "timm"], "--position & cannot be used with & --checkpoint"),
        (&of_run, &["--denoiser", "x"], "--denoiser & cannot be used with & --checkpoint"),
        (&of_run, &["--heads", "4"], "--heads & cannot be used with & --checkpoint"),
        (&of_run, &["--size", "32"], "--image <FILES>"),
        (
            &captions,
            &["--text-tower", "t", "--vision", "v"],
            "--vision has an effect only with --image or --pixels",
        ),
        (
            &embed,
            &["--vision", "v", "--image", "i", "--text-tower", "t"],
            "--text-tower has an effect only with --text",
        ),
        (&["weights"], &["--out", "x"], "--from-url <URL>"),
        (&["weights"], &["--sha256", "0"], "--from-url <URL>"),
    ];
    for &(arguments, more, message) in cases {
        let (code, printed) = trainer(&[arguments, more].concat());
        assert_eq!(code, Some(2), "{arguments:?} {more:?}: {printed}");
        for part in message.split(" & ") {
            assert!(printed.contains(part), "{arguments:?} {more:?}: {printed}");
        }
    }
    fs::create_dir_all(folder.path().join("own/images")).unwrap();
    fs::create_dir_all(folder.path().join("own/masks")).unwrap();
    fs::write(folder.path().join("own/classes.txt"), "cat\n").unwrap();
    photo(0, 8, 8).save(folder.path().join("own/images/0.png")).unwrap();
    let folder = folder.path().join("own");
    let own = ["segmentation", "--data", text(&folder), "--split", "val", "--check"];
    assert!(run(&own).unwrap_err().contains("--split has an effect only with a published dataset"));
}

#[test]
fn help_lists_only_options_that_have_an_effect() {
    for (command, listed, absent) in [
        ("pca", "--stride", "--templates"),
        ("pca", "--size", "--class-vectors"),
        ("classes", "--templates", "--stride"),
        ("classes", "--class-file", "--size"),
        ("similarity", "--templates", "--classes"),
        ("eval retrieval", "--captions", "--templates"),
        ("eval classification", "--templates", "--captions"),
        ("eval segmentation", "--class-names", "--words"),
        ("serve", "--classes", "--words"),
        ("segment", "--class-file", "--words"),
        ("eval referring", "--precision", "--words"),
        ("score", "--device", "--precision"),
    ] {
        let (code, help) = trainer(&[&command.split(' ').collect::<Vec<_>>()[..], &["--help"]].concat());
        assert_eq!(code, Some(0), "{command}: {help}");
        let option = |name: &str| help.lines().any(|line| line.trim_start().starts_with(&format!("{name} ")));
        assert!(option(listed) && !option(absent), "{command}: {help}");
    }
    // Classification compares with captions, whatever trained the model.
    let (_, help) = trainer(&["eval", "classification", "--help"]);
    assert!(!help.contains("trained with simzss") && help.contains("[default: caption]"), "{help}");
}
